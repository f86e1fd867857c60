"""Several processes equal one, only rank 0 writes, a killed one ends the job at once.

And torchrun carries on from the last checkpoint.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from wysiwyg.cli import _train_in_processes
from wysiwyg.config import override
from wysiwyg.core import rng
from wysiwyg.data import Dataset
from wysiwyg.stylegan import minibatch_std
from wysiwyg.loop import Interrupted, checkpoints, latest_checkpoint
from wysiwyg.method import WYSIWYG
from wysiwyg.training import Trainer
from wysiwyg.world import ProcessGroup, _own_gpu, rows_of
from test_training import RUN, Double, curves, furthest, noise_set, same, small_options, steps

HERE = Path(__file__).parent
ALONE = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return noise_set(tmp_path_factory.mktemp('set') / 'noise.zip')


def environment(**more):
    plain = {k: v for k, v in os.environ.items() if k not in ALONE}
    own = {'OMP_NUM_THREADS': '1', 'WYSIWYG_DEVICE': 'cpu', 'PYTHONPATH': f'{HERE.parent}:{HERE}'}
    return plain | own | more


def free_port() -> str:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])


def started(command, **more):
    "A process whose two streams are read."
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, env=environment(**more), **pipes)


def ranks(code, *args, n=2):
    "Start n processes that join one world and run `code`; sys.argv[1:] are args."
    command = [sys.executable, '-c', code, *map(str, args)]
    world = dict(WORLD_SIZE=str(n), MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    return [started(command, RANK=str(r), LOCAL_RANK=str(r), **world) for r in range(n)]


# ---- sharing a batch out -------------------------------------------------------------------------


@pytest.mark.parametrize(
    'batch, group, parts', [(8, 4, 2), (32, 2, 16), (12, 4, 3), (6, 4, 2), (5, 4, 5), (16, 1, 8)]
)
def test_parts_are_disjoint_and_keep_their_groups(batch, group, parts):
    rows = [rows_of(batch, group, p, parts) for p in range(parts)]
    assert sorted(torch.cat(rows).tolist()) == list(range(batch))
    x = torch.randn(batch, 2, 2, 2, generator=rng(0))
    whole = minibatch_std(x, group)
    for r in rows:
        assert torch.allclose(minibatch_std(x[r], group), whole[r], atol=1e-6)


def test_a_batch_that_cannot_be_shared_is_refused(folder):
    why = 'make the batch a multiple of 8, or discriminator.group a divisor of 2'
    with pytest.raises(ValueError, match=why):
        rows_of(4, 4, 0, 2)
    with pytest.raises(ValueError, match='3 processes .* cannot share a batch of 4'):
        Trainer(WYSIWYG, RUN, Dataset(folder), world=ProcessGroup(0, 3))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    why = 'process 2 of this machine has no GPU of its own: there are 2, .*--nproc-per-node=2'
    with pytest.raises(ValueError, match=why):
        _own_gpu(2)


# ---- two are one ---------------------------------------------------------------------------------

TEN_STEPS = {
    'train.batch': 8,
    'train.r1_every': 2,
    'schedule.resolution': [[0, 4], [24, 4], [24, 8], [48, 8], [48, 16]],
    'loss.decision': 0.05,
    'schedule.supervise_from': 24.0,
    'schedule.render_from': 40.0,
    'schedule.total': 80.0,
}
TWIN = override(RUN, **TEN_STEPS)
TEN = """
import sys, torch; torch.set_num_threads(1); torch.set_default_dtype(torch.float64)
from test_distributed import *
from wysiwyg.world import join_world
with join_world() as world:
    t = steps(Trainer(WYSIWYG, TWIN, Double(sys.argv[1]), world=world), 10)
    if world.lead: torch.save(t.state(), sys.argv[2])
