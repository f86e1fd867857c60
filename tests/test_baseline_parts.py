"What the other systems' papers ask for, seen from inside: their losses, growth, views, and W+."

import sys
from dataclasses import replace

import pytest
import torch

from wysiwyg.baselines import mimic3d
from wysiwyg.baselines.eg3d import density_loss
from wysiwyg.camera import camera_rays, orbit
from wysiwyg.config import METHODS, Run, flat, identity, override, preset, sha
from wysiwyg.core import rng
from wysiwyg.data import Dataset, png_bytes, write_zip
from wysiwyg.generator import method_of
from wysiwyg.losses import decision_loss, hinge_loss, surface_loss
from wysiwyg.objects import CLASSES
from wysiwyg.probe import probe
from wysiwyg.training import Trainer
from wysiwyg.volrend import march, uniform_samples

CPU = torch.device('cpu')
BASELINES = [name for name in METHODS if name != 'wysiwyg']
SMALL = {
    'backbone.z_dim': 8,
    'backbone.w_dim': 8,
    'backbone.channel_base': 128,
    'backbone.channel_max': 8,
    'backbone.backbone_resolution': 16,
    'backbone.plane_channels': 4,
    'discriminator.channel_base': 256,
    'discriminator.channel_max': 8,
    'render.coarse': 6,
    'render.fine': 6,
    'schedule.total': 64.0,
    'train.batch': 4,
}


def small(system: str, **changes) -> Run:
    "In `changes` __ stands for the dot of a field."
    run = override(preset('tiny'), **SMALL)
    named = {name.replace('__', '.'): x for name, x in changes.items()}
    return override(method_of(override(run, system=system)).adapted(run), **named)


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    "Noise, by the kind of its labels."
    folder = tmp_path_factory.mktemp('set')
    pictures = torch.randint(0, 256, (16, 32, 32, 3), generator=rng(0), dtype=torch.uint8).numpy()
    yaws = torch.linspace(-0.5, 0.5, 16)
    labels = {
        'camera': orbit(yaws, 0 * yaws).label.tolist(),
        'class': [i % len(CLASSES) for i in range(16)],
    }
    made = {}
    for kind, rows in labels.items():
        entries = [(f'{i:05d}.png', png_bytes(pictures[i]), row) for i, row in enumerate(rows)]
        made[kind] = Dataset(write_zip(folder / f'{kind}.zip', entries))
    return made


def trainer(run: Run, sets: dict[str, Dataset]) -> Trainer:
    method = method_of(run)
    return Trainer(method, run, sets[method.label_kinds[0]], CPU)


@pytest.mark.parametrize('system', BASELINES)
def test_a_density_meets_no_loss_of_distances(system):
    run = small(system)
    g = method_of(run).generator(run)
    front = g.orbit(0.0, 0.0)
    with torch.no_grad():
        field, rays = g.field_at(g.synthesize(torch.zeros(1, 8)), 3), camera_rays(front, 4)
        samples = uniform_samples(rays, run.render.near, run.render.far, 5)
        groups = [(None, march(field, rays, samples))]
        seen = probe(field, front, run.probe, run.render)
    assert seen.sdf is None
    for name, loss in {
        'surface': lambda: surface_loss(groups, 0.01),
        'hinge': lambda: hinge_loss(groups),
        'decision': lambda: decision_loss(seen.sdf),
    }.items():
        with pytest.raises(ValueError, match=f'^the {name} loss needs a field of signed distance'):
            loss()


LOSSES = {
    'eg3d': {'loss/D', 'loss/r1', 'loss/adversarial', 'loss/density'},
    'mimic3d': {'loss/D/patch', 'loss/r1/patch', 'loss/adversarial/patch', 'loss/imitation'},
}
LOSSES['imagenet3d'] = LOSSES['eg3d']
LOSSES['mimic3d'] |= LOSSES['eg3d']


@pytest.mark.parametrize('system', BASELINES)
def test_a_step_reports_their_own_losses_alone(sets, system):
    "Though all the weights of WYSIWYG's are given."
    weights = {f'loss__{name}': 1.0 for name in ('sampler', 'surface', 'decision', 'hinge', 'smooth')}
    begun = {'schedule__supervise_from': 0.0, 'schedule__render_from': 0.0}
    t = trainer(small(system, mimic3d__student_from=0.0, **weights, **begun), sets)
    assert {name for name in t.step() if name.startswith('loss')} == LOSSES[system]


def test_the_feature_image_grows_while_it_learns(sets):
    "From 8 pixels to 16 through every size between, odd ones too; the picture keeps its size."
    t = trainer(small('eg3d', eg3d__resolution=[[0, 8], [32, 16]]), sets)
    views, sides = t.g.views, []

    def noted(*args):
        made = views(*args)
        sides.append((made.raw.shape[-1], made.image.shape[-1]))
        return made

    t.g.views = noted
    for _ in range(11):
        before = [p.clone() for p in t.g.parameters()]
        values = t.step()
        assert values['schedule/resolution'] == sides[-1][0]
        assert torch.tensor(list(values.values())).isfinite().all()
        assert not any(map(torch.equal, t.g.parameters(), before))
    assert sides == [(side, 32) for side in (*range(8, 16), 16, 16, 16)]
    assert t.skipped == 0


