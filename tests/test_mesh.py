"Surfaces as triangles: other programs' answers, random fields, files, and the command."

import json
import math
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from hypothesis import given, settings, strategies as st
from skimage.measure import marching_cubes
from small_run import called

from wysiwyg import cli, export
from wysiwyg.cli import main
from wysiwyg.core import Answer, WriteError, rng, sheet
from wysiwyg.export import (
    TriangleMesh,
    extract_mesh,
    linear_light,
    mesh_of,
    paint,
    passage,
    save_film,
    surface_of,
    turntable,
    turntable_yaws,
)
from wysiwyg.generator import load_generator, w_of_seed
from wysiwyg.sdf import toy_field, toy_sdf
from wysiwyg.volrend import volume_weights

SEED = st.integers(0, 10**6)
FEW = settings(max_examples=15)


def balls(seed: int, n: int = 3):
    "The true distance to a union of random balls, most of which leave no hole in the box."
    g = rng(seed, 'balls')
    centres = (torch.rand(n, 3, generator=g) - 0.5) * 0.5
    radii = 0.08 + 0.12 * torch.rand(n, generator=g)

    def sdf(x):
        distances = (x[..., None, :] - centres).norm(dim=-1) - radii
        return distances.amin(-1)

    return sdf


def waves(seed: int, slope: float = 1.0):
    "No distance at all: random waves, with surfaces everywhere, that leave the box."
    g = rng(seed, 'waves')
    frequency = 12 * torch.randn(6, 3, generator=g)
    phase = 6 * torch.rand(6, generator=g)

    def field(x):
        return slope * (torch.sin(x @ frequency.T + phase).sum(-1) - 0.3)

    return field


def corners(mesh: TriangleMesh, n: int) -> np.ndarray:
    "Of each triangle, in cells."
    return mesh.vertices[mesh.faces] * n


@FEW
@given(SEED, st.integers(9, 30), st.sampled_from([balls, waves]))
def test_triangles_are_those_of_the_whole_grid_at_once(seed, n, make):
    sdf = make(seed)
    mesh = extract_mesh(sdf, 1.0, n, budget=24 * 2.5 * (n + 1) ** 2 / 2**30)  # a layer of cells at a time
    axis = (torch.arange(n + 1).double() / n - 0.5).float()
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing='ij'), -1)
    values = sdf(grid.reshape(1, -1, 3)).reshape(grid.shape[:3])
    v, f, _, _ = marching_cubes(values.numpy(), 0.0)
    theirs = trimesh.Trimesh(v / n - 0.5, f, process=False)
    ours = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert ours.area == pytest.approx(theirs.area, rel=1e-3)
    if make is balls:
        assert ours.volume == pytest.approx(theirs.volume, rel=1e-3)
    assert abs(len(ours.faces) - len(theirs.faces)) < 0.05 * len(theirs.faces)  # welded slivers


@FEW
@given(SEED, st.integers(20, 44))
def test_following_a_distance_loses_nothing(seed, n):
    sdf = balls(seed)
    whole, followed = (extract_mesh(sdf, 1.0, n, every=every) for every in (True, False))
    assert np.abs(corners(whole, n) - corners(followed, n)).max() < 1e-3
    assert whole.watertight and followed.watertight
    assert followed.notes['asked'] != whole.notes['asked'] == (n + 1) ** 3


@pytest.mark.parametrize('how', [dict(), dict(budget=24 * 2.5 * 33**2 / 2**30), dict(every=False)])
def test_a_face_on_the_border_of_a_slab_is_there(how):
    "Zeros lie on whole layers of the grid, between slabs and between blocks; marching counts them as inside."
    mesh = extract_mesh(lambda x: x.abs().amax(-1) - 0.25, 1.0, 32, **how)
    assert len(mesh.faces) == 6 * 16**2 * 2 and mesh.watertight
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.volume == pytest.approx(0.125)


@FEW
@given(SEED, st.sampled_from([0.1, 1.0, 30.0]))
def test_following_never_cuts_a_surface(seed, slope):
    "Whatever the slope: what is found ends nowhere but at the box."
    mesh = extract_mesh(waves(seed, slope), 1.0, 40, every=False)
    rim = mesh.vertices[np.unique(mesh.holes())]
    assert len(rim) and np.allclose(np.abs(rim).max(1), 0.5)


@FEW
@given(SEED, st.integers(9, 40), st.booleans(), st.sampled_from([0.1, 1.0, 30.0]))
def test_what_is_closed_has_no_rim_and_ends_half_a_cell_within_the_cube(seed, n, every, slope):
    closed, opened = (
        extract_mesh(waves(seed, slope), 1.0, n, every=every, closed=way) for way in (True, False)
    )
    assert len(opened.holes()) and not len(closed.holes())
    assert np.abs(closed.vertices).max() == pytest.approx((1 - 1 / n) / 2, abs=1e-6)

    def inner(mesh):  # triangles that no border changes
        places = corners(mesh, n)
        return places[np.abs(places).max((1, 2)) < n / 2 - 2.001]

    assert np.array_equal(inner(closed), inner(opened))


