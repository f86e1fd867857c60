"""Training survives what happens to it: NaN, kills, full disks, damaged or foreign checkpoints.

And parts of a batch make the whole.
"""

import copy
import errno
import hashlib
import io
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from wysiwyg.camera import gaussian_cameras
from wysiwyg.cli import main
from wysiwyg.config import (
    cats,
    compressed,
    courses,
    flat,
    override,
    paper,
    schedule_table,
    suggest_gamma,
    tiny,
)
from wysiwyg.core import WriteError, default_device, rng
from wysiwyg.data import Dataset, png_bytes, write_zip
from wysiwyg.generator import method_of
from wysiwyg import heads, loop
from wysiwyg.loop import (
    Interrupted,
    _fitted,
    _Stopwatch,
    check_checkpoint,
    check_start,
    checkpoints,
    claimed,
    estimate,
    estimate_text,
    find_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    open_data,
    save_checkpoint,
    save_pair,
    schedule_segments,
    snapshot,
    start_from,
    train,
)
from wysiwyg.method import WYSIWYG, autocast
from wysiwyg.stylegan import down2
from wysiwyg.training import COUNTS, NETWORKS, Batches, Moment, NotFinite, Reals, Trainer
from wysiwyg.world import ALONE, group_size

SMALL = {
    'train.batch': 4,
    'backbone.z_dim': 8,
    'backbone.w_dim': 8,
    'backbone.channel_base': 64,
    'backbone.channel_max': 8,
    'backbone.backbone_resolution': 8,
    'backbone.plane_resolution': 16,
    'backbone.plane_channels': 4,
    'backbone.plane_hidden': 4,
    'field.hidden': 8,
    'field.geo_features': 4,
    'field.color_hidden': 4,
    'probe.resolution': 4,
    'probe.samples': 13,
    'proposal.width': 8,
    'proposal.patch': 4,
    'render.coarse': 8,
    'sampler.samples': 4,
    'sampler.top': 4,
    'discriminator.channel_base': 64,
    'discriminator.channel_max': 8,
    'discriminator.map_dim': 8,
    'discriminator.group': 2,
    'train.r1_every': 4,
    'train.nan_patience': 3,
    'augment.adaptive': True,
    'augment.p': 0.2,
    'augment.speed_images': 400.0,
    'augment.target': 0.0,
    'augment.every': 2,
    'train.checkpoint_images': 8,
    'train.snapshot_images': 100_000,
}
FORTY_STEPS = compressed(160, 4, 8, 16, (0.03, 0.006), 5.0)  # through every stage
RUN = replace(override(tiny(), **SMALL), schedule=FORTY_STEPS)


def table_of(run):
    return schedule_table(courses(run.schedule), run.schedule.total)


def noise_set(path, n=12, side=16):
    "A small posed set: noise will do, it is not looked at."
    g = rng(0, 'noise')
    pictures = torch.randint(0, 256, (n, side, side, 3), generator=g, dtype=torch.uint8).numpy()
    names = [f'{i:05d}.png' for i in range(n)]
    labels = gaussian_cameras(n, g).label.tolist()
    return write_zip(path, zip(names, map(png_bytes, pictures), labels))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return noise_set(tmp_path_factory.mktemp('set') / 'noise.zip')


@pytest.fixture(scope='module')
def data(folder):
    return Dataset(folder)


def same(a, b):
    if torch.is_tensor(a):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def steps(t, n):
    for _ in range(n):
        t.step()
    return t


def curves(folder):
    "The lines of a run's log, but for the speed and memory of the machine."
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith('perf/')} for row in rows]


def spoiled(t):
    "One step with a weight that is not finite: counted, and without effect."
    good = t.g.field.color1.bias.data.clone()
    t.g.field.color1.bias.data.fill_(float('nan'))
    t.step()
    t.g.field.color1.bias.data.copy_(good)
    return t


# ---- what is not finite --------------------------------------------------------------------------


def test_a_nan_step_changes_nothing_and_patience_ends(data):
    t = steps(Trainer(WYSIWYG, RUN, data), 1)
    before = copy.deepcopy(t.state())
    spoiled(t)
    assert all(same(before[k], t.state()[k]) for k in NETWORKS)
    assert t.skipped == 1
    assert t.skipped_in_a_row == 1
    assert t.step_count == 2
    steps(t, 1)
    assert t.skipped_in_a_row == 0
    t.g.field.color1.bias.data.fill_(float('nan'))
    why = '3 steps in a row were not finite, the last at step 5 .*g.field.color1.bias'
    with pytest.raises(NotFinite, match=why) as e:
        steps(t, 3)
    assert e.value.report['weights'] == ['g.field.color1.bias']
    assert 'd.image.out.weight' in e.value.report['gradients']
    assert e.value.report['values']['loss/D'] == 'nan'


def times_beta(value):
    "A surface loss of the same value everywhere, with a gradient."
    return lambda groups, target: groups[0][1].answer.beta.sum() * value


def test_patience_counts_a_maker_that_fails_while_the_judge_does_not(data, monkeypatch):
    monkeypatch.setattr('wysiwyg.method.surface_loss', times_beta(float('nan')))
    with pytest.raises(NotFinite):
        steps(Trainer(WYSIWYG, RUN, data), 3)


def test_a_report_is_left_and_the_log_stays_finite(data, tmp_path, monkeypatch):
    monkeypatch.setattr('wysiwyg.method.surface_loss', times_beta(float('inf')))
    with pytest.raises(NotFinite):
        train(override(RUN, **{'train.nan_patience': 2}), tmp_path, data, progress=False)
    assert json.loads((tmp_path / 'not_finite.json').read_text())['step'] == 1
    assert latest_checkpoint(tmp_path) is None


def breaks(t):
    "From now on, G's optimiser leaves a weight that is not finite, whatever the gradients."
    step = t.g_opt.step

    def spoiling():
        step()
        t.g.field.color1.bias.data.fill_(float('nan'))

    t.g_opt.step = spoiling
    return t


