"Drawings that answer: what they show equals the trace, nothing is computed twice, nothing stays behind."

import gc
import json
import re
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from comm import get_comm_manager
from hypothesis import given, settings, strategies as st
from ipywidgets.widgets.widget import _instances
from matplotlib import colormaps

from wysiwyg import inspector as module, live
from wysiwyg.camera import camera_rays
from wysiwyg.core import rng
from wysiwyg.generator import load_generator, save_generator, still
from wysiwyg.inspector import VIEWS, Frame, Inspector, RayParts, inspector_settings, take_apart
from wysiwyg.live import checked, rounded
from wysiwyg.proposal import PROPOSALS
from wysiwyg.renderer import SAMPLERS, WITHOUT_PDF
from wysiwyg.tracking import Recorder, run_link, store_exists
from wysiwyg.budgets import POLICIES

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def g():
    return load_generator(device=CPU)


@pytest.fixture(scope='module')
def offered(g):
    return inspector_settings(g)


@pytest.fixture
def inspector(g):
    return Inspector(g)


def trace_of(inspector: Inspector, normals: bool = False):
    "The same frame by `render` alone."
    g, frame = inspector.g, inspector.frame
    with torch.no_grad():
        z = torch.randn(1, g.run.backbone.z_dim, generator=rng(int(inspector.asked['seed']), 'z'))
        front = g.orbit(torch.zeros(1), torch.zeros(1))
        planes = g.synthesize(g.map(z, front, inspector.asked['trunc']))
        camera = g.orbit(torch.tensor([inspector.asked['yaw']]), torch.tensor([inspector.asked['pitch']]))
        asked = planes, camera, frame.side, frame.config, inspector.asked['proposal']
        return g.render(*asked, normals, trace=True)


CASES = [{'sampler': name} for name in SAMPLERS]
CASES += [{'policy': name} for name in POLICIES]
CASES += [{'proposal': name} for name in PROPOSALS]
CASES += [{'sampler': 'refined', 'policy': 'need', 'proposal': 'sdf', 'per_bin': 3.0}]


@pytest.mark.parametrize('asked', CASES, ids=lambda a: '-'.join(map(str, a.values())))
def test_what_is_shown_is_the_trace(inspector, asked):
    told = inspector.ask(**asked, seed=4, yaw=-0.3, x=0.45, y=0.6)
    trace, ray = trace_of(inspector), told['ray']
    n = ray['pixel'][0] * told['side'] + ray['pixel'][1]
    out = trace.rendering
    assert ray['samples']['depth'] == pytest.approx(out.depth[0, n].item(), abs=1e-5)
    assert ray['samples']['opacity'] == pytest.approx(out.opacity[0, n].item(), abs=1e-5)
    assert len(ray['samples']['t']) == trace.samples.flatten()[n]
    picture = (out.image().clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0)
    assert inspector.pixels == picture.contiguous().numpy().tobytes()
    nothing = out.opacity[0] < 0.01
    samples = trace.samples.flatten()
    assert told['in_vain'] == pytest.approx((samples[nothing].sum() / samples.sum()).item())
    if asked.get('sampler') in WITHOUT_PDF:
        assert ray['pdf'] is None and ray['keep'] is None
    else:
        pdf = np.array(ray['pdf'])
        assert pdf.sum() == pytest.approx(1, abs=1e-3)
        assert pdf[np.array(ray['keep'], bool)].sum() >= inspector.asked['tau'] - 1e-3


