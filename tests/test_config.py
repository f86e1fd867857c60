"One validator: each value out of range and each contradiction in one line; what is right is not refused."

import json
import re
from dataclasses import replace

import pytest

from wysiwyg.config import (
    LATER,
    MOST_FAULTS,
    PRESETS,
    RANGES,
    Run,
    Schedule,
    cats,
    check,
    final_stage,
    flat,
    from_dict,
    heads64,
    identity,
    override,
    paper,
    preset,
    scaled,
    sha,
    small,
    tiny,
    to_dict,
)
from wysiwyg.core import data_dir

NAN, INF = float('nan'), float('inf')
OWN = {'data.path': 'own.zip'}


def shipped() -> Run:
    "The configuration in the header of the shipped generator."
    with open(data_dir() / 'generator.safetensors', 'rb') as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), 'little')))
    return from_dict(Run, json.loads(header['__metadata__']['run']))


def faults(run: Run, **how) -> list[str]:
    try:
        check(run, **how)
    except ValueError as e:
        return str(e).splitlines()
    return []


# ---- what is right passes ------------------------------------------------------------------------


@pytest.mark.parametrize('name', PRESETS)
def test_presets_pass(name):
    assert check(preset(name, **OWN)) == preset(name, **OWN)
    assert check(preset(name), heads=False) == preset(name)


@pytest.mark.parametrize(
    'run',
    [
        tiny(8.0),
        tiny(100.0),
        tiny(500.0),
        tiny(0.5),
        tiny(resolution=64),
        heads64(8.0),
        heads64(1e6),
        small(total=100.0),
        small(256),
        shipped(),
        *map(preset, ('tiny', 'heads64', 'small')),
    ],
)
def test_presets_of_any_length_pass(run):
    assert check(run) is run


@pytest.mark.parametrize('make', [paper, cats])
def test_presets_of_photographs_need_them(make):
    (said,) = faults(make())
    assert said == (
        'heads.resolution = 64, resolution = 512: such heads cannot be averaged down to 512 pixels; '
        'give --data YOUR_SET, or --heads.resolution 512'
    )
    assert not faults(replace(make(), schedule=scaled(make().schedule, 2000.0)), heads=False)


SHORT = replace(shipped(), schedule=final_stage(shipped().schedule, 160.0))
DRAWN = 1e12  # no proposal is ever learned
ARMS = [
    {'heads.n': 200},
    {'sampler.kind': 'two_pass', 'sampler.samples': 21},
    {'sampler.kind': 'unstratified'},
    {'sampler.kind': 'unfiltered'},
    {'loss.surface': 0.0},
    {'loss.surface': 10000.0},
    {'loss.hinge': 1.0},
    {'loss.decision': 0.05},
    {'sampler.kind': 'two_pass', 'sampler.samples': 96, 'schedule.supervise_from': DRAWN},
    {'sampler.kind': 'uniform', 'sampler.samples': 192, 'schedule.supervise_from': DRAWN},
    {'train.batch': 1, 'discriminator.group': 1},
    {'train.batch': 4, 'train.field_lr': 0.002},
    {'heads.gloss': 5.0},
    {'heads.gloss': 0.0, 'heads.light_spread': 2.5},
    {'sampler.kind': 'root', 'sampler.samples': 8},
    {'proposal.kind': 'sdf'},
    {'probe.kind': 'coarse_to_fine', 'probe.stride': 1, 'probe.slope': 1.0},
    {'sampler.kind': 'refined', 'sampler.first': 0.875, 'sampler.jitter': False},
    {'sampler.tau': 1.0},
    {'sampler.boost': 1},
    {'sampler.boost_fraction': 0.0},
    {'sampler.top': 1},
    {'sampler.policy': 'empty', 'sampler.empty': 1},
    {'sampler.policy': 'need', 'sampler.empty': 0},
    {'sampler.policy': 'need', 'sampler.least': 1, 'sampler.most': 1, 'sampler.per_bin': 0.5},
    {'proposal.kernel': 1},
    {'proposal.blur': 0.0},
    {'augment.cutout': 0.5},
]
LARGEST_SEED = 2**32 - 1
UNUSUAL = [
    {'field.pos_freqs': 0},
    {'field.dir_freqs': 0},
    {'field.sharpness': INF},
    {'train.ema_ramp': INF},
    {'train.g_lr': 0.0},
    {'schedule.render_from': INF},
    {'schedule.supervise_from': INF, 'schedule.render_from': INF},
    {'train.batch': 2},
    {'train.snapshot_images': INF},
    {'backbone.label_dim': 0},
    {'field.beta_min': 0.03},
    {'train.micro_batch': 2},
    {'render.near': 0.0},
    {'train.seed': LARGEST_SEED},
    {'augment.target': -1.0},
    {'heads.cameras': 'sphere'},
]


