"""Tracking: one store however many open it, nothing twice, nothing infinite, nothing left running.

And tables equal to MLflow's own.
"""

import contextlib
import json
import math
import multiprocessing
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from wysiwyg.config import flat, override, paper, small, tiny
from wysiwyg.core import runs_dir
from wysiwyg.results import (
    case_scores,
    compare,
    curves,
    export_runs,
    history,
    holds,
    import_runs,
    interval_rows,
    read_results,
    read_study,
    show_compare,
    write_results,
)
from wysiwyg import study as studying
from wysiwyg import tracking
from wysiwyg.study import estimate_study, exit_code, finished, _resolve, run_study, with_sizes
from wysiwyg.tracking import (
    NullRecorder,
    Recorder,
    StoreError,
    _alive,
    _is_whole,
    _make_store,
    param_value,
    digest,
    param_text,
    experiment_id,
    experiment_link,
    find_runs,
    list_pictures,
    metric_name,
    open_store,
    _patiently,
    _reap,
    run_link,
    safe,
    spool_dir,
    this_process,
    tracking_uri,
    _trouble,
    serving,
    ui_address,
)


@pytest.fixture(scope='module', autouse=True)
def store(tmp_path_factory):
    "A store of this module's own."
    before = os.environ.get('WYSIWYG_HOME')
    os.environ['WYSIWYG_HOME'] = str(tmp_path_factory.mktemp('home'))
    os.environ.pop('WYSIWYG_RUNS', None)
    yield open_store()
    if before is None:
        del os.environ['WYSIWYG_HOME']
    else:
        os.environ['WYSIWYG_HOME'] = before


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    "A store of a test's own."
    monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path))
    runs_dir().mkdir()
    _make_store(runs_dir() / 'mlflow.db')
    return runs_dir() / 'mlflow.db'


@pytest.fixture
def study(request):
    return request.node.name.replace('[', '-').replace(']', '')[:60]


def newcomer(_) -> str:
    "The experiment in a store that others want at the same moment."
    return experiment_id(open_store(), 'crowd')


@pytest.mark.slow
def test_four_processes_open_a_new_store(tmp_path, monkeypatch):
    "Forked, so that each has the libraries already and all come at once."
    monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path))
    with multiprocessing.get_context('fork').Pool(4) as pool:
        said = pool.map_async(newcomer, range(4), chunksize=1).get(120)
    assert len(set(said)) == 1
    assert (tmp_path / 'runs/mlflow.db').exists()


def cut(uri):
    "A store whose making is interrupted."
    Path(uri.removeprefix('sqlite:///')).write_text('half')
    raise KeyboardInterrupt


def test_an_interrupted_first_start_leaves_no_store(tmp_path, monkeypatch):
    monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    runs_dir().mkdir()
    for orphan in ('-journal', '-wal'):
        (runs_dir() / f'mlflow.db{orphan}').write_text('of a store that was deleted')
    with monkeypatch.context() as patch:
        patch.setattr(tracking, '_client', cut)
        with pytest.raises(KeyboardInterrupt):
            open_store()
    assert [p.name for p in runs_dir().iterdir()] == ['.mlflow.lock']
    assert not list((tmp_path / 'cache/wysiwyg').iterdir())
    assert open_store().search_experiments()
    assert sorted(p.name for p in runs_dir().iterdir()) == ['.mlflow.lock', 'mlflow.db']


def test_an_empty_store_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    places = []
    for name in ('first', 'second'):
        monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path / name))
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        places.append(open_store().get_experiment('0').artifact_location)
        monkeypatch.setattr(tracking, '_new_store', None)
    assert places == [str(tmp_path / name / 'mlruns/0') for name in ('first', 'second')]
    (kept,) = (tmp_path / 'cache/wysiwyg').iterdir()
    assert sorted(p.name for p in (tmp_path / 'second/runs').iterdir()) == ['.mlflow.lock', 'mlflow.db']
    assert kept.suffix == '.db'


@pytest.mark.parametrize('left', [b'', b'half of a store', None])
def test_a_kept_store_that_is_damaged_is_made_again(tmp_path, monkeypatch, left):
    "None: where nothing can be kept, it is made each time."
    monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path))
    kept = tmp_path / 'kept.db'
    monkeypatch.setattr(tracking, '_kept_store', lambda: None if left is None else kept)
    if left is not None:
        kept.write_bytes(left)
    assert open_store().search_experiments()
    assert _is_whole(kept) == (left is not None)


def test_one_place_and_no_telemetry(tmp_path, monkeypatch):
    here = tracking_uri()
    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == here
    assert here.startswith('sqlite:////')
    assert os.environ['MLFLOW_DISABLE_TELEMETRY'] == 'true'
    with Recorder('place', 'a') as r:
        r.metrics({'x': 1.0}, 1)
    assert not list(tmp_path.iterdir())


NUMBERS = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False)
PLAIN = st.none() | st.booleans() | NUMBERS | st.text(max_size=20)


@given(PLAIN | st.lists(PLAIN, max_size=4))
def test_parameters_come_back(value):
    assert param_value(param_text(value)) == value
    assert type(param_value(param_text(value))) is type(value)


@pytest.mark.parametrize('run', [tiny(), small(), paper()], ids=lambda r: r.name)
def test_configurations_come_back(run, study):
    with Recorder(study, 'a', params=run) as r:
        pass
    kept = r.client.get_run(r.id).data
    assert {k: param_value(v) for k, v in kept.params.items()} == flat(run)
    assert kept.tags['wysiwyg.config_sha'] == digest(run)
    assert kept.tags['wysiwyg.method'] == run.system
    assert kept.tags['wysiwyg.config_sha'] != digest(override(run, **{'train.seed': 1}))


@pytest.mark.parametrize(
    'name', ['../x', '/x', 'a/b', '<script>', "a'b", 'a"b', '', '.', '-x', 'a\nb', 'x' * 101]
)
def test_names_are_not_paths_or_code(name):
    with pytest.raises(ValueError, match='cannot name'):
        safe(name)
    with pytest.raises(ValueError, match='cannot name'):
        Recorder('names', name)
    with pytest.raises(ValueError, match='cannot name'):
        run_study(name, {'a': {}}, None)


def test_not_finite_is_dropped_and_counted(study):
    with Recorder(study, 'a') as r:
        for step, v in enumerate((1.0, float('inf'), -float('inf'), float('nan'), 2.0)):
            r.metrics({'x': v}, step)
    assert history(r.id, 'x').values.tolist() == [[0, 1.0], [4, 2.0]]
    assert r.dropped == 3
    assert r.client.get_run(r.id).data.tags['wysiwyg.dropped'] == '3'


def test_resume_records_nothing_twice(study):
    with pytest.raises(RuntimeError), Recorder(study, 'a', 1, {'p': 1}) as r:
        for s in (10, 20, 30):
            r.metrics({'x': s}, s)
        r.metrics({'y': 5}, 10)
        raise RuntimeError('stop')
    run = r.client.get_run(r.id)
    assert run.info.status == 'FAILED'
    assert 'RuntimeError: stop' in run.data.tags['wysiwyg.traceback']
    with Recorder(study, 'a', 1, {'p': 1}, resume='checkpoint') as again:
        for s in (20, 30, 40):
            again.metrics({'x': -s, 'y': -s}, s)
    assert again.id == r.id
    assert history(r.id, 'x').values.tolist() == [[10, 10], [20, 20], [30, 30], [40, -40]]
    assert history(r.id, 'y').step.tolist() == [10, 20, 30, 40]
    for params, resume in (({'p': 2}, 'checkpoint'), ({'p': 1}, 'checkpoint'), ({'p': 1}, 'none')):
        with Recorder(study, 'a', 1, params, resume=resume) as other:
            assert other.id != r.id


