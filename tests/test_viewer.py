"A browser's camera is ours; frames are the renderer's; the server listens here alone."

import math
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wysiwyg.generator import load_generator
from wysiwyg import viewer as viewer_module
from wysiwyg.viewer import Viewer, _Watcher, camera_at, fill_window


@pytest.fixture(scope='module')
def viewer():
    return Viewer(load_generator(device=torch.device('cpu')))


def pose(yaw: float, pitch: float, radius: float):
    "Place and quaternion of a camera that looks at the origin, by looking from there."
    from scipy.spatial.transform import Rotation

    around = np.array([math.sin(yaw), 0, math.cos(yaw)])
    eye = math.cos(pitch) * around + math.sin(pitch) * np.array([0, 1, 0])
    right = np.array([math.cos(yaw), 0, -math.sin(yaw)])
    down = np.cross(-eye, right)
    columns = np.stack([right, down, -eye], 1)
    return radius * eye, Rotation.from_matrix(columns).as_quat(scalar_first=True)


@pytest.mark.parametrize('yaw', (-2.5, -0.4, 0.0, 1.1))
@pytest.mark.parametrize('pitch', (-0.7, 0.0, 0.5))
def test_a_pose_is_the_camera_of_the_orbit(viewer, yaw, pitch):
    radius, focal = viewer.g.view
    ours = viewer.g.orbit(torch.tensor([yaw]), torch.tensor([pitch]))
    camera = camera_at(*pose(yaw, pitch, radius), 2 * math.atan(0.5 / focal))
    assert torch.allclose(camera.label, ours.label, atol=1e-5)


@pytest.mark.parametrize('radius', (0.9, 1.7, 4.0))
def test_nearer_and_farther_show_the_same_head(viewer, radius):
    "With a focal length in proportion, the head keeps its size."
    fov = 2 * math.atan(0.5 / (viewer.g.view[1] * radius / viewer.g.view[0]))
    frame = viewer.frame(camera_at(*pose(0, 0, radius), fov), 64).astype(int)
    solid = np.abs(frame - frame[0, 0]).max(-1) > 12
    assert 0.1 < solid.mean() < 0.9
    assert solid[32, 32]


@pytest.mark.parametrize('aspect', (0.3, 1.0, 16 / 9, 50))
def test_windows(aspect):
    seen = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    shown = fill_window(seen, aspect, (0, 0, 0))
    assert shown.shape == (60, round(60 * aspect), 3)
    middle = shown.shape[1] // 2
    assert np.array_equal(shown[:, middle], seen[:, 30])


@pytest.mark.parametrize('aspect', (0, -1, float('nan'), 1000))
def test_no_window(aspect):
    with pytest.raises(ValueError, match='a window has a width and a height'):
        fill_window(np.zeros((4, 4, 3), np.uint8), aspect, (0, 0, 0))


def test_without_the_extra_it_is_named(viewer, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'viser', None)
    with pytest.raises(ImportError, match="wants viser: pip install 'wysiwyg\\[viewer\\]'"):
        viewer.serve()


def test_it_listens_here_alone(viewer):
    pytest.importorskip('viser')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    server = viewer.serve(port)
    try:
        assert server.get_host() == '127.0.0.1'
        for _ in range(50):
            with socket.socket() as s:
                if s.connect_ex(('127.0.0.1', port)) == 0:
                    return
            time.sleep(0.1)
        pytest.fail('nobody listens')
    finally:
        server.stop()


def test_controls_begin_with_what_is_shown():
    pytest.importorskip('viser')
    viewer = Viewer(load_generator(device=torch.device('cpu')), seed=5, trunc=-0.3, full=1024)
    planes = viewer.planes
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    server = viewer.serve(port)
    try:
        normals = next(c for c in server.gui._gui_input_handle_from_uuid.values() if c.label == 'normals')
        normals.value = True
        for callback in normals._impl.update_cb:
            callback(None)
        assert viewer.normals and viewer.planes is planes
    finally:
        server.stop()


def test_a_gpu_shows_all_pixels_while_it_moves(viewer, monkeypatch):
    gpu = type('Gpu', (), {'device': torch.device('cuda')})()
    monkeypatch.setattr(viewer, 'g', gpu)
    assert viewer.moving == viewer.full != 64


class Watcher(_Watcher):
    "Of no browser: it writes down the frames that it would show."

    def __init__(self, moving: int, full: int):
        self.viewer = SimpleNamespace(moving=moving, full=full)
        self.woken, self.gone, self.sides = threading.Event(), False, []

    def show(self, side: int):
        self.sides.append(side)


@pytest.mark.parametrize(('moving', 'sides'), [(64, [192, 64, 192]), (192, [192, 192])])
def test_a_frame_at_rest_is_shown_once(monkeypatch, moving, sides):
    monkeypatch.setattr(viewer_module, '_REST', 0.1)
    watcher = Watcher(moving, full=192)
    thread = threading.Thread(target=watcher.work)
    thread.start()
    time.sleep(0.3)
    watcher.woken.set()
    time.sleep(0.5)
    watcher.gone = True
    thread.join()
    assert watcher.sides == sides


class Camera:
    position, wxyz, fov, aspect = (0, 0, 2.7), (0, 1, 0, 0), 0.25, 0.0


class Scene:
    shown = 0

    def set_background_image(self, picture, *_, **__):
        self.shown += 1
        self.picture = picture


def test_a_window_without_a_size_ends_nothing(viewer):
    client = SimpleNamespace(camera=Camera(), scene=Scene())
    watcher = SimpleNamespace(client=client, viewer=viewer)
    _Watcher.show(watcher, 16)
    assert client.scene.shown == 0
    client.camera.aspect = 1.5
    _Watcher.show(watcher, 16)
    assert client.scene.shown == 1


@pytest.mark.parametrize('normals', (False, True))
def test_borders_have_the_color_of_what_is_empty(viewer, monkeypatch, normals):
    client = SimpleNamespace(camera=Camera(), scene=Scene())
    client.camera.aspect = 2
    monkeypatch.setattr(viewer, 'normals', normals)
    _Watcher.show(SimpleNamespace(client=client, viewer=viewer), 16)
    top = client.scene.picture[0].astype(int)
    assert top.shape == (32, 3) and abs(top - top[0]).max() <= 2