"""


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_two_ranks_equal_one_process(folder, tmp_path, float64):
    "Ten steps through every stage, R1 at every second: networks, averages (EMA, mean w), optimisers agree."
    two = ranks(TEN, folder, tmp_path / 'two.pt')
    one = steps(Trainer(WYSIWYG, TWIN, Double(folder)), 10).state()
    said = [p.communicate(timeout=120) for p in two]
    assert [p.returncode for p in two] == [0, 0], said
    both = torch.load(tmp_path / 'two.pt', weights_only=True)
    start = Trainer(WYSIWYG, TWIN, Double(folder)).state()
    assert furthest(one, both) < 1e-9
    assert furthest(one, start) > 1e-3
    mean_w, of_two = one['g']['mapping.w_mean'], both['g']['mapping.w_mean']
    assert (mean_w - of_two).abs().max() < 1e-9
    assert mean_w.abs().max() > 1e-9


# ---- one of them is lost -------------------------------------------------------------------------

TRAIN = (
    'import sys, torch; torch.set_num_threads(1); from wysiwyg.cli import main; sys.exit(main(sys.argv[1:]))'
)


def wait_for(condition, seconds=90):
    end = time.time() + seconds
    while not condition() and time.time() < end:
        time.sleep(0.02)
    assert condition()


def test_a_killed_rank_ends_the_job_with_an_error(folder, tmp_path):
    out = tmp_path / 'run'
    two = ranks(TRAIN, 'train', '--data', folder, '--outdir', out, *small_options())
    wait_for(lambda: checkpoints(out))
    two[1].kill()
    begun = time.time()
    _, said = two[0].communicate(timeout=60)
    two[1].communicate()
    assert two[0].returncode == 1, said
    assert 'error: another process of the job is gone or stuck' in said
    assert '--resume=latest' in said
    assert time.time() - begun < 20
    assert latest_checkpoint(out)


STUCK = """
import sys, time, torch
from wysiwyg.world import *
with join_world(timeout=3) as world:
    if not world.lead: time.sleep(60)
    try: world.average([torch.zeros(3)])
    except PeerLost as e: print(e, flush=True); import os; os._exit(5)
"""


def test_a_stuck_rank_is_given_up(tmp_path):
    two = ranks(STUCK)
    said, _ = two[0].communicate(timeout=40)
    two[1].kill()
    two[1].communicate()
    assert two[0].returncode == 5
    assert 'gone or stuck' in said


@pytest.mark.slow
def test_torchrun_restarts_from_the_last_checkpoint(folder, tmp_path):
    """A rank is killed; torchrun starts both again and the end equals the uninterrupted run of two.

    Only rank 0 wrote.
    """
    torchrun = ['-m', 'torch.distributed.run', '--nproc-per-node=2', '--max-restarts=1']
    program = [f'--master-port={free_port()}', '-m', 'wysiwyg.cli']
    training = ['train', '--data', str(folder), *small_options()]
    killed = ['--resume=latest', '--outdir', str(tmp_path / 'killed')]
    straight = ranks(TRAIN, *training, '--outdir', tmp_path / 'straight')
    said = [p.communicate(timeout=120) for p in straight]
    assert [p.returncode for p in straight] == [0, 0], said
    assert 'images: 160' in said[0][0]
    assert not said[1][0].strip()
    job = started([sys.executable, *torchrun, *program, *training, *killed])
    wait_for(lambda: len(checkpoints(tmp_path / 'killed')) > 1 or job.poll() is not None)
    children = [int(p) for p in Path(f'/proc/{job.pid}/task/{job.pid}/children').read_text().split()]
    victim = max(c for c in children if b'wysiwyg.cli' in Path(f'/proc/{c}/cmdline').read_bytes())
    os.kill(victim, signal.SIGKILL)
    out, err = job.communicate(timeout=200)
    assert job.returncode == 0, err[-3000:]
    a, b = [torch.load(latest_checkpoint(tmp_path / k), weights_only=True) for k in ('straight', 'killed')]
    assert a['images'] == 160
    assert same(a, b)
    logs = [curves(tmp_path / k) for k in ('straight', 'killed')]
    assert logs[0] == logs[1]
    assert len(logs[0][-1]) > 5


@pytest.mark.slow
def test_processes_started_here_leave_a_checkpoint_and_go_on(folder, tmp_path, monkeypatch):
    for k, v in environment().items():
        monkeypatch.setenv(k, v)
    out, me = tmp_path / 'run', os.getpid()
    args = ('--data', str(folder), '--outdir', str(out), *small_options(), '--resume=latest')

    def end_after_a_checkpoint():
        wait_for(lambda: checkpoints(out))
        os.kill(me, signal.SIGTERM)

    threading.Thread(target=end_after_a_checkpoint).start()
    with pytest.raises(Interrupted) as stop:
        _train_in_processes(2, *args)
    assert stop.value.signum == signal.SIGTERM

    def images():
        return torch.load(latest_checkpoint(out), weights_only=True)['images']

    reached = images()
    _train_in_processes(2, *args)
    assert reached < images() == 160
    with pytest.raises(ChildProcessError, match='exit code 1'):
        _train_in_processes(2, *args, '--train.batch=6')
