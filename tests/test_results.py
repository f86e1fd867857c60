"Results: pages that explain themselves, comparisons that star nothing unknown, records that come back whole."

import json
import math
import os
import re
from itertools import product

import numpy as np
import pandas as pd
import pytest

from wysiwyg import results
from wysiwyg.results import (
    _best,
    brief,
    briefs,
    _for_people,
    compare,
    comparisons,
    conclusion,
    _curve_names,
    _export_pictures,
    export_runs,
    heading,
    import_results,
    _import_rows,
    import_runs,
    interval_rows,
    _meanings,
    _newest_pictures,
    _pictures_file,
    read_study,
    score_cells,
    scores_page,
    _recorded_files,
    study_report,
    study_scores,
    run_pictures,
    _leader,
    _written,
)
from wysiwyg.study import run_study
from wysiwyg.tracking import Recorder, find_runs, open_store


@pytest.fixture(scope='module', autouse=True)
def store(tmp_path_factory):
    "A store of this module's own."
    before = os.environ.get('WYSIWYG_HOME')
    os.environ['WYSIWYG_HOME'] = str(tmp_path_factory.mktemp('home'))
    (results.data_dir() / 'results').mkdir(parents=True)
    yield open_store()
    if before is None:
        del os.environ['WYSIWYG_HOME']
    else:
        os.environ['WYSIWYG_HOME'] = before


PICTURE = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
NOTE = 'Who errs least?\n\n| arm | psnr |\n| --- | --- |\n| a | 31 |'


def measured(study: str, seeds=(0, 1)):
    "A study of two arms and its own run, without `run_study`."
    for arm, k in (('a', 1.0), ('b', 2.0)):
        for seed in seeds:
            with Recorder(study, arm, seed, {'k': k}) as r:
                for step in (5, 20):
                    r.metrics({'by_evaluations/psnr': 20.0 + step * k, 'by_evaluations/person0': 1.0}, step)
                r.metrics(
                    {
                        'eval/psnr_at_17.6_samples': 30.0 + k + seed,
                        'eval/psnr_view0': 5.0,
                        'eval/inverted_overlap': k / 2,
                        'eval/mine': k,
                    }
                )
                if arm == 'a':
                    r.metrics({'eval/psnr_within_20_evaluations': 40.0})
                r.image(PICTURE, 'look depth', 5)
                r.image(255 - PICTURE, 'look depth', 20)
    with Recorder(study, 'study') as r:
        r.note(NOTE)


@pytest.fixture(scope='module')
def study(store):
    measured('page')
    return 'page'


def test_a_comparison_stars_what_it_knows(study):
    table = compare(study, 'a')
    assert (
        table['eval/inverted_overlap', 'best'].tolist()
        == table['eval/psnr_at_17.6_samples', 'best'].tolist()
        == [False, True]
    )
    assert not table['eval/mine', 'best'].any()  # in no table: who knows which way is better
    text = _written(table, 'a')
    assert text.loc['b', 'psnr_within_20_evaluations'] == '–'
    assert text.loc['a', 'psnr_within_20_evaluations'] == '40 ± 0'  # measured alone


def test_a_judge_that_a_critic_shares_gets_no_star(store):
    "An arm that learned from a network's features is not best by them, and no other arm is best beside it."
    for arm, weight, fd in (('plain', 0.0, 300.0), ('smooth', 0.0, 290.0), ('features', 0.3, 200.0)):
        with Recorder('shared', arm, 0, {'schedule.features': [[0, 0.0], [900, weight]]}) as r:
            r.metrics({'eval/fd_efflite0at96_8': fd, 'eval/fd_headnet1_8': fd / 100})
    table = compare('shared', 'plain')
    assert not table['eval/fd_efflite0at96_8', 'best'].any()
    assert table['eval/fd_headnet1_8', 'best'].tolist() == [False, False, True]
    without = compare('shared', 'plain', arms=['plain', 'smooth'])
    assert without['eval/fd_efflite0at96_8', 'best'].tolist() == [False, True]


