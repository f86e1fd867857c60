"Inversion: the truth as a rendering, what is optimised and what is not, grouping of pictures, refusals."

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import PIXELS, small_generator

from wysiwyg.camera import gaussian_cameras, orbit
from wysiwyg.config import HeadsConfig
from wysiwyg.core import rng
from wysiwyg.heads import head_camera, _head_row
from wysiwyg.inversion import _fit, _true_head, geometry_error, invert, likeness, roughness, seen, true_heads
from wysiwyg.volrend import Rendering


@pytest.fixture(scope='module')
def g():
    return small_generator()


def test_a_true_head_is_what_the_set_holds():
    import io
    from PIL import Image

    config = HeadsConfig(resolution=32, seed=5)
    png, _, true = _head_row(config, 3)
    out = _true_head(3, head_camera(config, 3), config, 3.2)
    stored = torch.from_numpy(np.array(Image.open(io.BytesIO(png))))
    rendered = (out.image() * 255).round().byte()[0].permute(1, 2, 0)
    assert torch.equal(rendered, stored)
    solid = torch.from_numpy(true['mask'].reshape(-1) == 255)
    depth = torch.from_numpy(true['depth'].reshape(-1).astype('float32')) * config.radius / 2**15
    assert torch.allclose(out.depth[0][solid], depth[solid], atol=1e-4)
    assert (out.depth[0][out.opacity[0] == 0] == 3.2).all()
    both = true_heads([3, 3], head_camera(config, 3)[[0, 0]], config, 3.2)
    assert torch.equal(both.rgb[1], out.rgb[0])
    assert both.normal.shape == (2, 32 * 32, 3)


def test_geometry_error_measures_where_both_are_solid():
    rgb = torch.rand(1, 4, 3, generator=rng(0))
    depth = torch.full((1, 4), 2.5)
    normal = torch.tensor([0.0, 0, 1]).expand(1, 4, 3)
    true = Rendering(rgb, depth, torch.ones(1, 4), 0 * depth, normal)
    assert geometry_error(true, true, 3.2) == {'depth': 0, 'normal': 0, 'overlap': 1, 'psnr': 100}
    part = torch.tensor([[1.0, 1, 0, 0]])  # half of the head is missing; what is there lies .1 behind
    turned = torch.tensor([0.0, 1, 0]).expand(1, 4, 3)
    out = Rendering(rgb, torch.where(part > 0, 2.6, 3.2), part, 0 * depth, turned)
    e = geometry_error(out, true, 3.2)
    assert e['depth'] == pytest.approx(0.1, abs=1e-5)
    assert e['normal'] == pytest.approx(90)
    assert e['overlap'] == 0.5


def test_fit_descends_and_roughness_sees_steps():
    x = torch.ones(3, requires_grad=True)
    told = []
    curve = _fit('x', [x], lambda k: x.square().sum(), 60, 0.1, lambda *said: told.append(said))
    assert told[0] == ('x', 1, 60, curve[0]) and len(told) == 60
    assert len(curve) == 60
    assert curve[-1] < 0.05 * curve[0]
    step = torch.zeros(1, 3, 1, 4, 4)
    step[..., 2:] = 1
    assert roughness(step) == pytest.approx(1 / 3)
    assert roughness(step + 5) == pytest.approx(1 / 3)


def test_likeness_adds_features():
    a, b = torch.rand(2, 2, 3, 32, 32, generator=rng(1))
    assert likeness(a, b) == pytest.approx((a - b).square().mean().item())
    assert likeness(a, a, PIXELS) == 0
    assert likeness(a, b, PIXELS, 2.0) > likeness(a, b, PIXELS, 1.0) > likeness(a, b)


def test_invert_meets_its_pictures_and_leaves_the_generator_alone(g):
    cameras, r = gaussian_cameras(3, rng(2)), g.run.resolution
    with torch.no_grad():
        planes = g.synthesize(torch.randn(2, g.run.backbone.w_dim, generator=rng('people')))
    who = torch.tensor([0, 1, 0])
    images = seen(g, planes[who], cameras).image()
    before = {k: v.clone() for k, v in g.state_dict().items()}
    short = dict(steps=(4, 6), rates=(0.1, 0.003), smooth=0.0, sides=(r // 4, r // 2))

    def go(**k):
        return invert(g, images, cameras, who, extractor=PIXELS, **short, **k)

    found = go()
    assert found.w.shape == (2, g.run.backbone.w_dim)
    assert found.planes.shape == planes.shape
    assert len(found.curve) == 10
    assert found.curve[3] < found.curve[0]
    assert found.curve[9] < found.curve[4]
    assert not torch.equal(found.planes, found.pivot)
    assert all(torch.equal(v, before[k]) for k, v in g.state_dict().items())
    assert torch.equal(go().planes, found.planes)  # nothing is random but the keyed samples
    stiff = go(keep=1e4)
    assert (stiff.planes - stiff.pivot).square().mean() < (found.planes - found.pivot).square().mean()


def test_refusals(g):
    r = g.run.resolution
    images, cameras = torch.rand(2, 3, r, r), orbit(torch.zeros(2), torch.zeros(2))
    for bad, who, why in (
        (images[..., :8], None, 'images must have shape'),
        (images[:1], None, 'images must have shape'),
        (images, torch.tensor([0]), r'who must have shape \[N\] .* got \[1\]'),
        (images, torch.tensor([1, 1]), 'leave none out'),
        (images, torch.tensor([0, -1]), 'leave none out'),
        (images, torch.tensor([0, 10**15]), 'leave none out'),
        (images, torch.tensor([[0, 1]]), r'who must have shape \[N\] .* got \[1, 2\]'),
        (images, [0, 1], 'who must be a tensor of shape'),
        (images, torch.tensor([0.0, 1.0]), r'who must be int64, got torch.float32: give who.long\(\)'),
        (images, torch.tensor([False, True]), r'who must be int64, got torch.bool: give who.long\(\)'),
        (images.byte(), None, r'images must be floats in \[0, 1\], got torch.uint8: give images / 255'),
        (images * math.nan, None, r'images must be finite'),
    ):
        with pytest.raises(ValueError, match=why):
            invert(g, bad, cameras, who, extractor=PIXELS)
    with pytest.raises(ValueError, match='there is no picture to invert: give at least one'):
        invert(g, images[:0], cameras[:0], extractor=PIXELS)
    out = seen(g, g.synthesize(g.mapping.w_mean[None]), cameras[:1])
    with pytest.raises(ValueError, match='mask is empty'):
        geometry_error(replace(out, opacity=0 * out.opacity), out, 3.2)
