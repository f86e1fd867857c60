// What all drawings share: elements, controls made of settings, questions asked in turn, and a model
// without a kernel. Plain DOM and canvas; nothing is imported, nothing is fetched.

// Okabe and Ito's colours, told apart by colour-blind readers.
const INK = {
  black: '#000000', orange: '#d55e00', amber: '#e69f00', blue: '#0072b2', sky: '#56b4e9',
  green: '#009e73', purple: '#6a3d9a', pink: '#cc79a7', wine: '#882255', grey: '#999999', pale: '#dddddd',
};

const STYLE = `
.wy { font: 13px system-ui, sans-serif; color: #222; background: #fff; padding: 8px; max-width: 1240px; outline: none; }
.wy:focus { box-shadow: 0 0 0 2px ${INK.sky}; }
.wy .row { display: flex; gap: 14px; flex-wrap: wrap; align-items: flex-start; }
.wy fieldset { border: 1px solid ${INK.pale}; border-radius: 4px; padding: 2px 8px 5px; margin: 0; min-width: 190px; }
.wy legend { font-weight: 600; padding: 0 4px; margin: 0; border: 0; width: auto; float: none; line-height: 1.3; background: #fff; }
.wy label { display: grid; grid-template-columns: 5.6em 1fr 4.6em; gap: 5px; align-items: center; }
.wy input[type=range] { width: 100%; min-width: 44px; }
.wy select, .wy input[type=number] { font: inherit; width: 100%; box-sizing: border-box; }
.wy label > select, .wy input[type=number] { grid-column: 2 / 4; }
.wy label:has(:disabled) { color: #888; }
.wy output { font-variant-numeric: tabular-nums; text-align: right; }
.wy button { font: inherit; padding: 2px 7px; border: 1px solid ${INK.grey}; border-radius: 4px; background: #f7f7f7; color: #222; cursor: pointer; }
.wy button[aria-pressed=true] { background: #222; color: #fff; }
.wy button:disabled { opacity: 0.45; cursor: default; }
.wy canvas { display: block; touch-action: none; }
.wy canvas[hidden] { display: none; }
.wy .error { color: #fff; background: ${INK.orange}; padding: 3px 8px; border-radius: 4px; margin: 4px 0; }
.wy .error:empty { display: none; }
.wy .quiet { color: #555; font-size: 12px; }
.wy .formula { border-left: 3px solid ${INK.blue}; padding: 4px 10px; background: #f6f9fc; min-height: 3.4em; }
.wy .formula code { font: 13px ui-monospace, monospace; background: none; color: inherit; }
.wy a { color: ${INK.blue}; }
`;

function element(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else if (value !== undefined) e.setAttribute(name, value);
  }
  e.append(...children);
  return e;
}

function styled(el) {
  const root = element('div', { class: 'wy', tabindex: '0' });
  el.append(element('style', {}, STYLE), root);
  return root;
}

// Questions in turn: the newest one is sent when the last has been answered. Each view of a model counts its
// own. Answers are drawn by `answered`, and counted in data-turn of `root`, whose first part says what is wrong.
const PATIENCE = 15000; // milliseconds

function asker(model, root, answered) {
  const id = Math.random().toString(36).slice(2), error = element('div', { class: 'error', role: 'alert' });
  const silent = () => { flying = null; error.textContent = 'Nobody answers: run the cell again.'; };
  let turn = 0, flying = null, next = null, clock = null;
  const now = () => ({ ...model.get('told').asked, ...flying, ...next });
  const send = () => {
    flying = { ...flying, ...next };
    next = null;
    model.set('asked', { ...model.get('told').asked, ...flying, turn: `${id} ${++turn}` });
    model.save_changes();
    clearTimeout(clock);
    clock = setTimeout(silent, PATIENCE);
  };
  const tell = () => { error.textContent = model.get('told').error || ''; };
  const heard = () => {
    tell();
    const [who, n] = String(model.get('told').turn).split(' ');
    if (flying && who !== id) send(); // another view was answered: its question may have replaced ours
    else if (flying && Number(n) === turn) {
      clearTimeout(clock);
      flying = null;
      if (next) send();
    }
    root.dataset.turn = Number(root.dataset.turn) + 1;
    answered();
  };
  root.prepend(error);
  root.dataset.turn = 0;
  tell();
  model.on('change:told', heard);
  const ask = (changes) => {
    next = { ...next, ...changes };
    if (!flying) send();
  };
  const stop = () => { clearTimeout(clock); model.off('change:told', heard); };
  return Object.assign(ask, { now, stop });
}

