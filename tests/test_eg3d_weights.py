"""Official EG3D weights: names and shapes as published, every layer against the papers' formulas in NumPy.

The reference below reads the state dict by its official names and knows nothing of the package.
"""

import json
import math
import pickle
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from wysiwyg.baselines.eg3d import EG3DGenerator, features_of
from wysiwyg.baselines.eg3d_weights import import_eg3d, infer_run, official_shapes, read_weights
from wysiwyg.camera import camera_rays
from wysiwyg.cli import main
from wysiwyg.config import check, override, preset
from wysiwyg.generator import load_generator, save_generator
from wysiwyg.kernels import Ops
from wysiwyg.stylegan import ModulatedConv
from wysiwyg.triplane import Triplane

# ---- what is published: names and shapes of G_ema ------------------------------------------------


def conv_shapes(name: str, n_in: int, n_out: int, w_dim: int, side: int, kernel: int = 3) -> dict:
    shapes = {
        f'{name}.weight': (n_out, n_in, kernel, kernel),
        f'{name}.bias': (n_out,),
        f'{name}.affine.weight': (n_in, w_dim),
        f'{name}.affine.bias': (n_in,),
    }
    if kernel == 3:
        shapes[f'{name}.noise_strength'] = ()
        shapes[f'{name}.noise_const'] = (side, side)
        shapes[f'{name}.resample_filter'] = (4, 4)
    return shapes


def block_shapes(name: str, n_in: int, n_out: int, colours: int, w_dim: int, side: int) -> dict:
    shapes = {f'{name}.resample_filter': (4, 4)}
    if n_in:
        shapes |= conv_shapes(f'{name}.conv0', n_in, n_out, w_dim, side)
    else:
        shapes[f'{name}.const'] = (n_out, side, side)
    shapes |= conv_shapes(f'{name}.conv1', n_out, n_out, w_dim, side)
    return shapes | conv_shapes(f'{name}.torgb', n_out, colours, w_dim, side, kernel=1)


