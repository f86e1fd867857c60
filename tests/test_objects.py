"Objects of several classes: closed surfaces, depth against brute force, sets without poses."

import json, zipfile
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings, strategies as st
from scipy import ndimage

from wysiwyg import heads
from wysiwyg.camera import RADIUS, box_hits, camera_rays, orbit
from wysiwyg.cli import main, parse
from wysiwyg.config import HeadsConfig
from wysiwyg.core import Camera, file_sha, rng
from wysiwyg.data import Dataset
from wysiwyg.heads import first_hits, render_heads, sample_light, set_digest, truth_path
from wysiwyg.objects import (
    CLASSES,
    REACH,
    ObjectsConfig,
    Solid,
    corner_normals,
    join_solids,
    loft,
    object_camera,
    objects_digest,
    objects_truth,
    prior_cameras,
    render_object,
    render_objects,
    sample_object,
    signed_volume,
    sweep,
    torus,
)

CONFIG = ObjectsConfig(n=16, resolution=16, workers=1)
LIGHT = sample_light(0, 0)
GREY = np.full(3, 0.6)
NAME = pytest.mark.parametrize('name', CLASSES)


def box(size) -> Solid:
    x, y, z = np.array(size) / 2
    square = [(-x, -y), (x, -y), (x, y), (-x, y)]
    return loft(np.array([np.insert(square, 2, side, axis=1) for side in (-z, z)]), GREY)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return render_objects(CONFIG, tmp_path_factory.mktemp('objects') / 'a.zip', progress=False)


# ---- surfaces ------------------------------------------------------------------------------------


@NAME
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), i=st.integers(0, 10**6))
def test_every_object_lies_in_the_ball_and_fills_most_of_it(name, seed, i):
    solid = sample_object(name, seed, i)
    length = np.linalg.norm(solid.vertices, axis=1).max()
    assert 0.85 * REACH - 1e-9 <= length <= REACH + 1e-9
    assert np.abs(solid.vertices.min(0) + solid.vertices.max(0)).max() < 1e-9
    assert 0 <= solid.colours.min() and solid.colours.max() <= 1
    assert len(solid.colours) == len(solid.triangles)


@NAME
def test_every_part_is_closed_and_turned_outwards(name):
    for i in range(5):
        solid = sample_object(name, 1, i)
        mesh = trimesh.Trimesh(solid.vertices, solid.triangles, process=False)
        parts = mesh.split(only_watertight=False)
        assert len(parts) > 1
        assert all(p.is_watertight and p.is_winding_consistent and p.volume > 0 for p in parts)
        assert np.isclose(sum(p.volume for p in parts), signed_volume(solid.vertices, solid.triangles))


@given(st.lists(st.floats(0.1, 3), min_size=3, max_size=3), st.booleans())
def test_a_box_has_its_volume_whichever_way_its_rings_run(size, turned):
    solid = box(size)
    rings = solid.vertices[:8].reshape(2, 4, 3)
    again = loft(rings[:, ::-1] if turned else rings[::-1], GREY)
    for s in (solid, again):
        assert np.isclose(signed_volume(s.vertices, s.triangles), np.prod(size))
        assert trimesh.Trimesh(s.vertices, s.triangles).is_watertight


def test_parts_keep_their_corners_and_colours_when_they_are_joined():
    a, b = box((1, 1, 1)), torus(0.5, 0.1, (0, 0, 1), GREY * 0.5)
    both = join_solids([a, b])
    first = len(a.triangles)
    assert np.array_equal(both.vertices[both.triangles[first:]], b.vertices[b.triangles])
    assert np.array_equal(both.colours[first:], b.colours)


@pytest.mark.parametrize('axis', np.eye(3))
def test_a_torus_solves_its_equation_and_has_one_hole(axis):
    solid = torus(0.4, 0.1, axis, GREY)
    height = solid.vertices @ axis
    out = np.linalg.norm(solid.vertices - height[:, None] * axis, axis=1)
    assert np.allclose((out - 0.4) ** 2 + height**2, 0.01)
    assert trimesh.Trimesh(solid.vertices, solid.triangles).euler_number == 0


def test_sweeps_lie_across_their_path():
    path = np.array([[0, 0, 0], [0, 1, 0], [0, 2, 0.0]])
    rings = sweep(path, np.array([[1, 2], [1, 2], [3, 1]]), (1, 0, 0), n=8)
    assert np.allclose(rings[..., 1], path[:, None, 1])
    assert np.allclose(np.abs(rings).max(1)[:, [0, 2]], [[1, 2], [1, 2], [3, 1]])


