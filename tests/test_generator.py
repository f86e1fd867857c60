"The generator's promises: finite on empty and full rays, rows independent, work counted."

import copy, json, math, os, tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from wysiwyg.camera import camera_rays, orbit
from wysiwyg.config import override, tiny
from wysiwyg.core import Answer, Rays, data_dir
from wysiwyg.generator import load_generator, save_generator, save_tensors
from wysiwyg.kernels import Ops
from wysiwyg.method import WYSIWYG
from wysiwyg.probe import bins_march
from wysiwyg.renderer import Renderer, in_order, march_rays
from wysiwyg.samplers import secant_surface, two_pass
from wysiwyg.sdf import Field, _sphere, sphere_init
from wysiwyg.volrend import integrate

RUN = override(
    tiny(resolution=64),
    **{
        'backbone.channel_base': 256,
        'backbone.channel_max': 32,
        'backbone.plane_channels': 8,
        'proposal.width': 16,
    },
)
KINDS = ('robust', 'refined', 'unstratified', 'unfiltered', 'two_pass', 'uniform', 'root')


@pytest.fixture(scope='module')
def scene():
    torch.manual_seed(0)
    g = WYSIWYG.generator(RUN).eval().requires_grad_(False)
    camera = orbit(torch.tensor([0.0, 0.5, -0.4]), torch.tensor([0.0, 0.1, 0.2]))
    return g, g.synthesize(g.map(torch.randn(3, 64), camera)), camera


def started(**changes):
    "A field's first weights, its error, and the next number of everybody's generator."
    torch.manual_seed(1)
    field = Field(replace(RUN.field, **changes), 8)
    return list(field.parameters()), sphere_init(field, steps=20), torch.rand(1)


def test_the_remembered_sphere_is_the_fitted_one():
    _sphere.cache_clear()
    fitted, remembered, other = started(), started(), started(radius=0.2)
    assert _sphere.cache_info().hits == 1
    assert fitted[1:] == remembered[1:] and other[2] == fitted[2]
    for a, b in zip(fitted[0], remembered[0]):
        assert torch.equal(a, b) and a is not b
    with torch.no_grad():
        remembered[0][0].zero_()
    assert torch.equal(started()[0][0], fitted[0][0])  # what one does with its weights is nobody else's
    assert not torch.equal(other[0][2], fitted[0][2])


@pytest.mark.parametrize('kind', KINDS)
def test_row_zero_equals_the_row_alone(scene, kind):
    g, planes, camera = scene
    sampler = replace(RUN.sampler, kind=kind, jitter=False)
    if kind == 'unstratified':
        pytest.skip('independent draws differ with the shape of the batch')
    both = g.render(planes, camera, 64, sampler)
    alone = g.render(planes[:1], camera[:1], 64, sampler)
    differs = (both.rgb[:1] - alone.rgb).abs().amax(-1) > 1e-4
    # a convolution rounds otherwise in another batch, and a bin at the edge of the set may flip
    assert differs.float().mean() < (2e-3 if kind in ('robust', 'unfiltered') else 1e-9)


@pytest.mark.parametrize('kind', KINDS)
def test_work_is_counted_and_planes_are_not_remade(scene, kind):
    g, planes, camera = scene
    before = g.evaluations, g.syntheses
    g.render(planes, camera, 64, replace(RUN.sampler, kind=kind))
    per_ray = (g.evaluations - before[0]) / (3 * 64 * 64)
    probed = kind in ('robust', 'refined', 'unstratified', 'unfiltered')
    want = RUN.probe.samples / 16 + 17.6 if probed else 16
    assert g.syntheses == before[1]
    assert per_ray == pytest.approx(want, rel=0.01)


def test_proposals_share_an_interface(scene):
    g, planes, camera = scene
    for kind in ('cnn', 'maxpool', 'sdf', 'oracle'):
        pdf = g.propose(planes, camera, kind)[1]
        assert pdf.shape == (3, 48, 64, 64)
        assert torch.allclose(pdf.sum(1), torch.ones(3, 64, 64), atol=1e-4)
    with pytest.raises(ValueError, match='proposal must be'):
        g.propose(planes, camera, 'magic')


