// A picture whose rays can be taken apart: picture -> ray -> formula. Needs live.js before it.

const apart = (angle) => (angle === null ? ', where no surface was met' : `, normals ${fixed(angle, 1)}\u00b0 apart`);
const STAGES = ['probe', 'pdf', 'tau', 'strata', 'samples', 'weights'];
// Of a page without a kernel: whether its camera turns, and the pixels that it knows, if it knows several.
const turns = ({ turnable }) => !turnable || turnable('yaw') || turnable('pitch');
function pixelsOf({ recorded = [] }) {
  const known = new Map(recorded.map(({ x, y }) => [`${x} ${y}`, { x, y }]));
  return known.size > 1 ? [...known.values()] : [];
}
const keysOf = (model) => `Arrows: pixel. ${turns(model) ? 'Shift + arrows: camera. ' : ''}[ ]: step. Space: slow motion. Z: zoom. P: pin. R: reset. ?: keys.`;

// What formulas are written with: four digits, and a sum with its largest terms written out, the others as one.
const sum = (x) => x.reduce((a, b) => a + b, 0);
const sub = (i) => String(i + 1).replace(/\d/g, (d) => '\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089'[d]);
const short = (x) => String(Number(Number(x).toPrecision(4))).replaceAll('-', '\u2212');
const few = (terms, write = (i) => short(terms[i])) => {
  const order = terms.map((_, i) => i).sort((a, b) => terms[b] - terms[a]);
  const others = order.slice(3), left = sum(others.map((i) => terms[i]));
  const rest = left > 1e-5 * sum(terms) ? [`${short(left)} of ${others.length} other${others.length > 1 ? 's' : ''}`] : [];
  return [...order.slice(0, 3).sort((a, b) => a - b).map(write), ...rest].join(' + ');
};

// Each law with this ray's numbers: of the ray r, its sample i and its bin k.
const NUMBERS = {
  probe(r, i, k) {
    if (!r.probe) return '';
    const before = sum(r.probe.slice(0, k)), T = 1 - before, thick = -Math.log1p(-r.probe[k] / T);
    const light = `bin ${k + 1}: T = 1 \u2212 ${short(before)} = ${short(T)}`;
    if (!(T > 1e-3 && thick < 20)) return `${light}; P = ${short(r.probe[k])}`;
    return `${light}; P = ${short(T)} \u00b7 (1 \u2212 e^(\u2212${short(thick)})) = ${short(r.probe[k])}`;
  },
  pdf: (r, i, k) => r.pdf && `bin ${k + 1}: p = ${short(r.pdf[k])}; \u03a3 p = ${few(r.pdf)} = ${short(sum(r.pdf))}`,
  kept(r) {
    if (!r.pdf) return '';
    const kept = r.pdf.filter((_, j) => r.keep[j]), mass = sum(kept), bins = `bins kept: ${kept.length}`;
    const total = `${few(kept)} = ${short(mass)}`;
    if (r.sampler === 'unfiltered') return `${total}; ${bins}, as this sampler keeps all`;
    return `${total}, at least \u03c4 = ${short(r.tau)}; ${bins}, without the least of them ${short(mass - Math.min(...kept))}`;
  },
  strata(r, i, k) {
    if (!r.pdf) return '';
    if (!r.counts) return 'this sampler draws without strata';
    const n = r.counts[k], all = sum(r.counts), bins = sum(r.keep), each = Math.floor(all / bins);
    if (!r.keep[k]) return `bin ${k + 1} is not kept: n = 0; all: ${all}`;
    return `bin ${k + 1}: n = \u230a${all} / ${bins}\u230b${n > each ? ' + 1' : ''} = ${n}; all: ${all}`;
  },
  samples(r, i) {
    const t = r.samples.t[i], length = `\u03b4${sub(i)} = ${short(r.samples.delta[i])}`;
    if (!r.counts) return `t${sub(i)} = ${t}, ${length}`;
    const width = (r.far - r.near) / r.pdf.length, place = (t - r.near) / width, k = Math.floor(place), n = r.counts[k];
    if (r.sampler === 'refined') return `t${sub(i)} = ${t}, by ${n ? 'either' : 'the second'} look; ${length}`;
    if (!n) return `t${sub(i)} = ${t}, ${length}`;
    const j = Math.floor((place - k) * n), u = (place - k) * n - j;
    return `t${sub(i)} = ${short(r.near)} + (${k} + (${j} + ${short(u)}) / ${n}) \u00b7 ${width.toFixed(6)} = ${t}; ${length}`;
  },
  sdf: (r, i) => `s${sub(i)} = ${short(r.samples.sdf[i])} at t = ${r.samples.t[i]}`,
  beta: (r, i) => `\u03b2${sub(i)} = ${short(r.samples.beta[i])} at t = ${r.samples.t[i]}`,
  sigma(r, i) {
    const s = r.samples.sdf[i], beta = short(r.samples.beta[i]), half = `0.5 \u00b7 e^(\u2212${short(Math.abs(s))} / ${beta})`;
    const share = s > 0 ? half : `(1 \u2212 ${half})`;
    return `${s > 0 ? 'outside' : 'inside'}: \u03c3${sub(i)} = ${share} / ${beta} = ${short(r.samples.sigma[i])} per world unit`;
  },
  T(r, i) {
    const before = r.samples.sigma.slice(0, i).map((v, j) => v * r.samples.delta[j]);
    if (!i) return 'T\u2081 = e^(0) = 1: nothing lies before it';
    return `T${sub(i)} = e^(\u2212(${few(before)})) = e^(\u2212${short(sum(before))}) = ${short(r.samples.trans[i])}`;
  },
  w(r, i) {
    const [T, sigma, delta] = ['trans', 'sigma', 'delta'].map((name) => short(r.samples[name][i]));
    return `w${sub(i)} = ${T} \u00b7 (1 \u2212 e^(\u2212${sigma} \u00b7 ${delta})) = ${short(r.samples.weights[i])}; \u03a3 w = ${few(r.samples.weights)} = ${short(r.samples.opacity)}`;
  },
  depth(r) {
    const { t, weights, depth, opacity } = r.samples, terms = weights.map((w, i) => w * t[i]);
    const passed = `${short(Math.max(0, 1 - opacity))} \u00b7 ${short(r.far)}`;
    const off = `dense ${fixed(r.truth.depth)}: off by ${fixed(Math.abs(depth - r.truth.depth))}`;
    return `d = ${few(terms, (i) => `${short(weights[i])} \u00b7 ${t[i]}`)} + ${passed} = ${fixed(depth)}; ${off}${besides(r.posed)}`;
  },
};

