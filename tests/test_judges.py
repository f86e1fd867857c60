"Judges of heads: closed forms and brute force, what they say of spoiled heads, and what they may be told."

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import headnet as script
import numpy as np
import pytest
import torch
from PIL import Image
from small_run import RUN
from hypothesis import given, strategies as st
from scipy.linalg import sqrtm

from wysiwyg import cli, judges, metrics
from wysiwyg.camera import Camera, camera_rays, empirical_cameras, gaussian_cameras, orbit
from wysiwyg.cli import main
from wysiwyg.config import HeadsConfig
from wysiwyg.core import rng, to_image
from wysiwyg.data import Dataset, png_bytes, write_zip
from wysiwyg.generator import save_generator
from wysiwyg.heads import head_camera, load_head_model, render_heads, sample_person, truth
from wysiwyg.judges import (
    SIDE,
    SIDES,
    Judged,
    bumps,
    bumpy,
    costliest,
    coverage,
    depth_at,
    depth_normals,
    front_camera,
    headnet,
    headnet_path,
    judge_cameras,
    judge_heads,
    known_heads,
    look_at_heads,
    looked_at,
    normals_by_depth,
    precision,
    relief,
    shape_codes,
    shares_features,
    silhouette_overlap,
    true_depth,
    true_fronts,
    without_nose,
)
from wysiwyg.method import WYSIWYG
from wysiwyg.metrics import fakes, features, frechet, is_distance, latents, metric, same_protocol

SEED = st.integers(0, 10**6)


# ---- coverage and precision ----------------------------------------------------------------------


def brute(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    "Coverage and precision, a pair at a time."
    radius = []
    for i, x in enumerate(real):
        others = sorted(np.linalg.norm(x - np.delete(real, i, 0), axis=1))
        radius.append(others[k - 1])
    between = np.linalg.norm(real[:, None] - fake[None], axis=-1)
    inside = between <= np.array(radius)[:, None]
    return inside.any(1).mean(), inside.any(0).mean()


@given(SEED, st.integers(4, 12), st.integers(1, 12), st.integers(1, 3))
def test_neighbours_by_brute_force(seed, n, m, k):
    g = rng(seed)
    real, fake = torch.randn(n, 3, generator=g), torch.randn(m, 3, generator=g) * 1.5
    want = brute(real.double().numpy(), fake.double().numpy(), k)
    assert (coverage(real, fake, k), precision(real, fake, k)) == pytest.approx(want)


def test_coverage_of_the_same_distribution():
    "1 - (n-1)...(n-k) / (n+m-1)...(n+m-k), Naeem et al. 2020, equation 10."
    n, m, k = 200, 150, 3
    found = []
    for seed in range(20):
        x, y = torch.randn(n, 6, generator=rng(seed, 'x')), torch.randn(m, 6, generator=rng(seed, 'y'))
        found.append(coverage(x, y, k))
    empty = [(n - 1 - j) / (n + m - 1 - j) for j in range(k)]
    want = 1 - math.prod(empty)
    assert np.mean(found) == pytest.approx(want, abs=0.01)


def test_neighbours_are_refused_in_words():
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match='4 real rows have no 5 neighbours each: give more, or a smaller k'):
        coverage(x, x)
    with pytest.raises(ValueError, match='fake'):
        precision(torch.zeros(9, 2), torch.zeros(9, 3))


# ---- normals by differences ----------------------------------------------------------------------


def plane(camera: Camera, normal: torch.Tensor, side: int) -> torch.Tensor:
    "Depth of the plane through the origin along unit rays, [B, side, side]."
    rays = camera_rays(camera, side)
    t = -(rays.origins @ normal) / (rays.dirs @ normal)
    return to_image(t[..., None])[:, 0]


@pytest.mark.parametrize('tilt', [(0.0, 0.0, 1.0), (0.4, 0.0, 1.0), (-0.3, 0.5, 1.0)])
def test_a_plane_has_one_normal(tilt):
    normal = torch.tensor(tilt) / torch.tensor(tilt).norm()
    camera = orbit(torch.tensor([0.2]), torch.tensor([-0.1]), 2.7, 4.2647)
    depth = plane(camera, normal, 16)
    found = depth_normals(depth, torch.ones_like(depth), camera)[0]
    seen = camera.cam2world[0, :3, :3].T @ normal * torch.tensor([1, -1, -1])
    want = ((seen / 2 + 0.5) * 255 + 0.5).byte()
    inner = found[:, 1:-1, 1:-1].int()
    assert (inner - want[:, None, None].int()).abs().max() <= 1
    assert not found[:, 0].any() and not found[:, :, -1].any()


