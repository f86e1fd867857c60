"""Every kernel against torch in float64, on each backend that is there.

And faults planted in kernels, which the CPU backend must catch.
"""

import copy, ctypes, json, math, multiprocessing, os, platform, re, subprocess, sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.utils.checkpoint
from backends import GPU_FLAGS, SCHEDULES, needs_compiler, on, planted
from hypothesis import given, settings, strategies as st

from wysiwyg import kernels as K, fused_field as F, sampler, triplane, volrend
from wysiwyg.camera import orbit
from wysiwyg.config import FieldConfig
from wysiwyg.core import Answer, take_rays
from wysiwyg.generator import load_generator
from wysiwyg.kernels import How, Ops
from wysiwyg.probe import Probe
from wysiwyg.sdf import Field, density

TOLERANCE = dict(  # largest error against float64, relative to the largest value where that is above 1
    certainty=0,  # whole numbers
    kept_bins=0,
    draw_robust=1e-6,  # distances; their bins are equal
    sdf_pdf=1e-5,
    look_again=5e-4,  # distances, to where there is next to no light; nearly all are right to 1e-6
    composite=5e-7,
    composite_backward=2e-5,
    sample_planes=2e-6,
    triplane_backward=2e-6,
    field=5e-6,
    field_relu=5e-6,
    field_backward=1e-5,
    field_mma=2e-2,
)  # fp32, fp32, bf16
NEAR, FAR = 2.2, 3.2
pytestmark = pytest.mark.usefixtures('poisoned')


@pytest.fixture
def fp32(monkeypatch):
    "Tensor cores, which `field` takes where there are any, have tests of their own."
    monkeypatch.setattr(F, '_tensor_cores', lambda x: False)


def how_of(backend: str) -> F.FieldHow:
    "The field's way there; a CPU emulates tensor cores by fibers, and takes every other kernel so too."
    how = F.FieldHow.forward(backend)
    return replace(how, schedule='forward', threads=32) if backend == 'cpu' else how


def on_tensor_cores(reader, points, dirs, image, how: F.FieldHow):
    "sdf, beta and rgb in bf16."
    return F._field(reader, points, dirs, image, how.on_tensor_cores())


def most(kernel: str, got) -> float:
    "Twice as much on the field's way back on a GPU, whose exponentials and sines round within two units."
    return TOLERANCE[kernel] * (2 if got.is_cuda and kernel == 'field_backward' else 1)


def close(got, want, kernel: str):
    allowed = most(kernel, got)
    got, want = got.detach().cpu().double(), want.detach().cpu().double()
    assert got.shape == want.shape
    error = (got - want).abs().max() / want.abs().max().clamp_min(1)
    assert error <= allowed, f'{kernel}: {error:.2g}'


# ---- inputs --------------------------------------------------------------------------------------


def points(b: int, m: int):
    "[B, M, 3] in and around the box; with corners, centre and a place far outside where there is room."
    x = (torch.rand(b, m, 3) - 0.5) * 1.3
    corners = [[0.5, 0.5, 0.5], [-0.5, 0.5, -0.5]]
    special = torch.tensor([*corners, [0, 0, 0], [7, -0.2, 0.1], [0.5, -9, 0]])
    if m > 5:
        x[:, :5] = special
    return x