def test_a_steep_inside_is_closed_too():
    "Of which no block at the border claims to be near the surface."
    mesh = extract_mesh(lambda x: 100 * (x.abs()[..., :2].amax(-1) - 0.3), 1.0, 64, every=False, closed=True)
    assert mesh.watertight
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.volume == pytest.approx(0.6**2 * 63 / 64, rel=1e-3)


def test_following_finds_a_surface_between_centres_that_claim_to_be_far():
    "Steep enough that no centre is near by the rule: neighbours of different signs are asked all the same."

    def steep(x):
        return 100 * (x.norm(dim=-1) - 0.31)

    whole, followed = (extract_mesh(steep, 1.0, 64, every=every) for every in (True, False))
    assert np.abs(corners(whole, 64) - corners(followed, 64)).max() < 1e-3
    assert followed.notes['asked'] < 0.5 * whole.notes['asked']


@pytest.mark.parametrize('every', [True, False])
def test_slabs_join_where_the_last_bits_depend_on_the_batch(every):
    "As those of matrix products do; here a little more, so that a vertex asked twice moves visibly."
    noise = rng('bits')

    def rounded(x):
        return x.norm(dim=-1) - 0.311 + 2e-5 * torch.rand(x.shape[:2], generator=noise)

    mesh = extract_mesh(rounded, 1.0, 48, every=every, max_points=500, budget=0.002 if every else 1.0)
    assert mesh.watertight


@pytest.mark.parametrize('every', [True, False])
def test_level_and_box(every):
    mesh = extract_mesh(lambda x: x.norm(dim=-1) - 1, 4.0, 60, level=0.25, every=every)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 1.25).max() < 0.25 * 4 / 60
    outward = np.cross(*np.diff(mesh.vertices[mesh.faces], axis=1).swapaxes(0, 1))
    assert ((outward * mesh.vertices[mesh.faces[:, 0]]).sum(1) > 0).all()
    assert (mesh.normals * mesh.vertices).sum(1).min() > 1.2


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(resolution=1), '2 cells or more'),
        (dict(box=0.0), 'a box above 0'),
        (dict(box=math.nan), 'a box above 0'),
        (dict(max_points=0), '1 point or more'),
        (dict(budget=0.0), 'GiB above 0, got 0: give 1'),
        (dict(budget=math.nan), 'GiB above 0, got nan'),
        (dict(budget=math.inf), 'GiB above 0, got inf'),
        (dict(level=9.0), 'no surface at level 9: the field is -0.'),
        (dict(level=-9.0), 'no surface at level -9'),
        (dict(level=9.0, every=False), 'no surface at level 9'),
        (dict(level=9.0, closed=True), 'no surface at level 9: the field is -0.'),
        (dict(resolution=64, budget=1e-4), 'give a resolution of at most 46 or a budget of'),
        (dict(resolution=64, budget=1e-3, every=False), 'the budget has room for 8 blocks'),
    ],
)
def test_says_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message) as e:
        extract_mesh(toy_sdf, **dict(box=1.0, resolution=16) | options)
    assert '\n' not in str(e.value)


def test_the_resolution_that_is_advised_fits():
    assert len(extract_mesh(toy_sdf, 1.0, 46, budget=1e-4).faces)


def test_what_is_cut_off_or_too_thin_wants_more_cells():
    def bump(x):  # beside a face of the cube
        return (x - torch.tensor([0.5, 0.0, 0.0])).norm(dim=-1) - 0.3

    with pytest.raises(
        ValueError, match='no surface at level 0: .* or cut off as --close does: give more cells'
    ):
        extract_mesh(bump, 1.0, 2, closed=True)
    assert len(extract_mesh(bump, 1.0, 2).faces) and len(extract_mesh(bump, 1.0, 8, closed=True).faces)
    with pytest.raises(ValueError, match='what is inside is thinner than a cell'):
        extract_mesh(lambda x: x.norm(dim=-1), 1.0, 8)  # one point


def test_a_distance_without_surface_is_refused_in_its_own_numbers():
    def field(points, dirs):
        far = points.norm(dim=-1).clamp(0.1, 1)
        return Answer(torch.zeros_like(points), sdf=far, beta=torch.ones_like(far))

    for level, said in ((None, 0), (-0.5, -0.5), (3, 3)):
        seen = 'on the grid it is 0.1 to 1: give a level .--level. between'
        with pytest.raises(ValueError, match=f'no surface at signed distance {said:g}: {seen}'):
            mesh_of(field, 4.0, 16, every=True, level=level)


