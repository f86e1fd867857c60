"Metrics: closed forms, clean-fid as the oracle, properties of any input, and the evaluation of a generator."

import json
import math
import re
import warnings
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_run import RUN
import wysiwyg
from hypothesis import given, strategies as st

from wysiwyg.camera import empirical_cameras, gaussian_cameras, orbit
from wysiwyg.config import override
from wysiwyg.core import Answer, data_dir, rng
from wysiwyg.data import Dataset, png_bytes, write_zip
from wysiwyg.generator import Generator
from wysiwyg import metrics
from wysiwyg.method import WYSIWYG
from wysiwyg.volrend import March, Rendering
from wysiwyg.metrics import (
    _CHEAP,
    INCEPTION_SHA,
    METRICS,
    PROTOCOLS,
    Extractor,
    Protocol,
    bootstrap,
    clean_fid,
    close_look,
    consistency,
    cut_density,
    cut_depth,
    depth_error,
    _distances,
    evaluate,
    fakes,
    features,
    frechet,
    frechet_shares,
    frontal_flatness,
    inception,
    intervals,
    kernel_distance,
    measure,
    metric,
    non_flatness,
    normal_error,
    normal_images,
    protocol,
    psnr,
    _read_table,
    ready,
    real_features,
    real_index,
    same_protocol,
    worst_psnr,
)
from wysiwyg.studies import tightness

SEED = st.integers(0, 10**6)


def means(x):
    "A network of no weights."
    return F.adaptive_avg_pool2d(x, 4).flatten(1)


MEAN = Extractor('means', 16, 'a' * 64, means)


@given(SEED, st.integers(2, 60), st.integers(2, 60), st.integers(2, 20))
def test_frechet_is_a_squared_distance(seed, n, m, d):
    g = rng(seed)
    x = torch.randn(n, d, generator=g)
    y = torch.randn(m, d, generator=g) * 2
    shift = torch.randn(d, generator=g)
    turn = torch.linalg.qr(torch.randn(d, d, generator=g)).Q
    f = frechet(x, y)
    assert f >= 0
    assert f == pytest.approx(frechet(y, x), rel=1e-6, abs=1e-6)
    assert f == pytest.approx(frechet(x @ turn, y @ turn), rel=1e-4, abs=1e-4)
    assert frechet(x, x + shift) == pytest.approx(shift.square().sum().item(), rel=1e-3, abs=1e-4)