@pytest.mark.parametrize('level', [10.0, -10.0])
def test_empty_and_full_rays_are_finite(level):
    "A field that is all outside (+10) or all inside (-10), with gradients."
    value = torch.tensor(level, requires_grad=True)

    def field(p, d):
        n = p.shape[:-1]
        return Answer(torch.full_like(p, 0.5), sdf=value.expand(n), beta=torch.full(n, 0.01))

    rays = Rays(torch.zeros(1, 4, 3), torch.tensor([0.0, 0, 1]).expand(1, 4, 3))
    for m in (
        bins_march(field, rays, 2.2, 3.2, 49)[0],
        two_pass(field, rays, 2.2, 3.2, 8, 8, torch.rand(1, 4, 16)),
        secant_surface(field, rays, 2.2, 3.2, 8, 3, 4),
    ):
        out = integrate(m, 3.2, (0, 0, 0))
        out.rgb.sum().backward()
        for x in (out.rgb, out.depth, out.opacity, out.beta):
            assert x.isfinite().all()
        assert value.grad.isfinite()
        solid = torch.tensor(1.0 if level < 0 else 0.0)
        assert torch.allclose(out.opacity, solid, atol=1e-3)


def cloud(points, dirs):
    "A round cloud that answers with its density alone."
    sigma = 12 * torch.exp(-points.square().sum(-1) / 0.03)
    return Answer(torch.full_like(points, 0.5), sigma=sigma)


@pytest.mark.parametrize('impl', ['torch', 'auto'])
def test_a_field_of_plain_density_renders(scene, impl):
    g, planes, camera = scene
    g = g.using(field_at=lambda planes: cloud, ops=Ops(impl))
    with torch.no_grad():
        truth = g.dense(planes, camera, 16, 385)
        p, pdf = g.propose(planes, camera, 'oracle')
        # an oracle's targets leave out what is thin (Eq. 7), and what is drawn from them does
        apart = dict(robust=0.08, unfiltered=0.08, two_pass=0.01, uniform=0.01)
        for kind, most in apart.items():
            out = g.render(planes, camera, 16, replace(RUN.sampler, kind=kind, samples=48), proposed=(p, pdf))
            assert (out.opacity - truth.opacity).abs().mean() < most
            assert out.beta is None
        for kind, who in {'refined': 'a second look', 'root': 'the root finder'}.items():
            with pytest.raises(ValueError, match=f'{who} needs a field of signed distance'):
                g.render(planes, camera, 16, replace(RUN.sampler, kind=kind), proposed=(p, pdf))
        with pytest.raises(ValueError, match="proposal 'sdf' needs a field of signed distance"):
            g.propose(planes, camera, 'sdf')
    middle = truth.opacity[:, 16 * 8 + 8]  # the closed form, through the centre
    through = 12 * math.sqrt(0.03 * math.pi)
    assert torch.allclose(middle, torch.tensor(1 - math.exp(-through)), atol=0.02)


def test_the_sphere_of_the_start_is_where_it_should_be(scene):
    g, planes, camera = scene
    out = g.dense(planes[:1], camera[:1], 65, 193, normals=True)
    middle = 65 * 32 + 32
    assert out.depth[0, middle] == pytest.approx(2.7 - RUN.field.radius, abs=0.08)
    assert out.normal[0, middle] @ torch.tensor([0.0, 0, 1]) > 0.7


def test_a_proposal_that_is_nan_gives_no_picture(scene):
    g, planes, camera = scene
    p, pdf = g.propose(planes, camera)
    for kind in ('robust', 'refined', 'unstratified', 'unfiltered'):
        rgb = g.render(planes, camera, 16, replace(RUN.sampler, kind=kind), proposed=(p, pdf * math.nan)).rgb
        assert rgb.isnan().all()


def test_weights_that_are_not_finite_are_refused_by_name(scene, tmp_path):
    g = copy.deepcopy(scene[0])
    g.field.sdf1.weight.data[0, 1] = math.inf
    save_generator(g, tmp_path / 'burnt.safetensors')
    with pytest.raises(
        ValueError, match='burnt.safetensors is not finite in 1 of its tensors, such as field.sdf1'
    ):
        load_generator(tmp_path / 'burnt.safetensors')


