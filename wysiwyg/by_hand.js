// A GAN, step by step: noise -> fakes -> logits -> losses, and back as arrows. Needs live.js before it.

const KEYS = 'B: both. D, G: one of them. X: ten at a time. Space: slow motion. [ ]: its stages. P: play. U: undo. R: start over. ?: keys.';
const REAL = INK.blue, FAKE = INK.orange;
const LN2 = Math.log(2);
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;
const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
const point = ([x, y]) => `(${fixed(x, 2)}, ${fixed(y, 2)})`;

// One update, in six stages: what is drawn in each, and the number that opens.
const WALK = [
  { chip: 'draw z', number: 'z', said: 'Numbers are drawn, and as many reals.' },
  { chip: 'G(z)', number: 'fake', said: 'G makes a point of each pair of numbers.' },
  { chip: 'D(x), D(G(z))', number: 'logits', said: 'D, as it was, gives every point a logit.' },
  { chip: 'losses', number: 'D loss', said: 'What the logits cost D: each point on its curve, the mean as a line.' },
  { chip: 'arrows', number: 'arrow', said: (s) => (s.who === 'G' ? 'D stands still.' : 'D has learned.') + ' Where should each fake go?' },
  { chip: 'new fakes', number: 'G step', said: (s) => (s.who === 'D' ? 'G stands still.' : 'G learns from the arrows: the same z, new fakes.') },
];

const adam = 'w \u2190 w \u2212 rate \u00b7 g / (\u221av\u0302 + 10\u207b\u2078), v \u2190 0.99 v + 0.01 g\u00b2';
const moved = (s) => mean(pairs(s.moved).map(([x, y], i) => Math.hypot(x - s.fake[2 * i], y - s.fake[2 * i + 1])));
// Each number: its equation, the lesson that derives it, and the numbers of this step (s) or of a point (p).
const NUMBERS = [
  { name: 'z', ink: INK.black, lesson: '15_training', words: 'noise', law: 'z \u223c N(0, 1), two numbers for each fake', put: (s, p) => `z = ${point(p.z)}` },
  { name: 'fake', ink: FAKE, lesson: '15_training', words: 'a fake', law: 'x = G(z): 2 numbers, 64 and 64 hidden, 2 numbers', put: (s, p) => `G${point(p.z)} = ${point(p.fake)}` },
  { name: 'logits', ink: INK.grey, lesson: '13_discriminator', words: 'logits: what D says', law: '\u03c3(D) = 1 / (1 + e^(\u2212D)), how sure D is that a point is real', put: (s, p) => `D${point(p.fake)} = ${fixed(p.logit, 3)}, \u03c3 = ${fixed(sigmoid(p.logit), 3)}` },
  { name: 'D loss', ink: REAL, lesson: '14_losses', words: "D's loss", law: 'L_D = mean softplus(\u2212D(x)) + mean softplus(D(G(z))) + \u03b3/2 \u00b7 R1', put: (s) => s.who && `L_D = ${fixed(s.terms.real)} + ${fixed(s.terms.fake)} + ${s.gamma}/2 \u00b7 ${fixed(s.terms.r1)} = ${fixed(s.terms.D)}` },
  { name: 'R1', ink: INK.sky, lesson: '14_losses', words: "R1: D's slope at the reals", law: 'R1 = mean |\u2207D(x)|\u00b2', put: (s) => s.who && `R1 = ${fixed(s.terms.r1)}: with \u03b3 = ${s.gamma} it adds ${fixed((s.gamma / 2) * s.terms.r1)}` },
  { name: 'G loss', ink: FAKE, lesson: '14_losses', words: "G's loss", law: 'L_G = mean softplus(\u2212D(G(z))), by the D that has just learned', put: (s) => s.who && `L_G = ${fixed(s.terms.G)}${s.who === 'D' ? ', but G stands still' : ''}` },
  { name: 'arrow', ink: INK.black, lesson: '18b_by_hand', words: 'an arrow: where G\u2019s loss falls', law: '\u2212n \u2202L_G/\u2202x = \u03c3(\u2212D(x)) \u2207D(x)', put: (s, p) => `at ${point(p.fake)}: ${fixed(sigmoid(-p.learned), 3)} \u00b7 ${point(p.push.map((v) => v / sigmoid(-p.learned)))} = ${point(p.push)}` },
  { name: 'D step', ink: REAL, lesson: '15_training', words: "D's step, Adam", law: adam, put: (s, p, t) => s.who && (s.who === 'G' ? 'D stood still' : `rate ${s.d_rate}, D's step ${t.moves.D}`) },
  { name: 'G step', ink: FAKE, lesson: '15_training', words: "G's step, Adam", law: adam, put: (s, p, t) => s.who && (s.who === 'D' ? 'G stood still' : `rate ${s.g_rate}, G's step ${t.moves.G}: fakes moved by ${fixed(moved(s))} on average`) },
  { name: 'distance', ink: INK.green, lesson: '18b_by_hand', words: 'how far apart, which no loss says', law: 'mean distance of fakes to the nearest real; of reals to the nearest fake', put: (s, p, t) => `${fixed(t.now.apart[0], 3)}: fakes off the data; ${fixed(t.now.apart[1], 3)}: data that is missed` },
];

