"Cameras: dtypes, gradients, poles, round trips and brute-force comparisons."

import math
import pytest, torch
from hypothesis import given, settings, strategies as st
from wysiwyg.core import *
from wysiwyg.camera import *

torch.set_num_threads(1)
angle = st.floats(-3.1, 3.1)


def close(a, b, tol=1e-5):
    assert torch.allclose(a, b, atol=tol, rtol=0), (a - b).abs().max()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(angle, st.floats(-1.5, 1.5), st.floats(0.5, 9), st.floats(0.5, 9))
def test_orbit_is_rigid_and_agrees_with_look_at_and_eg3d(yaw, pitch, radius, focal):
    cam = orbit(*(torch.tensor([x], dtype=torch.float64) for x in (yaw, pitch, radius, focal)))
    r = cam.cam2world[:, :3, :3]
    close(r.transpose(1, 2) @ r, torch.eye(3, dtype=torch.float64)[None], 1e-12)
    close(r.det(), torch.ones(1, dtype=torch.float64), 1e-12)
    h, v = math.pi / 2 + yaw, math.pi / 2 * (1 - math.sin(pitch))
    phi = math.acos(1 - 2 * v / math.pi)
    x = radius * math.sin(phi) * math.cos(math.pi - h)
    y = radius * math.cos(phi)
    z = radius * math.sin(phi) * math.sin(math.pi - h)
    eye = torch.tensor([[x, y, z]], dtype=torch.float64)
    close(cam.cam2world[:, :3, 3], eye, 1e-9)
    close(look_at(eye, focal=focal).label, cam.label, 1e-9)