@pytest.mark.parametrize('how', [dict(), dict(every=False), dict(closed=True)])
@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_refuses_values_that_are_not_finite(bad, how):
    def broken(x):
        return torch.where(x[..., 0] > 0.3, bad, toy_sdf(x))

    with pytest.raises(ValueError, match='a mesh needs finite values'):
        extract_mesh(broken, 1.0, 32, **how)


def test_asks_at_most_so_many_points_at_a_time():
    asked = []

    def counted(x):
        asked.append(x.shape[1])
        return toy_sdf(x)

    extract_mesh(counted, 1.0, 40, max_points=700, every=False)
    assert max(asked) == 700


PEAK = """
import resource, torch
from wysiwyg.export import extract_mesh
torch.set_num_threads(1)
def peak(n, budget):
    extract_mesh(lambda x: x.norm(dim=-1) - .3, 1., n, max_points=2**14, budget=budget)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before = peak(64, 1)
print(peak(192, .034) - before, peak(192, 1) - before)
"""


def test_memory_stays_within_the_budget():
    "The whole grid at once takes far more than the budget, so that the measure is one."
    env = {name: value for name, value in os.environ.items() if not name.startswith('MALLOC_')}
    # a process begins with the peak of the one it came from: that of the shell is small
    child = ['sh', '-c', '"$0" -c "$1"; exit $?', sys.executable, PEAK]
    done = subprocess.run(child, capture_output=True, text=True, check=True, env=env)
    within, at_once = map(float, done.stdout.split()[-2:])
    assert within < 0.055 < 0.08 < at_once, (within, at_once)


# ---- meshes and files ----------------------------------------------------------------------------


def random_mesh(seed: int) -> TriangleMesh:
    "A surface with holes, in pieces, with random colours."
    whole = extract_mesh(balls(seed), 1.0, 14)
    g = np.random.default_rng(seed)
    kept = whole.faces[g.random(len(whole.faces)) > 0.1]
    used, faces = np.unique(kept, return_inverse=True)
    colors = g.integers(0, 256, (len(used), 3), np.uint8)
    return TriangleMesh(whole.vertices[used], faces.reshape(-1, 3), whole.normals[used], colors)


@pytest.mark.parametrize(
    'vertices, faces, why',
    [
        ([[0, 0, 0], [1, 0, 0], [0, math.nan, 0]], [[0, 1, 2]], '1 of 3 vertices are not finite'),
        (np.eye(3), [[0, 1, 3]], 'a face names vertex 3: there are 0 to 2'),
        (np.eye(3), [[-1, 1, 2]], 'a face names vertex -1'),
        (np.zeros((4, 2)), [[0, 1, 2]], r'vertices must have shape \[N 3\], got \[4, 2\]'),
    ],
)
def test_what_is_no_mesh_is_refused(vertices, faces, why):
    with pytest.raises(ValueError, match=why):
        TriangleMesh(np.array(vertices, np.float32), np.array(faces), np.eye(3, dtype=np.float32))


@FEW
@given(SEED)
def test_holes_and_pieces_are_those_that_trimesh_finds(seed):
    mesh = random_mesh(seed)
    theirs = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    rim = theirs.edges_sorted[trimesh.grouping.group_rows(theirs.edges_sorted, require_count=1)]
    assert set(map(tuple, mesh.holes())) == set(map(tuple, rim))
    assert mesh.watertight == theirs.is_watertight
    pieces = trimesh.graph.connected_components(theirs.edges, nodes=np.arange(len(mesh.vertices)))
    assert mesh.components().max() + 1 == len(pieces)
    largest = max(np.isin(theirs.faces[:, 0], piece).sum() for piece in pieces)
    one = mesh.largest_component()
    assert len(one.faces) == largest and one.components().max() == 0
    rows = {row.tobytes() for row in np.hstack([mesh.vertices, mesh.normals, mesh.colors])}
    assert {row.tobytes() for row in np.hstack([one.vertices, one.normals, one.colors])} <= rows
    used = np.unique(one.faces)
    assert len(used) == len(one.vertices) == used[-1] + 1


def gltf(path) -> tuple[dict, bytes]:
    "The description and the numbers of a .glb."
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], 'little')
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def normals_in(path) -> np.ndarray:
    "As the file has them; trimesh makes its own."
    suffix = path.suffix.lower()
    if suffix == '.obj':
        lines = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith('vn ')]
        return np.array(lines, float)
    if suffix == '.ply':
        head, _, body = path.read_bytes().partition(b'end_header\n')
        color = [('color', 'u1', 4)] if b'uchar red' in head else []
        kind = np.dtype([('place', '<f4', 3), ('normal', '<f4', 3), *color])
        return np.frombuffer(body, kind, int(head.split(b'element vertex ')[1].split()[0]))['normal']
    return attribute(path, 'NORMAL')