def pdfs(seed: int, scale: float, n: int = 6, k: int = 48):
    """[2, N, K]: random ones.

    Then, where there is room, rays without mass, with one bin, level, with ties, with NaN and all NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    pdf = (torch.randn(2, n, k, generator=generator) * scale).softmax(-1)
    if n > 5:
        bins = torch.arange(k)
        pdf[0, 0] = 0
        pdf[0, 1] = 1.0 * (bins == k // 2)
        pdf[0, 2] = torch.ones(k) / k
        pdf[0, 3] = (bins % 3 == 0) / k
        pdf[0, 4, k // 3] = math.nan
        pdf[0, 5] = math.nan
    return pdf


def samples(n: int, s: int, f: int):
    """t, delta, sdf, beta [2, N, S] and features [2, N, S, F].

    The first rays are empty, full and infinitely thin.
    """
    t = torch.rand(2, n, s).sort(-1)[0] + NEAR
    delta = torch.rand(2, n, s) * 0.02
    sdf = torch.randn(2, n, s) * 0.02
    beta = torch.rand(2, n, s) * 0.01 + 1e-4
    if n > 3:
        sdf[:, 0] = 10
        sdf[:, 1] = -10
        delta[:, 2] = 0
    return t, delta, sdf, beta, torch.rand(2, n, s, f)


def small_field(channels: int, **options) -> Field:
    config = FieldConfig(hidden=32, geo_features=16, color_hidden=16, **options)
    return Field(config, channels).requires_grad_(False)


def mlp(sharpness: float = 100.0) -> Field:
    f = small_field(16, sharpness=sharpness)
    for i, p in enumerate(f.parameters()):
        p.normal_(0, 0.3, generator=torch.Generator().manual_seed(i))
    return f


def march(n: int, s: int):
    "Planes [2, 3, 16, 9, 11], points [2, N, S, 3] and directions [2, N, 3]."
    planes = torch.randn(2, 3, 16, 9, 11)
    places = points(2, n * s).unflatten(1, (n, s))
    dirs = torch.nn.functional.normalize(torch.randn(2, n, 3), dim=-1)
    return planes, places, dirs


def in_one_row(rays: tuple[int, int], *x):
    "The first rays of either image in a row: whose they are [1, N], and of each x [2, ...] what is theirs."
    first, second = rays
    image = torch.tensor([[0] * first + [1] * second])
    rows = [torch.cat([v[0, :first], v[1, :second]]) for v in x]
    return image, *[row[None] for row in rows]


def distances(r: int, bins: int):
    """[2, K, r, r] of a probe: a ball before a wall, the second image bumpy and nearly flat in places.

    Where there is room a pixel of the first sees nothing, and one is inside everywhere.
    """
    side = torch.linspace(-0.4, 0.4, r)
    z = torch.linspace(-0.5, 0.5, bins + 1)[:, None, None]
    ball = (side[:, None] ** 2 + side**2 + z**2).sqrt() - 0.25
    sdf = torch.minimum(ball, 0.45 - z + 0 * ball)
    bumpy = (8 * sdf).round() / 8 + 0.02 * torch.randn(sdf.shape)
    sdf = torch.stack([sdf, bumpy])
    if r > 5:
        sdf[0, :, :5, :5] = 0.7
        sdf[0, :, -1, -1] = -0.3
    return sdf


def first_looks(n: int, s: int):
    "t, sdf, beta [2, N, S] around walls, for which a place has one answer, and u [2, N, M]."
    wall = NEAR + 0.2 + 0.6 * torch.rand(2, n, 1)
    t = (wall + 0.1 * torch.rand(2, n, s) - 0.05).sort(-1)[0]
    sdf = (0.3 + torch.rand(2, n, 1)) * (wall - t) + 0.002 * torch.randn(2, n, s)
    if n > 3:
        sdf[:, 0] = 0.5  # nothing near
        sdf[:, 1] = -0.5  # inside throughout
        sdf[:, 2] = 0.001  # level
    beta = 0.002 + 0.006 * torch.rand(2, n, s)
    return t, sdf, beta, torch.rand(2, n, 1 + s // 3)


def rays(n: int, s: int):
    """For `pdfs`: rays to draw for [2, N], and places [2, N, S] in their bins.

    The places are so far from an edge that no rounding crosses it.
    """
    index = torch.stack([torch.randperm(n) for _ in range(2)])
    return index, torch.rand(2, n, s) * 0.98 + 0.01


def drawn(impl, pdf, index, u, tau=0.98):
    s = Ops(impl).draw_robust(pdf, index, u.shape[-1], tau, NEAR, FAR, u)
    return s.t, s.delta


def said(answer: Answer) -> tuple:
    return answer.sdf, answer.beta, answer.rgb


def field_of(sharpness: float):
    return lambda impl, *x: said(Ops(impl).field(mlp(sharpness).to(x[0]), *x))


def rendered(march_and_rendering):
    m, r = march_and_rendering
    return m.weights, r.rgb, r.depth, r.opacity, r.beta


def planes_and_points(n: int, s: int):
    return torch.randn(2, 3, 12, 9, 11), points(2, n * s)


def sampled(impl, planes, x):
    return [Ops(impl).sample_planes(planes, x)]


def certain(impl, pdf):
    return [Ops(impl).certainty(pdf, 16)]


def proposed(impl, sdf):
    b, k, r, _ = sdf.shape
    weights, rgb, opacity = [sdf.new_zeros(b, n, r, r) for n in (k - 1, 3, 1)]
    p = Probe(weights, rgb, rgb, sdf, opacity)
    return [Ops(impl).sdf_pdf(p, 4 * r, 1 / (k - 1))]


def kept(impl, pdf):
    return [Ops(impl).kept_bins(pdf, 0.98)]


def looked_again(impl, *x):
    looks = Ops(impl).look_again(*x, NEAR, FAR, 1 / 48)
    return looks.more, looks.t, looks.delta


def composited(impl, t, delta, sdf, beta, rgb):
    answer = Answer(rgb, sdf=sdf, beta=beta)
    return rendered(Ops(impl).composite(t, delta, answer, FAR, (0.1, 0.2, 0.3)))


CALLS = dict(  # public function -> (call, inputs of two sizes)
    sample_planes=(sampled, planes_and_points),
    certainty=(certain, lambda n, s: (pdfs(0, 3.0, n),)),
    kept_bins=(kept, lambda n, s: (pdfs(0, 3.0, n),)),
    draw_robust=(drawn, lambda n, s: (pdfs(0, 3.0, n), *rays(n, s))),
    sdf_pdf=(proposed, lambda n, s: (distances(min(n, 9), 2 * s),)),
    look_again=(looked_again, first_looks),
    composite=(composited, lambda n, s: samples(n, s, 3)),
    field=(field_of(100.0), march),
    field_relu=(field_of(math.inf), march),
)
CALL = pytest.mark.parametrize('name', CALLS)
SIZE = pytest.mark.parametrize('size', [(1, 1), (23, 19), (131, 1)], ids=str)


def double(x):
    return x.double() if x.is_floating_point() else x


def strided(x):
    return torch.stack([x, x], -1)[..., 0]


# ---- parity --------------------------------------------------------------------------------------


@CALL
@SIZE
def test_public_functions_agree_with_torch_in_float64(backend, name, size, fp32):
    call, inputs = CALLS[name]
    x = inputs(*size)
    for got, want in zip(call(backend, *on(backend, *x)), call('torch', *map(double, x)), strict=True):
        close(got, want, name)


@CALL
def test_inputs_need_not_be_contiguous(backend, name):
    call, inputs = CALLS[name]
    x = on(backend, *inputs(23, 19))
    assert not any(strided(v).is_contiguous() for v in x)
    for a, b in zip(call(backend, *x), call(backend, *map(strided, x)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('channels', range(4, 132, 4))
def test_no_point_lies_across_two_blocks(channels):
    lanes = K._lanes(channels)
    assert K._how('cuda', lanes).block % lanes == 0
    assert 4 * lanes <= max(channels, 4)


@pytest.mark.parametrize('channels, combine', [(12, 'product'), (32, 'sum')])
@pytest.mark.parametrize('plane', [(2, 2), (9, 11)], ids=str)
def test_triplane_forward_and_backward(backend, channels, combine, plane):
    planes, x, weight = torch.randn(2, 3, channels, *plane), points(2, 37), torch.randn(2, 37, channels)
    wide, narrow = double(planes).requires_grad_(), on(backend, planes)[0].requires_grad_()
    want = triplane.sample_planes(wide, x.double(), 1.0, combine)
    got = Ops(backend).sample_planes(narrow, *on(backend, x), 1.0, combine)
    want.backward(weight.double())
    got.backward(*on(backend, weight))
    close(got, want, 'sample_planes')
    close(narrow.grad, wide.grad, 'triplane_backward')


def test_lost_places_leave_no_gradient_in_the_planes(backend):
    planes, x = torch.randn(1, 3, 12, 9, 11), points(1, 8)
    x[0, 6, 1] = math.nan
    wide, narrow = double(planes).requires_grad_(), on(backend, planes)[0].requires_grad_()
    triplane.sample_planes(wide, x.double()).sum().backward()
    Ops(backend).sample_planes(narrow, *on(backend, x)).sum().backward()
    close(narrow.grad, wide.grad, 'triplane_backward')


def sums(t, delta, sdf, beta, features):
    "What the composite kernel gives: weights, and the sums of features, t, 1 and beta."
    w = volrend.weigh(t, delta, Answer(features, sdf=sdf, beta=beta)).weights
    others = torch.stack([t, torch.ones_like(t), beta], -1)
    weighted = w[..., None] * torch.cat([features, others], -1)
    return w, weighted.sum(-2)


@SIZE
@pytest.mark.parametrize('features', [3, 6])
def test_composite_forward_and_backward(backend, size, features):
    t, delta, *x = samples(*size, features)
    wide = [v.double().requires_grad_() for v in x]
    narrow = [v.requires_grad_() for v in on(backend, *x)]
    want = sums(t.double(), delta.double(), *wide)
    got = K._Composite.apply(*on(backend, t, delta), *narrow, K._how(backend, 16))
    weight = [torch.randn(v.shape) for v in want]
    torch.autograd.backward(want, [*map(double, weight)])
    torch.autograd.backward(got, on(backend, *weight))
    for g, w in zip(got, want):
        close(g, w, 'composite')
    for g, w in zip(narrow, wide):
        close(g.grad, w.grad, 'composite_backward')


def answered(f, planes, points, dirs, image=None, impl='torch', how=None):
    "What a field says and, for asked-for slopes, the gradients of planes and weights."
    planes = planes.clone().requires_grad_()
    f = copy.deepcopy(f).requires_grad_()
    if how:
        sdf, beta, rgb = F._field(Ops('cpu').reader(f, planes), points, dirs, image, how)
    else:
        sdf, beta, rgb = said(Ops(impl).field(f, planes, points, dirs, image))
    out = [sdf, beta, rgb]
    random = torch.Generator().manual_seed(1)
    asked = [torch.randn(v.shape, generator=random).to(v) for v in out]
    return out, torch.autograd.grad(out, [planes, *f.parameters()], asked)


def agree(got, want):
    "In what is said, and in each gradient relative to its length."
    for g, w in zip(got[0], want[0]):
        close(g, w, 'field')
    for g, w in zip(got[1], want[1]):
        apart = (g.cpu().double() - w).norm() / w.norm().clamp_min(1e-9)
        assert apart <= most('field_backward', g), apart


def double_all(f, *x):
    return copy.deepcopy(f).double(), *map(double, x)


@pytest.mark.parametrize('size', [(1, 1), (1, 19), (5, 3), (23, 7)], ids=str)
@pytest.mark.parametrize('sharpness', [100.0, math.inf])
@pytest.mark.parametrize('combine', ['product', 'sum'])
def test_the_field_learns_as_torch_does(backend, size, sharpness, combine):
    f, x = mlp(sharpness), march(*size)
    f.combine = combine
    want = answered(*double_all(f, *x))
    agree(answered(*on(backend, f, *x), impl=backend), want)


@pytest.mark.parametrize('rays', [(3, 4), (0, 5), (6, 0), (1, 1)], ids=str)
def test_the_field_learns_from_rays_of_several_images_in_one_row(backend, rays):
    "Also where an image has none."
    f, (planes, *x) = mlp(), march(6, 3)
    image, *row = in_one_row(rays, *x)
    want = answered(*double_all(f, planes, *row), image)
    f, planes, image, *row = on(backend, f, planes, image, *row)
    agree(answered(f, planes, *row, image, impl=backend), want)
    if backend == 'cpu' and rays == (3, 4):
        with pytest.raises(ValueError, match='in the order of their images'):
            Ops(backend).field(f, planes, *row, image.flip(1))


@needs_compiler
@pytest.mark.parametrize('threads', [1, 3])
@pytest.mark.parametrize('owned', [True, False])
@pytest.mark.parametrize('schedule', ['loop', *SCHEDULES])
def test_gradients_of_planes_are_owned_or_atomic(threads, owned, schedule, monkeypatch):
    "Whatever share of an image a block has; fibers with the tiles of a GPU."
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    f, x = mlp(), march(23, 7)
    lanes = How('cpu', 1 if schedule == 'loop' else 32, 64, schedule)
    how = replace(fibers(lanes), owned=owned)
    agree(answered(f, *x, how=how), answered(*double_all(f, *x)))


@needs_compiler
@pytest.mark.skipif(platform.machine() != 'x86_64', reason='names of other processors')
@pytest.mark.parametrize('march, floats', [('x86-64', 4), ('x86-64-v3', 8), ('x86-64-v4', 16)])
def test_the_compiler_says_how_large_a_register_is(march, floats, monkeypatch):
    monkeypatch.setattr(K, '_FLAGS', (f'-march={march}',))
    assert K.simd_floats() == floats


@pytest.fixture(params=[4, 8, 16])
def registers(request, monkeypatch):
    "NEON's, AVX's and AVX-512's; of larger ones than it has the compiler makes several."
    for module in (K, F):
        monkeypatch.setattr(module, 'simd_floats', lambda: request.param)
    return request.param


@needs_compiler
def test_the_field_in_registers_of_every_size(registers):
    f, x = mlp(), march(23, 7)
    assert F.FieldHow.forward('cpu').wide == registers
    agree(answered(f, *x, impl='cpu'), answered(*double_all(f, *x)))


@needs_compiler
@pytest.mark.parametrize('channels', [12, 16, 48])
def test_a_lookup_in_registers_of_every_size(registers, channels):
    planes, x = torch.randn(2, 3, channels, 9, 11, requires_grad=True), points(2, 37)
    exact = planes.detach().double().requires_grad_()
    got, want = Ops('cpu').sample_planes(planes, x), Ops('torch').sample_planes(exact, x.double())
    close(got, want, 'sample_planes')
    got.sum().backward()
    want.sum().backward()
    close(planes.grad, exact.grad, 'triplane_backward')


def test_all_who_read_the_same_planes_share_one_gradient(backend):
    "Also after a pass that was abandoned before it came to the planes, and when a graph is used twice."
    f, (planes, x, dirs) = mlp().requires_grad_(), march(6, 3)
    f, planes, x, dirs = on(backend, f, planes, x, dirs)

    def gradients(ask, planes, x, dirs, f):
        with torch.no_grad():
            ask(x, dirs)
        asked = [ask(scale * x, dirs) for scale in (1, 0.5, 0.3)]
        total = sum(a.sdf.square().sum() + a.rgb.sum() for a in asked)
        torch.autograd.grad(total, f.color1.weight, retain_graph=True)
        first = torch.autograd.grad(total, [planes, *f.parameters()], retain_graph=True)
        second = torch.autograd.grad(total, [planes, *f.parameters()])
        assert all(map(torch.equal, first, second)) or backend == 'cuda'
        return first

    read = planes.clone().requires_grad_()
    got = gradients(Ops(backend).reader(f, read), read, x, dirs, f)
    exact = copy.deepcopy(f).cpu().double()
    wide = planes.cpu().double().requires_grad_()
    asked = x.cpu().double(), dirs.cpu().double()
    want = gradients(lambda *a: exact(wide, *a), wide, *asked, exact)
    agree(((), got), ((), want))


def test_a_pass_within_another_takes_its_own(backend):
    "The inner one comes when the outer one has asked for the second and not yet for the first."
    f, planes, x, dirs = on(backend, mlp(), *march(6, 3))
    planes.requires_grad_()
    ask, inner = Ops(backend).reader(f, planes), []
    first, second, third = [ask(scale * x, dirs).sdf for scale in (1, 0.5, 0.3)]

    def gradient(of):
        return torch.autograd.grad(of, planes, torch.ones_like(of), retain_graph=True)[0]

    want, want_inner = gradient(first) + gradient(second), gradient(third)
    first.register_hook(lambda _: inner.append(gradient(third)))
    got = gradient(torch.cat([first, second]))
    assert torch.allclose(inner[0], want_inner)
    assert torch.allclose(got, want, atol=1e-6)


def test_planes_that_begin_to_learn_are_noticed(backend):
    f, planes, x, dirs = on(backend, mlp().requires_grad_(False), *march(6, 3))
    ask = Ops(backend).reader(f, planes)
    assert not ask(x, dirs).sdf.requires_grad
    planes.requires_grad_()
    (got,) = torch.autograd.grad(ask(x, dirs).sdf.sum(), planes)
    assert got.abs().sum() > 0


def test_a_frame_may_be_rendered_in_inference_mode(backend):
    f, planes, x, dirs = on(backend, mlp(), *march(5, 3))
    with torch.inference_mode():
        seen = Ops(backend).reader(f, planes.clone())(x, dirs)
    assert seen.rgb.isfinite().all()


def test_planes_may_be_read_under_a_checkpoint(backend):
    "Where points are asked again on the way back; the planes are prepared before."
    f, planes, x, dirs = on(backend, mlp().requires_grad_(), *march(6, 3))
    read = planes.clone().requires_grad_()
    ask = Ops(backend).reader(f, read)
    again = torch.utils.checkpoint.checkpoint

    def said_at(scale):
        return again(lambda: said(ask(scale * x, dirs)), use_reentrant=False)

    total = sum(v.sum() for scale in (1, 0.5) for v in said_at(scale))
    (got,) = torch.autograd.grad(total, read)
    plain = planes.clone().requires_grad_()
    total = sum(v.sum() for scale in (1, 0.5) for v in said(f(plain, scale * x, dirs)))
    (want,) = torch.autograd.grad(total, plain)
    close(got, want, 'field_backward')


@needs_compiler
@pytest.mark.parametrize('hidden, channels', [(20, 12), (7, 4), (40, 32)])
def test_widths_that_fill_no_register(hidden, channels):
    f = Field(FieldConfig(hidden=hidden, geo_features=5, color_hidden=9), channels)
    _, x, dirs = march(7, 3)
    planes = torch.randn(2, 3, channels, 8, 5)
    agree(answered(f, planes, x, dirs, impl='cpu'), answered(*double_all(f, planes, x, dirs)))


PLANTED = {
    'a slope': ('g[i] *= slope<A>(y[i]);', 'g[i] *= 1;'),
    'a bias': ('sum = sum+*(const Wide*)(g+p*g_stride+o);', ';'),
    'a plane': ('splat(grad+side, l.k[1], c, PRODUCT ? of*xy*yz : of);', ''),
    'the colour of the last points': ('i < 3*n ? grad[', 'true ? grad['),
    'the last points': ('p < n ? grad_sdf[q.first+p] : 0.f;', 'grad_sdf[q.first+p];'),
    'the range of beta': ('2*(1-t*t)*range', '2*(1-t*t)'),
}


@needs_compiler
@pytest.mark.parametrize('fault', PLANTED)
def test_a_fault_planted_in_the_gradient_is_found(fault):
    f, x = mlp(), march(23, 7)
    want = answered(*double_all(f, *x))
    agree(answered(f, *x, impl='cpu'), want)
    with planted(*PLANTED[fault]), pytest.raises(AssertionError):
        agree(answered(f, *x, impl='cpu'), want)


def test_the_fields_own_gradient_is_right():
    "The reference of all of these, by finite differences."
    f = Field(FieldConfig(hidden=6, geo_features=3, color_hidden=4, sharpness=100.0), 4).double()
    _, x, dirs = [v[:1].double() for v in march(2, 3)]
    planes = torch.randn(1, 3, 4, 5, 5).double().requires_grad_()

    def answer(*_):
        return said(f(planes, x, dirs))

    assert torch.autograd.gradcheck(answer, [planes, *f.parameters()])


def test_field_on_tensor_cores(backend):
    f, x = mlp(), march(23, 3)
    want = said(copy.deepcopy(f).double()(*map(double, x)))
    f, *x = on(backend, f, *x)
    for got, w in zip(on_tensor_cores(Ops(backend).reader(f, x[0]), *x[1:], None, how_of(backend)), want):
        close(got, w, 'field_mma')


LOST = {
    'a texel': lambda f, planes, x, dirs: planes[0, 1, 3].fill_(math.nan),
    'a place': lambda f, planes, x, dirs: x[0, 1, 1].fill_(math.nan),
    'a direction': lambda f, planes, x, dirs: dirs[1, 2, 0].fill_(math.nan),
    'a weight': lambda f, planes, x, dirs: f.sdf1.weight[3, 4].fill_(math.nan),
    'an infinite texel': lambda f, planes, x, dirs: planes[1].fill_(math.inf),
    'a bias': lambda f, planes, x, dirs: f.color1.bias[2].fill_(-math.nan),
}


@pytest.mark.parametrize('what', LOST)
@pytest.mark.parametrize('sharpness', [100.0, math.inf])
def test_what_is_not_a_number_is_nowhere_taken_for_one(backend, what, sharpness):
    "NaN comes out where torch has it, of the field in fp32 and on tensor cores, and of the planes alone."
    f, (planes, x, dirs) = mlp(sharpness), march(23, 3)
    LOST[what](f, planes, x, dirs)
    want = [v.isnan() for v in said(f(planes, x, dirs))]
    assert any(w.any() for w in want)
    f, *given = on(backend, f, planes, x, dirs)
    for run in (F._field, on_tensor_cores):
        for got, w in zip(run(Ops(backend).reader(f, given[0]), *given[1:], None, how_of(backend)), want):
            assert torch.equal(got.isnan().cpu(), w)
    sound = Ops(backend).sample_planes(given[0], given[1].flatten(1, 2)).isfinite().cpu()
    assert torch.equal(sound, triplane.sample_planes(planes, x.flatten(1, 2)).isfinite())


def test_a_distance_that_is_not_a_number_spoils_the_pixels_that_it_is_mixed_into(backend):
    "In any bin: the sum of a ray's probabilities tells a renderer."
    for k in (0, 17, 48):
        sdf = distances(9, 48)
        sdf[1, k, 4, 6] = math.nan
        (got,), (want,) = proposed(backend, *on(backend, sdf)), proposed('torch', sdf)
        lost = want.sum(1).isnan()
        assert lost.any() and not lost.all()
        assert torch.equal(got.sum(1).isnan().cpu(), lost)


def test_rays_of_which_nothing_is_computed_are_empty_in_torch(backend):
    (got,), (want,) = proposed(backend, *on(backend, distances(9, 48))), proposed('torch', distances(9, 48))
    empty = got[:, -1].cpu() == 1
    assert 0.05 < empty[0].float().mean() < 0.9
    assert (want[:, -1][empty] > 1 - 2**-21).all()


def test_interpolated_distances_give_nearly_the_same_sets(backend):
    sdf = distances(16, 48)[:1]
    (got,), (want,) = proposed(backend, *on(backend, sdf)), proposed('torch', sdf)
    kept = [sampler.smallest_set(x.cpu().permute(0, 2, 3, 1), 0.98)[0] for x in (got, want)]
    assert (kept[0] ^ kept[1]).any(-1).float().mean() < 0.01


def test_second_looks_are_sorted_and_nearly_all_exact(backend):
    x = first_looks(500, 6)
    looks = Ops(backend).look_again(*on(backend, *x), NEAR, FAR, 1 / 48)
    got, t = looks.more.cpu(), looks.t.cpu()
    want = looked_again('torch', *map(double, x))[0]
    assert (got - want).abs().flatten().quantile(0.99) < 1e-6
    order = looks.order.cpu()
    assert torch.equal(torch.cat([x[0], got], -1).gather(-1, order), t)
    assert torch.equal(order.sort(-1)[0], torch.arange(9).expand_as(order))
    assert (t.diff() >= 0).all()


def test_second_looks_at_what_is_not_a_number_stay_inside(backend):
    "A place may be NaN, but each of both looks is there once."
    t, sdf, beta, u = first_looks(8, 6)
    sdf[0, 0, 2], beta[0, 1, 0], t[0, 2, 5] = math.nan, math.nan, math.nan
    order = Ops(backend).look_again(*on(backend, t, sdf, beta, u), NEAR, FAR, 1 / 48).order.cpu()
    assert torch.equal(order.sort(-1)[0], torch.arange(9).expand_as(order))


def counts(t):
    "Samples in each of 48 bins."
    place = ((t.cpu().double() - NEAR) * 48 / (FAR - NEAR)).floor().long()
    return torch.zeros(*t.shape[:-1], 48, dtype=torch.int64).scatter_add_(-1, place, torch.ones_like(place))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.1, 12.0), st.integers(1, 80), st.floats(0.01, 1.0))
def test_bins_are_those_of_torch_bit_for_bit(backend, seed, scale, n, tau):
    torch.manual_seed(seed)
    pdf, (index, u) = pdfs(seed, scale), rays(6, n)
    got = drawn(backend, *on(backend, pdf, index, u), tau)
    want = drawn('torch', pdf, index, u, tau)
    for g, w in zip(got, want):
        close(g, w, 'draw_robust')
    kept = sampler.smallest_set(take_rays(pdf, index), tau)
    assert torch.equal(counts(got[0]), sampler.allocate(*kept, n))
    assert torch.equal(Ops(backend).certainty(*on(backend, pdf), 16).cpu(), sampler.certainty(pdf, 16))
    assert torch.equal(Ops(backend).kept_bins(*on(backend, pdf), tau).cpu(), sampler.kept_bins(pdf, tau))


def test_masses_beyond_those_of_a_pdf_do_no_harm(backend):
    "Above 2^24 units a float no longer holds every whole number."
    pdf, (index, u) = torch.rand(2, 64, 48), rays(64, 50)
    got = drawn(backend, *on(backend, pdf, index, u), 1.0)[0]
    want = drawn('torch', pdf, index, u, 1.0)[0]
    assert torch.equal(counts(got), counts(want))


@pytest.mark.parametrize('name', [name for name in CALLS if name != 'sdf_pdf'])  # a probe has pixels
def test_nothing_of_nothing(backend, name):
    call, inputs = CALLS[name]
    nothing = [x if x.ndim == 5 else x[:, :0] for x in inputs(6, 3)]  # planes stay
    for out in call(backend, *on(backend, *nothing)):
        assert out.numel() == 0


def test_no_part_of_a_kernel_is_written_over():
    "Several notebooks add parts to one table."
    modules = Path(K.__file__).parent.glob('*.py')
    texts = [module.read_text(encoding='utf8') for module in modules]
    parts = [name for text in texts for name in re.findall(r"PARTS\['(\w+)'\] = ", text)]
    assert set(parts) <= set(K.PARTS)
    assert sorted(parts) == sorted(set(parts))


# ---- errors --------------------------------------------------------------------------------------


@CALL
def test_errors_name_what_is_wrong(backend, name):
    call, inputs = CALLS[name]
    x = on(backend, *inputs(6, 3))
    with pytest.raises(ValueError, match='wants float32, got torch.float64'):
        call(backend, *map(double, x))
    with pytest.raises(ValueError, match='impl must be one of .*auto.*, got .magic'):
        call('magic', *x)
    other, kind = ('cuda', 'CUDA') if backend == 'cpu' else ('cpu', 'CPU')
    with pytest.raises(ValueError, match=f'wants {kind} tensors, got {x[0].device.type}'):
        call(other, *x)


def test_channels_come_in_fours(backend):
    planes, x, dirs = on(backend, torch.randn(2, 3, 6, 9, 11), points(2, 8), torch.randn(2, 2, 3))
    (f,) = on(backend, small_field(6))
    with pytest.raises(ValueError, match='multiple of 4'):
        Ops(backend).sample_planes(planes, x)
    with pytest.raises(ValueError, match='multiple of 4'):
        Ops(backend).field(f, planes, x.unflatten(1, (2, 4)), dirs)
    with pytest.raises(ValueError, match='at least 2 x 2'):
        Ops(backend).sample_planes(planes.new_zeros(2, 3, 8, 1, 9), x)


def test_shapes_must_agree(backend):
    planes, points, dirs = on(backend, *march(6, 3))
    t, delta, sdf, beta, rgb = on(backend, *samples(6, 3, 3))
    pdf, index, u = on(backend, pdfs(0, 3.0), *rays(6, 3))
    with pytest.raises(ValueError, match='^x must'):
        Ops(backend).sample_planes(planes[:1], points.flatten(1, 2))
    with pytest.raises(ValueError, match='^u must'):
        Ops(backend).draw_robust(pdf, index, 4, 0.98, NEAR, FAR, u)
    with pytest.raises(ValueError, match='tau'):
        Ops(backend).draw_robust(pdf, index, 3, 1.5, NEAR, FAR, u)
    with pytest.raises(ValueError, match='tau must be in .0, 1., got 98'):
        Ops(backend).kept_bins(pdf, 98)
    with pytest.raises(ValueError, match='^planes must'):
        Ops(backend).field(on(backend, mlp())[0], planes[:1], points, dirs)
    with pytest.raises(ValueError, match='^delta must'):
        Ops(backend).composite(t, delta[:1], Answer(rgb, sdf=sdf, beta=beta), FAR, (0, 0, 0))
    with pytest.raises(ValueError, match='index'):
        Ops(backend).draw_robust(pdf, index.int(), 3, 0.98, NEAR, FAR, u)


def test_rays_that_are_not_there(backend):
    pdf, index, u = on(backend, pdfs(0, 3.0), *rays(6, 3))

    def draw(index, pdf=pdf, tau=0.98):
        return Ops(backend).draw_robust(pdf, index, 3, tau, NEAR, FAR, u)

    for wrong in (6, -1, 10**10):
        bad = index.clone()
        bad[0, 1] = wrong
        if backend == 'cpu':
            with pytest.raises(ValueError, match=f'^index must be rays 0 to 5, got .*{wrong}'):
                draw(bad)
        t = K._draw_robust(pdf, bad, 3, 0.98, NEAR, FAR, u, K._how(backend, 32)).t
        assert t[0, 1].isnan().all()
        assert t[0, 0].isfinite().all()
        assert t[1].isfinite().all()
    with pytest.raises(ValueError, match='^index must have shape'):
        draw(index, pdf[:1])
    with pytest.raises(ValueError, match='^pdf must have shape'):
        draw(index, pdf[0])


def test_the_smallest_tau_keeps_the_largest_bin(backend):
    pdf = torch.tensor([[[0.2, 0.5, 0.3]]])
    index = torch.zeros(1, 1, dtype=torch.int64)
    u = torch.full((1, 1, 4), 0.5)
    for impl in (backend, 'torch'):
        assert Ops(impl).kept_bins(*on(backend, pdf), 1e-46).item() == 1
        t = Ops(impl).draw_robust(*on(backend, pdf, index), 4, 1e-46, 0.0, 3.0, *on(backend, u)).t
        assert torch.allclose(t.cpu(), torch.tensor([1.125, 1.375, 1.625, 1.875]))


def test_more_mass_than_32_bits_hold(backend):
    "4096 bins of weight 1 are 2^32 units."
    level = torch.ones(1, 1, 4096)
    index = torch.zeros(1, 1, dtype=torch.int64)
    pdf, index, u = on(backend, level, index, 0.5 * level)
    assert Ops(backend).certainty(pdf, 4096).item() == 2**32
    assert Ops(backend).kept_bins(pdf, 1.0).item() == 4096
    t = Ops(backend).draw_robust(pdf, index, 4096, 1.0, 0.0, 4096.0, u).t
    assert torch.allclose(t[0, 0].cpu(), torch.arange(4096) + 0.5)


def test_rays_are_counted_in_any_shape(backend):
    (pdf,) = on(backend, pdfs(0, 3.0))
    ops = Ops(backend)
    assert torch.equal(ops.certainty(pdf[0], 16), ops.certainty(pdf, 16)[0])
    assert torch.equal(ops.kept_bins(pdf[0], 0.9), ops.kept_bins(pdf, 0.9)[0])


def test_planes_must_have_the_channels_of_the_weights(backend):
    planes, x, dirs = on(backend, *march(6, 3))
    for impl in (backend, 'torch'):
        with pytest.raises(ValueError, match=r'^planes must have shape .*C.: 16'):
            Ops(impl).field(on(backend, mlp())[0], planes[:, :, :12], x, dirs)


ARGUMENTS = dict(
    triplane=8,
    triplane_backward=9,
    certainty=4,
    kept_bins=4,
    robust=12,
    sdf_pdf=8,
    look_again=15,
    composite=9,
    composite_backward=12,
    field=15,
    field_backward=19,
    field_mma=16,
    field_mma_backward=20,
    activate=9,
    activate_backward=11,
    upsample=6,
    upsample_backward=8,
)


def test_a_launcher_looks_at_what_lies_at_an_address():
    x, out = torch.rand(1, 2, 3, 48), torch.zeros(6, dtype=torch.int32)

    def launch(*args):
        K._as_declared('certainty', args)

    launch(x, out, 6, 16)
    wanted = 'certainty: pdf must be contiguous torch.float32 on cpu, got'
    for bad in (x.bfloat16(), x.double(), x[..., ::2], x.transpose(0, 1)[:, :1]):
        if not bad.is_contiguous() or bad.dtype != torch.float32:
            with pytest.raises(ValueError, match=wanted):
                launch(bad, out, 6, 16)
    wanted = 'certainty: out must be contiguous torch.int32 on cpu, got contiguous torch.int64'
    with pytest.raises(ValueError, match=wanted):
        launch(x, out.long(), 6, 16)
    with pytest.raises(ValueError, match='certainty: out must be .* got contiguous torch.int32 on meta'):
        launch(x, out.to('meta'), 6, 16)
    with pytest.raises(ValueError, match='certainty: N must be a number, got Tensor'):
        launch(x, out, out, 16)
    parts = {kernel: K.PARTS[where[-1]] for kernel, where in K.KERNELS.items()}
    assert {kernel: len(K._signature(part, kernel)) for kernel, part in parts.items()} == ARGUMENTS


def test_shared_memory_is_asked_for_or_refused():
    function = SimpleNamespace(max_dynamic_shared_size_bytes=0)
    K._allow_shared('field', function, 48 * 1024, 64 * 1024)
    assert function.max_dynamic_shared_size_bytes == 0
    K._allow_shared('field', function, 64 * 1024, 64 * 1024)
    assert function.max_dynamic_shared_size_bytes == 64 * 1024
    with pytest.raises(ValueError, match='field: 65540 bytes of shared memory'):
        K._allow_shared('field', function, 65540, 64 * 1024)


GIVEN = 'planes', 'points', 'dirs', *[n for n, _ in mlp().named_parameters()]


@pytest.mark.parametrize('name', GIVEN)
def test_no_gradient_is_dropped(backend, name):
    "Whatever one thing asks for a gradient gets it, also where the kernel is insisted on."
    f, x = mlp(), dict(zip(('planes', 'points', 'dirs'), march(3, 2)))
    f, *x_list = on(backend, f, *x.values())
    x = dict(zip(x, x_list))
    leaf = x[name] if name in x else f.get_parameter(name)
    leaf.requires_grad_()

    def gradient(answer):
        return torch.autograd.grad(sum(v.square().sum() for v in said(answer)), leaf)[0]

    for impl in ('auto', backend):
        grad, want = gradient(Ops(impl).field(f, **x)), gradient(f(**x))
        close(grad, want, 'field_backward')
        assert grad.any()
    with torch.no_grad():
        assert not Ops(backend).field(f, **x).sdf.requires_grad


def test_places_keep_their_gradient(backend):
    pdf, index, u = on(backend, pdfs(0, 3.0), *rays(6, 3))
    assert Ops(backend).draw_robust(pdf, index, 3, 0.98, NEAR, FAR, u.requires_grad_()).t.requires_grad


@pytest.mark.parametrize('type', [torch.bfloat16, torch.float16])
def test_autocast_changes_no_kernel(backend, type, fp32):
    f, *x = on(backend, mlp(), *march(23, 19))
    with torch.no_grad():
        want = said(Ops(backend).field(f, *x))
        with torch.autocast(backend, type):
            got = said(Ops(backend).field(f, *x))
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_kernels_have_one_derivative(backend):
    planes, x = on(backend, torch.randn(1, 3, 12, 9, 11), points(1, 8))
    out = Ops(backend).sample_planes(planes.requires_grad_(), x)
    (g,) = torch.autograd.grad(out.square().sum(), planes, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        g.square().sum().backward()


@pytest.mark.parametrize('freqs', [(0, 2), (6, 0), (0, 0)], ids=str)
def test_a_field_without_octaves(backend, freqs):
    "Nothing encoded: coordinates and direction alone, in torch, in fp32 and on tensor cores."
    f = small_field(16, pos_freqs=freqs[0], dir_freqs=freqs[1])
    x = march(5, 3)
    want = said(copy.deepcopy(f).double()(*map(double, x)))
    for got, w in zip(said(f(*x)), want):
        close(got, w, 'field')
    f, *x = on(backend, f, *x)
    for got, w in zip(F._field(Ops(backend).reader(f, x[0]), *x[1:], None, how_of(backend)), want):
        close(got, w, 'field')
    for got, w in zip(on_tensor_cores(Ops(backend).reader(f, x[0]), *x[1:], None, how_of(backend)), want):
        close(got, w, 'field_mma')


def test_density_has_its_derivative_on_the_surface_too(backend):
    "-1/(2 beta^2) at distance 0, by torch and by the kernel."
    beta = torch.tensor([0.004, 0.03]).reshape(1, 1, 2)
    s = torch.zeros(1, 1, 2, dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(density(s, beta.double()).sum(), s)
    assert torch.allclose(slope, -1 / (2 * beta.double() ** 2))
    zeros = torch.zeros(1, 1, 2)
    x = [zeros, zeros + 0.01, zeros.clone(), beta, torch.rand(1, 1, 2, 3)]
    grads = []
    for impl in ('torch', backend):
        t, delta, sdf, b, rgb = on(backend, *x) if impl == backend else x
        answer = Answer(rgb, sdf=sdf.requires_grad_(), beta=b)
        opacity = Ops(impl).composite(t, delta, answer, FAR, (0, 0, 0))[1].opacity
        grads.append(torch.autograd.grad(opacity.sum(), sdf)[0].cpu())
    assert torch.allclose(*grads, rtol=1e-5)
    assert grads[0].abs().min() > 0


@needs_compiler
def test_a_compiler_with_words_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    K.build_cpu.cache_clear()
    for cxx in ('', 'env g++ -DTWICE=2'):
        monkeypatch.setenv('CXX', cxx)
        assert K.compiler()
        assert turned('NONE', 'forward')[0] == 31
    K.build_cpu.cache_clear()
    monkeypatch.setenv('CXX', 'env g++ -DTWICE=2 -DTHRICE=3')
    with pytest.raises(K.BuildError, match='env g[+][+] -DTWICE=2 -DTHRICE=3 .* kernel.cpp'):
        K.build_cpu('turn', text='no kernel', SHARED_FLOATS=1)
    K.build_cpu.cache_clear()


def test_a_kernel_that_does_not_compile_names_its_cell(backend, monkeypatch):
    misspelt = K.PARTS['sampler'].replace('level<false>(r, top)', 'levle<false>(r, top)')
    monkeypatch.setitem(K.PARTS, 'sampler', misspelt)
    (pdf,) = on(backend, pdfs(0, 1.0, k=9))
    why = r"(?s)certainty did not compile:.*PARTS\['sampler'\].*levle"
    with pytest.raises(K.BuildError, match=why):
        Ops(backend).certainty(pdf, 3)
    with pytest.raises(ValueError, match='unknown kernel .magic.; known: triplane'):
        K.cuda_source('magic')


def test_without_a_compiler_torch_does_it(monkeypatch, capsys):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    K._say.cache_clear()
    assert [K.choose('auto', torch.zeros(1)) for _ in range(3)] == ['torch'] * 3
    said = 'wysiwyg kernels: torch on the CPU; for kernels install g++ with OpenMP\n'
    assert capsys.readouterr().err == said
    with pytest.raises(ValueError, match="impl='cpu' needs no-such-compiler"):
        K.choose('cpu', torch.zeros(1))


@needs_compiler
@pytest.mark.parametrize('there', [False, True])
def test_a_notebook_hears_nothing_of_kernels_that_are_there(monkeypatch, capsys, there):
    K._say.cache_clear()
    monkeypatch.setattr(K, '_in_notebook', lambda: there)
    assert K.choose('auto', torch.zeros(1)) == 'cpu'
    assert capsys.readouterr().err == ('' if there else 'wysiwyg kernels: cpu backend\n')


@needs_compiler
def test_what_auto_takes(monkeypatch):
    x = torch.zeros(1)
    assert K.choose('auto', x) == K.choose('auto', x, x.clone().requires_grad_()) == 'cpu'
    assert K.choose('auto', x.double()) == 'torch'
    monkeypatch.setenv('WYSIWYG_IMPL', 'torch')
    assert Ops().choose(x) == 'torch'
    assert Ops('cpu').choose(x) == 'cpu'
    with pytest.raises(ValueError, match='impl must be one of'):
        Ops('fast')
    with pytest.raises(ValueError, match='impl must be one of'):
        K.choose('fast', x)


@needs_compiler
def test_tensors_elsewhere_are_left_to_torch():
    x = torch.zeros(1, device='meta')
    assert K.choose('auto', x) == 'torch'
    with pytest.raises(ValueError, match='wants CPU tensors, got meta'):
        K.choose('cpu', torch.zeros(1), x)


# ---- schedules -----------------------------------------------------------------------------------


def triplane_with_grad(how: How):
    planes, x = torch.randn(2, 3, 12, 9, 11, requires_grad=True), points(2, 37)
    out = K._Triplane.apply(planes, x, 1.0, 'product', how)
    return torch.autograd.grad(out.square().sum(), planes)[0], out.detach()


def composite_with_grad(how: How):
    x = [v.requires_grad_(i > 1) for i, v in enumerate(samples(23, 19, 3))]
    weights, out = K._Composite.apply(*x, how)
    gradients = torch.autograd.grad(weights.square().sum() + out.square().sum(), x[2:])
    return (*gradients, weights.detach(), out.detach())


def robust(how: How):
    index, u = rays(6, 19)
    s = K._draw_robust(pdfs(0, 3.0), index, 19, 0.98, NEAR, FAR, u, how)
    return s.t, s.delta


def fibers(how: How) -> F.FieldHow:
    "A block of `lanes` threads; a GPU's tiles where there are several."
    wide = 16 if how.lanes == 1 else 4
    return replace(F.FieldHow.forward('cpu'), threads=how.lanes, wide=wide, schedule=how.schedule)


def once(run, how: How):
    planes, *x = march(5, 3)
    return run(Ops('cpu').reader(mlp(), planes), *x, None, fibers(how))


def field_with_grad(how: How):
    f, (planes, *x) = mlp().requires_grad_(), march(5, 3)
    out = F._field(Ops('cpu').reader(f, planes.requires_grad_()), *x, None, fibers(how))
    return torch.autograd.grad(sum(v.square().sum() for v in out), [planes, *f.parameters()])


def looks(t, sdf, beta, u, how: How):
    out = K._look_again(t, sdf, beta, u, NEAR, FAR, 1 / 48, how)
    return out.more, out.t, out.delta, out.order


RUNS = dict(  # kernel -> (lanes, its results in some order of threads)
    triplane_backward=(2, triplane_with_grad),
    composite_backward=(16, composite_with_grad),
    certainty=(32, lambda how: [K._certainty(pdfs(0, 3.0), 16, how)]),
    kept_bins=(32, lambda how: [K._kept_bins(pdfs(0, 3.0), 0.98, how)]),
    draw_robust=(32, robust),
    look_again=(1, lambda how: looks(*first_looks(9, 6), how)),
    sdf_pdf=(32, lambda how: [K._sdf_pdf(distances(3, 45), 12, 1 / 45, how)]),
    field=(32, lambda how: once(F._field, how)),
    field_backward=(32, field_with_grad),
    field_mma=(128, lambda how: once(on_tensor_cores, how)),
)


@needs_compiler
@pytest.mark.parametrize('kernel', list(RUNS))
def test_any_order_of_threads_gives_the_same(kernel):
    lanes, run = RUNS[kernel]

    def results(*how):
        torch.manual_seed(0)
        return [*run(How('cpu', *how))]

    first, *others = [results(lanes, 64, schedule) for schedule in SCHEDULES]
    if kernel != 'triplane_backward':  # whose sums by atomics follow the order
        assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    if kernel != 'field_mma':
        others.append(results(1, 64, 'loop'))  # which has no lanes to do without
    for other in others:
        for a, b in zip(first, other, strict=True):
            close(a, b, kernel)


# ---- planted faults ------------------------------------------------------------------------------

FAULTS = 'NONE', 'RACE', 'DIVERGENT', 'DIVERGENT_WARP', 'UNWRITTEN', 'WRITES_OUTSIDE', 'READS_OUTSIDE'
TURN = (
    f'enum {{ {", ".join(FAULTS)} }};'
    + """