def test_edges_stay_sharp_and_round_walls_smooth():
    cube = box((1, 2, 3))
    a, b, c = [cube.vertices[corner] for corner in cube.triangles.T]
    flat = np.cross(b - a, c - a)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    assert np.allclose(corner_normals(cube), flat[:, None])
    path = np.array([[0, 0, 0], [0, 1, 0.0]])
    rod = loft(sweep(path, 0.1, (1, 0, 0), n=24), GREY)
    wall = np.abs(corner_normals(rod)[..., 1]) < 0.5
    out = rod.vertices[rod.triangles] * [1, 0, 1] / 0.1
    assert wall.any() and not wall.all()
    assert np.allclose(corner_normals(rod)[wall], out[wall])


# ---- pictures ------------------------------------------------------------------------------------


def brute(solid: Solid, o: np.ndarray, d: np.ndarray) -> np.ndarray:
    "Distance [n] along each ray to the nearest triangle, inf where none is met: a 3x3 system for each pair."
    a, b, c = [solid.vertices[corner] for corner in solid.triangles.T]
    out = []
    for origin, direction in zip(o, d):
        sides = np.stack([b - a, c - a, np.broadcast_to(-direction, a.shape)], -1)
        with np.errstate(all='ignore'):
            inverse = np.linalg.pinv(sides)
        u, v, t = np.einsum('fij,fj->if', inverse, origin - a)
        inside = np.minimum(np.minimum(u, v), 1 - u - v) >= -1e-9
        met = inside & (t > 0) & (np.abs(np.linalg.det(sides)) > 1e-12)
        out.append(t[met].min(initial=np.inf))
    return np.array(out)


@pytest.mark.parametrize('name', ['chair', 'house', 'lamp'])
def test_depth_is_that_of_the_nearest_triangle(name):
    config = replace(CONFIG, resolution=16, supersample=1)
    solid, camera = sample_object(name, 0, 3), object_camera(config, 3)
    found = render_object(solid, camera, LIGHT, config)
    rays = camera_rays(camera, 16)
    near = brute(solid, rays.origins[0].double().numpy(), rays.dirs[0].double().numpy())
    hit = np.isfinite(near)
    assert 10 < hit.sum() < 200
    assert np.array_equal(hit, found['mask'].ravel() == 255)
    assert np.allclose(found['depth'].ravel()[hit], near[hit], atol=1e-5)
    assert (found['depth'].ravel()[~hit] == 0).all()


@given(st.floats(-3, 3), st.floats(-1.2, 1.2), st.floats(0.1, 0.5))
@settings(max_examples=10, deadline=None)
def test_a_cube_is_where_its_closed_form_says(yaw, pitch, side):
    config = replace(CONFIG, resolution=32, supersample=1)
    camera = orbit(yaw, pitch, focal=3.0)
    near, _, hit = [x[0].numpy() for x in box_hits(camera_rays(camera, 32), side)]
    found = render_object(box((side, side, side)), camera, LIGHT, config)
    on = found['mask'].ravel() == 255
    assert (on != hit).sum() <= 4
    both = on & hit
    assert np.abs(found['depth'].ravel() - near)[both].max() < 1e-5
    normal = np.abs(found['normal'].reshape(-1, 3)[both].astype(float))
    assert np.allclose(np.sort(normal, 1), [0, 0, 1], atol=1e-3)


@NAME
def test_normals_are_unit_and_face_the_viewer(name):
    config = replace(CONFIG, resolution=64, supersample=1)
    for i in range(3):
        camera = object_camera(config, i)
        found = render_object(sample_object(name, 0, i), camera, LIGHT, config)
        on = found['mask'].ravel() == 255
        normal = found['normal'].reshape(-1, 3)[on].astype(float)
        dirs = camera_rays(camera, 64).dirs[0].numpy()[on]
        assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=2e-3)
        assert (normal * dirs).sum(1).max() < 2e-3
        inner = found['mask'][1:-1, 1:-1]
        assert (inner > 0).sum() == (found['mask'] > 0).sum()  # nothing at the border


def enclosed(solid: Solid, camera: Camera) -> tuple[int, np.ndarray]:
    "How many regions the outline closes off, and the rays [n] through them."
    config = replace(CONFIG, resolution=128, supersample=1)
    empty = render_object(solid, camera, LIGHT, config)['mask'] == 0
    region, count = ndimage.label(empty, np.ones((3, 3)))
    return count - 1, np.flatnonzero((region > 0) & (region != region[0, 0]))