// ---- parts of the drawing -----------------------------------------------------------------------

function dotAt(g, x, y, ink, r = 3) {
  g.beginPath(); g.arc(x, y, r, 0, 7);
  g.fillStyle = ink; g.fill();
  g.strokeStyle = '#fff'; g.lineWidth = 0.8; g.stroke();
}

function triangleAt(g, x, y, ink, r = 4.5, hollow = false) {
  g.beginPath(); g.moveTo(x, y - r); g.lineTo(x + 0.87 * r, y + 0.6 * r); g.lineTo(x - 0.87 * r, y + 0.6 * r); g.closePath();
  if (hollow) { g.strokeStyle = ink; g.lineWidth = 1; g.stroke(); return; }
  g.fillStyle = ink; g.fill();
  g.strokeStyle = '#fff'; g.lineWidth = 0.8; g.stroke();
}

function arrow(g, x, y, dx, dy) {
  const size = Math.hypot(dx, dy);
  if (size < 1.5) return;
  const head = Math.min(5, size * 0.6), a = Math.atan2(dy, dx);
  g.strokeStyle = g.fillStyle = '#222'; g.lineWidth = 1.2;
  g.beginPath(); g.moveTo(x, y); g.lineTo(x + dx - 0.7 * head * Math.cos(a), y + dy - 0.7 * head * Math.sin(a)); g.stroke();
  g.beginPath(); g.moveTo(x + dx, y + dy);
  for (const turn of [2.6, -2.6]) g.lineTo(x + dx + head * Math.cos(a + turn), y + dy + head * Math.sin(a + turn));
  g.closePath(); g.fill();
}

function ringAt(g, x, y) {
  g.beginPath(); g.arc(x, y, 8, 0, 7);
  g.strokeStyle = INK.black; g.lineWidth = 2; g.stroke();
}

function cleared(canvas) {
  const g = canvas.getContext('2d');
  g.clearRect(0, 0, canvas.width, canvas.height);
  return g;
}

// What is drawn now: at rest the same points after every step, else a batch and its stage. Reals, fakes with
// all that is known of each, and which of the two backgrounds.
function scene(told, stage) {
  const s = told.step, rest = stage === null || !s.who, from = rest ? told.now : s;
  const z = pairs(from.z), real = pairs(from.real), made = pairs(from.fake), push = pairs(from.push);
  const moved = rest ? made : pairs(s.moved);
  const learned = rest ? from.on_fake : s.on_learned; // by the D that G moves against
  const fakes = made.map((fake, i) => ({ z: z[i], fake, push: push[i], moved: moved[i], logit: from.on_fake[i], learned: learned[i] }));
  const size = mean(push.map((p) => Math.hypot(...p)));
  const times = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].reduce((a, b) => (Math.abs(Math.log(b * size / 0.13)) < Math.abs(Math.log(a * size / 0.13)) ? b : a));
  return { rest, times, stage: rest ? 6 : stage, real, fakes, on_real: from.on_real, on_fake: from.on_fake, after: rest || stage >= 4 };
}

const noiseAxes = (canvas) => axes(canvas.getContext('2d'), 22, 16, canvas.width - 26, canvas.height - 34, [-3, 3], [-3, 3]);
const planeAxes = (canvas, { reach }) => axes(canvas.getContext('2d'), 0, 0, canvas.width, canvas.height, [-reach, reach], [-reach, reach]);

function drawNoise(canvas, { fakes, rest, stage }, picked) {
  const g = cleared(canvas), { height } = canvas, at = noiseAxes(canvas);
  at.frame('noise z', [-2, 0, 2]);
  g.textAlign = 'center';
  for (const v of [-2, 0, 2]) g.fillText(String(v), at.X(v), height - 4);
  const keep = ([x, y]) => [at.X(Math.max(-3, Math.min(3, x))), at.Y(y)];
  fakes.forEach((f) => dotAt(g, ...keep(f.z), rest || stage > 0 ? '#777' : INK.black, rest || stage > 0 ? 2.2 : 3));
  if (picked !== null && fakes[picked]) ringAt(g, ...keep(fakes[picked].z));
}