extern "C" __global__ void turn(float* x, int n, int fault)      // each block turns its 32 numbers around
{
    extern __shared__ float shared[]; int i = threadIdx.x; x += 32*blockIdx.x;
    if (fault != UNWRITTEN) shared[i] = x[i];
    if (fault == DIVERGENT_WARP && i < 16) __syncwarp();
    if (fault == DIVERGENT ? i < 16 : fault != RACE) __syncthreads();
    x[i] = shared[31-i];
    if (i == 0 && fault == WRITES_OUTSIDE) x[n] = 1;
    if (i == 0 && fault == READS_OUTSIDE) x[0] = x[-1];
}
"""
)


def turned(fault: str, schedule: str):
    x = torch.arange(64.0)
    K.launch_cpu('turn', 2, 32, (x, 64, FAULTS.index(fault)), schedule, text=TURN, SHARED_FLOATS=32)
    return x


@needs_compiler
def test_a_missing_barrier_shows():
    right = torch.arange(64.0).unflatten(0, (2, 32)).flip(1).flatten()
    for schedule in SCHEDULES:
        assert torch.equal(turned('NONE', schedule), right)
    wrong = [turned('RACE', schedule) for schedule in SCHEDULES]
    assert not torch.equal(wrong[0].nan_to_num(-1), wrong[1].nan_to_num(-1))
    assert not any(torch.equal(w, turned('NONE', 'forward')) for w in wrong)


@needs_compiler
@pytest.mark.parametrize(
    'fault, told',
    [
        ('DIVERGENT', '16 threads wait for their block, 0 for their warp, 16 have returned'),
        ('DIVERGENT_WARP', '16 threads wait for their block, 16 for their warp, 0 have returned'),
    ],
)
def test_a_divergent_barrier_is_told_and_not_waited_for(fault, told):
    for schedule in SCHEDULES:
        with pytest.raises(RuntimeError, match=f'turn: divergent barrier in block .: {told}'):
            turned(fault, schedule)


@needs_compiler
def test_a_barrier_in_a_loop_is_told():
    with pytest.raises(RuntimeError, match='turn: a barrier or shuffle in loop mode with 32 threads a block'):
        turned('NONE', 'loop')


@needs_compiler
def test_shared_memory_starts_as_nan_in_every_block():
    for schedule in SCHEDULES:
        assert turned('UNWRITTEN', schedule).isnan().all()


HALVE = """
extern "C" __global__ void halve(const float* x, float* y, int n)
{
    for (int i = 0; i < n; i++) y[i] = x[i]*.5f;
}
"""


@needs_compiler
@pytest.mark.skipif(platform.machine() != 'x86_64', reason='flags of an x86 CPU')
def test_a_kernel_flushes_subnormals_and_leaves_the_process_as_it_was():
    smallest = torch.finfo(torch.float32).tiny
    x, y = torch.full((5,), smallest), torch.ones(5)
    K.launch_cpu('halve', 1, 1, (x, y, 5), 'loop', text=HALVE)
    assert torch.equal(y, torch.zeros(5))
    assert (x * 0.5 > 0).all()


def built(monkeypatch, kernel: str, **kw) -> str:
    "Compile and do not load: where the library is."
    with monkeypatch.context() as m:
        m.setattr(ctypes, 'CDLL', lambda path: SimpleNamespace(run=SimpleNamespace(path=path)))
        return K.build_cpu.__wrapped__(kernel, **kw).path


CHILD = """
import ctypes, json, sys
path, grid, block, schedule, *args = json.load(sys.stdin)
def c(a):
    if isinstance(a, list):
        kind = ctypes.c_longlong if isinstance(a[0], int) else ctypes.c_float
        return ctypes.cast((kind * len(a))(*a), ctypes.c_void_p)
    return (ctypes.c_int if isinstance(a, int) else ctypes.c_float)(a)
