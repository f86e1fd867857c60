"The backbone's kernels against `06_triplane` in float64: values, every gradient, schedules, and fallbacks."

import copy

import pytest
import torch
from backends import needs_compiler
from torch.autograd import gradcheck

from wysiwyg import kernels as K, synthesis
from wysiwyg.config import BackboneConfig, override, preset
from wysiwyg.discriminator import Discriminator
from wysiwyg.generator import load_generator
from wysiwyg.kernels import How, Ops
from wysiwyg.method import WYSIWYG
from wysiwyg.stylegan import leaky, up2
from wysiwyg.triplane import Triplane

MOST = 1e-5  # relative error


pytestmark = pytest.mark.usefixtures('poisoned')


def error(ours, exact) -> float:
    "Of the norm."
    ours = ours.detach().cpu().double()
    return ((ours - exact.detach()).norm() / exact.norm().clamp_min(1e-30)).item()


# ---- one kernel ----------------------------------------------------------------------------------


def activate(x, norm, noise, strength, bias, style):
    grain = (noise * strength).reshape(*x.shape[1:3], 1)
    return leaky(x * norm[:, None, None] + grain + bias) * style[:, None, None]


def upsample(x, style, resample):
    return up2((x * style[:, None, None]).permute(0, 3, 1, 2), resample).permute(0, 2, 3, 1)


def given(b: int, h: int, w: int, c: int):
    "x, norm, noise, strength, bias, style of some images."
    torch.manual_seed(0)
    norm, style = torch.rand(2, b, c) + 0.5
    style[:1, 0] = 0  # a channel that the next one does not read
    noise, bias = torch.randn(h * w), torch.randn(c)
    return torch.randn(b, h, w, c), norm, noise, torch.tensor(0.3), bias, style


def values(f, given, learned) -> list[torch.Tensor]:
    "What f makes of tensors, and the gradient of those that are learned."
    inputs = [x.clone().requires_grad_(i in learned) for i, x in enumerate(given)]
    y = f(*inputs)
    torch.manual_seed(1)
    grad = torch.randn(y.shape).to(y)
    return [y, *torch.autograd.grad(y, [inputs[i] for i in learned], grad)]


def both(kernel, formula, given, backend, learned):
    "Pairs of what a kernel says and the formula in float64."
    there = [x.to('cuda' if backend == 'cuda' else 'cpu') for x in given]
    ours = values(kernel, there, learned)
    return zip(ours, values(formula, [x.double() for x in given], learned))


SHAPES = (1, 4, 4, 4), (2, 20, 20, 16), (3, 5, 7, 12), (2, 1, 1, 8), (1, 16, 32, 48), (0, 4, 4, 4)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_activate(backend, shape):
    def kernel(*a):
        return synthesis._Activate.apply(*a, backend)

    for ours, exact in both(kernel, activate, given(*shape), backend, (0, 1, 3, 4, 5)):
        assert ours.shape == exact.shape
        assert error(ours, exact) < MOST


@pytest.mark.parametrize('resample', ('bilinear', 'fir'))
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_upsample(backend, shape, resample):
    x, *_, style = given(*shape)

    def kernel(*a):
        return synthesis._Upsample.apply(*a, resample, backend)

    def formula(*a):
        return upsample(*a, resample)

    if not shape[0]:
        assert kernel(x, style).shape == (0, 8, 8, 4)
        return
    for ours, exact in both(kernel, formula, (x, style), backend, (0, 1)):
        assert ours.shape == exact.shape
        assert error(ours, exact) < MOST


def test_mix_is_a_convolution_of_one_pixel():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 6, 4), torch.randn(2, 4, 5), torch.randn(5)
    doubles = [v.double().requires_grad_() for v in (x, weight, bias)]
    assert torch.allclose(synthesis._Mix.apply(*doubles), doubles[0] @ doubles[1] + doubles[2])
    assert gradcheck(synthesis._Mix.apply, doubles)