def attribute(path, name: str) -> np.ndarray:
    "Three numbers for each vertex of a .glb, float32."
    tree, numbers = gltf(path)
    found = tree['accessors'][tree['meshes'][0]['primitives'][0]['attributes'][name]]
    assert (found['componentType'], found['type']) == (5126, 'VEC3')  # GL_FLOAT
    begin = found.get('byteOffset', 0) + tree['bufferViews'][found['bufferView']]['byteOffset']
    return np.frombuffer(numbers, '<f4', 3 * found['count'], begin).reshape(-1, 3)


@pytest.mark.parametrize('suffix', ['.ply', '.obj', '.glb', '.GLB'])
@pytest.mark.parametrize('painted', [True, False])
def test_files_hold_the_mesh(tmp_path, suffix, painted):
    mesh = random_mesh(3)
    mesh = mesh if painted else replace(mesh, colors=None)
    path = mesh.save(tmp_path / 'new' / f'head{suffix}')
    assert [p.name for p in path.parent.iterdir()] == [f'head{suffix}']
    read = trimesh.load(path, force='mesh', process=False, skip_materials=True)
    assert np.abs(read.vertices - mesh.vertices).max() < 1e-7
    assert (read.faces == mesh.faces).all()
    assert np.abs(normals_in(path) - mesh.normals).max() < 1e-6
    if painted:
        light = np.rint(linear_light(mesh.colors) * 255)  # trimesh has bytes
        colors = light if suffix.lower() == '.glb' else mesh.colors
        assert (read.visual.vertex_colors[:, :3] == colors).all()


def test_a_glb_is_no_metal_and_has_its_colours_as_light(tmp_path):
    "glTF 2.0, 3.9.2: COLOR_0 is a linear multiplier of the base colour."
    mesh = random_mesh(3)
    path = mesh.save(tmp_path / 'a.glb')
    tree, _ = gltf(path)
    [part] = tree['meshes'][0]['primitives']
    assert set(part['attributes']) == {'POSITION', 'NORMAL', 'COLOR_0'}
    light = attribute(path, 'COLOR_0').astype(float)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert (np.rint(encoded) == mesh.colors).all()  # nothing is lost in the dark
    assert tree['materials'][part['material']]['pbrMetallicRoughness']['metallicFactor'] == 0


def test_light_is_the_inverse_of_srgb():
    levels = np.arange(256, dtype=np.uint8)
    light = linear_light(levels).astype(float)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert linear_light(levels).dtype == np.float32 and np.abs(encoded - levels).max() < 1e-3


@FEW
@given(SEED, st.integers(4, 20), st.sampled_from([balls, waves]))
def test_every_vertex_is_of_some_face(seed, n, make):
    def coarse(x):
        return (make(seed)(x) * 8).round()  # many grid points lie on the surface

    try:
        mesh = extract_mesh(coarse, 1.0, n)
    except ValueError:
        return
    assert (np.unique(mesh.faces) == np.arange(len(mesh.vertices))).all()


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = random_mesh(3).save(tmp_path / 'a.ply')
    before = path.read_bytes()

    def fails(*a, **k):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(export.Path, 'write_bytes', fails)
    with pytest.raises(WriteError, match='a.ply could not be written'):
        random_mesh(4).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


# ---- fields --------------------------------------------------------------------------------------


def uniform(level: float):
    "The same density everywhere."

    def field(points, dirs):
        return Answer(torch.zeros_like(points), sigma=torch.full(points.shape[:3], level))

    return field


def ball_of(sigma: float):
    "A density that falls from `sigma` to 0 at radius 0.4, by straight lines."

    def field(points, dirs):
        share = (1 - points.norm(dim=-1) / 0.4).clamp(min=0)
        return Answer(torch.zeros_like(points), sigma=sigma * share)

    return field


@pytest.mark.parametrize('box', [1.0, 2.5])
def test_half_of_the_light_passes_a_tenth_of_the_box_at_the_level_of_a_density(box):
    level = 10 * math.log(2) / box
    sdf, is_distance, surface = surface_of(uniform(level), box)
    assert not is_distance and f'{level:.4g}' in surface
    assert sdf(torch.zeros(1, 5, 3)).abs().max() < 1e-4
    weight = volume_weights(torch.tensor([level]), torch.tensor([box / 10]))
    assert weight.item() == pytest.approx(0.5)


@pytest.mark.parametrize('resolution', [24, 64])
def test_a_low_density_has_the_same_surface_on_every_grid(resolution):
    mesh = mesh_of(ball_of(10.0), 1.0, resolution)
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert np.abs(radius - 0.4 * (1 - math.log(2))).max() < 0.5 / resolution
    inner = mesh_of(ball_of(10.0), 1.0, resolution, level=8.0)
    assert np.abs(np.linalg.norm(inner.vertices, axis=1) - 0.08).max() < 0.5 / resolution


