"Inversion: the truth as a rendering, what is optimised and what is not, grouping of pictures, refusals."

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import PIXELS, small_generator

from wysiwyg.camera import camera_angles, gaussian_cameras, orbit
from wysiwyg.config import METHODS, HeadsConfig, override, preset
from wysiwyg.core import Camera, rng
from wysiwyg.generator import load_generator, method_of
from wysiwyg.heads import head_camera, _head_row
from wysiwyg.inversion import (
    _fit,
    _true_head,
    _turned,
    class_means,
    geometry_error,
    invert,
    likeness,
    roughness,
    seen,
    true_heads,
    true_objects,
    tune,
)
from wysiwyg.objects import ObjectsConfig, objects_truth, render_objects
from wysiwyg.readers import find_camera, find_depth
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
    short = dict(steps=(4, 6), rates=(0.1, 0.003), near=0.003, smooth=0.0)
    short |= dict(sides=(r // 4, r // 2))

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


# ---- cameras -------------------------------------------------------------------------------------


def test_turned_cameras_are_those_of_orbit():
    cameras = gaussian_cameras(5, rng('turned'), radius=2.2, focal=3.1)
    more = 0.3 * torch.randn(5, 2, generator=rng('more'))
    yaw, pitch = (camera_angles(cameras) + more).unbind(1)
    assert torch.allclose(_turned(cameras, more).label, orbit(yaw, pitch, 2.2, 3.1).label, atol=1e-5)
    assert torch.equal(_turned(cameras, torch.zeros(5, 2)).label, cameras.label)


def test_a_camera_turns_beside_w(g):
    "Towards the true one, of a person that the generator shows."
    true = orbit(torch.tensor([0.3]), torch.tensor([0.1]))
    with torch.no_grad():
        planes = g.synthesize(g.mapping.w_mean[None])
    picture = seen(g, planes, true).image()
    start = orbit(torch.tensor([0.2]), torch.tensor([0.0]))
    how = dict(steps=(12, 0), rates=(1e-4, 0.0), extractor=PIXELS, feature=0.0, sides=(32, 32))
    turned = invert(g, picture, start, turn=0.01, **how)
    kept = invert(g, picture, start, **how)
    assert torch.equal(kept.cameras.label, start.label)
    assert turned.curve[-1] < kept.curve[-1]
    assert not torch.equal(turned.cameras.label, start.label)


def test_a_picture_without_a_camera_gets_the_found_one(g):
    pictures = torch.rand(2, 3, 32, 32, generator=rng('no camera'))
    found = invert(g, pictures, steps=(1, 0), extractor=PIXELS)
    assert torch.equal(found.cameras.label, find_camera(pictures, g.view)[0].label)


# ---- methods -------------------------------------------------------------------------------------


def small_of(system: str, **options):
    run = preset('tiny', system=system)
    method = method_of(run)
    torch.manual_seed(0)
    return method.generator(override(method.adapted(run), **options)).eval().requires_grad_(False)


@pytest.mark.parametrize('system', METHODS)
def test_any_method_is_inverted_and_tuned(system):
    g = small_of(system)
    who = torch.zeros(2, dtype=torch.long)
    cameras = g.orbit(torch.tensor([0.3, -0.4]), torch.zeros(2))
    with torch.no_grad():
        target = g.synthesize(torch.randn(1, g.run.backbone.w_dim, generator=rng('target')))
        wanted = g.render(target[who], cameras).image()
    before = {k: v.clone() for k, v in g.state_dict().items()}
    free = dict(extractor=PIXELS, feature=0.01, keep=0.0, smooth=0.0)
    free_w = dict(near=0.0, steps=(4, 4))
    found = invert(g, wanted, cameras, who, **free_w, **free)
    assert found.w.shape == (1, g.run.backbone.w_dim)
    assert found.curve[3] < found.curve[0] and found.curve[7] < found.curve[4]
    assert type(found.planes) is type(found.pivot) is type(target)
    tuned = tune(g, found, wanted, steps=3, **free)
    assert all(torch.equal(v, before[k]) for k, v in g.state_dict().items())
    others = [k for k, v in tuned.state_dict().items() if not v.equal(before[k])]
    assert {k.split('.')[0] for k in others} == {'triplane', 'mapping'}
    wrong = []
    for m in (g, tuned):
        with torch.no_grad():
            shown = m.render(m.synthesize(found.w)[who], cameras).image()
        wrong.append((shown - wanted).square().mean())
    assert wrong[1] < wrong[0]


@pytest.mark.parametrize('system', METHODS)
def test_fog_has_no_depth_to_be_held(system):
    "Nothing is solid before a training, and an unknown depth asks for nothing."
    g = small_of(system)
    camera, picture = g.orbit(torch.zeros(1), torch.zeros(1)), torch.rand(1, 3, 32, 32, generator=rng('fog'))
    how = dict(steps=(2, 1), extractor=PIXELS)
    unknown = torch.full((1, 32, 32), math.nan)
    free = invert(g, picture, camera, **how)
    held = invert(g, picture, camera, depth=unknown, **how)
    assert held.curve == free.curve
    assert all(map(math.isfinite, held.curve))


def test_a_surface_comes_to_the_depth_that_is_read():
    "Of people whom the generator never saw."
    g = load_generator(device=torch.device('cpu'))
    far, side = g.run.render.far, g.run.resolution
    cameras = g.orbit(torch.tensor([0.25, -0.4]), torch.zeros(2))
    true = true_heads([40, 41], cameras, HeadsConfig(resolution=side, seed=1000, supersample=1), far)
    image, read = true.image(), find_depth(true.image())
    how = dict(steps=(12, 3), sides=(32, 32), extractor=PIXELS, feature=0.0)
    free, held = invert(g, image, cameras, **how), invert(g, image, cameras, depth=read, **how)
    off = [geometry_error(seen(g, found.planes, cameras), true, far)['depth'] for found in (free, held)]
    assert off[1] < 0.75 * off[0]
    with pytest.raises(ValueError, match='depth must have shape'):
        invert(g, image, cameras, depth=read[:1], **how)


def test_a_scene_keeps_its_w_and_detail_is_tuned():
    g = small_of('mimic3d')
    cameras = g.orbit(torch.zeros(1), torch.zeros(1))
    wanted = torch.rand(1, 3, 32, 32, generator=rng('wanted'))
    found = invert(g, wanted, cameras, steps=(1, 2), extractor=PIXELS)
    assert torch.equal(found.planes.w, found.w) and torch.equal(found.pivot.w, found.w)
    for name in ('planes', 'detail'):
        assert not torch.equal(getattr(found.planes, name), getattr(found.pivot, name))


@pytest.mark.parametrize('system', METHODS)
def test_every_method_has_w_for_each_level(system):
    "They begin where one w for all does, and go ways of their own."
    g = small_of(system)
    picture = torch.rand(1, 3, 32, 32, generator=rng('wanted'))
    how = dict(cameras=g.orbit(torch.zeros(1), torch.zeros(1)), steps=(8, 0), near=0.0, extractor=PIXELS)
    one, each = invert(g, picture, **how), invert(g, picture, plus=True, **how)
    assert each.w.shape == (1, g.triplane.levels, g.run.backbone.w_dim)
    assert len(each.w[0].unique(dim=0)) == g.triplane.levels
    assert each.curve[0] == pytest.approx(one.curve[0], rel=1e-4)
    assert each.curve[-1] < each.curve[0]


@pytest.mark.parametrize('system', METHODS)
def test_every_method_names_a_w_that_it_cannot_read(system):
    g = small_of(system)
    width, levels = g.run.backbone.w_dim, g.triplane.levels
    w = torch.zeros(2, levels, width)
    for bad, why in (
        (w[:, 0, 1:], rf"w must have shape \[B W\] with {{'W': {width}}}, got \[2, {width - 1}\]"),
        (w[0, 0], r'w must have shape \[B W\]'),
        (w[:, 1:], rf"w must have shape \[B L W\] with {{'L': {levels}, 'W': {width}}}"),
        (w[..., 1:], rf"with {{'L': {levels}, 'W': {width}}}, got \[2, {levels}, {width - 1}\]"),
        (w[:, 0].double(), 'w is torch.float64 and the weights torch.float32: give both one type'),
        (w[:, 0].long(), 'w is torch.int64 and the weights torch.float32'),
    ):
        with pytest.raises(ValueError, match=why):
            g.synthesize(bad)
    g.synthesize(w), g.synthesize(w[:, 0])


def test_a_method_without_poses_wants_cameras():
    with pytest.raises(ValueError, match='imagenet3d learns no poses of heads.*: give cameras'):
        invert(small_of('imagenet3d'), torch.rand(1, 3, 32, 32), extractor=PIXELS)


def test_w_begins_at_the_mean_of_a_class_and_is_held_there():
    g = small_of('imagenet3d', **{'backbone.label_dim': 3})
    means = class_means(g)
    assert means.shape == (3, g.run.backbone.w_dim)
    z = torch.randn(4000, g.run.backbone.z_dim, generator=rng('many'))
    of_second = g.map(z, torch.tensor([0.0, 1, 0]).expand(4000, -1)).mean(0)
    assert torch.allclose(of_second, means[1], atol=0.15)
    assert (means[0] - means[1]).norm() > 5 * (of_second - means[1]).norm()
    picture, camera = torch.rand(1, 3, 32, 32), g.orbit(torch.zeros(1), torch.zeros(1))
    begun = invert(g, picture, camera, start=means[[1]], steps=(1, 0), rates=(0.0, 0.0), extractor=PIXELS)
    assert torch.equal(begun.w, means[[1]])
    held = invert(g, picture, camera, start=means[[1]], steps=(5, 0), near=1e6, extractor=PIXELS)
    free = invert(g, picture, camera, start=means[[1]], steps=(5, 0), near=0.0, extractor=PIXELS)
    assert (held.w - means[1]).norm() < (free.w - means[1]).norm()


def test_a_start_that_does_not_fit_is_refused():
    g = small_of('imagenet3d', **{'backbone.label_dim': 3})
    picture, camera = torch.rand(1, 3, 32, 32), g.orbit(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match=r'start must be a w for each person, \[1, 64\], got \[3, 64\]'):
        invert(g, picture, camera, start=class_means(g), extractor=PIXELS)
    with pytest.raises(ValueError, match=r'this generator \(wysiwyg\) learned no classes'):
        class_means(load_generator(device=torch.device('cpu')))


def test_a_true_object_is_what_its_set_withholds(tmp_path):
    config = ObjectsConfig(n=9, resolution=16, workers=1, seed=4)
    known = objects_truth(render_objects(config, tmp_path / 'o.zip', progress=False))
    cameras = Camera.from_label(torch.from_numpy(known['cameras']))
    out = true_objects(list(range(9)), cameras, config, 4.0)
    solid = torch.from_numpy(known['mask'].reshape(9, -1) == 255)
    depth = torch.from_numpy(known['depth'].reshape(9, -1).astype('float32'))
    assert torch.allclose(out.depth[solid], depth[solid], atol=1e-3)
    normal = torch.from_numpy(known['normal'].reshape(9, -1, 3).astype('float32'))
    assert torch.allclose(out.normal[solid], normal[solid], atol=2e-3)
    assert (out.depth[out.opacity == 0] == 4).all()
    assert geometry_error(out, out, 4.0)['depth'] == 0


def test_tuning_holds_the_surface_of_the_pivot():
    "Of the shipped generator; one that nobody has trained has no solid surface."
    trained, camera = load_generator(device=torch.device('cpu')), orbit(0.25, 0.0)
    true = true_heads([0], camera, replace(trained.run.heads, seed=1000), 3.2)
    found = invert(trained, true.image(), camera, steps=(1, 0), extractor=PIXELS)
    before, moved = seen(trained, found.pivot, camera), {}
    for surface in (0.0, 60.0):
        t = tune(trained, found, true.image(), steps=8, surface=surface, extractor=PIXELS)
        with torch.no_grad():
            after = seen(t, t.synthesize(found.w), camera)
        both = (before.opacity > 0.95) & (after.opacity > 0.95)
        moved[surface] = (after.surface_depth(3.2) - before.surface_depth(3.2)).abs()[both].mean()
    assert moved[60.0] < 0.7 * moved[0.0]