def test_an_arm_of_fewer_seeds_is_not_best(store):
    for arm, seeds in (('two', (0, 1)), ('lucky', (0,))):
        for seed in seeds:
            with Recorder('seeds', arm, seed, {'k': 1}) as r:
                r.metrics({'eval/psnr': 30.0 + (arm == 'lucky')})
    assert compare('seeds', 'two')['eval/psnr', 'best'].to_dict() == {'two': False, 'lucky': False}
    assert not compare('seeds', 'two', arms=['lucky'])['eval/psnr', 'best'].any()  # alone


@pytest.mark.parametrize('seeds_of_b', [(0,), (0, 1)])
def test_nobody_is_best_of_equals(store, seeds_of_b):
    for arm, seeds in (('a', (0,)), ('b', seeds_of_b)):
        for seed in seeds:
            with Recorder(f'equals {len(seeds_of_b)}', arm, seed, {'k': arm}) as r:
                r.metrics({'perf/samples': 0.1 + 0.2 if arm == 'a' else 0.3})
    table = compare(f'equals {len(seeds_of_b)}', 'a', ['perf/samples'])
    assert not table['perf/samples', 'best'].any()


@pytest.mark.parametrize(
    ('scores', 'whole', 'best'),
    [
        ([2.0, 2.0, 9.0], 'yes yes no', 0),  # what most have is nobody's merit
        ([2.0, 2.0, 1.0, 1.0], 'yes yes no no', 0),
        ([2.0, 2.0, 1.0, 1.0], 'yes yes yes yes', 2),
        ([-1.0, -2.0, -1e12], 'yes yes yes', 1),  # one that diverged makes nobody equal
        ([2.0, 1.0], 'yes yes', 1),
        ([2.0], 'yes', 0),  # alone
        ([2.0, math.nan, math.nan], 'yes no no', 0),
        ([2.0, 1.0, math.nan], 'yes no no', 0),
        ([2.0, 2.0, math.nan, math.nan], 'yes no no no', 0),
        ([math.nan, math.nan], 'yes yes', 0),
    ],
)
def test_most_are_not_best(scores, whole, best):
    of_most_seeds = pd.Series([word == 'yes' for word in whole.split()])
    assert _best(pd.Series(scores), of_most_seeds).sum() == best


def test_a_pair_told_twice_is_compared_once(study):
    runs = read_study(study)
    found = comparisons(runs, 'a', pairs=[('b', 'a', ['eval/mine']), ('b', 'a', ['eval/mine'])])
    assert found == [('a', ['eval/mine'], ['a', 'b'])]


def test_a_study_without_scores_has_nothing_to_compare(store, tmp_path):
    for arm in 'ab':
        with Recorder('times', arm) as r:
            r.metrics({'perf/ms': 3.0})
    with Recorder('times', 'study'):
        pass
    for of in (compare, study_report):
        with pytest.raises(ValueError, match='times has no metric eval/...: there is nothing to compare'):
            of('times', 'a')
    file = export_runs('times')
    other = tmp_path / 'gone.runs.json'
    text = file.read_text(encoding='utf8').replace('"times"', '"gone"')
    for run in json.loads(text):
        text = text.replace(run['run_id'], run['run_id'][::-1])
    other.write_text(text, encoding='utf8')
    assert set(import_runs(other).values()) == {'imported'}
    assert not _pictures_file('times').exists()


def test_a_page_shows_what_the_baseline_has_and_no_single_views(study):
    assert study_scores(read_study(study), 'a') == [
        'eval/inverted_overlap',
        'eval/mine',
        'eval/psnr_at_17.6_samples',
        'eval/psnr_within_20_evaluations',
    ]
    assert 'eval/psnr_within_20_evaluations' not in study_scores(read_study(study), 'b')
    assert study_scores(read_study(study), 'nobody') == []