def test_weights_too_large_for_float32_are_refused(scene, tmp_path):
    "Finite as float64 in the file, infinite in the generator."
    save_generator(copy.deepcopy(scene[0]).double(), tmp_path / 'wide.safetensors')
    wide = load_file(tmp_path / 'wide.safetensors')
    with safe_open(tmp_path / 'wide.safetensors', 'pt') as f:
        meta = f.metadata()
    name = next(k for k in wide if k.startswith('field.sdf1'))
    wide[name] = torch.full_like(wide[name], 1e300)
    save_tensors(wide, tmp_path / 'wide.safetensors', meta)
    with pytest.raises(ValueError, match='wide.safetensors is not finite in 1 of its tensors'):
        load_generator(tmp_path / 'wide.safetensors')


def written(path: Path, header: dict, data: bytes = b'') -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, 'little') + text + data)
    return path


def saved(g) -> tuple[dict, bytes]:
    "Header and data of a generator's file."
    with tempfile.TemporaryDirectory() as d:
        save_generator(g, f'{d}/g.safetensors')
        all_of_it = Path(f'{d}/g.safetensors').read_bytes()
    end = 8 + int.from_bytes(all_of_it[:8], 'little')
    return json.loads(all_of_it[8:end]), all_of_it[end:]


def with_run(h, **changes):
    run = json.loads(h['__metadata__']['run'])
    for key, value in changes.items():
        run[key.split('__')[0]][key.split('__')[1]] = value
    h['__metadata__']['run'] = json.dumps(run)


def overlapping(h):
    h['field.sdf1.weight']['data_offsets'] = h['field.sdf0.bias']['data_offsets']


def resized(h):
    h['field.sdf1.weight']['shape'] = h['field.sdf1.weight']['shape'][::-1] + [1]


HOSTILE = {
    'its configuration is \\[\\]': lambda h: h['__metadata__'].update(run='[]'),
    'its configuration is null': lambda h: h['__metadata__'].update(run='null'),
    'RecursionError': lambda h: h['__metadata__'].update(run='[' * 100_000),
    'unknown config key magic': lambda h: h['__metadata__'].update(run='{"magic": 1}'),
    'holds no configuration': lambda h: h.pop('__metadata__'),
    'its notes are no strings': lambda h: h['__metadata__'].update(run=3),
    'field.sdf1.weight is missing': lambda h: h.update({'z.other': h.pop('field.sdf1.weight')}),
    'is no dictionary': lambda h: [1],
    '^x.safetensors holds no generator: field.sdf1.weight is I32: .* floating point, one': lambda h: h[
        'field.sdf1.weight'
    ].update(dtype='I32'),
    'overlap or leave gaps|bytes for': overlapping,
    'field.sdf1.weight is .*its configuration says': resized,
    'KeyError': lambda h: h['field.sdf1.weight'].__delitem__('shape'),
    'render.near': lambda h: with_run(h, render__near=3.2, render__far=2.2),
    'TypeError|must be': lambda h: with_run(h, render__near=[]),
    'its configuration says|is outside': lambda h: with_run(h, proposal__width=10**6),
    'more layers|is outside': lambda h: with_run(h, backbone__mapping_layers=10**9),
    'a header of|not a safetensors': lambda h: b'',
    'view = ': lambda h: h['__metadata__'].update(view='{}'),
}


@pytest.mark.parametrize('says', HOSTILE)
def test_files_that_are_no_generators_are_told_in_a_line(scene, tmp_path, says):
    "Before anything of the size that they claim is made."
    header, data = saved(scene[0])
    other = HOSTILE[says](header)
    path = written(tmp_path / 'x.safetensors', other if isinstance(other, list) else header, data)
    if other == b'':
        path.write_bytes(b'')
    with pytest.raises(ValueError, match=says) as told:
        load_generator(path)
    assert str(told.value).startswith('x.safetensors')
    assert '\n' not in str(told.value)