@pytest.mark.parametrize('change', ARMS + UNUSUAL, ids=str)
def test_arms_and_unusual_runs_pass(change):
    assert not faults(override(SHORT, **change))


# ---- what is wrong is named ----------------------------------------------------------------------

TOO_LONG = 'x' * 101
BAD = {
    'render.box': (0.0, -1.0, INF, NAN),
    'render.coarse': (0, 1, -1),
    'render.fine': (-1,),
    'render.near': (4.0, 3.2, -1.0, INF, NAN),
    'render.far': (2.2, 0.0, INF, NAN, -3.0),
    'render.background': ([NAN, 0, 0], [2, 0, 0], [-0.1, 0, 0], [INF, 0, 0]),
    'render.max_points': (0, -1),
    'render.grad_points': (-1,),
    'probe.samples': (0, 1, -3),
    'probe.resolution': (0, 16, -8),
    'probe.stride': (0, -8),
    'probe.slope': (0.0, 0.9, -1.0, NAN, INF),
    'proposal.width': (0, -1),
    'proposal.kernel': (0, 2, 4, -1),
    'proposal.patch': (0, 33, 64, -1),
    'proposal.blur': (-1.0, NAN, INF),
    'proposal.layers': ([0, 1, 1], [1, -1, 1]),
    'proposal.suppress': (-0.1, 1.0, NAN),
    'sampler.tau': (0.0, -0.1, 1.1, 2.0, NAN, INF, 1e-46),
    'sampler.samples': (0, -3),
    'sampler.boost': (0, -1),
    'sampler.boost_fraction': (-0.5, 1.5, 3.0, NAN),
    'sampler.top': (0, -1),
    'sampler.first': (-1.0, 0.0, 1.5, NAN),
    'sampler.per_bin': (0.0, -1.0, NAN, INF),
    'sampler.least': (0, -2, 33),
    'sampler.most': (0, 3),
    'sampler.empty': (-1, -2),
    'field.hidden': (0,),
    'field.geo_features': (0,),
    'field.color_hidden': (0, -1),
    'field.pos_freqs': (-1, 99),
    'field.dir_freqs': (-1, 99),
    'field.sharpness': (0.0, -1.0, NAN),
    'field.radius': (0.0, 0.6, NAN),
    'field.plane_init': (-0.1, NAN, INF),
    'field.beta_init': (0.0, -0.1, NAN, INF),
    'field.beta_min': (0.0, 1.0, NAN),
    'backbone.z_dim': (0,),
    'backbone.w_dim': (0,),
    'backbone.mapping_layers': (0, -1),
    'backbone.label_dim': (24, -1, 26, 1),
    'backbone.channel_base': (0, 16),
    'backbone.channel_max': (0,),
    'backbone.backbone_resolution': (2, 24, 0, 64),
    'backbone.plane_channels': (0,),
    'backbone.plane_hidden': (0,),
    'backbone.plane_resolution': (32, 0),
    'discriminator.map_dim': (0,),
    'discriminator.group': (0, -1, 3),
    'discriminator.channel_base': (0, 16),
    'discriminator.channel_max': (0,),
    'discriminator.distill': (-0.1, NAN, INF),
    'augment.p': (-0.1, 1.1, NAN),
    'augment.target': (5.0, -2.0, NAN),
    'augment.every': (0,),
    'augment.speed_images': (0.0, -1.0, NAN),
    'augment.most': (1.5, NAN),
    'augment.blit': (-1, 32),
    'augment.hue': (2.0,),
    'augment.zoom': (-1.0, INF),
    'augment.translate': (NAN,),
    'augment.brightness': (-1.0,),
    'augment.contrast': (-1.0,),
    'augment.saturation': (-1.0,),
    'augment.cutout': (2.0,),
    'loss.sampler': (-1.0, INF, NAN, 1e308),
    'loss.surface': (-1.0, INF, NAN),
    'loss.decision': (-0.1, NAN),
    'loss.hinge': (-0.1, INF),
    'loss.smooth': (-0.1, NAN),
    'train.seed': (-1, 100_000_000_000_000_000_000),
    'train.batch': (0, -2, -3, 7),
    'train.micro_batch': (-1, 3),
    'train.g_lr': (NAN, -1.0, INF),
    'train.d_lr': (NAN, -1.0),
    'train.field_lr': (NAN, -1.0),
    'train.proposal_lr': (NAN, -1.0),
    'train.r1_every': (0, -1),
    'train.ema_images': (-1.0, NAN),
    'train.ema_ramp': (-1.0, NAN),
    'train.checkpoint_images': (0.0, -1.0, NAN),
    'train.snapshot_images': (0.0, -1.0, NAN),
    'train.keep': (0, -1),
    'train.moments': (-1,),
    'train.nan_patience': (0, -1),
    'schedule.total': (0.0, -100.0, INF, NAN),
    'schedule.swap': ([[0, 2.0]], [[0, -1]]),
    'schedule.resolution': (
        [[0, 0]],
        [[0, -16], [5, 32]],
        [[0, NAN]],
        [[0, INF]],
        [[0, 24]],
        [[0, 1_000_000]],
    ),
    'schedule.beta_target': ([[0, 0.0]], [[0, NAN]], [[0, 0.01], [9, -1]]),
    'schedule.gamma': ([[0, -1]], [[0, NAN]], [[0, INF]]),
    'schedule.color_lr': ([[0, -1]], [[0, NAN]]),
    'schedule.g_lr': ([[0, -1]], [[0, INF]]),
    'schedule.render_from': (1000.0, -1.0, NAN),
    'schedule.supervise_from': (9000.0, -1.0, NAN),
    'heads.n': (0, -1),
    'heads.resolution': (0, 48, 2, 16, 8192),
    'heads.seed': (-1, 1_099_511_627_776),
    'heads.radius': (0.0, 0.5, 1.35, 100.0, NAN),
    'heads.focal': (0.0, 1e-6, 1105.0, NAN),
    'heads.yaw_std': (-1.0, NAN, INF),
    'heads.pitch_std': (-1.0, NAN),
    'heads.gloss': (-1.0, NAN),
    'heads.light_spread': (-1.0, INF),
    'heads.background': ([2, 0, 0],),
    'heads.supersample': (0, 100),
    'heads.workers': (-1,),
    'name': ('', '../x', 'a/b', '<b>', TOO_LONG),
}


