"What each sibling is known for can be left out, and then it is out; older runs keep their names."

from dataclasses import replace

import pytest
import torch

from wysiwyg.config import METHODS, flat, identity, override, sha
from wysiwyg.core import rng
from wysiwyg.data import Dataset
from wysiwyg.generator import method_of
from wysiwyg.heads import render_heads
from wysiwyg.method import Batch
from wysiwyg.studies import system_run, system_trainer

SIBLINGS = [name for name in METHODS if name != 'wysiwyg']


def small(system: str, **changes):
    few = {'render.coarse': 6, 'render.fine': 6, 'heads.workers': 1}
    return system_run(system, 16, 24, **few, **changes)


@pytest.fixture(scope='module')
def heads(tmp_path_factory):
    path = tmp_path_factory.mktemp('set') / 'heads.zip'
    return Dataset(render_heads(small('eg3d').heads, path, False))


def slope_at_raw(run, label, images: float):
    "A fake's six channels, and what a critic tells the rendered picture itself; None: nothing."
    method, seen = method_of(run), []
    g = method.generator(run)
    made_by = g.views

    def views(*args):
        made = made_by(*args)
        seen.append(made.raw.detach().requires_grad_())
        return replace(made, raw=seen[0])

    g.views = views
    batch = Batch(torch.randn(4, run.backbone.z_dim), label, label, list(range(4)), rng)
    pair = method.fake(g, batch, method.stage(run, images)).images['dual']
    told = method.critics(run)['dual'](pair, label).sum()
    return pair, torch.autograd.grad(told, seen[0], allow_unused=True)[0]


@pytest.mark.parametrize('system', SIBLINGS)
def test_without_dual_the_raw_picture_is_told_nothing(heads, system):
    run = small(system)
    label = heads.labels[:4, : run.backbone.label_dim]
    _, slope = slope_at_raw(run, label, 0)
    assert slope.abs().max() > 0
    for images in (0, 16):  # with and without blur
        pair, slope = slope_at_raw(override(run, **{'eg3d.dual': False}), label, images)
        assert slope is None
        assert pair.requires_grad
    as_real = method_of(run).real(run, pair[:, :3].detach(), method_of(run).stage(run, 16))['dual']
    assert torch.equal(pair.detach(), as_real)


@pytest.mark.parametrize('system', SIBLINGS)
def test_real_pictures_are_seen_alike(heads, system):
    real, _ = heads.batch(0, 4, seed=0)
    both = [small(system, **{'eg3d.dual': judged}) for judged in (True, False)]
    seen = [method_of(run).real(run, real, method_of(run).stage(run, 0))['dual'] for run in both]
    assert torch.equal(*seen)


def test_older_runs_keep_their_names():
    run = small('eg3d')
    assert 'eg3d.dual' in flat(run)
    assert 'eg3d.dual' not in identity(flat(run))
    off = override(run, **{'eg3d.dual': False})
    assert identity(flat(off))['eg3d.dual'] is False
    assert sha(off) != sha(run)


@pytest.mark.parametrize('system', SIBLINGS)
def test_poses_are_withheld_from_a_copy(heads, system):
    t = system_trainer(small(system), heads, seed=2)
    told = 'camera' in method_of(t.run).label_kinds
    assert (t.data.label_kind == 'camera') == told
    assert t.data.labels.shape == (24, 25 if told else 0)
    assert heads.labels.shape == (24, 25)
    assert t.run.train.seed == 2


def test_without_imitation_nothing_is_imitated(heads):
    losses = {}
    for weight in (1.0, 0.0):
        t = system_trainer(small('mimic3d', **{'mimic3d.imitation': weight}), heads)
        t.images = 8  # the pupil learns
        losses[weight] = t.step()['loss/imitation']
    assert losses[1.0] > 0 == losses[0.0]


def test_a_view_of_each_shows_twice_the_people(heads):
    people = {}
    for views in (1, 2):
        t = system_trainer(small('imagenet3d', **{'train.views': views}), heads)
        people[views] = len(torch.unique(t.batches.whole(t.now)[0], dim=0))
    assert people == {1: 8, 2: 4}


def test_a_system_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="system must be one of wysiwyg, eg3d, .*, got 'nope'"):
        system_run('nope', 16, 24)