def test_a_density_without_surface_is_refused_in_words():
    message = 'no surface at density 6.931 .* on the grid it is 0 to 5: give a level .--level. between'
    with pytest.raises(ValueError, match=message):
        mesh_of(ball_of(5.0), 1.0, 16)
    with pytest.raises(ValueError, match='no surface at density 6 per world unit: on the grid it is 0 to 5:'):
        mesh_of(ball_of(5.0), 1.0, 16, level=6)
    assert len(mesh_of(ball_of(5.0), 1.0, 16, level=2).faces)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(box=0.0), 'a surface needs a box above 0, got 0'),
        (dict(level=0.0), 'the level of a density must be above 0, got 0: give 6.93'),
        (dict(level=math.nan), 'above 0, got nan'),
    ],
)
def test_a_density_is_asked_for_at_a_level_that_it_can_have(options, message):
    with pytest.raises(ValueError, match=message):
        mesh_of(ball_of(10.0), **dict(box=1.0, resolution=16) | options)


@pytest.mark.parametrize('closed', [True, False])
def test_a_density_that_leaves_the_box_is_closed_on_request(closed):
    mesh = mesh_of(ball_of(10.0), 0.5, 24, level=2.0, closed=closed)  # of the radius 0.32
    assert mesh.watertight == closed
    assert np.abs(mesh.vertices).max() == pytest.approx(0.25 - closed * 0.25 / 24)


def test_the_level_of_a_distance_is_a_distance():
    mesh = mesh_of(toy_field, 1.0, 40, level=0.02)
    assert mesh.notes['surface'] == 'signed distance 0.02'
    away = toy_sdf(torch.from_numpy(mesh.vertices))
    assert (away - 0.02).abs().max() < 0.25 / 40


def test_colours_are_seen_along_the_inward_normal():
    def directions(points, dirs):
        rgb = (dirs[:, :, None] / 2 + 0.5).expand_as(points)
        features = torch.cat([rgb, torch.zeros_like(rgb)], -1)  # as EG3D's, whose first three are colours
        return Answer(features, sdf=points.norm(dim=-1) - 0.3, beta=torch.ones(points.shape[:3]))

    mesh = mesh_of(directions, 1.0, 24)
    expected = (0.5 - mesh.normals / 2) * 255
    assert np.abs(mesh.colors - expected).max() <= 0.51
    again = paint(mesh, directions, max_points=100)
    assert (again.colors == mesh.colors).all()


def test_every_vertex_is_asked_on_request():
    followed, whole = (mesh_of(toy_field, 1.0, 40, every=every) for every in (False, True))
    assert whole.notes['asked'] == 41**3 > followed.notes['asked']
    assert np.abs(corners(whole, 40) - corners(followed, 40)).max() < 1e-3


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_writes_the_person_that_render_shows(tmp_path, capsys):
    out = tmp_path / 'head.ply'
    assert main(f'mesh --out {out} --seed 5 --resolution 40 --trunc .6 --json'.split()) == 0
    said = json.loads(capsys.readouterr().out)
    g = load_generator()
    front = g.orbit(torch.zeros(1), torch.zeros(1))
    with torch.no_grad():
        z = torch.randn(1, g.run.backbone.z_dim, generator=rng(5, 'z')).to(g.device)
        mesh = mesh_of(g.field_at(g.synthesize(g.map(z, front, 0.6))), g.run.render.box, 40, device=g.device)
    read = trimesh.load(out, process=False)
    assert np.abs(read.vertices - mesh.vertices).max() < 1e-6
    assert (said['vertices'], said['faces']) == (len(mesh.vertices), len(mesh.faces))
    assert said['boundary_edges'] == len(mesh.holes()) > 0 and said['watertight'] is False
    assert [said[k] for k in ('width', 'height', 'depth')] == pytest.approx(mesh.extent, abs=1e-4)
    assert said['surface'] == 'signed distance 0' and said['asked'] < said['grid'] == 41**3


def test_the_largest_piece_of_the_head_is_a_solid_that_other_programs_open(tmp_path, capsys):
    "With colours, upright, facing +z and in world units, as far as the file alone says."
    out = tmp_path / 'head.glb'
    assert main(f'mesh --out {out} --seed 5 --resolution 64 --largest --json'.split()) == 0
    said = json.loads(capsys.readouterr().out)
    assert said['pieces_found'] > 1 and said['watertight'] and said['boundary_edges'] == 0
    solid = trimesh.load(out, force='mesh', process=False, skip_materials=True)
    assert solid.is_watertight and solid.is_winding_consistent and solid.body_count == 1
    assert 0.2 < solid.volume / np.prod(solid.extents) < 0.7  # positive: faces are turned outward
    x, y, z = solid.vertices.T
    light = solid.visual.vertex_colors[:, :3].mean(1)
    hair, skin = y > 0.15, (np.abs(y) < 0.1) & (z > 0)
    assert light[hair].mean() < 0.5 * light[skin].mean()
    nose = solid.vertices[z.argmax()]
    assert abs(nose[0]) < 0.03 and -0.15 < nose[1] < 0.05
    g = load_generator()
    with torch.no_grad():
        planes = g.synthesize(w_of_seed(g, 5, 0.8))
        seen = g.dense(planes, g.orbit(torch.zeros(1), torch.zeros(1)), 33)
    middle = g.view[0] - seen.depth[0, 16 * 33 + 16].item()  # where the camera's axis meets the face
    above = np.hypot(x, y) < 0.03
    assert z[above].max() == pytest.approx(middle, abs=g.run.render.box / 64)
    assert y.min() == pytest.approx(-g.run.render.box / 2 * 63 / 64, abs=1e-6)