@pytest.mark.parametrize('name, value', [(name, value) for name, values in BAD.items() for value in values])
def test_a_wrong_value_is_one_line_with_name_value_reason_and_mend(name, value):
    run = override(tiny(), **{name: value})
    said = faults(run)
    assert said
    for line in said:
        assert re.fullmatch(r'.+ = .+: .+; .+', line), line
    names = (name, 'resolution = ') if name == 'schedule.resolution' else (name,)
    assert any(word in line for line in said for word in names), said


@pytest.mark.parametrize('kind', ['two_pass', 'root'])
@pytest.mark.parametrize('samples', [1, 2, 3])
def test_samplers_of_two_looks_need_four_samples(kind, samples):
    (said,) = faults(override(tiny(), **{'sampler.kind': kind, 'sampler.samples': samples}))
    assert said == (
        f'sampler.samples = {samples}, sampler.kind = {kind}: '
        'it needs two for the first look and two for the second; give 4 or more'
    )


@pytest.mark.parametrize(
    'change, text',
    [
        (
            {'sampler.tau': 2.0},
            'sampler.tau = 2 is outside (0, 1]: it is the mass of the smallest set of bins; give .98',
        ),
        (
            {'render.near': 4.0},
            'render.near = 4, render.far = 3.2: samples lie between them; give a near below far',
        ),
        (
            {'proposal.patch': 64},
            'proposal.patch = 64, resolution = 32: the patch lies in the picture; give at most 32',
        ),
        (
            {'train.batch': 7},
            'train.batch = 7, discriminator.group = 4: statistics compare whole groups; '
            'make the batch a multiple of 4',
        ),
        (
            {'train.batch': 0, 'discriminator.group': 1},
            'train.batch = 0 is outside [1, inf): a step needs images; give 8',
        ),
        (
            {'heads.radius': 1.35},
            'heads.radius = 1.35, render.near = 2.2, render.far = 3.2: the middle of the box lies outside '
            'near and far; give --render.near 0.85 --render.far 1.85',
        ),
        (
            {'probe.resolution': 16},
            'probe.resolution = 16, resolution = 32: a proposal has four times the side of the probe; '
            'give probe.resolution 8',
        ),
    ],
)
def test_the_words(change, text):
    assert faults(override(tiny(), **change)) == [text]