def test_interruption_is_killed(study):
    with pytest.raises(KeyboardInterrupt), Recorder(study, 'a') as r:
        raise KeyboardInterrupt
    assert r.client.get_run(r.id).info.status == 'KILLED'


DIE = """
import os
from wysiwyg.tracking import *
r = Recorder('dead', 'a', params={'p': 1})
r.metrics({'x': 1.}, 1)
print(r.id, flush=True)
os._exit(9)
"""


def test_dead_runs_are_reaped_and_continued():
    with Recorder('dead', 'alive') as mine:
        child = [sys.executable, '-c', DIE]
        dead = subprocess.run(child, capture_output=True, text=True, timeout=120).stdout.strip()
        client = open_store()
        assert client.get_run(dead).info.status == 'RUNNING'
        client.set_tag(mine.id, 'wysiwyg.process', 'another-host:1:0')
        assert _reap('dead') == ['a-s0']
        assert client.get_run(dead).info.status == 'KILLED'
        assert client.get_run(mine.id).info.status == 'RUNNING'
        with Recorder('dead', 'a', params={'p': 1}, resume='checkpoint') as again:
            assert again.id == dead
        with pytest.raises(ValueError, match='is being recorded by process'):
            Recorder('dead', 'alive')
    host, pid, start = this_process().rsplit(':', 2)
    assert _alive(this_process())
    assert not _alive(f'{host}:{pid}:{float(start) - 1000:.0f}')
    assert _alive('another-host:1:0')


# ---- a store that does not answer ----------------------------------------------------------------


class Flaky:
    "Answers when `up`; otherwise refuses, or carries out a part of the request before the connection breaks."

    def __init__(self, store):
        self.store, self.up, self.asked, self.part = store, True, 0, 0.0

    def __getattr__(self, name):
        return getattr(self.store, name)

    def log_batch(self, run, metrics):
        self.asked += 1
        if self.up:
            return self.store.log_batch(run, metrics)
        if done := metrics[: round(len(metrics) * self.part)]:
            self.store.log_batch(run, done)
        raise OSError('connection lost')


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    "Short pauses after a failure."
    monkeypatch.setattr(tracking, '_PAUSES', (0.01, 0.3))


def steps_of(r, key='x'):
    return history(getattr(r, 'id', r), key).step.tolist()


@pytest.mark.parametrize('part', [0, 0.5, 1], ids=['refused', 'half done', 'done but not said'])
def test_an_outage_loses_and_doubles_nothing(study, part, capsys):
    with Recorder(study, 'a') as r:
        r.spool.client = flaky = Flaky(r.client)
        for step in range(60):
            flaky.up, flaky.part = not 10 <= step < 40, part
            r.metrics({'x': float(step), 'y': 1.0}, step)
            if step in (5, 20, 30):
                time.sleep(0.05)
        assert r.spool.wait(30)
    assert steps_of(r) == steps_of(r, 'y') == list(range(60))
    assert flaky.asked > 3
    assert capsys.readouterr().err.count('wait for the MLflow store') < 5
    assert not r.spool.path.exists()


def test_recording_does_not_wait_for_the_store(study):
    "The store hangs; the loop goes on and its values are on disk."
    hangs = threading.Event()
    with Recorder(study, 'a') as r:

        class Hanging(Flaky):
            def log_batch(self, *a):
                assert hangs.wait(60)
                self.store.log_batch(*a)

        r.spool.client = Hanging(r.client)
        for step in range(50):
            r.metrics({'x': 1.0}, step)
        assert len(r.spool.path.read_text().splitlines()) == 50
        assert len(r.spool.waiting) == 50
        hangs.set()
    assert steps_of(r) == list(range(50))


def test_what_waits_at_the_end_is_delivered_by_the_next_recorder(study, monkeypatch, tmp_path):
    import numpy as np

    (tmp_path / 'note.txt').write_text('kept')
    r = Recorder(study, 'a')
    r.spool.client = Flaky(r.client)
    r.spool.client.up = False
    r.metrics({'x': 1.0}, 1)
    r.metrics({'x': 2.0}, 2)
    r.image(np.zeros((4, 4, 3), np.uint8), 'p', 2)
    r.file(tmp_path / 'note.txt')
    (tmp_path / 'note.txt').unlink()
    r.end()
    assert r.spool.path.exists()
    assert r.client.get_run(r.id).info.status == 'RUNNING'
    assert steps_of(r) == []
    monkeypatch.setattr('wysiwyg.tracking._alive', lambda process: False)  # as if its process were gone
    with Recorder(study, 'b') as other:
        assert other.id != r.id
    assert steps_of(r) == [1, 2]
    assert r.client.get_run(r.id).info.status == 'FINISHED'
    assert not r.spool.path.exists()
    assert sorted(a.path for a in r.client.list_artifacts(r.id)) == ['images', 'note.txt']
    assert not list(r.spool.path.parent.iterdir())


def test_a_killed_process_leaves_a_spool_that_its_successor_goes_on_with(study):
    r = Recorder(study, 'a', params={'p': 1})
    r.spool.client = Flaky(r.client)
    r.spool.client.up = False
    for step in (1, 2, 3):
        r.metrics({'x': float(step)}, step)
    with open(r.spool.path, 'a') as f:
        f.write('["metric", "x", 4')  # torn
    r.client.log_metric(r.id, 'x', 1.0, step=1)  # delivered, but nobody knew
    with Recorder(study, 'a', params={'p': 1}, resume='checkpoint') as again:
        assert again.id == r.id
        for step in (2, 3, 4):
            again.metrics({'x': -1.0}, step)  # training went back to its checkpoint
    assert sorted(history(r.id, 'x').values.tolist()) == [[1, 1.0], [2, 2.0], [3, 3.0], [4, -1.0]]
    r.spool.closing = True