def test_a_pixel_beside_a_hole_has_no_normal():
    camera = front_camera()
    mask = torch.ones(1, 8, 8)
    mask[0, 4, 4] = 0.4
    found = depth_normals(torch.full((1, 8, 8), 2.7), mask, camera)[0].any(0)
    want = torch.zeros(8, 8, dtype=torch.bool)
    want[1:-1, 1:-1] = True
    want[3:6, 3:6] = False
    assert torch.equal(found, want)
    with pytest.raises(ValueError, match='depth'):
        depth_normals(mask, mask, front_camera(2))


def test_depth_is_of_the_surface_alone():
    mask = torch.rand(2, 8, 8, generator=rng(0)).round()
    depth, share = depth_at(mask * 2.5, mask, 4)
    assert torch.equal(share, torch.nn.functional.avg_pool2d(mask[:, None], 2)[:, 0])
    assert torch.allclose(depth[share > 0], torch.tensor(2.5))
    assert depth_at(mask, mask, 8)[0] is mask


# ---- the file ------------------------------------------------------------------------------------


def test_the_file_is_small_and_known(monkeypatch):
    assert headnet_path().stat().st_size <= 2_000_000
    assert headnet().name == headnet('normal').name == 'headnet1'
    with pytest.raises(ValueError, match="kinds 'picture' and 'normal', not 'depth'"):
        headnet('depth')
    judges._headnet_tensors.cache_clear()
    monkeypatch.setattr(judges, 'HEADNET_SHA', 'f' * 64)
    with pytest.raises(ValueError, match='headnet.safetensors has SHA-256 .*restore it, or give'):
        shape_codes(torch.zeros(1, SIDE, SIDE))
    monkeypatch.setattr(judges, 'headnet_path', lambda: headnet_path().with_name('gone.safetensors'))
    with pytest.raises(ValueError, match='no gone.safetensors: it ships in data/'):
        shape_codes(torch.zeros(1, SIDE, SIDE))


def test_a_damaged_file_is_told_of_before_pictures_are_made(data, monkeypatch, capsys):
    def damaged(*a):
        raise ValueError('headnet.safetensors is damaged: restore it')

    made = []
    monkeypatch.setattr(judges, 'headnet', damaged)
    monkeypatch.setattr(metrics, 'evaluate', lambda *a, **k: made.append(a))
    assert main(['eval', '--data', str(data.path), '--n', '2', '--no-track']) == 1
    assert 'headnet.safetensors is damaged: restore it' in capsys.readouterr().err
    assert not made


def test_the_networks_take_any_side():
    x = torch.randint(0, 256, (2, 3, 128, 128), generator=rng(0), dtype=torch.uint8)
    small = torch.nn.functional.interpolate(x.float(), size=(64, 64), mode='area')
    assert torch.allclose(headnet()(x), headnet()(small))
    assert headnet('normal')(x[:, :, :32, :32]).shape == (2, 96)


def test_shape_distance_by_the_matrix_root(tmp_path):
    "Frechet distance of codes, beside scipy's root of a product of covariances."
    reliefs, masks = true_fronts(40, tmp_path)
    assert torch.equal(true_fronts(40, tmp_path)[0], reliefs)
    spoiled = reliefs + 0.01 * torch.randn(40, SIDE, SIDE, generator=rng(1))
    tensors = judges._headnet_tensors()
    basis, mean = tensors['front.basis'].double().numpy(), tensors['front.mean'].double().numpy()
    one, other = [(x.flatten(1).double().numpy() - mean) @ basis.T for x in (reliefs, spoiled)]
    a, b = np.cov(one.T), np.cov(other.T)
    means = ((one.mean(0) - other.mean(0)) ** 2).sum()
    want = means + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet(shape_codes(reliefs), shape_codes(spoiled)) == pytest.approx(want, rel=1e-3)
    with pytest.raises(ValueError, match='reliefs'):
        shape_codes(reliefs[:, ::2, ::2])


def test_components_are_orthogonal_and_hold_what_people_differ_by(tmp_path):
    basis = judges._headnet_tensors()['front.basis']
    gram = basis @ basis.T
    scale = gram.diag().mean()
    assert torch.allclose(gram / scale, torch.eye(32), atol=5e-3)
    reliefs, _ = true_fronts(40, tmp_path)
    inside = shape_codes(reliefs).var(0).sum() / scale
    assert inside / reliefs.flatten(1).var(0).sum() > 0.85


