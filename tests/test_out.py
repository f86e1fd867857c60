"What leaves the program beside numbers: sheets of pictures, a tuned generator, live figures, shapes of arms."

import base64
import json
import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from small_run import PIXELS, SMALL, called, small_generator

from wysiwyg import cli, inversion
from wysiwyg.camera import FOCAL, camera_distance, orbit
from wysiwyg.cli import main
from wysiwyg.config import HeadsConfig, override, preset
from wysiwyg.core import colorize, rng, sheet
from wysiwyg.executors import environment
from wysiwyg.export import TriangleMesh, extract_mesh, mesh_page, mesh_picture, show_mesh
from wysiwyg.generator import load_generator, method_of, save_generator
from wysiwyg.heads import render_heads
from wysiwyg.inversion import Inversion, geometry_error, seen, true_heads, true_picture, tune
from wysiwyg.objects import ObjectsConfig, render_objects
from wysiwyg.results import export_runs
from wysiwyg.sdf import toy_field
from wysiwyg.studies import keep_shape
from wysiwyg.study import run_study
from wysiwyg.tracking import STUDY, Recorder, find_runs, open_store


@pytest.fixture(scope='module')
def small():
    return small_generator()


@pytest.fixture(scope='module')
def network(small, tmp_path_factory):
    path = tmp_path_factory.mktemp('network') / 'small.safetensors'
    save_generator(small, path)
    return path


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


# ---- sheets --------------------------------------------------------------------------------------


def test_a_grid_is_what_render_writes_in_rows_of_kinds(network, tmp_path, capsys):
    asked = f'--network {network} --seeds 3,5 --yaws=-.4,.4 --pitch .1 --trunc .6 --kinds normal,image,depth'
    code, said, _ = called(f'grid --out {tmp_path}/all.png {asked} --json', capsys)
    assert code == 0
    told = json.loads(said)
    assert (
        told.pop('depth')
        == 'light to dark, 2.2 to 3.2 world units from the camera; dark as well: nothing was met'
    )
    assert told | {'file': ''} == {'file': '', 'people': 2, 'rows': 6, 'columns': 2}
    assert called(f'render --outdir {tmp_path}/each {asked}', capsys)[0] == 0
    every = pixels(tmp_path / 'all.png')
    names = [f'seed{seed:04d}_yaw{{}}_{kind}.png' for seed in (3, 5) for kind in ('normal', 'image', 'depth')]
    rows = [np.concatenate([pixels(tmp_path / 'each' / n.format(k)) for k in (0, 1)], 1) for n in names]
    assert (every == np.concatenate(rows)).all()
    assert len(list((tmp_path / 'each').iterdir())) == 12


def test_samples_are_shown_from_none_to_twice_the_budget(small, network, tmp_path, capsys):
    line = f'render --outdir {tmp_path} --network {network} --seeds 2 --yaw .3 --kinds samples'
    assert called(line, capsys)[0] == 0
    with torch.no_grad():
        z = torch.randn(1, small.run.backbone.z_dim, generator=rng(2, 'z'))
        planes = small.synthesize(small.map(z, orbit(torch.zeros(1), torch.zeros(1)), 0.8))
        trace = small.render(planes, small.orbit(torch.tensor([0.3]), torch.zeros(1)), trace=True)
    expected = sheet(colorize(trace.samples, 0, 2 * small.run.sampler.samples), 1)
    assert (pixels(tmp_path / 'seed0002_samples.png') == expected).all()
    assert [p.name for p in tmp_path.iterdir()] == ['seed0002_samples.png']


def test_a_system_without_a_sampler_shows_no_samples(tmp_path, capsys):
    run = override(preset('tiny'), **SMALL)
    run = method_of(replace(run, system='eg3d')).adapted(replace(run, system='eg3d'))
    save_generator(method_of(run).generator(run), tmp_path / 'g.safetensors')
    line = f'grid --out {tmp_path}/a.png --network {tmp_path}/g.safetensors --seeds 0 --yaw 0 --kinds '
    code, _, err = called(line + 'image,samples', capsys)
    assert code == 1 and 'a generator of eg3d has the same samples everywhere: leave samples out' in err
    assert called(line + 'image,normal', capsys)[0] == 0