def values_of(inspector: Inspector, trace) -> dict[str, torch.Tensor]:
    "What each view shows, [R, R] or [3, R, R], of a trace, dense rays and the field, without the inspector."
    g, frame = inspector.g, inspector.frame
    planes, camera, side = frame.planes, frame.camera, frame.side
    near, far, out = g.run.render.near, g.run.render.far, trace.rendering
    rays, exact = camera_rays(camera, side), g.dense(planes, camera, side)
    pdf = trace.pdf[0].flatten(1).T  # [R*R, K-1]
    likely, order = pdf.sort(dim=-1, descending=True)
    before = (likely.cumsum(-1) - likely) < inspector.asked['tau'] - 1e-6
    kept = torch.zeros_like(before).scatter(-1, order, before)
    light = g.dense_march(planes, rays, pdf.shape[-1] + 1).weights[0]
    row = slice(side * frame.pixel[0], side * (frame.pixel[0] + 1))
    t = torch.linspace(near, far, side)[:, None, None]
    points = rays.origins[0, row] + t * rays.dirs[0, row]  # [depth, column, 3]
    flat = {
        'depth': out.depth[0] - near,
        'slice': g.sdf(planes, points.flatten(0, 1)[None])[0],
        'beta': out.beta[0],
        'kept': kept.sum(-1),
        'samples': trace.samples.flatten(),
        'missed': (light * ~kept).sum(-1) / light.sum(-1).clamp_min(0.05),
        'error': ((out.rgb - exact.rgb) ** 2).mean(-1)[0].sqrt(),
    }
    whole = {'colour': out.image()[0], 'normal': out.normal_colors(camera)[0]}
    return whole | {name: x.reshape(side, side).double() for name, x in flat.items()}


@pytest.mark.parametrize('name', VIEWS)
def test_every_view_is_of_the_trace(inspector, name):
    told = inspector.ask(show=name, seed=4, yaw=-0.3, x=0.45, y=0.6, tau=0.9)
    with torch.no_grad():
        expected = values_of(inspector, trace_of(inspector, normals=True))[name]
    shown = np.frombuffer(inspector.pixels, np.uint8).reshape(told['side'], told['side'], 3) / 255
    if not told['ramp']:
        colors = expected.clamp(0, 1).permute(1, 2, 0)
    else:
        share = (expected - told['low']) / (told['high'] - told['low'])
        colors = colormaps[VIEWS[name].colors](share.clamp(0, 1).numpy())[..., :3]
        assert share.std() > 0.01  # something is shown
    off = np.abs(shown - np.asarray(colors)).max(-1)
    assert np.quantile(off, 0.99) < 0.02 and off.mean() < 1e-2  # a step of the map, at most


@pytest.mark.parametrize('name', [name for name in VIEWS if VIEWS[name].colors])
def test_the_bar_beside_a_picture_is_of_its_map(inspector, name):
    "In the static picture: which colour is near, or inside, is read off the map."
    told = inspector.ask(show=name)
    figure = inspector.figure()
    ax, *_ = figure.subfigs[0].axes
    (bar,) = ax.child_axes
    drawn = bar._colorbar.mappable
    view, values = VIEWS[name], np.linspace(told['low'], told['high'], 33)
    exact = colormaps[view.colors](np.linspace(0, 1, 33))
    np.testing.assert_allclose(drawn.to_rgba(values), exact, atol=0.08)  # between nine colours of it
    assert (drawn.norm.vmin, drawn.norm.vmax) == (view.low, view.high)
    assert bar.get_ylabel() == view.unit and ax.get_title() == name
    assert bar.get_ylim() == (view.low, view.high)


@pytest.mark.parametrize('sampler', [name for name in SAMPLERS if name not in WITHOUT_PDF])
def test_a_ray_known_to_be_empty_has_no_samples_and_says_so(g, sampler):
    inspector = Inspector(still(g), sampler=sampler)
    ray = inspector.ask(x=0.02, y=0.02)['ray']
    assert ray['empty'] == 'no samples: the probe saw nothing here'
    assert {len(ray['samples'][name]) for name in ('t', 'delta', 'sdf', 'beta', 'sigma', 'trans')} == {0}
    assert ray['counts'] is None or sum(ray['counts']) == 0
    assert (ray['samples']['depth'], ray['samples']['opacity']) == (pytest.approx(ray['far']), 0)
    assert ray['truth']['opacity'] < 1e-3 and inspector.png()[:4] == b'\x89PNG'
    json.dumps(inspector.told, allow_nan=False)
    lit = inspector.ask(x=0.5, y=0.5)['ray']
    assert lit['empty'] == '' and len(lit['samples']['t']) > 0