# ---- the trial -----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def config():
    return HeadsConfig(n=200, resolution=64, seed=77, yaw_std=0.6)


def spoiled_depths(people, cameras) -> dict[str, torch.Tensor]:
    "Depths of heads as they are, with bumps of 5 and 10 % slope, and without noses; and their masks."
    model = load_head_model()
    plain = [true_depth(model, p, c) for p, c in zip(people, cameras)]
    flat = [true_depth(model, without_nose(model, p), c) for p, c in zip(people, cameras)]
    depth, mask = [torch.cat(x) for x in zip(*plain)]
    out = {'mask': mask, 'true': depth, 'no nose': torch.cat([d for d, _ in flat])}
    return out | {f'bumps {a}': bumpy(depth, a) for a in (0.05, 0.1)}


def test_a_missing_nose_is_worse_than_bumpy_skin(config):
    "In features of normals; 100 heads from their own cameras against 100 others."
    model = load_head_model()
    cameras = [head_camera(config, i) for i in range(200)]
    people = [sample_person(model, config.seed, i) for i in range(200)]
    seen = spoiled_depths(people[:100], cameras[:100])
    others = [true_depth(model, p, c) for p, c in zip(people[100:], cameras[100:])]
    judge = headnet('normal')

    def judged(depth, mask, of):
        label = torch.cat([c.label for c in of])
        return features(judge, depth_normals(depth, mask, Camera.from_label(label)))

    real = judged(*[torch.cat(x) for x in zip(*others)], cameras[100:])
    mask = seen.pop('mask')
    found = {name: frechet(real, judged(depth, mask, cameras[:100])) for name, depth in seen.items()}
    assert found['true'] < found['no nose']
    assert found['bumps 0.05'] < found['no nose']
    assert found['bumps 0.1'] < found['no nose']
    lost, rough = found['no nose'] - found['true'], found['bumps 0.1'] - found['true']
    assert lost > 2 * rough


def test_a_missing_nose_is_worse_than_bumpy_shapes(tmp_path):
    "In principal components of reliefs from the front."
    model = load_head_model()
    people = [sample_person(model, 77, i) for i in range(100)]
    seen = spoiled_depths(people, [front_camera()] * 100)
    mask, real = seen.pop('mask'), shape_codes(true_fronts(100, tmp_path)[0])
    found = {name: frechet(real, shape_codes(relief(depth, mask))) for name, depth in seen.items()}
    lost, rough = found['no nose'] - found['true'], abs(found['bumps 0.1'] - found['true'])
    assert lost > 2 * rough


def test_a_nose_is_all_that_is_lost():
    model = load_head_model()
    person = sample_person(model, 77, 0)
    flat = without_nose(model, person)
    moved = np.linalg.norm(person.vertices - flat.vertices, axis=1)
    assert 0.02 < moved.max() < 0.12
    assert (moved > 0).mean() < 0.15
    tip = model.mean[:, 2].argmax()
    assert flat.vertices[tip, 2] < person.vertices[tip, 2] - 0.02
    assert person.vertices is not flat.vertices


def test_bumps_have_the_slope_that_was_asked_for():
    noise = bumps((8, 64, 64), 3, width=4.0)
    slope = noise[..., 1:] - noise[..., :-1]
    assert slope.square().mean().item() == pytest.approx(1, rel=1e-4)
    depth = bumpy(torch.full((8, 64, 64), 2.7), 0.1, noise)
    pixel = 2.7 / 4.2647 / 64
    slope = (depth[..., 1:] - depth[..., :-1]) / pixel
    assert slope.square().mean().sqrt().item() == pytest.approx(0.1, rel=1e-3)


# ---- silhouettes ---------------------------------------------------------------------------------


def test_silhouettes_agree_by_how_often_pixels_are_covered():
    x = torch.rand(5, 8, 8, generator=rng(0))
    assert silhouette_overlap(x, x) == pytest.approx(1)
    assert silhouette_overlap(x, x[torch.tensor([4, 2, 0, 1, 3])]) == pytest.approx(1)
    assert silhouette_overlap(torch.ones(2, 4, 4), torch.full((3, 4, 4), 0.25)) == pytest.approx(0.25)
    with pytest.raises(ValueError, match='opacity'):
        silhouette_overlap(x, x[:, :4, :4])