@pytest.mark.parametrize('option, closed', [('', False), ('--close', True), ('--largest', True)])
def test_the_command_closes_on_request(tmp_path, capsys, option, closed):
    assert main(f'mesh --out {tmp_path}/a.ply --resolution 24 --json {option}'.split()) == 0
    assert json.loads(capsys.readouterr().out)['watertight'] == closed


@pytest.mark.parametrize(
    'line, code, message',
    [
        ('--out x.stl', 2, "--out must end with .ply or .obj or .glb, got 'x.stl'"),
        ('', 2, '--out'),
        ('--out x.glb --resolution 1', 2, '--resolution must be from 2 to 4096, got 1'),
        ('--out x.glb --trunc nan', 2, '--trunc must be from -4 to 4, got nan'),
        ('--out x.glb --seed -1', 2, '--seed must be at least 0, got -1'),
        ('--out x.glb --level nan', 2, '--level must be from -1e+06 to 1e+06, got nan'),
        ('--out x.glb --budget 0', 2, '--budget must be from 0.001 to 1024, got 0'),
        ('--out x.glb --network a/g.safetensors', 1, 'no generator at a/g.safetensors'),
        ('--out x.glb --budget 0.001', 1, 'resolution 256 takes 0.014 GiB, the budget is 0.001'),
    ],
)
def test_the_command_refuses_what_makes_no_sense(tmp_path, monkeypatch, capsys, line, code, message):
    monkeypatch.chdir(tmp_path)
    try:
        got = main(['mesh', *line.split()])
    except SystemExit as e:
        got = e.code
    said = capsys.readouterr()
    assert got == code and message in said.err and not said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('live', [True, False])
@pytest.mark.parametrize(
    'line, bars',
    [
        ('mesh --out {}/a.ply --resolution 24', ['field', 'surface', 'normals']),
        ('mesh --out {}/a.ply --resolution 24 --every', ['field', 'surface', 'normals']),
        ('video --out {}/a.mp4 --frames 2 --resolution 16', ['film']),
        ('video --out {}/a.mp4 --frames 2 --resolution 16 --seeds 3,5', ['film']),
    ],
)
def test_progress_is_told_on_a_terminals_stderr_alone(tmp_path, capsys, monkeypatch, line, bars, live):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: live, raising=False)
    code, out, err = called(line.format(tmp_path) + ' --json', capsys)
    assert code == 0 and json.loads(out)['seconds'] >= 0
    told = [name for name in ('field', 'surface', 'normals', 'film') if f'{name}: ' in err]
    assert told == bars * live and ('%' in err) == live


# ---- films ---------------------------------------------------------------------------------------


def read_film(path) -> tuple[dict, np.ndarray]:
    how, *shots = imageio_ffmpeg.read_frames(str(path))
    width, height = how['size']
    return how, np.stack([np.frombuffer(shot, np.uint8).reshape(height, width, 3) for shot in shots])


def test_a_film_holds_its_pictures_in_their_order(tmp_path):
    rows = np.linspace(0, 200, 32)[:, None, None]
    pictures = [np.broadcast_to(rows + 5 * k, (32, 48, 3)).astype(np.uint8) for k in range(9)]
    how, shots = read_film(save_film(iter(pictures), tmp_path / 'a.mp4', fps=10))
    assert (how['size'], how['fps'], how['codec']) == ((48, 32), 10, 'h264')
    assert np.abs(shots.astype(float) - np.stack(pictures)).mean() < 3
    assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']


def test_a_film_that_breaks_off_leaves_nothing(tmp_path):
    def pictures():
        yield np.zeros((16, 16, 3), np.uint8)
        raise RuntimeError('no more')

    with pytest.raises(RuntimeError, match='no more'):
        save_film(pictures(), tmp_path / 'a.mp4')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('options, kept', [('-frames:v 3', 3), ('-fs 1', '[0-8]')])