def test_a_seed_without_a_score_takes_no_more_than_itself(store):
    "What one seed did not measure is compared by the others, and dashes stand where no seed measured both."
    measured_in = {'a': (1, 2), 'b': (0, 1, 2), 'c': (0,)}
    for (arm, seeds), seed in product(measured_in.items(), range(3)):
        with Recorder('gaps', arm, seed) as r:
            r.metrics({'eval/consistency_share': 0.5})
            if seed in seeds:
                r.metrics({'eval/consistency_psnr': 30.0 + (arm != 'a') + seed})
    name = 'eval/consistency_psnr'
    assert name in study_scores(read_study('gaps'), 'a')
    table = compare('gaps', 'a')
    assert table[name, 'mean'].tolist() == [31.5, 32.0, 31.0]
    assert table[name, 'Δ'].dropna().to_dict() == {'a': 0, 'b': 1}
    assert table[name, 'noise'].tolist() == [None, False, None]
    assert _written(table, 'a').loc['c', 'consistency_psnr'] == '31 of 1 seed (–)'
    assert 'nan' not in brief('gaps', 'a') and '>nan' not in study_report('gaps', 'a')
    rows = {row['what'] for row in interval_rows(table)}
    assert f'{name}: c' in rows and f'{name}: c Δ' not in rows


def test_heads_explain_themselves():
    assert heading('eval/psnr_at_17.6_samples') == 'psnr_at_17.6_samples ↑ (dB)'
    assert heading('eval/mine') == 'mine'
    assert heading('eval/normal_fd_efflite0at96_48') == 'normal_fd_efflite0at96_48 ↓'
    assert list(_meanings(['eval/mine', 'eval/fog'])) == ['fog ↓ (% of rays)']


def test_the_page_needs_neither_script_nor_network(study):
    page = study_report(study, 'a', note='<b>why</b>')
    assert '&lt;b&gt;why' in page
    assert not re.search(r'<script|src="http|href="http', page)
    assert len(page) < 200_000
    assert page.count('<img') == 2
    assert page.count('<svg') == 2
    assert 'psnr_view0' not in page
    assert 'at 17.6 samples per ray in the final pass' in page
    assert 'field evaluations per ray' in page


def test_a_narrow_page_has_few_columns(study):
    text = brief(study, 'a', most=2)
    assert text.splitlines()[0] == '| arm | inverted_overlap ↑ (share) | mine |'
    assert text.endswith('2 more metrics in compare.html.')
    assert '- inverted_overlap ↑ (share): silhouettes of an inverted head' in text
    assert '- inverted_overlap: b leads, +0.5 against a, beyond its 95 % interval.' in text
    assert '- mine:' not in text  # nobody knows which way is better
    assert '- inverted_overlap: no arm is better than b.' in brief(study, 'b', most=1)


def test_distances_come_first_on_a_narrow_page():
    for arm, k in (('a', 1.0), ('b', 2.0)):
        with Recorder('distances', arm, params={'k': k}) as r:
            r.metrics({'eval/coverage': k, 'eval/fd_headnet1_8': k}, 0)
    assert brief('distances', 'a', most=1).startswith('| arm | fd_headnet1_8 ↓ |')
    assert brief('distances', 'a', ['eval/coverage'], most=1).startswith('| arm | coverage')