function drawPlane(canvas, told, pixels, sc, picked, part) {
  const size = 3 * told.side ** 2, g = canvas.getContext('2d'), { width } = canvas;
  putPixels(canvas, pixels.subarray(sc.after ? size : 0, sc.after ? 2 * size : size), told.side);
  const at = planeAxes(canvas, told).put;
  const between = (a, b) => [a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1])];
  const unit = width / 2 / told.reach;
  sc.real.forEach((p) => dotAt(g, ...at(p), REAL, sc.rest ? 2.6 : 3.4));
  const place = (f) => {
    if (sc.stage === 1) return between(f.z, f.fake);
    if (sc.stage === 5) return between(f.fake, f.moved);
    return f.fake;
  };
  if (sc.stage === 5) sc.fakes.forEach((f) => triangleAt(g, ...at(f.fake), FAKE, 4, true));
  if (sc.stage === 4 || sc.rest) {
    for (const f of sc.fakes) {
      const size = Math.hypot(...f.push) * sc.times, long = sc.times * unit * Math.min(1, 0.45 / Math.max(size, 1e-9));
      arrow(g, ...at(f.fake), f.push[0] * long, -f.push[1] * long);
    }
  }
  if (sc.stage > 0) sc.fakes.forEach((f) => triangleAt(g, ...at(place(f)), FAKE, sc.rest ? 4.2 : 5));
  if (picked !== null && sc.fakes[picked] && sc.stage > 0) ringAt(g, ...at(place(sc.fakes[picked])));
}

function drawLogits(canvas, sc, picked) {
  const most = Math.max(...sc.on_real.map(Math.abs), ...sc.on_fake.map(Math.abs)), LIMIT = [0.5, 1, 2, 4].find((v) => most < v) || 8, TOP = softplus(LIMIT) * 1.05;
  const LOW = LIMIT > 1 ? 0 : softplus(-LIMIT) - 0.12 * LIMIT, FLAT = 0.05 * (TOP - LOW);
  const g = cleared(canvas), { width, height } = canvas, keep = (v) => Math.max(-LIMIT, Math.min(LIMIT, v));
  const at = axes(g, 30, 18, width - 44, height - 50, [-LIMIT, LIMIT], [LOW, TOP]);
  const logit = Array.from({ length: 97 }, (_, i) => LIMIT * (i / 48 - 1));
  at.frame('what a logit costs D', (TOP < 2 ? [0.4, 0.6, 0.8, 1, 1.2] : [0, 1, 2, 4, 6, 8]).filter((v) => v < TOP && v >= LOW));
  at.upright(0, INK.grey, 0.7);
  at.line(logit, logit.map((d) => softplus(-d)), REAL, 1.4);
  at.line(logit, logit.map(softplus), FAKE, 1.4, [5, 3]);
  if (sc.stage >= 2) {
    const flat = sc.stage === 2;
    const cost = (d, sign) => (flat ? LOW + FLAT : softplus(sign * keep(d)));
    sc.on_real.forEach((d) => dotAt(g, at.X(keep(d)), at.Y(cost(d, -1)), REAL, 2.6));
    sc.on_fake.forEach((d) => triangleAt(g, at.X(keep(d)), at.Y(cost(d, 1) + (flat ? 1.6 * FLAT : 0)), FAKE, 3.8));
    if (!flat) {
      const means = [mean(sc.on_real.map((d) => softplus(-d))), mean(sc.on_fake.map(softplus))];
      at.line([-LIMIT, LIMIT], [means[0], means[0]], REAL, 1, [2, 3]);
      at.line([-LIMIT, LIMIT], [means[1], means[1]], FAKE, 1, [2, 3]);
      g.font = '600 11px system-ui, sans-serif';
      const apart = Math.abs(at.Y(means[0]) - at.Y(means[1])) < 13, up = means[0] > means[1] ? 0 : 1;
      means.forEach((m, i) => {
        g.textAlign = i ? 'right' : 'left'; g.fillStyle = i ? FAKE : REAL;
        g.fillText(`${i ? 'fakes' : 'reals'} ${m.toFixed(3)}`, at.X(i ? LIMIT : -LIMIT) + (i ? -4 : 4), Math.max(28, at.Y(Math.min(m, TOP))) + (apart && i !== up ? 12 : -4));
      });
      g.font = '11px system-ui, sans-serif';
    }
    if (picked !== null && sc.fakes[picked]) ringAt(g, at.X(keep(sc.fakes[picked].logit)), at.Y(cost(sc.fakes[picked].logit, 1) + (flat ? 1.6 * FLAT : 0)));
  }
  g.fillStyle = '#444'; g.textAlign = 'center';
  for (const v of [-1, -0.5, 0, 0.5, 1].map((k) => k * LIMIT)) g.fillText(String(v), at.X(v), height - 20);
  g.fillText('\u2190 D says fake      logit      D says real \u2192', at.X(0), height - 5);
}

