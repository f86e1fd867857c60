"Judges of objects: faults in order, right names and floors, what cannot be judged is said."

import re

import pytest
import torch

from wysiwyg import judges, object_judges
from wysiwyg.baselines.imagenet3d import IMAGENET3D
from wysiwyg.camera import Camera
from wysiwyg.cli import main
from wysiwyg.config import override, tiny
from wysiwyg.core import rng
from wysiwyg.data import Dataset
from wysiwyg.generator import save_generator
from wysiwyg.heads import truth
from wysiwyg.judges import bumpy, depth_normals, headnet, looked_at, normals_by_depth
from wysiwyg.metrics import features, frechet, latents, metric, real_index
from wysiwyg.object_judges import judge_objects, known_objects, objectnet, objectnet_path
from wysiwyg.objects import ObjectsConfig, objects_truth, render_objects

CONFIG = ObjectsConfig(n=28, resolution=64, seed=7, cameras='prior', workers=1)
RUN = override(IMAGENET3D.adapted(tiny()), **{'render.coarse': 4, 'render.fine': 4})


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp('set') / 'objects.zip'
    return Dataset(render_objects(CONFIG, path, progress=False))


@pytest.fixture(scope='module')
def g():
    torch.manual_seed(0)
    return IMAGENET3D.generator(RUN).eval()


def test_networks_are_the_shipped_ones_and_no_judges_of_heads(monkeypatch):
    x = torch.randint(0, 256, (2, 3, 64, 64), generator=rng(0), dtype=torch.uint8)
    for kind in ('picture', 'normal'):
        assert objectnet(kind).name == 'objectnet1'
        assert objectnet(kind)(x).shape == (2, 96)
        assert not torch.allclose(objectnet(kind)(x), headnet(kind)(x))
    with pytest.raises(ValueError, match="objectnet1 has the kinds 'picture' and 'normal', not 'depth'"):
        objectnet('depth')
    monkeypatch.setattr(
        object_judges, 'objectnet_path', lambda: objectnet_path().with_name('gone.safetensors')
    )
    objectnet.cache_clear()
    with pytest.raises(ValueError, match='no gone.safetensors: it ships in data/'):
        objectnet()


def test_normals_by_depth_are_by_differences_from_the_withheld_camera(data):
    index = torch.tensor([5, 0, 27])
    known = objects_truth(data.path, index.tolist())
    depth, mask = torch.from_numpy(known['depth']), torch.from_numpy(known['mask']) / 255
    want = depth_normals(depth, mask, Camera.from_label(torch.from_numpy(known['cameras'])))
    assert torch.equal(normals_by_depth(data, index), want)
    assert (want > 0).any()


def test_roughness_has_its_order(data):
    known = objects_truth(data.path)
    depth, mask = torch.from_numpy(known['depth']), torch.from_numpy(known['mask']) / 255
    camera = Camera.from_label(torch.from_numpy(known['cameras']))
    judge = objectnet('normal')
    real = features(judge, normals_by_depth(data, torch.arange(28)))
    worse = [
        frechet(real, features(judge, depth_normals(bumpy(depth, a), mask, camera))) for a in (0, 0.2, 0.5)
    ]
    assert worse[0] == pytest.approx(0, abs=1e-3) and worse == sorted(worse)


def test_numbers_repeat_and_have_names_and_floors(g, data):
    one = judge_objects(g, data, n=12)
    assert judge_objects(g, data, n=12) == one
    names = {name.removeprefix('eval/') for name in one if name.startswith('eval/')}
    of_each = 'fd', 'coverage', 'precision'
    assert names == {f'{kind}{what}_objectnet1_12' for kind in ('', 'normal_') for what in of_each}
    assert {name for name in one if name.startswith('floor/')} == {f'floor/{name}' for name in names}
    assert all(metric(name).better for name in names)
    assert 'in features of objectnet1' in metric('normal_fd_objectnet1_12').meaning
    for kind in ('', 'normal_'):
        name = f'{kind}fd_objectnet1_12'
        assert one[f'eval_low/{name}'] <= one[f'eval/{name}'] <= one[f'eval_high/{name}']
        assert one[f'floor/{name}'] < one[f'eval/{name}']
    assert not any('floor' in name for name in judge_objects(g, data, n=12, floors=False))
    assert not any('floor' in name for name in judge_objects(g, data, n=15))  # 30 would be wanted


