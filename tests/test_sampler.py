"Properties of the sampler that no single example shows."

import pytest
import torch
from hypothesis import given, settings, strategies as st

from wysiwyg.camera import orbit
from wysiwyg.config import SamplerConfig
from wysiwyg.generator import load_generator
from wysiwyg.sampler import allocate, budget, certainty, draw_robust, smallest_set
from wysiwyg.samplers import DRAWS, _importance, two_pass

NEAR, FAR = 2.2, 3.2


def random_pdf(seed: int, bins: int, scale: float) -> torch.Tensor:  # [2, 5, bins]
    logits = torch.randn(2, 5, bins, generator=torch.Generator().manual_seed(seed))
    return (logits * scale).softmax(-1)


pdfs = st.builds(random_pdf, st.integers(0, 10**6), st.integers(1, 70), st.floats(0.1, 12))


@settings(deadline=None, max_examples=60)
@given(pdfs, st.floats(0.05, 1.0))
def test_smallest_set_holds_its_mass_and_no_smaller_one_does(pdf, tau):
    keep, rank = smallest_set(pdf, tau)
    mass = (pdf * keep).sum(-1)
    assert (mass >= tau - 1e-4).all()
    least = torch.where(keep, pdf, 2.0).amin(-1)
    assert (mass - least < tau + 1e-4).all()
    assert torch.equal(rank.sort(-1)[0], torch.arange(pdf.shape[-1]).expand_as(rank))


@settings(deadline=None, max_examples=60)
@given(pdfs, st.integers(1, 40))
def test_counts_sum_to_the_budget_and_differ_by_one_at_most(pdf, samples):
    keep, rank = smallest_set(pdf, 0.98)
    n = allocate(keep, rank, samples)
    assert (n.sum(-1) == samples).all()
    assert (n[~keep] == 0).all()
    kept = torch.where(keep, n, n.new_tensor(10**6))
    assert (n.amax(-1) - kept.amin(-1) <= 1).all()


@settings(deadline=None, max_examples=40)
@given(pdfs, st.integers(1, 40), st.sampled_from(sorted(DRAWS)), st.integers(0, 1000))
def test_samples_are_sorted_inside_and_clipped(pdf, samples, kind, seed):
    u = torch.rand(2, 5, samples, generator=torch.Generator().manual_seed(seed))
    s = DRAWS[kind](pdf, samples, 0.98, NEAR, FAR, u)
    width = (FAR - NEAR) / pdf.shape[-1]
    assert (s.t.diff(dim=-1) >= -1e-6).all()
    assert s.t.min() >= NEAR - 1e-5
    assert s.t.max() <= FAR + 1e-5
    assert s.delta.min() >= -1e-6
    assert s.delta.max() <= width + 1e-5


@settings(deadline=None, max_examples=40)
@given(pdfs, st.integers(1, 40), st.integers(0, 1000))
def test_robust_samples_lie_in_kept_bins(pdf, samples, seed):
    u = torch.rand(2, 5, samples, generator=torch.Generator().manual_seed(seed)) * 0.98 + 0.01
    bins = pdf.shape[-1]
    t = draw_robust(pdf, samples, 0.98, NEAR, FAR, u).t
    place = ((t - NEAR) / (FAR - NEAR) * bins).long().clamp(0, bins - 1)
    keep = smallest_set(pdf, 0.98)[0]
    assert keep.gather(-1, place).all()


def test_stratified_places_vary_less_than_independent_ones():
    pdf, g = torch.ones(1, 1, 48) / 48, torch.Generator().manual_seed(0)

    def mean_place(draw):
        u = torch.rand(1, 1, 16, generator=g)
        return draw(pdf, 16, 1.0, NEAR, FAR, u).t.mean()

    def variance(draw):
        return torch.stack([mean_place(draw) for _ in range(200)]).var()

    spread = {kind: variance(draw) for kind, draw in DRAWS.items()}
    assert spread['unfiltered'] < spread['unstratified'] / 10
    assert spread['robust'] < spread['unstratified']


def test_every_ray_is_in_exactly_one_group():
    pdf = torch.rand(3, 100, 48)
    pdf = pdf / pdf.sum(-1, keepdim=True)
    groups = budget(certainty(pdf, 16), SamplerConfig())
    grouped = torch.cat([i for i, _ in groups], 1).sort(1)[0]
    assert torch.equal(grouped, torch.arange(100).expand(3, -1))
    assert sum(i.shape[1] * s for i, s in groups) / 100 == pytest.approx(17.6)


@pytest.mark.parametrize('pdf', [torch.zeros(1, 2, 48), torch.full((1, 2, 48), float('nan'))])
def test_a_pdf_without_mass_falls_back_to_uniform(pdf):
    s = draw_robust(pdf, 16, 0.98, NEAR, FAR, torch.full((1, 2, 16), 0.5))
    assert s.t.isfinite().all()
    assert s.delta.isfinite().all()


@pytest.mark.parametrize('type', [torch.float16, torch.bfloat16, torch.float64])
def test_bins_in_every_type_of_number(type):
    pdf = torch.tensor([[[0.5, 0.25, 0.125, 0.125]]], dtype=type)
    assert certainty(pdf, 2).item() == 3 * 2**18
    s = draw_robust(pdf, 4, 0.8, 0.0, 4.0, torch.full((1, 1, 4), 0.5))
    assert torch.allclose(s.t.float(), torch.tensor([0.25, 0.75, 1.5, 2.5]))


def test_a_second_pass_falls_half_an_interval_before_what_the_first_one_saw():
    "One interval of eight is full: smoothed it is 1/2, 1, 1/2 over a floor of 0.01, around its near end."
    t, weights = torch.arange(8.0).expand(1, 1, 8), torch.zeros(1, 1, 7)
    weights[..., 3] = 1
    u = (torch.arange(4000) + 0.5).expand(1, 1, -1) / 4000
    places = _importance(weights, t, u)[0, 0]
    share = torch.tensor([0.01, 0.51, 1.01, 0.51, 0.01])
    counts = torch.histc(places, 5, 0.5, 5.5)
    assert torch.allclose(counts / 4000, share / share.sum(), atol=1e-3)
    assert places.mean() == pytest.approx(3, abs=1e-3)


@pytest.mark.parametrize('coarse', [2, 3, 4, 9])
def test_few_coarse_samples_have_a_second_pass_too(coarse):
    t = torch.linspace(NEAR, FAR, coarse).expand(1, 2, -1)
    places = _importance(torch.rand(1, 2, coarse - 1), t, torch.rand(1, 2, 50))
    assert places.isfinite().all()
    assert places.min() >= NEAR
    assert places.max() <= FAR


def test_two_passes_need_two_samples_to_begin_with():
    why = 'two_pass needs at least 2 coarse samples and 0 fine ones, got 1 and 2'
    with pytest.raises(ValueError, match=why):
        two_pass(None, None, NEAR, FAR, 1, 2, None)


def test_two_passes_without_jitter_are_more_than_one_place():
    g = load_generator(device=torch.device('cpu'))
    camera = orbit(torch.zeros(1), torch.zeros(1))
    z = torch.randn(1, g.run.backbone.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        planes = g.synthesize(g.map(z, camera))
        trace = g.two_pass(planes, camera, 8, 24, 32, trace=True, jitter=False)
    [(_, m)] = trace.groups
    assert (m.delta > 1e-5).float().mean() > 0.99
