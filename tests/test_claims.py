"Claims are decided by numbers and intervals alone; fog and speckle count what they say."

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from wysiwyg.claims import BETWEEN, BEYOND, CLAIMS, Claim, Verdict, find, judge, recorded
from wysiwyg.core import Answer
from wysiwyg.generator import loosen
from wysiwyg.studies import best_within, semi_opaque, speckle, step_means
from wysiwyg.results import interval_rows, markdown_table

ROWS = {'eval/fd_x_9: x': 10.0, 'eval/fd_x_9: x ±': 3.0, 'eval/fd_x_9: y': 4.0, 'eval/fd_x_9: y ±': 4.0}
CLAIM = Claim('x is worse', 'here', '', 'made up', 'eval/fd_*: x', 'eval/fd_*: y')


@pytest.mark.parametrize(
    'change, word',
    [
        ({}, 'shown at toy scale'),
        ({'eval/fd_x_9: y': 6.0}, 'undecided'),
        ({'eval/fd_x_9: x': -10.0}, 'contradicted at toy scale'),
        ({'eval/fd_x_9: x Δ±': 7.0, 'eval/fd_x_9: y Δ±': 0.0}, 'undecided'),
        ({'eval/fd_x_9: x Δ±': 5.5, 'eval/fd_x_9: y Δ±': 0.0}, 'shown at toy scale'),
    ],
)
def test_the_interval_decides(change, word):
    assert judge(CLAIM, ROWS | change).word == word


def test_independent_intervals_add_in_squares():
    assert judge(CLAIM, ROWS).half == 5.0


@pytest.mark.parametrize(
    'x, y, half',
    [(7.0, 0.0, 7.0), (0.0, 2.0, 2.0), (7.0, 2.0, 5.0)],  # y is the base, x is, neither is
)
def test_a_recorded_difference_counts_beside_its_base(x, y, half):
    assert judge(CLAIM, ROWS | {'eval/fd_x_9: x Δ±': x, 'eval/fd_x_9: y Δ±': y}).half == half


@pytest.mark.parametrize(
    'expects, margin, word',
    [
        ('worse', 0.0, 'shown'),
        ('larger', 0.0, 'shown'),
        ('worse', 2.0, 'undecided'),
        ('better', 0.0, 'contradicted'),
        ('better', -12.0, 'shown'),
    ],
)
def test_direction_and_margin(expects, margin, word):
    claim = Claim('c', '', '', 'made up', 'eval/fd_*: x', 'eval/fd_*: y', expects, margin)
    assert judge(claim, ROWS, toy=False).word == word


@pytest.mark.parametrize(
    'margin, word, reason',
    [
        (0.0, 'undecided', '0 ± 0, within noise'),
        (-1.0, 'shown', '0 ± 0, above -1'),
        (1.0, 'contradicted', '0 ± 0, below 1'),
    ],
)
def test_no_difference_at_all_decides_nothing(margin, word, reason):
    equal = {'eval/fd_x_9: x': 4.0, 'eval/fd_x_9: y': 4.0} | dict.fromkeys(
        ('eval/fd_x_9: x Δ±', 'eval/fd_x_9: y Δ±'), 0.0
    )
    claim = Claim('c', '', '', 'made up', 'eval/fd_*: x', 'eval/fd_*: y', margin=margin)
    verdict = judge(claim, ROWS | equal, toy=False)
    assert (verdict.word, verdict.reason) == (word, reason)
    touching = ROWS | {'eval/fd_x_9: x Δ±': 6.0, 'eval/fd_x_9: y Δ±': 0.0}  # 6 ± 6
    assert judge(CLAIM, touching).word == 'undecided'
    better = replace(CLAIM, expects='better')
    assert judge(better, touching).word == 'undecided'


def test_a_difference_is_of_the_seeds_that_have_both():
    "Where a seed measured one of two arms, means are of other seeds than the recorded difference."
    rows = ROWS | {'eval/fd_x_9: x Δ': 1.0, 'eval/fd_x_9: x Δ±': 2.0}
    base = {'eval/fd_x_9: y Δ': 0.0, 'eval/fd_x_9: y Δ±': 0.0}
    verdict = judge(CLAIM, rows | base)
    assert (verdict.difference, verdict.half) == (1.0, 2.0)
    turned = judge(replace(CLAIM, ours=CLAIM.other, other=CLAIM.ours, expects='better'), rows | base)
    assert (turned.difference, turned.half) == (1.0, 2.0)
    once = {'eval/fd_x_9: y Δ': -5.0}  # one seed beside a third arm, and so no interval
    verdict = judge(CLAIM, rows | once)
    assert (verdict.difference, verdict.half) == (6.0, 5.0)


