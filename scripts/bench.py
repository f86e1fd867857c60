"""Time the kernels and the frame beside their alternatives, with the error of each in the same run.

    python scripts/bench.py [--device cpu|cuda] [--resolutions 128 256 512] [--repeats 5] [--out data/results]

Writes data/results/bench_<cpu|gpu>.json. Variants take turns, so that a disturbance hits all of them;
the least and the median time are given. Errors are against 384 uniform samples.
"""

import argparse, itertools, json, math, os, statistics, sys, tempfile, time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from wysiwyg import kernels
from wysiwyg.camera import orbit
from wysiwyg.config import BY_NEED, PUBLISHED, STILL, FieldConfig, Run, SamplerConfig
from wysiwyg.config import override, preset
from wysiwyg.core import Answer, atomic, data_dir, rng
from wysiwyg.data import Dataset, png_bytes, write_zip
from wysiwyg.generator import Generator, load_generator
from wysiwyg.kernels import Ops
from wysiwyg.metrics import psnr, worst_psnr
from wysiwyg.sdf import Field
from wysiwyg.studies import Peak
from wysiwyg.tracking import provenance
from wysiwyg.method import WYSIWYG
from wysiwyg.training import Trainer


def clock(fn, device: str) -> tuple[float, object]:
    "Milliseconds of one call, by CUDA events on a GPU."
    if device == 'cpu':
        start = time.perf_counter()
        out = fn()
        return 1e3 * (time.perf_counter() - start), out
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    a.record()
    out = fn()
    b.record()
    torch.cuda.synchronize()
    return a.elapsed_time(b), out


def compare(variants: dict, repeats: int, device: str, error=None) -> list[dict]:
    """Rows of name, least and median ms, peak MiB and `error(out)`; the variants take turns.

    A variant that outgrows the GPU's memory has a row that says so, and no time.
    """
    rows = {name: warm_up(name, fn, device, error) for name, fn in variants.items()}
    times = {name: [] for name in variants if 'failed' not in rows[name]}
    for _ in range(repeats):
        for name in times:
            times[name].append(clock(variants[name], device)[0])
    return [row | (summary(times[name]) if name in times else {}) for name, row in rows.items()]


def warm_up(name: str, fn, device: str, error) -> dict:
    "The first turn, not timed: memory and error (returning memory would cost timed turns their warm heap)."
    peak = Peak(device)
    try:
        out = clock(fn, device)[1]
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return dict(name=name, failed='out of memory')
    row = dict(name=name, peak_mib=mib(peak))
    return row if error is None else row | error(out)


def mib(peak: Peak) -> int | None:
    "Whole MiB so far; None where the system does not tell, for JSON has no NaN."
    gib = peak.gib()
    return None if math.isnan(gib) else round(1024 * gib)


def summary(ms: list[float]) -> dict[str, float]:
    return dict(ms=round(min(ms), 3), median_ms=round(statistics.median(ms), 3))


def against(reference):
    "Mean and worst-5-% error of a rendering, dB, and its evaluations of the field for a pixel."

    def error(out) -> dict[str, float]:
        seen, evaluations = out
        whole = psnr(seen.rgb, reference.rgb)
        worst = worst_psnr(seen.rgb, reference.rgb)
        a_pixel = evaluations / seen.opacity.numel()
        return dict(psnr=round(whole, 2), psnr_worst5=round(worst, 2), evaluations=round(a_pixel, 2))

    return error


def scene(g: Generator, device: str):
    "One person's planes, and a camera a little aside."
    front = orbit(torch.zeros(1), torch.zeros(1)).to(device)
    z = torch.randn(1, g.run.backbone.z_dim, generator=rng('bench')).to(device)
    aside = orbit(torch.tensor([0.25]), torch.tensor([0.05])).to(device)
    return g.synthesize(g.map(z, front)), aside


