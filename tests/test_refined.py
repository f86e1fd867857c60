"The second look, against walls and balls whose opacity is known in closed form."

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from wysiwyg.camera import camera_rays, orbit
from wysiwyg.config import preset
from wysiwyg.core import Answer, Rays, rng
from wysiwyg.kernels import Ops
from wysiwyg.method import WYSIWYG
from wysiwyg.probe import Probe
from wysiwyg.proposal import maxpool_pdf, sdf_pdf
from wysiwyg.sampler import draw_robust
from wysiwyg.samplers import _centred, invert_integral, refine, second_look
from wysiwyg.sdf import density
from wysiwyg.volrend import composite, density_integral, thickness

NEAR, FAR, WIDTH, BETA = 2.2, 3.2, 1 / 48, torch.tensor(0.004)


def wall(slope, at):
    def field(points, dirs):
        d = slope * (at - points[..., 2])
        return Answer(torch.ones(*d.shape, 3), sdf=d, beta=torch.full_like(d, float(BETA)))

    return field


def halves(*shape):
    "The middle of every stratum."
    return torch.full(shape, 0.5)


def forward(n):
    return Rays(torch.zeros(1, n, 3), torch.tensor([0.0, 0, 1]).expand(1, n, 3))


def test_integral_has_the_density_as_derivative_and_an_inverse():
    s = torch.linspace(-0.1, 0.1, 401, dtype=torch.double, requires_grad=True)
    f = density_integral(s, BETA.double())
    (slope,) = torch.autograd.grad(f.sum(), s)
    assert torch.allclose(slope, density(s, BETA.double()), atol=1e-9)
    x = torch.linspace(-40, 9, 999).double()
    y = density_integral(x, torch.ones((), dtype=torch.double))
    assert torch.allclose(invert_integral(y), x, atol=1e-7)


@settings(deadline=None, max_examples=60)
@given(st.floats(-1, 1), st.floats(-0.05, 0.05), st.floats(0.002, 0.03))
def test_thickness_is_the_integral_along_a_linear_distance(slope, start, beta):
    t = torch.linspace(0, 0.1, 20001, dtype=torch.double)
    beta = torch.tensor(beta, dtype=torch.double)
    brute = torch.trapezoid(density(start + slope * t, beta), t)
    ends = torch.tensor([0, 0.1], dtype=torch.double)
    closed = thickness(ends, start + slope * ends, beta.expand(1))
    assert closed.item() == pytest.approx(brute.item(), rel=2e-4, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 1), st.floats(2.45, 3.0), st.integers(1, 12))
def test_second_look_divides_the_light_of_a_wall_evenly(slope, at, samples):
    t = torch.tensor([2.25, at - 0.05, at + 0.07, 3.15]).sort()[0].expand(1, 1, 4)
    sdf = slope * (at - t)
    beta, u = BETA.expand_as(t), halves(1, 1, samples)
    more = second_look(t, sdf, beta, u, NEAR, FAR, WIDTH, idle=0.0)
    by_any = Ops().look_again(t, sdf, beta, u, NEAR, FAR, WIDTH)
    like = second_look(t, sdf, beta, u, NEAR, FAR, WIDTH)
    assert torch.allclose(by_any.more, like, atol=1e-4)

    def f(t):
        return density_integral(slope * (at - t), BETA)

    light = 1 - torch.exp((f(more) - f(t[..., :1])) / slope)
    assert torch.allclose(light[0, 0], (torch.arange(samples) + 0.5) / samples, atol=3e-3)


@pytest.mark.parametrize('kept', [(20, 23), (28, 31)])
def test_a_surface_just_outside_the_kept_bins_is_found(kept):
    at, n = NEAR + 26 * WIDTH, 16
    pdf = torch.zeros(1, 1, 48)
    pdf[..., kept[0] : kept[1]] = 1 / 3
    field, rays = wall(1.0, at), forward(1)
    first = draw_robust(pdf, 6, 0.98, NEAR, FAR, halves(1, 1, 6))
    assert ((first.t - at).abs() > 2 * WIDTH).all()  # one look misses the wall by bins
    t, delta, answer = refine(field, rays, first.t, halves(1, 1, n - 6), NEAR, FAR, WIDTH)
    assert (t.diff(dim=-1) >= 0).all()
    assert ((t - at).abs() < 4 * float(BETA)).sum() >= 5
    assert composite(t, delta, answer, FAR, (0, 0, 0))[1].opacity.item() > 0.98


def ball(points, dirs):
    d = points.norm(dim=-1) - 0.3
    return Answer(0.5 + points / 0.8, sdf=d, beta=torch.full_like(d, float(BETA)))