def test_a_claim_needs_a_direction():
    rows = {'eval/mine: x': 2.0, 'eval/mine: y': 1.0}
    with pytest.raises(ValueError, match="no direction is known of 'eval/mine: x'"):
        judge(Claim('c', '', '', 'made up', 'eval/mine: x', 'eval/mine: y'), rows)


def test_nothing_is_claimed_without_an_interval():
    v = judge(CLAIM, {k: x for k, x in ROWS.items() if '±' not in k})
    assert v.word == 'not measured'
    assert 'no interval' in v.reason
    assert math.isnan(v.half)


def test_what_is_missing_is_named():
    assert 'has not been recorded' in judge(CLAIM, {}).reason
    assert isinstance(judge(CLAIM, {}), Verdict)
    assert 'eval/fd_*: y' in judge(CLAIM, {'eval/fd_x_9: x': 1.0}).reason
    assert judge(CLAIM, {}).word == judge(CLAIM, {'eval/fd_x_9: x': 1.0}).word == 'not measured'
    assert recorded('no_such_study') == {}


def test_a_pattern_fits_one_row():
    with pytest.raises(ValueError, match='say which'):
        find(ROWS, 'eval/*')
    assert find(ROWS, 'kd*') is None


def test_patterns_do_not_confuse_intervals_with_values():
    for c in (*CLAIMS, *BEYOND, *BETWEEN):
        assert not any(p.endswith('*') and p.startswith('eval') for p in (c.ours, c.other)), c


def test_tables_have_one_line_per_row():
    assert markdown_table(['a', 'b'], [['1', '2']]) == '| a | b |\n| --- | --- |\n| 1 | 2 |'


def test_speckle_counts_lone_pixels_only():
    flat, all_hit = torch.full((1, 1, 16, 16), 2.5), torch.ones(1, 1, 16, 16)
    lone, step = flat.clone(), flat.clone()
    lone[0, 0, 8, 8] += 0.2
    step[..., 8:] += 0.2
    assert speckle(lone, all_hit, 0.1) == pytest.approx(100 / 14**2)
    assert speckle(step, all_hit, 0.1) == 0
    assert speckle(lone, all_hit, 0.3) == 0
    for of in (lambda: speckle(lone, 0 * all_hit, 0.1), lambda: semi_opaque(0 * all_hit)):
        with pytest.raises(ValueError, match='nothing is seen'):
            of()


def test_semi_opaque_is_neither_stopped_nor_free():
    assert semi_opaque(torch.tensor([0.0, 0.1, 0.5, 0.89, 0.95])) == pytest.approx(40.0)


def test_loosen_multiplies_beta_alone():
    class G:
        field_at = staticmethod(lambda planes: lambda x, d: Answer(d, sdf=x, beta=x + 1))
        using = staticmethod(lambda **parts: SimpleNamespace(**parts))

    x, d = torch.ones(2), torch.zeros(2)
    answer = loosen(G(), 3.0).field_at(None)(x, d)
    assert answer.sdf.equal(x)
    assert answer.beta.equal(3 * (x + 1))
    assert answer.rgb.equal(d)


def test_rows_leave_out_what_is_not_there():
    import pandas as pd

    columns = {
        ('eval/psnr', 'mean'): [1.0, 2.0],
        ('eval/psnr', '±'): [math.nan, 0.5],
        ('eval/psnr', 'Δ'): [0.0, 1.0],
        ('eval/psnr', 'Δ±'): [0.0, math.nan],
    }
    table = pd.DataFrame(columns, index=['a', 'b'])
    rows = {r['what']: r['value'] for r in interval_rows(table)}
    assert rows == {
        'eval/psnr: a': 1.0,
        'eval/psnr: b': 2.0,
        'eval/psnr: b ±': 0.5,
        'eval/psnr: a Δ': 0.0,
        'eval/psnr: b Δ': 1.0,
        'eval/psnr: a Δ±': 0.0,
    }