def test_a_store_that_is_down_from_the_start_is_told_of(monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:9')
    with pytest.raises(OSError, match='does not answer.*--no-track'):
        Recorder('down', 'a')


@pytest.mark.parametrize(
    'address, why',
    [
        ('{tmp}/mlruns', 'is a folder, .* sqlite:///FILE .*migrate-filestore.* MLFLOW_ALLOW_FILE_STORE'),
        ('nonsense://x', 'takes sqlite:///FILE'),
        ('sqlite:///{tmp}/half.db', 'is not whole: .* move its file away'),
        ('sqlite:///{tmp}/text.db', 'is not whole'),
    ],
)
def test_a_store_that_cannot_be_used_is_told_of_in_one_line(address, why, tmp_path, monkeypatch):
    with contextlib.closing(sqlite3.connect(tmp_path / 'half.db')) as db:
        db.execute('create table datasets (x)')
    (tmp_path / 'text.db').write_text('no database ' * 100)
    monkeypatch.setenv('MLFLOW_TRACKING_URI', address.format(tmp=tmp_path))
    with pytest.raises(StoreError, match=why) as said:
        Recorder('down', 'a')
    assert '\n' not in str(said.value)
    assert len(str(said.value)) < 600


def test_a_locked_store_is_waited_for_and_then_named(fresh, monkeypatch, capsys):
    asked = []

    def locked(uri):
        asked.append(uri)
        raise sqlite3.OperationalError('database is locked')

    monkeypatch.setattr(tracking, '_client', locked)
    monkeypatch.setattr(tracking, '_patiently', lambda ask: _patiently(ask, 0.5))
    monkeypatch.setattr(time, 'sleep', lambda s: None)
    with pytest.raises(StoreError, match='is locked by another process: wait for it'):
        Recorder('down', 'a')
    assert len(asked) > 1
    assert capsys.readouterr().err.count('locked') == 1


def test_a_deleted_experiment_is_named_with_its_mend(fresh):
    run_study('gone', {'a': {'k': 1}}, measure)
    number = experiment_id(open_store(), 'gone')
    open_store().delete_experiment(number)
    why = r'wysiwyg/gone was deleted in MLflow: restore it by .*experiments restore --experiment-id \d+'
    for ask in (
        lambda: run_study('gone', {'a': {'k': 1}}, measure),
        lambda: run_study('gone', {'a': {'k': 1}}, None, dry_run=True),
        lambda: Recorder('gone', 'a'),
        lambda: read_study('gone'),
    ):
        with pytest.raises(StoreError, match=why):
            ask()
    open_store().restore_experiment(number)
    assert run_study('gone', {'a': {'k': 1}}, None) == {'a-s0': 'kept'}


def test_a_store_of_ones_own_knows_what_is_finished(fresh, monkeypatch):
    own = fresh.rename(fresh.with_name('own.db'))
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{own}')
    assert [run_study('mine', {'a': {'k': 1}}, measure)['a-s0'] for _ in range(2)] == ['done', 'kept']
    assert studying._durations('mine')
    assert not fresh.exists()


# ---- what is refused, and what finds no room -----------------------------------------------------


@pytest.mark.parametrize('name', ['eval/psnr@16', '', '/x', 'a//b', '../x', '.', 'x' * 251, 'a\nb', 'loss%'])
def test_illegal_metric_names_are_refused_before_anything_is_queued(name, study):
    with pytest.raises(ValueError, match='cannot name a metric'):
        metric_name(name)
    with pytest.raises(ValueError, match='cannot name a metric'), Recorder(study, 'a') as r:
        r.metrics({'eval/fog': 1.0, name: 2.0})
    assert not r.client.get_run(r.id).data.metrics
    assert r.client.get_run(r.id).info.status == 'FAILED'


def test_an_arm_with_an_illegal_name_has_failed(study):
    def illegal(r, p, s):
        return {'eval/psnr@16': 30.0, 'eval/fog': 1.0}

    said = run_study(study, {'a': {'k': 1}}, illegal)['a-s0']
    assert said.startswith("failed: ValueError: 'eval/psnr@16' cannot name")


def test_what_the_store_refuses_for_good_is_set_aside(study, capsys, monkeypatch):
    monkeypatch.setattr(tracking, 'metric_name', lambda name: name)

    def measure(r, p, s):
        for step in range(9):
            r.metrics({'x': float(step)}, step)
        return {'bad@': 1.0, 'eval/fog': 1.0}

    said = run_study(study, {'a': {'k': 1}}, measure)['a-s0']
    (run,) = find_runs(open_store(), study, arm='a')
    assert 'refused 1 of its values, such as bad@' in said
    assert run.info.status == 'FAILED'
    assert run.data.metrics == {'x': 8.0, 'eval/fog': 1.0}
    assert steps_of(run.info.run_id) == list(range(9))
    assert 'bad@' in (spool_dir() / f'{run.info.run_id}.refused').read_text()
    assert capsys.readouterr().err.count('refuses') == 1
    assert not (spool_dir() / f'{run.info.run_id}.jsonl').exists()


def test_an_arm_whose_values_wait_is_not_done_and_not_measured_again(study, monkeypatch):
    log, calls = type(open_store()).log_batch, []

    def down(self, run, metrics=(), params=(), tags=()):
        if metrics and len(calls) < 2:
            raise OSError('no connection')
        return log(self, run, metrics, params, tags)

    monkeypatch.setattr(type(open_store()), 'log_batch', down)

    def measure(r, p, s):
        calls.append(s)
        return {'eval/x': 1.0}

    assert 'wait for the MLflow store' in run_study(study, {'a': {'k': 1}}, measure)['a-s0']
    calls.append('the store answers again')
    assert run_study(study, {'a': {'k': 1}}, measure) == {'a-s0': 'kept'}
    assert len(calls) == 2
    assert read_study(study)['eval/x'].tolist() == [1.0]


def test_a_full_disk_costs_the_run_nothing(study, capsys, monkeypatch):
    import numpy as np

    full = OSError(28, 'No space left on device')

    class Full:
        def write(self, data):
            raise full

        def close(self):
            pass

    def no_room(source):
        raise full

    with Recorder(study, 'a') as r:
        r.metrics({'x': 0.0}, 0)
        file, r.spool.file = r.spool.file, Full()
        monkeypatch.setattr(r.spool, 'keep', no_room)
        for step in (1, 2):
            r.metrics({'x': 1.0}, step)
            r.image(np.zeros((2, 2, 3), np.uint8), 'p', step)
            r.tag('t', step)
        r.spool.file = file
        r.metrics({'x': 3.0}, 3)
    assert steps_of(r) == [0, 1, 2, 3]
    assert r.client.get_run(r.id).info.status == 'FINISHED'
    said = capsys.readouterr().err
    assert said.count('has no room') == 1
    assert said.count('p.png is not kept') == 1


def test_what_found_no_room_is_written_down_at_the_end(study):
    r = Recorder(study, 'a')
    r.spool.client = Flaky(r.client)
    r.spool.client.up = False
    file = r.spool.file

    class Half:
        def write(self, data):
            return file.write(data[: len(data) // 2])

        def close(self):
            file.close()

    r.metrics({'x': 0.0}, 0)
    r.spool.file = Half()
    r.metrics({'x': 1.0}, 1)
    r.spool.file = file
    r.metrics({'x': 2.0}, 2)
    assert [e[4] for e in tracking._read_spool(r.spool.path)] == [0, 2]
    r.end()
    assert [e[4] for e in tracking._read_spool(r.spool.path) if e[0] == 'metric'] == [0, 1, 2]
    assert r.id in tracking.deliver_left(open_store())
    assert steps_of(r) == [0, 1, 2]


def test_long_parameters_are_refused_and_not_cut(study):
    value = [round(i / 3000, 4) for i in range(1000)]
    why = r'parameter taus takes \d{4} characters, of which MLflow keeps 6000'
    for ask in (
        lambda: Recorder(study, 'a', params={'taus': value}),
        lambda: run_study(study, {'a': {'taus': value}}, None, dry_run=True),
    ):
        with pytest.raises(ValueError, match=why):
            ask()
    assert experiment_id(open_store(), study, make=False) is None


# ---- who goes on with what -----------------------------------------------------------------------


def test_a_repeated_arm_has_nothing_of_an_earlier_attempt(study):
    def wrong(r, p, s):
        r.samples('psnr', [1.0, 2.0, 3.0])
        r.spool.wait(20)
        raise RuntimeError('wrong')

    def right(r, p, s):
        r.samples('psnr', [10.0, 20.0, 30.0])

    run_study(study, {'b': {'k': 2}}, wrong)
    run_study(study, {'b': {'k': 2}}, right)
    runs = read_study(study)
    assert runs['eval/psnr'].tolist() == [20.0]
    assert history(runs.run_id[0], 'sample/psnr').value.tolist() == [10.0, 20.0, 30.0]
    assert [r.info.status for r in find_runs(open_store(), study, arm='b')] == ['FINISHED', 'FAILED']


def test_a_training_goes_on_only_from_its_checkpoint(study):
    def recorder(**how):
        told = {'dataset_sha': 'faces', 'outdir': 'a'} | how
        return Recorder(study, 'tiny', 0, {'p': 1}, **told)

    def go(to, **how):
        with recorder(**how) as r:
            r.metrics({'x': to}, to)
        return r

    first = go(1)
    with pytest.raises(KeyboardInterrupt), recorder() as cut:
        cut.metrics({'x': 1.0}, 1)
        raise KeyboardInterrupt
    anew = go(2)
    other = go(2, resume='checkpoint', dataset_sha='cats')
    elsewhere = go(2, resume='checkpoint', outdir='b')
    assert len({r.id for r in (first, cut, anew, other, elsewhere)}) == 5
    assert go(3, resume='checkpoint').id == anew.id
    assert steps_of(anew) == [2, 3]  # the newest of that folder
    assert steps_of(cut) == [1]
    assert cut.client.get_run(cut.id).info.status == 'KILLED'


def test_a_training_that_was_stopped_is_continued(study):
    with Recorder(study, 'tiny', 0, {'p': 1}, dataset_sha='faces') as r:
        r.metrics({'x': 1.0}, 300)
        r.stopped(300)
    run = r.client.get_run(r.id)
    assert run.info.status == 'KILLED'
    assert run.data.tags['wysiwyg.stopped_at'] == '300'
    with Recorder(study, 'tiny', 0, {'p': 1}, dataset_sha='faces', resume='checkpoint') as again:
        again.metrics({'x': 2.0}, 600)
    run = r.client.get_run(again.id)
    assert again.id == r.id
    assert steps_of(r) == [300, 600]
    assert run.info.status == 'FINISHED'
    assert not run.data.tags['wysiwyg.stopped_at']


def test_a_run_of_a_host_that_is_gone_is_taken_over(study):
    with Recorder(study, 'tiny', 0, {'p': 1}) as r:
        r.metrics({'x': 1.0}, 1)
    client = open_store()
    client.update_run(r.id, status='RUNNING')
    client.set_tag(r.id, 'wysiwyg.process', 'container-1:42:0')
    client.set_tag(r.id, 'wysiwyg.seen', int(time.time()) - 60)
    heard = 'by process 42 of container-1, last heard of 6. s ago'
    mend = 'if container-1 is gone, try again 9 minutes from now'
    for how in ('checkpoint', 'none'):
        with pytest.raises(ValueError, match=f'{heard}: .* {mend}'):
            Recorder(study, 'tiny', 0, {'p': 1}, resume=how)
    client.set_tag(r.id, 'wysiwyg.seen', int(time.time()) - tracking._STALE - 1)
    with Recorder(study, 'tiny', 0, {'p': 1}, resume='checkpoint') as again:
        again.metrics({'x': 2.0}, 2)
    assert again.id == r.id
    assert steps_of(r) == [1, 2]


def test_training_is_not_told_of_arms(fresh):
    with Recorder('train', 'tiny') as r:
        r.client.set_tag(r.id, 'wysiwyg.process', 'elsewhere:42:0')
        with pytest.raises(ValueError, match='process 42 of elsewhere.* train with --no-track') as said:
            Recorder('train', 'tiny')
    assert 'arm' not in str(said.value)


def test_signs_of_life(study, monkeypatch):
    monkeypatch.setattr(tracking, '_BEAT', 0.01)
    with Recorder(study, 'a') as r:
        for _ in range(200):
            if 'wysiwyg.seen' in r.client.get_run(r.id).data.tags:
                break
            time.sleep(0.02)
    assert tracking._silence(r.client.get_run(r.id)) < 60


# ---- the page of a study -------------------------------------------------------------------------


def test_a_study_killed_before_its_conclusion_is_concluded(study, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(studying, '_conclude', killed)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, ARMS, measure)
    (page,) = find_runs(open_store(), study, arm='study')
    open_store().update_run(page.info.run_id, status='RUNNING')  # as SIGKILL leaves it
    open_store().set_tag(page.info.run_id, 'wysiwyg.process', f'{socket.gethostname()}:{os.getpid()}:1')
    for _ in range(2):
        assert set(run_study(study, ARMS, None).values()) == {'kept'}
    (again,) = find_runs(open_store(), study, arm='study')
    assert again.info.run_id == page.info.run_id
    assert again.info.status == 'FINISHED'
    assert '| full |' in again.data.tags['mlflow.note.content']
    monkeypatch.setattr(studying, '_conclude', killed)
    assert set(run_study(study, ARMS, None).values()) == {'kept'}  # once is enough


def test_another_size_has_another_page(study):
    def arms(views):
        return {arm: {'arm': arm, 'views': views} for arm in ('a', 'b')}

    for views in (2, 1):
        run_study(study, arms(views), lambda r, p, s: {'eval/psnr': 10.0 * p['views']}, note='Why?')
    pages = {r.info.run_name: r for r in find_runs(open_store(), study, arm='study')}
    assert set(pages) == {f'{study} (views 2)', f'{study} (views 1)'}
    for views in (1, 2):
        page = pages[f'{study} (views {views})']
        text = page.data.tags['mlflow.note.content']
        assert f'Of views {views}, 2 arms, seeds 0.' in text
        assert f'| a | {views}0' in text
        assert f'/runs/{page.info.run_id}/artifacts/compare.html?' in text
        assert 'compare.html' in [a.path for a in open_store().list_artifacts(page.info.run_id)]
    told = open_store().get_experiment(experiment_id(open_store(), study)).tags['mlflow.note.content']
    assert 'Of views 1' in told
    assert 'Of views 2' in told


def test_an_arm_that_is_measured_otherwise_is_another(study):
    "The Run alone reaches who measures; its sizes are parameters beside it."
    heard = []

    def measure(recorder, run, seed):
        heard.append(run)
        return {'eval/psnr': 1.0}

    for n, said in ((4, 'done'), (4, 'kept'), (8, 'done')):
        assert run_study(study, with_sizes({'a': tiny()}, n=n), measure) == {'a-s0': said}
    assert heard == [tiny(), tiny()]
    (run,) = find_runs(open_store(), study, arm='a', config_sha=digest((tiny(), {'n': 8})))
    assert run.data.params['n'] == '8'
    assert run.data.params['sampler.tau'] == '0.98'
    with pytest.raises(ValueError, match='tau'):
        run_study(study, with_sizes({'a': override(tiny(), **{'sampler.tau': 2.0})}, n=4), measure)
    with pytest.raises(ValueError, match="'train.batch' is an option of the run"):
        run_study(study, with_sizes({'a': tiny()}, **{'train.batch': 4}), measure)
    with pytest.raises(ValueError, match="'a' must be a Run to get sizes, got dict"):
        with_sizes({'a': {'k': 1}}, n=4)
    with pytest.raises(ValueError, match='leave `base` out'):
        run_study(study, with_sizes({'a': tiny()}, n=4), measure, base=tiny())


def test_a_study_that_another_process_runs_is_told_of(study):
    with studying._study_run(study, studying._study_jobs(ARMS, (0,))) as r:
        r.client.set_tag(r.id, 'wysiwyg.process', 'elsewhere:42:0')
        why = 'is being run by process 42 of elsewhere.* give one call more workers'
        with pytest.raises(ValueError, match=why):
            run_study(study, ARMS, measure)
    assert len(find_runs(open_store(), study)) == 1


def test_final_scores_stand_at_step_zero_and_curves_where_they_are(study):
    def curve_and_scores(r, p, s):
        r.metrics({'train/loss': 2.0}, 100)
        return {'eval/psnr': 30.0, 'train/loss': 1.0}

    run_study(study, {'a': {'k': 1}}, curve_and_scores)
    (run,) = find_runs(open_store(), study, arm='a')
    assert steps_of(run.info.run_id, 'eval/psnr') == [0]
    assert history(run.info.run_id, 'train/loss').values.tolist() == [[100, 2.0], [101, 1.0]]


def test_the_baseline_is_among_the_ten_that_charts_show():
    def jobs(n):
        return {f'a{i}': (f'a{i}', 0, {}) for i in range(n)}

    assert list(studying._visible_last(jobs(10), 'a0'))[0] == 'a0'
    assert list(studying._visible_last(jobs(11), 'a0'))[-1] == 'a0'


def test_progress_is_told_arm_by_arm(study, tmp_path, monkeypatch):
    monkeypatch.setenv('WYSIWYG_PROGRESS', str(tmp_path / 'progress'))
    run_study(study, {'a': {'k': 1}, 'b': {'k': 2}}, measure)
    told = [json.loads(line) for line in (tmp_path / 'progress').read_text().splitlines()]
    assert [t['done'] for t in told] == [0, 1, 2]
    assert [t['run'] for t in told] == ['', 'a-s0', 'b-s0']
    assert [t['status'] for t in told] == ['', 'done', 'done']
    assert {(t['study'], t['total']) for t in told} == {(study, 2)}


def test_runs_that_cannot_be_run_are_refused_before_they_are_made():
    with pytest.raises(ValueError, match='sampler.tau'):
        _resolve({'sampler.tau': 2.0}, tiny())
    with pytest.raises(ValueError, match='sampler.tau'):
        run_study('refused', {'a': override(tiny(), **{'sampler.tau': 2.0})}, None)


@pytest.mark.parametrize(
    'path',
    sorted((Path(__file__).resolve().parent.parent / 'data/results').glob('*.runs.json')),
    ids=lambda p: p.name,
)
def test_digests_of_recorded_runs_hold(path):
    for run in json.loads(path.read_text(encoding='utf8')):
        params = {k: param_value(v) for k, v in run['params'].items()}
        assert digest(params) == run['tags']['wysiwyg.config_sha']


def test_an_arm_without_a_finite_value_has_failed(study):
    measured = run_study(study, {'a': {'k': 1}}, lambda r, p, seed: {'eval/x': math.nan})
    assert measured == {'a-s0': 'failed: ValueError: none of its 1 values is finite'}
    mended = run_study(study, {'a': {'k': 1}}, lambda r, p, seed: {'eval/x': 1.0, 'eval/y': math.nan})
    assert mended == {'a-s0': 'done'}


def test_recorded_rows_tell_how_long_another_size_takes(study, monkeypatch):
    keep(study, 'a', {'images': 100, 'k': 1}, {'eval/x': 1.0}, seconds=60)
    path = export_runs(study)
    runs = [
        {'arm': 'a', 'seed': 0, 'config_sha': 'other', 'status': 'to do'},
        {'arm': 'new', 'seed': 0, 'config_sha': 'more', 'status': 'to do'},
    ]
    assert estimate_study(study, runs[:1]) == 60
    assert estimate_study(study, runs[:1], sizes={'other': {'images': 50}}) == 45  # a part does not shrink
    both = estimate_study(study, runs, sizes={'other': {'images': 200}})
    assert both == 240  # one that nobody knows: like the others
    path.unlink()


def serve(folder, port):
    "An MLflow server of its own."
    where = ['--host', '127.0.0.1', '--port', str(port), '--workers', '1']
    store = ['--backend-store-uri', f'sqlite:///{folder}/server.db']
    artifacts = ['--artifacts-destination', f'{folder}/artifacts']
    command = [sys.executable, '-m', 'mlflow', 'server', *where, *store, *artifacts]
    env = os.environ | {'MLFLOW_SERVER_ENABLE_JOB_EXECUTION': 'false'}
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    p = subprocess.Popen(command, start_new_session=True, cwd=folder, env=env, **quiet)
    for _ in range(1200):
        time.sleep(0.1)
        try:
            urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=1)
            return p
        except OSError:
            if p.poll() is not None:
                break
    stop(p)
    raise AssertionError('the server does not answer')


def stop(p):
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()


@pytest.mark.slow
def test_a_server_killed_and_started_again_in_the_middle_of_a_run(tmp_path, monkeypatch):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'http://127.0.0.1:{port}')
    _make_store(tmp_path / 'server.db')
    server = serve(tmp_path, port)
    try:
        with Recorder('outage', 'a') as r:
            for step in range(300):
                if step == 100:
                    assert r.spool.wait()
                    stop(server)
                if step == 200:
                    server = serve(tmp_path, port)
                r.metrics({'x': float(step), 'y': -1.0}, step)
            assert r.spool.wait(60)
        assert history(r.id, 'x').values.tolist() == [[s, float(s)] for s in range(300)]
        assert steps_of(r, 'y') == list(range(300))
        assert r.client.get_run(r.id).info.status == 'FINISHED'
    finally:
        stop(server)


def test_pictures_and_files(study, tmp_path):
    import numpy as np

    (tmp_path / 'run.json').write_text('{}')
    with Recorder(study, 'a') as r:
        r.image(np.zeros((4, 6, 3), np.uint8), 'snapshot', 300)
        r.file(tmp_path / 'run.json', 'config')
        with pytest.raises(ValueError, match='cannot name'):
            r.image(np.zeros((4, 6, 3), np.uint8), '../x')
    kept = runs_dir() / 'artifacts' / study
    (png,) = kept.rglob('*.png')
    assert [p.name for p in kept.rglob('*.json')] == ['run.json']
    assert list_pictures(r.client, r.id) == {'snapshot': {300: f'images/{png.name}'}}
    looked_for = r.client.get_run(r.id).data.tags['mlflow.loggedImages']  # by MLflow's image grid
    assert looked_for == 'True'
    with pytest.raises(ValueError, match='cannot name a picture'):
        Recorder.image(r, np.zeros((4, 6, 3), np.uint8), 'a+b')
    with pytest.raises(ValueError, match='no file .*nowhere.json'):
        Recorder.file(r, tmp_path / 'nowhere.json')


def test_a_picture_whose_step_is_there_does_not_come_again(study):
    import numpy as np

    with pytest.raises(RuntimeError), Recorder(study, 'a') as r:
        for step in (1, 2):
            r.image(np.full((2, 2, 3), step, np.uint8), 'look depth', step)
        raise RuntimeError
    with Recorder(study, 'a', resume='checkpoint') as again:
        for step in (2, 3):
            again.image(np.zeros((2, 2, 3), np.uint8), 'look depth', step)
    assert again.id == r.id
    assert list(list_pictures(r.client, r.id)['look depth']) == [1, 2, 3]
    assert len(r.client.list_artifacts(r.id, 'images')) == 6  # each with its thumbnail
    r.spool.send_image('nowhere.png', 'look depth', 4)  # was delivered: nothing to do


def test_data_sets_sources_and_names(study):
    with Recorder(study, 'a', name='tiny-13k-heads32-s0') as r:
        r.dataset('heads32', 'abc', 'data/sets/heads32.zip')
        r.note('why')
        r.tag('verdict', 'good')
    run = r.client.get_run(r.id)
    assert run.info.run_name == 'tiny-13k-heads32-s0'
    assert run.data.tags['mlflow.note.content'] == 'why'
    assert run.data.tags['wysiwyg.verdict'] == 'good'
    assert {'mlflow.source.name', 'mlflow.source.type', 'mlflow.user'} <= run.data.tags.keys()
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ('heads32', 'abc', 'training')


def test_a_training_is_called_what_it_is_and_found_by_its_folder(fresh, tmp_path):
    assert tracking.training_name(tiny()) == 'tiny-13k-heads32-s0'
    other = override(tiny(1.2e6), **{'data.path': 'sets/faces.zip', 'train.seed': 3})
    assert tracking.training_name(other) == 'tiny-1.2M-faces-s3'
    assert tracking.find_training(tmp_path) is None
    for outdir in ('a', 'b'):
        with Recorder('train', 'tiny', outdir=str(tmp_path / outdir)) as r:
            r.metrics({'x': 1.0}, 1)
    with tracking.reopen(tracking.find_training(tmp_path / 'b')) as again:
        again.metrics({'eval/fd': 2.0})
    run = r.client.get_run(r.id)
    assert again.id == r.id
    assert run.info.status == 'FINISHED'
    assert run.data.metrics == {'x': 1.0, 'eval/fd': 2.0}
    assert tracking.facts('Why.', {'data': 'heads32'}) == 'Why.\n\n| | |\n|---|---|\n| data | heads32 |\n'


def test_links_open_on_runs_and_not_on_the_empty_page(study, monkeypatch):
    with Recorder(study, 'a') as r:
        pass
    runs = f'#/experiments/{r.client.get_run(r.id).info.experiment_id}/runs'
    kind = 'workflowType=machine_learning'
    monkeypatch.delenv('PORT', raising=False)
    assert experiment_link(study) == f'http://127.0.0.1:5000/{runs}?{kind}&compareRunsMode=CHART'
    assert experiment_link(study, charts=False, port=7) == f'http://127.0.0.1:7/{runs}?{kind}'
    monkeypatch.setenv('PORT', '81')
    assert run_link(r.id) == f'http://127.0.0.1:81/{runs}/{r.id}?{kind}'
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
        with serving(port):  # `wysiwyg ui`
            assert run_link(r.id) == f'http://127.0.0.1:{port}/{runs}/{r.id}?{kind}'
            told = (runs_dir() / 'ui.port').read_text()
            for other in (
                b'garbage',
                b'\xff\xfe',
                b'',
                b'99999999 x',
                told.replace('sqlite', 'other').encode(),
            ):
                (runs_dir() / 'ui.port').write_bytes(other)
                assert ui_address() == 'http://127.0.0.1:81'
        assert (runs_dir() / 'ui.port').exists()  # another's
        (runs_dir() / 'ui.port').write_text(told)
    assert ui_address() == 'http://127.0.0.1:81'  # nobody answers there
    with serving(1):
        assert ui_address() == 'http://127.0.0.1:81'
    assert not (runs_dir() / 'ui.port').exists()
    assert experiment_link('nowhere') is None
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'https://me:secret@tracks.example/ml/')
    assert ui_address() == 'https://tracks.example/ml'
    assert 'secret' not in _trouble(OSError('https://me:secret@tracks.example/ml/: no answer'))