def test_nothing_is_in_vain_where_nothing_is_asked(g):
    away = still(g)
    away.view = 30.0, away.view[1]  # its rays end long before the head
    told = Inspector(away).ask()
    assert told['spent']['trace'] == told['in_vain'] == 0


def eq1(sdf: np.ndarray, beta: np.ndarray) -> np.ndarray:
    "Density per world unit."
    half = np.exp(-np.abs(sdf) / beta) / 2
    return np.where(sdf > 0, half, 1 - half) / beta


def eq2(sigma: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Light that gets here, and weights."
    thick = sigma * delta
    trans = np.exp(thick - thick.cumsum())
    return trans, trans * (1 - np.exp(-thick))


def field_on(g, frame, side: int, pixel: list[int], t: np.ndarray) -> list[np.ndarray]:
    "What the field says along a ray: sdf and beta [S]."
    n = torch.tensor([pixel[0] * side + pixel[1]])
    t = torch.tensor(t, dtype=torch.float32)[None, None]
    with torch.no_grad():
        answer = camera_rays(frame.camera, side, n).ask(g.field_at(frame.planes), t)
    return [x[0, 0].double().numpy() for x in (answer.sdf, answer.beta)]


def test_numbers_obey_the_formulas_above_them(g, inspector):
    "Each curve of inspector.js, by its law, from what is told and the field."
    ray = inspector.ask(seed=4, x=0.45, y=0.6, tau=0.97)['ray']
    s = {name: np.array(x) for name, x in ray['samples'].items()}
    pdf, keep, counts = [np.array(ray[name]) for name in ('pdf', 'keep', 'counts')]
    edges, width = np.linspace(ray['near'], ray['far'], len(pdf) + 1, retstep=True)
    likely = np.argsort(-pdf)
    fewest, even = np.zeros(len(pdf)), len(s['t']) // keep.sum() * keep
    fewest[likely[: 1 + (pdf[likely].cumsum() < 0.97).sum()]] = 1
    even[likely[: int(len(s['t']) % keep.sum())]] += 1
    lows = [e + width * np.arange(n) / n for e, n in zip(edges, counts) if n]
    u = (s['t'] - np.concatenate(lows)) * np.repeat(counts, counts.astype(int)) / width

    side = ray['probe_side']
    seen = field_on(g, inspector.frame, side, [int(0.6 * side), int(0.45 * side)], edges)
    middle = [(x[1:] + x[:-1]) / 2 for x in seen]
    sdf, beta = field_on(g, inspector.frame, inspector.frame.side, ray['pixel'], s['t'])
    trans, weights = eq2(s['sigma'], s['delta'])
    depth = weights @ s['t'] + (1 - weights.sum()) * ray['far']
    both = {
        'probe': (ray['probe'], eq2(eq1(*middle), width)[1]),
        'pdf': (pdf.sum(), 1),
        'kept': (keep, fewest),
        'strata': (counts, even),
        'samples': (u, u.clip(0, 1)),
        'sdf': (s['sdf'], sdf),
        'beta': (s['beta'], beta),
        'sigma': (s['sigma'], eq1(s['sdf'], s['beta'])),
        'T': (s['trans'], trans),
        'w': (s['weights'], weights),
        'depth': (s['depth'], depth),
    }
    listed = Path(module.__file__).with_suffix('.js').read_text().split('const CURVES = [')[1]
    assert [*both] == re.findall("{ name: '([^']+)'", listed.split('\n];')[0])
    for name, (shown, by_law) in both.items():
        off = 5e-3 if name == 'samples' else 2e-4
        np.testing.assert_allclose(shown, by_law, rtol=2e-3, atol=off, err_msg=name)


PLACE = "lesson: '([^']+)', cell: '([^']+)', code: '([^']+)'"


def assert_computed_there(lesson: str, cell: str, code: str, line: str):
    "The cell is exported, has the line, and is the only one that defines `code`."
    notebook = json.loads((ROOT / f'nbs/{lesson}.ipynb').read_text(encoding='utf8'))
    sources = {c['id']: ''.join(c['source']) for c in notebook['cells'] if c['cell_type'] == 'code'}
    assert sources[cell].startswith('#| export') and line in sources[cell], (code, cell)
    defined = re.compile(rf'\b(def|class) {code}\(')
    assert [k for k, source in sources.items() if defined.search(source)] == [cell], (code, cell)


def test_each_formula_names_the_cell_that_computes_it():
    script = Path(module.__file__).with_suffix('.js').read_text()
    found = re.findall(f"name: '([^']+)', .*{PLACE}", script)
    assert [name for name, *_ in found] == [*COMPUTES]
    for name, *place in found:
        assert_computed_there(*place, COMPUTES[name])


def elsewhere() -> dict[tuple[str, str], list[str]]:
    "Of inspector.js: (curve, proposal or sampler) -> lesson, cell and code in place of the curve's own."
    script = Path(module.__file__).with_suffix('.js').read_text()
    found = re.findall(f"curve: '([^']+)', by: '([^']+)', {PLACE}", script)
    return {(curve, by): place for curve, by, *place in found}


def test_other_proposals_and_samplers_name_cells_of_their_own():
    others = {('pdf', name) for name in PROPOSALS} | {('samples', name) for name in SAMPLERS}
    others |= {('kept', 'unfiltered')}
    assert elsewhere().keys() == others - {('pdf', 'cnn'), ('samples', 'robust')}
    for lesson, cell, code in elsewhere().values():
        assert_computed_there(lesson, cell, code, f'def {code}(')


def called(g, asked: dict) -> set[tuple[str, str]]:
    "Module and name of all functions that a trace needs; by torch, as kernels have other names."
    frame, names = Frame(g.using(ops='torch'), asked), set()
    with torch.no_grad():
        frame.planes
        sys.setprofile(lambda at, *_: names.add((Path(at.f_code.co_filename).stem, at.f_code.co_name)))
        try:
            frame.trace
        finally:
            sys.setprofile(None)
    return names


@pytest.mark.parametrize('curve, by', elsewhere(), ids=str)
def test_what_is_named_computes_it_there_and_not_by_default(g, curve, by):
    start = {s.name: s.start for s in inspector_settings(g)} | {'moving': 1}
    lesson, _, code = elsewhere()[curve, by]
    place = lesson.split('_', 1)[1], code
    setting = 'proposal' if curve == 'pdf' else 'sampler'
    assert place in called(g, start | {setting: by})
    assert place not in called(g, start)


ROOT = Path(__file__).resolve().parents[1]
COMPUTES = {  # curve -> a line of its cell
    'probe': 'def probe(',
    'pdf': 'logits.softmax(-1)',
    'kept': 'def smallest_set(',
    'strata': 'def allocate(',
    'samples': 'def draw_robust(',
    'sdf': 'def geometry(',
    'beta': 'beta = c.beta_init + torch.tanh(',
    'sigma': 'def density(',
    'T': 'trans = torch.exp(',
    'w': 'return trans * -torch.expm1(-a)',
    'depth': 'def integrate(',
}


def test_density_is_drawn_in_the_static_picture(inspector):
    truth = inspector.told['ray']['truth']
    _, field, _ = inspector.figure().subfigs[1].axes
    (line,) = [line for line in field.lines if line.get_label().startswith('sigma, at most ')]
    t, drawn = line.get_data()
    near, far = inspector.told['ray']['window']
    sigma = eq1(np.array(truth['sdf']), np.array(truth['beta']))
    most = sigma[(near <= t) & (t <= far)].max()  # of what is drawn
    np.testing.assert_allclose(drawn / drawn.max(), sigma / sigma.max(), rtol=5e-3, atol=1e-4)
    np.testing.assert_allclose(t, truth['t'])
    assert drawn[(near <= t) & (t <= far)].max() == pytest.approx(0.1)
    assert float(line.get_label().split()[-1]) == pytest.approx(most, rel=5e-3)


def test_depth_and_its_error_stand_below_the_static_picture(inspector):
    told = inspector.ask(x=0.45, y=0.5)['ray']
    own, dense = told['samples']['depth'], told['truth']['depth']
    ax, *_ = inspector.figure().subfigs[0].axes
    lines = ax.get_xlabel().splitlines()
    off = f'depth {own:.4f}, dense {dense:.4f}, off {abs(own - dense):.4f}'
    assert lines[:2] == ['pixel 28, 32', off]


def test_truth_is_the_dense_ray(g, inspector):
    told = inspector.ask(x=0.5, y=0.5)
    frame = inspector.frame
    n = frame.pixel[0] * frame.side + frame.pixel[1]
    with torch.no_grad():
        out = g.dense(frame.planes, frame.camera, frame.side)
    assert told['ray']['truth']['depth'] == pytest.approx(out.depth[0, n].item(), abs=1e-4)
    truth = told['ray']['truth']
    along = torch.tensor([list(bytes.fromhex(c[1:])) for c in truth['along']]) / 255
    left = 1 - sum(truth['weights'])
    rgb = torch.tensor(truth['weights']) @ along + left * torch.tensor(g.run.render.background)
    assert torch.allclose(rgb, out.rgb[0, n], atol=0.01)


@pytest.mark.parametrize('name', [name for name, view in VIEWS.items() if view.dense])
def test_a_map_that_asks_all_bins_waits_and_says_so(inspector, name):
    inspector.ask(show=name)
    moving = inspector.ask(moving=1, yaw=0.31)
    assert moving['shown'].startswith('colour while it moves; ') and name in moving['shown']
    assert inspector.ask(moving=0)['shown'] == name
    inspector.ask(show='colour')


def test_evaluations_are_those_that_were_made(g, inspector):
    before = g.evaluations
    told = inspector.ask(yaw=0.11)
    made = g.evaluations - before - told['ray']['dense']
    assert sum(told['spent'].values()) * told['side'] ** 2 == pytest.approx(made)
    again = inspector.ask(tau=0.9)
    assert again['spent']['proposed'] == told['spent']['proposed']


def test_a_camera_or_a_sampler_makes_no_planes(g, inspector):
    made = g.syntheses
    cameras = [{'yaw': 0.01 * k} for k in range(100)]
    taus = [{'tau': 0.5 + 0.005 * k} for k in range(100)]
    for turn in cameras + taus:
        inspector.ask(**turn, moving=1)
    inspector.ask(moving=0, policy='need', sampler='refined', proposal='sdf', beta_scale=2)
    for name in VIEWS:
        inspector.ask(show=name)
    assert g.syntheses == made
    inspector.ask(blend=0.5)
    assert g.syntheses == made + 1


def test_tau_stands_at_what_the_tour_tells_to_try(offered):
    tour = json.loads((ROOT / 'nbs/tour.ipynb').read_text(encoding='utf8'))
    (told,) = [t for c in tour['cells'] if '## 6. Robust' in (t := ''.join(c['source']))]
    best = float(re.search(r'the best at (0\.\d+)', told)[1])
    (tau,) = [s for s in offered if s.name == 'tau']
    steps = (best - tau.low) / tau.step
    assert steps == pytest.approx(round(steps))


def test_frames_take_over_what_still_holds(g):
    start = {s.name: s.start for s in inspector_settings(g)}
    with torch.no_grad():
        first = Frame(g, start)
        first.trace, first.exact
        turned = {name: Frame(g, start | {name: value}, before=first) for name, value in TURNS.items()}
    kept = {name: PARTS & vars(frame).keys() for name, frame in turned.items()}
    assert kept == {
        'seed': set(),
        'yaw': {'planes'},
        'beta_scale': {'planes'},
        'proposal': {'planes', 'exact'},
        'tau': {'planes', 'exact', 'proposed'},
        'x': {'planes', 'exact', 'proposed', 'trace'},
    }


PARTS = {'planes', 'proposed', 'trace', 'exact'}
TURNS = dict(seed=1, yaw=0.5, beta_scale=2, proposal='sdf', tau=0.9, x=0.1)


def test_fifty_runs_of_a_cell_leave_one(g):
    gone = []
    for _ in range(50):
        inspector = Inspector(g)
        inspector.page()
        gone.append(weakref.ref(inspector))
    gc.collect()
    assert sum(ref() is not None for ref in gone) == 1


def where(x: torch.Tensor) -> int:
    "Its address; 0 of a tensor that holds nothing of its own, such as another test's sparse one."
    try:
        return x.data_ptr()
    except RuntimeError:
        return 0


def held() -> dict[str, int]:
    "Widgets, their channels and the bytes of tensors that live, blocks of Python's and the memory of all."
    gc.collect()
    tensors = {where(x): x.nbytes for x in gc.get_objects() if type(x) is torch.Tensor and where(x)}
    return dict(
        widgets=len(_instances),
        channels=len(get_comm_manager().comms),
        tensors=sum(tensors.values()),
        blocks=sys.getallocatedblocks(),
        resident=psutil.Process().memory_info().rss,
    )


@pytest.mark.slow
def test_fifty_runs_of_a_cell_that_shows_it_leave_neither_observers_nor_memory(g, monkeypatch):
    def run(k: int):
        monkeypatch.setattr(live, '_cell', lambda: ('a', k))
        inspector = Inspector(g)
        inspector._repr_mimebundle_()
        inspector.page().asked = inspector.asked | {'tau': 0.9, 'turn': f'a {k}'}
        return weakref.ref(inspector.page())

    for k in range(5):  # what is made once is made
        run(k)
    before = held()
    pages = [run(k) for k in range(5, 55)]
    grown = {name: n - before[name] for name, n in held().items()}
    assert max(grown['widgets'], grown['channels'], grown['tensors']) <= 0, grown  # others may end
    assert [page().comm is not None for page in pages if page() is not None] == [True]
    assert grown['blocks'] < 50 * 100 and grown['resident'] < 50 * 2e6, grown


def test_an_error_is_told_and_the_last_answer_stays(inspector):
    page = inspector.page()
    before = page.pixels
    page.asked = inspector.asked | {'sampler': 'uniform', 'show': 'kept', 'turn': 7}
    assert page.told['error'].startswith('ValueError: the sampler uniform keeps no bins')
    assert page.told['turn'] == 7 and page.pixels == before
    page.asked = inspector.asked | {'show': 'depth', 'turn': 8}
    assert page.told['error'] == '' and page.told['turn'] == 8 and page.pixels != before


def test_an_interrupted_answer_is_told(inspector, monkeypatch):
    def interrupted(asked):
        raise KeyboardInterrupt

    page = inspector.page()
    monkeypatch.setattr(inspector, 'answer', interrupted)
    with pytest.raises(KeyboardInterrupt):
        page.asked = inspector.asked | {'yaw': 0.4, 'turn': 'a 1'}
    assert page.told['turn'] == 'a 1' and page.told['error'].startswith('KeyboardInterrupt')


def test_a_cell_that_runs_again_closes_what_it_showed_and_nothing_else(inspector, g, monkeypatch):
    run = [1]
    monkeypatch.setattr(live, '_cell', lambda: ('a', run[0]))
    other = Inspector(g)
    for shown in (inspector, other):
        shown._repr_mimebundle_()
    run[0] = 2
    for _ in range(2):  # made elsewhere, and shown again
        page = inspector.page()
        data, _ = inspector._repr_mimebundle_()
        assert inspector.page() is page and page.comm is not None
        assert 'application/vnd.jupyter.widget-view+json' in data
        assert data['text/plain'] == 'Inspector'  # the same in every run
        run[0] += 1
    assert other._page is None
    inspector.close()
    assert inspector.page().comm is not None  # another one


def test_where_no_cell_is_known_a_display_stays(g, monkeypatch):
    monkeypatch.setattr(live, '_cell', lambda: ('', 0))
    page = weakref.ref(shown_and_let_go(g))
    gc.collect()
    assert page().comm is not None


def shown_and_let_go(g):
    inspector = Inspector(g)
    inspector._repr_mimebundle_()
    return inspector.page()


def test_a_preview_becomes_whole_before_it_is_shown(g):
    inspector = Inspector(g, moving=1)
    assert inspector.png()[:4] == b'\x89PNG'
    assert inspector.asked['moving'] == 0 and 'ray' in inspector.told
    assert '"ray"' in Inspector(g, moving=1).html([{'yaw': 0.1}])


def test_strata_only_where_there_are_some(inspector):
    for sampler, strata in (
        ('robust', True),
        ('refined', True),
        ('unstratified', False),
        ('unfiltered', False),
    ):
        ray = inspector.ask(sampler=sampler, policy='paper')['ray']
        assert (ray['counts'] is not None) == strata
    assert all(ray['keep'])  # unfiltered
    told = inspector.ask(sampler='two_pass')
    assert set(told['spent']) == {'trace'}


OTHER = dict(proposal='sdf', policy='need', tau=0.7, samples=9, per_bin=4.5)


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_a_control_is_idle_exactly_where_it_changes_nothing(g, sampler):
    start = dict(sampler=sampler, tau=0.98, samples=16, per_bin=2, proposal='cnn', moving=1, show='samples')
    inspector = Inspector(g, **start)
    for policy in POLICIES:
        told = inspector.ask(**start, policy=policy)
        shown = inspector.frame.trace.rendering.rgb
        for name, value in OTHER.items():
            inspector.ask(**start | {'policy': policy} | {name: 'empty' if value == policy else value})
            same = torch.equal(inspector.frame.trace.rendering.rgb, shown)
            assert same == (name in told['idle']), (policy, name)


def test_given_planes_leave_no_person_to_choose(g):
    planes = torch.zeros(1, 3, g.run.backbone.plane_channels, 32, 32)
    idle = Inspector(g, planes, moving=1).told['idle']
    assert {'seed', 'trunc', 'other', 'blend', 'coarse'} <= idle.keys()
    assert 'yaw' not in idle and idle['seed'] == 'planes were given'


def test_a_page_of_its_own_is_whole(inspector):
    assert 'Recorded states: 26.' in inspector.html()  # a grid of pixels
    page = inspector.html([{'x': 0.4}, {'x': 0.6}])
    data = page.split('id="known">')[1].split('</script>')[0]
    recorded = json.loads(data)
    assert len(recorded['answers']) == 3 and len(recorded['pictures']) == 1
    assert 'import ' not in page.split('<script type="module">')[1]


def test_a_pixel_beside_the_picture(g, inspector):
    frame = inspector.frame
    parts: RayParts = take_apart(g, frame.planes, frame.camera, frame.trace, (63, 0))
    assert parts.pixel == (63, 0)
    with pytest.raises(ValueError, match='64 x 64 pixels, there is no'):
        take_apart(g, frame.planes, frame.camera, frame.trace, (-1, 3))


def test_who_has_no_distances_is_named():
    with pytest.raises(ValueError, match='rays of a Generator with distances, got Linear'):
        Inspector(torch.nn.Linear(1, 1))


def test_other_planes_and_a_true_shape(g):
    from wysiwyg.inversion import true_heads

    planes = torch.zeros(1, 3, g.run.backbone.plane_channels, 32, 32)
    config = replace(g.run.heads, seed=1000)

    def truth(camera, side):
        return true_heads([0], camera, replace(config, resolution=side), g.run.render.far)

    told = Inspector(g, planes, truth, yaw=0.0, x=0.01, y=0.01).told
    assert told['ray']['posed'] is None  # beside the head

    def ball(camera, side):
        everywhere = true_heads([0], camera, replace(config, resolution=side), g.run.render.far)
        return replace(everywhere, opacity=torch.ones_like(everywhere.opacity))

    beside = Inspector(g, None, ball, yaw=0.0, x=0.01, y=0.01)
    posed = beside.told['ray']['posed']
    assert posed['angle'] is None and posed['facing'][0] is None  # nothing of the generator's was met
    assert beside.png()[:4] == b'\x89PNG'


def test_normals_face_the_camera_as_their_cosine_says(g):
    def tilted(camera, side):
        out = g.dense(beside.frame.planes, camera, side)
        towards = -camera_rays(camera, side).dirs
        across = torch.linalg.cross(towards, torch.tensor([0.0, 1, 0]).expand_as(towards))
        across = across / across.norm(dim=-1, keepdim=True)
        return replace(out, normal=0.8 * towards + 0.6 * across)

    beside = Inspector(g, yaw=0.0, x=0.5, y=0.55)
    told = Inspector(g, beside.frame.planes, tilted, yaw=0.0, x=0.5, y=0.55)
    ray, frame, (row, column) = told.told['ray'], told.frame, told.frame.pixel
    n, posed = row * frame.side + column, ray['posed']
    direction = camera_rays(frame.camera, frame.side).dirs[0, n]
    own = -(frame.seen.normal[0, n] @ direction).item()
    assert posed['facing'] == pytest.approx([own, 0.8], abs=1e-5)
    light = told.figure().subfigs[1].axes[2]
    ticks = [line.get_data() for line in light.lines if line.get_marker() == '_']
    assert [y for _, (y,) in ticks] == pytest.approx([0.8, own], abs=1e-5)
    assert [x for (x,), _ in ticks] == pytest.approx([posed['depth'], ray['samples']['depth']])


def test_a_run_is_a_folder_or_what_mlflow_knows_of_it(g, tmp_path, monkeypatch):
    monkeypatch.setenv('WYSIWYG_RUNS', str(tmp_path))
    unknown = '0' * 32
    with pytest.raises(ValueError, match=f'has no run {unknown}'):
        Inspector(run=unknown)
    assert not store_exists()  # it was not made to be asked
    for images in (0, 40):
        save_generator(g, tmp_path / f'one/moments/moment-{images}.safetensors', images=str(images))
    with Recorder('train', 'tiny', outdir=str(tmp_path / 'one')) as known, Recorder('train', 'other') as bare:
        pass
    moments = Inspector(run=tmp_path / 'one').moments
    assert [*moments] == ['0', '40']
    for run in (known.id, run_link(known.id), f'http://localhost:5000/#/experiments/1/runs/{known.id}'):
        assert Inspector(run=run).moments == moments
    with pytest.raises(ValueError, match=f'run {bare.id} has no tag wysiwyg.outdir'):
        Inspector(run=bare.id)
    with pytest.raises(ValueError, match=f'has no run {unknown}'):
        Inspector(run=f'http://localhost:5000/#/experiments/1/runs/{unknown}')
    (tmp_path / 'one').rename(tmp_path / 'elsewhere')
    with pytest.raises(ValueError, match='was written to .*one, which is not here'):
        Inspector(run=known.id)


@given(
    st.dictionaries(
        st.sampled_from(['tau', 'seed', 'show', 'fog']), st.one_of(st.floats(), st.text(max_size=3))
    )
)
@settings(max_examples=60, deadline=None)
def test_what_is_asked_is_refused_or_in_range(offered, asked):
    try:
        values = checked(offered, asked)
    except ValueError as e:
        assert any(name in str(e) for name in asked)
        return
    assert values.keys() == {s.name for s in offered}
    assert 0.5 <= values['tau'] <= 1 and values['seed'] == int(values['seed'])


def test_numbers_for_a_page_are_json():
    assert (
        json.dumps(rounded([np.inf, np.nan, 1e-9, 123456]), allow_nan=False)
        == '[null, null, 1e-09, 123500.0]'
    )