const press = (words, title, act, name) => element('button', { title, onclick: act, 'data-act': name }, words);
const pressed = (button, on) => button.setAttribute('aria-pressed', String(!!on));
const toggled = (part) => () => { part.hidden = !part.hidden; };

// Keys of a drawing, wherever in it the focus is; a control keeps those that it understands, and JupyterLab
// hears none of them.
function onKeys(root, keys) {
  root.dataset.lmSuppressShortcuts = 'true';
  const keeps = ({ tagName, type }, key) => {
    if (tagName === 'SELECT' || type === 'number' || type === 'text') return true;
    if (type === 'range') return key.startsWith('Arrow') || ['Home', 'End', 'PageUp', 'PageDown'].includes(key);
    return (tagName === 'BUTTON' && [' ', 'Enter'].includes(key)) || (tagName === 'A' && key === 'Enter');
  };
  root.addEventListener('keydown', (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    e.stopPropagation();
    const act = keys[e.key] || keys[e.key.toLowerCase()];
    if (!act || keeps(e.target, e.key)) return;
    e.preventDefault();
    act(e);
  });
}

// Words that are numbers are turned like a range, over their places.
const isScale = (s) => s.choices.length > 0 && s.choices.every((c) => c !== '' && !isNaN(c));

function shown(setting, value) {
  if (setting.choices.length) return value;
  const digits = setting.step >= 1 ? 0 : Math.ceil(-Math.log10(setting.step) - 1e-9);
  return `${Number(value).toFixed(digits)}${setting.unit ? ' ' + setting.unit : ''}`;
}

function inputOf(s) {
  if (isScale(s)) return element('input', { type: 'range', min: 0, max: s.choices.length - 1, step: 1 });
  if (s.choices.length) return element('select', {}, ...s.choices.map((c) => element('option', { value: c }, c)));
  const type = s.step >= 1 && s.high - s.low > 200 ? 'number' : 'range';
  return element('input', { type, min: s.low, max: s.high, step: s.step });
}

// A fieldset for each place, a control for each setting, a button that brings the starts back.
function controls(model, ask) {
  const settings = model.get('settings').filter((s) => s.place);
  const turnable = model.turnable || (() => true), begun = ask.now();
  const inputs = new Map(), groups = new Map();
  for (const s of settings) {
    const input = inputOf(s), out = element('output');
    const read = () => (isScale(s) ? s.choices[input.value] : s.choices.length ? input.value : Number(input.value));
    input.addEventListener('input', () => ask({ [s.name]: read() }));
    input.dataset.name = s.name;
    const ends = s.choices.length ? s.choices.join(', ') : `${shown(s, s.low)} to ${shown(s, s.high)}`;
    const about = `${s.words} (${ends}; at first ${shown(s, s.start)})`, label = element('label', {}, s.label || s.name, input);
    if (input.type === 'range') label.append(out);
    if (!groups.has(s.place)) groups.set(s.place, element('fieldset', {}, element('legend', {}, s.place)));
    groups.get(s.place).append(label);
    inputs.set(s, [input, out, label, about]);
  }
  const refresh = () => {
    const asked = ask.now(), idle = model.get('told').idle || {}; // setting -> why it changes nothing now
    for (const [s, [input, out, label, about]] of inputs) {
      const why = turnable(s.name) ? idle[s.name] : 'not recorded in this page';
      input.disabled = Boolean(why);
      label.title = why ? `${why}: ${about}` : about;
      input.value = isScale(s) ? s.choices.indexOf(asked[s.name]) : asked[s.name];
      out.textContent = shown(s, asked[s.name]);
    }
  };
  const reset = () => ask(begun);
  refresh();
  return { groups, box: element('div', { class: 'row' }, ...groups.values()), refresh, reset };
}