def test_null_recorder_has_the_whole_interface():
    def public(c):
        return {k for k in dir(c) if k[0] != '_'}

    assert public(Recorder) == public(NullRecorder)
    with NullRecorder() as r:
        r.metrics({'x': 1.0}, 1)
        r.image(None, 'x', 1)
        r.file('x')


# ---- studies -------------------------------------------------------------------------------------

ARMS = {'full': {'k': 1.0}, 'less': {'k': 2.0}, 'none': {'k': 3.0}}


def measure(recorder, params, seed):
    recorder.metrics({'train/loss': params['k']}, 100)
    return {'eval/fd': 10 * params['k'] + seed, 'eval/psnr': 30 / params['k'], 'eval/non_flatness': 5.0}


def test_a_study_is_idempotent_and_survives_a_failing_arm(study):
    seen = []

    def shaky(recorder, params, seed):
        seen.append((params['k'], seed))
        if params['k'] == 2 and len(seen) < 7:
            raise RuntimeError('no memory')
        return measure(recorder, params, seed)

    assert set(run_study(study, ARMS, shaky, (0, 1), dry_run=True).values()) == {'to do'}
    assert not seen
    assert open_store().get_experiment_by_name(f'wysiwyg/{study}') is None
    one = run_study(study, ARMS, shaky, (0, 1))
    assert exit_code(one) == 1
    assert len(seen) == 6
    assert one['less-s0'] == 'failed: RuntimeError: no memory'
    assert one['none-s1'] == 'done'
    two = run_study(study, ARMS, shaky, (0, 1))
    assert exit_code(two) == 0
    assert len(seen) == 8
    assert sorted(two.values()) == ['done'] * 2 + ['kept'] * 4
    three = run_study(study, ARMS, shaky, (0, 1))
    assert set(three.values()) == {'kept'}
    assert len(seen) == 8
    changed = run_study(study, ARMS | {'full': {'k': 1.5}}, shaky, (0,))
    assert changed['full-s0'] == 'done'
    assert read_study(study).set_index(['arm', 'seed']).loc[('full', 0), 'k'] == 1.5
    runs = open_store().search_runs([open_store().get_experiment_by_name(f'wysiwyg/{study}').experiment_id])
    parents = [r for r in runs if r.data.tags['wysiwyg.arm'] == 'study']
    assert len(parents) == 1
    assert not [r for r in runs if 'mlflow.parentRunId' in r.data.tags]  # flat: charts show every arm