values = [c(a) for a in args]
places = [ctypes.cast(ctypes.pointer(v), ctypes.c_void_p) for v in values]
run = ctypes.CDLL(path).run
run.restype = ctypes.c_char_p
print(run(grid, block, schedule, 1, (ctypes.c_void_p * len(places))(*places)))
"""
ASAN = '-fsanitize=address', '-O1'


@pytest.fixture(scope='session')
def sanitized():
    "Run a library in a small process under AddressSanitizer; what it said."
    if not K.compiler():
        pytest.skip('no g++')
    asked = [K.compiler(), '-print-file-name=libasan.so']
    library = Path(subprocess.run(asked, capture_output=True, text=True).stdout.strip())
    if not library.is_absolute() or not library.exists():
        pytest.skip('no libasan beside g++')
    env = os.environ | dict(LD_PRELOAD=str(library), ASAN_OPTIONS='detect_leaks=0', PYTHONMALLOC='malloc')

    def run(path, grid, block, schedule, *args):
        job = json.dumps([path, grid, block, K.SCHEDULES[schedule], *args])
        child = [sys.executable, '-sSc', CHILD]
        return subprocess.run(child, input=job, env=env, capture_output=True, text=True)

    return run


def test_reads_and_writes_outside_are_caught(sanitized, monkeypatch):
    path = built(monkeypatch, 'turn', extra=ASAN, text=TURN, SHARED_FLOATS=32)

    def go(fault):
        return sanitized(path, 1, 32, 'forward', [0.0] * 32, 32, FAULTS.index(fault))

    assert go('NONE').stdout == "b''\n"
    for fault, told in (('WRITES_OUTSIDE', 'WRITE of size 4'), ('READS_OUTSIDE', 'READ of size 4')):
        said = go(fault).stderr
        assert 'heap-buffer-overflow' in said
        assert told in said


MISPLACED = (
    K.PARTS['chunk']
    + """