// Beside a true shape: where it lies, and how far the normals face the camera.
const besides = (posed) => {
  if (!posed) return '';
  const [own, true_one] = posed.facing.map((cosine) => fixed(cosine, 2));
  return `; true head ${fixed(posed.depth)}${apart(posed.angle)}; facing the camera by ${own ? `${own}, its by ` : ''}${true_one}`;
};

// Each curve: from which step on it is drawn, its colour, its equation, and the lesson, the cell and the code in it that compute it.
const CURVES = [
  { name: 'probe', stage: 0, ink: INK.amber, lesson: '08_probe', cell: 'ec3b0218', code: 'probe', words: 'probe weights P',
    law: 'P\u2096 = T\u2096 (1 \u2212 e^(\u2212\u03c3\u2096 \u03b4\u2096)), T\u2096 = 1 \u2212 \u03a3 P\u2c7c, j < k, on the shared edges of all rays' },
  { name: 'pdf', stage: 1, ink: INK.blue, lesson: '09_proposal', cell: 'c4400118', code: 'ProposalCNN', words: 'predicted pdf',
    law: 'p = softmax(network(P, colours I, directions \u03c6)), \u03a3 p\u2096 = 1' },
  { name: 'kept', stage: 2, ink: INK.sky, lesson: '10_sampler', cell: '24afe42a', code: 'smallest_set', words: 'kept: the smallest set of mass \u03c4',
    law: 'the fewest bins with \u03a3 p\u2096 \u2265 \u03c4 (Eq. 9)' },
  { name: 'strata', stage: 3, ink: INK.purple, lesson: '10_sampler', cell: '749b6468', code: 'allocate', words: 'strata: samples of each kept bin',
    law: 'n\u2096 = \u230aS / C\u230b for S samples in C kept bins, one more in the S mod C most likely' },
  { name: 'samples', stage: 4, ink: INK.black, lesson: '10_sampler', cell: 'da3cfeee', code: 'draw_robust', words: 'samples',
    law: 't = near + (k + (j + u) / n\u2096) \u00b7 width: the j-th of bin k, both from 0, u random in [0, 1)' },
  { name: 'sdf', stage: 4, ink: INK.grey, lesson: '07_sdf', cell: 'fc8fe364', code: 'Field', words: 'signed distance s',
    law: 's(x) < 0 inside; the surface is where it is 0' },
  { name: 'beta', stage: 4, ink: INK.pink, lesson: '07_sdf', cell: 'fc8fe364', code: 'Field', words: 'surface width \u03b2',
    law: '\u03b2(x) = \u03b2\u2080 + tanh(2 b(x)) (\u03b2\u2080 \u2212 \u03b2_min), b of the network that says s, times the \u03b2 scale' },
  { name: 'sigma', stage: 4, ink: INK.wine, lesson: '07_sdf', cell: '74814e11', code: 'density', words: 'density \u03c3',
    law: '\u03c3 = \u00bd e^(\u2212s/\u03b2) / \u03b2 outside, (1 \u2212 \u00bd e^(s/\u03b2)) / \u03b2 inside (Eq. 1)' },
  { name: 'T', stage: 5, ink: INK.green, lesson: '07a_volrend', cell: 'c5941676', code: 'volume_weights', words: 'light that gets here, T',
    law: 'T\u1d62 = e^(\u2212\u03a3 \u03c3\u2c7c \u03b4\u2c7c), j < i (Eq. 2)' },
  { name: 'w', stage: 5, ink: INK.orange, lesson: '07a_volrend', cell: 'c5941676', code: 'volume_weights', words: 'weights w',
    law: 'w\u1d62 = T\u1d62 (1 \u2212 e^(\u2212\u03c3\u1d62 \u03b4\u1d62)) (Eq. 2)' },
  { name: 'depth', stage: 5, ink: INK.black, lesson: '07a_volrend', cell: 'b7b258e7', code: 'integrate', words: 'expected depth',
    law: 'd = \u03a3 w\u1d62 t\u1d62 + (1 \u2212 \u03a3 w\u1d62) far; solid line: of the samples, dashed: dense' },
];

