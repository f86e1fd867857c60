"Who gets how many samples: every ray once, each image for itself, the same on every backend."

import math
from dataclasses import replace

import pytest
import torch
from backends import needs_compiler
from hypothesis import given, settings, strategies as st

from wysiwyg import sampler
from wysiwyg.budgets import POLICIES, budgets_of, counts_of, empty_rays, group_by_count, in_one_row
from wysiwyg.camera import camera_rays, orbit
from wysiwyg.config import SamplerConfig, override, tiny
from wysiwyg.core import take_rays, to_rays
from wysiwyg.generator import load_generator
from wysiwyg.kernels import Ops
from wysiwyg.losses import hinge_loss, surface_loss
from wysiwyg.method import vitals
from wysiwyg.probe import Probe
from wysiwyg.renderer import in_order, march_rays
from wysiwyg.generator import loosen

CONFIG = SamplerConfig()
RAGGED = 'empty', 'need'
KINDS = 'robust', 'unstratified', 'unfiltered', 'refined'


def some_pdf(seed: int, b: int, n: int, k: int = 16) -> torch.Tensor:  # [B, N, K]
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(b, n, k, generator=generator)).softmax(-1)


def some_empty(seed: int, b: int, n: int) -> torch.Tensor:  # [B, N]
    return torch.rand(b, n, generator=torch.Generator().manual_seed(seed)) < 0.4


@pytest.fixture(scope='module')
def scene():
    "The shipped generator, three people of different shares, three views."
    g = load_generator(device=torch.device('cpu'))
    z = torch.randn(3, g.run.backbone.z_dim, generator=torch.Generator().manual_seed(0))
    camera = orbit(torch.tensor([0.0, 0.7, -0.4]), torch.tensor([0.0, 0.2, -0.1]))
    with torch.no_grad():
        return g, g.synthesize(g.map(z, orbit(torch.zeros(3), torch.zeros(3)))), camera


def rendered(scene, policy: str, who=slice(None), kind='robust', key=0, resolution=16, ops=None, **how):
    g, planes, camera = scene
    config = replace(g.run.sampler, policy=policy, kind=kind)
    by = g.using(ops=Ops(ops)) if ops else g
    with torch.no_grad():
        return by.render(planes[who], camera[who], resolution, config, key=key, trace=True, **how)


# ---- counts and groups ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 30), st.sampled_from(sorted(POLICIES)))
def test_every_ray_is_in_one_group(seed, b, n, policy):
    pdf, empty = some_pdf(seed, b, n), some_empty(seed, b, n)
    config = replace(CONFIG, policy=policy)
    found = budgets_of(pdf, config, empty)
    first = n * torch.arange(b)[:, None]  # of each image, in one row
    every = torch.cat([(index + first[: len(index)]).flatten() for index, _ in found])
    assert torch.equal(every.sort()[0], torch.arange(b * n))
    assert all(index.numel() for index, _ in found)
    counts = counts_of(found, (b, n))
    if policy in RAGGED:
        assert (counts[empty] == config.empty).all()
        assert [s for _, s in found] == counts.unique().tolist()
        for index, _ in found:
            assert (index.diff() > 0).all()  # in their order, and so in that of their images
    if policy == 'need':
        full = counts[~empty]
        assert ((full % 2 == 0) & (full >= config.least) & (full <= config.most)).all()
    else:
        paper = counts_of(sampler.budget(sampler.certainty(pdf, 16), config), (b, n))
        assert torch.equal(counts[~empty], paper[~empty])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 9), st.integers(1, 5))
def test_counts_and_groups_are_inverse(seed, b, n, most):
    counts = torch.randint(1, most + 1, (b, n), generator=torch.Generator().manual_seed(seed))
    groups = group_by_count(counts)
    assert torch.equal(counts_of(groups, (b, n)), counts)
    brute = {}
    for ray, s in enumerate(counts.flatten().tolist()):
        brute.setdefault(s, []).append(ray)
    assert {s: index[0].tolist() for index, s in groups} == brute


@pytest.mark.parametrize('policy', POLICIES)
def test_what_an_image_gets_does_not_depend_on_its_companions(policy):
    pdf, empty = some_pdf(1, 3, 40), some_empty(1, 3, 40)
    config = replace(CONFIG, policy=policy)
    together = counts_of(budgets_of(pdf, config, empty), (3, 40))
    for k in range(3):
        alone = budgets_of(pdf[k : k + 1], config, empty[k : k + 1])
        assert torch.equal(counts_of(alone, (1, 40))[0], together[k])


