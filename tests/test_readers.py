"Readers of pictures: cameras and depth of heads that no network has seen, their symmetry, refusals."

import math

import camera_net
import depth_net
import pytest
import torch

from wysiwyg import readers
from wysiwyg.camera import camera_angles, camera_distance, mirror_camera, orbit
from wysiwyg.config import HeadsConfig
from wysiwyg.core import rng
from wysiwyg.inversion import true_heads
from wysiwyg.readers import MIRRORED, CameraNet, DepthNet, find_camera, find_depth


def test_angles_are_what_orbit_was_given_at_any_distance():
    yaw, pitch = torch.tensor([-3.0, -0.4, 0.0, 1.7]), torch.tensor([1.2, 0.3, 0.0, -1.5])
    angles = camera_angles(orbit(yaw, pitch, 1.7, 3.0))
    assert torch.allclose(angles, torch.stack([yaw, pitch], 1), atol=1e-5)
    mirrored = camera_angles(mirror_camera(orbit(yaw, pitch)))
    assert torch.allclose(mirrored[1:], (angles * MIRRORED)[1:], atol=1e-5)


def test_the_distance_of_cameras_is_the_angle_at_the_origin():
    flat = camera_distance(orbit(torch.tensor([0.1, 0.0]), 0.0), orbit(torch.tensor([0.4, math.pi]), 0.0))
    assert flat.tolist() == pytest.approx([math.degrees(0.3), 180], abs=1e-3)
    assert camera_distance(orbit(0.3, 0.2), orbit(0.3, 0.2, 9.0)).item() < 1e-3  # nearer to a pole, or not


@pytest.fixture(scope='module')
def posed():
    "People whom the network has not seen, from a few sides."
    yaw = torch.tensor([-0.5, -0.2, 0.0, 0.3, 0.5] * 2)
    pitch = torch.tensor([0.1, -0.1] * 5)
    cameras = orbit(yaw, pitch)
    config = HeadsConfig(seed=1000, supersample=1)
    return true_heads(list(range(30, 40)), cameras, config, 3.2), cameras


def test_cameras_of_rendered_heads_are_found(posed):
    true, cameras = posed
    found, apart = find_camera(true.image())
    off = camera_distance(found, cameras)
    assert off.median() < 2 and off.max() < 5
    assert camera_distance(orbit(torch.zeros(10), 0.0), cameras).median() > 10  # the mean camera
    assert apart.shape == (10,) and apart.min() >= 0
    flipped, same = find_camera(true.image().flip(-1))
    assert torch.allclose(flipped.label, mirror_camera(found).label, atol=1e-5)
    assert torch.allclose(apart, same, atol=1e-3)
    far_away, _ = find_camera(true.image()[:2], (5.4, 8.5))
    assert torch.allclose(camera_angles(far_away), camera_angles(found[:2]), atol=1e-6)
    assert far_away.cam2world[:, :3, 3].norm(dim=1).tolist() == pytest.approx([5.4, 5.4], rel=1e-5)
    assert far_away.intrinsics[0, 0, 0] == 8.5


@pytest.mark.parametrize('find', [find_camera, find_depth])
def test_what_is_no_picture_cannot_be_read(find):
    for bad, why in (
        (torch.rand(3, 64, 64), 'images must have shape'),
        (torch.rand(1, 1, 64, 64), 'images must have shape'),
        (torch.full((1, 3, 64, 64), math.nan), 'images must be finite'),
    ):
        with pytest.raises(ValueError, match=why):
            find(bad)


@pytest.mark.parametrize('kind, most', [('camera', 500_000), ('depth', 1_200_000)])
def test_another_file_of_weights_is_refused(monkeypatch, tmp_path, kind, most):
    path, find = getattr(readers, f'{kind}_net_path'), getattr(readers, f'find_{kind}')
    assert path().stat().st_size <= most
    other = tmp_path / f'{kind}_net.safetensors'
    monkeypatch.setattr(readers, f'{kind}_net_path', lambda: other)
    loaded = getattr(readers, f'_{kind}_net')
    for make, why in (
        (lambda: None, 'it ships in data/; restore it'),
        (lambda: other.write_bytes(b''), 'SHA-256'),
    ):
        make()
        loaded.cache_clear()
        with pytest.raises(ValueError, match=f'{kind}_net.safetensors.*{why}'):
            find(torch.rand(1, 3, 64, 64))
    loaded.cache_clear()


def test_the_script_learns_two_angles_of_plain_pictures(monkeypatch):
    monkeypatch.setattr(camera_net, 'KEPT', 8)
    angles = 0.3 * torch.randn(200, 2, generator=rng('angles'))
    ramp = torch.linspace(-1, 1, 64)
    across, down = torch.meshgrid(ramp, ramp, indexing='xy')
    slopes = angles[:, :1, None] * across + angles[:, 1:, None] * down
    images = (128 + 100 * slopes)[:, None].expand(-1, 3, -1, -1).contiguous()
    torch.manual_seed(0)
    net = camera_net.start()
    camera_net.train(net, images, angles, camera_net.Course(10, 5e-3, 0.2, 0.05, 0.1, 8, 4))
    with torch.no_grad():
        wrong = (net(images[:8]) - angles[:8]).norm(dim=1)
    assert wrong.mean() < 0.5 * angles.norm(dim=1).mean()
    assert isinstance(net, CameraNet)


def test_depth_of_rendered_heads_is_found(posed):
    true, cameras = posed
    image = true.image()
    found = find_depth(image)
    solid = true.opacity.reshape(found.shape) > 0.99
    depth = true.depth.reshape(found.shape)
    both = solid & found.isfinite()
    assert both.sum() > 0.95 * solid.sum()
    assert (found - depth).abs()[both].mean() < 0.012  # world units, of heads 0.5 high
    spread = depth[both] - depth[both].mean()
    assert (found - depth).abs()[both].mean() < 0.3 * spread.abs().mean()
    assert torch.allclose(find_depth(image.flip(-1)).flip(-1), found, atol=1e-5, equal_nan=True)
    assert torch.allclose(find_depth(image, 5.4) - 2.7, found, atol=1e-5, equal_nan=True)
    background = image[:1, :, :1, :1].expand(-1, -1, 64, 64)
    assert find_depth(background).isnan().float().mean() > 0.9


def test_depth_comes_at_the_size_of_the_picture(posed):
    image = posed[0].image()[:2]
    small = find_depth(image)
    larger = find_depth(image.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert larger.shape == (2, 128, 128)
    again = torch.nn.functional.avg_pool2d(larger, 2)
    both = small.isfinite() & again.isfinite()
    assert both.sum() > 0.9 * small.isfinite().sum()
    assert (small - again).abs()[both].median() < 1e-3


def test_the_script_learns_depth_of_plain_pictures(monkeypatch):
    monkeypatch.setattr(camera_net, 'KEPT', 8)
    brightness = torch.rand(200, 1, 1, generator=rng('brightness'))
    images = (255 * brightness[:, None]).expand(-1, 3, 64, 64).contiguous()
    depth = (0.2 * (brightness - 0.5)).expand(-1, 64, 64).contiguous()
    mask = torch.full((200, 64, 64), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    net = depth_net.start()
    depth_net.train(net, images, depth, mask, depth_net.Course(4, 5e-3, 0.2, 0.005, 0.0, 0, 0))
    with torch.no_grad():
        found, silhouette = net(images[:8])
    assert (found - depth[:8]).abs().mean() < 0.5 * depth[:8].abs().mean()
    assert (silhouette > 0).all()
    assert isinstance(net, DepthNet)