@given(SEED, st.integers(2, 60), st.integers(2, 60), st.integers(2, 20))
def test_shares_are_positive_and_sum_to_the_distance(seed, n, m, d):
    g = rng(seed)
    x = torch.randn(n, d, generator=g)
    y = torch.randn(m, d, generator=g) * 2 + 0.5
    shares = frechet_shares(x, y)
    assert (shares >= 0).all()
    assert shares.sum().item() == pytest.approx(frechet(x, y), rel=1e-6, abs=1e-6)
    order = torch.randperm(m, generator=g)
    torch.testing.assert_close(frechet_shares(x, y[order]), shares[order], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('spoil', ['constant column', 'twins', 'one person', 'few rows'])
def test_shares_do_not_depend_on_who_comes_first(spoil):
    "Also where the fakes spread in fewer directions than the truth does."
    x = torch.randn(80, 6, generator=rng('x'))
    y = torch.randn(4 if spoil == 'few rows' else 40, 6, generator=rng('y')) * 1.5
    if spoil == 'constant column':
        y[:, 2] = 3.0
    if spoil == 'twins':
        y[20:] = y[:20]
    if spoil == 'one person':
        y[:] = y[0].clone()
    shares = frechet_shares(x, y)
    assert shares.sum().item() == pytest.approx(frechet(x, y), rel=1e-6)
    order = torch.randperm(len(y), generator=rng('order'))
    torch.testing.assert_close(frechet_shares(x, y[order]), shares[order], rtol=1e-6, atol=1e-9)
    if spoil == 'twins':
        torch.testing.assert_close(shares[20:], shares[:20])


def test_shares_are_moves_of_the_matrix_root():
    "The map of optimal transport between two Gaussians, from SciPy's roots."
    from scipy.linalg import inv, sqrtm

    x = torch.randn(90, 5, generator=rng('x')).double()
    mix = torch.randn(5, 5, generator=rng('mix'))
    y = (torch.randn(70, 5, generator=rng('y')) @ mix).double() + 1
    c, d = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    root = sqrtm(d)
    carry = inv(root) @ sqrtm(root @ c @ root).real @ inv(root)
    around = (y - y.mean(0)).numpy()
    shift = (y.mean(0) - x.mean(0)).numpy()
    moves = (around - around @ carry) * (70 / 69) ** 0.5 + shift
    assert frechet_shares(x, y).numpy() == pytest.approx((moves**2).sum(1) / 70, rel=1e-6)


@pytest.mark.parametrize('distance', [frechet, frechet_shares, kernel_distance, intervals])
def test_features_of_two_networks_are_refused(distance):
    with pytest.raises(ValueError, match=r"y must have shape \[M D\] with {'D': 4}, got \[9, 3\]"):
        distance(torch.randn(8, 4), torch.randn(9, 3))


def test_a_stranger_has_the_largest_share():
    x = torch.randn(200, 6, generator=rng('x'))
    y = torch.randn(150, 6, generator=rng('y'))
    y[17] = 9.0
    shares = frechet_shares(x, y)
    assert shares.argmax() == 17 and shares[17] > 0.5 * shares.sum()
    with pytest.raises(ValueError, match='y holds 1 non-finite values'):
        frechet_shares(x, y.index_put((torch.tensor(3), torch.tensor(2)), torch.tensor(math.inf)))


@given(SEED)
def test_frechet_equals_clean_fid(seed):
    x = torch.randn(90, 12, generator=rng(seed, 'x'))
    y = torch.randn(70, 12, generator=rng(seed, 'y')) * 1.4 + 0.3
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs = clean_fid().fid_from_feats(x.double().numpy(), y.double().numpy())
        assert frechet(x, y) == pytest.approx(float(theirs), rel=1e-4)


def test_frechet_on_few_samples_equals_the_matrix_root():
    from scipy.linalg import sqrtm

    x = torch.randn(9, 5, generator=rng('x')).double()
    y = torch.randn(7, 5, generator=rng('y')).double() + 1
    c, d = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    apart = (x.mean(0) - y.mean(0)).square().sum().item()
    spread = np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert frechet(x, y) == pytest.approx(apart + spread, rel=1e-6)


def test_kernel_distance_is_unbiased():
    means = [kernel_distance(*torch.randn(2, 12, 4, generator=rng('kid', i))) for i in range(400)]
    assert abs(np.mean(means)) < 3 * np.std(means) / 20


def test_kernel_distance_in_blocks_is_the_plain_one():
    x = torch.randn(1100, 3, generator=rng('x')).double()
    y = torch.randn(1030, 3, generator=rng('y')).double() + 0.3

    def k(a, b):
        return (a @ b.T / 3 + 1) ** 3

    def within(a):
        inner = k(a, a)
        return (inner.sum() - inner.diag().sum()) / (len(a) * (len(a) - 1))

    want = within(x) + within(y) - 2 * k(x, y).mean()
    assert kernel_distance(x, y) == pytest.approx(want.item(), rel=1e-9)


@given(SEED, st.integers(2, 20), st.integers(2, 20), st.integers(1, 30))
def test_intervals_from_inner_products_equal_those_from_rows(seed, n, m, d):
    g = rng(seed)
    x, y = torch.randn(n, d, generator=g) + 2, torch.randn(m, d, generator=g)
    band = intervals(x, y, repeats=5, seed=seed)
    for name, distance in (('fd', frechet), ('kd', kernel_distance)):
        want = bootstrap(distance, x, y, repeats=5, seed=seed)
        assert band[name] == pytest.approx(want, rel=1e-5, abs=1e-5)


def test_distances_carry_bounds_where_cheap():
    x, y = torch.randn(30, 4, generator=rng('x')), torch.randn(20, 4, generator=rng('y'))
    found = _distances(x, y, MEAN, 'normal_', 'floor')
    for k in ('normal_fd_means_20', 'normal_kd_means_20'):
        assert found[f'floor_low/{k}'] < found[f'floor/{k}'] < found[f'floor_high/{k}']
    many = torch.randn(_CHEAP + 1, 4, generator=rng('z'))
    assert set(_distances(many, y, MEAN)) == {'eval/fd_means_20', 'eval/kd_means_20'}


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_non_finite_is_refused(bad):
    x = torch.randn(8, 3)
    y = x.clone()
    y[2, 1] = bad
    for f in (lambda: frechet(x, y), lambda: kernel_distance(y, x)):
        with pytest.raises(ValueError, match='1 non-finite'):
            f()
    with pytest.raises(ValueError, match='non-finite'):
        non_flatness(y[None], 0, 1)


def test_bootstrap_covers():
    hits = 0
    for i in range(60):
        x = torch.randn(50, generator=rng('cover', i))
        low, high = bootstrap(lambda v: v.mean().item(), x, repeats=60, seed=i)
        hits += low <= 0 <= high
    assert 49 <= hits <= 60


def test_protocol_grants_fid50k_full_to_one_case_only():
    real = Extractor('inception', None, INCEPTION_SHA, None)
    assert protocol(real, 50_000) == 'fid50k_full'
    assert protocol(real, 50_000, 'normal_') == 'normal_fd_inception_50000'
    resized = replace(real, side=299, name='inceptionclean')
    other = replace(real, sha='b' * 64, name='inceptionbbbbbb')
    assert 'fid50k_full' not in protocol(real, 49_999)
    for extractor in (resized, other, MEAN):
        assert 'fid50k_full' not in protocol(extractor, 50_000)


def test_unlike_protocols_are_not_compared():
    name = 'normal_fd_a_b_500'
    assert same_protocol(f'eval/{name}', f'floor/{name}', name) == name
    for other, why in (
        ('normal_fd_a_500', 'extractor a_b against a'),
        ('normal_fd_a_b_50', 'count 500 against 50'),
        ('fd_a_b_500', 'kind normal_fd against fd'),
        ('normal_kd_a_b_500', 'kind normal_fd against normal_kd'),
        ('fid50k_full', 'different metrics'),
        ('non_flatness', 'different metrics'),
    ):
        with pytest.raises(ValueError, match=why):
            same_protocol(f'eval/{name}', f'eval/{other}')


def test_inception_is_hashed_before_it_is_loaded(tmp_path, monkeypatch):
    path = tmp_path / 'inception-2015-12-05.pt'

    class Net(torch.nn.Module):
        def forward(self, x, return_features: bool = False):
            return x.mean((2, 3))

    torch.jit.script(Net()).save(str(path))
    monkeypatch.setattr(torch.jit, 'load', lambda *a, **k: pytest.fail('loaded'))
    with pytest.raises(ValueError, match='was not loaded'):
        inception(path)
    monkeypatch.undo()
    import hashlib

    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setenv('WYSIWYG_INCEPTION', str(path))
    own = inception(sha=sha)
    assert own(torch.ones(2, 3, 8, 8)).shape == (2, 3)
    assert own.name == f'inception{sha[:6]}'
    monkeypatch.delenv('WYSIWYG_INCEPTION')
    with pytest.raises(FileNotFoundError, match='WYSIWYG_INCEPTION'):
        inception()


@given(SEED, st.floats(0.01, 0.99), st.integers(2, 40))
def test_cut_density_is_the_published_one(seed, q, n):
    sigma = torch.randn(2, n, 3, generator=rng(seed), dtype=torch.float64).exp()
    assert torch.equal(cut_density(sigma, q, legacy=True), torch.where(sigma < sigma.quantile(q), 0.0, sigma))
    assert torch.equal(cut_density(sigma, q)[1:], cut_density(sigma[1:], q, legacy=True))


@given(SEED, st.integers(1, 64))
def test_non_flatness_counts_bins(seed, used):
    depth = (torch.arange(used) + 0.5) / 64 + 2  # `used` bins, equally full
    assert non_flatness(depth.expand(3, 10, used), 2, 3) == pytest.approx(used, rel=1e-6)
    noise = 2 + torch.rand(2, 300, generator=rng(seed))
    assert 1 <= non_flatness(noise, 2, 3) <= 64


def laplace_density(x: float, beta: float) -> float:
    if x >= 0:
        return 0.5 * math.exp(-x / beta) / beta
    return (1 - 0.5 * math.exp(x / beta)) / beta


@given(SEED, st.integers(2, 5), st.integers(4, 12))
def test_non_flatness_of_a_volume_by_brute_force(seed, n, s):
    g = rng(seed)
    sdf = torch.randn(n, 9, s, generator=g).double() * 0.05
    beta = torch.full((n, 9, s), 0.02, dtype=torch.float64)
    t = 2 + torch.rand(n, 9, s, generator=g).double().sort(-1)[0]
    delta = torch.full_like(t, 1 / s)
    m = March(t, delta, Answer(torch.zeros(n, 9, s, 3), sdf=sdf, beta=beta), torch.zeros_like(t))
    ours = non_flatness(cut_depth(m, 3.0), 2, 3)
    scores = []
    for i in range(n):  # the definition, one picture, one ray, one sample at a time
        sigma = [[laplace_density(x, 0.02) for x in ray] for ray in sdf[i].tolist()]
        median, depths = np.quantile(np.array(sigma), 0.5), []
        for ray, ts in zip(sigma, t[i].tolist()):
            through, depth = 1.0, 0.0
            for x, at in zip(ray, ts):
                a = 1 - math.exp(-(x if x >= median else 0) / s)
                depth += through * a * at
                through *= 1 - a
            depths.append(depth + through * 3)
        p = np.histogram(np.clip(depths, 2, 3), 64, (2, 3))[0] / len(depths)
        scores.append(math.exp(-sum(q * math.log(q + 1e-12) for q in p)))
    assert ours == pytest.approx(np.mean(scores), rel=1e-9)


def test_errors():
    x = torch.rand(2, 50, 3, generator=rng('x'))
    assert psnr(x, x) == 100
    assert worst_psnr(x, x + 0.1, 0.1) == pytest.approx(20, abs=1e-3)
    y = x + 0.3 * torch.rand(x.shape, generator=rng('y'))
    scores = [worst_psnr(x, y, s) for s in (0.02, 0.1, 0.5, 1)]
    assert scores == sorted(scores)
    assert scores[-1] == psnr(x, y)
    with pytest.raises(ValueError, match='differ in shape'):
        psnr(x, y[:1])
    none = torch.zeros(2, 50, dtype=torch.bool)
    for f in (lambda: depth_error(x[..., 0], y[..., 0], none), lambda: normal_error(x, y, none)):
        with pytest.raises(ValueError, match='mask is empty'):
            f()
    axes, every = torch.eye(3), torch.ones(3, dtype=torch.bool)
    assert normal_error(axes, axes.roll(1, 0), every) == pytest.approx(90)
    depth = torch.full((2, 50), 2.5 * 0.25 + 3 * 0.75)
    flat = Rendering(x, depth, torch.full((2, 50), 0.25), torch.zeros(2, 50))
    assert flat.surface_depth(3.0).allclose(torch.tensor(2.5))


def test_normal_images_have_one_convention():
    n = torch.zeros(3, 3, 2, 2)
    n[0, 0], n[1, 1], n[2, 2] = 1, 1, 1
    on_x = orbit(torch.tensor([math.pi / 2]), 0.0)[torch.tensor([0, 0, 0])]
    seen = normal_images(n, torch.ones(3, 2, 2), on_x)[:, :, 0, 0].int()
    want = torch.tensor([[128, 128, 255], [128, 255, 128], [0, 128, 128]])  # +x to the viewer, +z left
    assert (seen - want).abs().max() <= 1
    assert not normal_images(n, torch.zeros(3, 2, 2)).any()


def test_a_view_agrees_with_itself():
    from wysiwyg.camera import camera_rays, sphere_hits

    camera = gaussian_cameras(2, rng(0))
    t, normal, hit = sphere_hits(camera_rays(camera, 32), 0.22)
    colour, depth = (normal / 2 + 0.5) * hit[..., None], torch.where(hit, t, 3.3)
    out = Rendering(colour, depth, hit.float(), 0 * t)
    score, share = consistency(out, camera, out, camera, 3.3)
    assert score > 60
    assert share > 0.9
    nearer = replace(out, depth=out.depth - 0.1 * hit)
    quality, share = consistency(nearer, camera, out, camera, 3.3)
    assert math.isnan(quality) and share == 0  # they share no point


# ---- a generator ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    x = torch.randint(0, 256, (12, 64, 64, 3), generator=rng(0, 'noise'), dtype=torch.uint8).numpy()
    labels = gaussian_cameras(12, rng(0)).label.tolist()
    rows = [(f'{i}.png', png_bytes(p), label) for i, (p, label) in enumerate(zip(x, labels))]
    return Dataset(write_zip(tmp_path_factory.mktemp('set') / 'noise.zip', rows))


@pytest.fixture(scope='module')
def g():
    torch.manual_seed(0)
    return WYSIWYG.generator(RUN, start=False).eval()


def test_features_may_be_any_real_array():
    x, y = torch.randn(2, 8, 3, generator=rng('real'))
    backwards = x.flip(0).numpy()[::-1]  # of negative strides
    for f in (frechet, kernel_distance):
        for same in (backwards, x.numpy()):
            assert f(same, y.numpy()) == pytest.approx(f(x, y))
        for twofold in (x + 1j, (x + 1j).numpy()):
            with pytest.raises(ValueError, match='y is torch.complex64: a distribution is of real numbers'):
                f(x, twofold)
    assert torch.allclose(frechet_shares(backwards, y), frechet_shares(x, y))


def test_evaluate_is_finite_repeatable_and_cached(g, data, tmp_path, capsys):
    def go(**k):
        return evaluate(g, data, n=4, extractor=MEAN, few=1, cache=tmp_path, **k)

    one = go(batch=2)
    assert '0 true normals beside noise.zip' in capsys.readouterr().err
    assert {'eval/fd_means_4', 'floor/fd_means_4', 'eval/non_flatness', 'eval/render_psnr'} <= set(one)
    assert all(type(v) is float and math.isfinite(v) for v in one.values())
    assert go(batch=2) == one
    assert len(list(tmp_path.iterdir())) == 2
    assert not any(k.startswith('floor/') for k in go(floors=False))
    with pytest.raises(ValueError, match='holds 12 pictures, 13 were asked for'):
        evaluate(g, data, n=13, extractor=MEAN, few=1, cache=tmp_path)


def test_evaluate_refuses_what_is_not_finite(g, data, tmp_path):
    broken = replace(MEAN, net=lambda x: x.mean((2, 3)) * float('nan'))
    with pytest.raises(ValueError, match='non-finite'):
        evaluate(g, data, n=4, extractor=broken, few=1, cache=tmp_path)


def test_latents_do_not_depend_on_the_batch(g):
    plain = WYSIWYG.generator(override(RUN, **{'sampler.jitter': False}), start=False).eval()
    plain.load_state_dict(g.state_dict())
    cameras = gaussian_cameras(4, rng(1))

    def images(batch):
        return torch.cat([x for x, _ in fakes(plain, cameras, batch=batch)]).int()

    assert (images(4) - images(2)).abs().max() <= 1


def test_real_features_know_data_and_seed(data, tmp_path):
    a, b = [real_features(data, MEAN, 5, s, cache=tmp_path) for s in (0, 1)]
    assert not torch.equal(a, b)
    assert torch.equal(a, features(MEAN, data.images(real_index(data, 5, 0))))
    assert torch.equal(a, real_features(data, MEAN, 5, 0, cache=tmp_path))


def unseen(g):
    "The same generator with nothing but free space."

    def free_space(points, dirs):
        n = points.shape[:-1]
        return Answer(torch.zeros_like(points), sdf=torch.ones(n), beta=torch.full(n, 0.01))

    def field_at(planes):
        return free_space

    return g.using(field_at=field_at)


def test_a_set_without_cameras_is_refused_before_anything_is_computed(g, tmp_path, monkeypatch):
    png = png_bytes(np.zeros((64, 64, 3), np.uint8))
    rows = [(f'{i}.png', png, None) for i in range(2049)]  # as many as fid50k_full wants
    bare = Dataset(write_zip(tmp_path / 'bare.zip', rows))
    monkeypatch.setattr(metrics, 'real_features', lambda *a: pytest.fail('computed'))
    for call in (evaluate, partial(measure, 'fid50k_full')):
        with pytest.raises(ValueError, match='^bare has no labels: give a set with cameras'):
            call(g, bare, extractor=MEAN, cache=tmp_path)


def test_a_frame_in_which_nothing_is_seen_has_no_score(g, data, tmp_path, capsys):
    empty = unseen(g)
    assert close_look(empty, 2, samples=9) == {}
    assert 'nothing is seen of 2 of 2 people' in capsys.readouterr().err
    scores = evaluate(empty, data, n=4, extractor=MEAN, few=1, cache=tmp_path, floors=False)
    assert set(scores) >= {'eval/fd_means_4'}
    assert not {'eval/render_psnr', 'eval/non_flatness'} & set(scores)
    unseen_at = 'nothing is seen of person 3 from the front .camera radius 2.7, near 2.2'
    with pytest.raises(ValueError, match=unseen_at):
        frontal_flatness(empty, 3, samples=9)
    with pytest.raises(ValueError, match='nothing is seen'):
        tightness(empty, 1, samples=9)


def test_views_that_share_no_point_have_a_share_and_no_quality(g, data, tmp_path, monkeypatch):
    def nothing(source, source_camera, target, *rest):
        return target.rgb, torch.zeros_like(target.opacity, dtype=torch.bool)

    scores = evaluate(g, data, n=4, extractor=MEAN, few=2, cache=tmp_path, floors=False)
    assert {'eval/consistency_psnr', 'eval_low/consistency_psnr'} <= set(scores)
    monkeypatch.setattr(metrics, 'reproject', nothing)
    apart = evaluate(g, data, n=4, extractor=MEAN, few=2, cache=tmp_path, floors=False)
    assert {name.split('/')[1] for name in set(scores) - set(apart)} == {'consistency_psnr'}
    assert apart['eval/consistency_share'] == 0
    assert all(map(math.isfinite, apart.values()))


def test_views_are_those_of_the_generator(g):
    near = WYSIWYG.generator(RUN, start=False).eval()
    near.load_state_dict(g.state_dict())
    near.view = (2.71, 4.3)
    ours, theirs = [close_look(of, 1, samples=9)['non_flatness'] for of in (near, g)]
    assert not torch.equal(ours, theirs)


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_scored(g, data, tmp_path, bad):
    broken = WYSIWYG.generator(RUN, start=False).eval()
    broken.load_state_dict(g.state_dict())
    broken.field.sdf1.weight.data[0, 0] = bad
    with pytest.raises(ValueError, match='field.sdf1.weight holds 1 values that are not finite'):
        evaluate(broken, data, n=4, extractor=MEAN, cache=tmp_path)


@pytest.mark.parametrize('n', [-1, 0, 1])
def test_a_distribution_has_two_pictures(g, data, tmp_path, n, monkeypatch):
    monkeypatch.setattr(Generator, 'render', lambda *a, **k: pytest.fail('rendered'))
    with pytest.raises(ValueError, match=f'n = {n} pictures make no distribution: give at least 2'):
        evaluate(g, data, n=n, extractor=MEAN, cache=tmp_path)


def test_fakes_of_large_pictures_come_one_at_a_time(g):
    asked = []

    class Stop(Exception):
        pass

    class Large:
        parameters = g.parameters

        def __init__(self, side):
            self.run = SimpleNamespace(resolution=side, backbone=RUN.backbone)

        def __call__(self, z, camera, **k):
            asked.append(len(camera))
            raise Stop

    for side in (64, 128, 256, 512, 1024):
        with pytest.raises(Stop):
            next(fakes(Large(side), gaussian_cameras(16, rng(1))))
    assert asked == [16, 16, 4, 1, 1]


# ---- the table of metrics ------------------------------------------------------------------------


def recorded_names(folder: Path) -> set[str]:
    "Every metric of every recorded run or row, 'group/name'; a row in words names none."
    names = set()
    for file in folder.glob('*.json'):
        found = json.loads(file.read_text(encoding='utf8'))
        if file.name.endswith('.runs.json'):
            names |= {name for run in found for name in run['metrics']}
        elif isinstance(found, list):
            names |= {m[0] for row in found for m in re.finditer(r'[a-z]\w*/[^\s:,]+', row.get('what', ''))}
    return names


def unexplained(names: set[str]) -> list[str]:
    return [name for name in names if not metric(name).meaning]


def test_every_recorded_metric_is_in_the_table():
    names = recorded_names(data_dir() / 'results')
    assert len(names) > 50
    assert {'eval/fd_efflite0at96_500', 'train/loss/r1', 'by_samples/psnr'} <= names
    assert not unexplained(names)


def test_a_recorded_metric_without_an_entry_is_found(tmp_path):
    run = {'metrics': {'eval/psnr': [], 'train/glow': []}}
    rows = [
        {'what': 'eval/beauty: full ±'},
        {'what': 'tuned for 9 images, eval/charm'},
        {'what': 'ms / frame'},
    ]
    (tmp_path / 'a.runs.json').write_text(json.dumps([run]))
    (tmp_path / 'a.json').write_text(json.dumps(rows))
    assert sorted(unexplained(recorded_names(tmp_path))) == ['eval/beauty', 'eval/charm', 'train/glow']


def test_a_training_logs_what_the_table_has():
    "Names that `loop._pace` adds to the curves; those of a step are in the recorded runs."
    from wysiwyg.loop import _pace

    t = SimpleNamespace(lap=(0.0, 0), images=8, device=torch.device('cpu'))
    assert not unexplained(set(_pace(t)))


def hidden(table) -> list[str]:
    "Entries that an earlier one makes unreachable, so that a metric would be said twice."
    names = [entry.name for entry in table]
    return [b for i, b in enumerate(names) if any(fnmatchcase(b, a) for a in names[:i])]


def test_an_entry_is_said_once():
    assert not hidden(METRICS)
    assert hidden(
        _read_table('psnr*                +  dB           a\npsnr_worst5          +  dB           b')
    ) == ['psnr_worst5']


DIRECTION = re.compile(
    r"""[↑↓]|(?:higher|lower|more|less) is better|better=|sign=[-+]?1|['"](?:max|min)imize"""
)


def says_a_direction(code: str) -> list[str]:
    "Lines that state which way a metric is better."
    return [line.strip() for line in code.splitlines() if DIRECTION.search(line)]


def test_directions_stand_in_the_table_alone():
    "The words in which the command line and the report say a direction are theirs, the direction is not."
    allowed = {
        'metrics.py': 1,  # Metric.arrow
        'results.py': 1,  # the report's legend
        'cli.py': 1,  # `better` in words
        'studies.py': 1,  # best_within, of a number that it is given
    }
    for path in sorted(Path(wysiwyg.__file__).parent.glob('*.py')):
        found = says_a_direction(path.read_text(encoding='utf8'))
        assert len(found) == allowed.get(path.name, 0), (path.name, found)


@pytest.mark.parametrize(
    'code', ["d = {'fd': '↓'}", 'Claim(sign=-1)', 'x = Metric("a", better=1)', '"lower is better"']
)
def test_a_second_direction_is_found(code):
    assert says_a_direction(code)


@pytest.mark.parametrize(
    'name, better, unit',
    [
        ('eval/fd_efflite0at96_48', -1, ''),
        ('eval_high/normal_kd_efflite0at96_48', -1, ''),
        ('floor/fid50k_full', -1, ''),
        ('eval/inverted_overlap', 1, 'share'),
        ('eval/non_flatness', 0, 'bins'),
        ('eval/non_flatness256', 0, 'bins'),
        ('eval/psnr_worst5_at_17.6_samples', 1, 'dB'),
        ('eval/psnr_within_20_evaluations', 1, 'dB'),
        ('eval/depth_error_at_17.6_samples', -1, 'world units'),
        ('train/train/skipped', -1, 'steps'),
        ('train/geometry/beta', 0, 'world units'),
        ('perf/ms_torch', -1, 'ms'),
        ('eval/accuracy', 0, ''),
        ('mine', 0, ''),
        ('eval/fdr', 0, ''),
    ],
)
def test_a_metric_says_which_way_is_better(name, better, unit):
    assert (metric(name).better, metric(name).unit) == (better, unit)


def test_a_budget_in_a_name_is_said():
    assert metric('eval/psnr_at_17.6_samples').meaning.endswith(', at 17.6 samples per ray in the final pass')
    assert metric('eval/psnr_within_20_evaluations').meaning.endswith(', within 20 field evaluations per ray')
    assert '48 generated and 48 real normal maps' in metric('eval/normal_fd_efflite0at96_48').meaning


# ---- canonical protocols -------------------------------------------------------------------------


def test_protocols_are_refused_before_any_work(g, data):
    real = Extractor('inception', None, INCEPTION_SHA, None)
    for name, kw, why in (
        ('fid10k', {}, 'no protocol'),
        ('fid50k_full', {}, 'needs an extractor'),
        ('fid50k_full', dict(data=data, extractor=real), 'at least 2049 real images, here are 12'),
        ('normal_fid10k', dict(data=data, extractor=real), 'here are 0: give a set of normal pictures'),
        ('normal_fid10k', dict(normals=data, extractor=real), 'here are 12'),
    ):
        with pytest.raises(ValueError, match=why):
            measure(name, g, **kw)
    deep = WYSIWYG.generator(RUN, start=False)
    deep = deep.using(run=override(deep.run, **{'backbone.backbone_resolution': 512}))
    why = 'truncates 14 styles and this backbone has 16: .* up to backbone_resolution 256'
    with pytest.raises(ValueError, match=why):
        ready('normal_fid10k', deep)


def test_protocols_run_and_grant_their_name_to_the_canonical_weights_only(g, data, tmp_path, monkeypatch):
    for name, p in dict(
        fid50k_full=Protocol('images', 6, 12),
        normal_fid10k=Protocol('normals', 6, 12, 0.7, 14),
        non_flatness256=Protocol('depth', 2),
    ).items():
        monkeypatch.setitem(PROTOCOLS, name, p)

    def go(name, ext, **kw):
        return measure(name, g, data, ext, cache=tmp_path, **kw)

    own, canonical = replace(MEAN, side=None), replace(MEAN, side=None, sha=INCEPTION_SHA)
    assert set(go('fid50k_full', own)) == {'eval/fd_means_6'}
    assert set(go('fid50k_full', canonical)) == {'eval/fid50k_full'}
    assert set(go('normal_fid10k', own, normals=data)) == {'eval/normal_fd_means_6'}
    granted = go('normal_fid10k', canonical, normals=data)
    cameras = empirical_cameras(data.labels, 6, rng(0, 'eval camera'))
    made = torch.cat([features(own, normals) for _, normals in fakes(g, cameras, trunc=0.7)])
    want = frechet(features(own, data.images(torch.arange(12))), made)
    assert granted == {'eval/normal_fid10k': pytest.approx(want, rel=1e-6)}
    flat = measure('non_flatness256', g)['eval/non_flatness256']
    assert flat == pytest.approx(close_look(g, 2)['non_flatness'].mean().item(), rel=1e-6)


@pytest.mark.parametrize(
    'line, code, why',
    [
        ('fid10k', 2, 'must be one of fid50k_full'),
        ('fid50k_full', 1, 'set WYSIWYG_INCEPTION'),
        ('normal_fid10k --inception nowhere.pt', 1, 'no Inception weights'),
    ],
)
def test_command_refuses_before_it_renders(line, code, why, capsys, monkeypatch):
    from wysiwyg import cli

    monkeypatch.delenv('WYSIWYG_INCEPTION', raising=False)
    monkeypatch.setattr(cli, 'open_data', lambda run: pytest.fail('rendered'))
    assert cli.main(f'eval --protocol {line}'.split()) == code
    assert why in capsys.readouterr().err


def test_recorded_command_names_what_was_measured(monkeypatch):
    from wysiwyg import cli, results

    said = []
    monkeypatch.setattr(results, 'write_results', lambda name, rows, command: said.append((rows, command)))
    cli._record_scores(
        cli.Eval(protocol='non_flatness256', seed=3, record='flat'), {'eval/non_flatness256': 7.123456}
    )
    cli._record_scores(cli.Eval(n=64, record='own'), {'eval/fd_means_64': 1.0})
    assert said[0] == (
        [{'what': 'eval/non_flatness256', 'value': 7.1235, 'unit': 'bins'}],
        'wysiwyg eval --protocol non_flatness256 --seed 3 --record flat',
    )
    assert said[1][1] == 'wysiwyg eval --n 64 --record own'


def test_a_record_has_the_seconds_of_its_training(monkeypatch, tmp_path, capsys):
    from wysiwyg import cli, results

    said, log = [], tmp_path / 'metrics.jsonl'
    monkeypatch.setattr(results, 'write_results', lambda name, rows, command: said.append(rows))
    own = dict(network=str(tmp_path / 'generator.safetensors'), record='own')
    cli._record_scores(cli.Eval(**own), {})
    curve = [{'images': 400, 'perf/images_per_second': 4.0}, {'images': 1000, 'perf/images_per_second': 3.0}]
    log.write_text(''.join(json.dumps(row) + '\n' for row in curve))
    cli._record_scores(cli.Eval(**own), {})
    cli._record_scores(cli.Eval(untrained=True, **own), {})
    assert not capsys.readouterr().err
    cli._record_scores(cli.Eval(network=str(tmp_path), record='own'), {})
    none = '{"images": 8, "perf/images_per_second": 0}'
    back = json.dumps(curve[1]) + '\n' + json.dumps(curve[0])
    endless = '{"images": 1e400, "perf/images_per_second": 1}'
    for torn in (log.read_text()[:-9], '{"images": 8}', '[]', none, back, endless, ''):
        log.unlink()
        log.write_text(torn) if torn else log.mkdir()
        cli._record_scores(cli.Eval(**own), {})
        assert 'metrics.jsonl is damaged; how long the training took is not rec' in capsys.readouterr().err
    seconds = {'what': 'perf/train_seconds', 'value': 300.0, 'unit': 's'}
    assert said == [[], [seconds], [], [seconds], *7 * [[]]]
