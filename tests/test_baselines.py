"The other systems, through the command line: trained, resumed bit for bit, rendered and measured."

import shlex
from dataclasses import replace

import pytest
import torch

from wysiwyg import inversion
from wysiwyg.baselines.eg3d import EG3D
from wysiwyg.cli import Invert, _UsageError, _average, main
from wysiwyg.config import METHODS, PRESETS, check, override, preset
from wysiwyg.core import rng
from wysiwyg.data import Dataset, check_data, withhold
from wysiwyg.generator import load_generator, method_of
from wysiwyg.heads import render_heads
from wysiwyg.objects import ObjectsConfig, render_objects
from wysiwyg.tracking import find_runs, open_store

BASELINES = [name for name in METHODS if name != 'wysiwyg']
SMALL = (
    '--cfg tiny --kimg .032 --batch 8 --render.coarse 6 --render.fine 6 '
    '--train.checkpoint-images 16 --train.snapshot-images 32'
)


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    "By the kind of their labels."
    folder = tmp_path_factory.mktemp('set')
    config = preset('tiny', **{'heads.n': 24, 'heads.workers': 1}).heads
    objects = ObjectsConfig(n=28, resolution=32, cameras='prior', workers=1)
    return {
        'camera': render_heads(config, folder / 'heads.zip', False),
        'class': render_objects(objects, folder / 'objects.zip', False),
    }


@pytest.fixture
def called(tmp_path, monkeypatch, capsys):
    "Run a command line, which must succeed; what it printed."
    monkeypatch.setenv('WYSIWYG_RUNS', str(tmp_path / 'runs'))

    def call(line: str) -> str:
        code = main(shlex.split(line))
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield call
    torch.set_num_threads(threads)


@pytest.mark.parametrize('method', BASELINES)
def test_it_trains_and_goes_on_to_the_bit(called, sets, tmp_path, method):
    kind = method_of(preset('tiny', system=method)).label_kinds[0]
    start = f'train --method {method} --data {sets[kind]} {SMALL}'
    called(f'{start} --outdir {tmp_path}/whole')
    called(f'{start} --no-track --outdir {tmp_path}/cut --stop-at .016')
    called(f'{start} --no-track --outdir {tmp_path}/cut --resume latest')
    whole, cut = [load_generator(tmp_path / name) for name in ('whole', 'cut')]
    assert whole.run.system == method
    assert whole.run.train.views == (2 if kind == 'class' else 1)
    for (name, a), b in zip(whole.state_dict().items(), cut.state_dict().values(), strict=True):
        assert torch.equal(a, b), name

    network = tmp_path / 'whole' / 'generator.safetensors'
    told = called(f'eval --network {network} --data {sets[kind]} --n 8')
    assert 'fd_efflite0at96_8' in told
    assert 'normal_fd_efflite0at96_8' in told
    [recorded] = find_runs(open_store(), 'train')
    assert (recorded.info.status, recorded.data.params['system']) == ('FINISHED', method)
    assert 'eval/fd_efflite0at96_8' in recorded.data.metrics
    called(f'render --network {network} --outdir {tmp_path}/pictures --seeds 0-1')
    assert len(list((tmp_path / 'pictures').glob('*normal.png'))) == 2
    called(f'video --network {network} --out {tmp_path}/film.mp4 --frames 2')


def test_poses_are_withheld_where_no_labels_are_asked_for(called, sets, tmp_path):
    start = f'train --method imagenet3d --data {sets["camera"]} {SMALL} --outdir {tmp_path}/blind'
    called(f'{start} --no-track --backbone.label_dim 0')
    blind = load_generator(tmp_path / 'blind')
    assert (blind.mapping.label_dim, blind.run.train.views) == (0, 2)
    assert 'silhouette_overlap_8' in called(f'eval --network {tmp_path}/blind --data {sets["camera"]} --n 8')


