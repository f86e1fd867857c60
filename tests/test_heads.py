"Posed heads: determinism, truth, framing and labels at a small size."

import errno, json, os, re, shutil, subprocess, sys, threading, zipfile
from dataclasses import replace
import numpy as np
import psutil
import pytest
import torch
from wysiwyg.camera import camera_rays, project
from wysiwyg.config import HeadsConfig
from wysiwyg.core import Camera, WriteError, data_dir, file_sha
from wysiwyg.data import Dataset, validate
from wysiwyg import heads
from wysiwyg.heads import (
    STYLES,
    TOP,
    build_mesh,
    head_camera,
    heads_digest,
    _inside_hair,
    load_head_model,
    render_head,
    render_heads,
    sample_light,
    sample_person,
    set_digest,
    truth,
    truth_path,
)

CONFIG = HeadsConfig(n=10, resolution=32, supersample=2)


@pytest.fixture(scope='module')
def model():
    return load_head_model()


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return render_heads(CONFIG, tmp_path_factory.mktemp('heads') / 'a.zip', progress=False)


def one(model, i, config=CONFIG):
    person = sample_person(model, config.seed, i)
    light = sample_light(config.seed, i)
    return render_head(model, person, head_camera(config, i), light, config)


def test_model_file_is_small_free_and_whole(model):
    path = data_dir() / 'head_model.npz'
    assert path.stat().st_size <= 8e6
    with np.load(path, allow_pickle=False) as d:
        assert str(d['licence']).startswith('CC0')
    for x in (model.mean, model.identity, model.expression, model.coefficients, model.phenotype):
        assert np.isfinite(x).all()
    sides = [model.triangles[:, corners] for corners in ([0, 1], [1, 2], [2, 0])]
    edges = np.sort(np.concatenate(sides), 1)
    assert np.unique(edges, axis=0, return_counts=True)[1].max() == 2


def test_missing_model_and_truth_are_named(tmp_path):
    with pytest.raises(ValueError, match='no head model gone.npz'):
        load_head_model(tmp_path / 'gone.npz')
    with pytest.raises(ValueError, match='no truth beside gone.zip'):
        truth(tmp_path / 'gone.zip')


def test_same_bytes_whatever_the_workers(made, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, '_SOON', 0)
    other = render_heads(replace(CONFIG, workers=2), tmp_path / 'b.zip', progress=False)
    assert file_sha(made) == file_sha(other)
    assert file_sha(truth_path(made)) == file_sha(truth_path(other))


MANY = """
from wysiwyg import heads
from wysiwyg.config import HeadsConfig

heads._SOON = 0
heads.render_heads(HeadsConfig(n=10**6, resolution=8, workers=2), 'h.zip')
"""


@pytest.fixture
def rendering(tmp_path):
    "A process that renders many heads, and the two that it has started for it."
    child = subprocess.Popen([sys.executable, '-c', MANY], cwd=tmp_path, stderr=subprocess.PIPE)
    said = b''
    while not re.search(rb' [1-9][0-9]*/1000000', said):
        said += child.stderr.read(1) or pytest.fail(said.decode())
    below = psutil.Process(child.pid).children()
    workers = [p for p in below if any('popen_loky' in word for word in p.cmdline())]
    assert len(workers) == 2
    yield child, workers
    child.kill()
    child.wait()


def test_workers_end_with_their_parent(rendering):
    "A script needs no guard for them to start, and nothing is left of them when it is killed at work."
    child, workers = rendering
    child.kill()
    assert not psutil.wait_procs(workers, 10)[1]


def test_a_killed_worker_is_named(rendering, tmp_path):
    child, workers = rendering
    workers[0].kill()
    said = child.communicate(timeout=60)[1].decode()
    assert said.rstrip().endswith('try again with fewer workers'), said
    assert not list(tmp_path.iterdir())