@needs_compiler
@pytest.mark.parametrize('kernel', ('activate', 'upsample'))
def test_no_order_matters(kernel):
    "Lanes and schedules; and what lies beyond the last item is not touched."
    b, h, w, c = 2, 5, 6, 16
    x, norm, noise, strength, bias, style = given(b, h, w, c)
    constants, items = dict(C=c, V=4, RUN=8), b * 4
    back = torch.randn(b, 4 * h * w if kernel == 'upsample' else h * w, c)
    made = []
    for lanes, schedule in ((1, 'loop'), (4, 'forward'), (4, 'reverse'), (4, 'seeded'), (8, 'forward')):
        how = How('cpu', lanes, 32, schedule)
        out, grad_x = torch.full_like(back, torch.nan), torch.full_like(x, torch.nan)
        if kernel == 'upsample':
            sums = torch.full((items + 1, c), torch.nan)
            how.run(kernel, items, (x, style, out, h, w, items), REPEAT=1, **constants)
            args = x, style, back, grad_x, sums, h, w, items
            how.run(f'{kernel}_backward', items, args, REPEAT=1, **constants)
        else:
            inputs = x, norm, noise, strength[None], bias, style
            sums = torch.full((items + 1, 4, c), torch.nan)
            how.run(kernel, items, (*inputs, out, h * w, items), **constants)
            how.run(f'{kernel}_backward', items, (*inputs, back, grad_x, sums, h * w, items), **constants)
        assert sums[-1].isnan().all()
        made.append((out, grad_x, sums[:-1]))
    for other in made[1:]:
        for a, b in zip(made[0], other):
            assert not b.isnan().any()
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(made[1], made[2]))


FAULTS = {
    'a slope of .2': ('activate', '.282842712f', '.2f'),
    'the style forgotten': ('activate', 'y*slope(y)*s', 'y*slope(y)'),
    'a row too far': ('upsample', 'min(i+1, n-1)', 'i+1'),
    'no border': ('upsample', 'REPEAT || i > 0', 'i > 0'),
}


@needs_compiler
@pytest.mark.parametrize('fault', FAULTS)
def test_a_planted_fault_is_seen(fault):
    kernel, old, new = FAULTS[fault]
    x, norm, noise, strength, bias, style = given(1, 4, 4, 4)
    style[0, 0] = 0.7
    constants = dict(C=4, V=4, RUN=4, LANES=1) | (dict(REPEAT=1) if kernel == 'upsample' else {})
    text = K.cuda_source(kernel, **constants)
    assert text.count(old)
    padded = torch.cat([x, torch.full((1, 1, 4, 4), 1e9)], 1).contiguous()  # beyond the picture
    if kernel == 'upsample':
        out, exact = torch.empty(1, 8, 8, 4), upsample(x, style, 'bilinear')
        args = padded, style, out, 4, 4, 4
    else:
        out, exact = torch.empty_like(x), activate(x, norm, noise, strength, bias, style)
        args = x, norm, noise, strength[None], bias, style, out, 16, 4
    K.launch_cpu(kernel, 1, 4, args, text=text)
    assert torch.allclose(out, exact, atol=1e-5)
    K.launch_cpu(kernel, 1, 4, args, text=text.replace(old, new))
    assert not torch.allclose(out, exact, atol=1e-5)


# ---- the whole backbone --------------------------------------------------------------------------


def backbone(**options) -> Triplane:
    "Networks whose noise and biases are not zero."
    small = dict(w_dim=8, channel_base=64, channel_max=8, plane_channels=4, plane_hidden=8)
    sizes = dict(backbone_resolution=16, plane_resolution=32)
    torch.manual_seed(0)
    made = Triplane(BackboneConfig(**small | sizes | options))
    for name, p in made.named_parameters():
        if name.endswith(('bias', 'noise_strength')):
            p.data += 0.2 * torch.randn_like(p)
    return made


KINDS = {
    'ours': {},
    'fir': dict(resample='fir'),
    'EG3D': dict(per_plane=False, plane_resolution=16),
    'wide': dict(plane_channels=16, plane_hidden=20),
}