# ---- a generator ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    made = HeadsConfig(n=24, resolution=64, seed=78, yaw_std=0.6, workers=1)
    return Dataset(render_heads(made, tmp_path_factory.mktemp('set') / 'heads.zip', progress=False))


@pytest.fixture(scope='module')
def g():
    torch.manual_seed(0)
    return WYSIWYG.generator(RUN).eval()


def test_truth_takes_the_way_of_fakes(data):
    known = truth(data.path)
    index = torch.tensor([5, 2])
    depth, mask = torch.from_numpy(known['depth'][index]), torch.from_numpy(known['mask'][index]) / 255
    want = depth_normals(depth, mask, Camera.from_label(data.labels[index]))
    assert torch.equal(normals_by_depth(data, index), want)
    small = Dataset(data.path, resolution=32)
    coarse = depth_at(*depth_at(depth, mask, 32))
    assert torch.equal(
        normals_by_depth(small, index), depth_normals(*coarse, Camera.from_label(data.labels[index]))
    )


def test_condition_and_camera_are_drawn_apart(data):
    one, other = judge_cameras(data, 4000, seed=3)
    assert torch.equal(one.label, empirical_cameras(data.labels, 4000, rng(3, 'eval camera')).label)
    back = [camera.cam2world[:, 0, 2].double() for camera in (one, other)]
    assert not torch.equal(*back)
    assert abs(np.corrcoef(*[x.numpy() for x in back])[0, 1]) < 0.05
    assert back[0].mean().item() == pytest.approx(back[1].mean().item(), abs=0.03)


def test_a_random_picture_is_not_what_the_mapping_was_told(g, data):
    "The generator is asked for planes of one pose, and for pictures from that, another, and the front."
    told, seen = [], []

    class Noted(SimpleNamespace):
        def map(self, z, condition, trunc):
            told.append(condition.label)
            return g.map(z, condition, trunc)

        def render(self, planes, camera, **k):
            seen.append(camera.label)
            return g.render(planes, camera, **k)

    noted = Noted(synthesize=g.synthesize, parameters=g.parameters, run=g.run)
    one, other = judge_cameras(data, 4)
    found = judges._fake_features(noted, one, other, 0, 1.0, 4, False)
    assert torch.equal(told[0], one.label) and len(told) == 1
    for label, camera in zip(seen, (one, other, front_camera(4)), strict=True):
        assert torch.equal(label, camera.label)
    found.pop('opacity')
    pictures = {'': 96, 'normal_': 96, '_random': 96, 'normal__random': 96}
    assert {name: x.shape[1] for name, x in found.items()} == pictures | {'shape_': 32}


def test_every_batch_is_seen_by_cameras_of_its_own(g, data, monkeypatch):
    views = []

    def seen(g, planes, camera, key):
        views.append(camera.label)
        return looked_at(g, planes, camera, key)

    monkeypatch.setattr(judges, 'looked_at', seen)
    one, other = judge_cameras(data, 4)
    judges._fake_features(g, one, other, 0, 1.0, 3, False)
    assert [len(x) for x in views] == [3, 3, 1, 1]
    assert torch.equal(torch.cat(views[0::2]), one.label)
    assert torch.equal(torch.cat(views[1::2]), other.label)


@pytest.mark.parametrize('paint, byte', [(1.02, 255), (-0.02, 0), (0.5, 128)])
def test_what_is_painted_beyond_white_is_white(g, data, paint, byte):
    "The colours of a painter have no bounds; 1.02 would be byte 4, nearly black, if it went round."
    painted = g.using()

    def render(*args, **k):
        out = g.render(*args, **k)
        return replace(out, rgb=torch.full_like(out.rgb, paint))

    painted.render = render
    one, other = judge_cameras(data, 2)
    [(pictures, _)] = fakes(painted, one)
    assert (pictures == byte).all()
    want = headnet()(torch.full((2, 3, RUN.resolution, RUN.resolution), byte, dtype=torch.uint8))
    found = judges._fake_features(painted, one, other, 0, 1.0, 2, False)
    for name in ('', '_random'):
        torch.testing.assert_close(found[name], want, atol=1e-4, rtol=1e-4)