SPLITS = [(6, 18), (7, 21), (14, 14), (21, 7), (8, 24), (16, 16), (24, 8), (18, 18), (27, 9), (20, 20)]
STILL_NEED = dict(policy='need', **{k.removeprefix('sampler.'): v for k, v in STILL.items()})
POLICIES = {  # name -> of the sampler
    'paper 17.6': {},
    'paper 8.8': dict(samples=8),
    'empty 17.6': dict(policy='empty'),
    'need 2': dict(policy='need'),
    'need 3': dict(policy='need', per_bin=3.0),
    'still, need 0.5': dict(STILL_NEED, per_bin=0.5, least=2),
    'still, need 1': dict(STILL_NEED, per_bin=1.0),
    'still, need 1.5': dict(STILL_NEED, per_bin=1.5),
    'still, need 2': dict(STILL_NEED, per_bin=2.0),
    'still, need 3': dict(STILL_NEED, per_bin=3.0),
}
PROPOSALS = {  # name -> probe
    'cnn': 'uniform',
    'maxpool': 'uniform',
    'sdf': 'uniform',
    'sdf, few': 'coarse_to_fine',
}
FEW = {
    'two-pass 48+48',
    'robust, cnn, paper 17.6',
    'robust, sdf, paper 17.6',
    'robust, sdf, few, need 2',
    'robust, sdf, few, still, need 2',
}


def one_pass(g: Generator, side: int) -> dict[str, tuple[dict, Callable]]:
    "Renderers without a proposal."
    rows = {}
    splits = [(12, 12), (24, 24), (48, 48)] + (SPLITS if side == 256 else [])
    for (coarse, fine), jitter in itertools.product(splits, (True, False)):
        call = partial(g.two_pass, coarse=coarse, fine=fine, resolution=side, jitter=jitter)
        name = f'two-pass {coarse}+{fine}'
        if jitter:
            rows[name] = dict(sampler='two-pass'), call
        else:
            rows[f'still, {name}'] = dict(sampler='still, two-pass'), call
    for kind, samples in (('uniform', 48), ('root', 16)):
        call = partial(g.render, resolution=side, sampler=SamplerConfig(kind=kind, samples=samples))
        rows[kind] = dict(sampler=kind), call
    return rows


def proposed(g: Generator, side: int) -> dict[str, tuple[dict, Callable]]:
    "Every sampler by every proposal and policy."
    rows = {}
    every = itertools.product(('robust', 'refined'), PROPOSALS.items(), POLICIES.items())
    for kind, (proposal, probe), (policy, changes) in every:
        by = g.using(renderer=replace(g.renderer, probe=replace(g.renderer.probe, kind=probe)))
        sampler = replace(g.run.sampler, kind=kind, **changes)
        call = partial(by.render, resolution=side, sampler=sampler, proposal=proposal.split(',')[0])
        known = dict(sampler=kind, proposal=proposal, policy=policy)
        rows[f'{kind}, {proposal}, {policy}'] = known, call
    return rows


def counted(call: partial, *seen):
    "Of a frame also its evaluations of the field."
    g = call.func.__self__

    def run():
        before = g.evaluations
        return call(*seen), g.evaluations - before

    return run


def frames(g: Generator, side: int, repeats: int, device: str, few: bool = False) -> list[dict]:
    """Whole frames from cached planes, everything counted: time, evaluations a pixel, and the error.

    `few`: by torch those of FEW alone, where a frame costs seconds.
    """
    planes, camera = seen = scene(g, device)
    best = 'cuda' if device == 'cuda' else kernels.choose('auto', planes)
    known, calls = {}, {}
    for backend in dict.fromkeys((best, 'torch')):
        by = g.using(ops=Ops(backend))
        for name, (row, call) in (one_pass(by, side) | proposed(by, side)).items():
            if name in FEW or not few or backend != 'torch':
                known[f'{name}, {backend}'] = row | dict(backend=backend, side=side)
                calls[f'{name}, {backend}'] = counted(call, *seen)
    if device == 'cuda':
        by = g.using(ops=Ops('torch'))
        by.field.forward = torch.compile(by.field.forward)
        call = partial(by.two_pass, coarse=48, fine=48, resolution=side)
        calls['two-pass 48+48, torch, field compiled'] = counted(call, *seen)
    rows = compare(calls, repeats, device, against(g.dense(planes, camera, side, 384)))
    return [row | known.get(row['name'], {}) for row in rows]