def test_arms_are_overrides_of_a_base(study):
    got = {}

    def keep(recorder, run, seed):
        got[recorder.client.get_run(recorder.id).info.run_name] = run

    def fewer(base):
        return override(base, **{'sampler.samples': 8})

    run_study(study, {'a': {'sampler.tau': 0.9}, 'b': fewer}, keep, (3,), base=tiny())
    assert got == {
        'a-s3': override(tiny(), **{'sampler.tau': 0.9}),
        'b-s3': override(tiny(), **{'sampler.samples': 8}),
    }
    assert finished(study, 'a', 3, got['a-s3'])
    assert not finished(study, 'a', 3, tiny())
    with pytest.raises(ValueError, match='unknown config key'):
        run_study(study, {'c': {'sampler.tua': 0.9}}, keep, base=tiny())
    with pytest.raises(ValueError, match="name of the study's own run"):
        run_study(study, {'study': {}}, keep)


@pytest.fixture(scope='module')
def done(store):
    run_study('table', ARMS, measure, (0, 1, 2))
    return 'table'


def test_tables_equal_mlflow(done, store):
    from scipy import stats

    runs, table = read_study(done), compare(done, 'full')
    assert len(runs) == 9
    assert runs.k.dtype == float
    for run_id, ours in runs.set_index('run_id')['eval/fd'].items():
        assert ours == store.get_run(run_id).data.metrics['eval/fd']
    fd = runs[runs.arm == 'less']['eval/fd']
    assert table.loc['less', ('eval/fd', 'mean')] == pytest.approx(fd.mean())
    low, high = stats.t.interval(0.95, 2, fd.mean(), stats.sem(fd))
    assert table.loc['less', ('eval/fd', '±')] == pytest.approx((high - low) / 2)
    assert table.loc['less', ('eval/fd', 'Δ')] == pytest.approx(10)
    assert table.loc['less', ('eval/fd', 'Δ±')] == pytest.approx(0, abs=1e-9)  # seeds are paired
    assert table['eval/fd', 'best'].tolist() == table['eval/psnr', 'best'].tolist() == [True, False, False]
    assert not table['eval/non_flatness', 'best'].any()
    assert table.loc['less', ('eval/fd', 'noise')] is False
    assert table.loc['full', ('eval/fd', 'noise')] is None
    assert compare(done, 'full', ['eval/fd'], ['none', 'less']).index.tolist() == ['none', 'less']
    assert len(curves(done, 'train/loss')) == 9
    assert '★' in show_compare(done, 'full').loc['full', 'fd']


