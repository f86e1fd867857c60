"The same quiet, deterministic surroundings for every test."

import os, sys
from pathlib import Path

os.environ.update(MLFLOW_DISABLE_TELEMETRY='true', DO_NOT_TRACK='true', MPLBACKEND='agg')
for name in 'MLFLOW_TRACKING_URI', 'MLFLOW_EXPERIMENT_NAME', 'WYSIWYG_HOME':
    os.environ.pop(name, None)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'scripts'))

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile('house', deadline=None, derandomize=True, max_examples=25, database=None)
hypothesis.settings.load_profile('house')


def pytest_collection_modifyitems(items):
    "Cheap rules first, notebooks next, so that what fails early fails soon."
    order = {'test_hygiene': 0, 'test_notebooks': 1}
    items.sort(key=lambda item: order.get(item.path.stem, 2))


@pytest.fixture(autouse=True)
def same_seed():
    "Tests that forget a seed still repeat."
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def root() -> Path:
    return ROOT
