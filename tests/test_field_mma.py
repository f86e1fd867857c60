"""The field's gradient on tensor cores, emulated on the CPU, against two oracles.

Torch with operands rounded to bf16 where the kernels round them, which is near; torch in float64, within what
bf16 costs.
"""

import copy, math
from dataclasses import replace
from functools import partial

import pytest
import torch
from backends import SCHEDULES, needs_compiler, on, planted
from test_kernels import double_all, how_of, in_one_row, march, mlp, on_tensor_cores, said, small_field

from wysiwyg import fused_field as F, kernels as K
from wysiwyg.config import FieldConfig, override, tiny
from wysiwyg.core import Answer
from wysiwyg.kernels import Ops
from wysiwyg.method import WYSIWYG
from wysiwyg.sdf import Field, octaves, softplus

pytestmark = pytest.mark.usefixtures('poisoned')
NEAR_ROUNDED = 2e-3  # sums in another order round to another neighbour now and then
OF_BF16 = {100.0: 3e-2, math.inf: 6e-2}  # by sharpness: at its bend a ReLU's slope jumps


# ---- the oracle ----------------------------------------------------------------------------------


def rounded(x):
    return x.bfloat16().to(x)


class Product(torch.autograd.Function):
    "x W^T + b"

    @staticmethod
    def forward(ctx, x, weight, bias):
        x, weight = rounded(x), rounded(weight)
        ctx.save_for_backward(x, weight)
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        g = rounded(g)
        flat = g.flatten(0, -2)
        return g @ weight, flat.T @ x.flatten(0, -2), flat.sum(0)


class Bent(torch.autograd.Function):
    "Softplus of some sharpness, or ReLU, whose slope is told from its rounded value."

    @staticmethod
    def forward(ctx, x, sharpness):
        y = softplus(x, sharpness)
        if sharpness == math.inf:
            ctx.slope = (rounded(y) > 0).to(y)
        else:
            ctx.slope = -torch.expm1(-sharpness * rounded(y))
        return y

    @staticmethod
    def backward(ctx, g):
        return g * ctx.slope, None


def in_bf16(f: Field, planes, points, dirs) -> Answer:
    c = f.config
    features = f.look_up(planes, points.flatten(1, 2), f.box, f.combine)
    x = torch.cat([*octaves(points, c.pos_freqs), features.unflatten(1, points.shape[1:3])], -1)
    for layer in (f.sdf0, f.sdf1):
        x = Bent.apply(Product.apply(x, layer.weight, layer.bias), c.sharpness)
    out = Product.apply(x, f.sdf2.weight, f.sdf2.bias)
    sdf, pre, geo = out.split([1, 1, c.geo_features], -1)
    encoded = torch.cat(octaves(dirs, c.dir_freqs), -1)[:, :, None]
    seen = torch.cat([geo, encoded.expand(*points.shape[:3], -1)], -1)
    color = Product.apply(seen, torch.cat([f.color0.weight, f.dir0.weight], 1), f.dir0.bias)
    color = Product.apply(Bent.apply(color, 1.0), f.color1.weight, f.color1.bias)
    beta = c.beta_init + torch.tanh(2 * pre) * (c.beta_init - c.beta_min)
    return Answer(color.sigmoid() * 1.002 - 0.001, sdf=sdf[..., 0], beta=beta[..., 0])


# ---- what is compared ----------------------------------------------------------------------------


def asked_of(ask, f, planes, image=None):
    "What `ask(f, planes, image)` says, and the gradients of planes and weights for asked-for slopes."
    planes = planes.clone().requires_grad_()
    f = copy.deepcopy(f).requires_grad_()
    out = ask(f, planes, image)
    random = torch.Generator().manual_seed(1)
    asked = [torch.randn(v.shape, generator=random).to(v) for v in out]
    return out, torch.autograd.grad(out, [planes, *f.parameters()], asked)


def by_kernel(how: F.FieldHow, points, dirs):
    def ask(f, planes, image):
        return on_tensor_cores(Ops(how.backend).reader(f, planes), points, dirs, image, how)

    return ask


def by_torch(answer, points, dirs):
    def ask(f, planes, image):
        return said(F._of_each_image(partial(answer, f), planes, points, dirs, image))

    return ask


def apart(got, want) -> float:
    "The furthest of what is said and of the gradients, each relative to its length."
    far = []
    for g, w in zip([*got[0], *got[1]], [*want[0], *want[1]], strict=True):
        away = g.detach().cpu().double() - w
        far.append((away.norm() / w.norm().clamp_min(1e-9)).nan_to_num(math.inf))
    return max(far).item()


def rounded_by_torch(f, planes, points, dirs, image=None):
    f, planes, *asked = double_all(f, planes, points, dirs)
    return asked_of(by_torch(in_bf16, *asked), f, planes, image)