def test_a_film_that_ffmpeg_cut_short_leaves_nothing(tmp_path, monkeypatch, options, kept):
    "An ffmpeg that stops writing before the end, as on a full disc, and says nothing."
    real = imageio_ffmpeg.get_ffmpeg_exe()
    script = tmp_path / 'ffmpeg'
    lines = [
        '#!/bin/bash',
        f'[ "${{@: -1}}" = - ] || cut="{options}"',  # - is where frames are counted
        f'exec {real} "${{@:1:$#-1}}" $cut "${{@: -1}}"',
    ]
    script.write_text('\n'.join(lines))
    script.chmod(0o755)
    monkeypatch.setenv('IMAGEIO_FFMPEG_EXE', str(script))
    pictures = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8)
    path = tmp_path / 'films' / 'a.mp4'
    with pytest.raises(WriteError, match=f'a.mp4 could not be written .*ffmpeg kept {kept} of 9 frames'):
        save_film(pictures, path)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize('fps', [0.5, 12, 23.976, 240])
def test_a_film_of_any_speed_is_whole(tmp_path, fps):
    assert len(read_film(save_film(np.zeros((5, 16, 16, 3), np.uint8), tmp_path / 'a.mp4', fps))[1]) == 5


@pytest.mark.parametrize(
    'second, options, message',
    [
        (np.zeros((16, 16, 3)), {}, 'frame 1 is float64: a film needs uint8'),
        (np.zeros((16, 18, 3), np.uint8), {}, r'frame 1 has the shape \[16, 18, 3\]'),
        (np.zeros((16, 16, 3), np.uint8), dict(fps=0), 'got fps = 0: give 24'),
        (np.zeros((16, 16, 3), np.uint8), dict(fps=math.nan), 'got fps = nan'),
    ],
)
def test_a_film_of_unlike_pictures_is_refused(tmp_path, second, options, message):
    with pytest.raises(ValueError, match=message):
        save_film([np.zeros((16, 16, 3), np.uint8), second], tmp_path / 'a.mp4', **options)
    assert not list(tmp_path.iterdir())


@given(st.integers(2, 200), st.floats(0.01, 3.0))
def test_a_turntable_comes_back(frames, swing):
    yaws = np.array(turntable_yaws(frames, swing))
    step = 2 * math.pi / frames * swing
    assert np.abs(np.diff([*yaws, yaws[0]])).max() <= step + 1e-9
    assert yaws[0] == 0 and np.abs(yaws).max() <= swing
    round_ = np.diff([*turntable_yaws(frames, None), 2 * math.pi])
    assert np.allclose(round_, 2 * math.pi / frames)


@pytest.mark.parametrize(
    'frames, swing, renders, held',
    [(24, 0.7, 13, 7), (10, 0.7, 5, 3), (2, 0.7, 1, 1), (9, 0.7, 9, 1), (24, None, 24, 1), (1, 0.7, 1, 1)],
)
def test_a_film_keeps_what_comes_again_and_nothing_else(monkeypatch, frames, swing, renders, held):
    "A picture says its yaw by its brightness; those that live while a frame is shown are counted."
    made, living, shown = [], [], []

    def pictured(planes, yaw, resolution, normals):
        grey = torch.full((1, 3, 4, 4), yaw / 8 + 0.1)
        return SimpleNamespace(image=lambda: grey, normal_colors=lambda camera: grey)

    def remembered(pictures, cols):
        picture = sheet(pictures, cols)
        made.append(weakref.ref(picture))
        return picture

    def watched(pictures, path, fps):
        for picture in pictures:
            shown.append(picture.mean() / 255)
            living.append(sum(one() is not None for one in made))

    monkeypatch.setattr(export, 'sheet', remembered)
    monkeypatch.setattr(export, 'save_film', watched)
    g = SimpleNamespace(orbit=lambda yaw, pitch: yaw.item(), render=pictured)
    turntable(g, None, 'a.mp4', frames, swing=swing)
    wanted = np.array(turntable_yaws(frames, swing)) / 8 + 0.1
    assert np.abs(shown - wanted).max() < 1 / 255
    assert (len(made), max(living)) == (renders, held)


def test_a_film_of_nobody_or_of_no_number_is_refused(tmp_path):
    g, path = load_generator(), tmp_path / 'a.mp4'
    w = torch.stack([w_of_seed(g, seed, 0.8) for seed in range(2)])
    planes, unknown = g.synthesize(w[0]), torch.full_like(w, math.nan)
    for call, why in (
        (lambda: passage(g, w[:0], path), 'w holds nobody'),
        (lambda: passage(g, w[:, :0], path), 'w holds nobody'),
        (lambda: passage(g, w, path, frames=0), 'give at least one frame'),
        (lambda: passage(g, torch.cat([w, unknown]), path), 'w must be finite'),
        (lambda: passage(g, w, path, 2, 16, swing=math.nan), 'a frame is not finite'),
        (lambda: turntable(g, planes * math.nan, path, 2, 16), 'a frame is not finite'),
        (lambda: turntable(g, planes, path, 0), 'give at least one frame'),
    ):
        with pytest.raises(ValueError, match=why):
            call()
    assert not list(tmp_path.iterdir())