// What other proposals and samplers have in place of a curve's law, lesson, cell and code.
const ELSEWHERE = [
  { curve: 'pdf', by: 'maxpool', lesson: '09_proposal', cell: '69522ce2', code: 'maxpool_pdf',
    law: 'p: the largest P of 3 \u00d7 3 probe pixels and 3 bins, interpolated between probe pixels, over their sum; \u03a3 p\u2096 = 1' },
  { curve: 'pdf', by: 'sdf', lesson: '09_proposal', cell: '28bff8d7', code: 'sdf_pdf',
    law: 'p: weights of the probe\u2019s distances, interpolated between its pixels; \u03a3 p\u2096 = 1' },
  { curve: 'pdf', by: 'oracle', lesson: '09_proposal', cell: '69522ce2', code: 'oracle_pdf',
    law: 'p: weights of dense rays, blurred, without the smallest; \u03a3 p\u2096 = 1' },
  { curve: 'kept', by: 'unfiltered', lesson: '10a_samplers', cell: 'cf3d71df', code: 'draw_unfiltered',
    law: 'all bins, whatever \u03c4 is' },
  { curve: 'samples', by: 'unstratified', lesson: '10a_samplers', cell: 'cf3d71df', code: 'draw_unstratified',
    law: 'each at a random place of the kept bins, which are no strata here' },
  { curve: 'samples', by: 'unfiltered', lesson: '10a_samplers', cell: 'cf3d71df', code: 'draw_unfiltered',
    law: 'where the sum of p reaches (i + u) / S, for sample i of S from 0, in all bins; u random in [0, 1)' },
  { curve: 'samples', by: 'refined', lesson: '10a_samplers', cell: '72a245b0', code: 'refine',
    law: 'some as robust draws them, the others where the distances found there put the light' },
  { curve: 'samples', by: 'uniform', lesson: '07a_volrend', cell: '636d9d05', code: 'uniform_samples',
    law: 't = near + (i + u) / S \u00b7 (far \u2212 near), for sample i of S from 0; u random in [0, 1)' },
  { curve: 'samples', by: 'two_pass', lesson: '10a_samplers', cell: '8f6000c5', code: 'two_pass',
    law: 'some one in each of even stretches, the others where these saw light; shown are the middles between neighbours' },
  { curve: 'samples', by: 'root', lesson: '10a_samplers', cell: '5e1fd02c', code: 'secant_surface',
    law: 'around the first change of sign of s, at even steps' },
];