@pytest.mark.parametrize(
    'line',
    [
        'eval --n 16 --no-track',
        'render --outdir x',
        'grid --out x.png',
        'mesh --out x.ply',
        'video --out x.mp4',
        'invert --head 0 --outdir x',
    ],
)
def test_a_generator_of_another_system_is_refused(line, network, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = called(f'{line} --network {network} --method eg3d', capsys)
    assert (code, out, err) == (2, '', f'--method eg3d, and {network} is of wysiwyg\n')
    assert not list(tmp_path.iterdir())


def test_a_generator_of_the_system_that_is_named_is_shown(network, tmp_path, capsys):
    line = f'render --outdir {tmp_path} --seeds 0 --kinds image --network {network} --method wysiwyg'
    assert called(line, capsys)[0] == 0


@pytest.mark.parametrize(
    'line, message',
    [
        ('grid --out x.jpg', "--out must end with .png, got 'x.jpg'"),
        ('grid --out x.png --kinds image,beta', "--kinds takes image, normal, depth, samples, got 'beta'"),
        ('grid --out x.png --kinds samples --samples 64', '--kinds samples shows what the sampler gave'),
        ('grid --out x.png --seeds 3-1', 'run backwards: give 1-3'),
        ('grid --out x.png --seeds 0-99999999999', 'at most 10000 seeds at once, got 100000000000'),
        ('render --outdir x --seeds 0-9999,3', 'at most 10000 seeds at once, got 10001'),
        (f'render --outdir x --seeds {"9" * 5000}', 'a seed has at most 18 digits'),
        (f'grid --out x.png --seeds 0-{"9" * 5000}', 'a seed has at most 18 digits'),
        ('ablate --study a01_paper_table --dry-run --seeds 0-99999999999', 'at most 10000 seeds at once'),
        ('ablate --study a02_samples --dry-run --seeds 0-99999999999', 'at most 10000 seeds at once'),
        ('grid --out x.png --yaws left', '--yaw must look like'),
        ('grid --out x.png --trunc nan', '--trunc must be from -4 to 4, got nan'),
        ('grid --out x.png --resolution 1', '--resolution must be from 2 to 4096, got 1'),
        ('render --outdir x --kinds ,', "--kinds takes image, normal, depth, samples, got ''"),
        ('invert --outdir x', 'give a PICTURE or --head, one of them; neither was given'),
        ('invert a.png --head 1 --outdir x', 'give a PICTURE or --head, one of them; both were given'),
        ('invert --head 1 --yaw .1 --outdir x', '--head has a camera: leave --yaw and --pitch out'),
        ('invert --head 1 --turn --outdir x', '--head has a camera: leave --yaw and --pitch out, and --turn'),
        ('invert a.png --yaw left --outdir x', '--yaw must look like .3 or -.5,0,.5'),
        ('invert a.png --yaw 4 --outdir x', '--yaw must be from -3.2 to 3.2, got 4: radians'),
        ('invert a.png --pitch nan --outdir x', '--pitch must be finite'),
        (
            'invert a.png b.png --pitch 0,.1,.2 --outdir x',
            '--pitch has 3 angles for 2 pictures: give one for',
        ),
        ('invert a.png --data a.zip --outdir x', '--data is the set of --head: a PICTURE has none'),
        ('invert a.png --class-index=-1 --outdir x', '--class-index must be at least 0, got -1'),
        ('invert --head=-1 --outdir x', '--head must be at least 0, got -1'),
        ('invert a.png --steps 0 --outdir x', '--steps must be from 1 to 100000, got 0'),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch, capsys, line, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = called(line, capsys)
    assert (code, out) == (2, '') and message in err
    assert not list(tmp_path.iterdir())


def test_more_pictures_than_memory_holds_are_refused(network, tmp_path, capsys):
    for line in (f'grid --out {tmp_path}/x.png', f'render --grid --outdir {tmp_path}/x'):
        code, out, err = called(f'{line} --network {network} --seeds 0-999 --resolution 4096', capsys)
        assert (code, out) == (1, '')
        assert 'pictures of 4096 pixels a side are too many at once: ask for fewer seeds' in err
    assert not list(tmp_path.iterdir())


def test_render_writes_each_picture_before_it_makes_the_next(small, network, tmp_path, capsys, monkeypatch):
    "So that no number of them is too many, and those that were written before an interrupt are whole."
    line = f'--network {network} --seeds 3,5,3 --yaws=-.4,.4 --kinds normal,image'
    assert called(f'render --outdir {tmp_path}/all {line}', capsys)[0] == 0
    written = []

    def render(self, *args, **how):
        written.append(len(list(tmp_path.glob('cut/*'))))
        if len(written) == 4:
            raise KeyboardInterrupt
        return see(self, *args, **how)

    see = type(small).render
    monkeypatch.setattr(type(small), 'render', render)
    monkeypatch.setattr(cli, '_MOST_PIXELS', 2 * small.run.resolution**2)
    assert called(f'render --outdir {tmp_path}/cut {line}', capsys)[0] == 130
    assert written == [0, 2, 4, 6]
    for path in sorted(tmp_path.glob('cut/*')):
        assert path.read_bytes() == (tmp_path / 'all' / path.name).read_bytes()
    assert len(list(tmp_path.glob('cut/*'))) == 6 and len(list(tmp_path.glob('all/*'))) == 8


@pytest.mark.parametrize(
    'line, place',
    [
        ('grid --out a/x.png', 'a/x.png is a folder: name a file'),
        ('grid --out f/x.png', 'f is a file, not a folder: name another place'),
        ('grid --out f/sub/x.png', 'f is a file, not a folder: name another place'),
        ('render --outdir f', 'f is a file, not a folder: name another place'),
        ('render --outdir f/sub --grid', 'f is a file, not a folder: name another place'),
        ('mesh --out a/x.ply', 'a/x.ply is a folder: name a file'),
        ('mesh --out f/x.ply', 'f is a file, not a folder: name another place'),
        ('video --out a/x.mp4', 'a/x.mp4 is a folder: name a file'),
        ('video --out f/x.mp4', 'f is a file, not a folder: name another place'),
        ('invert --head 0 --outdir f/sub', 'f is a file, not a folder: name another place'),
        ('invert --head 0 --outdir g', 'g/inversion.png is a folder: name a file'),
        ('import-eg3d f --outdir f/sub', 'f is a file, not a folder: name another place'),
        ('heads --n 4 --outdir f/sub', 'f is a file, not a folder: name another place'),
        ('objects --n 8 --outdir f', 'f is a file, not a folder: name another place'),
        ('train --no-track --outdir f', 'f is a file, not a folder: name another place'),
        ('train --no-track --outdir f/sub --dry-run', 'f is a file, not a folder: name another place'),
        ('eval --n 16 --no-track --record mine', 'data/results is a file, not a folder'),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    line, place, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    if line.startswith('eval'):
        monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path))
    for name in ('a/x.png', 'a/x.ply', 'a/x.mp4', 'g/inversion.png', 'data'):
        Path(name).mkdir(parents=True)
    for name in ('f', 'data/results'):
        Path(name).write_text('mine')
    before = sorted(tmp_path.rglob('*'))
    for module in ('wysiwyg.cli.load_generator', 'wysiwyg.cli.open_data', 'wysiwyg.heads._rows'):
        monkeypatch.setattr(module, lambda *a, **k: pytest.fail('worked'))
    code, out, err = called(line, capsys)
    assert (code, out) == (1, '') and place in err
    assert sorted(tmp_path.rglob('*')) == before


# ---- one picture ---------------------------------------------------------------------------------

FEW = '--steps 3 --tune-steps 2'


def test_a_head_is_found_and_its_file_shows_it(small, network, tmp_path, capsys):
    line = f'invert --head 4 --outdir {tmp_path}/a --network {network} {FEW} --json'
    code, said, told = called(line, capsys)
    assert code == 0 and 'w 3/3, loss' in told and 'weights 2/2, loss' in told
    result = json.loads(said)
    assert sorted(p.name for p in (tmp_path / 'a').iterdir()) == ['generator.safetensors', 'inversion.png']
    g = load_generator(result['generator'], torch.device('cpu'))
    config = replace(small.run.heads, resolution=32)
    camera = inversion_camera(result['generator'])
    with torch.no_grad():
        z = torch.randn(1, g.run.backbone.z_dim, generator=rng('anybody'))
        out = seen(g, g.synthesize(g.map(z, camera, 0)), camera)
    [truth] = [true_heads([4], camera, config, g.run.render.far)]
    expected = geometry_error(out, truth, g.run.render.far)
    assert result['errors']['tuned'] == pytest.approx(expected, rel=1e-4)
    left, top, side = *cli._MARGIN, 128
    shown = pixels(result['picture'])
    assert shown.shape == (top + 3 * side, left + 4 * side, 3)
    assert (shown[:top] < 128).any() and (shown[:, :left] < 128).any()  # words
    tiles = shown[top::4, left::4].reshape(3, 32, 4, 32, 3)
    assert np.abs(tiles[0, :, 0].astype(int) - sheet(truth.image(), 1)).max() <= 1
    assert np.abs(tiles[0, :, 3].astype(int) - sheet(out.image(), 1)).max() <= 1


def test_depth_is_read_in_rendered_heads_alone(small, network, tmp_path, capsys):
    "Elsewhere it is not, and why is said."

    def told(name: str, line: str, network=network) -> dict:
        code, said, err = called(
            f'invert {line} --outdir {tmp_path}/{name} --network {network} {FEW} --json', capsys
        )
        assert code == 0, err
        return json.loads(said)

    read, unread = told('a', '--head 4'), told('b', '--head 4 --no-depth')
    assert read['depth'] == 'read in the picture' and unread['depth'] == 'by colours alone (--no-depth)'
    assert read['errors']['pivot'] != unread['errors']['pivot']
    foreign = tmp_path / 'foreign.safetensors'
    save_generator(small, foreign, imported_from='weights')
    assert (
        told('c', '--head 4', foreign)['depth']
        == 'by colours alone (the generator was not trained on posed rendered heads)'
    )
    Image.new('RGB', (32, 32), 'white').save(tmp_path / 'white.png')
    white = told('d', f'{tmp_path}/white.png --yaw 0')
    assert white['depth'] == 'by colours alone (what is seen lies in the frame as no rendered head does)'
    shapes = render_objects(
        ObjectsConfig(n=7, resolution=32, workers=1), tmp_path / 'shapes.zip', progress=False
    )
    assert told('e', f'--head 1 --data {shapes}')['depth'] == 'by colours alone (shapes.zip shows no heads)'


def test_depth_is_read_for_the_cameras_of_the_networks_heads_alone(small, tmp_path, capsys):
    "Within 1 %, of the camera that the picture has; a found camera comes with a word."
    known = true_heads([5], orbit(0.3, 0.1), HeadsConfig(resolution=32, seed=9), 3.2)
    Image.fromarray(sheet(known.image(), 1)).save(tmp_path / 'a.png')
    words = 'focal length {}, not at 2.7 with 4.2647 as for the heads that the network knows'
    for k, (distance, focal) in enumerate([(2.7, 3.6), (2.76, FOCAL), (2.7, 4.3)]):
        g = small_generator()
        g.view = distance, focal
        save_generator(g, tmp_path / f'{k}.safetensors')
        line = f'invert {tmp_path}/a.png --network {tmp_path}/{k}.safetensors {FEW} --json'
        code, said, err = called(f'{line} --outdir {tmp_path}/{k}', capsys)
        near = k == 2
        assert code == 0 and ('--yaw' in err) == (not near)
        said = json.loads(said)['depth']
        assert said == 'read in the picture' if near else words.format(f'{focal:g}') in said
    config = HeadsConfig(resolution=32, n=2, focal=3.6, workers=1)
    heads = render_heads(config, tmp_path / 'h.zip', progress=False)
    save_generator(small, tmp_path / 'g.safetensors')
    line = f'invert --head 1 --data {heads} --network {tmp_path}/g.safetensors {FEW} --json'
    assert words.format(3.6) in json.loads(called(f'{line} --outdir {tmp_path}/h', capsys)[1])['depth']


def inversion_camera(path):
    "The camera that the file's notes name."
    from safetensors import safe_open
    from wysiwyg.camera import Camera

    with safe_open(path, 'pt') as f:
        return Camera.from_label(torch.tensor([json.loads(f.metadata()['inverted'])]))


def test_a_set_gives_the_same_truth_as_its_rendering(tmp_path, small, network, capsys):
    config = HeadsConfig(resolution=32, n=2, seed=7, workers=1)
    path = render_heads(config, tmp_path / 'two.zip', progress=False)
    known, camera = true_picture(path, 1, 32, 3.2)
    again = true_heads([1], camera, config, 3.2)
    assert torch.equal((known.rgb * 255).round(), (again.rgb * 255).round())
    error = geometry_error(known, again, 3.2)
    assert error['depth'] < 1e-4 and error['normal'] < 0.1 and error['overlap'] == 1
    line = f'invert --outdir {tmp_path}/a --network {network} {FEW} --data {path} --head '
    code, said, _ = called(line + '1', capsys)
    assert code == 0 and 'depth' in said and 'world units' in said and '--trunc 0' in said
    code, _, err = called(line + '2', capsys)
    assert code == 1 and 'two has no picture 2 with truth: give a number below 2' in err


def write_picture(path: Path, side: int):
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda d: None, 'no picture at'),
        (lambda d: Image.new('RGBA', (32, 32)).save(d / 'a.png'), 'a.png is transparent: lay it on'),
        (lambda d: (d / 'a.png').write_bytes(b'nothing'), 'a.png cannot be decoded'),
        (lambda d: (d / 'o').write_text(''), 'o is a file, not a folder: name another place'),
        (lambda d: save_other(d / 'o'), 'holds another generator.safetensors: name another folder'),
    ],
)
def test_what_cannot_be_inverted_is_refused_at_once(tmp_path, network, capsys, make, message):
    make(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    code, _, err = called(f'invert {tmp_path}/a.png --outdir {tmp_path}/o --network {network}', capsys)
    assert code == 1 and message in err and 'loss' not in err
    assert sorted(tmp_path.rglob('*')) == before


def save_other(folder: Path):
    folder.mkdir()
    (folder / 'generator.safetensors').write_bytes(b'of a training')


def test_interrupted_leaves_nothing_and_between_the_files_both(network, tmp_path, monkeypatch, capsys):
    write_picture(tmp_path / 'a.png', 32)
    line = f'invert {tmp_path}/a.png --outdir {tmp_path}/o --network {network} {FEW}'

    def interrupted(*a, **k):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(inversion, 'tune', interrupted)
        assert called(line, capsys)[0] == 130
    assert not (tmp_path / 'o').exists()

    def late(*a, **k):
        os.kill(os.getpid(), signal.SIGINT)
        save_generator(*a, **k)

    monkeypatch.setattr(cli, 'save_generator', late)
    assert called(line, capsys)[0] == 0
    assert sorted(p.name for p in (tmp_path / 'o').iterdir()) == ['generator.safetensors', 'inversion.png']
    load_generator(tmp_path / 'o')


def test_a_larger_picture_is_cut_and_its_camera_found(small, network, tmp_path, capsys):
    known = true_heads([5], orbit(0.3, 0.1), HeadsConfig(resolution=128, seed=9), 3.2)
    large = Image.fromarray(sheet(known.image(), 1))
    wide = Image.new('RGB', (200, 128), 'red')
    wide.paste(large, (36, 0))
    wide.save(tmp_path / 'a.png')
    line = f'invert {tmp_path}/a.png --network {network} {FEW} --outdir {tmp_path}/'
    code, said, told = called(line + 'a --json', capsys)
    assert code == 0
    assert 'a.png has 200 x 128 pixels: its middle square is scaled to 32' in told
    result = json.loads(said)
    assert result['camera']['source'] == 'found'
    found = orbit(result['camera']['yaw'], result['camera']['pitch'])
    assert camera_distance(found, orbit(0.3, 0.1)) < 6
    assert 'not known' in result['shape'] and list(result['errors']['tuned']) == ['psnr']
    left, top = cli._MARGIN
    given = pixels(tmp_path / 'a/inversion.png')[top : top + 128, left : left + 128]
    assert (given[..., 0] < 250).all()  # no red from the sides
    code, said, _ = called(line + 'b --pitch .1', capsys)
    assert code == 0 and 'camera: yaw 0, pitch 0.1 radians, given' in said


def view_of_a_head(path: Path, yaw: float):
    known = true_heads([5], orbit(yaw, 0.1), HeadsConfig(resolution=32, seed=9), 3.2)
    Image.fromarray(sheet(known.image(), 1)).save(path)


def test_two_views_of_one_person_are_met_by_one_w(small, network, tmp_path, capsys):
    for k, yaw in enumerate((-0.3, 0.5)):
        view_of_a_head(tmp_path / f'{k}.png', yaw)
    both = f'invert {tmp_path}/0.png {tmp_path}/1.png --network {network} {FEW} --pitch .1'
    code, said, _ = called(f'{both} --yaw=-.3,.5 --outdir {tmp_path}/a --json', capsys)
    assert code == 0
    result = json.loads(said)
    assert result['camera'] == {'yaw': [-0.3, 0.5], 'pitch': [0.1, 0.1], 'source': 'given'}
    left, top, side = *cli._MARGIN, 128
    shown = pixels(result['picture'])
    assert shown.shape == (top + 5 * side, left + 4 * side, 3)
    tiles = shown[top::4, left::4].reshape(5, 32, 4, 32, 3)
    g = load_generator(result['generator'], torch.device('cpu'))
    planes, cameras = g.synthesize(g.mapping.w_mean[None]), g.orbit(torch.tensor([-0.3, 0.5]), 0.1)
    out = seen(g, planes[[0, 0]], cameras).image()
    for k, row in enumerate((0, 2)):
        assert (tiles[row, :, 0] == pixels(tmp_path / f'{k}.png')).all()
        tuned = tiles[row, :, 3].astype(int)
        assert np.abs(tuned - sheet(out[k : k + 1], 1)).max() <= 1
    code, said, _ = called(f'{both} --yaw 0 --outdir {tmp_path}/b', capsys)
    assert code == 0 and 'camera: yaw 0,0, pitch 0.1,0.1 radians, given' in said


def test_a_camera_turns_on_request_from_where_it_was_given(network, tmp_path, capsys):
    view_of_a_head(tmp_path / 'a.png', 0.3)
    line = f'invert {tmp_path}/a.png --network {network} --steps 8 --tune-steps 1 --yaw .2 --turn'
    code, said, _ = called(f'{line} --outdir {tmp_path}/a --json', capsys)
    assert code == 0
    result = json.loads(said)
    told = result['camera']
    assert told['source'] == 'given' and 0 < told['turned_degrees'] < 5
    ended = orbit(told['yaw'], told['pitch'])
    turned = camera_distance(ended, orbit(0.2, 0.0)).item()
    assert turned == pytest.approx(told['turned_degrees'], abs=0.1)
    assert camera_distance(ended, inversion_camera(result['generator'])) < 0.1
    code, said, _ = called(f'{line} --outdir {tmp_path}/b', capsys)
    assert code == 0 and f'radians, given; turned by {told["turned_degrees"]:g} degrees' in said


def test_what_each_level_found_is_in_the_file_as_one_w(small, network, tmp_path, capsys, monkeypatch):
    view_of_a_head(tmp_path / 'a.png', 0.3)
    found, search = [], inversion.invert
    monkeypatch.setattr(inversion, 'invert', lambda *a, **k: found.append(search(*a, **k)) or found[-1])
    monkeypatch.setattr(inversion, 'tune', lambda g, *a, **k: g)
    line = f'invert {tmp_path}/a.png --network {network} --steps 8 --yaw .3 --plus'
    code, said, _ = called(f'{line} --outdir {tmp_path}/a --json', capsys)
    assert code == 0
    [wide] = found
    assert wide.w.shape[:2] == (1, small.triplane.levels) and wide.w.std(1).max() > 0
    result = json.loads(said)
    assert result['errors']['tuned']['psnr'] == pytest.approx(result['errors']['pivot']['psnr'], abs=1e-3)
    both = load_generator(tmp_path / 'a'), small
    with torch.no_grad():
        written, plain = [(g.synthesize(wide.w.mean(1)) - wide.pivot).abs().max() for g in both]
    assert written < 1e-4 and plain > 10 * written


def test_one_w_is_all_that_others_take(tmp_path, capsys):
    run = override(preset('tiny'), **SMALL)
    run = method_of(replace(run, system='eg3d')).adapted(replace(run, system='eg3d'))
    save_generator(method_of(run).generator(run), tmp_path / 'g.safetensors')
    write_picture(tmp_path / 'a.png', 32)
    line = f'invert {tmp_path}/a.png --plus --network {tmp_path}/g.safetensors --outdir {tmp_path}/o'
    code, _, err = called(line, capsys)
    assert (code, err) == (2, '--plus is for wysiwyg: a file of eg3d cannot hold what it finds\n')


def test_the_word_on_the_shape_follows_the_depth():
    errors = {'average': {'depth': 0.02}, 'pivot': {'depth': 0.015}, 'tuned': {'depth': 0.03}}
    assert cli._shape_verdict(errors).startswith('worse, though the picture is met: depth error 0.0200')
    errors['tuned']['depth'] = 0.01
    assert cli._shape_verdict(errors).startswith('better than the average: depth error 0.0200')
    unknown = dict.fromkeys(errors, {'psnr': 20})
    assert cli._shape_verdict(unknown).startswith('not known: a picture says little of depth')
    fog = errors | {'average': {'psnr': 20}}
    told = 'not known: nothing is solid in both the truth and the '
    assert cli._shape_verdict(fog, known=True).startswith(told + 'average; look')
    assert cli._shape_verdict(errors | {'pivot': {}, 'tuned': {}}, True).startswith(
        told + 'pivot and the tuned;'
    )
    result = dict(errors=fog, camera={'yaw': 0, 'pitch': 0, 'source': 'given'}, generator='g')
    table = cli._invert_text(None, result).splitlines()
    assert table[1].split() == ['depth', '0.015', '0.01', 'world', 'units'] and 'psnr' in table[2]


def one_person(g) -> tuple[Inversion, torch.Tensor]:
    w = torch.randn(1, g.run.backbone.w_dim, generator=rng('one'))
    with torch.no_grad():
        pivot = g.synthesize(w)
    front = g.orbit(torch.zeros(1), torch.zeros(1))
    return Inversion(w, pivot, pivot, (), front), torch.rand(1, 3, 32, 32, generator=rng('picture'))


def test_tuning_changes_planes_alone_and_is_held(small):
    found, picture = one_person(small)
    camera = small.orbit(torch.zeros(1), torch.zeros(1))
    before = {name: x.clone() for name, x in small.state_dict().items()}
    moved = {}
    for keep in (0.0, 1e6):
        tuned = tune(small, found, picture, camera, 6, 0.01, keep, smooth=0.0, extractor=PIXELS)
        with torch.no_grad():
            change = tuned.synthesize(found.w) - found.pivot
        moved[keep] = change.square().mean().item()
        others = [n for n, x in tuned.state_dict().items() if not x.equal(before[n])]
        assert {n.split('.')[0] for n in others} == {'triplane', 'mapping'}
        assert [n for n in others if n.startswith('mapping')] == ['mapping.w_mean']
        assert torch.equal(tuned.mapping.w_mean, found.w[0])
        assert not any(p.requires_grad for p in tuned.parameters())
    assert moved[1e6] < 0.5 * moved[0.0]
    assert all(x.equal(before[n]) for n, x in small.state_dict().items())
    two = replace(found, w=found.w.repeat(2, 1))
    with pytest.raises(ValueError, match='weights are tuned for one person, got 2'):
        tune(small, two, picture, camera)


def test_tuning_refuses_what_it_cannot_tune(small):
    found, picture = one_person(small)
    camera = small.orbit(torch.zeros(1), torch.zeros(1))
    short = dict(steps=(1, 0), sides=(16, 32), extractor=PIXELS)
    plus = inversion.invert(small, picture, camera, plus=True, **short)
    with pytest.raises(
        ValueError, match=r'one w for all levels, got W\+ of shape .*: invert with plus=False'
    ):
        tune(small, plus, picture, camera, 1, extractor=PIXELS)
    for bad in (replace(found, w=found.w[:, :-1]), replace(found, pivot=found.pivot[..., 1:])):
        with pytest.raises(ValueError, match='must have shape'):
            tune(small, bad, picture, camera, 1, extractor=PIXELS)
    with pytest.raises(ValueError, match='there is no picture to invert: give at least one'):
        tune(small, found, picture[:0], camera[:0], 1, extractor=PIXELS)
    tune(small, found, picture, camera, 1, extractor=PIXELS)


# ---- figures -------------------------------------------------------------------------------------


def ball(x):
    return x.norm(dim=-1) - 0.4


def test_a_picture_of_a_ball_is_shaded_as_a_ball():
    mesh = extract_mesh(ball, 1.0, 48)
    side = 65
    red = mesh_picture(mesh, 0.7, -0.2, side)[0, 0]
    angle = torch.atan((torch.arange(side) - side // 2) / side / (math.sqrt(15) / 2))  # of rays to the middle
    beside = 4 * angle.sin()  # distance of the ray from the middle, of radius 1
    # at the hit the normal and the ray enclose asin(distance): the lamp is at the eye
    light = 0.4 + 0.6 * (1 - beside.square()).clamp(0).sqrt()
    inner = beside.abs() < 0.95
    assert (red[side // 2] - light * 200 / 255)[inner].abs().max() < 0.01
    assert (red[:, side // 2] - light * 200 / 255)[inner].abs().max() < 0.01


def test_place_and_size_do_not_matter_to_a_picture():
    mesh = extract_mesh(ball, 1.0, 24)
    moved = replace(mesh, vertices=(7 * mesh.vertices + np.array([5, -3, 100])).astype(np.float32))
    assert (mesh_picture(mesh, 0.3, side=32) - mesh_picture(moved, 0.3, side=32)).abs().max() < 0.02


def test_k3d_shows_what_is_too_fine_for_plotly(monkeypatch):
    mesh = extract_mesh(ball, 1.0, 200)
    monkeypatch.setitem(sys.modules, 'k3d', None)
    with pytest.raises(ImportError, match="wants k3d: pip install 'wysiwyg\\[mesh\\]'"):
        show_mesh(mesh, 'k3d')
    monkeypatch.undo()
    pytest.importorskip('k3d')
    painted = replace(mesh, colors=np.tile(np.uint8([[1, 2, 3]]), (len(mesh.vertices), 1)))
    [shown] = show_mesh(painted, 'k3d').objects
    assert (shown.indices == mesh.faces).all() and len(shown.vertices) == len(mesh.vertices)
    assert (shown.colors == 0x010203).all()
    [gray] = show_mesh(mesh, 'k3d').objects
    assert gray.color == 0xD3D3D3


def test_the_advised_resolution_is_shown():
    def many(n):
        return extract_mesh(ball, 1.0, n)

    with pytest.raises(
        ValueError, match='holds 60,000 faces.*level of detail.*a resolution of [0-9]+, or'
    ) as e:
        show_mesh(many(200))
    advised = int(str(e.value).split('a resolution of ')[1].split(',')[0])
    fitting = many(advised)
    assert 50_000 < len(fitting.faces) <= 60_000
    figure = json.loads(show_mesh(fitting).to_json())
    assert figure['data'][0]['type'] == 'mesh3d' and 'color' in figure['data'][0]
    with pytest.raises(ValueError, match='a resolution 0.5 times that'):
        show_mesh(TriangleMesh(fitting.vertices, np.zeros((240_000, 3), np.int64), fitting.normals))


# ---- shapes of arms ------------------------------------------------------------------------------


def test_an_arm_keeps_its_shape_in_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv('WYSIWYG_RUNS', str(tmp_path))
    g = load_generator()
    counted = g.evaluations
    with Recorder('shapes', 'shipped', 0, {'k': 1}) as r:
        keep_shape(r, g, resolution=48, frames=6, side=32)
    assert g.evaluations == counted  # an arm's own counts are its own
    client = open_store()
    kept = {Path(f.path).name for f in client.list_artifacts(r.id, 'shape')}
    assert kept == {'head.glb', 'head.html', 'head.mp4', 'head.png'}
    data = client.get_run(r.id).data
    assert f'get-artifact?path=shape%2Fhead.png&run_uuid={r.id}' in data.tags['mlflow.note.content']
    folder = Path(client.download_artifacts(r.id, 'shape', str(tmp_path)))
    mesh = trimesh.load(folder / 'head.glb', force='mesh', process=False)
    assert len(mesh.faces) > 1000 and mesh.vertices[:, 1].max() > 0.1
    how, *shots = imageio_ffmpeg.read_frames(str(folder / 'head.mp4'))
    assert (how['size'], len(shots)) == ((64, 32), 6)
    with Recorder('shapes', 'fog', 0, {'k': 2}) as r:
        keep_shape(r, g.using(field_at=far_field), resolution=16, frames=2, side=32)
    assert {Path(f.path).name for f in client.list_artifacts(r.id, 'shape')} == {'head.mp4', 'head.png'}
    assert 'wysiwyg.opens' not in client.get_run(r.id).data.tags
    assert 'no surface' in client.get_run(r.id).data.tags['wysiwyg.shape']


def shaped(recorder, params, seed):
    "An arm that says a word, and keeps its shape where it has one."
    recorder.note('It is a head.', more=True)
    if params['k']:
        keep_shape(recorder, load_generator(), resolution=16, frames=2, side=32)
    return {'eval/render_psnr': 30.0 + params['k']}


def test_the_pages_of_a_study_show_shapes_and_exports_do_not(tmp_path, monkeypatch):
    monkeypatch.setenv('WYSIWYG_RUNS', str(tmp_path))
    arms = {'plain': {'k': 0}, 'head': {'k': 1}, 'other': {'k': 2}}
    run_study('shaped', arms, shaped, note='Which is better?')
    client = open_store()
    runs = {run.data.tags['wysiwyg.arm']: run for run in find_runs(client, 'shaped')}
    said = {arm: run.data.tags['mlflow.note.content'] for arm, run in runs.items()}
    assert 'It is a head.' in said['plain'] and 'get-artifact' not in said['plain']
    assert said['head'].startswith('Arm **head**') and 'shape/head.html' in said['head']
    page, experiment = said[STUDY], client.get_experiment_by_name('wysiwyg/shaped')
    assert experiment.tags['mlflow.note.content'] == page
    for arm in ('head', 'other'):
        place = f'#/experiments/{experiment.experiment_id}/runs/{runs[arm].info.run_id}/artifacts'
        picture = f'get-artifact?path=shape%2Fhead.png&run_uuid={runs[arm].info.run_id}'
        opened = f'{place}/shape/head.html?workflowType=machine_learning'
        assert f'| {arm} | [![{arm}]({picture})]({opened}) |' in page
    assert '| plain | [' not in page
    monkeypatch.setenv('WYSIWYG_HOME', str(tmp_path))
    exported = {
        run['tags']['wysiwyg.arm']: run['tags'] for run in json.loads(export_runs('shaped').read_text())
    }
    for link in ('get-artifact', '#/experiments'):
        assert not any(link in json.dumps(tags) for tags in exported.values())
    assert exported['head']['mlflow.note.content'].startswith('Arm **head**')
    assert 'wysiwyg.opens' not in exported['head'] and 'wysiwyg.seconds' in exported['head']


def test_a_page_holds_the_mesh():
    mesh = extract_mesh(ball, 1.0, 24)
    colors = (255 * (mesh.vertices + 0.5)).astype(np.uint8)
    page = mesh_page(replace(mesh, colors=colors), 'a </script> & a ball')
    assert '<title>a &lt;/script&gt; &amp; a ball</title>' in page and page.count('</script>') == 2
    packed = json.loads(page.split('id="mesh">')[1].split('</script>')[0])
    read = {name: base64.b64decode(packed[name]) for name in ('places', 'colors', 'faces')}
    low, high = np.array(packed['low']), np.array(packed['high'])
    places = low + np.frombuffer(read['places'], '<u2').reshape(-1, 3) / 65535 * (high - low)
    np.testing.assert_allclose(places, mesh.vertices, atol=1e-5)
    np.testing.assert_array_equal(np.frombuffer(read['faces'], '<u4').reshape(-1, 3), mesh.faces)
    np.testing.assert_array_equal(np.frombuffer(read['colors'], np.uint8).reshape(-1, 3), colors)
    assert json.loads(mesh_page(mesh, '').split('id="mesh">')[1].split('</script>')[0])['colors'] is None
    with pytest.raises(ValueError, match='holds 60,000 faces'):
        mesh_page(replace(mesh, faces=np.tile(mesh.faces, (20, 1))), '')


def far_field(planes):
    "Of which everything is far away."
    return lambda points, dirs, image=None: replace(toy_field(points, dirs), sdf=1 + 0 * points[..., 0])


@pytest.mark.parametrize('option, told', [('', '1'), ('--no-shapes', '0')])
def test_the_option_reaches_the_arms(monkeypatch, option, told):
    heard = []

    def execute(study, parameters, out, journal):
        heard.append(os.environ['WYSIWYG_SHAPES'])
        journal.write_text('')

    monkeypatch.setattr(cli, '_execute', execute)
    with environment(WYSIWYG_SHAPES=None):
        main(f'ablate --study a01_paper_table {option}'.split())
    assert heard == [told]