@pytest.mark.parametrize('box', [1.0, 1.6])
@pytest.mark.parametrize('system', BASELINES)
def test_densities_are_compared_in_the_box(system, box, monkeypatch):
    "All over it, and nowhere else; a neighbour is a few thousandths of a unit away."
    run = small(system, render__box=box)
    g, asked = method_of(run).generator(run), []
    at = g.at
    monkeypatch.setattr(g, 'at', lambda scene, x: asked.append(x) or at(scene, x))
    with torch.no_grad():
        density_loss(g, g.synthesize(torch.zeros(2, 8)), [0, 1])
    x, beside = asked
    assert x.shape == (2, 1000, 3)
    assert x.abs().max() <= box / 2
    far = x.abs().amax(2) > 0.45 * box  # of the largest coordinate's size
    assert far.float().mean().item() == pytest.approx(1 - 0.9**3, abs=0.03)
    spread = (beside - x).square().mean().sqrt().item()
    assert spread == pytest.approx(run.eg3d.density_std, rel=0.05)
    assert not torch.equal(x[0], x[1])


def test_four_views_of_an_object_all_tell_its_planes(sets):
    "The critic's gradient reaches every row, and the four of one object are not the same."
    t = trainer(small('imagenet3d', train__batch=16, train__views=4), sets)
    synthesize, planes = t.g.synthesize, []

    def noted(w):
        scene = synthesize(w)
        scene.planes.retain_grad()
        planes.append(scene.planes)
        return scene

    t.g.synthesize = noted
    z = t.batches.part(0, t.now).z
    fake = t.fake(0)
    t.objective.g_loss(0, replace(fake, losses={}), t.now)[0].backward()
    told = planes[0].grad.flatten(1)
    assert (told.norm(dim=1) > 0).all()
    for first in range(0, 16, 4):
        assert torch.equal(z[first : first + 4], z[first].expand(4, -1))
        assert len(told[first : first + 4].unique(dim=0)) == 4
    assert len(z.unique(dim=0)) == 4


def test_the_mean_over_views_is_what_an_object_learns_from(sets):
    "What weights are told by all rows is the sum of what those of each view tell."
    t = trainer(small('imagenet3d', train__batch=16, train__views=4), sets)
    weight = t.g.triplane.blocks[-1].out.weight

    def told(loss):
        return torch.autograd.grad(loss, weight, retain_graph=True)[0]

    fake = t.fake(0)
    won = torch.nn.functional.softplus(-t.d['dual'](fake.images['dual'], fake.label))
    whole = told(t.objective.g_loss(0, replace(fake, losses={}), t.now)[0])
    views = [told(won[view::4].sum() / 16) for view in range(4)]
    assert all(x.norm() > 0 for x in views)
    assert torch.allclose(sum(views), whole, rtol=1e-3, atol=1e-6 * whole.abs().max().item())


STUB = """
import torch

class LPIPS(torch.nn.Module):
    def __init__(self, net, verbose):
        super().__init__()
        assert (net, verbose) == ('vgg', False)
        self.scale = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, a, b):
        assert a.shape == b.shape and a.shape[2] == 64
        return self.scale * (a - b).abs().mean((1, 2, 3), keepdim=True)
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    "A package lpips, and a place for VGG's weights, which are not there yet."
    (tmp_path / 'lpips.py').write_text(STUB)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delitem(sys.modules, 'lpips', raising=False)
    mimic3d._lpips.cache_clear()
    yield tmp_path
    mimic3d._lpips.cache_clear()
    sys.modules.pop('lpips', None)


def test_lpips_is_used_where_it_is_at_hand(sets, stub, monkeypatch):
    "What is missing is said before anything is trained; the loss is the package's, and it stays frozen."
    run = small('mimic3d', mimic3d__perceptual='lpips', mimic3d__student_from=0.0)
    monkeypatch.setitem(sys.modules, 'lpips', None)
    with pytest.raises(ValueError, match='wants the package lpips: pip install lpips, or give features'):
        trainer(run, sets)
    monkeypatch.delitem(sys.modules, 'lpips')
    monkeypatch.syspath_prepend(stub)
    weights = stub / 'torch' / 'hub' / 'checkpoints' / 'vgg16-397923af.pth'
    with pytest.raises(ValueError, match=f'wants the weights of VGG: put them at {weights}, or give'):
        trainer(run, sets)
    weights.parent.mkdir(parents=True)
    weights.touch()
    t = trainer(run, sets)
    a, b = torch.rand(2, 2, 3, 64, 64, generator=rng(0))
    a.requires_grad_()
    loss = mimic3d.imitation_loss(a, b, 'lpips')
    loss.backward()
    assert torch.allclose(loss, 3 * (a - b).abs().mean())
    assert a.grad.any()
    assert t.step()['loss/imitation'] > 0
    assert mimic3d._lpips('cpu').scale.grad is None
    assert not any('scale' in name for name in t.g.state_dict() | t.d.state_dict())
    assert method_of(run).generator(run)  # what draws wants no LPIPS


def test_lpips_is_another_run_and_features_the_old_one():
    run, other = small('mimic3d'), small('mimic3d', mimic3d__perceptual='lpips')
    assert 'mimic3d.perceptual' not in identity(flat(run))
    assert sha(run) != sha(other)
    with pytest.raises(ValueError, match='mimic3d.perceptual'):
        small('mimic3d', mimic3d__perceptual='vgg')


def test_r1_of_patches_is_scaled_by_its_own(sets):
    "What the critics minimise grows by the patches' share of R1; at 1 it is as before."
    total, said = {}, {}
    for scale in (1.0, 3.0):
        t = trainer(small('mimic3d', mimic3d__student_from=0.0, mimic3d__patch_gamma=scale), sets)
        total[scale], said[scale] = t.objective.d_loss(0, t.fake(0), t.now)
    assert said[1.0]['loss/r1/patch'] == said[3.0]['loss/r1/patch'] > 0
    half = t.stage.gamma / 2 * t.run.train.r1_every * t.run.mimic3d.patch_weight
    more = 2 * half * said[1.0]['loss/r1/patch'].item()
    assert (total[3.0] - total[1.0]).item() == pytest.approx(more, rel=1e-3)