def test_every_fake_has_its_own_latents_and_is_seen_by_its_camera(g, data, monkeypatch):
    asked, views = [], []

    def noted(g, index, seed):
        asked.append(list(index))
        return latents(g, index, seed)

    def seen(g, scene, camera, key, judge):
        assert judge is objectnet
        views.append(camera.label)
        return looked_at(g, scene, camera, key, judge)

    monkeypatch.setattr(judges, 'latents', noted)
    monkeypatch.setattr(object_judges, 'looked_at', seen)
    judge_objects(g, data, n=6, seed=4, floors=False, batch=4)
    assert asked == [[0, 1, 2, 3], [4, 5]]
    assert torch.equal(torch.cat(views), g.cameras(6, rng(4, 'eval camera')).label)


def test_floors_are_between_two_halves_of_what_is_true(g, data):
    floor = judge_objects(g, data, n=14, seed=4)
    index = real_index(data, 28, 4, normals=True)
    of = {'': objectnet()(data.images(index)), 'normal_': objectnet('normal')(normals_by_depth(data, index))}
    for kind, x in of.items():
        want = frechet(x[:14], x[14:])
        assert want > 0.1 and floor[f'floor/{kind}fd_objectnet1_14'] == pytest.approx(want, rel=1e-3)


def test_what_cannot_be_judged_is_said(g, data, capsys):
    with pytest.raises(ValueError, match='n = 1 pictures make no distribution: give at least 2'):
        judge_objects(g, data, n=1)
    assert known_objects(data) == 28
    assert judge_objects(g, data, n=29) == {}
    assert '28 true objects beside objects.zip, 29 wanted: the judges of objects' in capsys.readouterr().err


@pytest.mark.parametrize('fault', ['no truth', 'truth of heads', 'labels of cameras'])
def test_objects_are_known_by_class_and_truth_alone(data, tmp_path, monkeypatch, fault):
    kind, known = 'class', truth(data.path)
    judges._depths.cache_clear()
    if fault == 'no truth':
        monkeypatch.setattr(judges, 'truth_path', lambda path: tmp_path / 'none')
    elif fault == 'truth of heads':
        del known['classes']
        monkeypatch.setattr(judges, 'truth', lambda path: known)
    else:
        kind = 'camera'
    set_like = Dataset(data.path)
    object.__setattr__(set_like, 'label_kind', kind)
    assert known_objects(set_like) == 0
    judges._depths.cache_clear()


def test_eval_says_them_and_no_word_of_heads(g, data, tmp_path, capsys, monkeypatch):
    network = tmp_path / 'g.safetensors'
    save_generator(g, network)
    asked = ['eval', '--network', str(network), '--data', str(data.path), '--n', '6', '--no-track']
    assert main(asked) == 0
    told = capsys.readouterr()
    assert re.search(r'fd_objectnet1_6\b', told.out) and 'normal_coverage_objectnet1_6' in told.out
    assert 'true heads beside' not in told.err
    assert main([*asked, '--worst', str(tmp_path / 'w.png')]) == 2
    assert 'objects.zip has 0: leave --worst out' in capsys.readouterr().err
    made = []
    monkeypatch.setattr(object_judges, 'objectnet_path', lambda: tmp_path / 'objectnet.safetensors')
    monkeypatch.setattr('wysiwyg.metrics.evaluate', lambda *a, **k: made.append(a))
    objectnet.cache_clear()
    assert main(asked) == 1
    assert 'no objectnet.safetensors: it ships in data/' in capsys.readouterr().err
    assert not made
