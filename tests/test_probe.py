"The probe that asks only where a surface may be, against the whole one and true distances."

from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st

from wysiwyg.camera import camera_rays, orbit
from wysiwyg.config import override, tiny
from wysiwyg.core import Answer, rng
from wysiwyg.generator import load_generator
from wysiwyg.kernels import Ops
from wysiwyg.probe import _REACH, bin_edges, probe

RUN = tiny(resolution=64)
NEAR, FAR = RUN.render.near, RUN.render.far
CHEAP = replace(RUN.probe, kind='coarse_to_fine', slope=1.0)


def balls(seed: int, beta: float = 0.004):
    "Five balls for each of three images, whose distance is true; and a list of the points that were asked."
    draw = rng(seed, 'balls')
    centres = 0.6 * torch.rand(3, 5, 3, generator=draw) - 0.3
    radii = 0.12 * torch.rand(3, 5, generator=draw) ** 2 + 0.001
    asked = []

    def field(points, dirs, image=None):
        asked.append(points[..., 0].numel())
        whose = torch.arange(len(points))[:, None] if image is None else image
        centre, radius = centres[whose][:, :, None], radii[whose][:, :, None]
        sdf = ((points[..., None, :] - centre).norm(dim=-1) - radius).amin(-1)
        return Answer(points.sin().abs(), sdf=sdf, beta=torch.full_like(sdf, beta))

    return field, asked


def cameras(n: int):
    return orbit(torch.linspace(-0.5, 0.5, n), torch.full((n,), 0.1))


def columns(x):
    return x.flatten(2).transpose(1, 2)


@given(st.integers(0, 1000), st.sampled_from([2, 3, 16, 49, 192]), st.integers(1, 60))
def test_what_is_near_and_not_hidden_was_asked(seed, samples, stride):
    "By brute force: each edge within the reach of a surface, before the first that is deep inside."
    config = replace(CHEAP, resolution=8, samples=samples, stride=stride)
    field, asked = balls(seed)
    got = columns(probe(field, cameras(3), config, RUN.render).sdf)
    spent = sum(asked)
    truth = columns(probe(field, cameras(3), replace(config, kind='uniform'), RUN.render).sdf)
    deep = (truth < -_REACH * 0.004).cumsum(-1) > 0
    must = (truth < _REACH * 0.004) & ~deep
    assert torch.allclose(got[must], truth[must], atol=1e-6)
    assert 3 * 64 * 2 <= spent <= truth.numel()


@pytest.mark.parametrize('samples, stride', [(49, 1), (2, 8), (5, 1)])
def test_all_edges_asked_at_once_are_the_whole_probe(samples, stride):
    config = replace(CHEAP, resolution=8, samples=samples, stride=stride)
    field, _ = balls(0)
    got, want = [
        probe(field, cameras(3), replace(config, kind=k), RUN.render) for k in (CHEAP.kind, 'uniform')
    ]
    for name in ('weights', 'rgb', 'dirs', 'sdf', 'opacity'):
        assert torch.equal(getattr(got, name), getattr(want, name)), name


@given(st.integers(0, 1000))
def test_thin_balls_are_lost_no_more_often_than_by_the_whole_probe(seed):
    field, asked = balls(seed)
    config = replace(CHEAP, resolution=32)
    got = probe(field, cameras(3), config, RUN.render)
    assert sum(asked) < 3 * 32**2 * 49 / 2.5
    want = probe(field, cameras(3), replace(config, kind='uniform'), RUN.render)
    assert (got.opacity - want.opacity).abs().max() < 0.02
    assert (got.rgb - want.rgb).abs().max() < 0.02


def test_an_image_knows_nothing_of_the_others():
    field, _ = balls(1)
    together = probe(field, cameras(3), CHEAP, RUN.render)
    for i in range(3):

        def alone(points, dirs, image=None):
            return field(points, dirs, torch.full(points.shape[:2], i))

        one = probe(alone, cameras(3)[i : i + 1], CHEAP, RUN.render)
        assert torch.allclose(one.sdf[0], together.sdf[i], atol=1e-6)
        assert torch.allclose(one.weights[0], together.weights[i], atol=1e-5)