@pytest.mark.parametrize('name, pitch', [('mug', 0.0), ('rings', np.pi / 2), ('wheel', 0.0)])
def test_holes_are_holes(name, pitch):
    camera = orbit(0.0, pitch, focal=3.0)
    rays = camera_rays(camera, 128)
    for i in range(6):
        solid = sample_object(name, 4, i)
        count, through = enclosed(solid, camera)
        assert 5 <= count <= 9 if name == 'wheel' else count == 1
        o, d = rays.origins[0].numpy()[through], rays.dirs[0].numpy()[through]
        v, triangles = solid.vertices.astype(np.float32), solid.triangles.astype(np.int32)
        hit = first_hits(v, triangles, o, d)
        assert (hit['primID'] < 0).all()
        if i == 0 and name == 'mug':
            assert np.isinf(brute(solid, o[:20].astype(float), d[:20].astype(float))).all()


def test_light_falls_on_what_it_meets_and_shadows_do_not_move_geometry():
    solid = box((0.3, 0.3, 0.3))
    config = replace(CONFIG, resolution=32)
    lit = replace(LIGHT, towards=np.array([0, 0, 1.0]))
    dark = replace(LIGHT, towards=np.array([0, 0, -1.0]))
    front, behind = [render_object(solid, orbit(0.0, 0.0), light, config) for light in (lit, dark)]
    assert front['image'][16, 16].mean() > behind['image'][16, 16].mean() + 20
    assert np.array_equal(front['depth'], behind['depth'])
    roof = replace(solid, vertices=solid.vertices * [3, 0.1, 3] + [0, 0.35, 0])
    above = replace(LIGHT, towards=np.array([0, 0.9, 0.43]))
    scenes = [solid, join_solids([solid, roof])]
    free, shaded = [render_object(s, orbit(0.0, 0.0), above, config)['image'][18, 16] for s in scenes]
    assert free.mean() > shaded.mean() + 5


# ---- cameras and sets ----------------------------------------------------------------------------


def test_the_prior_stays_in_front_and_the_sphere_does_not():
    eye = prior_cameras(5000, rng('test'), radius=1.0).cam2world[:, :3, 3]
    x, y, z = eye.T
    yaw, pitch = torch.atan2(x, z), y.asin()
    assert yaw.abs().max() < np.pi / 2
    assert abs(yaw.std() - 0.4) < 0.02 and abs(pitch.std() - 0.2) < 0.01
    far = torch.cat([object_camera(CONFIG, i).cam2world[:, :3, 3] for i in range(200)])
    assert (far[:, 2] < 0).float().mean() > 0.3
    assert torch.allclose(far.norm(dim=1), torch.tensor(RADIUS))


def test_the_same_bytes_from_any_number_of_processes(made, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, '_SOON', 0)
    other = render_objects(replace(CONFIG, workers=3), tmp_path / 'b.zip', progress=False)
    assert file_sha(other) == file_sha(made)
    assert file_sha(truth_path(other)) == file_sha(truth_path(made))


def test_a_complete_set_is_kept_and_another_is_rendered_anew(tmp_path, capsys):
    config = replace(CONFIG, n=7)
    path = render_objects(config, tmp_path / 'a.zip', progress=False)
    stamp = path.stat().st_mtime_ns
    assert render_objects(config, path, progress=False).stat().st_mtime_ns == stamp
    render_objects(replace(config, seed=1), path, progress=False)
    assert path.stat().st_mtime_ns != stamp
    assert 'a.zip holds other objects' in capsys.readouterr().err
    assert set_digest(path) == objects_digest(replace(config, seed=1))


def test_every_field_but_workers_decides_the_bytes():
    changes = dict(
        n=5,
        resolution=32,
        seed=3,
        classes=('mug',),
        radius=3.0,
        focal=2.0,
        cameras='prior',
        background=(0, 0, 0),
        supersample=3,
    )
    assert changes.keys() | {'workers'} == {f.name for f in fields(ObjectsConfig)}
    digests = {objects_digest(replace(CONFIG, **{name: value})) for name, value in changes.items()}
    assert len(digests | {objects_digest(CONFIG)}) == len(changes) + 1
    assert objects_digest(replace(CONFIG, workers=7)) == objects_digest(CONFIG)


def test_the_zip_tells_classes_and_no_cameras(made):
    data = Dataset(made)
    assert data.label_kind == 'class'
    counts = data.labels.sum(0)
    assert len(counts) == len(CLASSES) and counts.max() - counts.min() <= 1
    with zipfile.ZipFile(made) as z:
        labels = json.loads(z.read('dataset.json'))['labels']
    assert all(type(label) is int for _, label in labels)