def floors(
    m: int, samples: int, c: int, bins: int, f: Field, bandwidth: float, flops: float
) -> dict[str, float]:
    "Least possible ms: bytes that must move, or multiply-adds, whichever takes longer."
    rays = m / samples
    macs = sum(layer.weight.numel() for layer in (f.sdf0, f.sdf1, f.sdf2, f.color0, f.color1))

    def memory(moved: float) -> float:
        return 1e3 * moved / bandwidth

    return dict(
        triplane=memory(m * (12 + 4 * c)),
        robust=memory(rays * 4 * bins + m * 12),
        composite=memory(m * (4 * 7 + 4) + rays * 24),
        field=max(memory(m * (12 + 20)), 1e3 * 2 * macs * m / flops),
    )


def operations(device: str, repeats: int, side: int, peak: tuple[float, float]) -> list[dict]:
    "Each operation alone, kernel and torch, at the paper's sizes (fewer rays on a CPU)."
    n, s, c, bins = side * side, 20, 32, 191
    plane = 512 if device == 'cuda' else 128
    g = rng('operations', device=device)

    def rand(*shape):
        return torch.rand(*shape, generator=g, device=device)

    planes = kernels.channels_last(rand(1, 3, c, plane, plane) - 0.5)
    x = rand(1, n, 1, 3) - 0.5
    points = (x + 0.01 * (rand(1, n, s, 3) - 0.5)).clamp(-0.5, 0.5)
    pdf = (8 * rand(1, n, bins)).softmax(-1)
    index = torch.arange(n, device=device)[None]
    u = rand(1, n, s)
    t = rand(1, n, s).sort(-1)[0]
    delta = 0.02 * rand(1, n, s)
    sdf = 0.04 * rand(1, n, s) - 0.02
    beta = 0.01 * rand(1, n, s) + 0.001
    answer = Answer(rand(1, n, s, 3), sdf=sdf, beta=beta)
    f = Field(FieldConfig(), c).to(device).requires_grad_(False)
    dirs = torch.nn.functional.normalize(rand(1, n, 3), dim=-1)
    calls = dict(
        triplane=lambda i: Ops(i).sample_planes(planes, points.flatten(1, 2)),
        robust=lambda i: Ops(i).draw_robust(pdf, index, s, 0.98, 2.25, 3.3, u).t,
        composite=lambda i: Ops(i).composite(t, delta, answer, 3.3, (1.0, 1.0, 1.0))[1].rgb,
        field=lambda i: Ops(i).field(f, planes, points, dirs).sdf,
    )
    best = 'cuda' if device == 'cuda' else kernels.choose('auto', planes)
    floor, rows = floors(n * s, s, c, bins, f, *peak), []
    for name, go in calls.items():
        variants = {impl: partial(go, impl) for impl in dict.fromkeys((best, 'torch'))}
        for row in compare(variants, repeats, device, furthest_from(go('torch'))):
            share = round(100 * floor[name] / row['ms'], 1)
            known = dict(floor_ms=round(floor[name], 4), percent_of_floor=share)
            rows.append(dict(operation=name, **row, **known))
    return rows


def furthest_from(exact: torch.Tensor):
    "The largest error of an output."
    return lambda out: dict(max_error=float((out - exact).abs().max()))