def test_one_seed_has_no_interval():
    run_study('single', ARMS, measure)
    table = compare('single', 'full')
    assert math.isnan(table.loc['less', ('eval/fd', '±')])
    assert table.loc['less', ('eval/fd', 'noise')] is None
    assert show_compare('single', 'full').loc['less', 'fd'] == '20 (+10)'


def test_questions_to_the_store_fail_by_name(done):
    with pytest.raises(ValueError, match="no study 'nowhere'; known: .*table"):
        read_study('nowhere')
    with pytest.raises(ValueError, match="no finished arm 'x'; finished: full, less, none"):
        compare(done, 'x')
    with pytest.raises(ValueError, match="no metric 'eval/x'; it has .*eval/fd"):
        compare(done, 'full', ['eval/x'])


# ---- tables of what was asked for, and of like with like -----------------------------------------


def keep(study, arm, params, scores, seed=0, **tags):
    "One finished run."
    with Recorder(study, arm, seed, params, **tags) as r:
        r.metrics(scores)
    return r.id


def test_a_small_run_does_not_shadow_a_large_one(study):
    large = {'a': {'kind': 'a', 'images': 2000}, 'b': {'kind': 'b', 'images': 2000, 'widths': (8, 16)}}
    for arm, p in large.items():
        keep(study, arm, p, {'eval/psnr': 40.0})
    keep(study, 'a', {'kind': 'a', 'images': 8}, {'eval/psnr': 20.0})

    def of(**how):
        return read_study(study, **how).set_index('arm')['eval/psnr'].to_dict()

    assert of() == {'a': 20.0, 'b': 40.0}
    assert of(arms=large) == {'a': 40.0, 'b': 40.0}
    assert of(where={'images': 2000}) == {'a': 40.0, 'b': 40.0}
    assert of(where={'images': 8}) == {'a': 20.0}
    assert of(arms=['b']) == of(where={'widths': (8, 16)}) == {'b': 40.0}
    assert read_study(study, where={'images': 9}).empty
    assert compare(study, 'a', arms=large).loc['b', ('eval/psnr', 'Δ')] == 0
    assert '40 (+0)' in show_compare(study, 'a', where={'images': 2000}).loc['b', 'psnr']