@pytest.mark.parametrize(
    'budget, best', [(3.9, math.nan), (4, 20.0), (8, 30.0), (16, 30.0), (32, 30.0), (10**6, 30.0)]
)
def test_more_budget_never_buys_less(budget, best):
    "The dearest setting is not the best; settings come in any order; what one may not spend is not counted."
    assert best_within(budget, [8.0, 4.0, 16.0], [30.0, 20.0, 25.0]) == pytest.approx(best, nan_ok=True)


def test_a_budget_between_settings_is_interpolated():
    assert best_within(32**0.5, [4.0, 8.0], [20.0, 30.0]) == pytest.approx(25.0)


def test_step_means():
    steps = [
        {'loss/D': 1.0, 'train/skipped': 0, 'schedule/resolution': 32},
        {'loss/D': 3.0, 'loss/r1': 5.0, 'train/skipped': 2, 'schedule/resolution': 64},
        {'loss/D': math.nan},
    ]
    assert step_means(steps) == {'loss/D': 2.0, 'loss/r1': 5.0, 'skipped': 2, 'schedule/resolution': 64}


def test_claims_read_as_before():
    "Words and reasons of recorded numbers, read by hand."
    rows = {'eval/psnr: a': 34.5, 'eval/psnr: b': 41.7, 'eval/psnr: a Δ±': 4.8, 'eval/psnr: b Δ±': 0.0}
    v = judge(Claim('c', '', '', 'made up', 'eval/psnr: a', 'eval/psnr: b', 'better', -1.0), rows)
    assert (v.word, v.reason) == ('contradicted at toy scale', '-7.2 ± 4.8 dB, below -1')
    v = judge(Claim('c', '', '', 'made up', 'eval/psnr: a', 'eval/psnr: b'), rows)
    assert (v.word, v.reason) == ('shown at toy scale', '7.2 ± 4.8 dB')
    v = judge(Claim('c', '', '', 'made up', 'eval/psnr: a', 'eval/psnr: b', margin=5.0), rows)
    assert (v.word, v.reason) == ('undecided', '7.2 ± 4.8 dB, within noise of 5')


@pytest.mark.parametrize('x, said', [(6.0, '6 ± 0.5 per ray, below 8'), (9.0, '9 ± 0.5 per ray, above 8')])
def test_what_may_not_be_larger_is_told_as_it_was_measured(x, said):
    rows = {'eval/evaluations: a': x, 'eval/evaluations: a ±': 0.5}
    claim = Claim('c', '', '', 'made up', 'eval/evaluations: a', expects='better', margin=-8.0)
    assert judge(claim, rows).reason == said
    del rows['eval/evaluations: a ±']
    assert judge(claim, rows).reason == 'no interval was recorded'


def test_a_record_of_several_comparisons_is_read_by_pairs():
    "As a11 records from two starts: each has a base, and a difference to it."
    fd = 'eval/fd_x_9'
    means = {'a': 500.0, 'b': 450.0, 'c': 1800.0, 'd': 1700.0}
    rows = {f'{fd}: {arm}': mean for arm, mean in means.items()}
    rows |= {f'{fd}: {arm} ±': 10.0 for arm in means}
    for base, arm, change in (('a', 'b', -50.0), ('c', 'd', -100.0)):
        rows |= {f'{fd}: {base} Δ': 0.0, f'{fd}: {base} Δ±': 0.0}
        rows |= {f'{fd}: {arm} Δ': change, f'{fd}: {arm} Δ±': 5.0}

    def judged(ours: str, other: str):
        found = judge(Claim('', '', '', 'study', f'{fd}: {ours}', f'{fd}: {other}', 'larger'), rows)
        return found.difference, found.half

    assert judged('b', 'a') == (-50.0, 5.0)
    assert judged('d', 'c') == (-100.0, 5.0)
    assert judged('a', 'c') == (-1300.0, pytest.approx(200**0.5))  # two bases
    assert judged('b', 'c') == (-1350.0, pytest.approx(200**0.5))  # beside the other's


def test_what_is_no_number_is_not_measured():
    rows = {
        'eval/fd_x_9: x': math.nan,
        'eval/fd_x_9: y': 3.0,
        'eval/fd_x_9: x ±': 1.0,
        'eval/fd_x_9: y ±': 1.0,
    }
    assert judge(CLAIM, rows).word == 'not measured'