def peaks(device: str) -> tuple[float, float]:
    "Copy bandwidth (bytes/s) and fp32 rate (flop/s) of this machine, measured with torch."
    numbers, side = (1 << 28, 8192) if device == 'cuda' else (1 << 25, 1024)
    a = torch.zeros(numbers, device=device)
    b = torch.empty_like(a)
    m = torch.randn(side, side, device=device)

    def least_ms(call) -> float:
        return min(clock(call, device)[0] for _ in range(8))

    copy = least_ms(lambda: b.copy_(a))
    product = least_ms(lambda: m @ m)
    return 2 * numbers * 4 / copy * 1e3, 2 * side**3 / product * 1e3


def noise(folder: str, resolution: int, n: int = 32) -> Dataset:
    "A set where only the speed matters: random pictures, which compress worst, decoded anew for every batch."
    size = (n, resolution, resolution, 3)
    pictures = torch.randint(256, size, generator=rng('noise'), dtype=torch.uint8).numpy()
    cameras = orbit(0.3 * torch.randn(n, generator=rng('yaw')), torch.zeros(n))
    names = [f'{i}.png' for i in range(n)]
    rows = zip(names, map(png_bytes, pictures), cameras.label.tolist())
    made = Dataset(write_zip(Path(folder) / f'noise{resolution}.zip', rows))
    made.images = made._read
    return made


TWO_PASS = {'sampler.kind': 'two_pass', 'sampler.samples': 96}
STEPS = {  # name -> operations, and changes of the preset
    'published sampler, torch': ('torch', {}),
    'published sampler': ('auto', {}),
    'ours': ('auto', BY_NEED),
    '48+48, torch': ('torch', TWO_PASS),
    '48+48': ('auto', TWO_PASS),
    'dense 192, torch': ('torch', {'sampler.kind': 'uniform', 'sampler.samples': 192}),
}


def training(device: str, repeats: int) -> list[dict]:
    """Images/s of a whole step (G, D, both optimisers) in the last stage.

    The published sampler and ours, 48 + 48 and 192 samples, of the same field; by torch and by kernels.
    waiting: share of the time in which a step stands still for its pictures.
    """
    rows = []
    batches = dict(small=32, paper=2) if device == 'cuda' else dict(heads64=8)
    for name, batch in batches.items():
        run = preset(name, **{'train.batch': batch})
        published = override(run, **PUBLISHED)
        with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
            data = noise(folder, run.resolution)
            trainers = {k: trainer(override(published, **c), i, data, device) for k, (i, c) in STEPS.items()}
            steps = {name: partial(step, t) for name, t in trainers.items()}
            of_run = dict(preset=name, batch=batch, resolution=run.resolution)
            for row in compare(steps, repeats, device, lambda out: out):
                rate = dict(images_per_s=round(1e3 * batch / row['ms'], 2)) if 'ms' in row else {}
                rows.append(of_run | row | rate)
    return rows


def trainer(run: Run, impl: str, data: Dataset, device: str) -> Trainer:
    "In its last stage, by the operations that are asked for."
    os.environ['WYSIWYG_IMPL'] = impl
    t = Trainer(WYSIWYG, run, data, torch.device(device))
    del os.environ['WYSIWYG_IMPL']
    if run.name == 'heads64':  # as its last stage has it: surfaces, not the fog that a field begins with
        t.g.load_state_dict(load_generator().state_dict())
    t.images = int(run.schedule.total)
    return t


def step(t: Trainer) -> dict[str, float]:
    "One step; which share of it was waiting for pictures."
    reals, start = t.objective.reals, time.perf_counter()
    before = reals.waited
    t.step()
    return dict(waiting=round((reals.waited - before) / (time.perf_counter() - start), 4))


class Operations(TorchDispatchMode):
    "Counts the floating-point operations of products and convolutions, those of gradients too."

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count:
            self.total += count(*args, **kwargs, out_val=out)
        return out


