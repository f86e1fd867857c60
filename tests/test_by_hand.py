"A GAN by hand: steps against torch alone, histories that always give the same game, presses that survive."

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from wysiwyg import by_hand
from wysiwyg.by_hand import (
    POINTS,
    RATES,
    ByHand,
    Move,
    Player,
    apart,
    moves_of,
    new_game,
    opinion,
    play,
    push_of,
    real_points,
)
from wysiwyg.core import rng
from wysiwyg.live import checked


def network(player: Player) -> torch.nn.Sequential:
    "The same one, of torch.nn."
    layers = []
    for weight, bias in zip(player.weights[::2], player.weights[1::2]):
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
        layers += [layer, torch.nn.LeakyReLU(0.2)]
    return torch.nn.Sequential(*layers[:-1])


def by_torch(data: str, seed: int, moves: list[Move]) -> list[torch.nn.Module]:
    "The same game with torch.nn, torch.optim and an R1 of its own."
    game = new_game(data, seed)
    g, d = network(game.g), network(game.d)
    adams = [torch.optim.Adam(net.parameters(), 1.0, (0.0, 0.99), eps=1e-8) for net in (g, d)]
    for step, move in enumerate(moves):
        fake = g(torch.randn(64, 2, generator=rng(seed, 'z', step)))
        real = real_points(data, 64, rng(seed, 'reals', step)).requires_grad_()
        if move.who in 'DB':
            on_real = d(real)
            (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            loss = F.softplus(-on_real).mean() + F.softplus(d(fake.detach())).mean()
            loss = loss + move.gamma / 2 * slope.square().sum(1).mean()
            step_of(adams[1], loss, move.d_rate)
        if move.who in 'GB':
            step_of(adams[0], F.softplus(-d(fake)).mean(), move.g_rate)
    return [g, d]


def step_of(adam: torch.optim.Adam, loss: torch.Tensor, rate: float):
    adam.param_groups[0]['lr'] = rate
    adam.zero_grad()
    loss.backward()
    adam.step()


@pytest.mark.parametrize('data', POINTS)
def test_a_game_is_that_of_torch(data):
    knobs = zip('BDGBB', (0.01, 0.005, 0.01, 0.005, 0.01), (0.3, 0, 1, 3, 0))
    moves = [Move(who, d_rate, 0.002, gamma) for who, d_rate, gamma in knobs]
    game = new_game(data, 4)
    for move in moves:
        game = play(game, move)
    for ours, theirs in zip((game.g, game.d), by_torch(data, 4, moves)):
        x = torch.randn(256, 2, generator=rng('asked'))
        torch.testing.assert_close(ours(x), theirs(x).detach(), rtol=1e-3, atol=1e-3)
        for a, b in zip(ours.weights, theirs.parameters()):
            assert (a - b).abs().mean() < 1e-5  # a gradient near 0 may have either sign


@given(
    st.lists(
        st.builds(Move, st.sampled_from('DGB'), *[st.sampled_from([*map(float, RATES)])] * 2), max_size=20
    )
)
def test_a_history_says_its_moves(moves):
    assert moves_of(''.join(move.text for move in moves)) == moves


@given(st.text('DGBX0123456789', max_size=12))
@settings(max_examples=100)
def test_what_is_no_history_is_refused(text):
    try:
        moves = moves_of(text)
    except ValueError as e:
        assert 'of the history is' in str(e)
        return
    assert ''.join(move.text for move in moves) == text


def test_values_of_no_knob_are_named():
    with pytest.raises(ValueError, match='a rate must be one of 0, 0.0005.* got 0.003'):
        Move('D', d_rate=0.003).text
    with pytest.raises(ValueError, match='gamma must be one of 0, 0.01.* got 7'):
        Move('D', gamma=7).text


def test_equal_questions_have_equal_answers_however_one_came_there():
    one, other = ByHand(seed=5, data='moons'), ByHand(seed=5, data='moons')
    for _ in range(23):
        one.press('B')
    one.press('D', 4)
    one.undo(3)
    one.ask(d_rate='0.05')
    one.press('G')
    told = other.ask(history=one.asked['history'], d_rate='0.05')
    assert told | {'turn': ''} == one.told
    json.dumps(told, allow_nan=False)
    assert one.pixels == other.pixels
    assert other.ask(seed=6) != told


def test_knobs_hold_from_the_next_step_on():
    live = ByHand()
    before = live.press('B', 3), live.pixels
    assert (live.ask(d_rate='0.1', g_rate='0', gamma='10'), live.pixels) == before
    fakes = live.told['now']['fake']
    told = live.press('B')
    assert told['now']['fake'] == fakes  # a rate of 0 moves nothing
    assert told['step']['gamma'] == 10 and told['moves'] == {'D': 4, 'G': 4}


def test_what_is_told_is_the_game():
    live = ByHand(data='spot', seed=2)
    live.press('B', 11)
    game = new_game('spot', 2)
    for _ in range(11):
        game = play(game, Move('B'))
    step = live.told['step']
    assert step['moved'] == pytest.approx(game.seen.moved.flatten().tolist(), rel=1e-3, abs=1e-4)
    assert step['terms']['G'] == pytest.approx(game.curve[-1][1], rel=1e-3)
    terms = step['terms']
    whole = terms['real'] + terms['fake'] + step['gamma'] / 2 * terms['r1']
    assert terms['D'] == pytest.approx(whole, abs=1e-3)
    shown = torch.tensor(live.told['now']['fake']).reshape(-1, 2)
    push = push_of(game.d, shown).flatten().tolist()
    assert live.told['now']['push'] == pytest.approx(push, rel=1e-2, abs=1e-3)
    pictures = np.frombuffer(live.pixels, np.uint8).reshape(2, live.told['side'], live.told['side'], 3)
    bluer = pictures[1, ..., 2].astype(int) > pictures[1, ..., 0]
    sure = opinion(game.d)
    assert (bluer == (sure > 0.5).numpy())[(sure - 0.5).abs().numpy() > 1e-3].all()


def slope(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:  # [n, 2]
    x = x.requires_grad_()
    return torch.autograd.grad(net(x).sum(), x)[0]


def arrows(net: torch.nn.Module, logits: list[float], fake: torch.Tensor) -> torch.Tensor:  # [n, 2]
    "sigma(-D) grad D, of the logits that are told."
    return torch.sigmoid(-torch.tensor(logits))[:, None] * slope(net, fake)


def nearest(points: torch.Tensor, others: torch.Tensor) -> float:
    return np.mean([min((p - o).norm().item() for o in others) for p in points])


@pytest.mark.parametrize('who', 'DGB')
def test_numbers_obey_the_formulas_above_them(who):
    "Each number of by_hand.js, by its law, from what is told and the players in torch.nn."
    live = ByHand(data='moons', seed=3, d_rate='0.02', g_rate='0.01', gamma='1')
    live.press('B', 8)
    was = by_torch('moons', 3, [Move('B', 0.02, 0.01, 1.0)] * 8)
    told = live.press(who)
    g, d = by_torch('moons', 3, [Move('B', 0.02, 0.01, 1.0)] * 8 + [Move(who, 0.02, 0.01, 1.0)])
    step, now, terms = told['step'], told['now'], told['step']['terms']
    plane = ('z', 'real', 'fake', 'push')
    points = {k: torch.tensor(step[k]).reshape(-1, 2) for k in (*plane, 'moved')}
    shown = {k: torch.tensor(now[k]).reshape(-1, 2) for k in plane}
    on_real, on_fake, on_learned = [torch.tensor(step[k]) for k in ('on_real', 'on_fake', 'on_learned')]
    r1 = slope(was[1], points['real']).square().sum(1).mean()
    walked = [(points['moved'] - points['fake']).norm(dim=1).mean()]
    walked += [(g(points['z']) - was[0](points['z'])).norm(dim=1).mean()]
    d_loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
    d_loss = d_loss + step['gamma'] / 2 * r1
    missed = nearest(shown['fake'], shown['real']), nearest(shown['real'], shown['fake'])
    both = {
        'z': (points['z'], torch.randn(64, 2, generator=rng(3, 'z', 8))),
        'fake': (points['fake'], was[0](points['z'])),
        'logits': (on_fake, was[1](points['fake'])[:, 0]),
        'D loss': (terms['D'], d_loss),
        'R1': (terms['r1'], r1),
        'G loss': (terms['G'], F.softplus(-on_learned).mean()),
        'arrow': (points['push'], arrows(d, step['on_learned'], points['fake'])),
        'D step': (told['moves']['D'], 8 + (who in 'DB')),
        'G step': walked,
        'distance': (now['apart'], [*missed]),
    }
    assert [*both] == names_in(Path(by_hand.__file__).with_suffix('.js'))
    both['at rest'] = shown['push'], arrows(d, now['on_fake'], shown['fake'])
    for name, numbers in both.items():
        one, other = [np.array(torch.as_tensor(x).detach()) for x in numbers]
        np.testing.assert_allclose(one, other, rtol=5e-3, atol=2e-3, err_msg=name)
    apart_by = (on_learned - on_fake).abs().mean()
    assert apart_by > 0.05 if who in 'DB' else apart_by == 0  # else either would do


def names_in(script: Path) -> list[str]:
    "What has a formula there."
    listed = script.read_text().split('const NUMBERS = [')[1].split('\n];')[0]
    return re.findall("{ name: '([^']+)'", listed)


def test_an_arrow_lowers_the_loss_of_g():
    game = new_game('ring', 1)
    for _ in range(10):
        game = play(game, Move('B'))
    seen = game.seen
    there = [seen.fake + far * seen.push for far in (-0.01, 0.0, 0.01)]
    costs = [F.softplus(-game.d(points)).mean().item() for points in there]
    assert costs[0] > costs[1] > costs[2]


def test_distances_by_hand():
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert apart(square[:1] + 0.0, square) == pytest.approx((0.0, (1 + 1 + 2**0.5) / 4))


def test_a_ring_is_learned():
    live = ByHand()
    begun = live.told['now']['apart']
    live.press('B', 300)
    assert max(live.told['now']['apart']) < 0.25 < min(begun)


def test_a_press_and_an_undo_are_quick_and_play_nothing_twice():
    live = ByHand()
    live.press('B', 150)
    played, spent = live.games.played, []
    for act in [lambda: live.press('B')] * 20 + [live.undo] * 20:
        begun = time.perf_counter()
        act()
        spent.append(time.perf_counter() - begun)
    assert sorted(spent)[20] < 1  # 10 to 20 ms where nothing else runs
    assert live.games.played == played + 20
    live.undo(140)
    assert live.games.played == played + 20
    assert sum(map(len, live.games.kept.values())) < 100


def test_two_hundred_presses_from_a_page_survive():
    live = ByHand()
    page, history = live.page(), ''
    for turn in range(1, 201):
        history += Move('DGB'[turn % 3]).text
        page.asked = live.asked | {'history': history, 'turn': turn}
    assert page.told['turn'] == 200 and page.told['error'] == ''
    assert page.told['moves']['D'] + page.told['moves']['G'] == 200 + history.count('B')
    page.asked = live.asked | {'history': history + 'B44', 'turn': 201}
    assert page.told['error'].startswith('ValueError: move 200 of the history')
    assert page.told['curve']['step'][-1] == 200


def test_a_critic_that_bursts_is_told_as_json():
    live = ByHand(d_rate='0.2', g_rate='0.2', gamma='100')
    for _ in range(5):
        json.dumps(live.press('B', 8), allow_nan=False)
    assert live.png()[:4] == b'\x89PNG'


def test_a_page_of_its_own_has_every_step():
    live = ByHand()
    live.press('B', 3)
    page = live.html(live.walk())
    recorded = json.loads(page.split('id="known">')[1].split('</script>')[0])
    lengths = [len(a['asked']['history']) // 4 for a in recorded['answers']]
    assert lengths == [3, 0, 1, 2]
    assert 'import ' not in page.split('<script type="module">')[1]


@pytest.mark.parametrize('pressed, steps', [(0, range(1, 13)), (3, range(16)), (30, (0, *range(18, 43)))])
def test_a_page_by_default_goes_back_and_on(pressed, steps):
    live = ByHand(d_rate='0.01')
    live.press('B', pressed)
    page = live.html()
    recorded = json.loads(page.split('id="known">')[1].split('</script>')[0])
    asked = [answer['asked']['history'] for answer in recorded['answers']]
    assert asked[0] == live.asked['history'] and len(page) < 2_000_000
    assert sorted(len(text) // 4 for text in asked[1:]) == sorted({*steps} - {pressed})
    assert max(asked, key=len) == Move('B', 0.01).text * (pressed + 12)


def test_a_page_of_the_longest_game_goes_back_alone():
    live = ByHand()
    live.asked['history'] = Move('B').text * by_hand._LONGEST  # nobody plays it
    assert max(len(state['history']) for state in live.usual_states()) == 4 * (by_hand._LONGEST - 1)


def test_texts_are_settings_of_a_live():
    offered = ByHand.settings
    assert checked(offered, {})['history'] == ''
    for wrong, words in (
        ({'history': 3}, 'is a text'),
        ({'history': 'B' * 9000}, 'at most 8000'),
        ({'gamma': 1}, 'one of 0'),
    ):
        with pytest.raises(ValueError, match=words):
            checked(offered, wrong)