def test_the_truth_renders_the_picture_again(made):
    data = Dataset(made)
    for i in (0, 9, 15):
        row = objects_truth(made, i)
        camera = Camera.from_label(torch.from_numpy(row['cameras'])[None])
        solid = sample_object(CLASSES[row['classes']], CONFIG.seed, i)
        found = render_object(solid, camera, sample_light(CONFIG.seed, i), CONFIG)
        assert data.names[i] == row['names']
        image = data.images(torch.tensor([i]))[0].permute(1, 2, 0)
        assert np.array_equal(image, found['image'])
        assert np.array_equal(row['mask'], found['mask'])
        assert np.allclose(row['depth'], found['depth'], atol=RADIUS / 2**15)
        rotation = row['cameras'][:16].reshape(4, 4)[:3, :3]
        seen = found['normal'].astype(np.float32) @ rotation
        assert np.allclose(row['normal_cam'], seen, atol=2e-3)


def test_truth_by_lists_and_slices(made):
    every = objects_truth(made)
    assert {len(rows) for rows in every.values()} == {CONFIG.n}
    for index in ([5, 2], slice(3, 9, 2)):
        for name, rows in objects_truth(made, index).items():
            assert np.array_equal(rows, every[name][index])


def test_the_truth_of_others_is_refused(made, tmp_path):
    with pytest.raises(ValueError, match='a.zip keeps the truth of 16 pictures, not of 16'):
        objects_truth(made, 16)
    heads = render_heads(HeadsConfig(n=2, resolution=16, workers=1), tmp_path / 'h.zip', progress=False)
    with pytest.raises(ValueError, match='h.zip has no classes'):
        objects_truth(heads)


@pytest.mark.parametrize(
    'change, why',
    [
        (dict(classes=('mug', 'dragon')), "must be one of aeroplane, .*, got 'dragon'"),
        (dict(classes=()), 'must name each class once'),
        (dict(classes=('mug', 'mug')), 'must name each class once'),
        (dict(cameras='front'), "objects.cameras must be one of sphere, prior, got 'front'"),
        (dict(classes='mug'), "objects.classes = 'mug' is one string: give a tuple, .'mug',."),
        (dict(n=0), 'objects.n = 0 is outside'),
        (dict(n=6), 'objects.n = 6 shows 6 of 7 classes: give 7 or more, or fewer --classes'),
        (dict(background=(0.5, 0.5)), 'objects.background = .0.5, 0.5. has not three numbers'),
        (dict(background=0.5), 'objects.background = 0.5 has not three numbers'),
        (dict(resolution=24), 'no power of two'),
        (dict(radius=float('nan')), 'objects.radius = nan is outside'),
        (dict(background=(0, 0, 2)), 'objects.background = 2 is outside'),
        (dict(supersample=0), 'objects.supersample = 0'),
    ],
)
def test_impossible_sets_are_refused_before_anything_is_written(change, why, tmp_path):
    with pytest.raises(ValueError, match=why):
        render_objects(replace(CONFIG, **change), tmp_path / 'a.zip', progress=False)
    assert not list(tmp_path.iterdir())


def test_classes_can_be_told_apart_by_their_outlines():
    config = replace(CONFIG, cameras='prior', supersample=1, resolution=16)
    pictures, label = [], []
    for i in range(140):
        k = i % len(CLASSES)
        found = render_object(sample_object(CLASSES[k], 5, i), object_camera(config, i), LIGHT, config)
        pictures.append(found['mask'].reshape(8, 2, 8, 2).mean((1, 3)).ravel())
        label.append(k)
    x, label = np.array(pictures), np.array(label)
    known, first = label[:70], x[:70]
    means = np.array([first[known == k].mean(0) for k in range(len(CLASSES))])
    guess = np.linalg.norm(x[70:, None] - means, axis=-1).argmin(1)
    assert (guess == label[70:]).mean() > 0.7


# ---- command line --------------------------------------------------------------------------------


def test_the_command_line_renders_a_set(tmp_path, capsys):
    line = f'objects --n 4 --resolution 16 --classes mug lamp --workers 1 --outdir {tmp_path} --json'
    assert main(line.split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['images'] == 4 and told['classes'] == 'mug lamp'
    assert Dataset(told['path']).labels.tolist() == [[1, 0], [0, 1]] * 2


def test_the_command_line_refuses_what_is_no_set(capsys):
    assert main('objects --classes dragon'.split()) == 1
    assert "got 'dragon'" in capsys.readouterr().err
    assert main('objects --n 4 --objects.n 8'.split()) == 2
    assert '--n and --objects.n set one field' in capsys.readouterr().err
    assert parse('objects --objects.n 8 --cameras prior'.split())[1].objects.n == 8