const named = (name) => CURVES.find((c) => c.name === name);
const OF_STAGE = ['probe', 'pdf', 'kept', 'strata', 'samples', 'w']; // whose formula is shown as a step is reached

// ---- the ray, three plots over one axis ---------------------------------------------------------

// Rays beside each other have one stretch, which holds what is worth a closer look of each.
function stretchOf(rays, zoomed) {
  const ends = rays.map((r) => (zoomed ? r.window : [r.near, r.far]));
  return [Math.min(...ends.map(([a]) => a)), Math.max(...ends.map(([, b]) => b))];
}

// How many pixels a place is from a line through points.
function awayFrom(line, [x, y]) {
  const parts = line.slice(1).map(([bx, by], i) => {
    const [ax, ay] = line[i], dx = bx - ax, dy = by - ay, square = dx * dx + dy * dy;
    const share = square ? Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / square)) : 0;
    return Math.hypot(ax + share * dx - x, ay + share * dy - y);
  });
  return Math.min(...parts);
}

// Whose line is nearest to a place, in its plot; of several the one drawn last, which is seen.
// An area counts as a line that is so many pixels away.
const AREA = 12;
function nearestCurve(lines, at) {
  const within = ([[left], [right]]) => (left <= at[0] && at[0] <= right ? AREA : Infinity);
  const away = lines.map(({ points, area, r = 0 }) => (area ? within(points) : awayFrom(points, at) - r));
  const least = Math.min(...away);
  return least < Infinity ? lines[away.lastIndexOf(least)].name : null;
}