// What a reader asks for, within what its setting allows.
function within(model, name, value) {
  const { low, high } = model.get('settings').find((s) => s.name === name);
  return Math.min(high, Math.max(low, value));
}
const cameraWithin = (model, yaw, pitch) => ({ yaw: within(model, 'yaw', yaw), pitch: within(model, 'pitch', pitch) });

// A drag turns the camera (`turned`) until it is let go or lost (`left`); a click is told where, in shares of the canvas.
function onPicture(canvas, root, model, ask, { turned, left = () => {}, clicked }) {
  let grabbed = null;
  const leave = () => { if (grabbed && grabbed.moved) left(); grabbed = null; };
  canvas.addEventListener('pointerdown', (e) => {
    if (e.button !== 0) return;
    const { yaw, pitch } = ask.now();
    grabbed = { x: e.clientX, y: e.clientY, yaw, pitch, moved: false };
    canvas.setPointerCapture(e.pointerId);
    root.focus({ preventScroll: true });
  });
  canvas.addEventListener('pointermove', (e) => {
    if (!grabbed || (model.turnable && !model.turnable('yaw'))) return;
    const right = e.clientX - grabbed.x, down = e.clientY - grabbed.y;
    grabbed.moved ||= Math.hypot(right, down) > 4;
    if (grabbed.moved) turned(cameraWithin(model, grabbed.yaw - right / 150, grabbed.pitch + down / 150));
  });
  canvas.addEventListener('pointerup', (e) => {
    const r = canvas.getBoundingClientRect();
    if (grabbed && !grabbed.moved) clicked((e.clientX - r.left) / r.width, (e.clientY - r.top) / r.height);
    leave();
  });
  for (const lost of ['pointercancel', 'lostpointercapture']) canvas.addEventListener(lost, leave);
}

// RGB bytes, row by row, as an opaque picture over the whole canvas, whose context it gives.
function putPixels(canvas, bytes, width, height = width) {
  const small = element('canvas', { width, height }), image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = bytes[3 * i + k];
    image.data[4 * i + 3] = 255;
  }
  small.getContext('2d').putImageData(image, 0, 0);
  const g = canvas.getContext('2d');
  g.imageSmoothingEnabled = false;
  g.drawImage(small, 0, 0, canvas.width, canvas.height);
  return g;
}

function bytesOf(model) {
  const pixels = model.get('pixels');
  return pixels instanceof DataView ? new Uint8Array(pixels.buffer, pixels.byteOffset, pixels.byteLength) : pixels;
}

const fixed = (x, digits = 4) => (x === null || x === undefined ? '' : Number(x).toFixed(digits));

// Where numbers lie on a canvas: a box of pixels, and the ranges of its axes.
function axes(g, x, y, width, height, [t0, t1], [v0, v1]) {
  const X = (t) => x + (width * (t - t0)) / (t1 - t0);
  const Y = (v) => y + height * (1 - (Math.min(Math.max(v, v0), v1) - v0) / (v1 - v0));
  const clipped = (draw) => { g.save(); g.beginPath(); g.rect(x, y, width, height); g.clip(); draw(); g.restore(); };
  const line = (ts, vs, ink, lineWidth = 1.5, dash = []) => clipped(() => {
    g.strokeStyle = ink; g.lineWidth = lineWidth; g.setLineDash(dash); g.beginPath();
    ts.forEach((t, i) => (i ? g.lineTo(X(t), Y(vs[i])) : g.moveTo(X(t), Y(vs[i]))));
    g.stroke(); g.setLineDash([]);
  });
  const upright = (t, ink, lineWidth = 1.5, dash = [], top = v1, bottom = v0) => line([t, t], [bottom, top], ink, lineWidth, dash);
  const steps = (edges, vs, ink) => line(edges.slice(0, -1).flatMap((e, k) => [e, edges[k + 1]]), vs.flatMap((v) => [v, v]), ink, 2);
  const block = (a, b, low, high, ink) => clipped(() => { g.fillStyle = ink; g.fillRect(X(a), Y(high), X(b) - X(a), Y(low) - Y(high)); });
  const dot = (t, v, ink, r = 3) => clipped(() => { g.fillStyle = ink; g.beginPath(); g.arc(X(t), Y(v), r, 0, 7); g.fill(); });
  const frame = (title, ticks) => {
    g.strokeStyle = INK.pale; g.lineWidth = 1; g.strokeRect(x + 0.5, y + 0.5, width, height);
    g.fillStyle = '#444'; g.font = '11px system-ui, sans-serif'; g.textAlign = 'left'; g.fillText(title, x, y - 4);
    g.textAlign = 'right';
    for (const v of ticks) g.fillText(String(v), x - 4, Y(v) + 4);
  };
  const put = ([t, v]) => [X(t), y + (height * (v1 - v)) / (v1 - v0)]; // beyond the box, too
  const inverse = ([px, py]) => [t0 + ((px - x) * (t1 - t0)) / width, v1 - ((py - y) * (v1 - v0)) / height];
  return { X, Y, put, inverse, line, upright, steps, block, dot, frame };
}