def test_other_parts_leave_the_generator_as_it_is(scene):
    g, planes, camera = scene
    few = override(RUN, **{'sampler.samples': 2, 'sampler.jitter': False})
    other, again = g.using(run=few), g.using(run=RUN)
    assert (other.run, other.renderer) == (few, Renderer.of(few))
    assert (g.run, g.renderer) == (RUN, Renderer.of(RUN))
    assert all(a is b for a, b in zip(g.parameters(), other.parameters()))
    before = g.evaluations
    few_samples, all_samples = other.render(planes, camera, 16), again.render(planes, camera, 16)
    assert not torch.equal(few_samples.rgb, all_samples.rgb)
    assert torch.equal(all_samples.rgb, g.using().render(planes, camera, 16).rgb)
    assert g.evaluations == before
    twin = g.using(field=copy.deepcopy(g.field))
    assert twin.field is not g.field
    with pytest.raises(ValueError, match="no part 'lens'; it has run, renderer, view, field_at, mapping"):
        g.using(lens=1)
    other.run = RUN
    assert other.renderer == g.renderer


def test_operations_are_the_renderers_and_the_fields(scene):
    g, torch_ops = scene[0], Ops('torch')
    by_renderer = g.using(renderer=replace(g.renderer, ops=torch_ops))
    by_word, by_field = g.using(ops='torch'), g.using(ops=torch_ops).using(field=copy.deepcopy(g.field))
    for other in (by_renderer, by_word, by_field):
        assert other.ops == torch_ops
        assert other.field.look_up.__self__ == torch_ops
    assert g.field.look_up.__self__ == g.ops
    for nonsense in ('fast', None):
        with pytest.raises(ValueError, match='impl must be one of'):
            g.using(ops=nonsense)


def test_rays_and_their_pdf_belong_together(scene):
    g, planes, camera = scene
    rays, field = camera_rays(camera, 8), g.field_at(planes)
    pdf = torch.full((3, 64, 15), 1 / 15)
    for wrong in (pdf[:, :9], pdf[:2]):
        with pytest.raises(ValueError, match='pdf must have shape'):
            march_rays(g.renderer, field, rays, RUN.sampler, 0, wrong)
    with pytest.raises(ValueError, match="the sampler 'robust' needs a pdf"):
        march_rays(g.renderer, field, rays, replace(RUN.sampler, kind='robust'), 0)
    pdf[0, 3, 7] = math.nan
    seen = in_order(march_rays(g.renderer, field, rays, RUN.sampler, 0, pdf), rays)
    assert seen.rgb[0, 3].isnan().all()
    assert seen.rgb[1:].isfinite().all()


@pytest.mark.parametrize(
    'convert', [lambda g: g.half(), lambda g: g.bfloat16(), lambda g: g.to(torch.float16)]
)
def test_a_type_too_coarse_is_refused_before_anything_changes(scene, convert):
    g = copy.deepcopy(scene[0])
    with pytest.raises(ValueError, match='a generator cannot be b?float16.*keep float32.*torch.autocast'):
        convert(g)
    assert {p.dtype for p in g.parameters()} == {torch.float32}
    assert {p.dtype for p in g.double().to('cpu').share_memory().parameters()} == {torch.float64}


def test_the_way_out_of_half_is_autocast(scene):
    g, _, camera = scene
    z = torch.randn(3, 64)
    with torch.autocast('cpu', torch.bfloat16):
        planes = g.synthesize(g.map(z, camera))
    assert g.render(planes, camera, 16).rgb.isfinite().all()


def test_the_same_generator_has_the_same_bytes(scene, tmp_path):
    notes = dict(images='1', data='2', a='3', z='4')
    for i in range(2):
        save_generator(
            scene[0], tmp_path / f'{i}.safetensors', **dict(sorted(notes.items(), reverse=bool(i)))
        )
    assert (tmp_path / '0.safetensors').read_bytes() == (tmp_path / '1.safetensors').read_bytes()
    with safe_open(tmp_path / '0.safetensors', 'pt') as f:
        assert f.metadata()['images'] == '1'
        assert torch.equal(f.get_tensor('field.sdf1.weight'), scene[0].field.sdf1.weight)
    mask = os.umask(0o22)
    os.umask(mask)
    assert (tmp_path / '0.safetensors').stat().st_mode & 0o777 == 0o666 & ~mask
    save_tensors(
        {'x': torch.ones(2, dtype=torch.bfloat16), 'y': torch.arange(3.0)}, tmp_path / 'mixed.safetensors', {}
    )
    assert load_file(tmp_path / 'mixed.safetensors')['x'].tolist() == [1, 1]


