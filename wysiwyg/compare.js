// Several generators before one camera: their pictures, and under each the strip of one row. Needs live.js before it.

const LINKED_KEYS = 'Drag a picture: all cameras. Click it: the row of the strips. Arrows: camera. Page up, page down: row. R: reset. ?: keys.';

function render({ model, el }) {
  const root = styled(el), ask = asker(model, root, draw), { box, refresh, reset } = controls(model, ask);
  const help = element('div', { class: 'quiet', hidden: '' }, LINKED_KEYS);

  const panels = model.get('told').systems.map((system) => {
    const picture = element('canvas', { width: 256, height: 256, 'aria-label': `${system.name}: drag to turn, click for a row`, style: 'cursor: crosshair' });
    const strip = element('canvas', { width: 256, height: 96, 'aria-label': `${system.name}: one row as the camera passes` });
    const said = element('div', { class: 'quiet' }), title = element('div', { style: 'font-weight: 600' }, system.name);
    onPicture(picture, root, model, ask, { turned: ask, clicked: (x, y) => ask({ y: within(model, 'y', y) }) });
    return { picture, strip, said, all: element('div', {}, title, picture, element('div', { style: 'height: 4px' }), strip, said) };
  });

  function level(g, y) {
    for (const [ink, width] of [['#000', 3], ['#fff', 1]]) {
      g.strokeStyle = ink; g.lineWidth = width; g.setLineDash(ink === '#fff' ? [5, 4] : []); g.beginPath();
      g.moveTo(0, y); g.lineTo(g.canvas.width, y); g.stroke();
    }
    g.setLineDash([]);
  }

  function draw() {
    const { systems, views, reach } = model.get('told'), asked = ask.now(), pixels = bytesOf(model);
    let begin = 0;
    systems.forEach(({ side, flicker }, i) => {
      const { picture, strip, said } = panels[i], end = begin + 3 * side * side, next = end + 3 * views * side;
      level(putPixels(picture, pixels.subarray(begin, end), side, side), asked.y * picture.height);
      level(putPixels(strip, pixels.subarray(end, next), side, views), ((asked.yaw + reach) / (2 * reach)) * strip.height);
      said.textContent = `mean second difference down the strip: ${flicker.toFixed(4)}`;
      begin = next;
    });
    refresh();
  }

  const nudge = (yaw, pitch, y) => {
    const a = ask.now();
    ask({ ...cameraWithin(model, a.yaw + yaw, a.pitch + pitch), y: within(model, 'y', a.y + y) });
  };
  onKeys(root, {
    ArrowLeft: () => nudge(-0.1, 0, 0), ArrowRight: () => nudge(0.1, 0, 0), ArrowUp: () => nudge(0, 0.1, 0), ArrowDown: () => nudge(0, -0.1, 0),
    PageUp: () => nudge(0, 0, -0.05), PageDown: () => nudge(0, 0, 0.05), r: reset, '?': toggled(help),
  });

  // All beside each other, in the room that there is.
  const fit = () => {
    const width = Math.max(150, Math.min(288, Math.floor((root.clientWidth - 16 - 14 * (panels.length - 1) - 1) / panels.length)));
    if (panels[0].picture.width === width) return;
    for (const { picture, strip, all } of panels) {
      picture.width = picture.height = strip.width = width;
      all.style.width = `${width}px`;
    }
    draw();
  };
  const watch = new ResizeObserver(fit);
  const bar = element('div', { class: 'row', style: 'gap: 5px; margin-bottom: 6px' }, press('reset', 'all as at first (R)', reset, 'reset'), press('keys', 'what the keys do (?)', toggled(help)), help);
  box.style.marginTop = '10px';
  root.append(bar, element('div', { class: 'row' }, ...panels.map((p) => p.all)), box);
  fit();
  draw();
  watch.observe(root);
  return () => { watch.disconnect(); ask.stop(); };
}
const drawing = { render };
export default drawing;