@pytest.mark.parametrize(
    'noise, said', [(None, 'perhaps by chance'), (True, 'may be noise'), (False, 'beyond')]
)
def test_a_lead_says_what_it_is_worth(noise, said):
    columns = pd.DataFrame({'Δ': [0.0, 2.0], 'noise': [None, noise], 'best': [False, True]}, index=['a', 'b'])
    samples = pd.DataFrame({'mean': [16.0, 96.0], 'Δ': [0.0, 80.0]}, index=['a', 'b'])

    def lead(columns, **more) -> str:
        return _leader(pd.concat({'eval/psnr': columns} | more, axis=1), 'eval/psnr', 'a')

    assert lead(columns.assign(Δ=[0.0, -2.0])) == '- psnr: no arm is better than a.'
    assert lead(columns.assign(best=[True, False])) == '- psnr: no arm of as many seeds is better than a.'
    assert lead(columns.assign(Δ=math.nan)) == ''
    assert re.fullmatch(rf'- psnr: b leads, \+2 against a, .*{said}.*', lead(columns))
    ahead = pd.concat([columns, pd.DataFrame({'Δ': [9.0], 'noise': [None], 'best': [False]}, index=['c'])])
    assert lead(ahead).startswith('- psnr: b leads the arms of as many seeds, +2 against a, ')
    dear = lead(columns, **{'eval/samples': samples})
    assert dear.startswith('- psnr: b leads, +2 against a (samples 96, a 16), ')
    assert ' (' not in lead(columns, **{'eval/samples': samples.assign(Δ=0.0)})
    unknown = samples.assign(mean=math.nan)
    assert lead(columns, **{'eval/samples': samples, 'eval/with_probe': unknown}) == dear
    assert ' (' not in lead(columns, **{'eval/samples': unknown})


def test_cells_show_parameters_as_they_were_given():
    given = 0.0, 16.0, 1234567.0, 0.1 + 0.2, 3, '', 'cnn'
    assert [*map(_for_people, given)] == ['0', '16', '1234567', '0.3', '3', '', 'cnn']


def test_a_page_is_of_the_seeds_that_were_asked_for(store):
    "Another's runs of the same configuration, imported say, are another page's."
    arms = {'a': {'k': 1}, 'b': {'k': 2}}
    for seed, extra in ((1, 10.0), (2, 20.0)):
        for arm, params in arms.items():
            with Recorder('seeded', arm, seed, params) as r:
                r.metrics({'eval/psnr': extra * params['k']}, 0)
    run_study('seeded', arms, lambda r, p, seed: {'eval/psnr': 3.0 * p['k']}, [0])
    (own,) = find_runs(open_store(), 'seeded', arm='study')
    assert '| b | 6 (+3) ★ |' in own.data.tags['mlflow.note.content']
    every = compare('seeded', 'a', where={'seed': {1, 2}})
    assert every['eval/psnr', 'mean'].to_dict() == {'a': 15.0, 'b': 30.0}
    assert compare('seeded', 'a', where={'seed': frozenset({1, 2}), 'k': {1, 2}}).equals(every)


def test_one_seed_among_several_is_said(store):
    for arm, seeds in (('a', (0, 1)), ('b', (0,))):
        for seed in seeds:
            with Recorder('once', arm, seed, {'k': arm}) as r:
                r.metrics({'eval/psnr': 30.0 + seed}, 0)
    text = _written(compare('once', 'a'), 'a').psnr
    assert text['b'] == '30 of 1 seed (+0)'
    assert text['a'].startswith('30.5 ± ')


def test_a_metric_whose_network_a_critic_read_comes_last_of_the_distances(store):
    for arm, weight in (('plain', 0.0), ('features', 0.3)):
        with Recorder('order', arm, 0, {'schedule.features': [[0, weight]]}) as r:
            r.metrics({'eval/fd_efflite0at96_8': 1.0, 'eval/fd_headnet1_8': 1.0, 'eval/beta': 1.0}, 0)
    head = brief('order', 'plain').splitlines()[0]
    assert head == '| arm | fd_headnet1_8 ↓ | fd_efflite0at96_8 ↓ | beta (world units) |'
    alone = brief('order', 'plain', arms=['plain']).splitlines()[0]
    assert alone == '| arm | fd_efflite0at96_8 ↓ | fd_headnet1_8 ↓ | beta (world units) |'
    assert not conclusion('order', 'plain', pairs=[('plain', 'nobody', ['eval/beta'])], link='x')


