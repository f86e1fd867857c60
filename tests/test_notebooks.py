"Every notebook runs from top to bottom in a kernel of its own."

import os

import pytest
from kernels import forked_kernels
from notebooks import execute, name, notebooks, plain, surroundings

from wysiwyg.executors import this_python

SECONDS = float(os.environ.get('WYSIWYG_NOTEBOOK_SECONDS', 300))  # the aim is 60 on two busy cores


@pytest.fixture(scope='module')
def kernels() -> type:
    return forked_kernels(this_python(), surroundings())


@pytest.mark.parametrize('path', notebooks(), ids=name)
def test_notebook(path, kernels):
    why = ''
    try:
        execute(path, SECONDS, env=surroundings(), kernels=kernels)
    except Exception as e:
        why = plain(str(e))[-6000:]
    if why:
        pytest.fail(f'{name(path)}\n{why}', pytrace=False)