def test_unlike_things_are_not_compared(study):
    keep(study, 'a', {'n': 1}, {'eval/fd_x_500': 1.0, 'eval/psnr': 1.0}, dataset_sha='heads')
    keep(study, 'b', {'n': 1}, {'eval/fd_x_64': 1.0, 'eval/psnr': 2.0}, dataset_sha='heads')
    why = "arm 'b' of .* fd_x_500 and fd_x_64 may not be compared: count 500 against 64"
    with pytest.raises(ValueError, match=why):
        compare(study, 'a')
    assert compare(study, 'a', ['eval/psnr']).loc['b', ('eval/psnr', 'Δ')] == 1
    keep(study, 'c', {'n': 1}, {'eval/fd_x_500': 1.0}, dataset_sha='cats')
    with pytest.raises(ValueError, match="'eval/fd_x_500' against 2 data sets"):
        compare(study, 'a', ['eval/fd_x_500'], ['a', 'c'])
    keep(study, 'a', {'n': 2}, {'eval/fd_x_500': 1.0, 'eval/psnr': 1.0}, seed=1, dataset_sha='heads')
    why = "arm 'a' of .* has runs of 2 configurations, differing in n: choose by arms= or where="
    with pytest.raises(ValueError, match=why):
        compare(study, 'a', ['eval/psnr'])
    with pytest.raises(ValueError, match="no finished arm 'd'"):
        compare(study, 'a', ['eval/psnr'], {'a': {'n': 1}, 'd': {'n': 1}})


def test_cases_say_what_one_seed_cannot(study):
    import numpy as np

    draw = np.random.default_rng(0)
    people = draw.normal(30, 4, 30)
    for arm, gain in (('base', 0), ('better', 0.5), ('same', 0)):
        with Recorder(study, arm, params={'gain': gain, 'arm': arm}) as r:
            r.samples('psnr', people + gain + draw.normal(0, 0.3, 30))
    table, cases = compare(study, 'base')['eval/psnr'], case_scores(read_study(study), 'eval/psnr')
    difference = cases.better - cases.base
    assert cases.shape == (30, 3)
    assert table.noise.tolist() == [None, False, True]
    assert table['Δ±'].isna().all()
    assert table.loc['better', 'Δ'] == pytest.approx(difference.mean())
    assert table.loc['better', 'Δ± cases'] == pytest.approx(1.96 * difference.std() / 30**0.5, rel=0.15)
    with Recorder(study, 'better', 1, {'gain': 0.5, 'arm': 'better'}) as r:
        r.samples('psnr', people - 3)  # another seed says otherwise
    with Recorder(study, 'base', 1, {'gain': 0, 'arm': 'base'}) as r:
        r.samples('psnr', people)
    assert compare(study, 'base')['eval/psnr'].loc['better', 'noise'] is True