@pytest.mark.parametrize('per_bin, kept, wanted', [(2, 1, 4), (2, 3, 6), (1.5, 3, 6), (1, 5, 6), (3, 16, 32)])
def test_need_is_even_and_within_bounds(per_bin, kept, wanted):
    pdf = torch.zeros(1, 1, 16)
    pdf[..., :kept] = 1 / kept
    found = budgets_of(pdf, replace(CONFIG, policy='need', per_bin=per_bin, tau=1.0))
    assert [s for _, s in found] == [wanted]


@pytest.mark.parametrize('type', [torch.float16, torch.bfloat16, torch.float64])
def test_counts_in_every_type_of_number(type):
    pdf = torch.tensor([[[0.5, 0.25, 0.125, 0.125], [1.0, 0, 0, 0]]], dtype=type)
    found = budgets_of(pdf, replace(CONFIG, policy='need', tau=0.8))
    assert counts_of(found, (1, 2)).tolist() == [[6, 4]]


@needs_compiler
@pytest.mark.parametrize('policy', POLICIES)
def test_backends_agree_on_counts(policy):
    pdf, empty = some_pdf(2, 2, 300, 47), some_empty(2, 2, 300)
    pdf[0, 0], pdf[0, 1], pdf[1, 0, 3] = 0, math.nan, math.nan
    config = replace(CONFIG, policy=policy)
    by_torch, by_cpu = [budgets_of(pdf, config, empty, ops) for ops in (sampler, Ops('cpu'))]
    assert torch.equal(counts_of(by_torch, (2, 300)), counts_of(by_cpu, (2, 300)))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match='policy must be one of paper, empty, need, got .magic'):
        budgets_of(some_pdf(0, 1, 4), replace(CONFIG, policy='magic'))
    with pytest.raises(ValueError, match='empty must have shape'):
        budgets_of(some_pdf(0, 2, 4), CONFIG, some_empty(0, 1, 4))
    with pytest.raises(ValueError, match='tau must be in'):
        budgets_of(some_pdf(0, 2, 4), replace(CONFIG, policy='need', tau=98))
    with pytest.raises(ValueError, match='sampler.policy must be one of'):
        override(tiny(), **{'sampler.policy': 'magic'})


# ---- empty rays ----------------------------------------------------------------------------------


@pytest.mark.parametrize('resolution', [4, 8, 13, 16, 50])
def test_a_ray_is_empty_where_its_nine_probe_pixels_are(resolution):
    "By brute force: the probe pixel that holds the ray, and its eight neighbours."
    opacity = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    p = Probe(opacity, opacity, opacity, None, opacity)
    found = empty_rays(p, resolution).reshape(2, resolution, resolution)
    for b in range(2):
        for y in range(resolution):
            for x in range(resolution):
                i, j = int((y + 0.5) / resolution * 8), int((x + 0.5) / resolution * 8)
                rows = opacity[b, 0, max(i - 1, 0) : i + 2]
                block = rows[:, max(j - 1, 0) : j + 2]
                assert found[b, y, x] == (not block.any())


@pytest.mark.parametrize('resolution', [32, 64])
def test_no_ray_that_is_called_empty_meets_anything(scene, resolution):
    g, planes, camera = scene
    with torch.no_grad():
        p = g.probe(planes, camera, resolution)
        truth = g.dense(planes, camera, resolution, 128).opacity
    empty = empty_rays(p, resolution)
    assert 0.2 < empty.float().mean() < 0.6
    assert truth[empty].max() < 0.01


# ---- ragged rays through the renderer ------------------------------------------------------------


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('policy', RAGGED)
def test_images_alone_are_as_in_a_batch(scene, policy, kind):
    "Of one pdf the same places to the bit, in any company; colours but for the rounding of products."
    with torch.no_grad():
        p, pdf = scene[0].propose(*scene[1:])
    keys = [('person', k) for k in range(3)]
    together = rendered(scene, policy, kind=kind, key=keys, proposed=(p, pdf))
    assert len(together.samples.sum((1, 2, 3)).unique()) == 3  # shares of their own
    for k in range(3):
        one = slice(k, k + 1)
        alone = rendered(scene, policy, one, kind, keys[one], proposed=(p[one], pdf[one]))
        assert torch.equal(alone.samples[0], together.samples[k])
        assert torch.allclose(alone.rendering.rgb[0], together.rendering.rgb[k], atol=1e-5)
        by_count = {m.t.shape[-1]: m for _, m in alone.groups}
        for index, m in together.groups:
            mine = index[0] // 256 == k
            if mine.any() and kind != 'refined':  # whose second look follows rounded distances
                assert torch.equal(m.t[0, mine], by_count[m.t.shape[-1]].t[0])