def test_pages_tell_each_meaning_once_and_head_each_comparison(store):
    for arm, psnr in (('a', 1.0), ('b', 2.0), ('c', 3.0)):
        with Recorder('grouped', arm, params={'k': arm}) as r:
            r.metrics({'eval/psnr': psnr, 'eval/fog': psnr}, 0)
    pairs = [('b', 'a', ['eval/psnr']), ('c', 'b', ['eval/psnr', 'eval/fog'])]
    text = briefs('grouped', comparisons(read_study('grouped'), 'a', pairs=pairs))
    assert re.findall(r'^\*\*(.*)\*\*$', text, re.MULTILINE) == ['b beside a', 'c beside b']
    assert (text.count('- psnr ↑ (dB): '), text.count('- fog ↓ (% of rays): ')) == (1, 1)
    page = study_report('grouped', 'a', pairs=pairs)
    assert page.count('what the metrics mean') == page.count('<dt>psnr') == page.count('<dt>fog') == 1
    assert page.count('1 seed, so no ±') == 2


@pytest.mark.parametrize(
    'have, shown',
    [
        (
            [
                'train/D/fake',
                'train/D/real',
                'train/D/sign',
                'train/geometry/beta',
                'train/loss/D',
                'train/loss/adversarial',
            ],
            ['train/loss/adversarial', 'train/loss/D', 'train/geometry/beta'],
        ),
        (
            ['by_evaluations/depth_error', 'by_evaluations/person0', 'by_evaluations/psnr', 'train/loss/D'],
            ['by_evaluations/psnr', 'by_evaluations/depth_error', 'train/loss/D'],
        ),
        (['train/cross_entropy', 'eval/psnr'], ['train/cross_entropy']),
        (['eval/psnr'], []),
    ],
)
def test_curves_are_a_loss_and_beta_or_error_against_what_was_spent(have, shown):
    import pandas as pd

    assert _curve_names(pd.DataFrame({k: [1.0] for k in have})) == shown


def test_pictures_of_either_kind_are_found(study, store):
    from PIL import Image

    (run,) = find_runs(store, study, arm='a', seed=0)
    assert _newest_pictures(run.info.run_id)['look depth'][0] == 20
    with Recorder('older', 'a') as r:
        pass
    store.log_image(
        r.id, Image.fromarray(PICTURE), artifact_file='images/look depth-0000000032.png'
    )  # as earlier versions named them
    assert list(run_pictures(r.id)) == ['depth']


def moved(study: str, to: str, tmp_path):
    "The exported files of a study as another store would have written them."
    file, kept = export_runs(study), _pictures_file(study)
    text, pictures = (
        file.read_text(encoding='utf8'),
        kept.read_text(encoding='utf8') if kept.exists() else '[]',
    )
    text = text.replace(f'"{study}"', f'"{to}"')
    for run in json.loads(text):
        text, pictures = [t.replace(run['run_id'], run['run_id'][::-1]) for t in (text, pictures)]
    (tmp_path / f'{to}.runs.json').write_text(text, encoding='utf8')
    (tmp_path / f'{to}.pictures.json').write_text(pictures, encoding='utf8')
    return tmp_path / f'{to}.runs.json'


def test_a_study_comes_back_with_pictures_report_and_description(study, store, tmp_path, monkeypatch):
    file = moved(study, 'elsewhere', tmp_path)
    assert import_results([file]) == {'elsewhere.runs.json': ['imported'] * 5}
    mine, theirs = [read_study(s).set_index(['arm', 'seed']).sort_index() for s in (study, 'elsewhere')]
    assert (mine['eval/psnr_at_17.6_samples'] == theirs['eval/psnr_at_17.6_samples']).all()
    assert (mine.config_sha == theirs.config_sha).all()
    step, png = _newest_pictures(theirs.loc[('a', 0), 'run_id'])['look depth']
    assert step == 20
    assert png[:4] == b'\x89PNG'
    assert not _newest_pictures(theirs.loc[('a', 1), 'run_id'])  # of each arm's first seed
    (own,) = find_runs(store, 'elsewhere', arm='study')
    page = open(
        store.download_artifacts(own.info.run_id, 'compare.html', str(tmp_path)), encoding='utf8'
    ).read()
    assert 'Who errs least?' in page
    assert page.count('<img') == 2
    assert '<svg' in page
    note = own.data.tags['mlflow.note.content']
    opening, table, *_, link = note.split('\n\n')
    assert opening == 'Who errs least?' and table.startswith('| arm | inverted_overlap ↑ (share) |')
    assert link.endswith(f'/runs/{own.info.run_id}/artifacts/compare.html?workflowType=machine_learning).')
    assert store.get_experiment(own.info.experiment_id).tags['mlflow.note.content'] == note
    searches, search = [], results.find_runs
    monkeypatch.setattr(results, 'find_runs', lambda *a, **k: searches.append(a) or search(*a, **k))
    monkeypatch.setattr(results, '_import_page', lambda *a: pytest.fail('made a page again'))
    assert import_runs(file) == dict.fromkeys(import_runs(file), 'there')
    assert len(searches) == 2  # one search a study and import


