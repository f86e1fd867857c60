"The same quiet, deterministic surroundings for every test."

import os
import re
import sys
from pathlib import Path

os.environ.update(MLFLOW_DISABLE_TELEMETRY='true', DO_NOT_TRACK='true', MPLBACKEND='agg')
for name in 'MLFLOW_TRACKING_URI', 'MLFLOW_EXPERIMENT_NAME', 'WYSIWYG_HOME', 'WYSIWYG_RUNS':
    os.environ.pop(name, None)
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ['OMP_NUM_THREADS'] = '1'  # several workers share the cores
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'scripts'))

import hypothesis
import pytest
import torch
from backends import BACKENDS

hypothesis.settings.register_profile('house', deadline=None, derandomize=True, max_examples=25, database=None)
hypothesis.settings.load_profile('house')
ORDER = {'test_hygiene': 0, 'test_notebooks': 2}  # the cheap first; notebooks fill the gaps at the end
LONG = (
    'test_training test_tracking test_executors test_cli test_kernels test_same_curves test_distributed '
    'a04_tightness 20_inversion a01_paper_table a06_generalisation a08_loss_weights 16_metrics '
    'a03_proposal_cost a09_lighting a10_beyond a20_systems a21_ingredients a12_recipe a11_training_budget '
    'sa12_recipe 15a_loop 15_training a02_samples a07_sampler_knobs test_judges 16b_judges'
).split()  # the longest first, so that no worker ends with one while the other waits


def place(item) -> tuple[int, int]:
    "Where a test stands: by its file, then as `LONG` has its file or its notebook, others after those."
    known = [item.path.stem, *re.split(r'[][/]', item.name)]
    long = [LONG.index(name) for name in known if name in LONG]
    return ORDER.get(item.path.stem, 1), min(long, default=len(LONG))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    "A file's tests stay in one worker, for they share what is dear to make; a notebook is its own."
    items.sort(key=place)
    for item in items:
        if item.path.stem != 'test_notebooks':
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def same_seed():
    "Tests that forget a seed still repeat."
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def root() -> Path:
    return ROOT


@pytest.fixture(scope='module', params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope='module')
def poisoned():
    "Memory that nobody wrote to holds NaN, and the environment's choice of backend does not matter."
    torch.use_deterministic_algorithms(True, warn_only=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('WYSIWYG_IMPL', raising=False)
        yield
    torch.use_deterministic_algorithms(False)
