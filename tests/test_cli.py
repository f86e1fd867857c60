"The program as a user meets it: exit codes, streams, and nothing written before the input is known to be good."
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from wysiwyg.camera import gaussian_cameras
from wysiwyg.cli import main, notebook_parameters, run_notebook
from wysiwyg.core import rng
from wysiwyg.data import png_bytes, write_zip

SMALL = ('--batch 2 --backbone.channel-base 256 --backbone.channel-max 8 --backbone.plane-channels 4 --backbone.plane-hidden 4 --proposal.width 8 --render.coarse 8 '
         '--discriminator.channel-base 256 --discriminator.channel-max 8 --train.snapshot-images 100000 --no-track').split()


def program(*args, **kw):
    env = os.environ | {'OMP_NUM_THREADS': '1', 'MALLOC_TOP_PAD_': '268435456'}
    return subprocess.Popen([sys.executable, '-m', 'wysiwyg.cli', *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **kw)


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    "A user's own posed set."
    path, g = tmp_path_factory.mktemp('own')/'own.zip', rng(0)
    pictures = torch.randint(0, 256, (8, 64, 64, 3), generator=g, dtype=torch.uint8).numpy()
    return write_zip(path, [(f'{i}.png', png_bytes(p), l) for i, (p, l) in enumerate(zip(pictures, gaussian_cameras(8, g).label.tolist()))])


@pytest.mark.parametrize('line, code', [('', 2), ('fly', 2), ('train --cfg huge', 2), ('train --sampler.tua 1', 2), ('train --kimg', 2), ('ablate --study a98_nothing', 1),
                                        ('eval --network nowhere.safetensors', 1), ('render --outdir x --seeds a', 2), ('train --data nowhere.zip', 1)])
def test_exit_codes(line, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try: got = main(line.split())
    except SystemExit as e: got = e.code
    assert got == code and capsys.readouterr().err and not list(tmp_path.iterdir())


def test_results_on_stdout_logs_on_stderr(capsys):
    assert main('train --dry-run --json --seed 3 --gamma 2'.split()) == 0
    out = json.loads(capsys.readouterr().out)
    assert out['train.seed'] == 3 and out['schedule.gamma'] == [[0, 2]]


def test_a_users_own_set_trains_and_ctrl_c_leaves_a_checkpoint(own, tmp_path):
    p = program('train', '--kimg', 8, '--data', own, '--outdir', tmp_path/'run', *SMALL)
    end = time.time()+120
    while not (tmp_path/'run'/'run.json').exists() and p.poll() is None and time.time() < end: time.sleep(.1)
    time.sleep(4)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 130, err
    assert list((tmp_path/'run').glob('ckpt-*.pt')), err


def test_faults_are_listed_before_the_first_step(own, tmp_path):
    "A set with a broken picture: named, exit 1, nothing written."
    bad = tmp_path/'bad.zip'
    blob = own.read_bytes(); at = blob.find(b'IDAT')+40
    bad.write_bytes(blob[:at] + bytes([blob[at] ^ 255]) + blob[at+1:])
    p = program('train', '--data', bad, '--outdir', tmp_path/'run', *SMALL)
    _, err = p.communicate(timeout=120)
    assert p.returncode == 1 and '0.png' in err and not (tmp_path/'run').exists()


def test_notebooks_without_parameters_are_refused(tmp_path):
    path = tmp_path/'n.ipynb'
    path.write_text(json.dumps({'cells': [{'cell_type': 'code', 'metadata': {}, 'source': ['a = 1']}]}))
    with pytest.raises(ValueError, match='no cell tagged'): notebook_parameters(path)
    with pytest.raises(ValueError, match="no study"): run_notebook('a98_nothing', {}, tmp_path/'o.ipynb')


# ---- studies ---------------------------------------------------------------------------------------------------------

NOTEBOOK = ["bad = 0\nscale = 1.\nseeds = '0'", 'from wysiwyg.study import *', """
def measure(recorder, p, seed):
    if p['k'] == p['bad']: raise RuntimeError('no memory')
    return {'eval/psnr': 30*scale/p['k']}
status = run_study('small', {f'k{k}': {'k': k, 'scale': scale, 'bad': bad} for k in (1, 2)}, measure, [int(s) for s in seeds.split(',')])""",
            "assert len(read_study('small')), 'nothing to read'"]


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A project with one ablation."
    folder = tmp_path_factory.mktemp('project'); (folder/'nbs'/'ablations').mkdir(parents=True)
    cells = [{'cell_type': 'code', 'source': c, 'outputs': [], 'execution_count': None, 'id': f'c{i}', 'metadata': {'tags': ['parameters']*(i == 0)}} for i, c in enumerate(NOTEBOOK)]
    kernel = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
    (folder/'nbs'/'ablations'/'a90_small.ipynb').write_text(json.dumps({'cells': cells, 'metadata': kernel, 'nbformat': 4, 'nbformat_minor': 5}))
    return folder


@pytest.mark.slow
def test_ablate_lists_runs_fails_and_exchanges(project, capsys, monkeypatch):
    monkeypatch.setenv('WYSIWYG_HOME', str(project))
    def call(line): return main(line.split()), *capsys.readouterr()
    code, out, _ = call('ablate --study a90_small --seeds 0,1 --dry-run')
    assert code == 0 and out.count('to do  to do') == 2 and 'estimate: unknown' in out and [p.name for p in project.iterdir()] == ['nbs']
    code, out, err = call('ablate --study a90_small --seeds 0,1 --set bad=2 --workers 2')
    assert code == 1 and '2 of 4 runs of a90_small failed, the others are kept' in err and 'k2-s1: failed: RuntimeError: no memory' in err
    code, out, err = call('ablate --study a90_small --seeds 0,1 --set bad=2 --dry-run --json')
    told = json.loads(out)
    assert (code, told['to do'], told['parameters']) == (0, 2, {'seeds': '0,1', 'bad': 2}) and told['estimate'].startswith('0.0 min with 1 worker')
    code, out, err = call('results export small')
    assert code == 0 and (project/'data'/'results'/'small.runs.json').exists()
    assert call('results import')[:2] == (0, 'small.runs.json: 0 imported, 3 already there\n')
    assert call('results export nothing')[0] == 1 and call('results export')[0] == 2


@pytest.mark.parametrize('line, code, why', [
    ('--set k=3', 1, "no parameter 'k'; it has bad, scale, seeds"), ('--set bad=.5', 1, 'bad is int, such as 0; got 0.5'), ('--set bad', 2, '--set takes name=value'),
    ('--set scale=2 --set bad=x', 1, "bad is int"), ('--workers 0', 2, '--workers must be at least 1'), ('--executor dask', 2, '')])
def test_settings_are_checked_before_anything_runs(project, line, code, why, capsys, monkeypatch):
    monkeypatch.setenv('WYSIWYG_HOME', str(project))
    try: got = main(['ablate', '--study', 'a90_small', *line.split()])
    except SystemExit as e: got = e.code
    assert got == code and why in capsys.readouterr().err