def test_an_imported_page_keeps_its_opening_and_its_failures(store, tmp_path):
    def measure(r, p, seed):
        if (p['k'], seed) == (2, 1):
            raise ValueError('boom')
        return {'eval/psnr': 3.0 * p['k']}

    asked = '**Why?** Because it matters.\n\nIn two paragraphs.'
    run_study('bold', {'a': {'k': 1}, 'b': {'k': 2}}, measure, [0, 1], note=asked)
    (own,) = find_runs(store, 'bold', arm='study')
    import_runs(moved('bold', 'emboldened', tmp_path))
    (theirs,) = find_runs(store, 'emboldened', arm='study')
    before, after = [run.data.tags['mlflow.note.content'] for run in (own, theirs)]
    assert before.replace(own.info.run_id, '').split('\n\n')[:3] == after.split('\n\n')[:3]
    assert after.endswith('- **b-s1** failed: ValueError: boom')
    file, (run,) = export_runs('bold'), find_runs(store, 'bold', arm='b', seed=0)
    store.set_tag(own.info.run_id, 'mlflow.note.content', 'mine')
    store.delete_run(run.info.run_id)
    assert import_runs(file)['b-s0'] == 'imported'
    assert store.get_run(own.info.run_id).data.tags['mlflow.note.content'] == 'mine'


def test_pictures_keep_to_their_budget(study, store):
    runs = [r for r in find_runs(store, study) if r.data.tags['wysiwyg.arm'] != 'study']
    assert _export_pictures(study, runs, budget=10) is None
    kept = json.loads(_export_pictures(study, runs).read_text(encoding='utf8'))
    assert [x['name'] for x in kept] == ['look depth'] * 2
    assert _pictures_file(study).stat().st_size < 100_000


def rows_of(name: str, rows: dict) -> None:
    made = {
        'unit': '',
        'bound': None,
        'holds': None,
        'command': f'wysiwyg eval --record {name}',
        'hardware': 'x86_64',
        'versions': 'torch',
        'commit': 'abc',
        'date': '2026-11-21',
    }
    path = results.data_dir() / 'results' / f'{name}.json'
    path.write_text(json.dumps([{'what': k, 'value': v} | made for k, v in rows.items()]), encoding='utf8')
    return path


def test_an_evaluation_becomes_a_run(store):
    path = rows_of('shipped', {'eval/fd_x_500': 40.5, 'eval_low/fd_x_500': 39.0, 'floor/fd_x_500': 3.0})
    other = rows_of('a77_table', {'eval/psnr: full': 40.0})
    assert path in _recorded_files()
    assert other not in _recorded_files()
    assert _import_rows(path) == {'shipped': 'imported'}
    assert _import_rows(path) == {'shipped': 'there'}
    (run,) = find_runs(store, 'eval', arm='shipped')
    assert run.data.metrics == {'eval/fd_x_500': 40.5, 'eval_low/fd_x_500': 39.0, 'floor/fd_x_500': 3.0}
    assert run.info.status == 'FINISHED'
    assert run.data.tags['wysiwyg.commit'] == 'abc'
    assert run.data.params['command'] == 'wysiwyg eval --record shipped'
    rows_of('shipped', {'eval/fd_x_500': 41.0})  # measured again: another run
    assert import_results([path]) == {'shipped.json': ['imported']}
    assert len(find_runs(store, 'eval', arm='shipped')) == 2
    with pytest.raises(ValueError, match='neither exported runs nor rows of `wysiwyg eval`'):
        _import_rows(other)


