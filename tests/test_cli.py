"The program as a user meets it: exit codes, streams, and nothing written before the input is known good."

import functools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from small_run import called

from wysiwyg import cli
from wysiwyg.camera import gaussian_cameras
from wysiwyg.cli import (
    _COMMANDS,
    _EXAMPLES,
    Ablate,
    Demo,
    Eval,
    Heads,
    Short,
    Studies,
    Ui,
    _FIELDS,
    _arms_bar,
    _check_parameters,
    _demo_text,
    _error_text,
    _eval_text,
    _keep_scores,
    _tell_scores,
    main,
    _notebook_parameters,
    parse,
    _plain,
    _refuse_taken,
    run_notebook,
    study_parameters,
    _show_arms,
    _study_links,
    _study_page,
    _watch_arms,
)
from wysiwyg.config import METHODS, PRESETS, flat, tiny
from wysiwyg.core import data_dir, file_sha, home, rng
from wysiwyg.data import png_bytes, write_zip
from wysiwyg.executors import environment
from wysiwyg.generator import load_generator
from wysiwyg.heads import heads_digest
from wysiwyg.study import run_study
from wysiwyg.tracking import Recorder, find_runs, open_store

SMALL = (
    '--batch 2 --backbone.channel-base 256 --backbone.channel-max 8 --backbone.plane-channels 4 '
    '--backbone.plane-hidden 4 --proposal.width 8 --render.coarse 8 --discriminator.channel-base 256 '
    '--discriminator.channel-max 8 --train.snapshot-images 100000 --no-track'
).split()


def program(*args, **kw):
    command = [sys.executable, '-m', 'wysiwyg.cli', *map(str, args)]
    env = os.environ | {'OMP_NUM_THREADS': '1', 'MALLOC_TOP_PAD_': '268435456'}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, env=env, **pipes, **kw)


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    "A user's own posed set."
    path, g = tmp_path_factory.mktemp('own') / 'own.zip', rng(0)
    pictures = torch.randint(0, 256, (8, 64, 64, 3), generator=g, dtype=torch.uint8).numpy()
    names = [f'{i}.png' for i in range(8)]
    labels = gaussian_cameras(8, g).label.tolist()
    return write_zip(path, zip(names, map(png_bytes, pictures), labels))