def test_frontal_label():
    pose = [1.0, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1]
    intrinsics = [4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    close(orbit(0.0, 0.0).label[0], torch.tensor(pose + intrinsics), 1e-7)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    cam = orbit(torch.zeros(2, dtype=dtype), 0.1)
    rays = camera_rays(cam, 4)
    uv, d = project(cam, rays.at(torch.ones(2, 16, 1, dtype=dtype)).squeeze(2))
    pose, fov = to_blender(cam)
    cameras = [cam, from_blender(pose, fov), look_at(cam.cam2world[:, :3, 3])]
    labels = [mirror_label(cam.label), *[camera.label for camera in cameras]]
    places = [rays.dirs, uv, d, *box_hits(rays, 1.0)[:2], *sphere_hits(rays, 0.2)[:2]]
    assert {x.dtype for x in labels + places} == {dtype}


WHOLE = torch.tensor([0, 1])
POSE = torch.diag_embed(torch.tensor([[1, -1, -1, 1]]))


@pytest.mark.parametrize(
    'make, arguments',
    [
        (orbit, (WHOLE, 0)),
        (orbit, (0.5, WHOLE)),
        (look_at, (torch.tensor([[0, 1, 3]]),)),
        (from_opengl, (POSE,)),
        (from_blender, (POSE, torch.tensor([1]))),
        (Camera.from_label, (torch.cat([POSE.flatten(1), torch.eye(3).long().flatten()[None]], 1),)),
    ],
)
def test_whole_numbers_lose_no_fraction(make, arguments):
    floats = [x.float() if torch.is_tensor(x) else x for x in arguments]
    close(make(*arguments).label, make(*floats).label, 0)


def test_whole_focal_lengths_keep_the_principal_point():
    close(intrinsics(torch.tensor([4])), intrinsics(torch.tensor([4.0])), 0)
    camera = Camera(POSE, torch.eye(3).long()[None])
    close(camera_rays(camera, 4).dirs, camera_rays(Camera(POSE.float(), torch.eye(3)[None]), 4).dirs, 0)


@pytest.mark.parametrize('eye', [(0.0, 2.7, 0), (0.0, -2.7, 0), (1e-7, 2.7, 1e-7), (0.0, 0, -2.7)])
@pytest.mark.parametrize('up', [(0.0, 1, 0), (0.0, 0, 1), (1.0, 1, 1)])
def test_poles_are_rigid_and_have_finite_gradients(eye, up):
    eye = torch.tensor([eye], requires_grad=True)
    cam = look_at(eye, up=up)
    r = cam.cam2world[:, :3, :3]
    close(r.transpose(1, 2) @ r, torch.eye(3)[None])
    close(r.det(), torch.ones(1))
    close(r[:, :, 2], -eye / eye.norm())
    cam.label.square().sum().backward()
    assert eye.grad.isfinite().all()


def test_orbit_passes_the_poles_smoothly():
    pitch = torch.linspace(1.4, 1.8, 100, dtype=torch.float64)
    assert orbit(torch.full_like(pitch, 0.3), pitch).label.diff(dim=0).abs().max() < 0.02


def test_gradients():
    def number(x):
        return torch.tensor([x], dtype=torch.float64, requires_grad=True)

    view = tuple(number(x) for x in (0.3, 0.2, 2.7, 4.3))  # yaw, pitch, radius, focal
    places = torch.tensor([[[0.1, 0.05, -0.1], [0, 0.2, 0.1]]], dtype=torch.float64)

    def pixels(*view):
        return project(orbit(*view), places)

    def bounds(*view):
        return box_hits(camera_rays(orbit(*view), 3), 0.9)[:2]

    def balls(*view):
        return sphere_hits(camera_rays(orbit(*view), 4), 0.25)[:2]

    assert torch.autograd.gradcheck(pixels, view)
    assert torch.autograd.gradcheck(bounds, view)
    assert torch.autograd.gradcheck(balls, view)


def test_rays_and_project_are_inverse_with_any_intrinsics():
    cam = orbit(torch.arange(8.0).double(), 0.4)
    k = cam.intrinsics.clone()
    k[:, 0, 1], k[:, 0, 2], k[:, 1, 1] = 0.1, 0.4, 3.0
    cam = Camera(cam.cam2world, k)
    uv = torch.rand(8, 20, 2, generator=rng(1)).double()
    t = torch.rand(8, 20, 1, generator=rng(2)).double() * 5 + 0.1
    back, d = project(cam, pixel_rays(cam, uv).at(t).squeeze(2))
    close(back, uv, 1e-9)
    close(d, t[..., 0], 1e-9)
    behind = cam.cam2world[:, None, :3, 3] - cam.cam2world[:, None, :3, 2]
    close(project(cam, behind)[1], torch.full((8, 1), -1.0, dtype=torch.float64), 1e-9)


def test_ray_subsets():
    cam = sphere_cameras(3, rng(0))
    rays = camera_rays(cam, 7)
    index = torch.randint(49, (3, 11), generator=rng(1))
    ulp = 1.2e-7  # some processors' matrix products round by their width
    close(camera_rays(cam, 7, index).dirs, rays.take(index).dirs, ulp)
    close(camera_rays(cam, 7, index[0]).dirs, rays.dirs[:, index[0]], ulp)


def test_autocast_bends_no_ray():
    camera = orbit(0.3, 0.1)
    with torch.autocast('cpu', torch.bfloat16):
        rays = camera_rays(camera, 7)
    assert rays.dirs.dtype == torch.float32
    assert torch.equal(rays.dirs, camera_rays(camera, 7).dirs)


def test_box_hits_against_marching():
    o = torch.randn(1, 400, 3, generator=rng(0))
    d = torch.nn.functional.normalize(torch.randn(1, 400, 3, generator=rng(1)), dim=-1)
    d[:, :90, 0] = 0
    d[:, 30:90, 1] = 0
    d[:, 200:260] = -o[:, 200:260]
    d = torch.nn.functional.normalize(d, dim=-1)  # parallel to slabs, towards the middle
    rays = Rays(o, d)
    near, far, hit = box_hits(rays, 1.0)
    t = torch.arange(0, 8, 0.005).expand(1, 400, -1)
    inside = (rays.at(t).abs() <= 0.5).all(-1)
    length = inside.sum(-1) * 0.005
    assert (far - near)[hit].min() > 0
    assert (near[~hit] == 0).all()
    assert (far[~hit] == 0).all()
    close(length, far - near, 0.011)
    first = t.masked_fill(~inside, 99.0).amin(-1)
    clear = length > 0.02
    close(first[clear], near[clear], 0.006)


def test_mirror():
    cam = sphere_cameras(50, rng(3))
    label = cam.label
    assert torch.equal(mirror_label(mirror_label(label)), label)
    changed = (mirror_label(label) != label).any(0).nonzero().flatten().tolist()
    assert changed in ([1, 2, 3, 4, 8], [1, 2, 3, 8])  # the right axis of an upright camera has no y
    noise = torch.randn(5, 25, generator=rng(0))
    assert (mirror_label(noise) == -noise).all(0)[:16].nonzero().flatten().tolist() == [1, 2, 3, 4, 8]
    x = torch.randn(50, 9, 3, generator=rng(4)) * 0.2
    uv, _ = project(cam, x)
    mirrored, _ = project(mirror_camera(cam), x * torch.tensor([-1.0, 1, 1]))
    close(mirrored, torch.stack([1 - uv[..., 0], uv[..., 1]], -1))


def test_converters():
    cam = sphere_cameras(20, rng(5), focal=2.0)
    assert torch.equal(from_opengl(to_opengl(cam), 2.0).label, cam.label)
    pose, fov = to_blender(cam)
    close(from_blender(pose, fov).label, cam.label)
    close(pose[:, 2, 3], cam.cam2world[:, 1, 3])  # Blender's z is our y
    assert (pose[:, :3, :3].det() - 1).abs().max() < 1e-5
    assert math.isclose(focal_from_fov(math.degrees(fov[0].item()), 'horizontal'), 2.0, rel_tol=1e-5)


def test_priors_are_keyed_and_spread():
    assert torch.equal(sphere_cameras(5, rng(1)).label, sphere_cameras(5, rng(1)).label)
    eye = sphere_cameras(20000, rng(2), radius=1.0).cam2world[:, :3, 3]
    for axis in eye.T:
        assert (axis.sort().values - torch.linspace(-1, 1, 20000)).abs().max() < 0.03  # Archimedes
    cam = gaussian_cameras(20000, rng(3), 0.4, 0.2)
    o = cam.cam2world[:, :3, 3] / RADIUS
    assert abs(torch.atan2(o[:, 0], o[:, 2]).std() - 0.4) < 0.01
    assert abs(o[:, 1].asin().std() - 0.2) < 0.01
    pool = orbit(torch.arange(4.0) * 0.1, 0.0).label
    drawn = empirical_cameras(pool, 100, rng(4)).label
    assert {tuple(x) for x in drawn.tolist()} == {tuple(x) for x in pool.tolist()}


def test_errors_name_the_thing():
    for call, text in (
        (lambda: look_at(torch.zeros(2)), 'eye must have shape'),
        (lambda: look_at(torch.zeros(1, 3)), 'cannot look at itself'),
        (lambda: mirror_label(torch.zeros(3, 16)), 'label'),
        (lambda: pixel_rays(orbit(0.0, 0.0), torch.zeros(2, 1, 2)), 'uv must have shape'),
        (lambda: from_opengl(torch.eye(4)), 'pose must have shape'),
    ):
        with pytest.raises(ValueError, match=text):
            call()
