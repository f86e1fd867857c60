"""Executors: a task's value, failure or lost worker, alike in this process, in fresh ones and on Ray.

Studies on them lose nothing and repeat nothing.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from wysiwyg.executors import EXECUTORS, Failed, Local, Lost, Ray, environment, executor_of, this_python
from wysiwyg.results import history
from wysiwyg.study import exit_code, run_study
from wysiwyg.tracking import STUDY, param_value, find_runs, open_store


def test_values_failures_and_lost_workers(tmp_path):
    def busy(n):
        "Stands for a task; a closure, which pickle alone cannot ship, and which imports nothing dear."
        open(f'{tmp_path}/{n}-{time.time_ns()}', 'w').close()
        if n == 1:
            raise RuntimeError('no memory')
        if n == 2 or (n == 3 and len(list(tmp_path.glob('3-*'))) < 2):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        return n * n

    noted = []
    out = dict(Local(3).run(busy, [(n,) for n in range(6)], noted.append))
    assert [out[n] for n in (0, 3, 4, 5)] == [0, 9, 16, 25]
    assert sorted(noted) == [2, 2, 3]
    assert out[1] == Failed('RuntimeError: no memory')
    assert out[2] == Lost('the worker was ended by SIGKILL')
    assert [len(list(tmp_path.glob(f'{n}-*'))) for n in range(6)] == [1, 1, 2, 2, 1, 1]


def test_never_more_than_its_workers(tmp_path):
    def span(n):
        begun = time.time()
        time.sleep(0.3)
        return begun, time.time()

    spans = [s for _, s in Local(2).run(span, [(n,) for n in range(5)])]
    assert max(sum(b <= t < e for b, e in spans) for t, _ in spans) == 2


def test_one_worker_is_this_process():
    calls = []

    def task(n):
        calls.append(n)
        return os.getpid()

    assert list(Local().run(task, [(1,), (2,)])) == [(0, os.getpid()), (1, os.getpid())]
    assert calls == [1, 2]
    assert dict(Local().run(divmod, [(1, 0)]))[0].reason.startswith('ZeroDivisionError')


def test_what_cannot_be_shipped_is_a_failure():
    out = dict(Local(2).run(lambda n: threading.Lock() if n else 1, [(0,), (1,)]))
    assert out[0] == 1
    assert 'could not be shipped' in out[1].reason


CACHED = """
from functools import lru_cache
from wysiwyg.executors import *
@lru_cache(2)
def f(n): return n+1
print(sorted(Local(2).run(lambda n: (f(n), f.cache_parameters()["maxsize"]), [(1,), (5,)])))
"""


def test_cached_functions_travel(tmp_path):
    "As in a notebook: a cached function of __main__, which cloudpickle refuses."
    said = subprocess.run([sys.executable, '-c', CACHED], capture_output=True, text=True, timeout=120)
    assert said.stdout.strip() == '[(0, (2, 2)), (1, (6, 2))]', said.stderr


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT], ids=['killed', 'interrupted'])
def test_workers_end_with_their_parent(tmp_path, how):
    code = f'''
import os, time
from wysiwyg.executors import *
def forever(n): open(f"{tmp_path}/{{os.getpid()}}", "w").close(); time.sleep(600)
list(Local(2).run(forever, [(1,), (2,)]))'''

    def hears_interrupts():
        "A shell's background job ignores them."
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def workers():
        return [int(file.name) for file in tmp_path.iterdir()]

    def left():
        return [pid for pid in workers() if Path(f'/proc/{pid}').exists()]

    quiet = dict(stderr=subprocess.DEVNULL, start_new_session=True)
    p = subprocess.Popen([sys.executable, '-c', code], preexec_fn=hears_interrupts, **quiet)
    end = time.time() + 60
    while len(workers()) < 2 and time.time() < end:
        time.sleep(0.05)
    os.kill(p.pid, how)
    p.wait(60)
    while left() and time.time() < end:
        time.sleep(0.05)
    assert len(workers()) == 2
    assert not left()


def test_names():
    assert type(executor_of('ray:8')) is Ray
    assert executor_of('ray:8').workers == 8
    assert executor_of().workers == 1
    assert executor_of(Local(3)).workers == 3
    with environment(WYSIWYG_EXECUTOR='local:5'):
        assert executor_of().workers == 5
    for text in ('dask', 'local:0', 'local:-1', 'ray:x'):
        with pytest.raises(ValueError, match='an executor reads like'):
            executor_of(text)
    before = dict(os.environ)
    with environment(HOME=None, WYSIWYG_X='1'):
        assert 'HOME' not in os.environ
        assert os.environ['WYSIWYG_X'] == '1'
    assert dict(os.environ) == before


class SlowRay:
    "Starts at the third call, if `fault` is what a busy machine says."

    def __init__(self, fault: str):
        self.fault, self.said = fault, []

    def init(self, **_):
        self.said.append('init')
        if self.said.count('init') < 3:
            raise Exception(self.fault)

    def shutdown(self):
        self.said.append('shutdown')


@pytest.mark.parametrize('fault, calls', [('node timed out during startup', 5), ('no such address', 1)])
def test_a_cluster_that_starts_late_is_waited_for(fault, calls):
    pool = Ray(2)
    pool.ray = SlowRay(fault)
    with contextlib.nullcontext() if calls > 1 else pytest.raises(Exception, match=fault):
        pool.join_cluster()
    assert len(pool.ray.said) == calls


# ---- studies -------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp('home')
    with environment(WYSIWYG_HOME=str(path)):
        yield path


FATES = ('dies once', 'raises', 'dies')
ENDS = {
    'raises': ['FAILED'],
    'dies once': ['FINISHED', 'KILLED'],
    'dies': ['KILLED', 'KILLED'],
    STUDY: ['FINISHED'],
}


def decoded(run) -> dict:
    "The parameters of a run of MLflow."
    return {k: param_value(v) for k, v in run.data.params.items()}


@pytest.mark.slow
@pytest.mark.parametrize('kind', EXECUTORS)
def test_a_study_survives_its_workers(kind, home, tmp_path):
    if kind == 'ray':
        how = "pip install -c constraints.txt -e '.[cluster]'"
        pytest.importorskip('ray', reason=f'Ray is not installed: {how}')

    def measure(recorder, params, seed):
        recorder.metrics({'train/loss': 1.0}, 10)
        assert recorder.spool.wait()
        if params['fate'] == 'raises':
            raise RuntimeError('no memory')
        again = tmp_path / f'{params["fate"]}-again'
        if params['fate'] == 'dies' or (params['fate'] == 'dies once' and not again.exists()):
            again.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        recorder.metrics({'train/loss': 0.5}, 20)
        return {'eval/psnr': 30.0}

    others = {'text': '1', 'nested': [1, None, 0.5], 'far': float('inf')}
    arms = {fate: {'fate': fate} | others for fate in FATES}
    status = run_study(kind, arms, measure, executor=f'{kind}:2')
    assert exit_code(status) == 1
    assert status['dies once-s0'] == 'done'
    assert status['raises-s0'] == 'failed: RuntimeError: no memory'
    assert status['dies-s0'].startswith('failed: the worker was')
    attempts = {arm: find_runs(open_store(), kind, arm=arm) for arm in (*FATES, STUDY)}
    ended = {arm: [r.info.status for r in of_arm] for arm, of_arm in attempts.items()}
    assert ended == ENDS
    runs = {arm: newest for arm, (newest, *_) in attempts.items()}
    logged = {arm: decoded(runs[arm]) for arm in arms}
    assert logged == arms  # as requested
    assert history(runs['dies once'].info.run_id, 'train/loss').step.tolist() == [10, 20]
    assert runs[STUDY].data.tags['wysiwyg.failed'] == '2'
    assert '**dies-s0** failed' in runs[STUDY].data.tags['mlflow.note.content']


KILLED = """
import json, os, time
from wysiwyg.results import *
from wysiwyg.study import *
from wysiwyg.tracking import *
def mark(*what):
    with open(os.environ['MARKS'], 'a') as f: f.write(' '.join(map(str, what))+'\\n')
