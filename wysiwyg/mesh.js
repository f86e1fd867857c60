// A mesh that turns: triangles with a depth buffer on one canvas, without a library or a graphics card.
// `mesh`: places (16 bit, of the box `low` to `high`), colours (8 bit, or none) and corners of faces (32 bit).

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

function unpacked({ places, colors, faces, low, high }) {
  const at = Float32Array.from(new Uint16Array(bytes(places).buffer), (v, i) => low[i % 3] + (v / 65535) * (high[i % 3] - low[i % 3]));
  const corners = new Uint32Array(bytes(faces).buffer), middle = low.map((v, k) => (v + high[k]) / 2);
  for (let i = 0; i < at.length; i++) at[i] -= middle[i % 3];
  return { at, corners, paint: colors ? bytes(colors) : new Uint8Array(at.length).fill(200), normals: normalsOf(at, corners), radius: Math.hypot(...high.map((v, k) => v - low[k])) / 2 };
}

// Of vertices: the sum of their faces' normals, each as long as twice its area.
function normalsOf(at, corners) {
  const out = new Float32Array(at.length), edge = (a, b) => [0, 1, 2].map((k) => at[3 * b + k] - at[3 * a + k]);
  for (let f = 0; f < corners.length; f += 3) {
    const [a, b, c] = corners.subarray(f, f + 3), u = edge(a, b), v = edge(a, c);
    const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const i of [a, b, c]) for (let k = 0; k < 3; k++) out[3 * i + k] += n[k];
  }
  for (let i = 0; i < out.length; i += 3) {
    const size = Math.hypot(out[i], out[i + 1], out[i + 2]) || 1;
    for (let k = 0; k < 3; k++) out[i + k] /= size;
  }
  return out;
}

// x to the right, y up, z to the eye, after a turn about y and then about x.
function turn([x, y, z], [cosY, sinY, cosX, sinX]) {
  const depth = -sinY * x + cosY * z;
  return [cosY * x + sinY * z, cosX * y - sinX * depth, sinX * y + cosX * depth];
}

function drawMesh(canvas, mesh, { yaw, pitch, zoom, show }) {
  const side = canvas.width, g = canvas.getContext('2d'), image = g.createImageData(side, side), out = image.data;
  const angles = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)], scale = (zoom * side) / 2 / mesh.radius;
  const count = mesh.at.length / 3, X = new Float32Array(count), Y = new Float32Array(count), Z = new Float32Array(count), C = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    const [x, y, z] = turn(mesh.at.subarray(3 * i, 3 * i + 3), angles), n = turn(mesh.normals.subarray(3 * i, 3 * i + 3), angles);
    X[i] = side / 2 + scale * x; Y[i] = side / 2 - scale * y; Z[i] = z;
    const light = 0.4 + 0.6 * Math.max(0, n[2]); // a lamp at the eye
    for (let k = 0; k < 3; k++) C[3 * i + k] = show === 'normals' ? 127.5 * (1 + n[k]) : light * (show === 'colours' ? mesh.paint[3 * i + k] : 200);
  }
  const near = new Float32Array(side * side).fill(-Infinity);
  out.fill(255);
  for (let f = 0; f < mesh.corners.length; f += 3) {
    const a = mesh.corners[f], b = mesh.corners[f + 1], c = mesh.corners[f + 2];
    const area = (X[b] - X[a]) * (Y[c] - Y[a]) - (X[c] - X[a]) * (Y[b] - Y[a]);
    if (area >= 0) continue; // seen from behind: on the screen y goes down
    const x1 = Math.min(side - 1, Math.floor(Math.max(X[a], X[b], X[c]))), y1 = Math.min(side - 1, Math.floor(Math.max(Y[a], Y[b], Y[c])));
    for (let y = Math.max(0, Math.ceil(Math.min(Y[a], Y[b], Y[c]))); y <= y1; y++) {
      for (let x = Math.max(0, Math.ceil(Math.min(X[a], X[b], X[c]))); x <= x1; x++) {
        const u = ((X[b] - x) * (Y[c] - y) - (X[c] - x) * (Y[b] - y)) / area, v = ((X[c] - x) * (Y[a] - y) - (X[a] - x) * (Y[c] - y)) / area, w = 1 - u - v;
        if (u < 0 || v < 0 || w < 0) continue;
        const z = u * Z[a] + v * Z[b] + w * Z[c], p = y * side + x;
        if (z <= near[p]) continue;
        near[p] = z;
        for (let k = 0; k < 3; k++) out[4 * p + k] = u * C[3 * a + k] + v * C[3 * b + k] + w * C[3 * c + k];
      }
    }
  }
  g.putImageData(image, 0, 0);
}

function meshPage(packed, el) {
  const mesh = unpacked(packed), start = { yaw: 0, pitch: 0, zoom: 1, show: packed.colors ? 'colours' : 'shape' }, view = { ...start };
  const canvas = document.createElement('canvas'), bar = document.createElement('div');
  let waiting = null;
  function draw() {
    waiting = null;
    drawMesh(canvas, mesh, view);
    buttons.forEach((b) => b.setAttribute('aria-pressed', b.textContent === view.show));
  }
  const change = (x) => {
    Object.assign(view, x);
    view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch));
    view.zoom = Math.max(0.5, Math.min(8, view.zoom));
    waiting = waiting || requestAnimationFrame(draw);
  };
  const buttons = [...(packed.colors ? ['colours'] : []), 'shape', 'normals', 'reset'].map((name) => {
    const button = document.createElement('button');
    button.textContent = name;
    button.onclick = () => change(name === 'reset' ? start : { show: name });
    return button;
  });
  canvas.width = canvas.height = Math.max(240, Math.min(innerWidth - 40, innerHeight - 90, 560));
  Object.assign(canvas, { tabIndex: 0, onwheel: (e) => { e.preventDefault(); change({ zoom: view.zoom * Math.exp(-e.deltaY / 500) }); } });
  canvas.setAttribute('aria-label', 'a mesh: drag or arrows turn it, the wheel or + and - bring it nearer');
  canvas.onpointerdown = (e) => { canvas.setPointerCapture(e.pointerId); canvas.focus(); };
  canvas.onpointermove = (e) => { if (e.buttons & 1) change({ yaw: view.yaw + e.movementX / 100, pitch: view.pitch + e.movementY / 100 }); };
  const keys = { ArrowLeft: { yaw: -0.1 }, ArrowRight: { yaw: 0.1 }, ArrowUp: { pitch: -0.1 }, ArrowDown: { pitch: 0.1 }, '+': { zoom: 0.2 }, '-': { zoom: -0.2 } };
  canvas.onkeydown = (e) => { if (keys[e.key]) { e.preventDefault(); change(Object.fromEntries(Object.entries(keys[e.key]).map(([name, by]) => [name, view[name] + by]))); } };
  bar.append(...buttons);
  el.append(bar, canvas);
  draw();
}