extern "C" __global__ void misplaced(int at)
{
    extern __shared__ float shared[];
    store(shared+at, load(shared));
}
"""
)


@needs_compiler
def test_what_begins_off_a_multiple_of_16_bytes_is_caught(monkeypatch):
    "In a small process, which it may end."
    path = built(monkeypatch, 'misplaced', extra=GPU_FLAGS, text='#define V 4' + MISPLACED, SHARED_FLOATS=16)

    def said(at):
        job = json.dumps([path, 1, 1, K.SCHEDULES['loop'], at])
        child = [sys.executable, '-sSc', CHILD]
        return subprocess.run(child, input=job, capture_output=True, text=True).stderr

    assert said(4) == ''
    assert 'store to misaligned' in said(5)


@needs_compiler
def test_a_gpu_may_read_and_write_what_kernels_do():
    "See alignment.py."
    there = Path(__file__).parent
    env = {k: v for k, v in os.environ.items() if not k.startswith('PYTEST')}
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'alignment.py']
    done = subprocess.run(command, cwd=there, env=env, capture_output=True, text=True)
    assert '4 passed' in done.stdout, done.stdout[-3000:]


def test_the_sampler_stays_inside_its_arrays(sanitized, monkeypatch):
    b, n, k, s = 2, 3, 48, 5
    out = [0.0] * (b * n * s)
    path = built(monkeypatch, 'robust', extra=ASAN, K=k, LANES=32)
    pdf = [i * i % 7 / 140 for i in range(b * n * k)]
    arrays = (pdf, [0, 1, 2] * b, out, out, out)
    numbers = (b, n, n, s, 0.98, NEAR, (FAR - NEAR) / k)
    done = sanitized(path, 3, 64, 'forward', *arrays, *numbers)
    assert done.stdout == "b''\n", done.stderr[:1000]


def test_the_second_look_stays_inside_its_arrays(sanitized, monkeypatch):
    n, s, m = 3, 4, 2
    path = built(monkeypatch, 'look_again', extra=ASAN, LANES=1)
    t = [2.5, 2.52, 2.54, 2.56] * n
    sdf = [0.03, 0.01, -0.01, -0.03, 0.5, 0.5, 0.5, 0.5, *[math.inf] * 4]
    u, out = [0.5] * (n * m), [0.0] * (n * (s + m))
    arrays = t, sdf, [0.004] * (n * s), u, u, out, out, [0] * len(out)
    done = sanitized(path, 1, 64, 'forward', *arrays, n, s, m, NEAR, FAR, 0.02, 0.001)
    assert done.stdout == "b''\n", done.stderr[:1000]


def test_the_proposal_stays_inside_its_arrays(sanitized, monkeypatch):
    b, r, k = 2, 2, 35
    path = built(monkeypatch, 'sdf_pdf', extra=ASAN, K=k, LANES=32)
    columns = [0.1 - i % 36 / 99 for i in range(b * r * r * (k + 1))]
    skin, clear = [0.01] * len(columns), [-1.0] * (b * r * r)
    out = [0.0] * (b * 25 * k)
    done = sanitized(path, 25, 64, 'forward', columns, skin, clear, out, b, r, 5, 1 / k)
    assert done.stdout == "b''\n", done.stderr[:1000]


# ---- building ------------------------------------------------------------------------------------


def first_use(barrier, cache: str):
    os.environ['XDG_CACHE_HOME'] = cache
    barrier.wait(60)
    assert turned('NONE', 'forward')[0] == 31


@needs_compiler
def test_processes_may_build_at_once(tmp_path):
    K.build_cpu.cache_clear()
    K._machine()
    fork = multiprocessing.get_context('fork')
    barrier = fork.Barrier(4)
    started = [fork.Process(target=first_use, args=(barrier, str(tmp_path))) for _ in range(4)]
    for p in started:
        p.start()
    for p in started:
        p.join(120)
    assert [p.exitcode for p in started] == [0] * 4
    assert [p.name[:5] + p.suffix for p in (tmp_path / 'wysiwyg').iterdir()] == ['turn-.so']


# ---- through the generator -----------------------------------------------------------------------


@pytest.fixture(scope='module')
def scene():
    g = load_generator(device='cpu')
    camera = orbit(torch.tensor([0.4]), torch.tensor([0.1]))
    z = torch.randn(1, g.run.backbone.z_dim, generator=torch.Generator().manual_seed(0))
    return g, g.synthesize(g.map(z, camera)), camera


@pytest.mark.parametrize('impl', ['torch', 'auto'])
def test_below_the_planes_autocast_and_the_planes_type_change_nothing(scene, impl):
    g, planes, camera = scene

    def go(planes):
        return [
            g.render(planes, camera, 16).rgb,
            g.dense(planes, camera, 16, 24).rgb,
            g.two_pass(planes, camera, 8, 8, 16).rgb,
            g.probe(planes, camera).weights,
        ]

    g = g.using(ops=Ops(impl))
    with torch.no_grad():
        want = go(planes)
        with torch.autocast('cpu', torch.bfloat16):
            got = go(planes)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        for a, b in zip(go(planes.double()), want):
            assert torch.equal(a, b)
        for a, b in zip(go(planes.half()), want):
            assert a.dtype == torch.float32
            assert (a - b).abs().mean() < 1e-2
    with pytest.raises(ValueError, match='planes are torch.float16 and points torch.float32'):
        g.field.geometry(planes.half(), torch.zeros(1, 1, 3))


def test_a_rendering_is_the_same(backend, scene, fp32):
    g, planes, camera = scene
    g, planes = on(backend, copy.deepcopy(g), planes)
    camera = camera.to(planes.device)

    def rgb(impl):
        by = g.using(ops=Ops(impl))
        with torch.no_grad():
            return by.render(planes, camera, 64, replace(g.run.sampler, jitter=False)).rgb

    differs = (rgb('torch') - rgb(backend)).abs().amax(-1) > 1e-4
    assert differs.float().mean() < 0.005  # a probe's rounding may flip a bin at the edge of the set


@needs_compiler
def test_planes_that_learn_on_a_cpu_are_looked_up_by_torch(monkeypatch):
    "Whose gradient is the faster one there; without one, or where the kernel is insisted on, it is taken."
    planes, x = torch.randn(1, 3, 8, 4, 4, requires_grad=True), points(1, 5)
    monkeypatch.setattr(K, 'launch_cpu', None)
    assert torch.equal(Ops('auto').sample_planes(planes, x), triplane.sample_planes(planes, x))
    for impl, learned in (('auto', planes.detach()), ('cpu', planes)):
        with pytest.raises(TypeError):
            Ops(impl).sample_planes(learned, x)


@needs_compiler
def test_training_on_a_cpu_takes_the_kernels_that_pay(scene, monkeypatch):
    g, planes, camera = scene
    launch, seen = K.launch_cpu, set()

    def watched(kernel, *a, **kw):
        seen.add(kernel)
        return launch(kernel, *a, **kw)

    monkeypatch.setattr(K, 'launch_cpu', watched)
    learned = planes.clone().requires_grad_()
    g.render(learned, camera, 16).rgb.sum().backward()
    learned_by = {'field', 'field_backward', 'composite', 'composite_backward'}
    assert seen == {'certainty', 'robust', *learned_by}
    assert learned.grad.isfinite().all()
    assert learned.grad.any()
    with torch.no_grad():
        g.render(planes, camera, 16)
    assert seen == {'certainty', 'robust', *learned_by}
    with torch.no_grad():
        g.propose(planes, camera, 'sdf', 16)
    assert 'sdf_pdf' in seen


@needs_compiler
def test_planes_that_no_kernel_reads_are_left_to_torch():
    x = points(1, 5)
    for planes in (torch.randn(1, 3, 6, 4, 4), torch.randn(1, 3, 8, 1, 9)):
        assert torch.equal(Ops('auto').sample_planes(planes, x), triplane.sample_planes(planes, x))
        with pytest.raises(ValueError, match='multiple of 4|at least 2 x 2'):
            Ops('cpu').sample_planes(planes, x)


def test_a_variable_that_means_nothing_is_named(monkeypatch):
    monkeypatch.setenv('WYSIWYG_IMPL', '')
    assert Ops().impl == 'auto'
    monkeypatch.setenv('WYSIWYG_IMPL', 'fast')
    with pytest.raises(ValueError, match="the variable WYSIWYG_IMPL must be one of .* got 'fast'"):
        Ops()


@needs_compiler
@pytest.mark.parametrize('impl', ['torch', 'cpu'])
def test_whole_numbers_are_numbers(impl):
    "A kernel reads a float where it declares one, whatever Python calls it."
    pdf = torch.rand(1, 40, 12, generator=torch.Generator().manual_seed(0))
    index, u = torch.arange(40)[None], torch.full((1, 40, 6), 0.5)
    drawn = [Ops(impl).draw_robust(pdf, index, 6, *numbers, u) for numbers in ((1, 2, 3), (1.0, 2.0, 3.0))]
    assert torch.equal(drawn[0].t, drawn[1].t)
    assert drawn[0].t.min() >= 2
    x, out = torch.rand(4, 12), torch.zeros(4, dtype=torch.int32)
    with pytest.raises(ValueError, match='certainty: top must be a whole number, got 2.5'):
        K._as_declared('certainty', (x, out, 4, 2.5))