@pytest.mark.parametrize('policy', RAGGED)
def test_one_key_is_every_images_key(scene, policy):
    together = rendered(scene, policy, key='one')
    alone = rendered(scene, policy, slice(2, 3), key='one')
    assert torch.allclose(alone.rendering.rgb[0], together.rendering.rgb[2], atol=1e-5)


@pytest.mark.parametrize('policy', POLICIES)
def test_rays_come_back_in_their_order(scene, policy):
    "Many samples see what a dense march sees, in every pixel's own place."
    g, planes, camera = scene
    config = replace(g.run.sampler, policy=policy, samples=64, per_bin=40.0, most=128, least=64, tau=1.0)
    with torch.no_grad():
        out = g.render(planes, camera, 16, config, proposal='sdf', trace=True)
        truth = g.dense(planes, camera, 16)
    error = (out.rendering.rgb - truth.rgb).abs()
    assert error.mean() < 0.002
    assert (error > 0.2).float().mean() < 0.01  # outlines of a sharp surface
    assert out.samples.shape == (3, 1, 16, 16)
    spent = sum(m.t.numel() for _, m in out.groups)
    assert out.samples.sum() == spent


@needs_compiler
@pytest.mark.parametrize('policy', RAGGED)
def test_ragged_on_the_cpu_backend_is_torchs(scene, policy):
    g = scene[0]
    p = g.using(ops=Ops('torch')).propose(*scene[1:])  # one pdf for both
    both = [rendered(scene, policy, ops=impl, resolution=64, proposed=p) for impl in ('torch', 'cpu')]
    assert torch.equal(both[0].samples, both[1].samples)
    assert torch.allclose(both[0].rendering.rgb, both[1].rendering.rgb, atol=1e-4)


def test_all_rays_empty_and_none(scene):
    g, planes, camera = scene
    rays = camera_rays(camera, 4)
    pdf = torch.full((3, 16, 15), 1 / 15)
    field = g.field_at(planes)
    need = replace(g.run.sampler, policy='need')
    everything = torch.ones(3, 16, dtype=torch.bool)
    with torch.no_grad():
        for empty, count in ((everything, 2), (~everything, 30), (None, 30)):
            groups = march_rays(g.renderer, field, rays, need, 0, pdf, empty=empty)
            assert [m.t.shape for _, m, _ in groups] == [(1, 48, count)]
            assert in_order(groups, rays).rgb.shape == (3, 16, 3)


@pytest.mark.parametrize('policy', RAGGED)
@pytest.mark.parametrize('impl', ['torch', pytest.param('cpu', marks=needs_compiler)])
def test_rays_without_a_sample_show_the_background(scene, impl, policy):
    g, planes, camera = scene
    by = g.using(ops=Ops(impl))
    config = replace(g.run.sampler, policy=policy, jitter=False)
    seen = by.propose(planes, camera, 'sdf', 64)
    with torch.no_grad():
        before = by.evaluations
        some = by.render(planes, camera, 64, config, trace=True, proposed=seen)
        none = by.render(planes, camera, 64, replace(config, empty=0), trace=True, proposed=seen)
    empty = some.samples == 2
    assert 0.2 < empty.float().mean() < 0.8
    assert torch.equal(none.samples, some.samples.masked_fill(empty, 0))
    assert by.evaluations - before == some.samples.sum() + none.samples.sum()
    skipped = to_rays(empty)[..., 0]
    out, volume = none.rendering, by.renderer.volume
    assert (out.rgb[skipped] == torch.tensor(volume.background)).all()
    assert (out.depth[skipped] == volume.far).all()
    assert not out.opacity[skipped].any()
    assert torch.equal(out.rgb[~skipped], some.rendering.rgb[~skipped])
    assert (out.rgb - some.rendering.rgb).abs().max() < 0.01  # nothing was there


@pytest.mark.parametrize('kind', KINDS)
def test_a_frame_of_nothing(scene, kind):
    g, planes, camera = scene
    rays, pdf = camera_rays(camera, 4), torch.full((3, 16, 15), 1 / 15)
    still = replace(g.run.sampler, kind=kind, policy='need', empty=0)
    everything = torch.ones(3, 16, dtype=torch.bool)
    with torch.no_grad():
        groups = march_rays(g.renderer, g.field_at(planes), rays, still, 0, pdf, empty=everything)
    assert [m.t.shape for _, m, _ in groups] == [(1, 48, 0)]
    assert not in_order(groups, rays).opacity.any()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('count', [1, 2, 3])
def test_one_ray_and_few_samples(scene, kind, count):
    g, planes, camera = scene
    config = replace(g.run.sampler, kind=kind, policy='need', least=count, most=count, empty=count)
    with torch.no_grad():
        out = g.render(planes, camera, 1, config, trace=True)
    assert out.rendering.rgb.shape == (3, 1, 3)
    assert out.rendering.rgb.isfinite().all()
    assert out.samples.flatten().tolist() == [count] * 3


