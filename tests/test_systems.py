"Trained arms of every system keep their head, whatever their scene and their field are made of."

from pathlib import Path

import pytest
import torch
from wysiwyg.config import METHODS
from wysiwyg.generator import method_of
from wysiwyg.studies import keep_shape, system_run
from wysiwyg.tracking import Recorder, open_store


def solid(g):
    "The same network, with a ball that no ray passes."
    found = g.at

    def at(scene, x):
        raw, features = found(scene, x)
        return raw + 2000 * (0.2 - x.norm(dim=-1)), features

    g.at = at
    return g


def kept_by(recorder) -> set[str]:
    return {Path(f.path).name for f in open_store().list_artifacts(recorder.id, 'shape')}


@pytest.mark.parametrize('system', METHODS)
def test_an_arm_of_every_system_keeps_its_head(system, tmp_path, monkeypatch):
    monkeypatch.setenv('WYSIWYG_RUNS', str(tmp_path))
    monkeypatch.setenv('WYSIWYG_SHAPES', '1')
    torch.manual_seed(0)
    run = system_run(system, 8, 200)
    g = method_of(run).generator(run).eval().requires_grad_(False)
    g = g if system == 'wysiwyg' else solid(g)  # whose start is a ball already
    small = dict(resolution=16, frames=2, side=32)
    with Recorder('heads', system, 0, {'system': system}) as r:
        keep_shape(r, g, **small)
    assert kept_by(r) == {'head.glb', 'head.html', 'head.mp4', 'head.png'}
    tags = open_store().get_run(r.id).data.tags
    assert 'wysiwyg.shape' not in tags and tags['wysiwyg.opens'] == 'shape/head.html'
    monkeypatch.setenv('WYSIWYG_SHAPES', '0')
    with Recorder('heads', system, 1, {'system': system}) as r:
        keep_shape(r, g, **small)
    assert kept_by(r) == set()
