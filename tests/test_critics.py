"Critics as values: the one on frozen features, and the games that critics play."

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from wysiwyg.camera import orbit
from wysiwyg.config import (
    FeatureConfig,
    check,
    final_stage,
    flat,
    identity,
    override,
    courses,
    schedule_text,
    sha,
    tiny,
)
from wysiwyg.core import rng
from wysiwyg.data import Dataset, png_bytes, write_zip
from wysiwyg.feature_critic import Distilled, FeatureCritic, Mixing, lite0_network, pooled, pyramid
from wysiwyg.generator import load_generator, method_of
from wysiwyg.judges import shares_features
from wysiwyg.loop import _check_network, _Stopwatch, save_pair, start_from
from wysiwyg.losses import ADVERSARIAL
from wysiwyg.method import WYSIWYG, stage_at
from wysiwyg.training import Moment, Trainer, make_optimizers

CPU = torch.device('cpu')
LABELS = orbit(torch.linspace(-0.5, 0.5, 4), torch.zeros(4)).label
SMALL = {
    'backbone.z_dim': 8,
    'backbone.w_dim': 8,
    'backbone.channel_base': 128,
    'backbone.channel_max': 8,
    'backbone.backbone_resolution': 8,
    'backbone.plane_channels': 4,
    'backbone.plane_hidden': 4,
    'backbone.plane_resolution': 16,
    'field.hidden': 8,
    'field.geo_features': 4,
    'field.color_hidden': 4,
    'render.coarse': 8,
    'features.side': 32,
    'features.width': 8,
    'schedule.total': 64.0,
    'train.batch': 4,
}
PLAIN = override(tiny(resolution=16), **SMALL)
RUN = override(PLAIN, **{'schedule.features': [[0, 0], [8, 0], [16, 0.3]]})


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    g = rng(0, 'noise')
    pictures = torch.randint(0, 256, (12, 16, 16, 3), generator=g, dtype=torch.uint8).numpy()
    labels = orbit(torch.linspace(-0.5, 0.5, 12), torch.zeros(12)).label.tolist()
    names = [f'{i:05d}.png' for i in range(12)]
    path = tmp_path_factory.mktemp('set') / 'noise.zip'
    images = map(png_bytes, pictures)
    return Dataset(write_zip(path, zip(names, images, labels)))


def trainer(run, data) -> Trainer:
    return Trainer(WYSIWYG, run, data, CPU)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(map(torch.equal, a.values(), b.values()))


def test_taps_are_the_networks_own():
    "The coarsest map is what its own features end in, before the last 1x1 layer."
    images = torch.rand(2, 3, 64, 64, generator=rng(0))
    net = lite0_network('cpu')
    with torch.no_grad():
        ours = pyramid(images, 64)[-1]
        own = net.extract_features(images)
        head = nn.functional.relu6(net._bn1(net._conv_head(ours)))
    assert torch.allclose(head, own, atol=1e-5)


def test_mixing_goes_from_coarse_to_fine_alone():
    mixing = Mixing([3, 5], [4, 6])
    maps = [torch.randn(1, 3, 8, 8), torch.randn(1, 5, 4, 4)]
    before = mixing(maps)
    after = mixing([maps[0] + 1, maps[1]])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0])
    by_hand = nn.functional.conv2d(maps[1], mixing.across1)
    by_hand = nn.functional.conv2d(by_hand, mixing.down1, padding=1)
    assert torch.equal(by_hand, before[1])


@pytest.mark.parametrize('finest, places', [(4, 3 * 16 + 4), (16, 16 + 4)])
def test_logits_by_map(finest, places):
    "Of 64 pixels maps of 16, 8, 4 and 2 are judged at 4x4, 4x4, 4x4 and 2x2 places."
    critic = FeatureCritic(FeatureConfig(side=64, width=8, finest=finest))
    assert critic(torch.zeros(4, 3, 32, 32), LABELS).shape == (4, places)


DISTILLED = override(PLAIN, **{'discriminator.distill': 0.5})


