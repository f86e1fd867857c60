"Moments of a run: few, evenly over its schedule, the averaged generators of then, and what scrubs them."

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from small_run import SMALL
from wysiwyg.config import compressed, override, tiny
from wysiwyg.baselines.eg3d import EG3D
from wysiwyg.data import Dataset, png_bytes, write_zip
from wysiwyg.camera import gaussian_cameras
from wysiwyg.core import rng
from wysiwyg.generator import load_generator, save_generator
from wysiwyg.inspector import Inspector
from wysiwyg.loop import moments_of, train

TINY = SMALL | {'train.batch': 4, 'discriminator.channel_base': 64, 'discriminator.channel_max': 8}
STEPS = compressed(48, 8, 16, 32, (0.03, 0.006), 5.0)
RUN = replace(override(tiny(), **TINY, **{'train.moments': 3, 'backbone.z_dim': 8}), schedule=STEPS)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "Noise will do, it is not looked at."
    labels = gaussian_cameras(12, rng(1), 0.3, 0.15, 2.7, 4.2647).label.double().numpy()
    pixels = torch.randint(0, 256, (12, 32, 32, 3), generator=rng(2), dtype=torch.uint8).numpy()
    entries = [(f'{i}.png', png_bytes(pixels[i]), labels[i]) for i in range(12)]
    path = tmp_path_factory.mktemp('data') / 'noise.zip'
    write_zip(path, entries)
    return Dataset(path)


@pytest.fixture(scope='module')
def folder(data, tmp_path_factory):
    "A run to its end."
    folder = tmp_path_factory.mktemp('run')
    train(RUN, folder, data, progress=False)
    return folder


def test_moments_are_few_and_evenly_spaced(folder):
    moments = moments_of(folder)
    assert [*moments] == [0, 16, 32, 48]
    assert moments[48] == folder / 'generator.safetensors'
    assert len(list((folder / 'moments').iterdir())) == RUN.train.moments


def test_a_moment_is_the_average_of_then_in_half_precision(folder, data, tmp_path):
    train(RUN, tmp_path, data, progress=False, stop_at=16)
    exact, kept = load_file(tmp_path / 'generator.safetensors'), load_file(moments_of(folder)[16])
    assert exact.keys() == kept.keys()
    for name, x in exact.items():
        assert kept[name].dtype == torch.float16
        assert torch.equal(kept[name], x.half()), name


def test_a_run_that_was_resumed_has_the_moments_of_one_that_was_not(folder, data, tmp_path):
    train(RUN, tmp_path, data, progress=False, stop_at=24)
    train(RUN, tmp_path, data, resume='latest', progress=False)
    for images, path in moments_of(folder).items():
        assert moments_of(tmp_path)[images].read_bytes() == path.read_bytes(), images


def test_what_an_earlier_course_left_is_set_aside(folder, data, tmp_path):
    own = tmp_path / 'own'
    shutil.copytree(folder, own)
    checkpoint = tmp_path / 'early'
    train(RUN, checkpoint, data, progress=False, stop_at=24)
    train(RUN, own, data, resume=str(checkpoint), progress=False, stop_at=28)
    aside = [p.name for p in sorted((own / 'set-aside-1' / 'moments').glob('*'))]
    assert aside == [f'moment-{images:010d}.safetensors' for images in (0, 16, 32)]
    assert len(list((own / 'moments').glob('*'))) == 0


def test_a_run_that_stops_at_a_moment_keeps_it(folder, data, tmp_path):
    train(RUN, tmp_path, data, progress=False, stop_at=16)
    train(RUN, tmp_path, data, resume='latest', progress=False)
    assert [*moments_of(tmp_path)] == [*moments_of(folder)]


def test_none_are_kept_where_none_are_wanted(data, tmp_path):
    train(override(RUN, **{'train.moments': 0}), tmp_path, data, progress=False, stop_at=8)
    assert not (tmp_path / 'moments').exists()
    with pytest.raises(
        ValueError, match='holds 1 generators, and a course has two at least: name the --outdir'
    ):
        moments_of(tmp_path)
    with pytest.raises(ValueError, match='holds 0 generators'):
        moments_of(tmp_path / 'nowhere')