def test_the_projects_own_files_can_be_imported(monkeypatch):
    monkeypatch.delenv('WYSIWYG_HOME')
    names = {f.name for f in _recorded_files()}
    assert {'shipped.json', 'start.json', 'tiny_0.json', 'tiny_start.json', 'a02_samples.runs.json'} <= names
    assert not {'a02_samples.json', 'bench_cpu.json'} & names


def pair_study(**options) -> dict[str, str]:
    "Two pairs of one question each; the last arm fails where it is told to."

    def measure(recorder, p, seed):
        if p.get('fails'):
            raise RuntimeError('no memory')
        own = {'eval/flicker': p['k']} if p['of'] == 'x' else {'eval/branch_agreement': 10 + p['k']}
        return own | {'eval/render_psnr': 30.0 + p['k'] + seed, 'eval/fog': p['k']}

    arms = {f'{of} {k}': {'of': of, 'k': k} for of in 'xy' for k in (1, 2)}
    arms['z'] = {'of': 'z', 'k': 1, 'fails': True}
    shared = ['eval/render_psnr', 'eval/never']
    pairs = [('x 2', 'x 1', ['eval/flicker', *shared]), ('y 2', 'y 1', ['eval/branch_agreement', *shared])]
    return run_study('pairs', arms, measure, (0, 1), pairs=[*pairs, ('z', 'x 1', shared)], **options)


def test_a_study_of_pairs_compares_these_alone(store, tmp_path):
    pair_study(executor='local')
    (own,) = find_runs(store, 'pairs', arm='study')
    note = own.data.tags['mlflow.note.content']
    first, second = [part for part in note.split('\n\n') if part.startswith('| arm')]
    assert first.splitlines()[0] == '| arm | flicker ↓ | render_psnr ↑ (dB) |'
    assert second.splitlines()[0] == '| arm | branch_agreement ↑ (dB) | render_psnr ↑ (dB) |'
    assert [line.split(' | ')[0] for line in second.splitlines()[2:]] == ['| y 1', '| y 2']
    assert '(+1)' in second and 'fog' not in note
    assert note.count('- render_psnr ↑ (dB): ') == 1  # of both pairs

    def page_of(run) -> str:
        path = store.download_artifacts(run.info.run_id, 'compare.html', str(tmp_path))
        return open(path, encoding='utf8').read()

    page = page_of(own)
    assert page.count('<table>') == 2 and '<h2>y 2 beside y 1</h2>' in page
    assert 'branch_<wbr>agreement' in page and 'fog' not in page
    tables = re.findall('<table>.*?</table>', page)
    assert ['x 1' in table for table in tables] == [True, False]
    file = export_runs('pairs')
    text = file.read_text(encoding='utf8').replace('"pairs"', '"again"')
    for run in json.loads(text):
        text = text.replace(run['run_id'], run['run_id'][::-1])
    other = tmp_path / 'again.runs.json'
    other.write_text(text, encoding='utf8')
    import_runs(other)
    (imported,) = find_runs(store, 'again', arm='study')
    assert page_of(imported).count('<table>') == 2


def test_a_pair_names_arms_of_the_study(store):
    with pytest.raises(ValueError, match="an arm of a pair must be one of a, b, got 'c'"):
        run_study('odd', {'a': {'k': 1}, 'b': {'k': 2}}, lambda *a: {}, pairs=[('c', 'a', ['eval/fog'])])


