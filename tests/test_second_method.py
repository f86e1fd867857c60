"The package trains, checkpoints, resumes, measures and records a system that it does not know."

import math
import shlex

import pytest
import torch

from second_method import ClassMethod, DensityGenerator
from wysiwyg.cli import main
from wysiwyg.config import METHODS, override, preset
from wysiwyg.core import file_sha, rng
from wysiwyg.data import Dataset, png_bytes, write_zip
from wysiwyg.generator import load_generator
from wysiwyg.heads import render_heads
from wysiwyg.method import WYSIWYG
from wysiwyg.tracking import find_runs, open_store
from wysiwyg.training import Trainer

OPTIONS = (
    '--cfg tiny --system density --backbone.combine sum --backbone.no-per-plane '
    '--backbone.plane-resolution 32 --render.coarse 8 --render.fine 8 --train.batch 4 --kimg .024 '
    '--train.checkpoint-images 8 --train.snapshot-images 12'
)


@pytest.fixture
def world(tmp_path, monkeypatch):
    "A store and a set of heads of one's own, and the second method in METHODS."
    monkeypatch.setenv('WYSIWYG_RUNS', str(tmp_path / 'runs'))
    monkeypatch.setitem(METHODS, 'density', 'second_method:DENSITY')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    heads = preset('tiny', **{'heads.n': 16, 'heads.workers': 1}).heads
    yield render_heads(heads, tmp_path / 'heads.zip', False)
    torch.set_num_threads(threads)


def test_a_system_of_which_the_package_knows_nothing(world, tmp_path, capsys):
    def called(line):
        code = main(shlex.split(line))
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    start = f'train --data {world} {OPTIONS}'
    called(f'{start} --outdir {tmp_path}/whole')
    called(f'{start} --outdir {tmp_path}/cut --stop-at .012 --no-track')
    called(f'{start} --outdir {tmp_path}/cut --resume latest --no-track')
    whole, cut = [load_generator(tmp_path / name / 'generator.safetensors') for name in ('whole', 'cut')]
    assert isinstance(whole, DensityGenerator)
    for (name, a), b in zip(whole.state_dict().items(), cut.state_dict().values()):
        assert torch.equal(a, b), name

    network = tmp_path / 'whole' / 'generator.safetensors'
    told = called(f'eval --network {network} --data {world} --n 8')
    assert 'fd_efflite0at96_8' in told
    assert 'normal_fd_efflite0at96_8' in told
    client = open_store()
    [run] = find_runs(client, 'train', generator_sha=file_sha(network))
    assert run.data.tags['wysiwyg.method'] == 'density'
    assert {'train/loss/D', 'train/geometry/opacity', 'eval/fd_efflite0at96_8'} <= set(run.data.metrics)
    assert client.list_artifacts(run.info.run_id)


def test_an_unknown_system_names_those_that_there_are(world, tmp_path, capsys):
    assert main(shlex.split(f'train --data {world} --cfg tiny --system unheard --outdir {tmp_path}/a')) != 0
    known = ', '.join(METHODS)
    assert f"system = 'unheard' is not known: it is one of {known}" in capsys.readouterr().err


@pytest.mark.parametrize('classes', [3, 0])
def test_labels_may_be_classes_or_nothing(tmp_path, classes):
    random = rng('classes')
    pictures = [torch.randint(256, (32, 32, 3), generator=random).byte() for _ in range(8)]
    rows = [(f'{i}.png', png_bytes(x), i % 3 if classes else None) for i, x in enumerate(pictures)]
    data = Dataset(write_zip(tmp_path / 'set.zip', rows), resolution=32)
    small = preset('tiny', **{'train.batch': 4, 'backbone.label_dim': classes, 'schedule.swap': [(0, 0.5)]})
    small = override(small, **{'backbone.combine': 'sum', 'backbone.per_plane': False})
    small = override(small, **{'backbone.plane_resolution': 32, 'render.coarse': 8, 'render.fine': 8})
    t = Trainer(ClassMethod(), small, data, torch.device('cpu'))
    before = [p.clone() for p in t.g.parameters()]
    assert all(math.isfinite(v) for _ in range(2) for v in t.step().values())
    assert any(not torch.equal(a, b) for a, b in zip(before, t.g.parameters()))
    if classes:
        assert t.g.mapping.embed.weight.shape[1] == 3
        wrong = override(small, **{'backbone.label_dim': 25})
        with pytest.raises(ValueError, match='label_dim = 25, but a label of set has 3 numbers: give 3'):
            Trainer(ClassMethod(), wrong, data, torch.device('cpu'))
    with pytest.raises(ValueError, match='give a set with cameras'):
        Trainer(WYSIWYG, small, data, torch.device('cpu'))