def test_chunks_of_rays_change_nothing():
    field, _ = balls(2)
    whole = probe(field, cameras(3), CHEAP, RUN.render)
    cut = probe(field, cameras(3), CHEAP, replace(RUN.render, max_points=3 * 49 * 7))
    with torch.no_grad():
        cut_without_gradient = probe(field, cameras(3), CHEAP, replace(RUN.render, max_points=3 * 49 * 7))
    assert torch.equal(whole.sdf, cut.sdf)
    assert torch.allclose(whole.sdf, cut_without_gradient.sdf, atol=1e-6)


def test_a_gradient_goes_to_what_was_asked():
    "Of a ball's radius -1 at each edge, asked or between two that were; of a colour the opacity."
    radius = torch.tensor(0.2, requires_grad=True)
    white = torch.tensor(1.0, requires_grad=True)

    def field(points, dirs, image=None):
        sdf = points.norm(dim=-1) - radius
        return Answer(white * torch.ones_like(points), sdf=sdf, beta=torch.full_like(sdf, 0.005))

    p = probe(field, cameras(2), CHEAP, RUN.render)

    def slope(of, by) -> float:
        (gradient,) = torch.autograd.grad(of.sum(), by, retain_graph=True)
        return gradient.item()

    assert slope(p.sdf, radius) == pytest.approx(-p.sdf.numel(), rel=1e-5)
    assert slope(p.rgb, white) == pytest.approx(3 * p.opacity.sum().item(), rel=1e-4)
    assert slope(p.opacity, radius) > 0


def test_what_is_not_a_number_is_seen():
    sound, _ = balls(0)

    def field(points, dirs, image=None):
        answer = sound(points, dirs, image)
        lost = answer.sdf.masked_fill(points[..., 0] > 0, torch.nan)
        return replace(answer, sdf=lost)

    p = probe(field, cameras(1), CHEAP, RUN.render)
    assert 0.2 < p.opacity.isnan().float().mean() < 1


def test_a_density_rules_nothing_out():
    def fog(points, dirs, image=None):
        return Answer(points.abs(), sigma=points[..., 0].abs())

    wanted = "probe.kind 'coarse_to_fine', unlike 'uniform', needs a field of signed distance"
    with pytest.raises(ValueError, match=wanted):
        probe(fog, cameras(1), CHEAP, RUN.render)
    assert probe(fog, cameras(1), RUN.probe, RUN.render).sdf is None


@pytest.fixture(scope='module')
def people():
    g = load_generator(device='cpu')
    camera = g.orbit(torch.tensor([-0.5, 0.4]), torch.tensor([0.1, 0.0]))
    z = torch.randn(2, g.run.backbone.z_dim, generator=rng(0, 'people'))
    with torch.no_grad():
        return g, g.synthesize(g.map(z, camera)), camera


@pytest.mark.parametrize('impl', ['torch', 'auto'])
def test_a_generator_counts_what_its_cheap_probe_asked(people, impl):
    g, planes, camera = people
    g = g.using(run=override(g.run, **{'probe.kind': 'coarse_to_fine'}), ops=Ops(impl))
    field, asked = g.field_at(planes), []

    def watched(points, *rest):
        asked.append(points[..., 0].numel())
        return field(points, *rest)

    with torch.no_grad():
        before = g.evaluations
        want = probe(watched, camera, g.run.probe, g.run.render)
        assert g.evaluations - before == sum(asked)
        before = g.evaluations
        p = g.probe(planes, camera)
    assert g.evaluations - before == sum(asked) < 49 * 2 * 16**2 / 3
    assert torch.equal(p.sdf, want.sdf)


def test_people_are_seen_by_a_cheap_probe_as_by_the_whole_one(people):
    "In pixels whose opacity differs by more than a tenth: none."
    g, planes, camera = people
    cheap = g.using(run=override(g.run, **{'probe.kind': 'coarse_to_fine'}))
    with torch.no_grad():
        got, want = cheap.probe(planes, camera, 256), g.probe(planes, camera, 256)
    assert ((got.opacity - want.opacity).abs() > 0.1).float().mean() < 1e-3
    assert (got.rgb - want.rgb).abs().mean() < 1e-3


def test_edges_are_shared_by_both():
    field, _ = balls(3)
    rays = camera_rays(cameras(3), 8)
    t = bin_edges(NEAR, FAR, 49)
    truth = rays.ask(field, t.expand(3, 64, -1)).sdf
    got = columns(probe(field, cameras(3), replace(CHEAP, resolution=8), RUN.render).sdf)
    assert torch.allclose(got[..., ::8], truth[..., ::8], atol=1e-6)