@pytest.mark.parametrize(
    'pair, why',
    [
        (('a', 'a', ['eval/fog']), "the pair of 'a' and 'a' is one arm"),
        (('a', 'b', 'eval/fog'), "needs a list of quantities, got 'eval/fog'"),
        (('a', 'b', []), 'needs a list of quantities'),
        (('a', 'b', ['eval/fog'] * 500), '1 pairs take over 5000 characters'),
    ],
)
def test_a_pair_that_compares_nothing_is_refused(store, pair, why):
    with pytest.raises(ValueError, match=why):
        run_study('odd', {'a': {'k': 1}, 'b': {'k': 2}}, lambda *a: {}, pairs=[pair])


def test_other_pairs_make_another_page_of_the_same_runs(store):
    arms = {name: {'k': k} for k, name in enumerate('abc')}

    def measure(recorder, p, seed):
        return {'eval/flicker': float(p['k'] + seed)}

    def page(pairs) -> str:
        run_study('again', arms, measure, (0, 1), pairs=pairs)
        pages = find_runs(store, 'again', arm='study')
        newest = max(pages, key=lambda run: run.info.start_time)
        return newest.data.tags['mlflow.note.content']

    chained = page(zip('bc', 'ab', [['eval/flicker']] * 2))
    assert chained.count('| arm |') == 2
    assert page(()).count('| arm |') == 1
    assert page([('b', 'a', {'eval/flicker'})]).count('\n| c |') == 0


def test_nan_is_no_score(study):
    assert math.isnan(compare(study, 'a').loc['b', ('eval/psnr_within_20_evaluations', 'mean')])


@pytest.mark.parametrize(
    'text, why', [('[', 'bad.runs.json is not JSON'), ('[]', 'bad.runs.json holds no run')]
)
def test_a_broken_file_is_named(text, why, tmp_path, store):
    path = tmp_path / 'bad.runs.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=why):
        import_results([path])


def test_a_score_without_an_interval_has_a_dash():
    whole = {'eval/x': 1.50001, 'eval_low/x': 1.25, 'eval_high/x': 2.0, 'floor/x': 0.5}
    assert score_cells(whole, 'eval/x') == ['1.5', '1.25 to 2', '0.5']
    for name in ('eval_low/x', 'eval_high/x'):
        assert score_cells(whole | {name: math.nan}, 'eval/x') == ['1.5', '–', '0.5']
        some = {key: value for key, value in whole.items() if key != name}
        assert score_cells(some, 'eval/x')[1] == '–'
    assert score_cells(whole | {'eval_high/x': 1.25001}, 'eval/x')[1] == '1.25, no spread'
    assert score_cells({'eval/x': math.nan}, 'eval/x') == ['–', '–', '–']


def test_a_page_of_scores_keeps_numbers_whole_and_says_what_a_floor_is():
    scores = {'eval/x': 1.5, 'eval_low/x': 1.25, 'eval_high/x': 2.0}
    head, line, row = scores_page(scores).replace('\u00a0', '_').splitlines()
    assert (line, row) == ('| --- | ---: | ---: | ---: |', '| x__ | 1.5__ | 1.25_to_2__ | –__ |')
    *_, blank, floor = scores_page(scores | {'floor/x': 0.5}).splitlines()
    assert blank == '' and floor.startswith('The floor of a metric is')
    row, blank, meaning = scores_page({'eval/fog': 3.0}).replace('\u00a0', '_').splitlines()[2:]
    assert row == '| fog_↓_(%_of_rays)__ | 3__ | –__ | –__ |'
    assert meaning == '- fog ↓ (% of rays): rays neither stopped nor free: opacity between .1 and .9'


def test_every_metric_of_a_page_means_something_else():
    kinds = [f'eval/{of}{name}_1' for name in ('coverage_a', 'precision_a', 'fd_a') for of in OF_HEADS]
    page = scores_page(dict.fromkeys(kinds, 1.0))
    told = [line.split(': ', 1)[1] for line in page.splitlines() if line.startswith('- ')]
    assert len(set(told)) == len(told) == 9


OF_HEADS = '', 'normal_', 'shape_'