def test_two_looks_at_a_ball_beat_one_at_equal_samples():
    rays = camera_rays(orbit(torch.zeros(1), torch.zeros(1)), 32)
    pdf = torch.ones(1, 1024, 12) / 12

    def render(t, delta, answer):
        return composite(t, delta, answer, FAR, (1.0, 1, 1))[1].rgb

    fine = torch.linspace(NEAR, FAR, 2001)[:-1].expand(1, 1024, 2000)
    truth = render(fine, torch.full_like(fine, 5e-4), ball(rays.at(fine), rays.dirs))

    def error(rgb):
        return (rgb - truth).square().mean().sqrt().item()

    one = draw_robust(pdf, 32, 1.0, NEAR, FAR, halves(1, 1024, 32))
    once = render(one.t, one.delta, ball(rays.at(one.t), rays.dirs))
    first = draw_robust(pdf, 24, 1.0, NEAR, FAR, halves(1, 1024, 24))
    twice = render(*refine(ball, rays, first.t, halves(1, 1024, 8), NEAR, FAR, 4 * WIDTH))
    assert error(twice) < error(once) / 2


def test_gradients_reach_the_field_through_both_looks_and_not_the_places():
    rays, at = forward(3), torch.tensor(2.7, requires_grad=True)
    t = torch.linspace(2.3, 3.1, 6).expand(1, 3, 6)
    places, delta, answer = refine(wall(1.0, at), rays, t, halves(1, 3, 2), NEAR, FAR, WIDTH)
    assert not places.requires_grad
    assert not delta.requires_grad
    assert torch.autograd.grad(answer.sdf.sum(), at)[0].item() == pytest.approx(3 * 8)


def test_nothing_to_see_and_no_second_samples_are_harmless():
    rays = forward(2)

    def empty(points, dirs):
        d = torch.full(points.shape[:-1], 5.0)
        return Answer(torch.zeros_like(points), sdf=d, beta=torch.full_like(d, 0.004))

    t = torch.linspace(2.3, 3.1, 6).expand(1, 2, 6)
    for m in (0, 1, 5):
        u = torch.rand(1, 2, m, generator=rng('test'))
        places, delta, _ = refine(empty, rays, t, u, NEAR, FAR, WIDTH)
        assert places.shape == (1, 2, 6 + m)
        assert places.isfinite().all()
        assert places.min() >= NEAR
        assert places.max() <= FAR + 1e-6
        assert delta.max() <= WIDTH + 1e-6
        assert delta.min() >= 0


def test_centred_intervals_halve_the_gaps_and_stay_in_a_bin():
    d = _centred(torch.tensor([[[0.0, 0.01, 0.02, 0.5]]]), 0.02)
    assert torch.allclose(d, torch.tensor([[[0.015, 0.01, 0.015, 0.02]]]))


def test_distances_interpolate_where_weights_do_not():
    "A slanted wall: interpolated distances put the mass into every pixel's right bin, pooled weights do not."
    t = torch.linspace(NEAR, FAR, 49)

    def depth(r):
        return (2.5 + 0.4 * (torch.arange(r) + 0.5) / r).expand(r, r)

    def bins(r):
        "In which the wall stands, [1, 1, r, r]."
        return ((depth(r) - NEAR) / WIDTH).long()[None, None]

    s = depth(8) - t[:, None, None]
    w = torch.zeros(1, 48, 8, 8).scatter_(1, bins(8), 1.0)
    plain = torch.zeros(1, 3, 8, 8)
    p = Probe(w, plain, plain, s[None], torch.ones(1, 1, 8, 8))
    right = bins(32)

    def inner(q):
        return q.gather(1, right)[..., 8:-8].mean().item()

    q = sdf_pdf(p, 32, WIDTH)
    assert torch.allclose(q.sum(1), torch.ones(1, 32, 32), atol=1e-4)
    assert q.min() >= 0
    assert inner(q) > 0.7 > 2 * inner(maxpool_pdf(p, 32))
    assert not math.isnan(inner(q))


@pytest.mark.parametrize('proposal', ['cnn', 'sdf'])
def test_the_generator_renders_and_learns_with_two_looks(proposal):
    options = {'sampler.kind': 'refined', 'proposal.kind': proposal, 'sampler.samples': 6}
    g = WYSIWYG.generator(preset('tiny', **options), start=False)
    camera = orbit(torch.tensor([0.3]), torch.zeros(1))
    z = torch.randn(1, g.run.backbone.z_dim, generator=rng('test'))
    out = g(z, camera, resolution=16, trace=True)
    assert sorted(m.t.shape[-1] for _, m in out.groups) == [6, 12]
    assert out.rendering.rgb.isfinite().all()
    out.rendering.rgb.sum().backward()
    for p in (g.field.sdf0.weight, g.field.color1.weight):
        assert p.grad is not None
        assert p.grad.isfinite().all()
        assert p.grad.abs().sum() > 0