@pytest.mark.parametrize('kind', KINDS)
def test_no_more_points_at_once_than_allowed(scene, kind, monkeypatch):
    g = copy.deepcopy(scene[0])
    run = override(RUN, **{'render.max_points': 10_000, 'sampler.kind': kind})
    g = g.using(renderer=Renderer.of(run), ops=Ops('torch'))
    asked, geometry = [], g.field.geometry

    def counting(planes, x):
        asked.append(x.shape[:2].numel())
        return geometry(planes, x)

    monkeypatch.setattr(g.field, 'geometry', counting)
    with torch.no_grad():
        out = g.render(scene[1], scene[2], 64, normals=True)
        g.dense(scene[1][:1], scene[2][:1], 32, 192, normals=True)
        g.two_pass(scene[1][:1], scene[2][:1], 24, 24, 64)
        g.propose(scene[1], scene[2], 'maxpool', 128)
    assert max(asked) <= 10_000
    assert out.normal.norm(dim=-1).amax() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_nobody_and_hardly_any_samples(scene, kind):
    g, nobody = scene[0], torch.zeros(0)
    sampler = replace(RUN.sampler, kind=kind)
    with pytest.raises(ValueError, match='planes are an empty batch'):
        g(torch.zeros(0, 64), orbit(nobody, nobody), resolution=16, sampler=sampler)
    few = [replace(sampler, samples=n) for n in range(1, 5)]
    for config in few[3:] if kind in ('two_pass', 'root') else few:
        assert g.render(scene[1], scene[2], 8, config).rgb.isfinite().all()
    if kind in ('two_pass', 'root'):
        for config in few[:3]:
            with pytest.raises(ValueError, match='needs at least 2 coarse samples'):
                g.render(scene[1], scene[2], 8, config)


def test_normals_of_a_single_ray_are_refused(scene):
    with pytest.raises(ValueError, match='normals need two rays at least'):
        scene[0].render(scene[1], scene[2], 1, normals=True)


def test_a_generator_carries_its_view(scene, tmp_path):
    "Distance and focal length of its pictures: the heads', or those of its data, also after a file."
    g = copy.deepcopy(scene[0])
    assert g.view == (2.7, 4.2647)
    assert torch.equal(g.orbit(0.3, 0.1).label, orbit(0.3, 0.1).label)
    g.view = 1.35, 2.13
    save_generator(g, tmp_path / 'near.safetensors')
    again = load_generator(tmp_path / 'near.safetensors', torch.device('cpu'))
    camera = again.orbit(torch.tensor([0.3, 0.0]), torch.zeros(2))
    assert again.view == (1.35, 2.13)
    assert torch.allclose(camera.cam2world[:, :3, 3].norm(dim=1), torch.tensor(1.35))
    assert torch.equal(camera.intrinsics[:, 0, 0], torch.full((2,), 2.13))
    without = load_generator(data_dir() / 'heads64', torch.device('cpu'))
    assert without.view == (2.7, 4.2647)
    save_generator(g, tmp_path / 'bad.safetensors', view='[0, 1]')
    with pytest.raises(ValueError, match=r'bad.safetensors: view = \[0, 1\] must be'):
        load_generator(tmp_path / 'bad.safetensors')


@pytest.mark.parametrize('kind', KINDS)
def test_a_nan_in_the_field_stays_one_and_ends_nothing(kind):
    "Distances that are NaN make places that are NaN: nothing is read there, and picture and gradient say so."
    g = WYSIWYG.generator(override(RUN, **{'sampler.kind': kind}), start=False)
    g.field.sdf1.weight.data[0, 1] = math.nan
    z, camera = torch.randn(2, 64), orbit(torch.tensor([0.0, 0.5]), torch.zeros(2))
    for rgb in (
        g(z, camera, resolution=16).rgb,
        g.two_pass(g.synthesize(g.map(z, camera)), camera, 8, 8, 16).rgb,
    ):
        assert rgb.isnan().all()
        rgb.sum().backward()
    assert g.field.sdf0.weight.grad.isnan().any()