def agree(got, *given):
    assert apart(got, rounded_by_torch(*given)) <= NEAR_ROUNDED


# ---- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(1, 1), (1, 19), (5, 3), (23, 7)], ids=str)
@pytest.mark.parametrize('sharpness', [100.0, math.inf])
@pytest.mark.parametrize('combine', ['product', 'sum'])
def test_the_field_learns_on_tensor_cores_as_rounded_torch_does(backend, size, sharpness, combine):
    "Places are in, on the border of, and far outside the box."
    f, x = mlp(sharpness), march(*size)
    f.combine = combine
    learned, planes, *asked = on(backend, f, *x)
    got = asked_of(by_kernel(how_of(backend), *asked), learned, planes)
    agree(got, f, *x)
    if size == (23, 7):
        f, planes, *asked = double_all(f, *x)
        exact = asked_of(by_torch(Field.forward, *asked), f, planes)
        assert 1e-3 < apart(got, exact) <= OF_BF16[sharpness]


@pytest.mark.parametrize('rays', [(3, 4), (0, 5), (6, 0), (1, 1)], ids=str)
def test_rays_of_several_images_in_one_row(backend, rays):
    "Also where an image has none."
    f, (planes, *x) = mlp(), march(6, 3)
    image, *row = in_one_row(rays, *x)
    learned, read, *asked = on(backend, f, planes, *row)
    got = asked_of(by_kernel(how_of(backend), *asked), learned, read, *on(backend, image))
    agree(got, f, planes, *row, image)


@needs_compiler
@pytest.mark.parametrize('threads', [1, 5])
@pytest.mark.parametrize('owned', [True, False])
def test_any_order_of_threads_gives_the_same(threads, owned, monkeypatch):
    "To the bit where texels are owned and for weights; whatever share of an image a block has."
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    f, (planes, *asked) = mlp(), march(23, 7)
    results = []
    for schedule in SCHEDULES:
        how = replace(how_of('cpu'), schedule=schedule, owned=owned)
        results.append(asked_of(by_kernel(how, *asked), f, planes))
    agree(results[0], f, planes, *asked)
    (said_first, (planes_first, *first)), *others = results
    for said_other, (planes_other, *other) in others:
        assert all(map(torch.equal, said_first, said_other))
        assert all(map(torch.equal, first, other))
        assert torch.allclose(planes_first, planes_other, atol=0 if owned else 1e-5, rtol=0)


@pytest.mark.parametrize('hidden, channels', [(20, 12), (7, 4), (40, 32)])
def test_widths_that_fill_no_tile(backend, hidden, channels):
    f = Field(FieldConfig(hidden=hidden, geo_features=5, color_hidden=9, sharpness=100.0), channels)
    _, x, dirs = march(7, 3)
    planes = torch.randn(2, 3, channels, 8, 5)
    learned, read, *asked = on(backend, f, planes, x, dirs)
    agree(asked_of(by_kernel(how_of(backend), *asked), learned, read), f, planes, x, dirs)


@needs_compiler
def test_nothing_beyond_an_array_is_read_or_written(monkeypatch):
    "Each lies between NaNs, and widths fill no tile."
    f = Field(FieldConfig(hidden=20, geo_features=5, color_hidden=9), 12)
    planes, (_, *asked) = torch.randn(2, 3, 12, 8, 5), march(7, 3)
    launch = K.launch_cpu

    def fenced(kernel, grid, block, args, *rest, **constants):
        floats = [k for k, a in enumerate(args) if torch.is_tensor(a) and a.is_floating_point()]
        whole = {k: torch.nn.functional.pad(args[k].flatten(), (64, 64), value=math.nan) for k in floats}
        inside = [whole[k][64:-64] if k in whole else a for k, a in enumerate(args)]
        launch(kernel, grid, block, tuple(inside), *rest, **constants)
        for k in floats:
            assert torch.cat([whole[k][:64], whole[k][-64:]]).isnan().all()
            args[k].data.copy_(inside[k].view_as(args[k]))

    monkeypatch.setattr(K, 'launch_cpu', fenced)
    agree(asked_of(by_kernel(how_of('cpu'), *asked), f, planes), f, planes, *asked)


@pytest.mark.parametrize('freqs', [(0, 2), (6, 0), (0, 0)], ids=str)
def test_nothing_encoded(backend, freqs):
    f, x = small_field(16, pos_freqs=freqs[0], dir_freqs=freqs[1]), march(5, 3)
    learned, planes, *asked = on(backend, f, *x)
    agree(asked_of(by_kernel(how_of(backend), *asked), learned, planes), f, *x)


