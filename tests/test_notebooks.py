"Every notebook runs from top to bottom in a fresh kernel."

import os

import pytest
from notebooks import name, notebooks, run

SECONDS = float(os.environ.get('WYSIWYG_NOTEBOOK_SECONDS', 300))  # the aim is 90 on two busy cores


@pytest.mark.parametrize('path', notebooks(), ids=name)
def test_notebook(path):
    passed, took, said = run(path, SECONDS)
    assert passed, f'{name(path)} failed after {took:.0f} s\n{said[-6000:]}'