def test_all_numbers_are_finite_repeat_and_have_floors(g, data, tmp_path):
    one = judge_heads(g, data, n=12, cache=tmp_path)
    assert all(type(x) is float and math.isfinite(x) for x in one.values())
    assert judge_heads(g, data, n=12, cache=tmp_path) == one
    names = {name.removeprefix('eval/') for name in one if name.startswith('eval/')}
    assert {name.removeprefix('floor/') for name in one if name.startswith('floor/')} == names
    assert {
        'fd_headnet1_12',
        'fd_headnet1_12_random',
        'normal_fd_headnet1_12',
        'normal_fd_headnet1_12_random',
        'shape_fd_front1_12',
        'shape_coverage_front1_12',
        'normal_precision_headnet1_12',
        'silhouette_overlap_12',
    } <= names
    assert all(metric(name).better for name in names)
    assert not any('floor' in name for name in judge_heads(g, data, n=12, floors=False, cache=tmp_path))


def test_the_costliest_are_drawn_as_they_were_judged(g, data, tmp_path, monkeypatch):
    judged = look_at_heads(g, data, n=12, seed=3, floors=False, cache=tmp_path)
    assert isinstance(judged, Judged) and judged.rest is None
    shares = judged.shape_shares()
    assert shares.sum().item() == pytest.approx(judged.scores()['eval/shape_fd_front1_12'])
    who, pictures = costliest(g, data, shares, seed=3, people=2)
    monkeypatch.setattr(judges, '_PIXELS', 1)
    one_by_one = costliest(g, data, shares, seed=3, people=2)[1]
    assert one_by_one.shape == pictures.shape  # other random numbers, the same people
    assert (one_by_one - pictures).abs().mean() < 0.1 * pictures.std()
    assert who == shares.topk(2).indices.tolist()
    assert pictures.shape == (8, 3, RUN.resolution, RUN.resolution)
    seen, _ = judge_cameras(data, 12, 3)
    z = latents(g, who, 3)
    planes = g.synthesize(g.map(z, seen[who]))
    for i, yaw in enumerate(SIDES.values()):
        view = orbit(torch.full((2,), yaw), torch.zeros(2))
        want = g.render(planes, view, normals=True, key=(3, 'costliest'))
        torch.testing.assert_close(pictures[2 * i : 2 * i + 2], want.image().clamp(0, 1))
    torch.testing.assert_close(pictures[6:], want.normal_colors(view).clamp(0, 1))


def test_eval_draws_the_worst(g, data, tmp_path, monkeypatch, capsys):
    network, out = tmp_path / 'g.safetensors', tmp_path / 'worst.png'
    save_generator(g, network)
    asked = ['eval', '--network', str(network), '--data', str(data.path), '--worst', str(out)]
    assert main([*asked, '--n', '12', '--no-track']) == 0
    drawn = capsys.readouterr().err
    assert re.search(rf'8 of 12 people make \d+% of the distance between shapes \(evenly 67%\): {out}', drawn)
    assert Image.open(out).size == (72 + 8 * 128, 16 + 4 * 128)
    monkeypatch.setattr(metrics, 'evaluate', lambda *a, **k: pytest.fail('measured'))
    assert main([*asked, '--n', '25', '--no-track']) == 2
    said = '--worst looks at 25 heads with their truth, heads.zip has 24: choose --n 24 or less'
    assert said in capsys.readouterr().err
    assert known_heads(data) == 24
    monkeypatch.setattr(judges, 'truth_path', lambda path: tmp_path / 'none')
    assert main([*asked, '--n', '2', '--no-track']) == 2
    assert 'heads.zip has 0: leave --worst out' in capsys.readouterr().err


def test_numbers_outlive_a_picture_that_cannot_be_drawn(g, data, tmp_path, monkeypatch, capsys):
    def full(*a):
        raise OSError('the disk is full')

    network, out = tmp_path / 'g.safetensors', tmp_path / 'worst.png'
    save_generator(g, network)
    monkeypatch.setattr(cli, '_save_labelled', full)
    asked = ['eval', '--network', str(network), '--data', str(data.path), '--worst', str(out)]
    assert main([*asked, '--n', '8', '--no-track']) == 0
    told = capsys.readouterr()
    assert f'warning: the disk is full; {out} is not drawn' in told.err
    assert 'shape_fd_front1_8' in told.out


def test_what_cannot_be_judged_is_said(g, data, tmp_path, capsys):
    with pytest.raises(ValueError, match='n = 1 pictures make no distribution: give at least 2'):
        judge_heads(g, data, n=1)
    assert judge_heads(g, data, n=25, cache=tmp_path) == {}
    assert (
        '24 true heads beside heads.zip, 25 wanted: the judges of heads are left out'
        in capsys.readouterr().err
    )
    x = np.zeros((64, 64, 3), np.uint8)
    labels = gaussian_cameras(2, rng(0)).label.tolist()
    rows = [(f'{i}.png', png_bytes(x), label) for i, label in enumerate(labels)]
    own = Dataset(write_zip(tmp_path / 'own.zip', rows))
    assert judge_heads(g, own, n=2, cache=tmp_path) == {}
    assert '0 true heads beside own.zip' in capsys.readouterr().err