def test_a_distilled_critic_judges_as_the_plain_one_and_guesses(data):
    "The same logits; its loss is the plain one and half of the squares that it misses by; G's is the same."
    plain, told = trainer(PLAIN, data), trainer(DISTILLED, data)
    critic = told.d['image']
    assert type(critic) is Distilled
    critic.load_state_dict(plain.d['image'].state_dict(), strict=False)  # all but the guess
    told.g.load_state_dict(plain.g.state_dict())
    now, losses = plain.now, {}
    for name, t in (('plain', plain), ('told', told)):
        fake = t.fake(0, learn=False)
        losses[name] = [f(0, fake, now) for f in (t.objective.d_loss, t.objective.g_loss)]
    (d, values), (g, _) = losses['told']
    assert torch.equal(g, losses['plain'][1][0])
    real, label = told.objective.shown[0]
    images = real['image'], fake.images['image']
    by_hand = [(critic.guess(critic.read(x)) - pooled(x, 32)).square().mean() for x in images]
    assert torch.allclose(values['loss/distill'], sum(by_hand) / 2)
    assert torch.allclose(d, losses['plain'][0][0] + 0.5 * values['loss/distill'])
    before = critic.guess.weight.clone()
    assert told.step()['loss/distill'] > 0
    assert not torch.equal(critic.guess.weight, before)
    assert all(p.grad is None for p in lite0_network('cpu').parameters())


def test_distilling_begins_and_ends_on_the_way(data, tmp_path):
    "A pair without a guess gets a new one, and one that is not asked for is left."
    plain, told = trainer(PLAIN, data), trainer(DISTILLED, data)
    save_pair(plain, tmp_path / 'plain')
    save_pair(told, tmp_path / 'told')
    for run, pair in ((DISTILLED, 'plain'), (PLAIN, 'told'), (DISTILLED, 'told')):
        going = override(run, **{'train.network': str(tmp_path / pair / 'generator.safetensors')})
        _check_network(going)
        begun = start_from(trainer(going, data), tmp_path / pair).d['image'].state_dict()
        saved = {'plain': plain, 'told': told}[pair].d['image'].state_dict()
        assert all(torch.equal(saved[k], x) for k, x in begun.items() if k in saved)
        assert any('guess' in k for k in begun) == (run is DISTILLED)


@pytest.mark.parametrize('system', ['eg3d', 'mimic3d', 'imagenet3d'])
def test_other_systems_critics_are_distilled_too(system):
    method = method_of(override(DISTILLED, system=system))
    run = method.adapted(DISTILLED)
    assert any(isinstance(critic, Distilled) for critic in method.critics(run).values())
    assert shares_features('eval/fd_efflite0at96_500', flat(run))


def test_what_is_frozen_is_saved_and_never_moves(data):
    t = trainer(RUN, data)
    saved = t.d.state_dict()
    assert any('mixing' in k for k in saved) and not any('blocks.0._depthwise' in k for k in saved)
    network = copy.deepcopy(lite0_network('cpu').state_dict())
    mixing = copy.deepcopy(t.d['features'].mixing.state_dict())
    heads = copy.deepcopy(dict(t.d['features'].heads.named_parameters()))
    for _ in range(6):
        t.step()
    assert same(network, lite0_network('cpu').state_dict())
    assert same(mixing, t.d['features'].mixing.state_dict())
    now = dict(t.d['features'].heads.named_parameters())
    still = [k for k in heads if torch.equal(now[k], heads[k])]
    assert all(k.endswith('bias') for k in still)  # on real and fake a bias may be pulled alike
    assert not any(p.requires_grad for p in lite0_network('cpu').parameters())


def test_without_weight_it_is_not_asked_and_changes_nothing(data):
    "Until its weight rises a run takes the very steps of one that has no such critic."
    plain, ramped = trainer(PLAIN, data), trainer(RUN, data)
    assert list(plain.d) == ['image'] and list(ramped.d) == ['image', 'features']
    for step in range(2):
        assert plain.step() == ramped.step()
    assert same(plain.g.state_dict(), ramped.g.state_dict())
    for step in range(2):
        plain.step()
        values = ramped.step()
    assert {'loss/D/features', 'loss/adversarial/features', 'D/real/features'} <= values.keys()
    assert 'loss/r1/features' not in values
    assert not same(plain.g.state_dict(), ramped.g.state_dict())


def test_the_generator_feels_its_weight(data):
    "Twice the weight, twice the loss that is added."
    added = []
    for weight in (0.25, 0.5):
        t = trainer(override(PLAIN, **{'schedule.features': [[0, weight]]}), data)
        fake = t.fake(0)
        loss, said = t.objective.g_loss(0, fake, t.now)
        critic = t.d['features'](fake.images['features'], fake.label)
        worth = -weight * critic.mean().item()
        assert said['loss/adversarial/features'].item() == pytest.approx(
            worth, rel=1e-2
        )  # norms are estimates
        added.append(said['loss/adversarial/features'].item())
    assert added[1] == pytest.approx(2 * added[0], rel=1e-2)


def test_it_learns_at_its_own_rate():
    critics = nn.ModuleDict(WYSIWYG.critics(RUN))
    _, opt = make_optimizers(WYSIWYG.generator(RUN), critics, RUN.train)
    image, features = opt.param_groups
    assert features['lr'] == RUN.train.d_lr and features['betas'] == (0.0, 0.99)  # no lazy R1 to correct
    assert image['lr'] < RUN.train.d_lr