// The notebook that a tab of JupyterLab shows, if it is this lesson's.
function shownNotebook(tab, lesson) {
  const title = tab.document.querySelector(`.jp-mod-current[title*="nbs/${lesson}.ipynb"]`);
  return title && tab.document.querySelector(`[id="${title.dataset.id}"] .jp-Notebook`);
}

// The cell that defines `code`, where it begins in what a notebook shows. Cells come one by one, and their text with them.
function cellInView(notebook, code) {
  const defines = (cell) => [`def ${code}(`, `class ${code}(`].some((words) => cell.querySelector('.jp-InputArea').textContent.includes(words));
  const cell = [...notebook.querySelectorAll('.jp-CodeCell')].find(defines);
  if (!cell) return null;
  const { top } = cell.getBoundingClientRect(), seen = notebook.getBoundingClientRect();
  return seen.top - 9 <= top && top < (seen.top + seen.bottom) / 2 ? cell : null;
}

// A click beside a cell makes it the active one: JupyterLab leaves that out where it takes the cell for visible.
function activate(cell, { MouseEvent }) {
  if (cell.matches('.jp-mod-active')) return;
  for (const act of ['mousedown', 'mouseup']) cell.querySelector('.jp-InputPrompt').dispatchEvent(new MouseEvent(act, { bubbles: true, cancelable: true }));
}

// Brings another tab to a cell. JupyterLab goes to the one in its address as the address changes (popstate), once
// the notebook is open: so it is told again until the cell stays in view or the reader acts in the notebook, and
// without an entry in the history.
function bringTo(tab, { lesson, cell, code }) {
  const begun = Date.now();
  let notebook = null, seen = 0, told = 0;
  const stop = () => clearInterval(clock);
  const look = () => {
    const now = Date.now(), there = !tab.closed && shownNotebook(tab, lesson);
    if (tab.closed || now - begun > 4 * PATIENCE) stop();
    if (!there) return;
    if (there !== notebook) ['wheel', 'pointerdown', 'keydown'].forEach((act) => there.addEventListener(act, stop, true));
    notebook = there;
    const found = cellInView(there, code);
    seen = found ? seen || now : 0;
    if (found) activate(found, tab);
    if (found && now - seen > 2000) stop();
    if (found || now - told < 1500) return;
    told = now;
    const path = tab.location.pathname.replace(/\/tree\/.*/, `/tree/nbs/${lesson}.ipynb`); // it may have left the folder's
    tab.history.replaceState(tab.history.state, '', `${path}#cell-id=${cell}`);
    tab.dispatchEvent(new tab.PopStateEvent('popstate'));
  };
  const clock = setInterval(() => { try { look(); } catch { stop(); } }, 300); // a page of elsewhere tells nothing
}

// To the cell that computes something, where a Jupyter serves this page; elsewhere words alone.
function lessonLink(place) {
  const { lesson, cell, code } = place;
  const words = `computed in ${lesson}${code ? `: ${code}` : ''}`, jupyter = document.getElementById('jupyter-config-data');
  if (!jupyter) return element('span', { class: 'quiet' }, words);
  const { baseUrl = '/' } = JSON.parse(jupyter.textContent), href = `${baseUrl}lab/tree/nbs/${lesson}.ipynb`;
  const follow = (e) => {
    const tab = cell && !e.ctrlKey && !e.metaKey && !e.shiftKey && open(href, '_blank');
    if (!tab) return; // as any link
    e.preventDefault();
    bringTo(tab, place);
  };
  return element('a', { href: cell ? `${href}#cell-id=${cell}` : href, target: '_blank', rel: 'noopener', onclick: follow }, words);
}