def test_all_faults_come_at_once_and_at_most_ten():
    four = {'sampler.tau': 2.0, 'loss.surface': NAN, 'proposal.patch': 64, 'train.batch': 7}
    said = faults(override(tiny(), **four))
    assert [line.split()[0] for line in said] == list(four)
    wrong = {name: values[0] for name, values in BAD.items() if name.startswith(('train', 'loss'))}
    many = faults(override(tiny(), **wrong))
    assert len(many) == MOST_FAULTS + 1
    assert re.fullmatch(r'and \d+ more', many[-1])


def test_the_heads_are_judged_only_where_they_are_rendered():
    near = {'heads.radius': 1.35, 'heads.focal': 2.13}
    assert faults(override(tiny(), **near))
    assert not faults(override(tiny(), **near | OWN))
    assert not faults(override(tiny(), **near), heads=False)
    assert not faults(override(tiny(), **near | {'render.near': 0.85, 'render.far': 1.85}))


def test_every_number_has_a_range():

    def is_number(v):
        return isinstance(v, (int, float, list)) and not isinstance(v, bool)

    numbers = [name for name, v in flat(Run()).items() if is_number(v)]
    assert [row.split()[0] for row in RANGES.strip().splitlines()] == numbers


# ---- what cannot even be made --------------------------------------------------------------------


@pytest.mark.parametrize(
    'make, text',
    [
        (lambda: tiny(-1000.0), 'a run of -1000 images cannot be: give a number above 0, such as --kimg 10'),
        (lambda: small(total=0.0), 'a run of 0 images cannot be'),
        (lambda: heads64(NAN), 'a run of nan images cannot be'),
        (lambda: scaled(paper().schedule, -5.0), 'a run of -5 images cannot be'),
        (lambda: tiny(INF), 'a run of inf images'),
        (lambda: Schedule(()), 'a schedule without knots has no value'),
        (
            lambda: Schedule(((0, 1), (5, 2), (3, 1))),
            'a schedule goes from 5 images to 3; list its knots in increasing order',
        ),
        (lambda: Schedule(((0, 1), (NAN, 2))), 'a schedule goes from 0 images to nan'),
        (
            lambda: override(tiny(), **{'schedule.gamma': [[5, 1], [3, 1]]}),
            'schedule.gamma: a schedule goes from 5 images to 3',
        ),
        (
            lambda: override(tiny(), **{'schedule.gamma': 3}),
            'schedule.gamma must be a list of knots [images, value], got 3',
        ),
        (
            lambda: override(tiny(), **{'schedule.gamma': [[0, 'x']]}),
            'schedule.gamma must be a list of knots',
        ),
        (lambda: override(tiny(), **{'train.batch': INF}), 'train.batch must be int, got inf'),
        (lambda: override(tiny(), **{'train.batch': NAN}), 'train.batch must be int, got nan'),
        (lambda: override(tiny(), **{'train.g_lr': 10**400}), 'train.g_lr must be float, got 1000'),
        (
            lambda: override(tiny(), **{'proposal.layers': [1, 1]}),
            'proposal.layers must be 3 of int, got [1, 1]',
        ),
        (
            lambda: override(tiny(), **{'proposal.layers': [1, 1, 0.5]}),
            'proposal.layers must be int, got 0.5',
        ),
        (lambda: override(tiny(), **{'render.background': 'white'}), 'render.background must be 3 of float'),
        (lambda: from_dict(Run, []), 'Run must be a mapping of fields, got []'),
        (lambda: from_dict(Run, {'heads': None}), 'heads must be a mapping of fields, got None'),
        (lambda: from_dict(Run, {'schedule': {'gamma': None}}), 'schedule.gamma must be a list of knots'),
    ],
)
def test_nonsense_is_refused_in_words(make, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        make()


# ---- fields that came later ----------------------------------------------------------------------


def test_a_later_field_renames_nothing():
    known = {
        'tiny': '8392dcffc801',
        'heads64': 'd34cb7748eed',
        'small': '04268839cd74',
        'paper': 'd3af6779f38e',
        'cats': '930a109cbfad',
    }
    assert {name: sha(preset(name)) for name in PRESETS} == known
    for name, value in LATER.items():
        assert flat(Run())[name] == value  # the default says what was meant
        assert name not in identity(flat(tiny()))
        assert name in flat(tiny())
    other = override(tiny(), **{'data.skip_bad': True})
    assert sha(other) != sha(tiny())
    assert identity(flat(other))['data.skip_bad'] is True
    assert identity({'a': 1, 'data.skip_bad': False}) == {'a': 1}


def test_configurations_from_before_a_field_are_read():
    old = to_dict(tiny())
    del old['data']['skip_bad']
    assert from_dict(Run, old) == tiny()