def measure(recorder, params, seed):
    mark('begin', params['k'])
    for step in (1, 2, 3): recorder.metrics({'train/loss': 1./step}, step); time.sleep(.3*params['k'])
    mark('end', params['k'])
    return {'eval/psnr': 30.+params['k']}
arms = {f'k{k}': {'k': k} for k in range(4)}
print(json.dumps(run_study('killed', arms, measure, executor=os.environ['HOW'])))
"""


def arm_of(run) -> str:
    return run.data.tags['wysiwyg.arm']


@pytest.mark.slow
def test_a_killed_study_is_finished_by_the_next_call(tmp_path):
    "Four arms at once into a store that is not there yet; the study is killed, then finished one by one."
    env = os.environ | {'WYSIWYG_HOME': str(tmp_path), 'MARKS': str(tmp_path / 'marks')}
    at_once, one_by_one = env | {'HOW': 'local:4'}, env | {'HOW': 'local'}

    child = [sys.executable, '-c', KILLED]

    def marks():
        file = tmp_path / 'marks'
        return file.read_text().split('\n') if file.exists() else []

    def ended():
        return [mark for mark in marks() if mark.startswith('end')]

    with environment(WYSIWYG_HOME=str(tmp_path)):
        p = subprocess.Popen(child, env=at_once, stderr=subprocess.DEVNULL)
        end = time.time() + 120
        while p.poll() is None and time.time() < end and not ended():
            time.sleep(0.02)
        p.send_signal(signal.SIGSTOP)
        workers = psutil.Process(p.pid).children(recursive=True)  # it starts no more of them
        p.kill()
        p.wait()
        assert not psutil.wait_procs(workers, 60)[1]  # they notice
        before = marks()
        finished = {arm_of(r) for r in find_runs(open_store(), 'killed') if r.info.status == 'FINISHED'}
        said = subprocess.run(child, env=one_by_one, capture_output=True, text=True, timeout=180)
        assert said.returncode == 0, said.stderr
        status = json.loads(said.stdout)
        kept = {arm[:2] for arm, how in status.items() if how == 'kept'}
        assert set(status.values()) <= {'kept', 'done'}
        assert finished <= kept
        assert len(kept) < 4  # kept: also what ended and could not say so
        later = marks()[len(before) - 1 :]
        begun = {f'k{mark.split()[1]}' for mark in later if mark.startswith('begin')}
        assert begun == {'k0', 'k1', 'k2', 'k3'} - kept
        every = [r for r in find_runs(open_store(), 'killed') if arm_of(r) != STUDY]
        assert {r.info.status for r in every} <= {'FINISHED', 'KILLED'}  # a first attempt that was cut short
        runs = [r for r in every if r.info.status == 'FINISHED']
        assert sorted(map(arm_of, runs)) == ['k0', 'k1', 'k2', 'k3']
        for r in runs:
            assert history(r.info.run_id, 'train/loss').step.tolist() == [1, 2, 3]
            assert decoded(r) == {'k': int(arm_of(r)[1:])}


SILENT = """
import os, time
from wysiwyg.results import *
from wysiwyg.study import *
from wysiwyg.tracking import *
Spool.close = lambda self: os._exit(0)
Spool.next_batch = lambda self: time.sleep(1000)
def measure(recorder, params, seed): recorder.samples('psnr', [30., 31.])
run_study('silent', {'a': {}}, measure)
"""


def test_an_arm_that_ended_unheard_is_kept(tmp_path, monkeypatch):
    "A process died with values and its end still in the spool: they are delivered, nothing measured again."
    monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path))  # no spool of another test, whose end would be its own
    assert subprocess.run([sys.executable, '-c', SILENT], timeout=120).returncode == 0
    assert [r.info.status for r in find_runs(open_store(), 'silent', arm='a')] == ['RUNNING']

    def measure(recorder, params, seed):
        raise AssertionError('measured again')

    assert run_study('silent', {'a': {}}, measure) == {'a-s0': 'kept'}
    (run,) = find_runs(open_store(), 'silent', arm='a')
    assert run.info.status == 'FINISHED'
    assert run.data.metrics['eval/psnr'] == 30.5


# ---- notebooks -----------------------------------------------------------------------------------


def test_notebooks_run_in_this_python(tmp_path, monkeypatch, capfd):
    "Whatever stands for python3 among Jupyter's kernels; and the kernel says nothing on stderr."
    import nbformat
    import papermill

    kernel = tmp_path / 'jp' / 'kernels' / 'python3'
    kernel.mkdir(parents=True)
    python3 = {'display_name': 'p', 'language': 'python'}
    argv = ['no-such-python', '-f', '{connection_file}']
    (kernel / 'kernel.json').write_text(json.dumps({'argv': argv} | python3))
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path / 'jp'))
    parts = nbformat.v4
    given = parts.new_code_cell('n = 0', metadata={'tags': ['parameters']})
    shown = parts.new_code_cell('import sys; (sys.executable, n)')
    kernelspec = {'name': 'python3'} | python3
    nb = parts.new_notebook(cells=[given, shown], metadata={'kernelspec': kernelspec})
    nbformat.write(nb, tmp_path / 'n.ipynb')
    how = dict(kernel_name='python3', kernel_manager_class=this_python(), progress_bar=False)
    done = papermill.execute_notebook(str(tmp_path / 'n.ipynb'), None, {'n': 7}, **how)
    assert done.cells[-1].outputs[0].data['text/plain'] == repr((sys.executable, 7))
    assert 'eavesdropping' not in capfd.readouterr().err


def test_a_python_without_kernel_is_named(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='cannot run notebooks: install ipykernel'):
        this_python()