function drawCurves(canvas, curve) {
  const g = cleared(canvas), { width, height } = canvas, n = curve.step.length, last = n ? curve.step[n - 1] : 0;
  const all = [...curve.D, ...curve.G].filter((v) => v !== null), top = Math.min(6, Math.max(2, ...all) * 1.08);
  const at = axes(g, 30, 18, width - 44, height - 50, [0, Math.max(20, last)], [0, top]);
  at.frame('losses', [0, 1, 2, 3, 4, 5].filter((v) => v < top));
  for (const [v, words] of [[2 * LN2, '2 ln 2: D knows nothing'], [LN2, 'ln 2']]) {
    at.line([0, Math.max(20, last)], [v, v], INK.grey, 0.8, [2, 3]);
    g.textAlign = 'right'; g.fillStyle = '#666';
    if (top < 3) g.fillText(words, width - 18, at.Y(v) + 12);
  }
  at.line(curve.step, curve.G, FAKE, 1.8, [5, 3]);
  at.line(curve.step, curve.D, REAL, 1.8);
  if (n) {
    dotAt(g, at.X(last), at.Y(curve.D[n - 1]), REAL, 3.5);
    triangleAt(g, at.X(last), at.Y(curve.G[n - 1]), FAKE, 4.5);
  }
  g.textAlign = 'left'; g.font = '600 11px system-ui, sans-serif';
  g.fillStyle = REAL; g.fillText(n ? `D ${fixed(curve.D[n - 1], 3)}` : 'D', 76, 14);
  g.fillStyle = FAKE; g.fillText(n ? `G ${fixed(curve.G[n - 1], 3)} (dashed)` : 'G (dashed)', 140, 14);
  g.font = '11px system-ui, sans-serif'; g.fillStyle = '#444'; g.textAlign = 'center';
  for (const v of [0, Math.round(Math.max(20, last) / 2), Math.max(20, last)]) g.fillText(String(v), at.X(v), height - 20);
  g.fillText('step', at.X(Math.max(20, last) / 2), height - 5);
}

// ---- the drawing --------------------------------------------------------------------------------

