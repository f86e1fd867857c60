"Every notebook runs from top to bottom in a fresh kernel."

import os

import pytest
from notebooks import execute, name, notebooks, plain, surroundings

SECONDS = float(os.environ.get('WYSIWYG_NOTEBOOK_SECONDS', 300))  # the aim is 60 on two busy cores


@pytest.mark.parametrize('path', notebooks(), ids=name)
def test_notebook(path):
    try:
        execute(path, SECONDS, env=surroundings())
    except Exception as e:
        pytest.fail(f'{name(path)}\n{plain(str(e))[-6000:]}', pytrace=False)