function niceTicks([a, b]) {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((s) => (b - a) / s <= 6) || 1;
  const first = Math.ceil(a / step - 1e-9);
  return Array.from({ length: Math.floor(b / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(3)));
}

function drawRay(g, box, ray, view) {
  const { x, width, height, range } = box;
  const bins = ray.pdf ? ray.pdf.length : 0, w = (ray.far - ray.near) / bins;
  const edges = Array.from({ length: bins + 1 }, (_, k) => ray.near + k * w);
  const s = ray.samples, d = ray.truth, top = 36, gap = 20, tall = (height - top - 38 - 2 * gap) / 3;
  const on = (name) => view.stage >= named(name).stage, lines = [[], [], []]; // of each plot, in pixels: what a click may mean
  const plot = (k, ends) => {
    const at = axes(g, x, top + k * (tall + gap), width, tall, range, ends);
    const is = (name, ts, vs, looks) => lines[k].push({ name, ...looks, points: ts.map((t, i) => [at.X(t), at.Y(vs[i])]) });
    const line = (name, ts, vs, ...looks) => { at.line(ts, vs, ...looks); is(name, ts, vs); };
    const upright = (name, t, ink, lineWidth, dash, high = ends[1]) => { at.upright(t, ink, lineWidth, dash, high, 0); is(name, [t, t], [0, high]); };
    const steps = (name, edges, vs, ink) => { at.steps(edges, vs, ink); is(name, edges.slice(0, -1).flatMap((e, k) => [e, edges[k + 1]]), vs.flatMap((v) => [v, v])); };
    const block = (name, a, b, ink) => { at.block(a, b, 0, ends[1], ink); is(name, [a, b], [0, 0], { area: true }); };
    const dot = (name, t, v, r = 3) => { at.dot(t, v, INK.black, r); is(name, [t, t], [v, v], { r }); };
    return { ...at, at, line, upright, steps, block, dot };
  };
  g.fillStyle = '#222'; g.font = '600 12px system-ui, sans-serif'; g.textAlign = 'left';
  g.fillText(`${box.title} pixel ${ray.pixel[1]}, ${ray.pixel[0]}${box.late || ''}`, x, 13, width);

  const most = bins ? Math.max(0.1, 1.15 * Math.max(...ray.pdf, ...ray.probe)) : 1;
  const told = plot(0, [0, most]);
  if (bins) {
    if (on('kept')) edges.slice(0, -1).forEach((e, k) => ray.keep[k] && told.block('kept', e, e + w, INK.sky + '44'));
    if (on('probe')) told.steps('probe', edges, ray.probe, INK.amber);
    if (on('pdf')) told.steps('pdf', edges, ray.pdf, INK.blue);
    if (view.zoomed) edges.forEach((e) => told.at.upright(e, INK.pale, 1, [], most * 0.05, 0));
    if (on('strata') && ray.counts) {
      edges.slice(0, -1).forEach((e, k) => {
        for (let j = 0; j <= ray.counts[k] && ray.counts[k]; j++) told.upright('strata', e + (j * w) / ray.counts[k], INK.purple, 1, [], most * 0.14);
      });
    }
  }
  if (on('samples')) s.t.forEach((t) => told.dot('samples', t, most * 0.03, 2.5));
  told.frame(bins ? 'where to look: probe, pdf, kept bins' : 'this sampler asks no proposal', [0, most > 1 ? 1 : Number(most.toFixed(2))]);

  const high = view.zoomed ? 0.06 : 0.3;
  const field = plot(1, [-high, high]);
  field.line('sdf', range, [0, 0], INK.grey, 0.7);
  field.line('beta', d.t, d.beta, INK.pink, 1);
  field.line('beta', d.t, d.beta.map((b) => -b), INK.pink, 1);
  const densest = Math.max(...d.sigma.filter((_, i) => d.t[i] >= range[0] && d.t[i] <= range[1]), 1e-6);
  field.line('sigma', d.t, d.sigma.map((v) => (0.8 * high * v) / densest), INK.wine, 1.2, [4, 2]);
  field.line('sdf', d.t, d.sdf, INK.grey, 1.5);
  const half = (ray.far - ray.near) / d.t.length / 2;
  d.t.forEach((t, i) => field.at.block(t - half, t + 2 * half, -high, -0.84 * high, d.along[i]));
  if (on('samples')) s.t.forEach((t, i) => field.dot('sdf', t, s.sdf[i]));
  field.frame(width < 440 ? 's, \u00b1\u03b2, \u03c3 dashed, colour' : `signed distance s of the field, \u00b1\u03b2; dashed: \u03c3, at most ${densest > 1e-6 ? short(densest) : 0}; below: its colour`, [-high, 0, high]);

  const light = plot(2, [0, 1.08]);
  light.line('T', d.t, d.trans, INK.green, 1.2);
  const peak = Math.max(...d.weights, 1e-6);
  light.line('w', d.t, d.weights.map((v) => (0.5 * v) / peak), INK.grey, 1.5);
  if (on('w')) {
    s.t.forEach((t, i) => light.upright('w', t, INK.orange, 3, [], s.weights[i]));
    light.upright('depth', s.depth, INK.black, 1.5); light.upright('depth', d.depth, INK.black, 1.5, [3, 3]);
    if (ray.posed) drawPosed(light.at, ray, range);
  }
  light.frame(width < 330 ? 'light: T, w; dense w grey' : 'light: T, w of the samples; dense w in grey, its peak at a half', [0, 0.5, 1]);
  g.textAlign = 'center'; g.fillStyle = '#444';
  for (const t of niceTicks(range)) g.fillText(String(t), light.X(t), height - 24);
  g.fillText('distance from the camera, world units', x + width / 2, height - 8);
  const plotAt = (y) => lines[Math.min(2, Math.max(0, Math.floor((y - top + gap / 2) / (tall + gap))))];
  return { x, width, range, inverse: light.inverse, curveAt: (at) => nearestCurve(plotAt(at[1]), at) };
}

// The true depth, and on it and on that of the samples how far the normals face the camera: 1, straight at it.
function drawPosed(light, { posed, samples }, [a, b]) {
  const wide = (b - a) / 60, [own, true_one] = posed.facing;
  light.upright(posed.depth, INK.pink, 2);
  light.line([posed.depth - wide, posed.depth + wide], [true_one, true_one], INK.pink, 4);
  if (own !== null) light.line([samples.depth - wide, samples.depth + wide], [own, own], INK.black, 2);
}

// ---- the drawing --------------------------------------------------------------------------------

// The ends of the colours, and what lies between them.
function rampOf({ ramp, low, high, unit }) {
  if (!ramp.length) return [];
  const bar = element('span', { style: `flex: 1; height: 9px; background: linear-gradient(to right, ${ramp.join(', ')})` });
  return [element('span', {}, String(low)), bar, `${high} ${unit}`];
}

// What a formula of bins is about.
const toldBy = (ray, c) => (c.name === 'probe' ? ray.probe : ray.pdf);

// Whose numbers a formula has.
function ofWhat(ray, c, i, k, t) {
  const more = t === null ? '; hover over the plots for others' : '';
  if (c.stage < 4) {
    if (!ray.pdf) return '';
    const likeliest = toldBy(ray, c)[k] > 0 ? ', the likeliest' : ', all are 0';
    return `bin ${k + 1} of ${ray.pdf.length}${t === null ? likeliest : ''}${more}`;
  }
  if (c.name === 'depth') return '';
  const heaviest = t === null && ray.samples.weights[i] > 0 ? ', the heaviest' : '';
  return `sample ${i + 1} of ${ray.samples.t.length}${heaviest}${more}`;
}

// The sample nearest to the pointer, else the heaviest, and its bin; of what tells of bins the likeliest.
function chosen(ray, t, c) {
  const s = ray.samples, all = s.t.map((_, i) => i);
  const i = t === null ? all.reduce((a, b) => (s.weights[b] > s.weights[a] ? b : a), 0) : all.reduce((a, b) => (Math.abs(s.t[b] - t) < Math.abs(s.t[a] - t) ? b : a), 0);
  const bins = ray.pdf ? ray.pdf.length : 1, place = t ?? s.t[i] ?? ray.near;
  const told = toldBy(ray, c);
  if (t === null && told && c.stage < 4) return [i, told.indexOf(Math.max(...told))];
  const k = Math.min(bins - 1, Math.max(0, Math.floor(((place - ray.near) / (ray.far - ray.near)) * bins)));
  return [i, k];
}

// A curve with the law and the place of this ray's proposal and sampler.
function lawful(c, ray) {
  const by = { pdf: ray.proposal, kept: ray.sampler, samples: ray.sampler }[c.name];
  return { ...c, ...ELSEWHERE.find((e) => e.curve === c.name && e.by === by) };
}

// The expected depth, and how far it is from that of dense samples.
function depths({ samples, truth }) {
  const [own, dense, off] = [samples.depth, truth.depth, Math.abs(samples.depth - truth.depth)].map((d) => fixed(d));
  return `depth ${own}, dense ${dense}, off ${off}`;
}

// Whether what is at a pixel of one picture is there in the other: of one person, by one camera.
const HEAD = ['moment', 'seed', 'trunc', 'other', 'blend', 'coarse', 'yaw', 'pitch'];
const sameHead = (asked, other) => HEAD.every((name) => asked[name] === other[name]);

function costs(told, ray) {
  const { proposed = 0, trace = 0 } = told.spent, dense = ray ? `, where dense takes ${ray.dense}` : '';
  const all = proposed + trace, psnr = told.psnr === undefined ? '' : `; ${told.psnr.toFixed(1)} dB against dense`;
  return `Field evaluations a pixel: probe ${proposed.toFixed(1)} + samples ${trace.toFixed(1)} (${Math.round(100 * told.in_vain)} % on rays that meet nothing) = ${all.toFixed(1)}${dense}${psnr}.`;
}

function render({ model, el }) {
  const root = styled(el), ask = asker(model, root, draw);
  const view = { stage: ask.now().step - 1, zoomed: true, pinned: null, pinnedOf: null, curve: named(OF_STAGE[ask.now().step - 1]), t: null, timer: null };
  const picture = element('canvas', { width: 288, height: 288, 'aria-label': `picture: click a pixel${turns(model) ? ', drag to turn' : ''}`, style: 'cursor: crosshair' });
  const plots = element('canvas', { width: 600, height: 430, 'aria-label': 'what lies along the ray: click a curve for its formula', style: 'cursor: crosshair' });
  const second = element('canvas', { width: 144, height: 144, 'aria-label': 'the same in normals', hidden: '' });
  const scale = element('div', { class: 'quiet', style: 'display: flex; gap: 5px; align-items: center; min-height: 1.4em' }), spent = element('div', { class: 'quiet' });
  const depth = element('div', { class: 'quiet', style: 'min-height: 1.4em', 'data-said': 'depth' });
  const help = element('div', { class: 'quiet', hidden: '' }, keysOf(model));
  const { groups, box, refresh, reset } = controls(model, ask);
  const show = (c) => { view.curve = c; view.stage = Math.max(view.stage, c.stage); draw(); };
  const formula = formulas(CURVES, show);
  const step = element('span', { class: 'quiet', style: 'min-width: 9em; display: inline-block' });
  const pin = press('pin', 'keep this ray beside the next (P)', () => act.pin());
  const zoom = press('zoom', 'around the surface, or the whole ray (Z)', () => act.zoom());
  const bar = element('div', { class: 'row', style: 'gap: 5px; align-items: center' },
    press('\u25c0', 'a step back ([)', () => act.step(-1)), press('\u25b6', 'a step on (])', () => act.step(1)),
    press('slow motion', 'from the probe to the weights (space)', () => act.play()), step, zoom, pin, press('reset', 'all as at first (R)', () => act.reset()), press('keys', 'what the keys do (?)', toggled(help)));

  const begun = ask.now();
  const rayNow = () => model.get('told').ray || view.last;
  const act = {
    step: (by) => { view.stage = (view.stage + by + STAGES.length) % STAGES.length; view.curve = named(OF_STAGE[view.stage]); draw(); },
    zoom: () => { view.zoomed = !view.zoomed; draw(); },
    pin: () => { Object.assign(view, { pinned: view.pinned ? null : rayNow(), pinnedOf: view.lastOf }); draw(); },
    reset: () => { Object.assign(view, { stage: begun.step - 1, curve: named(OF_STAGE[begun.step - 1]), zoomed: true, pinned: null }); reset(); draw(); },
    play: () => {
      clearInterval(view.timer);
      view.stage = 0;
      view.curve = CURVES[0];
      view.timer = setInterval(() => { if (view.stage >= 5) clearInterval(view.timer); else act.step(1); }, 900);
      draw();
    },
  };

  function drawPicture(told) {
    const pixels = bytesOf(model);
    putPixels(picture, pixels, told.side);
    picture.dataset.side = told.side;
    second.hidden = !told.beside; // another picture follows
    if (told.beside) putPixels(second, pixels.subarray(3 * told.side ** 2), told.side);
    const g = picture.getContext('2d'), mark = (x, y, ink) => {
      for (const [color, width] of [['#fff', 4], [ink, 2]]) {
        g.strokeStyle = color; g.lineWidth = width; g.beginPath();
        g.moveTo(x - 10, y); g.lineTo(x + 10, y); g.moveTo(x, y - 10); g.lineTo(x, y + 10); g.stroke();
      }
    };
    const { x, y } = ask.now(), ray = rayNow();
    if (view.stage === 0 && ray && ray.probe) { // the probe's pixel
      const n = ray.probe_side, side = picture.width / n;
      g.strokeStyle = INK.amber; g.lineWidth = 2;
      g.strokeRect(Math.floor(x * n) * side, Math.floor(y * n) * side, side, side);
    }
    for (const { x, y } of pixelsOf(model)) {
      for (const [ink, r] of [['#0006', 2.5], ['#fffa', 1.5]]) {
        g.fillStyle = ink; g.beginPath(); g.arc(x * picture.width, y * picture.height, r, 0, 7); g.fill();
      }
    }
    mark(x * picture.width, y * picture.height, '#000');
    if (view.pinned && sameHead(told.asked, view.pinnedOf)) mark(((view.pinned.pixel[1] + 0.5) / view.side) * picture.width, ((view.pinned.pixel[0] + 0.5) / view.side) * picture.height, INK.orange);
  }

  function drawPlots(ray) {
    const g = plots.getContext('2d');
    g.clearRect(0, 0, plots.width, plots.height);
    if (!ray) return;
    const told = model.get('told'), late = told.ray ? '' : ', before the drag', turned = view.pinned && !sameHead(told.asked, view.pinnedOf);
    const boxes = view.pinned ? [[view.pinned, turned ? 'pinned, another head or side,' : 'pinned,', ''], [ray, 'now,', late]] : [[ray, '', late]];
    const width = (plots.width - 40 * boxes.length - 8) / boxes.length, range = stretchOf(boxes.map(([r]) => r), view.zoomed);
    view.drawn = boxes.map(([r, title, late], i) => drawRay(g, { x: 40 + i * (width + 40), width, height: plots.height, range, title, late }, r, view));
  }

  function drawFormula(ray) {
    if (!ray) return;
    const c = lawful(view.curve, ray), [i, k] = chosen(ray, view.t, c), none = c.stage > 3 && ray.empty;
    formula.show(c, none || NUMBERS[c.name](ray, i, k) || 'this sampler asks no proposal', element('div', { class: 'quiet' }, none ? '' : ofWhat(ray, c, i, k, view.t)));
  }

  function draw() {
    const told = model.get('told'), asked = ask.now(), ray = rayNow();
    if (told.ray) Object.assign(view, { last: ray, lastOf: told.asked });
    const pinned = view.pinned ? `; pinned: ${depths(view.pinned)}` : '';
    depth.textContent = ray ? `${told.ray ? '' : 'before the drag: '}${depths(ray)}${pinned}` : '';
    if (!asked.moving) view.side = told.side;
    scale.replaceChildren(element('span', {}, told.shown), ...rampOf(told));
    spent.textContent = costs(told, ray);
    step.textContent = `step ${view.stage + 1} of 6: ${STAGES[view.stage].replace('tau', '\u03c4')}`;
    pressed(pin, view.pinned);
    pressed(zoom, view.zoomed);
    drawPicture(told);
    drawPlots(ray);
    drawFormula(ray);
    refresh();
  }

  // Click: another pixel. Drag: another camera, in small pictures until it is let go.
  const inside = (share) => Math.min(0.999, Math.max(0, share)), pixelAt = (x, y) => ({ x: inside(x), y: inside(y) });
  onPicture(picture, root, model, ask, {
    turned: (camera) => ask({ ...camera, moving: 1 }),
    left: () => ask({ moving: 0 }),
    clicked: (x, y) => ask(pixelAt(x, y)),
  });
  const placeOn = (e) => {
    const r = plots.getBoundingClientRect();
    return [((e.clientX - r.left) / r.width) * plots.width, ((e.clientY - r.top) / r.height) * plots.height];
  };
  plots.addEventListener('click', (e) => {
    const at = placeOn(e), on = (view.drawn || []).find(({ x, width }) => x <= at[0] && at[0] <= x + width);
    const name = on && on.curveAt(at);
    if (name) show(named(name));
  });
  plots.addEventListener('pointermove', (e) => {
    const on = view.drawn && view.drawn[view.drawn.length - 1];
    if (!on) return;
    const [t] = on.inverse(placeOn(e));
    if (t < on.range[0] || t > on.range[1]) return;
    view.t = t;
    drawFormula(rayNow());
  });
  plots.addEventListener('pointerleave', () => { view.t = null; drawFormula(rayNow()); });

  const nudge = (dx, dy, turning) => {
    const a = ask.now(), pixel = 1 / (view.side || 64);
    ask(turning ? { ...cameraWithin(model, a.yaw + 0.1 * dx, a.pitch - 0.1 * dy), moving: 0 } : pixelAt(a.x + dx * pixel, a.y + dy * pixel));
  };
  const keys = {
    ArrowLeft: (e) => nudge(-1, 0, e.shiftKey), ArrowRight: (e) => nudge(1, 0, e.shiftKey), ArrowUp: (e) => nudge(0, -1, e.shiftKey),
    ArrowDown: (e) => nudge(0, 1, e.shiftKey), '[': () => act.step(-1), ']': () => act.step(1), ' ': () => act.play(), z: () => act.zoom(),
    p: () => act.pin(), r: () => act.reset(), '?': toggled(help),
  };
  onKeys(root, keys);

  // The plots take what is left beside the picture.
  const fit = () => {
    const width = Math.min(900, Math.max(420, root.clientWidth - 288 - 32), root.clientWidth - 16);
    if (width === plots.width) return;
    plots.width = width;
    drawPlots(rayNow());
  };
  const watch = new ResizeObserver(fit);

  const beside = ['run', 'picture', 'camera', 'sampler'].flatMap((place) => groups.get(place) || []);
  const left = element('div', { style: 'width: 288px' }, picture, scale, second, spent, ...beside);
  box.style.marginTop = '8px';
  const right = element('div', { style: 'flex: 1 1 min(420px, 100%); min-width: 0' }, bar, help, plots, depth, formula.names, formula.box, box);
  root.append(element('div', { class: 'row' }, left, right));
  draw();
  watch.observe(root);
  return () => { watch.disconnect(); clearInterval(view.timer); ask.stop(); };
}
const drawing = { render };
export default drawing;