def published_shapes(z=512, w=512, c=25, layers=2, planes=256, plane=32, base=32768, most=512, **sr) -> dict:
    "Sizes default to those of ffhq512; `picture`, `wide`, `hidden` and `features` are super-resolution's."
    picture, wide = sr.get('picture', 512), sr.get('wide', 256)
    features, hidden = sr.get('features', 32), sr.get('hidden', 64)
    shapes, n_in = {'backbone.mapping.w_avg': (w,)}, z
    if c:
        shapes |= {'backbone.mapping.embed.weight': (w, c), 'backbone.mapping.embed.bias': (w,)}
        n_in += w
    for k in range(layers):
        shapes |= {f'backbone.mapping.fc{k}.weight': (w, n_in), f'backbone.mapping.fc{k}.bias': (w,)}
        n_in = w
    n, side = 0, 4
    while side <= planes:
        width = min(most, base // side)
        shapes |= block_shapes(f'backbone.synthesis.b{side}', n, width, 3 * plane, w, side)
        n, side = width, 2 * side
    shapes |= {'decoder.net.0.weight': (hidden, plane), 'decoder.net.0.bias': (hidden,)}
    shapes |= {'decoder.net.2.weight': (1 + features, hidden), 'decoder.net.2.bias': (1 + features,)}
    shapes |= block_shapes('superresolution.block0', features, wide, 3, w, picture // 2)
    shapes |= block_shapes('superresolution.block1', wide, wide // 2, 3, w, picture)
    if picture < 512:
        shapes['superresolution.resample_filter'] = (4, 4)
    return shapes


TAPS = np.array([1.0, 3, 3, 1]) / 8


def random_weights(shapes: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    "No tensor is zero or one, so that each of them shows."
    random, out = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=random)
        if name.endswith('resample_filter'):
            x = torch.tensor(np.outer(TAPS, TAPS), dtype=torch.float32)
        elif '.mapping.fc' in name:
            x = 100 * x
        elif name.endswith('affine.bias'):
            x = 1 + 0.2 * x
        elif name.endswith(('bias', 'noise_strength', 'w_avg')):
            x = 0.3 * x
        out[name] = x
    return out


SMALL = dict(z=12, w=16, planes=16, plane=4, base=128, most=16, picture=32, wide=8, hidden=6, features=5)


# ---- the papers' formulas, slowly ----------------------------------------------------------------


class Reference:
    "EG3D from its state dict; all in float64, one person."

    def __init__(self, weights: dict):
        self.weights = {k: x.double().numpy() for k, x in weights.items()}

    def dense(self, name: str, x: np.ndarray, lr: float = 1.0) -> np.ndarray:
        "Equalised learning rate: W x lr / sqrt(n) + b lr."
        weight, bias = self.weights[f'{name}.weight'], self.weights[f'{name}.bias']
        return x @ weight.T * (lr / math.sqrt(weight.shape[1])) + bias * lr

    def w_of(self, z: np.ndarray, label: np.ndarray, trunc: float = 1.0) -> np.ndarray:
        "Normalised z beside the normalised embedding, then layers with a multiplier of 0.01."
        x = np.concatenate([unit(z), unit(self.dense('backbone.mapping.embed', label))])
        k = 0
        while f'backbone.mapping.fc{k}.weight' in self.weights:
            x, k = leaky(self.dense(f'backbone.mapping.fc{k}', x, 0.01)), k + 1
        mean = self.weights['backbone.mapping.w_avg']
        return mean + trunc * (x - mean)

    def layer(self, name: str, x: np.ndarray, w: np.ndarray, up: bool, noise: bool = True) -> np.ndarray:
        "Modulate and demodulate the weights themselves, convolve, add noise and bias, leaky ReLU."
        weight = self.weights[f'{name}.weight']
        style = self.dense(f'{name}.affine', w)[None, :, None, None]
        scaled = style * weight / math.sqrt(weight[0].size)
        kernel = scaled / np.sqrt((scaled**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        y = doubled_by(kernel, x) if up else correlated(kernel, x)
        if noise:
            y = y + self.weights[f'{name}.noise_strength'] * self.weights[f'{name}.noise_const']
        return leaky(y + self.weights[f'{name}.bias'][:, None, None])

    def colours(self, name: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        "toRGB: modulated, not demodulated, linear."
        weight = self.weights[f'{name}.weight'][:, :, 0, 0]
        kernel = weight * self.dense(f'{name}.affine', w) / math.sqrt(weight.shape[1])
        return np.einsum('oi,ihw->ohw', kernel, x) + self.weights[f'{name}.bias'][:, None, None]

    def planes(self, w: np.ndarray) -> np.ndarray:
        "[3, C, N, N]"
        side, x, out = 4, self.weights['backbone.synthesis.b4.const'], None
        while (name := f'backbone.synthesis.b{side}') + '.conv1.weight' in self.weights:
            x = self.layer(f'{name}.conv0', x, w, up=True) if side > 4 else x
            x = self.layer(f'{name}.conv1', x, w, up=False)
            y = self.colours(f'{name}.torgb', x, w)
            out, side = y if out is None else twice(out) + y, 2 * side
        return out.reshape(3, -1, *out.shape[1:])

    def decoded(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        "[..., C] -> raw density [...], features in (0, 1)."
        hidden = np.logaddexp(0, self.dense('decoder.net.0', features))
        out = self.dense('decoder.net.2', hidden)
        return out[..., 0], 1.002 / (1 + np.exp(-out[..., 1:])) - 0.001

    def enlarged(self, x: np.ndarray, w: np.ndarray, doubles: tuple[bool, bool], noise: bool) -> np.ndarray:
        "Feature image [n, r, r] in [-1, 1] -> picture [3, R, R]."
        picture = x[:3]
        for k, up in enumerate(doubles):
            name = f'superresolution.block{k}'
            x = self.layer(f'{name}.conv0', x, w, up, noise)
            x = self.layer(f'{name}.conv1', x, w, False, noise)
            picture = (twice(picture) if up else picture) + self.colours(f'{name}.torgb', x, w)
        return picture


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean() + 1e-8)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def correlated(kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    "y_p = sum of k_d x_(p + d), zeros outside."
    n, wide = x.shape[1], np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(kernel), n, n))
    for i in range(3):
        for j in range(3):
            seen = wide[:, i : i + n, j : j + n]
            out += np.einsum('oi,ihw->ohw', kernel[:, :, i, j], seen)
    return out


def doubled_by(kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    "Zeros between the pixels, the whole convolution with the kernel, the filter, the middle of it."
    n = x.shape[1]
    out = np.zeros((len(kernel), 2 * n + 8, 2 * n + 8))  # place p has index p + 4
    for i in range(3):
        for j in range(3):  # pixel q gives its multiple of k_d to place 2 q + d
            spread = np.einsum('oi,ihw->ohw', kernel[:, :, i, j], x)
            out[:, 3 + i : 3 + i + 2 * n : 2, 3 + j : 3 + j + 2 * n : 2] += spread
    return filtered(out)[:, 4:-4, 4:-4]


def twice(x: np.ndarray) -> np.ndarray:
    "Zeros between the pixels, then the filter."
    n = x.shape[1]
    out = np.zeros((len(x), 2 * n + 8, 2 * n + 8))
    out[:, 4 : 4 + 2 * n : 2, 4 : 4 + 2 * n : 2] = x
    return filtered(out)[:, 4:-4, 4:-4]


def filtered(x: np.ndarray) -> np.ndarray:
    "[1, 3, 3, 1]/8 along both axes, times four: place p sees p - 2 to p + 1."
    for axis in (1, 2):
        x = sum(2 * tap * np.roll(x, 2 - k, axis) for k, tap in enumerate(TAPS))
    return x


def texel(plane: np.ndarray, i: int, j: int) -> np.ndarray:
    inside = 0 <= i < plane.shape[1] and 0 <= j < plane.shape[2]
    return plane[:, i, j] if inside else np.zeros(len(plane))


def looked_up(planes: np.ndarray, point: np.ndarray, box: float) -> np.ndarray:
    "Mean over planes (x, y), (x, z), (z, x): the first along the width; bilinear, zeros outside."
    out = 0
    for plane, (a, b) in zip(planes, ((0, 1), (0, 2), (2, 0))):
        n = plane.shape[1]
        u = (point[a] / box + 0.5) * n - 0.5
        v = (point[b] / box + 0.5) * n - 0.5
        j, i = math.floor(u), math.floor(v)
        for di, share in ((0, 1 - (v - i)), (1, v - i)):
            for dj, part in ((0, 1 - (u - j)), (1, u - j)):
                out = out + share * part * texel(plane, i + di, j + dj)
    return out / 3


def marched(t: np.ndarray, raw: np.ndarray, colours: np.ndarray, behind: float) -> np.ndarray:
    "Means of neighbours, softplus(mean - 1), alphas, one ray."
    sigma = np.logaddexp(0, (raw[1:] + raw[:-1]) / 2 - 1)
    alpha = 1 - np.exp(-sigma * np.diff(t))
    reached = np.concatenate([[1], np.cumprod(1 - alpha)[:-1]])
    weights = alpha * reached
    return weights @ ((colours[1:] + colours[:-1]) / 2) + (1 - weights.sum()) * behind


# ---- layer by layer ------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def weights() -> dict:
    return random_weights(published_shapes(**SMALL))


@pytest.fixture(scope='module')
def g(weights) -> EG3DGenerator:
    "One pass, in the middle of its strata, so that its samples are known."
    g = import_eg3d(weights, noise=True).double()
    g.run = override(g.run, **{'render.coarse': 9, 'render.fine': 0, 'sampler.jitter': False})
    return g


@pytest.fixture(scope='module')
def slow(weights) -> Reference:
    return Reference(weights)


def person(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    "z and the label of a camera."
    random = torch.Generator().manual_seed(seed)
    return torch.randn(1, 12, generator=random).double(), torch.randn(1, 25, generator=random).double()


def close(ours: torch.Tensor, theirs: np.ndarray, eps: float = 1e-9):
    assert tuple(ours.shape) == theirs.shape
    scale = max(1.0, np.abs(theirs).max())
    assert np.abs(ours.numpy() - theirs).max() < eps * scale


@pytest.mark.parametrize('trunc', [1.0, 0.7])
def test_mapping(g, slow, trunc):
    z, label = person()
    theirs = slow.w_of(z[0].numpy(), label[0].numpy(), trunc)
    close(g.map(z, label, trunc)[0], theirs)


def w_vector() -> torch.Tensor:
    return torch.randn(1, 16, generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize(
    'block, layer', [(0, 'conv1'), (1, 'conv0'), (1, 'conv1'), (2, 'conv0'), (2, 'conv1')]
)
def test_layers_to_the_outermost_ring(g, slow, block, layer):
    conv, name = getattr(g.triplane.blocks[block], layer), f'backbone.synthesis.b{4 << block}'
    up, w = layer == 'conv0', w_vector()
    x = torch.randn(1, conv.weight.shape[1], *[(4 << block) // (1 + up)] * 2).double()
    theirs = slow.layer(f'{name}.{layer}', x[0].numpy(), w[0].numpy(), up)
    close(conv(x, w)[0], theirs)
    out = g.triplane.blocks[block].out
    y = torch.randn(1, out.weight.shape[1], 4 << block, 4 << block).double()
    close(out(y, w)[0], slow.colours(f'{name}.torgb', y[0].numpy(), w[0].numpy()))


def test_planes(g, slow):
    w = w_vector()
    close(g.synthesize(w).planes[0], slow.planes(w[0].numpy()))


def test_kernels_leave_such_layers_to_torch():
    "The kernels of synthesis cut off at the border; asked for, they give the same as torch."
    backbone = override(preset('tiny'), **{'backbone.resample': 'stylegan2'}).backbone
    torch.manual_seed(0)
    triplane, w = Triplane(backbone).requires_grad_(False), torch.randn(2, backbone.w_dim)
    assert torch.equal(Ops('auto').synthesize(triplane, w).contiguous(), triplane(w))


def test_places_and_decoder(g, slow):
    w = w_vector()
    scene = g.synthesize(w)
    x = (torch.rand(1, 40, 3, generator=torch.Generator().manual_seed(3)).double() - 0.5) * 1.3
    found = [looked_up(scene.planes[0].numpy(), p, 1.0) for p in x[0].numpy()]
    close(g.look_up(scene.planes, x)[0], np.stack(found))
    raw, features = slow.decoded(np.stack(found))
    ours = g.at(scene, x)
    close(ours[0][0], raw)
    close(ours[1][0], features)


@pytest.mark.parametrize('scene, behind', [('ffhq', 0.0), ('shapenet', 1.0)])
def test_marching(weights, slow, scene, behind):
    "A feature image of 3 x 3 rays, sample by sample."
    g = import_eg3d(weights, scene, noise=True).double()
    g.run = override(g.run, **{'render.coarse': 9, 'render.fine': 0, 'sampler.jitter': False})
    c, made = g.run.render, g.synthesize(w_vector())
    rays = camera_rays(g.orbit(torch.tensor([0.3]).double(), torch.tensor([0.1]).double()), 3)
    seen = features_of(g, made, rays, key=0).rgb[0]
    t = c.near + (np.arange(9) + 0.5) * (c.far - c.near) / 9
    planes, expected = made.planes[0].numpy(), []
    for origin, direction in zip(rays.origins.expand_as(rays.dirs)[0].numpy(), rays.dirs[0].numpy()):
        assert np.linalg.norm(direction) == pytest.approx(1)
        said = [looked_up(planes, origin + s * direction, c.box) for s in t]
        expected.append(marched(t, *slow.decoded(np.stack(said)), behind))
    close(seen, np.stack(expected), 1e-7)
    assert g.view == ((2.7, 4.2647) if scene == 'ffhq' else (1.7, 1.7074))


@pytest.mark.parametrize('picture, first, doubles', [(32, 16, (False, True)), (512, 128, (True, True))])
@pytest.mark.parametrize('noise', [False, True])
def test_super_resolution(picture, first, doubles, noise):
    sizes = SMALL | dict(picture=picture, wide=2 if picture == 512 else 8)
    weights = random_weights(published_shapes(**sizes))
    enlarger = import_eg3d(weights, noise=noise).double().enlarger
    w, x = w_vector(), torch.randn(1, 5, first, first).double()
    theirs = Reference(weights).enlarged(x[0].numpy(), w[0].numpy(), doubles, noise)
    assert theirs.shape == (3, picture, picture)
    close(enlarger(x, w)[0], theirs)


def test_the_whole(g, slow):
    "z and a camera -> the picture: every part behind the other, with nothing of ours between."
    z, _ = person()
    camera = g.orbit(torch.tensor([-0.2]).double(), torch.tensor([0.1]).double())
    w = slow.w_of(z[0].numpy(), camera.label[0].double().numpy(), 0.7)
    planes, c, side = slow.planes(w), g.run.render, 16
    rays, features = camera_rays(camera, side), []
    t = c.near + (np.arange(9) + 0.5) * (c.far - c.near) / 9
    for origin, direction in zip(rays.origins.expand_as(rays.dirs)[0].numpy(), rays.dirs[0].numpy()):
        said = [looked_up(planes, origin + s * direction, c.box) for s in t]
        features.append(marched(t, *slow.decoded(np.stack(said)), 0.0))
    image = 2 * np.stack(features).T.reshape(5, side, side) - 1
    theirs = (slow.enlarged(image, w, (False, True), True) + 1) / 2
    ours = g(z, camera, trunc=0.7).image()[0]
    close(ours, theirs, 1e-6)


# ---- sizes, scenes, names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    'sizes, upsampled',
    [
        (dict(picture=512, wide=256), 128),
        (dict(picture=256, wide=128), 128),
        (dict(picture=128, wide=128), 64),
        (dict(picture=512, c=0, layers=8, z=256), 128),
    ],
)
def test_published_sizes_are_found(sizes, upsampled):
    shapes = published_shapes(**sizes)
    run = infer_run(shapes)
    check(run, heads=False)
    b = run.backbone
    layers, z, labels = sizes.get('layers', 2), sizes.get('z', 512), sizes.get('c', 25)
    assert (b.mapping_layers, b.z_dim, b.label_dim, b.w_dim) == (layers, z, labels, 512)
    assert (b.channel_base, b.channel_max) == (32768, 512)
    assert (b.backbone_resolution, b.plane_channels, run.eg3d.features) == (256, 32, 32)
    assert (run.resolution, run.eg3d.upsampled, run.eg3d.hidden) == (sizes['picture'], upsampled, 64)
    assert run.eg3d.resolution(0) == 64
    wanted = {k: v for k, v in shapes.items() if not k.endswith('resample_filter')}
    assert official_shapes(run) == wanted  # every tensor, by name and shape, and none else


def test_scenes():
    shapes = published_shapes(**SMALL)
    faces, cars = infer_run(shapes), infer_run(shapes, 'shapenet', 8)
    assert (faces.render.near, faces.render.far, faces.render.box) == (2.25, 3.3, 1.0)
    assert (cars.render.near, cars.render.far, cars.render.box) == (0.1, 2.6, 1.6)
    assert (cars.render.coarse, cars.render.fine, cars.eg3d.resolution(0)) == (64, 64, 8)
    assert infer_run(shapes, 'afhq').render == faces.render


def test_a_mapping_that_was_told_no_camera_is_told_none(weights, slow):
    "As published for ShapeNet: it sees zeros, whatever is rendered."
    z, label = person()
    theirs = slow.w_of(z[0].numpy(), np.zeros(25))
    close(import_eg3d(weights, 'shapenet').double().map(z, label)[0], theirs)


def test_an_import_is_written_and_read_to_the_bit(weights, tmp_path):
    g = import_eg3d(weights)
    save_generator(g, tmp_path / 'generator.safetensors')
    again = load_generator(tmp_path, torch.device('cpu'))
    assert again.run == g.run
    for (name, a), b in zip(g.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    camera = g.orbit(torch.zeros(1), torch.zeros(1))
    a, b = [one(torch.ones(1, 12), camera).rgb for one in (g, again)]
    assert torch.equal(a, b)


def test_weights_of_half_precision_are_taken(weights):
    halved = {name: x.half() for name, x in weights.items()}
    assert import_eg3d(halved).decoder.layers[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    'change, said',
    [
        ({'decoder.net.2.bias': None}, 'missing: decoder.net.2.bias'),
        ({'superresolution.block1.conv1.noise_const': None}, 'noise_const is missing'),
        ({'backbone.synthesis.b8.torgb.weight': None}, 'missing: backbone.synthesis.b8.torgb.weight'),
        ({'decoder.net.4.weight': (3, 3)}, 'not of our generator: decoder.net.4.weight'),
        ({'backbone.synthesis.b8.skip.weight': (1,)}, 'not of our generator: backbone.synthesis.b8.skip'),
        ({'backbone.synthesis.b16.conv1.bias': (3,)}, r'b16.conv1.bias is \[3\], beside the others'),
        ({'backbone.mapping.w_avg': (20,)}, 'beside the others it should be'),
        ({'backbone.mapping.embed.weight': (16, 7)}, 'takes 7 numbers, and a camera has 25'),
        ({'superresolution.block1.conv1.noise_const': (1024, 1024)}, 'a picture of 1024 pixels'),
        ({'superresolution.block1.conv1.noise_const': ()}, 'too few axes'),
        ({'superresolution.block1.conv1.noise_const': (24, 24)}, 'give'),
        ({'backbone.synthesis.b8.resample_filter': (4, 4)}, 'is not the filter'),
        ({'superresolution.block0.resample_filter': (2, 2)}, 'is not the filter'),
    ],
)
def test_what_cannot_be_ours_is_named_in_a_line(weights, change, said):
    some = dict(weights)
    for name, shape in change.items():
        some.pop(name, None)
        if shape is not None:
            some[name] = torch.ones(shape)
    with pytest.raises(ValueError, match=said) as e:
        import_eg3d(some)
    assert '\n' not in str(e.value)


# ---- files and the command line ------------------------------------------------------------------


ONE_FOR_ALL = torch.zeros(1000)


class Trap:
    "Writes a file where it is unpickled."

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path):
    sprung = tmp_path / 'sprung'
    (tmp_path / 'ffhq.pkl').write_bytes(pickle.dumps({'G_ema': Trap(sprung)}))
    (tmp_path / 'renamed.pt').write_bytes(pickle.dumps({'G_ema': Trap(sprung)}))
    torch.save({'a': torch.zeros(1), 'b': Trap(sprung)}, tmp_path / 'mixed.pt')
    for name in ('ffhq.pkl', 'renamed.pt', 'mixed.pt'):
        with pytest.raises(ValueError, match='import pickle, torch; G = pickle.load') as e:
            read_weights(tmp_path / name)
        assert '\n' not in str(e.value)
    assert not sprung.exists()
    pickle.loads((tmp_path / 'ffhq.pkl').read_bytes())
    assert sprung.exists()  # the trap is one


@pytest.mark.parametrize(
    'held, said',
    [
        ([1], 'holds a list'),
        ({}, 'holds a dict'),
        ({'G_ema': {'a': torch.zeros(1)}}, "'G_ema' is a dict, not a tensor"),
        ({'a': torch.zeros(1, dtype=torch.int64)}, "'a' is torch.int64"),
        ({'a': torch.zeros(1, dtype=torch.complex64)}, "'a' is torch.complex64"),
        ({'a': torch.zeros(2).to(torch.float8_e4m3fn)}, "'a' is torch.float8_e4m3fn"),
        ({'a': torch.eye(3).to_sparse()}, "'a' is torch.sparse_coo, not dense"),
        ({'a': torch.zeros(2, device='meta')}, "'a' has no numbers"),
        ({'a': torch.zeros(1).expand(10**7, 10**6)}, "'a' says it has 10000000000000 numbers, and holds 1"),
        ({'a': torch.zeros(3, 2, 2).as_strided((3, 4, 4), (1, 1, 1))}, "'a' says it has 48 numbers"),
        ({f'a{k}': ONE_FOR_ALL for k in range(40)}, 'tensors of 160000 bytes'),
        ({'a': torch.tensor([math.nan])}, "'a' is not finite as float32"),
        ({'a': torch.tensor([1e300], dtype=torch.float64)}, "'a' is not finite as float32"),
        ({1: torch.zeros(1)}, 'a tensor is called by a int, not by a name'),
        ({torch.zeros(1): torch.zeros(1)}, 'a tensor is called by a Tensor, not by a name'),
        ({('a', 'b'): torch.zeros(1)}, 'a tensor is called by a tuple, not by a name'),
        ({'a\nb': torch.zeros(1)}, r"'a\\nb' is no name of a tensor"),
        ({'a' * 10**6: torch.zeros(1)}, 'is no name of a tensor'),
    ],
)
def test_files_that_hold_something_else(tmp_path, held, said, capsys):
    torch.save(held, tmp_path / 'weights.pt')
    with pytest.raises(ValueError, match=said) as e:
        read_weights(tmp_path / 'weights.pt')
    assert '\n' not in str(e.value) and len(str(e.value)) < 300
    code, out, err = called(f'import-eg3d {tmp_path}/weights.pt --outdir {tmp_path}/made', capsys)
    assert (code, out, err) == (1, '', f'error: {e.value}\n')
    assert not (tmp_path / 'made').exists()


def test_safetensors_of_other_kinds_are_refused(tmp_path):
    from safetensors.torch import save_file

    for kind in (torch.float8_e5m2, torch.int8, torch.bool):
        save_file({'a': torch.zeros(4).to(kind)}, tmp_path / 'a.safetensors')
        with pytest.raises(ValueError, match=f"'a' is {kind}"):
            read_weights(tmp_path / 'a.safetensors')
    save_file({'a': torch.full((2,), 1e39, dtype=torch.float64)}, tmp_path / 'a.safetensors')
    with pytest.raises(ValueError, match="'a' is not finite as float32"):
        read_weights(tmp_path / 'a.safetensors')


def test_what_may_be_a_weight_is_taken(tmp_path):
    "Parameters, a slice of a larger storage, a transposed matrix, tied tensors, an empty one, every width."
    wide = torch.arange(4096.0)
    held = {
        'slice': wide[3:9],
        'turned': wide[:6].view(2, 3).T,
        'parameter': torch.nn.Parameter(torch.ones(2)),
        'tied': wide[3:9],
        'empty': torch.zeros(0),
        'scalar': torch.tensor(2.0),
        **{str(kind): torch.ones(3, dtype=kind) for kind in (torch.half, torch.bfloat16, torch.double)},
    }
    torch.save(held, tmp_path / 'a.pt')
    found = read_weights(tmp_path / 'a.pt')
    assert found.keys() == held.keys()
    for name, x in found.items():
        assert x.dtype == torch.float32 and not x.requires_grad
        assert torch.equal(x, held[name].detach().float()), name


def test_a_torch_file_with_changed_bytes_is_read_or_refused_in_a_line(tmp_path):
    "AssertionError, IndexError, TypeError and more come from torch.load; a ValueError from here."
    path, random = tmp_path / 'a.pt', np.random.default_rng(0)
    torch.save({'a': torch.ones(3), 'b': torch.zeros(2, 2)}, path)
    whole, refused = path.read_bytes(), 0
    pickled = whole.index(b'\x80\x02}'), whole.index(b'PK\x07\x08')
    for _ in range(600):
        changed = bytearray(whole)
        for place in random.integers(*pickled, size=random.integers(1, 5)):
            changed[place] = random.integers(256)
        path.write_bytes(changed)
        try:
            read_weights(path)
        except ValueError as e:
            refused += 1
            assert '\n' not in str(e)
    assert refused > 300


@pytest.mark.parametrize('name', ['weights.pt', 'weights.safetensors'])
@pytest.mark.parametrize('part', [0, 100, 5000])
def test_damaged_files(tmp_path, weights, name, part):
    from safetensors.torch import save_file

    save = save_file if name.endswith('safetensors') else torch.save
    save(weights, tmp_path / name)
    assert read_weights(tmp_path / name).keys() == weights.keys()
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:part])
    with pytest.raises(ValueError) as e:
        read_weights(tmp_path / name)
    assert name in str(e.value)
    assert '\n' not in str(e.value)


def called(line: str, capsys) -> tuple[int, str, str]:
    code = main(shlex.split(line))
    return code, *capsys.readouterr()


def test_the_program_imports_and_what_it_made_is_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('WYSIWYG_RUNS', str(tmp_path / 'runs'))
    weights = random_weights(published_shapes(**SMALL))
    weights['decoder.net.2.bias'][0] = 4  # there is matter
    torch.save(weights, tmp_path / 'G_ema.pt')
    line = f'import-eg3d {tmp_path}/G_ema.pt --outdir {tmp_path}/made --json'
    code, out, err = called(line, capsys)
    assert code == 0, err
    told = json.loads(out)
    assert (told['picture'], told['feature_image'], told['planes']) == (32, 16, '3 x 4 x 16^2')
    code, _, err = called(line, capsys)
    assert (code, 'is there already' in err) == (1, True)
    network = f'--network {tmp_path}/made/generator.safetensors'
    for line in (
        f'render {network} --outdir {tmp_path}/pictures --seeds 0-1 --grid',
        f'mesh {network} --out {tmp_path}/head.ply --resolution 16 --level 1',
        f'video {network} --out {tmp_path}/head.mp4 --frames 2',
    ):
        code, _, err = called(line, capsys)
        assert code == 0, err
    assert {p.name for p in tmp_path.iterdir()} >= {'pictures', 'head.ply', 'head.mp4'}
    code, _, err = called(f'import-eg3d {tmp_path}/x.pkl --outdir {tmp_path}/other', capsys)
    assert (code, 'no weights at' in err) == (1, True)
    assert not (tmp_path / 'other').exists()


@pytest.mark.parametrize('scene', ['ffhq', 'shapenet'])
@pytest.mark.parametrize('camera', [0, 25])
@pytest.mark.parametrize('noise', ['', '--noise'])
def test_what_is_left_out_is_told_where_it_is_there(tmp_path, capsys, scene, camera, noise):
    torch.save(random_weights(published_shapes(**SMALL | {'c': camera})), tmp_path / 'G_ema.pt')
    line = f'import-eg3d {tmp_path}/G_ema.pt --outdir {tmp_path}/made --scene {scene} {noise} --json'
    code, out, err = called(line, capsys)
    assert code == 0, err
    told = json.loads(out)['left_out']
    silent = load_generator(tmp_path / 'made', torch.device('cpu')).state_dict()
    strengths = [x for name, x in silent.items() if name.startswith('enlarger') and 'strength' in name]
    assert any('noise' in words for words in told) == (not any(strengths)) == (not noise)
    blind = camera > 0 and not silent['mapping.embed.weight'].any()
    assert any('camera' in words for words in told) == blind == (scene == 'shapenet' and camera > 0)
    assert len(told) == (not noise) + blind


def test_the_published_sizes_run_at_512(tmp_path):
    "One picture of 512 over a feature image of 64, with few samples, in official names and shapes."
    began = time.time()
    g = import_eg3d(random_weights(published_shapes()))
    g.run = override(g.run, **{'render.coarse': 4, 'render.fine': 4})
    doubling = [m for m in g.modules() if isinstance(m, ModulatedConv) and m.up]
    assert len(doubling) == 8  # six of the backbone, both of super-resolution
    camera = g.orbit(torch.zeros(1), torch.zeros(1))
    out = g(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)), camera)
    assert out.image().shape == (1, 3, 512, 512)
    assert out.image().isfinite().all()
    assert out.image().std() > 0.01
    print(f'{time.time() - began:.1f} s')