def test_a_generator_of_another_run_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.copy(
        load_and_save(tmp_path / 'other.safetensors', images='7'), tmp_path / 'moments/moment-7.safetensors'
    )
    with pytest.raises(
        ValueError, match=r'moment-7.safetensors has backbone.\w+ = \d+, which generator.safetens'
    ):
        Inspector(run=tmp_path)
    load_and_save(tmp_path / 'moments/moment-7.safetensors')
    with pytest.raises(ValueError, match='moment-7.safetensors does not say how many images'):
        moments_of(tmp_path)
    (tmp_path / 'moments/moment-7.safetensors').write_bytes(b'broken')
    with pytest.raises(ValueError, match='moment-7.safetensors is not a safetensors file'):
        moments_of(tmp_path)


def load_and_save(path, **notes):
    "The shipped generator, which is of other sizes."
    save_generator(load_generator(device=torch.device('cpu')), path, **notes)
    return path


def test_numbers_beyond_half_precision_are_kept_whole(folder, tmp_path):
    g = load_generator(folder)
    next(g.field.parameters()).fill_(1e6)
    save_generator(g, tmp_path / 'large.safetensors', half=True)
    again = load_generator(tmp_path / 'large.safetensors')
    assert next(again.field.parameters()).eq(1e6).all()


# ---- scrubbed ------------------------------------------------------------------------------------


@pytest.fixture
def scrubbed(folder):
    return Inspector(run=folder, x=0.5, y=0.5)


def test_each_moment_answers_as_an_inspector_of_its_generator(scrubbed, folder):
    assert scrubbed.asked['moment'] == '48'
    for images, path in moments_of(folder).items():
        told = scrubbed.ask(moment=str(images), seed=3, yaw=-0.2)
        alone = Inspector(load_generator(path), seed=3, yaw=-0.2, x=0.5, y=0.5)
        assert told['ray'] == alone.told['ray']
        picture, normals = scrubbed.pixels[: 3 * 32**2], scrubbed.pixels[3 * 32**2 :]
        assert picture == alone.pixels
        alone.ask(show='normal')
        assert normals == alone.pixels


def test_turning_back_loads_nothing_and_a_camera_makes_no_planes(scrubbed):
    for images in scrubbed.moments:
        scrubbed.ask(moment=images)
    before = scrubbed.ask(moment='16')['ray']
    read, made = scrubbed.load.cache_info().misses, scrubbed.g.syntheses
    for k in range(20):
        scrubbed.ask(yaw=0.02 * k, moving=1)
    assert scrubbed.g.syntheses == made
    scrubbed.ask(moving=0, moment='0')
    assert scrubbed.ask(moment='16', yaw=0.3)['ray'] == before
    assert scrubbed.load.cache_info().misses == read <= len(scrubbed.moments)


def test_a_page_without_a_kernel_has_the_moments_that_were_recorded(scrubbed):
    page = scrubbed.html([{'moment': images} for images in scrubbed.moments])
    known = json.loads(page.split('id="known">')[1].split('</script>')[0])
    assert {a['asked']['moment'] for a in known['answers']} == {'0', '16', '32', '48'}
    assert len(known['pictures']) == 4 and scrubbed.png()[:4] == b'\x89PNG'


def test_a_run_and_a_generator_are_one_too_many(folder):
    with pytest.raises(ValueError, match='a generator or a run, not both'):
        Inspector(load_generator(folder), run=folder)
    with pytest.raises(ValueError, match='moment is one of 0, 16, 32, 48'):
        Inspector(run=folder, moment='33')


def test_a_run_without_distances_is_named(tmp_path):
    other = EG3D.generator(EG3D.adapted(tiny()))
    for images in '04':
        save_generator(other, tmp_path / f'moments/moment-{images}.safetensors', images=images)
    with pytest.raises(ValueError, match='rays of a Generator with distances, got EG3DGenerator'):
        Inspector(run=tmp_path)