def test_the_video_command_warns_where_nothing_is_seen(tmp_path, capsys, monkeypatch):
    g = load_generator()
    monkeypatch.setattr(cli, '_open_generator', {'': g}.get)
    line = f'video --out {tmp_path}/a.mp4 --frames 1 --resolution 16'.split()
    assert main(line) == 0 and 'nothing is seen' not in capsys.readouterr().err
    g.view = 30.0, g.view[1]  # its rays end long before the head
    assert main(line) == 0
    assert 'nothing is seen from radius 30.00' in capsys.readouterr().err


def test_the_video_command_shows_still_frames(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(export, 'turntable', lambda g, planes, path, **how: shown.append(g) or path)
    assert main(f'video --out {tmp_path}/a.mp4 --frames 1 --resolution 16'.split()) == 0
    sampler = shown[0].renderer.sampler
    assert (sampler.policy, sampler.jitter, sampler.empty) == ('need', False, 0)


def test_the_video_command_shows_the_person_from_the_front_first(tmp_path, capsys):
    out = tmp_path / 'head.mp4'
    assert main(f'video --out {out} --seed 5 --frames 3 --fps 12 --resolution 32 --json'.split()) == 0
    assert json.loads(capsys.readouterr().out)['plays'] == 0.25
    assert main(f'render --outdir {tmp_path} --seeds 5 --resolution 32'.split()) == 0
    how, shots = read_film(out)
    assert (how['size'], how['fps'], len(shots)) == ((64, 32), 12, 3)
    still = np.asarray(Image.open(tmp_path / 'seed0005_image.png')).astype(float)
    away = [np.abs(shot[:, :32] - still).mean() for shot in shots]
    assert away[0] < 4 < 2 * away[0] < min(away[1:])


def test_a_film_has_a_widest(tmp_path, capsys):
    assert main(f'video --out {tmp_path}/a.mp4 --seeds 0-199 --resolution 32 --frames 1'.split()) == 1
    assert 'a film holds 32 heads of 32 pixels beside each other, got 200' in capsys.readouterr().err
    assert main(f'video --out {tmp_path}/a.mp4 --seeds 0-19 --resolution 1024 --frames 1'.split()) == 1
    assert 'a film holds 16 heads of 1024 pixels beside each other, got 20' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('more, size', [('', (64, 64)), (' --morph', (32, 64))])
def test_several_people_stand_beside_each_other_or_turn_into_each_other(tmp_path, capsys, more, size):
    out, people = tmp_path / 'all.mp4', [5, 9]
    line = f'video --out {out} --seeds 5,9 --frames 4 --swing 0 --resolution 32{more}'
    assert main(line.split()) == 0
    assert main(f'render --outdir {tmp_path} --seeds 5,9 --resolution 32'.split()) == 0
    capsys.readouterr()
    how, shots = read_film(out)
    assert (how['size'], len(shots)) == (size, 4)
    stills = [np.asarray(Image.open(tmp_path / f'seed{i:04}_image.png')).astype(float) for i in people]
    if more:
        shown = [shots[0][:32], shots[2][:32]]  # half of the way is the second
    else:
        shown = [shots[0][:32, :32], shots[0][:32, 32:]]
    away = np.array([[np.abs(x - still).mean() for still in stills] for x in shown])
    assert away.diagonal().max() < 4 < np.fliplr(away).diagonal().min()


@pytest.mark.parametrize(
    'line, message',
    [
        ('--out x.gif', "--out must end with .mp4, got 'x.gif'"),
        ('--out x.mp4 --frames 0', '--frames must be from 1 to'),
        (
            '--out x.mp4 --resolution 33 --network none',
            '--resolution must be even for a film, got 33: give 34',
        ),
        ('--out x.mp4 --fps nan', '--fps must be from 0.1 to 240, got nan'),
        ('--out x.mp4 --swing 4', '--swing must be from 0 to 3.2, got 4: radians'),
        ('--out x.mp4 --morph', 'give two --seeds or more'),
        ('--out x.mp4 --seeds 3-1', 'seeds'),
        ('--out x.mp4 --seeds 3,4 --seed 0', '--seed and --seeds name the same people: give one of them'),
        ('--out x.mp4 --turn --swing .7', '--turn and --swing are two ways to move: give one of them'),
        ('--out x.mp4 --seeds 3,3 --morph', 'give two --seeds or more'),
        ('--out x.mp4 --seeds 3-5 --morph --frames 2', '3 people need as many --frames at least, got 2'),
    ],
)
def test_the_video_command_refuses_what_makes_no_sense(tmp_path, monkeypatch, capsys, line, message):
    monkeypatch.chdir(tmp_path)
    assert main(['video', *line.split()]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