@pytest.mark.parametrize('policy', POLICIES)
def test_a_ray_whose_pdf_is_nan_stays_one(scene, policy):
    g, planes, camera = scene
    rays, pdf = camera_rays(camera, 4), some_pdf(3, 3, 16)
    pdf[1, 5, 7] = math.nan
    config = replace(g.run.sampler, policy=policy)
    with torch.no_grad():
        groups = march_rays(g.renderer, g.field_at(planes), rays, config, 0, pdf)
    nowhere = in_order(groups, rays).rgb.isnan().all(-1).nonzero().tolist()
    assert nowhere == [[1, 5]]


def test_ragged_rays_in_double(scene):
    g, planes, camera = scene
    twice = load_generator(device=torch.device('cpu')).double().using(ops=Ops('torch'))
    config = replace(g.run.sampler, policy='need', jitter=False)
    with torch.no_grad():
        single = g.using(ops=Ops('torch')).render(planes, camera, 16, config)
        double = twice.render(planes.double(), camera.to(torch.float64), 16, config)
    assert double.rgb.dtype == torch.float64
    assert (single.rgb - double.rgb).abs().mean() < 1e-3


def test_memory_changes_nothing(scene):
    g, planes, camera = scene
    whole = rendered(scene, 'need', resolution=32)
    small = replace(g.renderer, volume=replace(g.renderer.volume, max_points=500))
    parts = rendered((g.using(renderer=small), planes, camera), 'need', resolution=32)
    assert torch.allclose(whole.rendering.rgb, parts.rendering.rgb, atol=1e-6)


def test_a_wrapped_field_knows_whose_rays_it_meets(scene):
    g, planes, camera = scene
    soft = loosen(g, 2.0)
    together = rendered((soft, planes, camera), 'need')
    alone = rendered((soft, planes, camera), 'need', slice(1, 2))
    assert torch.allclose(together.rendering.rgb[1], alone.rendering.rgb[0], atol=1e-5)


# ---- in training ---------------------------------------------------------------------------------


@pytest.mark.parametrize('chunk', [0, 300])
def test_gradients_reach_every_image_and_only_its_own(scene, chunk):
    g, planes, camera = scene
    by = g.using(renderer=replace(g.renderer, volume=replace(g.renderer.volume, grad_points=chunk)))
    config = replace(g.run.sampler, policy='need')
    learned = planes.clone().requires_grad_()
    out = by.render(learned, camera, 16, config)
    out.rgb[1].sum().backward()
    reached = learned.grad.abs().flatten(1).sum(1)
    assert reached[1] > 0
    assert reached[[0, 2]].tolist() == [0, 0]


def test_losses_average_over_all_samples(scene):
    "Of one row as of each image alone: sums over entries, by hand."
    trace = rendered(scene, 'need')
    excess, steep, inside, slopes = 0.0, 0.0, 0, 0
    for _, m in trace.groups:
        sdf, t = m.answer.sdf, m.t
        excess += (m.weights * (m.answer.beta - 0.01)).sum(-1).square().sum().item()
        slope = (sdf.diff(dim=-1) / t.diff(dim=-1).clamp_min(2e-3)).abs()
        steep += (slope - 1).clamp_min(0).square().sum().item()
        slopes += slope.numel()
        inside += (sdf < 0).sum().item()
    assert surface_loss(trace.groups, 0.01).item() == pytest.approx(excess / (3 * 256), rel=1e-4)
    assert hinge_loss(trace.groups).item() == pytest.approx(steep / slopes, rel=1e-4)
    share = inside / trace.samples.sum().item()
    assert vitals(trace)['geometry/inside'].item() == pytest.approx(share, rel=1e-5)


def test_rays_in_one_row_are_the_same_rays():
    rays = camera_rays(orbit(torch.tensor([0.1, 0.9]), torch.zeros(2)), 4)
    row = in_one_row(rays)
    assert row.image.tolist() == [[0] * 16 + [1] * 16]
    picked = torch.tensor([[3, 17, 30]])
    some = row.take(picked)
    assert some.image.tolist() == [[0, 1, 1]]
    assert torch.equal(some.dirs[0], rays.dirs.reshape(-1, 3)[picked[0]])
    pdf = some_pdf(0, 2, 16)
    assert torch.equal(take_rays(pdf.flatten(0, 1)[None], picked)[0, 1], pdf[1, 1])
    assert to_rays(torch.zeros(2, 1, 4, 4)).shape == (2, 16, 1)