# ---- the script that trains them -----------------------------------------------------------------


def test_training_repeats_and_scales_features(data, monkeypatch):
    monkeypatch.setattr(script, 'render_heads', lambda config: data.path)
    monkeypatch.setattr(script, 'KEPT', 8)
    monkeypatch.setattr(script, 'BATCH', 8)
    heads = script.Heads(HeadsConfig(n=24, resolution=64, seed=78, yaw_std=0.6))
    for kind in ('picture', 'normal'):
        one, again = [script.train(heads, kind, 2, seed=5).eval().state_dict() for _ in range(2)]
        assert all(torch.equal(one[name], again[name]) for name in one)
        net = judges.HeadNet().eval()
        net.load_state_dict(one)
        with torch.no_grad():
            spread = net(heads.batch(kind, torch.arange(16), False)).var(0).sum()
        assert spread.item() == pytest.approx(100, rel=1e-3)


def test_the_basis_is_of_the_largest_components():
    made = script.basis(78, 40)
    rows = made['front.basis'] / made['front.basis'].norm(dim=1, keepdim=True)
    assert torch.allclose(rows @ rows.T, torch.eye(32), atol=1e-4)
    model = load_head_model()
    depths = [true_depth(model, sample_person(model, 78, i), front_camera()) for i in range(40)]
    x = torch.cat([relief(*seen).flatten(1) for seen in depths])
    codes = (x - made['front.mean']) @ made['front.basis'].T
    assert codes.var(0).sum().item() == pytest.approx(100, rel=1e-3)
    centred = (x - x.mean(0)).double().numpy()
    values = np.linalg.eigvalsh(centred @ centred.T)[::-1]  # of the Gram matrix: the variances' own
    kept = (rows.double().numpy() @ centred.T) ** 2
    assert kept.sum() == pytest.approx(values[:32].sum(), rel=1e-3)


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name, better, said',
    [
        ('eval/fd_headnet1_500', -1, 'pictures, in features of headnet1'),
        ('eval/normal_fd_headnet1_500', -1, 'normal maps, in features of headnet1'),
        ('floor/shape_fd_front1_500', -1, 'reliefs from the front, in features of front1'),
        ('eval/fd_headnet1_500_random', -1, 'another pose than the mapping was told'),
        ('eval_low/normal_fd_headnet1_500_random', -1, 'another pose'),
        ('eval/coverage_headnet1_500', 1, 'true ones'),
        ('eval/normal_precision_headnet1_500', 1, 'fakes'),
        ('eval/silhouette_overlap_500', 1, 'from the front'),
    ],
)
def test_names_are_in_the_table(name, better, said):
    assert metric(name).better == better
    assert said in metric(name).meaning
    assert is_distance(name) == ('fd_' in name)


def test_poses_are_not_compared():
    says = 'may not be compared: pose its own against _random'
    with pytest.raises(ValueError, match=says):
        same_protocol('eval/fd_headnet1_500', 'floor/fd_headnet1_500_random')


@pytest.mark.parametrize(
    'name, params, shared',
    [
        ('eval/fd_efflite0at96_500', {'schedule.features': [[0, 0.3]]}, True),
        ('normal_kd_efflite0at96_500', {'schedule.features': [[0, 0.0], [9000, 0.3]]}, True),
        ('eval/fd_headnet1_500', {'schedule.features': [[0, 0.3]]}, False),
        ('eval/shape_fd_front1_500', {'schedule.features': [[0, 0.3]]}, False),
        ('eval/fd_efflite0at96_500', {'schedule.features': [[0, 0.0]]}, False),
        ('eval/fd_efflite0at96_500', {'schedule.features': math.nan}, False),
        ('eval/fd_efflite0at96_500', {}, False),
        ('eval/fd_efflite0at96_500', {'system': 'mimic3d'}, True),
        ('eval/fd_efflite0at96_500', {'system': 'mimic3d', 'mimic3d.perceptual': 'lpips'}, False),
    ],
)
def test_a_shared_network_is_known(name, params, shared):
    assert shares_features(name, params) is shared