def test_goes_on_exactly(data):
    whole, halves = trainer(RUN, data), trainer(RUN, data)
    for _ in range(6):
        whole.step()
    for _ in range(3):
        halves.step()
    again = trainer(RUN, data)
    again.load_state(copy.deepcopy(halves.state()))
    for _ in range(3):
        again.step()
    assert same(whole.g.state_dict(), again.g.state_dict())
    assert same(whole.d.state_dict(), again.d.state_dict())


def test_a_pair_without_it_can_be_gone_on_from_and_one_with_it_too(data, tmp_path, capsys):
    save_pair(trainer(PLAIN, data), tmp_path / 'plain')
    fine = override(RUN, **{'train.network': str(tmp_path / 'plain')})
    _check_network(fine)
    t = start_from(trainer(fine, data), tmp_path / 'plain')
    assert "has no critic 'features'; it begins anew" in capsys.readouterr().err
    t.step()
    save_pair(t, tmp_path / 'both')
    again = start_from(trainer(RUN, data), tmp_path / 'both')
    assert 'begins anew' not in capsys.readouterr().err
    assert same(t.d.state_dict(), again.d.state_dict())
    back = start_from(trainer(PLAIN, data), tmp_path / 'both')
    assert "has a critic 'features', which this run does without" in capsys.readouterr().err
    assert same(t.d['image'].state_dict(), back.d['image'].state_dict())
    wide = override(RUN, **{'features.width': 12, 'train.network': str(tmp_path / 'both')})
    wide = override(wide, **{'discriminator.loss': 'relativistic'})  # another game is no other size
    with pytest.raises(ValueError, match='give --features.width 8$'):
        _check_network(wide)


def text_of(run) -> str:
    return schedule_text(courses(run.schedule), run.schedule.total)


def test_runs_before_it_keep_their_names():
    named = identity(flat(tiny()))
    assert not [k for k in named if k.startswith('features.') or k == 'schedule.features']
    assert sha(PLAIN) != sha(RUN)
    assert 'weight of frozen features' not in text_of(PLAIN)
    assert 'weight of frozen features0 (0-0.008), 0 to 0.3' in text_of(RUN)
    assert final_stage(RUN.schedule, 10.0).features(0) == 0.3
    assert stage_at(RUN.schedule, 12).features == pytest.approx(0.15)


@pytest.mark.parametrize(
    'change, fault',
    [
        ({'features.side': 100}, 'give a multiple of 32'),
        ({'features.finest': 5}, 'give 4, 8, 16 or 32'),
        ({'schedule.features': [[0, -1]]}, 'its values are weights'),
        ({'features.width': 0}, 'a layer has channels'),
        ({'discriminator.loss': 'relativistic', 'augment.adaptive': True}, 'no sign of its own to steer by'),
    ],
)
def test_what_cannot_be_is_refused(change, fault):
    with pytest.raises(ValueError, match=fault):
        check(override(tiny(), **change))


def test_hinge_by_hand():
    real = torch.tensor([[2.0, 0.5], [-1.0, 1.0]])
    fake = torch.tensor([[-2.0, 0.0], [1.0, -1.0]])
    game = ADVERSARIAL['hinge']
    assert game.critic(real, fake) == 2.5 / 4 + 3 / 4
    assert game.generator(fake) == 0.5


def test_the_shipped_generator_reaches_it():
    "Its pictures have a slope through the frozen network at every pixel."
    g = load_generator()
    camera = g.orbit(torch.zeros(1), torch.zeros(1))
    z = torch.randn(1, g.run.backbone.z_dim, generator=rng(0))
    with torch.no_grad():
        images = 2 * g.render(g.synthesize(g.map(z, camera)), camera).image() - 1
    images.requires_grad_()
    FeatureCritic(FeatureConfig())(images, camera.label).mean().backward()
    assert images.grad.isfinite().all() and (images.grad != 0).float().mean() > 0.99


def test_a_relativistic_game_sees_differences_alone():
    game, g = ADVERSARIAL['relativistic'], rng(0)
    real, fake = torch.randn(2, 8, generator=g)
    lifted = game.critic(real + 3, fake + 3)
    assert torch.allclose(lifted, game.critic(real, fake), atol=1e-6)
    by_hand = np.log1p(np.exp(fake.numpy() - real.numpy())).mean()
    assert game.critic(real, fake).item() == pytest.approx(by_hand, rel=1e-6)
    assert game.generator(fake, real) == game.critic(fake, real)  # the same game from the other side


R3 = override(PLAIN, **{'discriminator.loss': 'relativistic', 'discriminator.penalty': 'both'})