def test_weights_that_are_not_finite_reach_no_average_no_checkpoint_and_no_generator(data, tmp_path):
    t = steps(Trainer(WYSIWYG, RUN, data), 1)
    first = save_checkpoint(t, tmp_path)
    save_pair(t, tmp_path)
    pair = {p: p.read_bytes() for p in tmp_path.glob('*.safetensors')}
    broken = 'weights are not finite after a step whose gradients were, at step 1 .*g.field.color1.bias'
    with pytest.raises(NotFinite, match=broken):
        breaks(t).step()
    assert all(p.isfinite().all() for p in t.ema.state_dict().values())
    t.images = 8
    unwritten = 'ckpt-0000000008.pt is not written, what was there stays: g.field.color1.bias is not finite'
    with pytest.raises(NotFinite, match=unwritten):
        save_checkpoint(t, tmp_path)
    t.ema.load_state_dict(t.g.state_dict())
    with pytest.raises(NotFinite, match='generator.safetensors is not written.*ema.field.color1.bias'):
        save_pair(t, tmp_path)
    assert checkpoints(tmp_path) == [first]
    assert all(p.read_bytes() == raw for p, raw in pair.items())
    assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize('good', [0, 2])
def test_a_run_that_ends_on_skipped_steps_has_failed(data, tmp_path, monkeypatch, good):
    "All of them, or the last three, though patience would have allowed more; no generator is left."
    count = []

    def surface(groups, target):
        count.append(1)
        return groups[0][1].answer.beta.sum() * (0.0 if len(count) <= good else float('nan'))

    monkeypatch.setattr('wysiwyg.method.surface_loss', surface)
    run = override(RUN, **{'train.nan_patience': 100, 'train.checkpoint_images': 1000})
    with pytest.raises(NotFinite, match='the run ends on [23] steps that were not finite'):
        train(run, tmp_path, data, progress=False, stop_at=4 * (good + 3 if good else 2))
    assert not list(tmp_path.glob('*.safetensors'))
    assert not checkpoints(tmp_path)
    assert (tmp_path / 'not_finite.json').exists()


# ---- checkpoints ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def straight(data, tmp_path_factory):
    "A run of 40 steps: its checkpoint at 20 (with a skipped step just before), and its state at 22 and 40."
    t = spoiled(steps(Trainer(WYSIWYG, RUN, data), 19))
    path = save_checkpoint(t, tmp_path_factory.mktemp('straight'))
    return path, copy.deepcopy(steps(t, 2).state()), copy.deepcopy(steps(t, 18).state())


def test_forty_steps_are_twenty_and_twenty(data, straight):
    path, _, end = straight
    resumed = steps(load_checkpoint(Trainer(WYSIWYG, RUN, data), path), 20)
    assert resumed.images == 160
    assert all(same(resumed.state()[k], end[k]) for k in end)
    assert end['skipped'] == 1


@pytest.mark.parametrize('part', [*NETWORKS, *COUNTS])
def test_forgetting_any_part_breaks_the_resume(data, straight, part):
    path, later, _ = straight
    fresh = Trainer(WYSIWYG, RUN, data)
    lost = copy.deepcopy(fresh.state()[part])
    resumed = load_checkpoint(fresh, path)
    resumed.load_state(resumed.state() | {part: lost})
    if part == 'skipped_in_a_row':
        kept = torch.load(path, weights_only=True)[part]
        assert resumed.skipped_in_a_row != kept  # a good step resets it
    else:
        assert not same(steps(resumed, 2).state(), later)


def test_a_checkpoint_that_lacks_a_part_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, 'state', lambda t: {'images': 0})
    path = save_checkpoint(Trainer(WYSIWYG, RUN, data), tmp_path)
    with pytest.raises(ValueError, match='lacks .*g_opt.*another version'):
        load_checkpoint(Trainer(WYSIWYG, RUN, data), path)


def test_a_killed_run_resumes_bit_for_bit(folder, data, tmp_path):
    "SIGKILL in the middle, resume, and the end equals the uninterrupted run; no step is logged twice."
    train(RUN, tmp_path / 'straight', data, progress=False)
    child = os.fork()
    if child == 0:
        try:
            train(RUN, tmp_path / 'killed', data, progress=False)
        finally:
            os._exit(0)
    while not checkpoints(tmp_path / 'killed'):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), 'it ended by itself'
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert latest_checkpoint(tmp_path / 'killed').name < latest_checkpoint(tmp_path / 'straight').name
    train(RUN, tmp_path / 'killed', data, 'latest', progress=False)
    a, b = [torch.load(latest_checkpoint(tmp_path / k), weights_only=True) for k in ('straight', 'killed')]
    assert a['images'] == b['images'] == 160
    assert same(a, b)
    assert curves(tmp_path / 'straight') == curves(tmp_path / 'killed')


def test_what_was_logged_after_the_checkpoint_is_forgotten(data, tmp_path):
    train(RUN, tmp_path, data, progress=False, stop_at=16)
    log = tmp_path / 'metrics.jsonl'
    log.write_text(log.read_text() + '{"images": 400}\n{"images": 5')
    (tmp_path / '.ckpt-1.pt.00.tmp').write_text('half')
    train(RUN, tmp_path, data, 'latest', progress=False, stop_at=24)
    assert [json.loads(line)['images'] for line in log.read_text().splitlines()] == [16, 24]
    assert not list(tmp_path.glob('.*'))


class Miniature:
    """What `save_checkpoint` wants of a trainer, at a fraction of the time.

    Every number says which checkpoint it belongs to.
    """

    run, data, images = RUN, type('Data', (), {'sha': ''}), 0

    def state(self):
        networks = {k: torch.full((40_000,), self.images, dtype=torch.int32) for k in NETWORKS}
        return networks | {'images': self.images}

    def go_on(self, folder):
        "Forks a child that writes checkpoint after checkpoint."
        if child := os.fork():
            return child
        try:
            while True:
                self.images += 1
                save_checkpoint(self, folder)
        finally:
            os._exit(1)