def paper_cost(stages: tuple[float, ...] = (1e6,), batch: int = 2) -> list[dict]:
    "Operations and memory of a step of `paper` on the CPU in float32, without R1, along its schedule."
    run = override(preset('paper'), **{'train.batch': batch})
    rows = []
    os.environ['WYSIWYG_IMPL'] = 'torch'
    with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
        t = Trainer(WYSIWYG, run, noise(folder, run.resolution), torch.device('cpu'))
        for images in map(int, stages):
            t.images, t.step_count = images, 1
            peak, start = Peak('cpu'), time.perf_counter()
            with Operations() as counted:
                t.step()
            row = {'images': images, 'resolution': t.stage.resolution, 'batch': batch}
            row['tflop_per_image'] = round(counted.total / batch / 1e12, 3)
            row['gib'] = round(peak.gib(), 2)
            row['seconds'] = round(time.perf_counter() - start, 1)
            rows.append(row)
            print(row, flush=True)
    return rows


def table(rows: list[dict]):
    "Rows as aligned text."
    keys = list(dict.fromkeys(k for r in rows for k in r))
    lines = [keys] + [[str(r.get(k, '')) for k in keys] for r in rows]
    width = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print('  '.join(v.ljust(w) for v, w in zip(line, width)))


def save(folder: Path, name: str, **content):
    "Write the results with command and provenance."
    command = ' '.join(['python', 'scripts/bench.py', *sys.argv[1:]])
    meta = dict(command=command, threads=torch.get_num_threads(), **provenance())
    with atomic(folder / f'{name}.json') as tmp:
        tmp.write_text(json.dumps(dict(meta=meta, **content), indent=1) + '\n', encoding='utf8')


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--device', default='cpu', choices=('cpu', 'cuda'))
    ask.add_argument('--resolutions', type=int, nargs='+', default=(128, 256, 512), metavar='N')
    ask.add_argument('--repeats', type=int, default=5)
    ask.add_argument('--train', action='store_true', help='training throughput instead')
    ask.add_argument(
        '--paper', action='store_true', help='operations and memory of a step of `paper` instead'
    )
    ask.add_argument('--out', type=Path, default=data_dir() / 'results')
    a = ask.parse_args()
    torch.set_grad_enabled(False)
    cuda = a.device == 'cuda'
    if cuda and not torch.cuda.is_available():
        sys.exit('no GPU here: use --device cpu')
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if a.paper:
        return save(a.out, 'bench_paper', training=paper_cost())
    if a.train:
        rows = training(a.device, a.repeats)
        table(rows)
        return save(a.out, f'bench_train_{"gpu" if cuda else "cpu"}', training=rows)
    bandwidth, flops = peaks(a.device)
    side = 512 if cuda else 64
    measured = f'{bandwidth / 1e9:.0f} GB/s and {flops / 1e12:.2f} Tflop/s as measured here'
    print(f'operations at {side}x{side} x 20; floors from {measured}')
    ops = operations(a.device, a.repeats, side, (bandwidth, flops))
    table(ops)
    g, rows = load_generator(device=torch.device(a.device)), []
    for side in a.resolutions:
        few = not cuda and side > 256
        print(f'\nframes of the shipped generator at {side}x{side}, from cached planes')
        made = frames(g, side, 1 if few else a.repeats, a.device, few)
        table([shown(r) for r in made])
        rows += made
    paper = []
    if cuda:
        print('\nframes at the sizes of the paper (untrained: times only)')
        untrained = WYSIWYG.generator(preset('paper'), start=False).to(a.device).eval().requires_grad_(False)
        paper = frames(untrained, 512, a.repeats, a.device, True)
        table([shown(r) for r in paper])
        print('others, from what they publish: the paper 222 ms (A100), Gaussian splats 6 to 7 ms (RTX 4090)')
    save(a.out, f'bench_{"gpu" if cuda else "cpu"}', operations=ops, frames=rows, paper=paper)


def shown(row: dict) -> dict:
    "What a terminal has room for."
    columns = 'name', 'psnr', 'psnr_worst5', 'evaluations', 'ms', 'median_ms', 'peak_mib'
    return {k: row[k] for k in columns if k in row}


if __name__ == '__main__':
    main()