def test_the_report_needs_nothing_and_runs_nothing(study):
    arms = {'a': {'k': 1, 'text': '<script>alert(1)</script>'}, 'b': {'k': 2, 'text': ''}}

    def measure(r, p, s):
        r.metrics({'train/loss': 1.0}, 1)
        return {'eval/psnr': 30.0 + p['k'] + s}

    run_study(study, arms, measure, (0, 1), note='<b>why</b>')
    (parent,) = find_runs(open_store(), study, arm='study')
    html = open_store().download_artifacts(parent.info.run_id, 'compare.html')
    page = Path(html).read_text(encoding='utf8')
    assert '<script' not in page
    assert '&lt;script&gt;' in page
    assert '&lt;b&gt;why' in page
    assert '31.5 ± ' in page
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="(http|//)', page)
    assert len(page) < 2e5
    assert '| a |' in parent.data.tags['mlflow.note.content']
    assert parent.data.tags['wysiwyg.failed'] == '0'
    (run,) = find_runs(open_store(), study, arm='b', seed=1)
    assert '`k` | 2' in run.data.tags['mlflow.note.content']


def test_seeds_by_arm_and_a_dry_run_in_the_journal(study, tmp_path, monkeypatch):
    monkeypatch.setenv('WYSIWYG_JOURNAL', str(tmp_path / 'journal'))
    monkeypatch.setenv('WYSIWYG_DRY_RUN', '1')
    status = run_study(study, ARMS, measure, {'full': (0, 1), 'less': (0,), 'none': ()})
    told = json.loads((tmp_path / 'journal').read_text())
    assert status == {'full-s0': 'to do', 'full-s1': 'to do', 'less-s0': 'to do'}
    assert told['study'] == study
    assert told['runs'][1] == {
        'run': 'full-s1',
        'arm': 'full',
        'seed': 1,
        'config_sha': digest(ARMS['full']),
        'status': 'to do',
    }
    assert estimate_study(study, told['runs']) is None
    for arm, seconds in (('full', 60), ('less', 30)):
        keep(study, arm, ARMS[arm], {'eval/fd': 1.0}, seed=7, seconds=seconds)
    assert estimate_study(study, told['runs']) == 150
    assert estimate_study(study, told['runs'], 2) == 75
    assert estimate_study(study, [{**r, 'status': 'kept'} for r in told['runs']]) == 0
    assert estimate_study(study, [{**r, 'config_sha': 'other'} for r in told['runs']]) is None


def test_a_run_whose_leader_is_gone_is_not_alive():
    with Recorder('led', 'a', leader='another-host:1:0') as r:
        r.client.set_tag(r.id, 'wysiwyg.process', 'another-host:2:0')
        assert _reap('led') == []
        r.client.set_tag(r.id, 'wysiwyg.leader', f'{socket.gethostname()}:{os.getpid()}:1')
        assert _reap('led') == ['a-s0']


def test_a_zombie_is_not_alive():
    import psutil

    p = subprocess.Popen([sys.executable, '-c', ''])
    tag = f'{socket.gethostname()}:{p.pid}:{psutil.Process(p.pid).create_time():.0f}'
    while psutil.Process(p.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not _alive(tag)
    p.wait()


def test_exported_runs_come_back_once(tmp_path, monkeypatch):
    arms = {'a': {'k': 1.0, 'far': float('inf'), 'list': [[0.0, 64]]}, 'b': {'k': 2.0}}

    def measure(r, p, s):
        for n in range(1, 301):
            r.metrics({'train/loss': 1 / n}, n)
        return {'eval/psnr': p['k'] / 3}

    run_study('swap', arms, measure, (0, 1), dataset_sha='heads')
    file, mine = export_runs('swap'), read_study('swap').set_index(['arm', 'seed'])
    text = file.read_text()
    assert file.name == 'swap.runs.json'
    assert socket.gethostname() + ':' not in text
    assert str(tmp_path.parent) not in text
    assert set(import_runs(file).values()) == {'there'}  # one's own
    rename = text.replace('"swap"', '"swapped"')  # as another store would have it
    for run in json.loads(text):
        rename = rename.replace(run['run_id'], run['run_id'][::-1])
    other = tmp_path / 'swapped.runs.json'
    other.write_text(rename)
    calls = []
    create = type(open_store()).set_terminated

    def cut(self, run, status=None, end_time=None, **kw):
        calls.append(run)
        if len(calls) == 3:
            raise OSError('interrupted')
        return create(self, run, status, end_time, **kw)

    monkeypatch.setattr(type(open_store()), 'set_terminated', cut)
    with pytest.raises(OSError):
        import_runs(other)
    assert sorted(import_runs(other).values()) == ['imported'] * 3 + ['there'] * 2
    assert set(import_runs(other).values()) == {'there'}
    back = read_study('swapped').set_index(['arm', 'seed'])
    assert len(back) == 4
    assert (back['eval/psnr'] == mine['eval/psnr']).all()
    assert (back.config_sha == mine.config_sha).all()
    assert back.loc[('a', 0), 'far'] == math.inf
    steps = history(back.loc[('b', 1), 'run_id'], 'train/loss').step.tolist()
    assert len(steps) == 200
    assert steps[0] == 1
    assert steps[-1] == 300
    runs = find_runs(open_store(), 'swapped')
    assert len(runs) == 5
    assert {r.data.tags['wysiwyg.imported_from'] for r in runs} == {'swapped.runs.json'}
    parent = [r.info.run_id for r in runs if r.data.tags['wysiwyg.arm'] == 'study']
    assert len(parent) == 1
    assert not [r for r in runs if 'mlflow.parentRunId' in r.data.tags]
    status = run_study('swapped', arms, None, (0, 1), dry_run=True)
    assert set(status.values()) == {'to do'}  # not measured here
    other.write_text(rename.replace('"k": "2.0"', '"k": "3.0"'))
    with pytest.raises(ValueError, match='parameters of b-s0 are not those of its digest'):
        import_runs(other)
    with pytest.raises(ValueError, match='no study'):
        export_runs('nowhere')


def test_results_carry_where_they_come_from(done):
    speed = {'what': 'speed', 'value': 4.5, 'unit': 'frames/s', 'bound': '>= 8'}
    said = {'what': 'said', 'value': 1, 'holds': True}
    path = write_results('rows', [*interval_rows(compare(done, 'full')), speed, said], 'make bench')
    rows = json.loads(path.read_text())
    fields = 'what value unit bound holds command hardware versions commit date'.split()
    for row in rows:
        assert list(row) == fields
    assert len([r for r in rows if r['what'][-1] not in '±Δ']) == 11
    assert [r['holds'] for r in rows[-2:]] == [False, True]
    assert 'torch' in rows[0]['versions']
    assert read_results('rows').value.iloc[-2] == 4.5
    for bad, why in (
        (dict(what='x', value=float('inf')), 'not finite'),
        (dict(what='x', value=1, bound='8'), 'reads like'),
        (dict(what='x', value=1, colour=2), "no field 'colour'"),
    ):
        with pytest.raises(ValueError, match=why):
            write_results('rows', [bad], 'none')
    assert json.loads(path.read_text()) == rows
    known = {'>= 2': True, '<= 1.9': False, '== 2': True, '> 2': False, '< 2e0': False, None: None}
    assert {bound: holds(2, bound) for bound in known} == known


def test_import_is_light():
    loaded = "print([m for m in ('mlflow', 'pandas', 'scipy') if m in sys.modules])"
    child = [sys.executable, '-c', f'import sys; import wysiwyg.tracking; {loaded}']
    said = subprocess.run(child, capture_output=True, text=True).stdout
    assert said.strip() == '[]'