function render({ model, el }) {
  const root = styled(el), ask = asker(model, root, answered), settings = model.get('settings');
  const choices = (name) => settings.find((s) => s.name === name).choices;
  const longest = settings.find((s) => s.name === 'history').high;
  const view = { stage: null, part: 1, number: 'D loss', picked: null, ten: false, playing: false, slow: false, timer: null, frame: null, chosen: false };
  const canvas = (width, height, words, cursor) => element('canvas', { width, height, 'aria-label': words, style: cursor && 'cursor: crosshair' });
  const noise = canvas(232, 200, 'noise: the numbers that G is given', true);
  const plane = canvas(432, 432, 'reals, fakes and what the critic says of each place', true);
  const logits = canvas(500, 206, 'what each logit costs the critic'), curves = canvas(500, 176, 'losses of both, step by step');
  const help = element('div', { class: 'quiet' }, KEYS);
  const said = element('div', { class: 'quiet' }), status = element('span', { class: 'quiet status' }), scale = element('span', { class: 'quiet' });
  const formula = formulas(NUMBERS, (n) => { view.number = n.name; view.chosen = true; draw(); });

  // Other data or another seed begin anew; knobs hold from the next step on.
  const turned = (changes) => { quiet(); ask('seed' in changes || 'data' in changes ? { ...changes, history: '' } : changes); };
  const { groups, refresh } = controls(model, Object.assign(turned, { now: ask.now }));

  const token = (who) => {
    const a = ask.now();
    return who + ['d_rate', 'g_rate', 'gamma'].map((name) => choices(name).indexOf(a[name])).join('');
  };
  // A page without a kernel knows what was recorded.
  const known = (history) => !model.known || model.known({ ...ask.now(), history });
  const next = (who, times = view.ten ? 10 : 1) => {
    const history = ask.now().history + token(who).repeat(times);
    return history.length <= longest && known(history) ? history : null;
  };
  const undone = () => ask.now().history.slice(0, -4 * (view.ten ? 10 : 1));

  function quiet() {
    clearInterval(view.timer);
    cancelAnimationFrame(view.frame);
    Object.assign(view, { stage: null, part: 1, slow: false });
  }
  const act = {
    move: (who) => {
      const history = next(who);
      quiet();
      if (history !== null) ask({ history });
      else { view.playing = false; draw(); }
    },
    ten: () => { view.ten = !view.ten; draw(); },
    undo: () => { quiet(); view.playing = false; if (known(undone())) ask({ history: undone() }); else draw(); },
    reset: () => { quiet(); view.playing = false; ask({ history: '' }); },
    play: () => { view.playing = !view.playing; if (view.playing) act.move('B'); else draw(); },
    slow: () => {
      const history = next('B', 1);
      quiet();
      view.playing = false;
      if (history !== null) { view.slow = true; ask({ history }); }
      else walk();
    },
    stage: (k) => {
      clearInterval(view.timer);
      view.playing = false;
      if (!model.get('told').step.who) { act.slow(); return; }
      view.chosen = false;
      show((k + WALK.length) % WALK.length);
    },
  };

  function walk() {
    if (!model.get('told').step.who) { draw(); return; }
    view.slow = view.chosen = false;
    show(0);
    view.timer = setInterval(() => { if (view.stage === null || view.stage >= 5) clearInterval(view.timer); else show(view.stage + 1); }, 1500);
  }

  function show(stage) {
    cancelAnimationFrame(view.frame);
    const glides = stage === 1 || stage === 5, begun = performance.now();
    Object.assign(view, { stage, part: glides ? 0 : 1 });
    if (!view.chosen) view.number = WALK[stage].number;
    draw();
    const glide = (now) => {
      const t = Math.min(1, Math.max(0, (now - begun) / 900));
      view.part = t * t * (3 - 2 * t);
      drawPoints();
      if (t < 1) view.frame = requestAnimationFrame(glide);
    };
    if (glides) view.frame = requestAnimationFrame(glide);
  }

  const buttons = {
    B: press('both', 'D, then G (B)', () => act.move('B'), 'B'), ten: press('\u00d710', 'ten steps at a press (X)', () => act.ten(), 'ten'),
    play: press('\u25b6 play', 'both, again and again (P)', () => act.play(), 'play'), slow: press('slow motion', 'both once, in six stages (space)', () => act.slow(), 'slow'),
    undo: press('undo', 'without the last step (U)', () => act.undo(), 'undo'), reset: press('start over', 'the same seed, no steps (R)', () => act.reset(), 'reset'),
    D: press('D step', 'D alone learns (D)', () => act.move('D'), 'D'), G: press('G step', 'G alone learns (G)', () => act.move('G'), 'G'),
  };
  const chips = WALK.map((w, k) => element('button', { title: `stage ${k + 1} of the last step`, 'data-stage': k, onclick: () => act.stage(k) }, `${k + 1} ${w.chip}`));
  const to = () => element('span', { class: 'quiet', 'aria-hidden': 'true' }, '\u2192');

  function drawFormula(told, sc) {
    const c = NUMBERS.find((n) => n.name === view.number), who = sc.fakes[view.picked] ? view.picked : 0;
    formula.show(c, c.put(told.step, sc.fakes[who], told) || 'nobody has moved yet: press both');
  }

  // What glides; what follows the pointer; all.
  function drawPoints(told = model.get('told'), sc = scene(told, view.stage)) {
    drawPlane(plane, told, bytesOf(model), sc, view.picked, view.part);
  }

  function drawPicked(told = model.get('told'), sc = scene(told, view.stage)) {
    drawNoise(noise, sc, view.picked);
    drawPoints(told, sc);
    drawLogits(logits, sc, view.picked);
    drawFormula(told, sc);
  }

  function draw() {
    const told = model.get('told'), sc = scene(told, view.stage), { D, G } = told.moves;
    drawPicked(told, sc);
    drawCurves(curves, told.curve);
    status.textContent = `D has moved ${D} times, G ${G}.`;
    const about = sc.rest ? null : WALK[view.stage].said;
    said.textContent = about ? (typeof about === 'function' ? about(told.step) : about) : 'Hover over a fake for its numbers.';
    scale.textContent = sc.stage === 4 || sc.rest ? `arrows drawn ${sc.times}\u00d7` : '';
    chips.forEach((c, k) => pressed(c, k === view.stage));
    pressed(buttons.ten, view.ten);
    pressed(buttons.play, view.playing);
    for (const who of ['B', 'D', 'G']) buttons[who].disabled = next(who) === null;
    buttons.play.disabled = next('B') === null;
    buttons.undo.disabled = !ask.now().history || !known(undone());
    refresh();
  }

  function answered() {
    draw();
    if (model.get('told').error) view.playing = view.slow = false;
    if (view.slow) walk();
    else if (view.playing) view.frame = requestAnimationFrame(() => view.playing && act.move('B'));
  }

  // The fake, or the noise, nearest to the pointer.
  const pick = (canvas, axesOf) => {
    const nearest = (e) => {
      const told = model.get('told'), sc = scene(told, view.stage), r = canvas.getBoundingClientRect();
      const at = axesOf(canvas, told).inverse([((e.clientX - r.left) / r.width) * canvas.width, ((e.clientY - r.top) / r.height) * canvas.height]);
      const away = sc.fakes.map((f) => { const p = canvas === noise ? f.z : sc.stage === 5 ? f.moved : f.fake; return Math.hypot(p[0] - at[0], p[1] - at[1]); });
      view.picked = away.indexOf(Math.min(...away));
      if (!['z', 'fake', 'logits', 'arrow'].includes(view.number)) view.number = canvas === noise ? 'z' : 'arrow';
      drawPicked();
    };
    canvas.addEventListener('pointermove', nearest);
    canvas.addEventListener('pointerleave', () => { view.picked = null; drawPicked(); });
  };
  pick(plane, planeAxes);
  pick(noise, noiseAxes);

  const keys = {
    b: () => act.move('B'), d: () => act.move('D'), g: () => act.move('G'), x: () => act.ten(), p: () => act.play(), u: () => act.undo(), r: () => act.reset(), ' ': () => act.slow(),
    '[': () => act.stage((view.stage === null ? 6 : view.stage) - 1), ']': () => act.stage(view.stage === null ? 0 : view.stage + 1), '?': toggled(help),
  };
  onKeys(root, keys);

  groups.get('generator G').append(buttons.G);
  groups.get('critic D').append(buttons.D);
  const bar = element('div', { class: 'row', style: 'gap: 5px; align-items: center; margin-bottom: 6px' }, buttons.B, buttons.ten, buttons.play, buttons.slow, buttons.undo, buttons.reset, status);
  const stages = element('div', { class: 'row', style: 'gap: 5px; align-items: center; margin-bottom: 8px' }, ...chips.flatMap((c, k) => (k ? [to(), c] : [c])));
  const shades = 'linear-gradient(90deg, #e7a679, #f3d0b8 35%, #fff 50%, #b8d3e7 65%, #79b1d5)';
  const legend = element('span', { class: 'quiet' }, 'D: fake ', element('span', { style: `display: inline-block; width: 120px; height: 9px; border: 1px solid ${INK.pale}; background: ${shades}` }), ' real');
  const column = (...parts) => element('div', { style: 'display: flex; flex-direction: column; gap: 6px' }, ...parts);
  const columns = [column(groups.get('data'), noise, groups.get('generator G')), column(plane, element('div', { class: 'row', style: 'justify-content: space-between; gap: 6px' }, legend, scale), said), column(groups.get('critic D'), logits, curves)];
  root.append(bar, stages, element('div', { class: 'row' }, ...columns), formula.names, formula.box, help);

  // Side by side in the room that there is, down to that of a laptop's JupyterLab with its sidebar open.
  const fit = () => {
    const room = Math.min(1164, Math.max(760, root.clientWidth - 16 - 2 * 14 - 1));
    const first = Math.max(208, Math.round(0.2 * room)), second = Math.min(432, Math.round(0.47 * (room - first)));
    const widths = [first, second, room - first - second];
    if (widths[2] === curves.width && second === plane.width) return;
    widths.forEach((width, i) => { columns[i].style.width = `${width}px`; });
    noise.width = first;
    plane.width = plane.height = second;
    logits.width = curves.width = widths[2];
    draw();
  };
  const watch = new ResizeObserver(fit);
  fit();
  draw();
  watch.observe(root);
  return () => { watch.disconnect(); quiet(); view.playing = false; ask.stop(); };
}
const drawing = { render };
export default drawing;
