"Training survives what happens to it: NaN, a kill, a damaged or foreign checkpoint."
import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from wysiwyg.config import compressed, override, tiny
from wysiwyg.core import default_device
from wysiwyg.data import Dataset, png_bytes, write_zip
from wysiwyg.camera import gaussian_cameras
from wysiwyg.core import rng
from wysiwyg.training import NotFinite, Trainer, check_checkpoint, checkpoints, latest_checkpoint, load_checkpoint, save_checkpoint, train

RUN = override(tiny(), **{'train.batch': 2, 'backbone.channel_base': 128, 'backbone.channel_max': 16, 'backbone.plane_channels': 4, 'backbone.plane_hidden': 4,
                          'proposal.width': 8, 'render.coarse': 8, 'discriminator.channel_base': 128, 'discriminator.channel_max': 16, 'train.r1_every': 4,
                          'train.nan_patience': 3, 'train.checkpoint_images': 4, 'train.snapshot_images': 1000})
RUN = replace(RUN, schedule=compressed(40, 16, 32, 64, (.03, .006), 5.))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A small posed set: noise will do, it is not looked at."
    path = tmp_path_factory.mktemp('set')/'noise.zip'
    g = rng(0, 'noise')
    pictures = torch.randint(0, 256, (12, 64, 64, 3), generator=g, dtype=torch.uint8).numpy()
    labels = gaussian_cameras(12, g).label
    write_zip(path, [(f'{i:05d}.png', png_bytes(p), l.tolist()) for i, (p, l) in enumerate(zip(pictures, labels))])
    return path


@pytest.fixture(scope='module')
def data(folder): return Dataset(folder)


def same(a, b):
    if torch.is_tensor(a): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


def state(t): return {k: getattr(t, k).state_dict() for k in ('g', 'd', 'ema', 'g_opt', 'd_opt')} | {'images': t.images, 'step': t.step_count}


def test_a_nan_step_changes_nothing_and_patience_ends(data):
    t = Trainer(RUN, data)
    t.step()
    before = state(t)
    good, kept = t.g.field.color1.bias.data.clone(), {k: v.clone() for k, v in t.ema.state_dict().items()}
    t.g.field.color1.bias.data.fill_(float('nan'))
    t.step()
    assert t.skipped >= 1 and all(v.isfinite().all() for v in t.ema.state_dict().values())
    assert all(torch.equal(v, kept[k]) for k, v in t.ema.state_dict().items()) and before['step'] == t.step_count-1
    with pytest.raises(NotFinite, match='in a row were not finite'):
        for _ in range(5): t.step()
    t.g.field.color1.bias.data.copy_(good)


@pytest.mark.parametrize('part', ['g', 'd', 'ema', 'g_opt', 'd_opt', 'images', 'step_count'])
def test_forgetting_any_part_breaks_the_resume(data, tmp_path, part):
    straight = Trainer(RUN, data)
    for _ in range(2): straight.step()
    path = save_checkpoint(straight, tmp_path)
    fresh = Trainer(RUN, data)
    lost = getattr(fresh, part) if isinstance(getattr(fresh, part), int) else copy.deepcopy(getattr(fresh, part).state_dict())
    resumed = load_checkpoint(fresh, path)
    setattr(resumed, part, lost) if isinstance(lost, int) else getattr(resumed, part).load_state_dict(lost)
    for t in (straight, resumed):
        for _ in range(2): t.step()
    assert not same(state(straight), state(resumed))


def test_a_killed_run_resumes_bit_for_bit(folder, tmp_path):
    "SIGKILL somewhere in the middle, resume, and the end equals the uninterrupted run."
    script = ("import sys, torch; sys.path.insert(0, sys.argv[3]); torch.set_num_threads(1)\n"
              "import test_training as m; from wysiwyg.data import Dataset; from wysiwyg.training import train\n"
              "train(m.RUN, sys.argv[1], Dataset(sys.argv[2]), resume='latest', progress=False)")
    args = lambda out: [sys.executable, '-c', script, str(out), str(folder), os.path.dirname(__file__)]
    subprocess.run(args(tmp_path/'straight'), check=True)
    child = subprocess.Popen(args(tmp_path/'killed'))
    while not checkpoints(tmp_path/'killed') and child.poll() is None: time.sleep(.02)
    time.sleep(.3); child.send_signal(signal.SIGKILL); child.wait()
    subprocess.run(args(tmp_path/'killed'), check=True)
    a, b = [torch.load(latest_checkpoint(tmp_path/k), weights_only=True) for k in ('straight', 'killed')]
    assert a['images'] == b['images'] == 40 and same(a, b)


def test_damaged_and_foreign_checkpoints_are_refused_by_name(data, tmp_path, capsys):
    t = Trainer(RUN, data)
    t.step(); first = save_checkpoint(t, tmp_path)
    t.step(); second = save_checkpoint(t, tmp_path)
    raw = bytearray(second.read_bytes()); raw[len(raw)//2] ^= 1; second.write_bytes(raw)
    with pytest.raises(ValueError, match=f'{second.name} is damaged'): check_checkpoint(second)
    assert latest_checkpoint(tmp_path) == first and second.name in capsys.readouterr().err
    with pytest.raises(ValueError, match='was trained with loss.hinge'): load_checkpoint(Trainer(override(RUN, **{'loss.hinge': .5}), data), first)
    second.write_bytes(b''); assert latest_checkpoint(tmp_path) == first


def test_a_data_set_of_another_size_is_refused(data):
    with pytest.raises(ValueError, match='64 pixels wide'): Trainer(override(RUN, **{'probe.resolution': 8, 'schedule.resolution': [[0, 32]]}), data)


def test_the_device_is_honoured(data): assert next(Trainer(RUN, data).g.parameters()).device.type == default_device().type


def test_training_never_continues_somebody_elses_folder(data, tmp_path):
    train(RUN, tmp_path, data, progress=False, stop_at=4)
    with pytest.raises(ValueError, match='already holds checkpoints'): train(RUN, tmp_path, data, progress=False, stop_at=8)