def test_a_training_plays_it(data):
    t = trainer(R3, data)
    first, second = t.step(), t.step()
    assert {'loss/r1', 'loss/r2'} <= first.keys()
    assert not {'loss/r1', 'loss/r2'} & second.keys()  # lazily
    fake = t.fake(0)
    t.objective.d_loss(0, fake, t.now)
    _, said = t.objective.g_loss(0, fake, t.now)
    (reals, label) = t.objective.shown[0]
    made = t.d['image'](fake.images['image'], fake.label)
    real = t.d['image'](reals['image'], label)
    expected = nn.functional.softplus(real - made).mean()
    assert said['loss/adversarial'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_slopes_at_fakes_are_r2(data):
    "By central differences along the gradient's direction, at what G made and not at the reals."
    t = trainer(R3, data)
    d, fake = copy.deepcopy(t.d['image']).double(), t.fake(0)
    total, said = t.objective.d_loss(0, fake, t.now)
    x, label = fake.images['image'].detach().double(), fake.label.double()
    x.requires_grad_()
    (slope,) = torch.autograd.grad(d(x, label).sum(), x)
    squares = 0.0
    with torch.no_grad():
        for k in range(len(x)):
            way = torch.zeros_like(x)
            way[k] = slope[k] / slope[k].norm()
            rise = (d(x + 1e-6 * way, label) - d(x - 1e-6 * way, label)).sum() / 2e-6
            squares += rise.item() ** 2 / len(x)
    assert said['loss/r2'].item() == pytest.approx(squares, rel=1e-3)
    weight = t.stage.gamma / 2 * R3.train.r1_every
    slopes = weight * (said['loss/r1'] + said['loss/r2'])
    assert total.item() == pytest.approx((said['loss/D'] + slopes).item(), rel=1e-5)


def test_parts_of_a_batch_play_it_as_the_whole(data):
    "Each part compares with reals of its own."
    small = {'discriminator.group': 2, 'train.batch': 8}
    whole = trainer(override(R3, **small), data)
    parts = trainer(override(R3, **small, **{'train.micro_batch': 4}), data)
    a, b = whole.step(), parts.step()
    for name in ('loss/D', 'loss/r1', 'loss/r2'):
        assert a[name] == pytest.approx(b[name], rel=1e-4), name


@pytest.mark.parametrize('batch, group, views', [(8, 4, 2), (8, 2, 4), (12, 3, 2), (4, 4, 1)])
def test_views_of_a_person_lie_in_groups_of_their_own(data, batch, group, views):
    "By brute force over what mini-batch statistics compare."
    changes = {'train.batch': batch, 'discriminator.group': group, 'train.views': views}
    batches = trainer(override(PLAIN, **changes), data).batches
    z, label, condition = batches.whole(Moment(step=1, images=4, swap=1.0))
    people = [tuple(row) for row in torch.cat([z, condition], 1).tolist()]
    assert sorted(people.count(person) for person in set(people)) == [views] * (batch // views)
    groups = batch // group
    for k in range(groups):
        compared = people[k::groups]
        assert len(set(compared)) == group
    assert len(label.unique(dim=0)) > 1  # seen from several sides


def test_views_and_features_are_shared_out_as_the_whole(data):
    changes = {'train.batch': 8, 'discriminator.group': 2, 'train.views': 2}
    changes['schedule.features'] = [[0, 0.3]]
    whole = trainer(override(PLAIN, **changes), data).step()
    parts = trainer(override(PLAIN, **changes, **{'train.micro_batch': 4}), data).step()
    for name in ('loss/D', 'loss/D/features', 'loss/adversarial/features'):
        assert whole[name] == pytest.approx(parts[name], rel=1e-4), name


def test_an_estimate_times_a_step_with_the_new_critic_apart(data):
    "One resolution, two costs: before its weight rises, and after."
    run = override(PLAIN, **{'schedule.features': [[0, 0], [32, 0], [32, 0.3]]})
    watch = SimpleNamespace(t=trainer(run, data), run=run)
    assert _Stopwatch.kind(watch, 16.0) != _Stopwatch.kind(watch, 48.0)
    assert _Stopwatch.kind(watch, 40.0) == _Stopwatch.kind(watch, 48.0)


def test_half_precision_is_for_what_is_frozen(data):
    critic = FeatureCritic(FeatureConfig(side=32, width=8))
    images = torch.rand(4, 3, 16, 16, generator=rng(0)) * 2 - 1
    asked = []
    critic.heads[0].register_forward_pre_hook(lambda head, given: asked.append(given[0].dtype))
    logits = critic(images, LABELS, half=True)
    assert logits.dtype == torch.float32 and asked == [torch.float32]
