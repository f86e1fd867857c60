"Several systems before one camera: what is shown is what they render, and nothing is made twice."

import json

import numpy as np
import pytest
import torch

from wysiwyg.baselines import compare
from wysiwyg.baselines.compare import Linked, flicker_of, strip_of
from wysiwyg.config import METHODS, override, tiny
from wysiwyg.core import colorize, rng, sheet
from wysiwyg.generator import load_generator, method_of, save_generator, w_of_seed

SIDE, PATH = 32, (-0.6, -0.2, 0.2, 0.6)
VIEWS = len(PATH)


@pytest.fixture(scope='module', autouse=True)
def short_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, 'PATH', PATH)
        yield


@pytest.fixture(scope='module')
def systems(tmp_path_factory):
    "One of each, read from files as training writes them."
    folder = tmp_path_factory.mktemp('systems')
    out = {}
    for name in METHODS:
        torch.manual_seed(0)
        method = method_of(override(tiny(), system=name))
        save_generator(method.generator(method.adapted(tiny())), folder / f'{name}.safetensors')
        out[name] = load_generator(folder / f'{name}.safetensors', torch.device('cpu'))
    return out


@pytest.fixture
def linked(systems):
    return Linked(systems)


def parts(linked) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    "Picture and strip of each system."
    left, out = np.frombuffer(linked.pixels, np.uint8), {}
    for system in linked.told['systems']:
        count = 3 * SIDE**2
        picture, strip = left[:count], left[count : count + 3 * VIEWS * SIDE]
        out[system['name']] = picture.reshape(SIDE, SIDE, 3), strip.reshape(VIEWS, SIDE, 3)
        left = left[count + strip.size :]
    assert not left.size
    return out


def rendered(g, asked: dict, yaw: float, pitch: float = 0.0, normals: bool = False):
    with torch.no_grad():
        scene = g.synthesize(w_of_seed(g, asked['seed'], asked['trunc']))
        camera = g.orbit(torch.tensor([yaw]), torch.tensor([pitch]))
        return g.render(scene, camera, normals=normals), camera


@pytest.mark.parametrize('show', ['colour', 'normal', 'depth'])
def test_what_is_shown_is_what_is_rendered(linked, systems, show):
    linked.ask(seed=3, trunc=0.7, yaw=-0.25, pitch=0.15, show=show, y=0.3)
    shown = parts(linked)
    for name, g in systems.items():
        seen, camera = rendered(g, linked.asked, -0.25, 0.15, normals=True)
        exact = {'colour': seen.image(), 'normal': seen.normal_colors(camera)}
        exact['depth'] = colorize(seen.image('depth'), g.run.render.near, g.run.render.far, 'magma_r')
        np.testing.assert_array_equal(shown[name][0], sheet(exact[show], cols=1))


def test_a_strip_is_a_row_of_every_view(linked, systems):
    linked.ask(seed=5, y=0.6)
    for name, (_, strip) in parts(linked).items():
        for k in range(VIEWS):
            seen, _ = rendered(systems[name], linked.asked, PATH[k])
            np.testing.assert_array_equal(strip[k], sheet(seen.image(), cols=1)[int(0.6 * SIDE)])


def test_nothing_is_made_twice(linked, systems, monkeypatch):
    made = []
    for name, g in systems.items():
        for what in ('synthesize', 'render'):
            told = (name, what)
            monkeypatch.setattr(g, what, counted(getattr(g, what), made, told), raising=False)
    linked.ask(y=0.7)
    assert not made  # another row
    for k in range(5):
        linked.ask(yaw=0.05 * k)
    assert made.count(('eg3d', 'render')) == 5 and not any(what == 'synthesize' for _, what in made)
    made.clear()
    linked.ask(seed=1)
    assert sorted(set(made)) == sorted((name, what) for name in systems for what in ('render', 'synthesize'))
    assert made.count(('wysiwyg', 'synthesize')) == 1


def counted(call, made: list, told: tuple):
    def inner(*args, **kw):
        made.append(told)
        return call(*args, **kw)

    return inner


def test_a_refused_question_changes_nothing(linked):
    before, whose = linked.pixels, linked.whose
    for asked in ({'seed': 7, 'yaw': 0.61}, {'show': 'fog'}, {'roll': 1}):
        with pytest.raises(ValueError):
            linked.ask(**asked)
    assert (linked.pixels, linked.whose) == (before, whose)


def test_who_fails_leaves_the_others_as_they_were(linked, monkeypatch):
    def broken(*args, **kw):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(linked.systems['mimic3d'], 'synthesize', broken, raising=False)
    page, before = linked.page(), linked.pixels
    page.asked = linked.asked | {'seed': 8, 'turn': 'a 1'}
    assert page.told['error'] == 'RuntimeError: out of memory' and page.pixels == before
    monkeypatch.undo()
    page.asked = linked.asked | {'seed': 8, 'turn': 'a 2'}
    assert page.told['error'] == '' and page.pixels != before


def test_systems_of_other_sizes_stand_beside_each_other(systems):
    linked = Linked({'large': load_generator(device=torch.device('cpu')), 'small': systems['eg3d']})
    sides = [system['side'] for system in linked.told['systems']]
    assert sides == [64, 32]
    assert len(linked.pixels) == sum(3 * side * (side + VIEWS) for side in sides)
    assert linked.png()[:4] == b'\x89PNG'


def test_a_page_without_a_kernel(linked):
    page = linked.html([{'yaw': yaw, 'y': y} for yaw in (-0.3, 0.3) for y in (0.4, 0.6)])
    known = json.loads(page.split('id="known">')[1].split('</script>')[0])
    assert 'Recorded states: 5.' in page
    assert len(known['answers']) == 5 and 'import ' not in page.split('<script type="module">')[1]


def test_a_page_by_default_has_cameras_and_rows(linked):
    page = linked.html()
    known = json.loads(page.split('id="known">')[1].split('</script>')[0])
    asked = [answer['asked'] for answer in known['answers']]
    assert {a['yaw'] for a in asked} == {-0.6, -0.3, 0.0, 0.3, 0.6}
    assert {a['y'] for a in asked} == {0.4, 0.5, 0.6}


def test_what_cannot_be_compared_is_named():
    with pytest.raises(ValueError, match='nothing to compare'):
        Linked({})
    with pytest.raises(ValueError, match='a line is a Linear, no generator'):
        Linked({'a line': torch.nn.Linear(1, 1)})


def test_flicker_is_the_second_difference():
    views = torch.rand(9, 3, 8, 8, generator=rng(0))
    rows = views[:, :, 5].numpy()
    before, here, after = rows[:-2], rows[1:-1], rows[2:]
    second = np.abs(before - 2 * here + after).mean()
    assert flicker_of(strip_of(views, 5.5 / 8)) == pytest.approx(second, rel=1e-5)
    assert torch.equal(strip_of(views, 1.0)[0].transpose(0, 1), views[:, :, 7])