def test_a_lost_place_has_no_gradient_of_planes(backend):
    f, (planes, x, dirs) = mlp(), march(5, 3)
    learned, read, places, asked = on(backend, f, planes, x.clone(), dirs)
    places[0, 2] = math.nan
    got = asked_of(by_kernel(how_of(backend), places, asked), learned, read)[1]
    assert got[0].isfinite().all()
    assert got[0].any()
    assert all(g.isnan().any() for g in got[1:])


PLANTED = {
    'a slope': ('s[0]*slope<A>(low(*pair))', 's[0]*slope<A>(high(*pair))'),
    'a turned tile': ('left[p][1] = d[2]; left[p][2] = d[1];', 'left[p][1] = d[1]; left[p][2] = d[2];'),
    'a bias': ('(row >= IN && k != 16*ONES)', 'row >= IN'),
    'distance and beta as inputs': (': k-SKIP', ': k'),
    'the planes of another image': ('planes+(size_t)s.b*3*H*W*C', 'planes'),
    'the last points': ('there = p < q.end,', 'there = true,'),
    'the range of beta': ('2*(1-th*th)*a.range', '2*(1-th*th)'),
    'the direction': ('(all.d, DROW, all.c, CROW, grad+GEO*', '(all.d, DROW, all.c, CROW, grad+'),
    'a share': ('turned_tile(g, g_row, p, o, d);', 'turned_tile(g, g_row, p/2, o, d);'),
    'rows not yet there': ('unsigned left[P/16][4];\n    __syncthreads();', 'unsigned left[P/16][4];'),
    'rows written too early': (
        'sum[1][2*r+1]);\n        }\n    }\n    __syncthreads();',
        'sum[1][2*r+1]);\n        }\n    }',
    ),
    'the next points too early': (
        'of*xy*xz : of);\n        }\n    __syncthreads();',
        'of*xy*xz : of);\n        }',
    ),
}


@needs_compiler
@pytest.mark.parametrize('fault', PLANTED)
def test_a_planted_fault_is_found(fault):
    "In some order of threads."
    f, (planes, *asked) = mlp(), march(23, 7)
    far = []
    want = rounded_by_torch(f, planes, *asked)
    with planted(*PLANTED[fault]):
        for schedule in SCHEDULES:
            how = replace(how_of('cpu'), schedule=schedule)
            far.append(apart(asked_of(by_kernel(how, *asked), f, planes), want))
    assert max(far) > NEAR_ROUNDED


@needs_compiler
def test_a_row_that_ldmatrix_could_not_read_is_told():
    text = """
extern "C" __global__ void turn(float* x, int by)
{
    extern __shared__ float shared[]; unsigned d[4];
    ldmatrix_trans(d, (unsigned short*)shared+by); x[threadIdx.x] = 0;
}
"""
    for by, told in ((8, False), (4, True)):
        args = torch.zeros(32), by
        if not told:
            K.launch_cpu('turn', 1, 32, args, 'forward', text=text, SHARED_FLOATS=64)
            continue
        with pytest.raises(RuntimeError, match='turn: ldmatrix: a row must begin at a multiple of 16'):
            K.launch_cpu('turn', 1, 32, args, 'forward', text=text, SHARED_FLOATS=64)


# ---- who takes them ------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    'there, bf16, seen',
    [
        (True, True, {'field_mma', 'field_mma_backward'}),
        (True, False, {'field_mma', 'field', 'field_backward'}),
        (False, True, {'field', 'field_backward'}),
    ],
)
def test_tensor_cores_are_taken_where_a_run_says_so_and_where_nothing_is_learned(
    there, bf16, seen, monkeypatch
):
    f, (planes, *asked) = mlp(), march(2, 3)
    launch, launched = K.launch_cpu, set()

    def watched(kernel, *a, **kw):
        launched.add(kernel)
        return launch(kernel, *a, **kw)

    monkeypatch.setattr(K, 'launch_cpu', watched)
    monkeypatch.setattr(F, '_tensor_cores', lambda x: there)
    how = how_of('cpu')
    monkeypatch.setattr(F.FieldHow, 'forward', lambda backend: how)
    read = Ops('cpu').reader(f, planes.requires_grad_(), bf16)
    with torch.no_grad():
        read(*asked)
    read(*asked).rgb.sum().backward()
    assert launched == seen
    assert planes.grad.any()


@pytest.mark.parametrize('bf16', [False, True])
def test_a_generator_reads_as_its_run_says(bf16, monkeypatch):
    g = WYSIWYG.generator(tiny(), start=False)
    g = g.using(run=override(g.run, **{'train.bf16': bf16}))
    reader = g.field_at(torch.zeros(1, 3, g.run.backbone.plane_channels, 4, 4)).__closure__
    (read,) = [c.cell_contents for c in reader if isinstance(c.cell_contents, F._FieldReader)]
    assert read.bf16 is bf16