def gradients(synthesize, networks, w, grad):
    w = w.clone().requires_grad_()
    planes = synthesize(w)
    planes.backward(grad.to(planes))
    return {'planes': planes, 'w': w.grad} | {
        n: p.grad for n, p in networks.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize('plus', (False, True), ids=('w', 'w+'))
@pytest.mark.parametrize('kind', KINDS)
def test_planes_and_every_gradient(backend, kind, plus, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)  # else ten bits of what is convolved
    device = 'cuda' if backend == 'cuda' else 'cpu'
    networks = backbone(**KINDS[kind])
    exact = copy.deepcopy(networks).double()
    networks = networks.to(device)
    torch.manual_seed(1)
    w = torch.randn(3, networks.levels, 8) if plus else torch.randn(3, 8)
    grad = torch.randn(exact(w.double()).shape)
    ours = gradients(lambda w: Ops(backend).synthesize(networks, w), networks, w.to(device), grad)
    theirs = gradients(exact, exact, w.double(), grad)
    assert ours.keys() == theirs.keys()
    scale = max(v.norm() for k, v in theirs.items() if k.endswith('noise_strength'))
    for k, v in theirs.items():
        if k.endswith('noise_strength'):  # a sum that nearly cancels, in one number
            assert (ours[k].cpu() - v).abs() < MOST * scale
        else:
            assert error(ours[k], v) < MOST, k
    planes = ours['planes'].detach()
    assert K.channels_last(planes).data_ptr() == planes.data_ptr()  # as a look-up reads them


def test_who_asks_for_torch_gets_its_bits():
    networks, w = backbone(), torch.randn(2, 8)
    assert torch.equal(Ops('torch').synthesize(networks, w), networks(w))
    x = torch.randn(2, 3, 8, 8)
    assert Ops('torch').arrange(x) is x
    assert torch.equal(Ops('auto').arrange(x), x)
    assert Ops('auto').arrange(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('why', ('autocast', 'width', 'other', 'double', 'empty'))
def test_what_kernels_do_not_do_torch_does(why):
    networks, w = backbone(plane_hidden=6 if why == 'width' else 8), torch.randn(2, 8)
    if why == 'other':
        networks.__class__ = type('Other', (Triplane,), {})
    if why == 'double':
        networks, w = networks.double(), w.double()
    if why == 'empty':
        w = w[:0]
    with torch.autocast('cpu', torch.bfloat16, enabled=why == 'autocast'):
        made, want = Ops('auto').synthesize(networks, w), networks(w)
    assert made.dtype == want.dtype
    assert torch.equal(made, want)


@needs_compiler
def test_the_same_bits_with_any_number_of_threads():
    x, norm, noise, strength, bias, style = given(2, 40, 40, 16)
    threads, made = torch.get_num_threads(), []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        inputs = [v.clone().requires_grad_() for v in (x, norm, strength, bias, style)]
        leaf, norms, strengths, biases, styles = inputs
        z = synthesis._Activate.apply(leaf, norms, noise, strengths, biases, styles, 'cpu')
        z = synthesis._Upsample.apply(z, styles, 'bilinear', 'cpu')
        made.append((z, *torch.autograd.grad(z.square().sum(), [leaf, norms, styles])))
    torch.set_num_threads(threads)
    for other in made[1:]:
        assert all(torch.equal(a, b) for a, b in zip(made[0], other))


def test_a_trained_generator_and_its_copies_agree():
    "The shipped one: by kernels and by torch, copied, and loaded again from its state."
    g = load_generator(device=torch.device('cpu'))
    torch.manual_seed(0)
    front = g.orbit(torch.zeros(1), torch.zeros(1))
    w = g.map(torch.randn(1, g.run.backbone.z_dim), front)
    planes, plain = g.synthesize(w), g.using(ops=Ops('torch')).synthesize(w)
    assert error(planes, plain.double()) < MOST
    again = WYSIWYG.generator(g.run, start=False).eval()
    again.load_state_dict(g.state_dict())
    for other in (copy.deepcopy(g), again):
        assert torch.equal(other.synthesize(w), planes)


def test_a_discriminator_reads_channels_last():
    "Logits, gradients and R1's second derivative, against float64; its weights stay as they are in memory."
    run = override(preset('tiny'), **{'train.batch': 4})
    torch.manual_seed(0)
    d = Discriminator(run.discriminator, run.resolution)
    exact = copy.deepcopy(d).double()
    torch.manual_seed(1)
    x, label = torch.randn(4, 3, run.resolution, run.resolution), torch.randn(4, 25)
    for net in (d, exact):
        kind = next(net.parameters()).dtype
        images = x.to(kind).requires_grad_()
        logits = net(images, label.to(kind))
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        loss = logits.square().sum() + slope.square().sum()
        loss.backward()
    for (name, p), q in zip(d.named_parameters(), exact.parameters()):
        assert p.is_contiguous() and p.grad.is_contiguous()
        assert error(p.grad, q.grad) < 1e-4, name