// A button for each of `all` { name, ink, words, law, lesson, its cell and the code there where known }, and the box that shows one with its numbers.
function formulas(all, onPick) {
  const box = element('div', { class: 'formula' });
  const swatch = (ink) => element('span', { style: `display: inline-block; width: 9px; height: 9px; margin-right: 4px; background: ${ink}` });
  const buttons = all.map((c) => element('button', { 'data-formula': c.name, style: 'font-size: 12px; padding: 2px 5px', title: `${c.words}: its formula`, onclick: () => onPick(c) }, swatch(c.ink), c.name));
  const show = (c, numbers, ...about) => {
    box.replaceChildren(element('b', {}, c.words), '  ', lessonLink(c), element('br'), element('code', {}, c.law), element('br'), element('code', {}, numbers), ...about);
    buttons.forEach((b) => pressed(b, b.dataset.formula === c.name));
  };
  return { box, names: element('div', { class: 'row', style: 'gap: 4px; margin: 6px 0 4px' }, ...buttons), show };
}

// The model of a page without a kernel: the recorded answer nearest to what is asked. Whoever turns one number
// by a key is brought to the next recorded one; under a pointer it would run away from what is held.
function recordedModel({ settings, answers, pictures }) {
  const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const decoded = pictures.map(decode);
  const values = { settings, told: { error: '', asked: answers[0].asked, ...answers[0].told }, pixels: decoded[answers[0].picture] };
  const listeners = {};
  const emit = (name) => (listeners[name] || []).forEach((f) => f());
  const apart = (a, b) => {
    let same = 0;
    while (same < Math.min(a.length, b.length) && a[same] === b[same]) same++;
    return a.length + b.length - 2 * same;
  };
  const distance = (asked, other, changed = []) => {
    let sum = 0;
    for (const s of settings) {
      const a = asked[s.name], b = other[s.name];
      const far = s.letters ? apart(a, b) : s.choices.length ? (a === b ? 0 : 1e3) : ((a - b) / (s.high - s.low)) ** 2;
      sum += far * (changed.includes(s.name) ? 1e6 : 1);
    }
    return sum;
  };
  const written = (asked) => JSON.stringify(settings.map((s) => asked[s.name]));
  const recorded = new Set(answers.map((a) => written(a.asked)));
  let held = false;
  addEventListener('pointerdown', (e) => { held = e.target.type !== 'number'; }, true);
  const letGo = () => { held = false; };
  for (const lost of ['pointerup', 'pointercancel', 'keydown']) addEventListener(lost, letGo, true);
  addEventListener('blur', letGo);  // of the window: an element's does not rise to it
  const model = {
    known: (asked) => recorded.has(written(asked)),
    recorded: answers.map((a) => a.asked),
    turnable: (name) => new Set(answers.map((a) => a.asked[name])).size > 1,
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; },
    on: (name, f) => (listeners[name] ||= []).push(f),
    off: (name, f) => { listeners[name] = (listeners[name] || []).filter((x) => x !== f); },
    save_changes: () => {
      const { turn, ...asked } = values.asked, before = values.told.asked;
      const changed = settings.filter((o) => asked[o.name] !== before[o.name]).map((o) => o.name);
      const [only] = changed, ahead = (b) => Math.sign(b.asked[only] - before[only]) === Math.sign(asked[only] - before[only]);
      const onward = !held && changed.length === 1 && typeof asked[only] === 'number' ? answers.filter(ahead) : answers;
      const error = onward.length ? '' : 'Nothing is recorded beyond this.';
      const cost = (b) => distance(asked, b.asked, changed);
      const near = (onward.length ? onward : answers).reduce((a, b) => (cost(b) < cost(a) ? b : a));
      values.told = { error, asked: near.asked, ...near.told, turn };
      values.pixels = decoded[near.picture];
      for (const name of ['pixels', 'told']) emit(`change:${name}`);
    },
  };
  return model;
}