def test_poses_that_are_withheld_were_seen_by_the_cameras_of_the_run(sets, capsys):
    data = Dataset(sets['camera'])
    data.name = 'apart'  # what was told of a set is not told again
    radius, focal = data.view
    run = preset('tiny', **{'backbone.label_dim': 0, 'heads.radius': radius})
    withhold(override(run, **{'heads.focal': focal}), data, ('class', 'none'))
    assert not capsys.readouterr().err
    withhold(override(run, **{'heads.focal': focal / 2}), data, ('class', 'none'))
    said = capsys.readouterr().err
    assert f'--heads.focal {focal:g} are its own' in said
    assert 'radius' not in said
    near = override(run, **{'heads.focal': focal, 'render.near': 3.0, 'render.far': 4.0})
    with pytest.raises(ValueError, match='heads.radius = 2.7, .* or --render.near 2.2 --render.far 3.2'):
        check_data(near, data, ('class', 'none'))


def test_inversion_begins_at_the_class_of_what_it_sees(sets, tmp_path, capsys, monkeypatch):
    run = preset('tiny', system='imagenet3d', **{'backbone.label_dim': 7})
    g = method_of(run).generator(method_of(run).adapted(run))
    asked = []
    monkeypatch.setattr(inversion, 'class_means', lambda g: asked.append(g) or torch.arange(7.0)[:, None])
    of_head = Invert('x', head=10, data=str(sets['class']))
    assert _average(of_head, g).tolist() == [[3.0]]  # seven classes in turn
    assert _average(Invert('x', 'a.png', class_index=6), g).tolist() == [[6.0]]
    assert torch.equal(_average(Invert('x', 'a.png'), g), g.mapping.w_mean[None])
    assert '--class-index names one' in capsys.readouterr().err
    few = render_objects(
        ObjectsConfig(n=4, resolution=8, classes=('wheel', 'mug'), workers=1), tmp_path / 'o.zip'
    )
    assert torch.equal(_average(Invert('x', head=0, data=str(few)), g), g.mapping.w_mean[None])
    poses = Invert('x', head=10, data=str(sets['camera']))
    assert torch.equal(_average(poses, g), g.mapping.w_mean[None])
    assert _average(replace(of_head, class_index=1), g).tolist() == [[1.0]]
    with pytest.raises(_UsageError, match='no class 7: the generator learned 7 classes, counted from 0'):
        _average(Invert('x', 'a.png', class_index=7), g)
    with pytest.raises(_UsageError, match='no class 0: the generator learned no classes'):
        _average(Invert('x', 'a.png', class_index=0), load_generator(device=torch.device('cpu')))
    assert len(asked) == 3


@pytest.mark.parametrize('method', BASELINES)
def test_every_level_has_a_w_of_its_own(method):
    "All the same are one for all; each alone changes the picture; another number of them is refused."
    run = method_of(preset('tiny', system=method)).adapted(preset('tiny', **{'sampler.jitter': False}))
    g = method_of(run).generator(run).eval()
    front, n = g.orbit(0.0, 0.0), g.triplane.levels
    w = torch.randn(1, 64, generator=rng(0))

    @torch.no_grad()
    def picture(w):
        return g.render(g.synthesize(w), front).rgb

    one, each = picture(w), w[:, None].repeat(1, n, 1)
    assert torch.equal(picture(each), one)
    for level in range(n):
        other = each.clone()
        other[:, level] = 0
        assert (picture(other) - one).abs().max() > 1e-4
    with pytest.raises(ValueError, match=rf"^w must have shape .* with {{'L': {n}, 'W': 64}}, got"):
        g.synthesize(w[:, None].expand(-1, n + 1, -1))


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_is_adapted(name, method):
    run = method_of(preset(name, system=method)).adapted(preset(name))
    assert run.system == method
    assert run.resolution == preset(name).resolution
    check(run, heads=False)
    with torch.device('meta'):
        g = method_of(run).generator(run, start=False)
    assert sum(p.numel() for p in g.parameters()) > 1e5


def test_eg3d_without_jitter_asks_more_than_one_place(monkeypatch):
    run = EG3D.adapted(preset('tiny', **{'sampler.jitter': False}))
    g, asked = EG3D.generator(run), []
    field_at = g.field_at

    def noting(*scene):
        field = field_at(*scene)

        def noted(points, *rest):
            asked.append(points)
            return field(points, *rest)

        return noted

    monkeypatch.setattr(g, 'field_at', noting)
    with torch.no_grad():
        g.render(g.synthesize(torch.zeros(1, run.backbone.w_dim)), g.orbit(0.0, 0.0))
    second = asked[1]
    assert second.shape[2] == run.render.fine > 1
    assert (second.diff(dim=2).norm(dim=-1) > 1e-6).float().mean() > 0.9