def test_threads_with_other_numbers_of_workers_wait_in_line(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, '_SOON', 0)

    def render(workers: int):
        config = replace(CONFIG, workers=workers, seed=workers)
        render_heads(config, tmp_path / f'{workers}.zip', progress=False)

    threads = [threading.Thread(target=render, args=(workers,), daemon=True) for workers in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(path.name for path in tmp_path.glob('*.zip')) == ['2.zip', '3.zip']


def test_a_head_does_not_depend_on_how_many(made, tmp_path):
    more = render_heads(replace(CONFIG, n=3), tmp_path / 'c.zip', progress=False)
    assert torch.equal(Dataset(more).images([0, 1, 2]), Dataset(made).images([0, 1, 2]))


def test_reuse_and_replace(made):
    stamp = made.stat().st_mtime_ns
    assert render_heads(CONFIG, made, progress=False) == made
    assert made.stat().st_mtime_ns == stamp
    assert heads_digest(replace(CONFIG, workers=7)) == heads_digest(CONFIG)
    assert heads_digest(replace(CONFIG, seed=1)) != heads_digest(CONFIG)


def test_another_configuration_is_not_mistaken(tmp_path):
    path = tmp_path / 'd.zip'
    first = file_sha(render_heads(replace(CONFIG, n=2), path, progress=False))
    assert file_sha(render_heads(replace(CONFIG, n=2, seed=9), path, progress=False)) != first


@pytest.mark.parametrize('cut', ['before the pictures', 'before the truth'])
def test_a_rendering_that_is_cut_short_is_never_taken_for_a_set(tmp_path, monkeypatch, cut):
    "Whatever was renamed when the process died: the next call returns pictures and truth as asked for."
    few, path, rename = replace(CONFIG, n=2, workers=1), tmp_path / 'h.zip', os.replace
    last = path if cut == 'before the pictures' else truth_path(path)
    render_heads(few, path, progress=False)
    wanted = render_heads(replace(few, seed=1), tmp_path / 'fresh.zip', progress=False)

    def dies(source, target):
        if str(target) == str(last):
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as m:
        m.setattr(os, 'replace', dies)
        with pytest.raises(KeyboardInterrupt):
            render_heads(replace(few, seed=1), path, progress=False)
    if cut == 'before the pictures':
        with pytest.raises(ValueError, match='h.truth.npz is not the truth of h.zip'):
            truth(path)
    again = render_heads(replace(few, seed=1), path, progress=False)
    assert again.read_bytes() == wanted.read_bytes()
    assert truth_path(again).read_bytes() == truth_path(wanted).read_bytes()
    assert not list(tmp_path.glob('.*'))


def test_truth_and_pictures_that_differ_in_light_alone_are_told_apart(tmp_path):
    "Same labels, same geometry: only the digest of the pictures knows."
    few = replace(CONFIG, n=2, workers=1)
    matte, glossy = (
        render_heads(replace(few, gloss=g), tmp_path / f'{g}.zip', progress=False) for g in (0.0, 5.0)
    )
    assert set_digest(matte) == heads_digest(replace(few, gloss=0.0))
    shutil.copy(truth_path(glossy), truth_path(matte))
    assert set_digest(matte) == ''


def test_sets_of_earlier_versions_are_good_as_long_as_labels_fit(tmp_path):
    few = replace(CONFIG, n=2, workers=1)
    old, other = (render_heads(replace(few, seed=s), tmp_path / f'{s}.zip', progress=False) for s in (0, 1))

    def forget(path, of):
        with np.load(truth_path(of)) as d:
            arrays = {k: d[k] for k in d.files if k != 'pictures'}
        np.savez_compressed(truth_path(path), **arrays)

    forget(old, old)
    stamp = old.stat().st_mtime_ns
    assert render_heads(few, old, progress=False).stat().st_mtime_ns == stamp
    forget(old, other)
    assert set_digest(old) == ''


def test_what_is_replaced_is_said_and_what_is_not_ours_is_kept(tmp_path, capsys):
    few, path = replace(CONFIG, n=2, workers=1), tmp_path / 'h.zip'
    render_heads(few, path, progress=False)
    assert not capsys.readouterr().err
    assert len(Dataset(render_heads(replace(few, n=3), path, progress=False))) == 3
    assert 'h.zip holds other heads' in capsys.readouterr().err
    truth_path(path).unlink()
    before = path.read_bytes()
    with pytest.raises(ValueError, match='h.zip is there and has no truth .*choose another path'):
        render_heads(few, path, progress=False)
    assert path.read_bytes() == before


def test_a_full_disk_names_file_and_mend(tmp_path, monkeypatch):
    few, path = replace(CONFIG, n=2, workers=1), tmp_path / 'set' / 'h.zip'
    render_heads(few, path, progress=False)
    before = path.read_bytes(), truth_path(path).read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(heads, 'write_zip', full)
    why = r'h.zip could not be written to set/ \(No space left on device\): free some space'
    with pytest.raises(WriteError, match=why):
        render_heads(replace(few, seed=1), path, progress=False)
    assert (path.read_bytes(), truth_path(path).read_bytes()) == before
    assert not list(path.parent.glob('.*'))


@pytest.mark.parametrize(
    'field, value', [('n', 0), ('n', -1), ('radius', 0.3), ('resolution', 48), ('focal', float('nan'))]
)
def test_impossible_heads_are_refused_before_any_is_rendered(tmp_path, monkeypatch, field, value):
    monkeypatch.setattr(heads, '_head_row', lambda *a: pytest.fail('rendered'))
    with pytest.raises(ValueError, match=f'heads.{field} = '):
        render_heads(replace(CONFIG, **{field: value}), tmp_path / 'h.zip', progress=False)


def test_set_is_valid_and_truth_belongs_to_it(made):
    assert not validate(made).bad
    with zipfile.ZipFile(made) as z:
        labels = dict(json.loads(z.read('dataset.json'))['labels'])
    t = truth(made)
    assert list(t['names']) == sorted(labels)
    assert len(t['names']) == CONFIG.n
    assert np.allclose(t['labels'], [labels[n] for n in t['names']], atol=1e-6)
    assert np.allclose(t['labels'][3], head_camera(CONFIG, 3).label[0].numpy())


def test_truth_is_consistent(made):
    t = truth(made)
    images = np.asarray(Dataset(made).images(list(range(CONFIG.n)))).transpose(0, 2, 3, 1)
    background = np.round(np.array(CONFIG.background) * 255).astype(np.uint8)
    empty, full = t['mask'] == 0, t['mask'] == 255
    assert (t['depth'][empty] == 0).all()
    assert (t['normal'][empty] == 0).all()
    assert (images[empty] == background).all()
    assert 0.15 < full.mean() < 0.6
    assert (np.abs(t['depth'][full] - CONFIG.radius) < 0.45).all()
    for k in ('normal', 'normal_cam'):
        length = np.linalg.norm(t[k][full].astype(np.float32), axis=-1)
        assert np.allclose(length, 1, atol=3e-3)
    away = t['normal_cam'][full][:, 2]  # the camera's z points away from it
    assert (away < 0.35).mean() > 0.99


def lifted(rays, depth):
    "Pixel centres by their depths [N], [N, 3]."
    return rays.origins[0] + depth[:, None] * rays.dirs[0]


def test_depth_is_exact_through_the_label(model):
    "A pixel centre lifted by its depth lands on that pixel, and nearer than the far side of the mesh."
    config = replace(CONFIG, supersample=1)
    p = one(model, 4, config)
    camera = Camera.from_label(head_camera(config, 4).label)
    depth = torch.from_numpy(p['depth']).reshape(-1)
    x = lifted(camera_rays(camera, 32), depth)
    on = torch.from_numpy(p['mask'].reshape(-1) > 0)
    _, distance = project(camera, x[on][None])
    assert torch.allclose(distance[0], depth[on], atol=1e-5)
    mesh = torch.from_numpy(build_mesh(model, sample_person(model, 0, 4)).vertices)
    assert torch.cdist(x[on], mesh).min(1).values.max() < 0.06


def test_normals_agree_with_depth(model):
    config = replace(CONFIG, resolution=160, supersample=1)
    p, camera = one(model, 1, config), head_camera(config, 1)
    rays = camera_rays(camera, 160)
    x = lifted(rays, torch.from_numpy(p['depth']).reshape(-1)).reshape(160, 160, 3).numpy()
    down = x[2:, 1:-1] - x[:-2, 1:-1]
    right = x[1:-1, 2:] - x[1:-1, :-2]
    m = np.cross(down, right)
    m /= np.linalg.norm(m, axis=-1, keepdims=True) + 1e-12
    cosine = (m * p['normal'][1:-1, 1:-1]).sum(-1)
    angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
    on = p['mask'] == 255
    rows = on[2:, 1:-1] & on[:-2, 1:-1]
    columns = on[1:-1, 2:] & on[1:-1, :-2]
    good = rows & columns
    assert np.median(angle[good]) < 7


@pytest.mark.parametrize('cameras', ['gaussian', 'sphere'])
def test_heads_stay_in_the_frame(model, cameras):
    config = replace(CONFIG, cameras=cameras, resolution=24, supersample=1)
    masks = np.stack([one(model, i, config)['mask'] for i in range(60)])
    edges = (masks[:, 0], masks[:, :, 0], masks[:, :, -1])  # top, left, right
    touched = np.any([edge.any(1) for edge in edges], axis=0)
    assert np.mean(touched) < 0.06


def test_sphere_cameras_go_everywhere():
    config = replace(CONFIG, cameras='sphere')
    eyes = torch.cat([head_camera(config, i).cam2world[:, :3, 3] for i in range(200)])
    assert torch.allclose(eyes.norm(dim=1), torch.full((200,), config.radius), atol=1e-4)
    assert ((eyes > 0.5).float().mean(0) > 0.2).all()
    assert ((eyes < -0.5).float().mean(0) > 0.2).all()


def test_people_differ_and_styles_all_occur(model):
    people = [sample_person(model, 0, i) for i in range(120)]
    assert np.std([p.skin.mean() for p in people]) > 0.08
    assert {p.hair.density for p in people} == {s[-1] for s in STYLES.values()}
    assert any(p.hair.end for p in people)
    assert any(p.hair.bald for p in people)
    for p in people:
        assert np.isfinite(p.vertices).all()
        assert p.vertices[:, 1].max() <= TOP + 1e-6


def test_the_face_carries_no_hair(model):
    "Between brows and mouth, nothing grows in any style."
    x, y, z = model.mean.T
    central = (np.abs(x) < 0.05) & (np.abs(y + 0.05) < 0.05)
    face = model.mean[central & (z > 0.1)]
    for i in range(40):
        p = sample_person(model, 3, i)
        assert (_inside_hair(face, p.hair, p.phase) < 0).all()


def test_light_changes_pictures_and_nothing_else():
    "Gloss and spread move colours alone; their usual values are the set of before."
    from wysiwyg.heads import _head_row

    lights = ({}, dict(gloss=0.0), dict(gloss=5.0), dict(light_spread=3.0))
    usual, *others = [_head_row(replace(CONFIG, **light), 1) for light in lights]
    for png, label, true in others:
        assert png != usual[0]
        assert label == usual[1]
        assert all(np.array_equal(v, usual[2][k]) for k, v in true.items())
    lights = ({}, dict(gloss=1.0, light_spread=1.0), dict(gloss=0.0), dict(light_spread=0.0))
    assert len({heads_digest(replace(CONFIG, **light)) for light in lights}) == 3