@pytest.mark.parametrize(
    'line, code',
    [
        ('', 2),
        ('fly', 2),
        ('train --cfg huge', 2),
        ('train --sampler.tua 1', 2),
        ('train --kimg', 2),
        ('ablate --study a98_nothing', 1),
        ('eval --network nowhere.safetensors', 1),
        ('render --outdir x --seeds a', 2),
        ('train --data nowhere.zip', 1),
    ],
)
def test_exit_codes(line, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        got = main(line.split())
    except SystemExit as e:
        got = e.code
    assert got == code
    assert capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_results_on_stdout_logs_on_stderr(capsys):
    assert main('train --dry-run --json --seed 3 --gamma 2'.split()) == 0
    out = json.loads(capsys.readouterr().out)
    assert out['train.seed'] == 3
    assert out['schedule.gamma'] == [[0, 2]]


def test_a_dry_run_ends_with_what_would_be_made(capsys):
    code, _, err = called('train --dry-run --outdir mine', capsys)
    assert code == 0
    assert err.splitlines()[-1] == (
        'nothing was made; without --dry-run this run trains on 4,000 heads, rendered as 32 pixels, into mine'
    )
    pair = '--cfg heads64 --train.network data/heads64'
    wider = '--backbone.channel_base 2048'
    taller = '--heads.resolution 128 --probe.resolution 32 --schedule.resolution.knots 0 128'
    for sizes in (wider, taller):
        code, _, err = called(f'train --dry-run --outdir mine {pair} {sizes}', capsys)
        assert code == 0
        assert err.rstrip().endswith(', into mine, going on from the networks of data/heads64')


def test_every_command_has_one_line_of_the_list(capsys):
    listed = called('--help', capsys)[1].split('\n\n')[0].splitlines()[1:]
    assert [line.split()[0] for line in listed] == list(_COMMANDS)


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    "A folder of runs; its MLflow store is made once."
    folder = tmp_path_factory.mktemp('store')
    with environment(WYSIWYG_RUNS=str(folder)):
        yield folder


@pytest.mark.parametrize('name, kind', [('heads', Heads), ('studies', Studies), ('ui', Ui), ('demo', Demo)])
def test_a_command_alone_has_its_defaults(name, kind):
    assert parse([name]) == (name, kind())


def test_the_lesson_lists_every_command():
    cells = json.loads((home() / 'nbs/21_cli.ipynb').read_text(encoding='utf8'))['cells']
    listed = re.search(r'Commands.*`wysiwyg (.*?)`', ''.join(cells[1]['source']))[1]
    assert listed.split(' · ') == list(_COMMANDS)


@pytest.mark.parametrize('name', _COMMANDS)
def test_each_help_begins_with_what_people_use_and_ends_with_examples(name, capsys):
    code, out, _ = called(f'{name} --help', capsys)
    assert code == 0
    assert out.rstrip().splitlines()[-len(_EXAMPLES[name]) :] == [f'  {line}' for line in _EXAMPLES[name]]
    for line in _EXAMPLES[name]:
        assert isinstance(parse(shlex.split(line)[1:])[1], _COMMANDS[name][0])


def test_help_of_train_and_ablate(capsys):
    short, full = (called(f'train {h}', capsys)[1] for h in ('--help', '--help-all'))
    places = [short.index(f'{o} ') for o in '--cfg --data --kimg --batch --gamma --snap --seed'.split()]
    assert places == sorted(places)
    assert places[0] < 400
    assert 'heads64   64 px' in short
    presets = short.split('presets:\n')[1].split('\n\n')[0]
    assert [line.split()[0] for line in presets.splitlines()] == list(PRESETS)
    assert '--sampler.tau FLOAT' not in short
    assert '--sampler.tau FLOAT' in full
    assert short.count('\n') < 60
    of_studies = called('ablate --help', capsys)[1]
    assert 'a02_samples             samples per ray\n' in of_studies
    assert f'four systems (--method {", ".join(METHODS)})\n' in of_studies
    assert called('--version', capsys)[1].startswith('wysiwyg 0.')
    assert 'a02_samples: samples per ray' in called('studies', capsys)[1]


@pytest.mark.parametrize(
    'line, why',
    [
        ('--sampler.tau 2', 'sampler.tau = 2 is outside (0, 1]'),
        ('--kimg -1', 'a run of -1000 images'),
        ('--kimg 0', 'a run of 0 images'),
        ('--data nosuch.zip', 'there is no nosuch.zip'),
        ('--cfg paper', 'give --data YOUR_SET'),
        ('--method imagenet3d', 'rendered heads have cameras: give --data SET'),
        ('--batch 7', 'multiple of 4'),
        ('--gamma much', '--gamma must be a number or auto'),
        ('--resume nosuch.pt', 'there is no nosuch.pt'),
    ],
)
def test_the_dry_run_refuses_what_training_would(line, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = called(f'train --dry-run --outdir x {line}', capsys)
    assert code in (1, 2)
    assert why in err
    assert err.count('\n') <= 2
    assert not out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('cfg, supervised', [('tiny', '0 (0-4.16), 1 (4.16-13)'), ('heads64', '0 (0-60)')])
def test_proposals_that_learn_nothing_are_not_supervised(cfg, supervised, capsys):
    out = called(f'train --dry-run --cfg {cfg}', capsys)[1]
    assert f'supervise proposals     {supervised}\n' in out


def test_a_reader_who_leaves_is_no_error():
    with program('train', '--dry-run') as job:
        job.stdout.close()
        said = job.stderr.read()
    assert job.returncode == 128 + signal.SIGPIPE
    assert not said


def test_the_dry_run_asks_the_store(tmp_path, capsys):
    with environment(WYSIWYG_RUNS=str(tmp_path)):
        assert main(['train', '--dry-run']) == 0
        assert not list(tmp_path.iterdir())
        client = open_store()
        client.delete_experiment(client.create_experiment('wysiwyg/train'))
        assert main(['train', '--dry-run']) == 1
    assert 'wysiwyg/train was deleted in MLflow: restore it' in capsys.readouterr().err


def test_short_options_set_fields_of_the_configuration():
    others = '--seed 3 --mirror --snap 2 --kimg 5 --gamma auto'
    run = parse(f'train --cfg heads64 --batch 4 {others} --schedule.render-from 900'.split())[1].run
    assert run.name == 'heads64'
    assert run.schedule.render_from == 900
    assert run.train.batch == 4
    assert run.train.seed == 3
    assert run.data.mirror is True
    assert run.train.snapshot_images == 2000
    assert run.schedule.total == 5000
    assert run.schedule.gamma(0) == 0.0002 * 64**2 / 4


TWICE = {  # short option and the dotted one that it stands for, in several spellings
    '--method eg3d': '--system eg3d',
    '--batch 4': '--train.batch 32',
    '--kimg .004': '--schedule.total 100',
    '--gamma auto': '--schedule.gamma.knots 0 2',
    '--snap=2': '--train.snapshot_images=5',
    '--seed 0': '--train.seed 0',
    '--data a.zip': '--data.path b.zip',
    '--no-mirror': '--data.mirror',
    '--mirror': '--data.no-mirror',
}


@pytest.mark.parametrize('short', TWICE)
@pytest.mark.parametrize('first', ['short', 'dotted'])
def test_a_field_given_twice_is_refused(short, first, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pair = [short, TWICE[short]]
    line = ' '.join(pair if first == 'short' else reversed(pair))
    code, out, err = called(f'train --outdir x {line}', capsys)
    names = ' and '.join(re.split('[ =]', option)[0] for option in pair)
    assert (code, out, err) == (2, '', f'{names} set one field: give one of them\n')
    assert not list(tmp_path.iterdir())


def test_every_short_option_is_known_to_stand_for_a_field():
    "One that a later version adds must be refused beside its field too; `cfg` chooses them all."
    assert {option.split()[0].split('=')[0][2:] for option in TWICE} == {*_FIELDS, 'no-mirror'}
    assert {*_FIELDS, 'cfg'} == set(Short.__dataclass_fields__)
    assert set(_FIELDS.values()) <= {*flat(tiny())}


def test_heads_takes_a_field_in_one_of_its_spellings(capsys):
    code, _, err = called('heads --n 4 --heads.n 8', capsys)
    assert (code, err) == (2, '--n and --heads.n set one field: give one of them\n')
    assert parse('heads --heads.n 8 --seed 3'.split())[1].heads.n == 8


def test_pictures_of_another_size_are_told_of(own, capsys):
    code, _, err = called(f'train --data {own} --dry-run', capsys)
    assert code == 0
    assert 'your pictures are 64 pixels wide' in err
    assert '--cfg heads64 trains at 64' in err


def test_json_is_json(capsys):
    def refuse(name):
        raise AssertionError(f'{name} is no JSON')

    options = json.loads(called('train --dry-run --json', capsys)[1], parse_constant=refuse)
    assert options['field.sharpness'] == 'inf'
    assert _plain({'a': [float('nan'), 1.0], 'b': (2,)}) == {'a': ['nan', 1.0], 'b': [2]}


@pytest.mark.parametrize(
    'line, why',
    [
        ('render --outdir x --seeds 3-1', 'run backwards: give 1-3'),
        ('render --outdir x --yaw left', '--yaw must look like'),
        ('eval --n 1', '--n must be at least 2'),
        ('eval --seed -1', '--seed must be at least 0, got -1'),
        ('eval --record a/b', "'a/b' cannot name"),
        ('eval --normals n.zip', '--normals is of a published --protocol: give one'),
        ('eval --inception-sha 0', '--inception-sha is of a published --protocol: give one'),
        ('eval --worst w.jpg', "--worst must end with .png, got 'w.jpg'"),
        ('eval --worst w.png --protocol normal_fid10k', '--worst is of no published --protocol'),
        ('render --outdir o --trunc nan', '--trunc must be from -4 to 4, got nan'),
        ('render --outdir o --pitch=-inf', '--pitch must be from -1.6 to 1.6, got -inf'),
        ('render --outdir o --radius nan', '--radius must be from 0.01 to 1000, got nan'),
        ('render --outdir o --focal 0', '--focal must be from 0.01 to 1000, got 0'),
        ('render --outdir o --resolution 0', '--resolution must be from 2 to 4096, got 0'),
        ('render --outdir o --samples 1', '--samples must be from 2 to 4096, got 1'),
        ('train --stop-at nan', '--stop-at must be at least 0.001, got nan'),
        ('train --stop-at 0', '--stop-at must be at least 0.001, got 0'),
        ('ablate --repeats 0', '--repeats must be at least 1, got 0'),
        ('ablate --views 0 --dry-run', '--views must be at least 1, got 0'),
        ('ablate --n 1', '--n must be at least 16, got 1'),
        ('ui --port 99999', '--port must be from 1 to 65535, got 99999'),
        ('render --outdir x --network a/b/g.safetensors', 'no generator at a/b/g.safetensors'),
        ('results import nosuch.json', 'there is no file nosuch.json'),
    ],
)
def test_refused_before_anything_is_done(line, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = called(line, capsys)
    assert code in (1, 2)
    assert why in err
    assert not list(tmp_path.iterdir())


def test_errors_are_bounded_and_hide_passwords(capsys, monkeypatch):
    from mlflow.exceptions import MlflowException

    text = _error_text(ValueError('\n'.join(map(str, range(100)))))
    assert text.count('\n') == 40
    assert text.endswith('and 60 more lines')
    assert _error_text(ValueError('http://me:secret@host/x')) == 'http://host/x'

    def broken(a):
        raise MlflowException('the table\nis gone')

    monkeypatch.setitem(_COMMANDS, 'studies', (*_COMMANDS['studies'][:1], broken, *_COMMANDS['studies'][2:]))
    assert called('studies', capsys) == (1, '', 'error: MLflow: the table is gone\n')


def test_scores_are_a_table_with_floors_and_intervals():
    scores = {
        'eval/psnr': 31.23456,
        'eval/fd_x_8': 12.5,
        'eval_low/fd_x_8': 11.0,
        'eval_high/fd_x_8': 14.0,
        'floor/fd_x_8': 3.0,
    }
    lines = _eval_text(Eval(), scores).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ['metric', 'fd_x_8', 'psnr']
    assert lines[3] == ''
    assert lines[4].startswith('fd_x_8: Frechet distance between 8 generated and 8 real pictures')
    assert lines[5] == 'psnr: a frame against a dense one of the same field'
    assert lines[1].split()[1:6] == [
        '12.5',
        '11',
        'to',
        '14',
        '3',
    ]
    assert lines[2].split()[1] == '31.23'


@pytest.mark.parametrize('how', ['--dry-run', '--estimate', ''])
@pytest.mark.parametrize(
    'options, why',
    [
        ('--mimic3d.perceptual lpips', 'mimic3d.perceptual = lpips wants the package lpips'),
        ('--mimic3d.patch 12', 'mimic3d.patch = 12 must be a power of two'),
    ],
)
def test_what_networks_want_is_asked_before_any_work(how, options, why, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('WYSIWYG_RUNS', str(tmp_path))
    monkeypatch.setitem(sys.modules, 'lpips', None)
    monkeypatch.setattr(cli, 'open_data', lambda *a, **k: pytest.fail('heads were rendered'))
    code, out, err = called(f'train --method mimic3d {options} {how}', capsys)
    assert (code, out) == (1, '') and why in err
    assert not [*tmp_path.iterdir()]


def test_eval_tells_of_heads_that_it_makes(tmp_path, capsys, monkeypatch):
    g = load_generator()
    monkeypatch.setattr(cli, 'data_dir', lambda: tmp_path)
    monkeypatch.setattr(cli, 'open_data', lambda run: run.heads.n)
    assert cli._eval_data(Eval(n=200), g) == 4000
    told = capsys.readouterr().err
    assert told.startswith(f'renders 4,000 heads of 64 pixels, once: they are kept in {tmp_path}/sets; ')
    (tmp_path / 'sets').mkdir()
    (tmp_path / 'sets' / f'heads64-{heads_digest(g.run.heads)}.zip').touch()
    assert cli._eval_data(Eval(n=200), g) == 4000 and not capsys.readouterr().err


def test_the_demo_tells_intervals_and_floors():
    end = {'eval/psnr': 31.23456, 'eval_low/psnr': 30.0, 'eval_high/psnr': 32.0, 'eval/fog': 1.0}
    lines = _demo_text({'start': {'eval/psnr': 10.0, 'floor/psnr': 40.0}, 'tiny': end}).splitlines()
    assert lines[1].split()[:5] == ['fog', '–', '1', '–', '–']
    assert lines[2].split()[:7] == ['psnr', '10', '31.23', '30', 'to', '32', '40']


def test_a_number_whose_network_was_a_critic_says_so(monkeypatch):

    scores = {'eval/fd_efflite0at96_8': 12.5, 'eval/fd_headnet1_8': 3.0}
    monkeypatch.setattr(cli, 'flat', lambda run: {'schedule.features': [[0, 0.3]]})
    said = 'lower is better; a critic of the training read the same network'
    lines = _eval_text(Eval(), scores).splitlines()
    assert [line.endswith(said) for line in lines[1:3]] == [True, False]
    lines = _eval_text(Eval(untrained=True), scores).splitlines()
    assert not any(line.endswith(said) for line in lines)


def test_a_tracked_run_holds_what_was_made_and_eval_finds_it(own, tmp_path, capsys, store, monkeypatch):
    options = ' '.join(SMALL).replace('--no-track', '')
    code, out, err = called(f'train --data {own} --kimg .008 --outdir {tmp_path}/a {options}', capsys)
    network = tmp_path / 'a' / 'generator.safetensors'
    assert code == 0 and 'mlflow: http://127.0.0.1:' in out and 'MLflow: http' in err, err
    client = open_store()
    [run] = find_runs(client, 'train', generator_sha=file_sha(network))
    assert run.info.run_name == 'tiny on own, 32 px, 0.008k images, seed 0'
    assert run.info.status == 'FINISHED'
    assert {a.path for a in client.list_artifacts(run.info.run_id)} >= {
        'generator.safetensors',
        'run.json',
        'MODEL_CARD.md',
    }
    assert run.inputs.dataset_inputs[0].dataset.name == 'own'
    about = run.data.tags['mlflow.note.content']
    assert '8 images in' in about
    card = (tmp_path / 'a/MODEL_CARD.md').read_text(encoding='utf8')
    for look in ('grid --out people.png', 'mesh --out head.glb', 'video --out head.mp4'):
        assert f'    wysiwyg {look} --network {network.resolve()}\n' in about
        assert f'\nwysiwyg {look} --network generator.safetensors\n' in card
    assert (
        _keep_scores(str(network), {'eval/psnr': 30.0, 'floor/fd': 2.0}, 'n 8', 'wysiwyg') == run.info.run_id
    )
    told = client.get_metric_history(run.info.run_id, 'eval/psnr')
    assert [(m.step, m.value) for m in told] == [(0, 30.0)]
    assert client.get_run(run.info.run_id).info.status == 'FINISHED'
    (tmp_path / 'worst.png').write_bytes(b'a picture')
    _tell_scores(str(network), {'eval/psnr': 31.0}, 'n 8', 'wysiwyg', str(tmp_path / 'worst.png'))
    assert [a.path for a in client.list_artifacts(run.info.run_id, 'eval')] == ['eval/worst.png']
    capsys.readouterr()

    from mlflow.exceptions import MlflowException

    def refuse(*a):
        raise MlflowException('no room')

    with monkeypatch.context() as patch:
        patch.setattr(type(client), 'log_artifact', refuse)
        _tell_scores(str(network), {'eval/psnr': 32.0}, 'n 8', 'wysiwyg', str(tmp_path / 'worst.png'))
    told = capsys.readouterr().err
    assert 'MLflow: http' in told and 'worst.png is not in MLflow' in told
    (tmp_path / 'other.safetensors').write_bytes(b'of unknown origin')
    other = client.get_run(
        _keep_scores(str(tmp_path / 'other.safetensors'), {'eval/psnr': 20.0}, 'n 8', 'eg3d')
    )
    assert other.data.metrics == {'eval/psnr': 20.0}
    assert (run.data.tags['wysiwyg.method'], other.data.tags['wysiwyg.method']) == ('wysiwyg', 'eg3d')
    said = other.data.tags['mlflow.note.content'].replace('\u00a0', ' ')
    assert '| psnr ↑ (dB)   | 20   | –   | –   |\n\n- psnr ↑ (dB): a frame against a dense one' in said
    assert client.get_experiment(other.info.experiment_id).name == 'wysiwyg/eval'
    assert {'eval', 'train'} <= {line.split()[0] for line in _study_links()}
    assert all('workflowType=machine_learning' in line for line in _study_links())


@pytest.mark.parametrize('fault', [None, OSError('no room'), RuntimeError('no such head')])
def test_an_older_picture_of_the_worst_is_not_this_runs(tmp_path, capsys, monkeypatch, fault):
    from wysiwyg import judges, metrics, object_judges

    def draw(a, *args):
        if fault:
            raise fault

    judged = SimpleNamespace(scores=lambda: {'eval/psnr': 1.0}, shape_shares=lambda: None)
    for module, name, value in (
        (cli, '_eval_data', SimpleNamespace(label_kind='camera')),
        (object_judges, 'known_objects', 0),
        (judges, 'known_heads', 99),
        (judges, 'headnet', None),
        (metrics, 'evaluate', {}),
        (judges, 'look_at_heads', judged),
    ):
        monkeypatch.setattr(module, name, lambda *a, value=value, **k: value)
    monkeypatch.setattr(cli, '_draw_worst', draw)
    kept = []
    monkeypatch.setattr(cli, '_tell_scores', lambda *a: kept.append(a[-1]))
    worst = tmp_path / 'worst.png'
    worst.write_bytes(b'of last week')
    code, _, err = called(f'eval --n 16 --worst {worst}', capsys)
    assert code == 0 and kept == ['' if fault else str(worst)]
    assert ('is not drawn' in err) == bool(fault)


def test_a_port_in_use_is_refused():
    with socket.create_server(('127.0.0.1', 0)) as s, pytest.raises(ValueError, match='is in use'):
        _refuse_taken(s.getsockname()[1])


def test_a_users_own_set_trains_and_ctrl_c_leaves_a_checkpoint(own, tmp_path):
    p = program('train', '--kimg', 8, '--data', own, '--outdir', tmp_path / 'run', *SMALL)
    end = time.time() + 120
    while not (tmp_path / 'run' / 'run.json').exists() and p.poll() is None and time.time() < end:
        time.sleep(0.1)
    time.sleep(4)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 130, err
    checkpoints = sorted((tmp_path / 'run').glob('ckpt-*.pt'))
    assert checkpoints, err
    images = int(checkpoints[-1].stem.split('-')[1])
    assert f'{images:,} images in' in (tmp_path / 'run/MODEL_CARD.md').read_text()


def test_faults_are_listed_before_the_first_step(own, tmp_path):
    "A set with a broken picture: named, exit 1, nothing written."
    bad = tmp_path / 'bad.zip'
    blob = bytearray(own.read_bytes())
    blob[blob.find(b'IDAT') + 40] ^= 255
    bad.write_bytes(blob)
    p = program('train', '--data', bad, '--outdir', tmp_path / 'run', *SMALL)
    _, err = p.communicate(timeout=120)
    assert p.returncode == 1
    assert '0.png' in err
    assert not (tmp_path / 'run').exists()


def test_notebooks_without_parameters_are_refused(tmp_path):
    path = tmp_path / 'n.ipynb'
    path.write_text(json.dumps({'cells': [{'cell_type': 'code', 'metadata': {}, 'source': ['a = 1']}]}))
    with pytest.raises(ValueError, match='no cell tagged'):
        _notebook_parameters(path)
    with pytest.raises(ValueError, match='no study'):
        run_notebook('a98_nothing', {}, tmp_path / 'o.ipynb')


@pytest.mark.parametrize(
    'code', ['(a, b) = 1, 2', 'import os', 'n = len("ab")', '%matplotlib inline', 'n: int', 'n += 1']
)
def test_unreadable_parameters_are_refused_by_name(code, tmp_path):
    path = tmp_path / 'n.ipynb'
    cell = {'cell_type': 'code', 'metadata': {'tags': ['parameters']}, 'source': [f'm = 1\n{code}']}
    path.write_text(json.dumps({'cells': [cell]}))
    with pytest.raises(ValueError, match='n.ipynb: the parameters cell holds `'):
        _notebook_parameters(path)


def test_typed_parameters_and_none(tmp_path):
    path = tmp_path / 'n.ipynb'
    cell = {
        'cell_type': 'code',
        'metadata': {'tags': ['parameters']},
        'source': ['n: int = 3\nseeds: str = "0"  # a list\nbest = None\na = b = -1.5'],
    }
    path.write_text(json.dumps({'cells': [cell]}))
    assert _notebook_parameters(path) == {'n': 3, 'seeds': '0', 'best': None, 'a': -1.5, 'b': -1.5}
    _check_parameters(path, {'best': 'x', 'a': 2})
    with pytest.raises(ValueError, match='n is int'):
        _check_parameters(path, {'n': 0.5})


# ---- studies -------------------------------------------------------------------------------------

NOTEBOOK = [
    "bad = 0\nscale = 1.\nseeds = '0'",
    'from wysiwyg.study import *',
    """
def measure(recorder, p, seed):
    if p['k'] == p['bad']: raise RuntimeError('no memory')
    return {'eval/psnr': 30*scale/p['k']}
arms = {f'k{k}': {'k': k, 'scale': scale, 'bad': bad} for k in (1, 2)}
status = run_study('small', arms, measure, [int(s) for s in seeds.split(',')])""",
    "assert len(read_study('small')), 'nothing to read'",
]


BOTH = """
arms = {method: {'system': method} for method in methods.split(',')}
run_study('both', arms, lambda recorder, p, seed: {'eval/psnr': 30.0})"""


def code_cell(id, source):
    cell = {'cell_type': 'code', 'id': id, 'source': source, 'metadata': {'tags': []}}
    return cell | {'outputs': [], 'execution_count': None}


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A project with one ablation."
    folder = tmp_path_factory.mktemp('project')
    (folder / 'nbs' / 'ablations').mkdir(parents=True)
    cells = [code_cell(f'c{i}', source) for i, source in enumerate(NOTEBOOK)]
    cells[0]['metadata'] = {'tags': ['parameters']}
    kernel = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
    book = {'cells': cells, 'metadata': kernel, 'nbformat': 4, 'nbformat_minor': 5}
    (folder / 'nbs' / 'ablations' / 'a90_small.ipynb').write_text(json.dumps(book))
    return folder


@pytest.mark.slow
def test_a_study_runs_and_reports_one_method(project, tmp_path, capsys, monkeypatch):
    places = tmp_path / 'nbs' / 'ablations'
    shutil.copytree(project / 'nbs' / 'ablations', places)
    book = json.loads((places / 'a90_small.ipynb').read_text())
    sources = ["methods = 'wysiwyg,eg3d'", 'from wysiwyg.study import *', BOTH]
    book['cells'] = [cell | {'source': source} for cell, source in zip(book['cells'], sources)]
    (places / 'a91_both.ipynb').write_text(json.dumps(book))
    monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path))

    def call(line):
        return main(f'ablate --study {line}'.split()), *capsys.readouterr()

    code, out, _ = call('a91_both --method eg3d --dry-run --json')
    told = json.loads(out)
    assert (code, told['to do'], told['parameters']) == (0, 1, {'methods': 'eg3d'})
    assert [run['arm'] for run in told['studies'][0]['runs']] == ['eg3d']
    code, out, _ = call('a91_both --method eg3d --json')
    (page,) = json.loads(out)['studies']
    assert (code, page['runs']) == (0, {'eg3d-s0': 'done'})
    assert [scores['arm'] for scores in page['scores']] == ['eg3d']
    code, out, _ = call('a91_both --json')
    (page,) = json.loads(out)['studies']
    assert page['runs'] == {'wysiwyg-s0': 'done', 'eg3d-s0': 'kept'}


def test_a_study_says_whose_arms_it_has(project, tmp_path, capsys, monkeypatch):
    places = tmp_path / 'nbs' / 'ablations'
    shutil.copytree(project / 'nbs' / 'ablations', places)
    text = (places / 'a90_small.ipynb').read_text()
    (places / 'a91_both.ipynb').write_text(text.replace('bad = 0', "bad = 0\\nmethods = 'wysiwyg,eg3d'"))
    (places / 'a92_bare.ipynb').write_text(json.dumps({'cells': []}))  # of others nothing is lost
    monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path))

    def refused(line):
        return main(f'ablate --study {line}'.split()), capsys.readouterr().err

    own = 'its own: wysiwyg ablate --study'
    other = 'eg3d: wysiwyg ablate --study a91_both --method eg3d'
    told = f'a90_small has no arms of eg3d\n{own} a90_small --method wysiwyg\n{other}\n'
    assert refused('a90_small --method eg3d') == (2, told)
    told = [f'{own} a91_both --method {method}' for method in ('wysiwyg', 'eg3d')]
    assert refused('a91_both --method mimic3d')[1].splitlines()[1:] == told
    told = f"--method must be one of {', '.join(METHODS)}, got 'eg4d'\n"
    assert refused('a91_both --method eg4d') == (2, told)
    assert refused('a91_both --method eg3d --record x')[1].endswith('leave --method or --record out\n')
    assert refused('a91_both --method eg3d --set methods=eg3d')[1].startswith('--method and --set methods=')
    assert study_parameters(Ablate('a90_small', method='wysiwyg')) == {'seeds': '0'}


@pytest.mark.slow
def test_ablate_lists_runs_fails_and_exchanges(project, capsys, monkeypatch):
    monkeypatch.setenv('WYSIWYG_HOME', str(project))

    def call(line):
        return main(line.split()), *capsys.readouterr()

    code, out, _ = call('ablate --study a90_small --seeds 0,1 --dry-run')
    assert code == 0
    assert out.count('to do  to do') == 2
    assert 'estimate: unknown' in out
    assert [p.name for p in project.iterdir()] == ['nbs']
    code, out, err = call('ablate --study a90_small --set bad=2 --workers 2')
    assert code == 1
    assert '1 of 2 runs of a90_small failed, the others are kept' in err
    assert 'k2-s0: failed: RuntimeError: no memory' in err
    code, out, err = call('ablate --study a90_small --seeds 0,1 --set bad=2 --dry-run --json')
    told = json.loads(out)
    assert (code, told['to do'], told['parameters']) == (0, 3, {'seeds': '0,1', 'bad': 2})
    assert told['estimate'].startswith('0.0 min, 1 arm at a time')
    code, out, err = call('results export small')
    assert code == 0
    assert (project / 'data' / 'results' / 'small.runs.json').exists()
    assert call('results import')[:2] == (0, 'small.runs.json: 0 imported, 2 already there\n')
    code, out, _ = call('results show small')
    assert (code, out.split('\n')[0]) == (0, 'small')
    assert re.search(r'^arm +k1\npsnr.* 30$', out, re.MULTILINE)  # no star for one arm alone
    code, out, _ = call('results show small --json')
    shown = json.loads(out)['studies'][0]
    assert shown['runs'] == {'k1-s0': 'done'}
    (scores,) = shown['scores']
    assert (scores['arm'], scores['seed'], scores['metrics']['eval/psnr']) == ('k1', 0, 30.0)
    assert scores['run_id'] in {run.info.run_id for run in find_runs(open_store(), 'small')}
    code, _, err = call('results show nothing')
    assert (code, err.count('\n')) == (1, 1)
    assert "no study 'nothing' in MLflow: run it by `wysiwyg ablate`, or fetch" in err
    assert call('results show')[0] == 2
    for k in (1, 2):
        with Recorder('mixed', 'a', k, {'k': k}) as r:
            r.metrics({'eval/psnr': 30.0}, 0)
    code, out, _ = call('results show small mixed')
    assert code == 0
    assert "No comparison: arm 'a' of mixed has runs of 2 configurations" in out
    assert call('results export nothing')[0] == 1
    assert call('results export')[0] == 2


def test_a_study_comes_back_as_table_words_and_link(tmp_path, store):
    with environment(WYSIWYG_JOURNAL=str(tmp_path / 'journal')):
        run_study(
            'told',
            {'a': {'k': 1}, 'b': {'k': 2}},
            lambda r, p, s: {'eval/psnr': 30.0 * p['k']},
            note='Which is better?',
        )
    page = _study_page(json.loads((tmp_path / 'journal').read_text()))
    assert page['runs'] == {'a-s0': 'done', 'b-s0': 'done'}
    (table,) = page['tables']
    assert [r['arm'] for r in table['rows']] == ['a', 'b']
    scores = {k.split()[0].strip(','): v for k, v in table['rows'][1].items()}
    assert '60' in scores['psnr']
    assert 'Which is better?' in page['conclusion']
    assert re.search(
        r'compare.html at http://\S+/#/experiments/\S+/artifacts/compare.html', page['conclusion']
    )
    assert 'compareRunsMode=CHART' in page['mlflow']
    assert [(run['arm'], run['metrics']['eval/psnr']) for run in page['scores']] == [('a', 30), ('b', 60)]
    text = _COMMANDS['ablate'][2](Ablate(), {'studies': [page], 'notebook': 'n'})
    assert text.startswith('told\n\narm')
    assert page['mlflow'] in text


def test_scores_are_of_the_runs_that_were_asked_for(tmp_path, store):
    "Not of newer ones of the same names."
    with environment(WYSIWYG_JOURNAL=str(tmp_path / 'journal')):
        for k in (1, 2, 1):
            run_study('again', {'a': {'k': k}}, lambda r, p, s: {'eval/psnr': 30.0 * p['k']})
    pages = [_study_page(json.loads(line)) for line in (tmp_path / 'journal').read_text().splitlines()]
    assert [page['scores'][0]['metrics']['eval/psnr'] for page in pages] == [30, 60, 30]
    assert list(pages[-1]['runs'].values()) == ['kept']
    assert _study_page({'study': 'again', 'runs': []})['scores'] == []


def test_tables_of_a_page_are_told_apart_and_pictures_are_none(monkeypatch):

    tables = [
        ['| arm | a ↓ |', '| --- | --- |', '| x | 1 |', '| x 2 | 2 (+1) |'],
        ['| arm | a ↓ | b \\| c |', '| --- | --- | --- |', '| y | 3 |  |', '| y 2 |  | 4 |'],
        ['| arm | nobody ↓ |', '| --- | --- |'],
        ['| a line that is no table'],
        ['| arm | what it made; a click opens it |', '|---|---|', '| x | [![x](p)](q) |'],
    ]
    page = '\n\n'.join(['Why?', '**x 2 beside x**', *('\n'.join(table) for table in tables)])
    monkeypatch.setattr(cli, '_page_text', lambda studied: page)
    told = _study_page({'study': 's', 'runs': []})
    first, second = told['tables']
    assert first['title'] == 'x 2 beside x' and not second['title']
    assert first['rows'] == [{'arm': 'x', 'a ↓': '1'}, {'arm': 'x 2', 'a ↓': '2 (+1)'}]
    assert second['rows'] == [
        {'arm': 'y', 'a ↓': '3', 'b \\| c': ''},
        {'arm': 'y 2', 'a ↓': '', 'b \\| c': '4'},
    ]
    assert told['conclusion'] == 'Why?'
    text = cli._tables_text(told['tables'])
    assert [len(part.splitlines()) for part in text.split('\n\n')] == [1, 3, 3]


def test_a_table_wider_than_the_screen_goes_on_below(monkeypatch):

    head = 'arm', *(f'score {i}' for i in range(8))
    rows = [head, *((f'the arm {j}', *'12345678') for j in range(9))]
    monkeypatch.setenv('COLUMNS', '40')
    pieces = cli._narrower(rows).split('\n\n')
    assert len(pieces) == 3
    assert max(map(len, '\n'.join(pieces).splitlines())) <= 40
    assert all(piece.splitlines()[1].startswith('the arm 0 ') for piece in pieces)
    shown = [cell for piece in pieces for cell in piece.splitlines()[0].split()]
    assert [cell for cell in shown if cell.isdigit()] == list('01234567')
    monkeypatch.setenv('COLUMNS', '400')
    assert len(cli._narrower(rows).splitlines()) == 10
    monkeypatch.setenv('COLUMNS', '4')  # narrower than any column: one at a time
    assert len(cli._narrower(rows).split('\n\n')) == 8


def test_the_bar_counts_arms(tmp_path):
    from tqdm import tqdm

    path, ended = tmp_path / 'progress', threading.Event()
    path.write_text('{"study": "s", "total": 10, "done": 4, "run": "a-s0", "status": "done"}\n')
    ended.set()
    with open(os.devnull, 'w') as f, tqdm(total=0, file=f) as bar:
        _watch_arms(path, functools.partial(_show_arms, bar), ended)
        assert (bar.n, bar.total, bar.desc) == (4, 10, 's: ')


def test_off_a_terminal_an_arm_is_a_line(tmp_path, capsys):
    "However long it takes: no clock, and no arm is left out."
    path = tmp_path / 'progress'
    with _arms_bar(path):
        time.sleep(1.2)
        with open(path, 'w') as f:
            for done, (run, status) in enumerate((('', ''), ('a-s0', 'done'), ('b-s0', 'failed: why'))):
                f.write(json.dumps(dict(study='s', total=2, done=done, run=run, status=status)) + '\n')
    assert capsys.readouterr().err.splitlines() == [
        's: 0/2 arms',
        's: 1/2 arms, a-s0 done',
        's: 2/2 arms, b-s0 failed: why',
    ]


def test_too_many_pictures_are_refused_once_and_before_any_work(own, capsys, monkeypatch):

    monkeypatch.setattr(cli, 'open_data', lambda run: pytest.fail('rendered'))
    code, out, err = called('eval --n 9999999 --no-track', capsys)
    assert (code, out) == (1, '')
    have = load_generator().run.heads.n
    assert err == (
        f'error: the set of rendered heads holds {have} pictures, 9999999 were asked for: '
        f'choose n <= {have}\n'
    )
    code, out, err = called(f'eval --n 99 --no-track --data {own}', capsys)
    assert (code, out) == (1, '')
    assert err == 'error: own holds 8 pictures, 99 were asked for: choose n <= 8\n'


@pytest.mark.parametrize('line', ['eval --n 9 --no-track', 'invert --head 3 --outdir found'])
def test_a_set_that_was_learned_from_and_is_elsewhere(line, capsys, tmp_path, monkeypatch):
    weights = data_dir() / 'objects32/generator.safetensors'
    monkeypatch.chdir(tmp_path)
    code, out, err = called(f'{line} --network {weights}', capsys)
    assert not list(tmp_path.iterdir())
    assert (code, out) == (2, '')
    assert 'learned from objects64.zip, which is not here: give --data SET' in err


@pytest.mark.parametrize(
    'line, code, why',
    [
        ('--images 7', 2, 'a90_small does not take --images; its parameters are bad, scale, seeds'),
        ('--seeds 3-1', 2, 'run backwards'),
        ('--set k=3', 1, "no parameter 'k'; it has bad, scale, seeds"),
        ('--set bad=.5', 1, 'bad is int, such as 0; got 0.5'),
        ('--set bad', 2, '--set takes name=value'),
        ('--set scale=2 --set bad=x', 1, 'bad is int'),
        ('--seeds 0 --set seeds=1', 2, '--seeds and --set seeds= set one parameter: give one of them'),
        ('--workers 0', 2, '--workers must be from 1 to 1024, got 0'),
        ('--executor dask', 2, ''),
    ],
)
def test_settings_are_checked_before_anything_runs(project, line, code, why, capsys, monkeypatch):
    monkeypatch.setenv('WYSIWYG_HOME', str(project))
    try:
        got = main(['ablate', '--study', 'a90_small', *line.split()])
    except SystemExit as e:
        got = e.code
    assert got == code
    assert why in capsys.readouterr().err