@pytest.mark.slow
def test_two_hundred_kills_while_checkpoints_are_written(tmp_path):
    "The newest loadable checkpoint after a SIGKILL is whole, and never older than the one before."
    t, chance, cut = Miniature(), random.Random(0), 0
    save_checkpoint(t, tmp_path)
    for _ in range(200):
        child = t.go_on(tmp_path)
        time.sleep(chance.uniform(0.005, 0.12))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        newest = latest_checkpoint(tmp_path)
        cut += newest != checkpoints(tmp_path)[-1] or bool(list(tmp_path.glob('.*.tmp')))
        for left in tmp_path.glob('.*.tmp'):
            left.unlink()
        state = torch.load(newest, weights_only=True)
        assert state['images'] >= t.images
        assert newest.stem == f'ckpt-{state["images"]:010d}'
        assert all((state[k] == state['images']).all() for k in NETWORKS)
        t.images = state['images']
    assert t.images > 40 and cut > 40, (t.images, cut)  # it did write, and many kills came in the middle
    assert len(checkpoints(tmp_path)) <= RUN.train.keep + 2


def full(self, blob):
    with open(self, 'wb') as f:
        f.write(bytes(blob)[: len(blob) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def forbidden(*_):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    'fault, mend',
    [
        (('pathlib.Path.write_bytes', full), 'No space left on device.*free some space'),
        (('os.replace', forbidden), 'Permission denied.*make its folder writable'),
    ],
    ids=['ENOSPC', 'EACCES'],
)
def test_a_refused_write_keeps_the_checkpoint_before(data, tmp_path, monkeypatch, fault, mend):
    t = steps(Trainer(WYSIWYG, RUN, data), 1)
    first = save_checkpoint(t, tmp_path)
    before = first.read_bytes()
    steps(t, 1)
    with monkeypatch.context() as m:
        m.setattr(*fault)
        why = f'ckpt-0000000008.pt could not be written .*{mend}.*--resume=latest'
        with pytest.raises(WriteError, match=why):
            save_checkpoint(t, tmp_path)
    assert latest_checkpoint(tmp_path) == first
    assert first.read_bytes() == before
    assert not list(tmp_path.glob('.*'))


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from wysiwyg.cli import main
sys.exit(main(sys.argv[1:]))
"""


def options(run):
    "A run's differences from tiny as command-line options."
    of_tiny = flat(tiny())
    out = ['--cfg', 'tiny', '--kimg', '.16', '--no-track']
    for k, v in flat(run).items():
        if v == of_tiny[k] or isinstance(v, list) or k.startswith('schedule'):
            continue
        out.append(f'--{k.replace("_", "-")}')
        if v is not True:
            out.append(str(v))
    return out


def test_a_limit_of_the_system_ends_with_one_line_and_exit_code_1(folder, tmp_path):
    "No injection: the kernel itself cuts the file short (file size limit)."
    command = [sys.executable, '-c', LIMITED, *train_command(folder, tmp_path / 'run')]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert 'error: ckpt-0000000008.pt could not be written to run/ (File too large)' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not checkpoints(tmp_path / 'run')


def small_options():
    return [*options(RUN), '--schedule.resolution.knots', *'0 4 56 4 61 8 106 8 110 16'.split()]


def train_command(folder, out):
    return ['train', '--data', str(folder), '--outdir', str(out), *small_options()]


def test_damaged_and_foreign_checkpoints_are_refused_by_name(data, tmp_path, capsys):
    t = Trainer(WYSIWYG, RUN, data)
    first, second = [save_checkpoint(steps(t, 1), tmp_path) for _ in range(2)]
    raw = second.read_bytes()
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 1
    for damage in (raw[:-5], bytes(flipped), b''):
        second.write_bytes(damage)
        with pytest.raises(ValueError, match=f'{second.name} is damaged'):
            check_checkpoint(second)
        assert latest_checkpoint(tmp_path) == first
        assert second.name in capsys.readouterr().err
    second.write_bytes(raw)
    assert latest_checkpoint(tmp_path) == second
    second.with_suffix('.json').write_text('{"sha')
    assert latest_checkpoint(tmp_path) == first
    assert 'no manifest' in capsys.readouterr().err
    assert save_checkpoint(t, tmp_path) == second == latest_checkpoint(tmp_path)
    with pytest.raises(ValueError, match='was trained with loss.hinge'):
        load_checkpoint(Trainer(WYSIWYG, override(RUN, **{'loss.hinge': 0.5}), data), first)
    with pytest.raises(ValueError, match='other data'):
        load_checkpoint(Trainer(WYSIWYG, RUN, Dataset(noise_set(tmp_path / 'other.zip', 13))), first)


def rewritten(path, state):
    "The checkpoint with another content, and a manifest that says so."
    buffer = io.BytesIO()
    torch.save(state, buffer)
    sha = hashlib.sha256(buffer.getvalue()).hexdigest()
    manifest = json.loads(path.with_suffix('.json').read_text())
    path.write_bytes(buffer.getvalue())
    path.with_suffix('.json').write_text(json.dumps(manifest | {'sha256': sha}))


class Planted:
    def __reduce__(self):
        return os.system, ('echo this ran',)


FAULTS = {
    'g': lambda s: s['g'] | {'field.color1.bias': torch.zeros(7)},
    'd': lambda s: {k: v for k, v in s['d'].items() if k != 'image.out.bias'},
    'ema': lambda s: s['ema'] | {'more': torch.zeros(1)},
    'g_opt': lambda s: None,
    'd_opt': lambda s: s['d_opt'] | {'state': {0: {'exp_avg': torch.zeros(1)}}},
    'ada': lambda s: 3,
    'images': lambda s: 'many',
    'curve': lambda s: [],
    'step_count': lambda s: Planted(),
}


@pytest.fixture(scope='module')
def pair(data, tmp_path_factory):
    "A trainer, its folder, and its two checkpoints."
    folder = tmp_path_factory.mktemp('pair')
    t = Trainer(WYSIWYG, RUN, data)
    return t, folder, [save_checkpoint(steps(t, 1), folder) for _ in range(2)]


def passed_over(pair, capsys, why):
    "`latest` says in one line what is wrong with the second, and takes the first."
    t, folder, (first, _) = pair
    assert find_checkpoint(t, folder, 'latest') == first
    said = capsys.readouterr().err.strip()
    assert why in said
    assert said.count('\n') == 0
    assert 'weights_only' not in said


@pytest.mark.parametrize('part', FAULTS)
def test_a_checkpoint_of_another_shape_is_passed_over(pair, capfd, part):
    path = pair[2][1]
    raw, manifest = path.read_bytes(), path.with_suffix('.json').read_text()
    state = torch.load(path, weights_only=True)
    rewritten(path, state | {part: FAULTS[part](state)})
    passed_over(pair, capfd, f'warning: {path.name} holds ')
    path.write_bytes(raw)
    path.with_suffix('.json').write_text(manifest)


@pytest.mark.parametrize(
    'text', ['[]', 'null', '3', '{}', '{"sha256": 1, "run": [], "data": ""}', '[' * 100_000]
)
def test_a_manifest_of_another_kind_is_passed_over(pair, capsys, text):
    path = pair[2][1].with_suffix('.json')
    before = path.read_text()
    path.write_text(text)
    passed_over(pair, capsys, 'manifest')
    path.write_text(before)


def test_a_newer_version_s_checkpoint_and_a_folder_are_passed_over(pair, capsys):
    t, folder, (first, second) = pair
    path = second.with_suffix('.json')
    before = path.read_text()
    manifest = json.loads(before)
    manifest['run']['tomorrow'] = 1
    path.write_text(json.dumps(manifest))
    passed_over(pair, capsys, 'another version of the program: unknown config key tomorrow')
    path.write_text(before)
    odd = folder / 'ckpt-0000000012.pt'
    odd.mkdir()
    assert find_checkpoint(t, folder, 'latest') == second
    assert f'{odd.name} is a folder' in capsys.readouterr().err
    assert save_checkpoint(t, folder) == second
    odd.rmdir()


def test_where_nothing_can_be_gone_on_from_nothing_is_lost(pair, tmp_path):
    t = pair[0]
    path = save_checkpoint(t, tmp_path)
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='none of the 1 checkpoints in .* can be gone on from'):
        find_checkpoint(t, tmp_path, 'latest')
    path.with_suffix('.json').unlink()
    assert find_checkpoint(t, tmp_path, 'latest') is None  # its writing was cut short: there never was one


def test_resume_takes_a_folder_and_says_what_is_not_there(data, pair, tmp_path):
    t, folder, (_, second) = pair
    assert find_checkpoint(t, tmp_path, str(folder)) == second
    assert find_checkpoint(t, tmp_path, str(second)) == second
    with pytest.raises(ValueError, match='there is no /nosuch.pt'):
        train(RUN, tmp_path / 'a', data, '/nosuch.pt', progress=False)
    with pytest.raises(ValueError, match='none of the 0 checkpoints'):
        find_checkpoint(t, folder, str(tmp_path))
    check_start(RUN, folder, 'latest')
    why = r'was trained with backbone.z_dim = 8, not 64 \(and \d+ more fields differ\): repeat the whole'
    with pytest.raises(ValueError, match=why):  # before any head is rendered
        check_start(tiny(), folder, 'latest')
    with pytest.raises(ValueError, match='train.g_lr = .*: give the same value, or start anew'):
        check_start(override(RUN, **{'train.g_lr': 1.0}), folder, str(second))
    with pytest.raises(ValueError, match='there is no /nosuch.safetensors: train.network'):
        start_from(t, '/nosuch.safetensors')
    with pytest.raises(ValueError, match='there is no /nosuch.safetensors'):
        train(override(RUN, **{'train.network': '/nosuch.safetensors'}), tmp_path / 'a', data, progress=False)
    assert not (tmp_path / 'a').exists()


def test_a_checkpoint_of_the_same_name_is_kept_only_where_it_is_the_same(data, tmp_path):
    t = steps(Trainer(WYSIWYG, RUN, data), 1)
    path = save_checkpoint(t, tmp_path)
    stamp = path.stat().st_mtime_ns, path.stat().st_ino
    assert save_checkpoint(t, tmp_path) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == stamp
    t.ema.field.color1.bias.data += 1
    save_checkpoint(t, tmp_path)
    assert same(torch.load(path, weights_only=True), t.state())
    assert check_checkpoint(path)


def test_rewinding_sets_aside_what_came_later(data, tmp_path, capsys):
    run = override(RUN, **{'train.checkpoint_images': 4, 'train.keep': 5})
    train(run, tmp_path, data, progress=False, stop_at=16)
    again = override(run, **{'train.ema_images': 1.0})
    t = train(again, tmp_path, data, str(tmp_path / 'ckpt-0000000004.pt'), progress=False, stop_at=8)
    assert 'ckpt-0000000016.pt' in capsys.readouterr().err
    assert t.images == 8
    assert [p.name for p in checkpoints(tmp_path)] == ['ckpt-0000000004.pt', 'ckpt-0000000008.pt']
    assert check_checkpoint(latest_checkpoint(tmp_path))['run']['train']['ema_images'] == 1
    assert {p.name for p in (tmp_path / 'set-aside-1').iterdir()} >= {
        'ckpt-0000000008.pt',
        'ckpt-0000000016.json',
        'generator.safetensors',
        'snapshot-0000000016.png',
    }


def test_a_folder_belongs_to_one_training_and_a_killed_one_gives_it_back(data, tmp_path):
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        with claimed(tmp_path / 'run'):
            os.write(done, b'x')
            time.sleep(60)
    os.read(ready, 1)
    with pytest.raises(ValueError, match=f'run belongs to process {child} on .*another --outdir'):
        train(RUN, tmp_path / 'run', data, 'latest', progress=False, stop_at=4)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with claimed(tmp_path / 'run'), pytest.raises(ValueError, match=f'process {os.getpid()} on '):
        train(RUN, tmp_path / 'run', data, progress=False, stop_at=4)


# ---- what a recorder is told ---------------------------------------------------------------------


class Listener:
    "Keeps what it is told; may fail at everything."

    def __init__(self, fails=False):
        self.fails, self.opened, self.values, self.images, self.ended = fails, [], {}, {}, []

    def __call__(self, resumed):
        self.opened.append(resumed)
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.ended.append(kind)
        self.fail()

    def fail(self):
        if self.fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def metrics(self, values, step):
        self.values[step] = values
        self.fail()

    def image(self, array, name, step):
        self.images[name] = array.shape
        self.fail()


def test_a_recorder_opens_when_all_is_checked_and_is_told_means(data, tmp_path):
    "Curves are means since the last line; names are plain; what cannot move is left out; pictures are large."
    heard = Listener()
    with pytest.raises(ValueError, match='there is no'):
        train(RUN, tmp_path, data, '/nosuch.pt', heard, False)
    assert heard.opened == []
    train(RUN, tmp_path, data, None, heard, False, stop_at=12)
    t = Trainer(WYSIWYG, RUN, data)
    values = [t.step() for _ in range(3)]
    told = heard.values[12]
    for k in ('loss/D', 'D/sign', 'geometry/beta', 'loss/r1'):
        known = [v[k] for v in values if k in v]
        assert told[f'train/{k}'] == pytest.approx(sum(known) / len(known), rel=1e-12)
    assert told['perf/images_per_second'] > 0
    assert told['perf/memory_gib'] > 0
    assert not [k for k in told if 'train/train' in k or k == 'train/skipped']
    assert 'train/ada_p' in told
    assert curves(tmp_path)[-1]['loss/D'] == told['train/loss/D']
    assert set(heard.images) == {'image', 'normal', 'depth'}
    assert all(s == (192, 384, 3) for s in heard.images.values())
    train(RUN, tmp_path, data, 'latest', heard, False, stop_at=16)
    assert heard.opened == [False, True]
    assert heard.ended == [None, None]
    t.run = override(RUN, **{'augment.adaptive': False})
    t.ada.p = 0.0
    assert t.moving() == {}


def test_a_recorder_that_fails_costs_one_warning(data, tmp_path, capsys):
    t = train(RUN, tmp_path, data, None, Listener(fails=True), False, stop_at=12)
    said = capsys.readouterr().err
    assert t.images == 12
    assert latest_checkpoint(tmp_path)
    assert said.count('the recorder failed') == 1
    assert 'No space left' in said
    assert said.count('\n') == 1


def signal_after(count, number, monkeypatch):
    "The process gets a signal at the end of a step."
    step = Trainer.step

    def signalling(t):
        out = step(t)
        if t.step_count == count:
            os.kill(os.getpid(), number)
        return out

    monkeypatch.setattr(Trainer, 'step', signalling)


def test_an_interrupted_run_tells_its_recorder_and_how_to_go_on(data, tmp_path, monkeypatch):
    heard = Listener(fails=True)
    signal_after(1, signal.SIGTERM, monkeypatch)
    with pytest.raises(Interrupted, match='interrupted by SIGTERM.*--resume=latest'):
        train(RUN, tmp_path, data, None, heard, False)
    assert heard.ended == [Interrupted]


def test_what_is_wrong_is_said_before_anything_is_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, 'render_heads', lambda *a, **k: pytest.fail('rendered'))
    with pytest.raises(ValueError, match='sampler.tau'):
        train(override(RUN, **{'sampler.tau': 2.0}), tmp_path / 'a', progress=False)
    assert not (tmp_path / 'a').exists()


def test_an_estimate_renders_a_handful(monkeypatch):
    asked = []
    monkeypatch.setattr(heads, 'render_heads', lambda c, progress: asked.append(c.n) or 'nosuch.zip')
    for few in (True, False):
        with pytest.raises(ValueError):
            open_data(tiny(), False, few)
    assert asked == [4 * tiny().train.batch, tiny().heads.n]


def test_snapshots_look_from_the_cameras_of_the_data_a_few_people_at_a_time(data):
    t = Trainer(WYSIWYG, RUN, data)
    assert t.g.view == t.ema.view == data.view
    whole = snapshot(t.ema, 4)
    t.ema = t.ema.using(run=override(RUN, **{'render.max_points': 16 * 16 * 26 * 3}))
    made, synthesize = [], t.ema.synthesize

    def counted(w):
        made.append(len(w))
        return synthesize(w)

    t.ema.synthesize = counted
    assert torch.allclose(snapshot(t.ema, 4), whole, atol=1e-5)
    assert made == [3, 1]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_a_checkpoint_and_its_own_exit_code(folder, tmp_path, number, monkeypatch):
    signal_after(3, number, monkeypatch)
    command = [*train_command(folder, tmp_path / 'run'), '--train.checkpoint-images', '1000']
    assert main(command) == 128 + number
    assert latest_checkpoint(tmp_path / 'run').name == 'ckpt-0000000012.pt'


def test_training_never_continues_somebody_elses_folder(data, tmp_path):
    train(RUN, tmp_path, data, progress=False, stop_at=4)
    with pytest.raises(ValueError, match='already holds checkpoints'):
        train(RUN, tmp_path, data, progress=False, stop_at=8)


def test_a_data_set_of_another_size_is_refused(data):
    larger = override(RUN, **{'probe.resolution': 8, 'schedule.resolution': [[0, 32]]})
    with pytest.raises(ValueError, match='16 pixels wide'):
        Trainer(WYSIWYG, larger, data)


def test_the_device_is_honoured(data):
    assert next(Trainer(WYSIWYG, RUN, data).g.parameters()).device.type == default_device().type


# ---- sets without cameras ------------------------------------------------------------------------


@pytest.mark.parametrize('label, width', [(4, 5), (None, 0)])
def test_wysiwyg_wants_cameras_and_batches_do_not(tmp_path, label, width):
    side = RUN.resolution
    png = png_bytes(np.zeros((side, side, 3), np.uint8))
    data = Dataset(write_zip(tmp_path / 'a.zip', [(f'{i}.png', png, label) for i in range(6)]))
    with pytest.raises(ValueError, match='^a has .*: give a set with cameras'):
        Trainer(WYSIWYG, RUN, data)
    batches = Batches(RUN, data, torch.device('cpu'), ALONE)
    made = batches.part(0, Moment(0, 0, 0.5))
    assert made.label.shape == made.condition.shape == (RUN.train.batch, width)
    images, labels = Reals(batches).read(0, 0)
    assert (len(images), labels.shape) == (RUN.train.batch, (RUN.train.batch, width))


# ---- parts of a batch ----------------------------------------------------------------------------


class Double(Dataset):
    "The set in float64, in which rounding is out of the way of what is to be compared."

    def __init__(self, path):
        super().__init__(path)
        self.labels = self.labels.double()

    def batch(self, *a):
        images, label = super().batch(*a)
        return images.double(), label.double()


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def furthest(a: dict, b: dict) -> float:
    "Largest difference between two trainers' networks."

    def between(x, y):
        return max((x[k] - y[k]).abs().max().item() for k in x)

    return max(between(a[net], b[net]) for net in ('g', 'd', 'ema'))


def test_micro_batches_equal_the_whole_batch(folder, float64):
    run = override(RUN, **{'train.batch': 8, 'train.r1_every': 2})
    run = replace(run, schedule=compressed(80, 4, 8, 16, (0.03, 0.006), 5.0))

    def trainer(micro_batch):
        return Trainer(WYSIWYG, override(run, **{'train.micro_batch': micro_batch}), Double(folder))

    whole, parts = [steps(trainer(m), 10).state() for m in (0, 2)]
    assert furthest(whole, parts) < 1e-9
    with pytest.raises(ValueError, match='make the batch a multiple of 3'):
        trainer(3)
    with pytest.raises(ValueError, match='discriminator.group a divisor of 1'):
        trainer(1)


# ---- presets and what a run will cost ------------------------------------------------------------

TABLE_A3 = {
    'rendering resolution': [
        (0, 10, 64, 64),
        (10, 11, 64, 128),
        (11, 18, 128, 128),
        (18, 18.2, 128, 512),
        (18.2, 28.2, 512, 512),
    ],
    'B_target': [(0, 10, 0.01, 0.01), (10, 11, 0.01, 0.001), (11, 28.2, 0.001, 0.001)],
    'supervise proposals': [(0, 16, 0, 0), (16, 28.2, 1, 1)],
    'render with proposals': [(0, 17, 0, 0), (17, 28.2, 1, 1)],
    'R1 gamma': [(0, 18, 1, 1), (18, 25, 4, 4), (25, 28.2, 2, 2)],
    'LR multiplier of MLP_c': [(0, 25, 2, 2), (25, 28.2, 1, 1)],
}


@pytest.mark.parametrize('line', TABLE_A3)
def test_the_paper_preset_is_table_a3(line):
    "As printed in the paper, in millions of images."

    def in_images(millions):
        return pytest.approx(millions * 1e6)

    printed = [(in_images(a), in_images(b), y0, y1) for a, b, y0, y1 in TABLE_A3[line]]
    assert table_of(paper())[line] == printed


def test_the_dry_run_prints_the_table(capsys):
    assert main('train --cfg paper --heads.resolution 512 --dry-run'.split()) == 0
    said = capsys.readouterr().out
    for text in (
        '64 (0-10), 64 to 128 (10-11), 128 (11-18), 128 to 512 (18-18.2), 512 (18.2-28.2)',
        '1 (0-18), 4 (18-25), 2 (25-28.2)',
        '0.01 to 0.001 (10-11)',
        'train.batch: 32',
    ):
        assert text in said


PUBLISHED = {
    'train.batch': 32,
    'probe.resolution': 128,
    'probe.samples': 192,
    'backbone.channel_base': 65536,
    'backbone.plane_channels': 32,
    'backbone.backbone_resolution': 256,
    'backbone.plane_resolution': 512,
    'sampler.tau': 0.98,
    'sampler.samples': 16,
    'sampler.boost': 2,
    'sampler.boost_fraction': 0.1,
    'sampler.top': 16,
    'proposal.suppress': 5e-3,
    'proposal.patch': 64,
    'field.hidden': 128,
    'field.geo_features': 64,
    'field.color_hidden': 64,
    'field.pos_freqs': 6,
    'field.dir_freqs': 2,
    'field.beta_init': 0.01,
    'field.beta_min': 0.0001,
}


def test_published_values():
    "A3.2, A3.4, Tables A1, A2, A4, and the fine-tuning on AFHQ."
    p, c = paper(), cats()
    assert {name: value for name, value in flat(p).items() if name in PUBLISHED} == PUBLISHED
    assert p.schedule.total == 28.2e6
    assert p.resolution == 512
    assert group_size(p.train.batch, p.discriminator.group) <= p.train.batch // 16
    assert not p.augment.adaptive
    assert c.schedule.total == 1.2e6
    assert c.augment.adaptive
    last = {line: rows[-1][-1] for line, rows in table_of(p).items()}
    of_cats = {line: rows[-1][-1] for line, rows in table_of(c).items()}
    assert of_cats == last | {'R1 gamma': 6}
    assert all(len(v) == 1 for v in table_of(c).values())


def test_gamma_follows_resolution_and_batch(capsys):
    assert suggest_gamma(256, 32) == pytest.approx(0.4096)
    assert not capsys.readouterr().err
    assert suggest_gamma(64, 8) == pytest.approx(0.1024)
    assert 'warning: a gamma for a batch of 8' in capsys.readouterr().err
    assert main('train --cfg small --gamma auto --batch 16 --dry-run --json'.split()) == 0
    assert json.loads(capsys.readouterr().out)['schedule.gamma'] == [[0, 0.0002 * 128**2 / 16]]


def test_fine_tuning_starts_from_a_pair(data, tmp_path):
    first = train(RUN, tmp_path / 'first', data, progress=False, stop_at=8)
    modes = {f.stat().st_mode for f in (tmp_path / 'first').glob('*.*')}
    assert len(modes) == 1  # who may read one file of a run may read them all
    network = str(tmp_path / 'first/generator.safetensors')
    tuning = {'train.network': network, 'train.seed': 5, 'train.ema_ramp': float('inf')}
    tuned = override(RUN, **tuning)
    t = train(tuned, tmp_path / 'tuned', data, progress=False, stop_at=4)

    def distance_to(other):
        mine, theirs = t.ema.state_dict(), other.ema.state_dict()
        return max((mine[k] - theirs[k]).abs().max().item() for k in mine)

    assert distance_to(first) < 0.05
    assert distance_to(Trainer(WYSIWYG, tuned, data)) > 0.05
    grown = 'discriminator.channel_max', 16  # its last layer counts channels
    for field, ours in (('field.hidden', 16), ('discriminator.channel_base', 32), grown):
        other = override(tuned, **{field: ours, 'probe.kind': 'coarse_to_fine', 'sampler.kind': 'refined'})
        why = rf'has other sizes than this run: give --{field} \d+$'
        with pytest.raises(ValueError, match=why):
            check_start(other, tmp_path / 'other')  # before anything is rendered or written
        with pytest.raises(ValueError, match=why):
            start_from(Trainer(WYSIWYG, other, data), network)
    wide = override(tuned, **{'field.hidden': 16, 'backbone.channel_base': 512})
    with pytest.raises(ValueError, match=r'this run: give --field.hidden \d+$'):  # wider would do
        check_start(wide, tmp_path / 'other')
    judge = tmp_path / 'first/discriminator.safetensors'
    critic = load_file(judge)
    kinds = (torch.int64, 1), (torch.float8_e4m3fn, 1), (torch.float32, math.nan), (torch.float64, 1e300)
    for kind, value in kinds:
        spoil = torch.tensor(value, dtype=torch.float64).to(kind)
        spoilt = {k: spoil.repeat(v.shape) for k, v in critic.items()}
        save_file(spoilt, judge)
        with pytest.raises(ValueError, match='discriminator.safetensors is of no use'):
            check_start(tuned, tmp_path / 'other')
    save_file(dict(list(critic.items())[1:]), judge)
    with pytest.raises(ValueError, match='other sizes than this run: it is of another pair'):
        check_start(tuned, tmp_path / 'other')
    check_start(override(tuned, **{'train.network': 'gone'}), tmp_path / 'tuned', 'latest')  # not asked again
    judge.unlink()
    with pytest.raises(ValueError, match='there is no discriminator.safetensors beside'):
        train(tuned, tmp_path / 'none', data, progress=False)


def test_a_pair_goes_on_in_wider_networks(data, tmp_path):
    "The same fakes, the same verdicts; and what is new learns."
    save_pair(train(RUN, tmp_path / 'first', data, progress=False, stop_at=4), tmp_path / 'pair')
    wide = {'backbone.channel_base': 256, 'backbone.channel_max': 32, 'discriminator.channel_base': 512}
    pair = {'train.network': str(tmp_path / 'pair')}
    check_start(override(RUN, **wide, **pair), tmp_path / 'wide')
    narrow, wider = [
        start_from(Trainer(WYSIWYG, override(RUN, **sizes), data), tmp_path / 'pair') for sizes in ({}, wide)
    ]
    before, after = narrow.fake(0, learn=False), wider.fake(0, learn=False)
    image = before.images['image']
    assert torch.allclose(after.images['image'], image, atol=1e-4)
    logits = [t.d['image'](image, before.label) for t in (narrow, wider)]
    assert torch.allclose(*logits, atol=1e-4)
    parts = 'triplane.blocks.1.conv0.weight', 'triplane.blocks.0.const'
    start = wider.g.state_dict()
    assert all(start[k].numel() > narrow.g.state_dict()[k].numel() for k in parts)
    assert all(wider.ema.state_dict()[k].equal(start[k]) for k in parts)
    unheard = wider.d['image'].blocks[0].conv0.weight
    assert (unheard == 0).any()
    wider.step()
    assert not (unheard == 0).any()


def test_a_pair_goes_on_with_twice_the_pixels(data, tmp_path):
    "The generator as it was, the critic's verdicts of halved pictures; four times as many are refused."
    run = override(RUN, **{'discriminator.channel_base': 256})
    save_pair(train(run, tmp_path / 'first', data, progress=False, stop_at=4), tmp_path / 'pair')
    pair = {'train.network': str(tmp_path / 'pair')}
    double, fourfold = [
        override(run, **pair, **{'probe.resolution': side // 4, 'schedule.resolution': [[0, side]]})
        for side in (32, 64)
    ]
    check_start(double, tmp_path / 'double')
    noise = Dataset(noise_set(tmp_path / 'noise.zip', side=32))
    small = start_from(Trainer(WYSIWYG, run, data), tmp_path / 'pair')
    tall = start_from(Trainer(WYSIWYG, double, noise), tmp_path / 'pair')
    assert same(tall.g.state_dict(), small.g.state_dict())
    image, label = torch.rand(4, 3, 32, 32) * 2 - 1, noise.labels[:4]
    verdicts = small.d['image'](down2(image), label), tall.d['image'](image, label)
    assert torch.allclose(*verdicts, atol=1e-5)
    unheard = tall.d['image'].blocks[0].skip.weight
    assert not unheard.any()
    tall.step()
    assert unheard.any()
    with pytest.raises(ValueError, match='ends at 16, or at 32 with --probe.resolution 8'):
        check_start(fourfold, tmp_path / 'fourfold')
    wider = override(double, **{'discriminator.channel_max': 16})
    with pytest.raises(ValueError, match='this run: give --discriminator.channel_max 8;'):
        check_start(wider, tmp_path / 'wider')
    narrow = override(double, **{'discriminator.channel_base': 64})
    with pytest.raises(ValueError, match='6 channels at 32 pixels, which has 2'):
        check_start(narrow, tmp_path / 'narrow')
    judge = tmp_path / 'pair/discriminator.safetensors'
    critic = load_file(judge)
    for lost in ('from_rgb.weight', 'from_rgb.bias', 'blocks.0.conv0.weight'):
        save_file({k: x for k, x in critic.items() if k != lost}, judge)
        for wanted in (override(run, **pair), double):
            with pytest.raises(ValueError, match='other sizes than this run'):
                check_start(wanted, tmp_path / 'lost')


@pytest.mark.parametrize('system', ['eg3d', 'imagenet3d'])
def test_other_systems_backbones_are_widened_too(system):
    "Mimic3D's is not: its blocks feed a stream of their own."
    run = method_of(override(RUN, system=system)).adapted(RUN)
    wide = override(
        run, **{'backbone.channel_base': 4 * run.backbone.channel_base, 'backbone.channel_max': 32}
    )
    narrow, wider = [method_of(r).generator(r).eval() for r in (run, wide)]
    wider.load_state_dict(_fitted(narrow.state_dict(), wider, 'a file', run, wide))
    w = torch.randn(2, run.backbone.w_dim, generator=rng(0))
    before, after = [g.triplane(w) for g in (narrow, wider)]
    assert sum(p.numel() for p in wider.parameters()) > 2 * sum(p.numel() for p in narrow.parameters())
    pairs = zip(before, after) if isinstance(before, tuple) else [(before, after)]
    assert all(torch.allclose(*pair, atol=1e-5) for pair in pairs)


def test_half_precision_is_where_it_holds(data, monkeypatch):
    """bfloat16 in the backbone, the proposal network and D's blocks.

    float32 in mapping, field, D's last layers, and everywhere in D where R1 looks.
    """
    monkeypatch.setenv('WYSIWYG_IMPL', 'torch')  # whose parts can be watched
    t, seen = Trainer(WYSIWYG, override(RUN, **{'train.bf16': True}), data), {}
    d = t.d['image']

    def note(name, out):
        first = out[0] if isinstance(out, tuple) else out
        seen.setdefault(name, set()).add(first.dtype)

    def watch(name, module):
        module.register_forward_hook(lambda _, given, out: note(name, out))

    for name, module in (
        ('mapping', t.g.mapping.layers[0]),
        ('proposal', t.g.proposal.head[0]),
        ('blocks', d.blocks[0]),
        ('statistics', d.conv),
        ('last', d.out),
    ):
        watch(name, module)
    geometry = t.g.field.geometry

    def watched_geometry(planes, x):
        out = geometry(planes, x)
        note('field', out)
        return out

    t.g.field.geometry = watched_geometry
    half, full = {torch.bfloat16}, {torch.float32}
    t.images, t.step_count = 120, 1
    values = t.step()
    wanted = {name: full for name in ('mapping', 'field', 'statistics', 'last')}
    assert seen == wanted | {'proposal': half, 'blocks': half}
    w = torch.randn(2, 8)
    with torch.no_grad(), autocast(t.run, t.device):
        rounded = t.g.synthesize(w)
    with torch.no_grad():
        planes = t.g.synthesize(w)
    error = (planes - rounded).abs().max() / planes.abs().max()
    assert 1e-5 < error < 0.02  # its convolutions were half
    exact = Trainer(WYSIWYG, RUN, data)
    exact.images, exact.step_count = 120, 1
    for k, v in exact.step().items():
        if k.startswith(('loss', 'geometry')):
            assert abs(v - values[k]) < 0.05 * max(1, abs(v)), k
    seen.clear()
    t.images, t.step_count = 120, 4
    assert 'loss/r1' in t.step()
    assert seen['blocks'] == half | full
    for p in [*t.g.parameters(), *t.d.parameters()]:
        assert p.dtype == torch.float32
        assert p.isfinite().all()
    assert t.skipped == 0


def test_reading_is_somebody_elses_work(folder):
    "Every batch is asked for by a thread, one step ahead: no step decodes a picture."

    class Watched(Dataset):
        asked = []

        def batch(self, position, *a):
            self.asked.append((position, threading.current_thread()))
            return super().batch(position, *a)

    data = Watched(folder)
    t = steps(Trainer(WYSIWYG, RUN, data), 3)
    t.objective.reals.ahead.popitem()[1].result()
    assert [p for p, _ in data.asked] == list(range(16))
    assert threading.main_thread() not in {who for _, who in data.asked}


def told_time(monkeypatch, pixel: float, r1: float, picture: float, kept: float):
    "A clock that only work moves, by these many seconds; what a machine really takes is nothing to it."
    now = [0.0]

    def costing(real, cost):
        def call(*args, **kwargs):
            now[0] += cost(*args)
            return real(*args, **kwargs)

        return call

    def of_step(t):
        due = t.step_count % t.run.train.r1_every == 0
        return t.run.train.batch * (pixel * t.stage.resolution**2 + r1 * due)

    monkeypatch.setattr(Trainer, 'step', costing(Trainer.step, of_step))
    monkeypatch.setattr(loop, 'snapshot', costing(snapshot, lambda g, people=loop.PEOPLE: picture * people))
    monkeypatch.setattr(loop, 'save_checkpoint', costing(save_checkpoint, lambda *_: kept))
    return lambda: now[0]


def test_the_estimate_is_what_then_happens(data, tmp_path, monkeypatch):
    run = override(RUN, **{'train.checkpoint_images': 40.0, 'schedule.total': 160.0})
    clock = told_time(monkeypatch, pixel=1e-4, r1=0.05, picture=0.1, kept=0.2)
    rows = estimate(run, data, steps=3, clock=clock)
    spans = schedule_segments(courses(run.schedule), run.schedule.total)
    assert [(r['from'], r['to']) for r in rows[:-1]] == spans
    assert rows[-1]['GiB'] > 0
    begun = clock()
    train(run, tmp_path, data, progress=False)
    took, expected = clock() - begun, rows[-1]['hours'] * 3600
    assert took == pytest.approx(expected, rel=0.05)


def test_stages_without_time_are_interpolated_and_marked(data, monkeypatch, capsys):
    "A clock that runs 30 s a look: the first and the last stage are measured."
    run = override(RUN, **{'train.checkpoint_images': 40.0, 'schedule.total': 160.0})
    monkeypatch.setattr(_Stopwatch, '__call__', lambda self, images: 1 + images / 160)
    ticks = itertools.count(0.0, 30.0)
    rows = estimate(run, data, steps=1, clock=lambda: next(ticks), progress=True)
    assert capsys.readouterr().err.startswith('estimate: making networks')
    measured = [row['measured'] for row in rows[:-1]]
    assert measured[0] and measured[-1]
    assert not rows[-1]['measured']
    speeds = [row['images/s'] for row in rows[:-1]]
    assert all(min(speeds[0], speeds[-1]) <= speed <= max(speeds) for speed in speeds)
    text = estimate_text(rows).splitlines()
    assert text[-1].startswith('* interpolated by the pixels of a frame')
    marked = [line.endswith(' *') for line in text[1:-3]]
    assert marked == [not known for known in measured]


def test_what_is_no_checkpoint_is_refused_at_the_start(data, folder, tmp_path):
    with pytest.raises(ValueError, match='noise.zip is no checkpoint'):
        train(RUN, tmp_path / 'a', data, resume=str(folder), progress=False)
    (tmp_path / 'b' / 'ckpt-0000000004.pt').mkdir(parents=True)
    with pytest.raises(ValueError, match='is a folder where a checkpoint goes'):
        train(RUN, tmp_path / 'b', data, resume='latest', progress=False)
