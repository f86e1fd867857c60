"Every notebook runs from top to bottom in a kernel of its own."

import os

import nbformat
import pytest
from kernels import forked_kernels
from notebooks import execute, name, notebooks, plain, surroundings

from wysiwyg.executors import this_python

SECONDS = float(os.environ.get('WYSIWYG_NOTEBOOK_SECONDS', 600))  # the aim is 90 on two busy cores


@pytest.fixture(scope='module')
def kernels() -> type:
    return forked_kernels(this_python(), surroundings())


@pytest.mark.parametrize('path', notebooks(), ids=name)
def test_notebook(path, kernels):
    why, env = '', surroundings()
    if path.parent.name == 'ablations' and path.stem != 'a01_paper_table':
        env['WYSIWYG_SHAPES'] = '0'  # the film and mesh of every arm: of one study's is enough
    try:
        execute(path, SECONDS, env=env, kernels=kernels)
    except Exception as e:
        why = plain(str(e) or repr(e))[-6000:]
    if why:
        pytest.fail(f'{name(path)}\n{why}', pytrace=False)


WAITS = """import threading

def waits():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

waits()"""


def test_a_cell_that_never_ends_says_where_it_stands(kernels, tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WAITS)])
    path = tmp_path / 'waits.ipynb'
    nbformat.write(nb, path)
    with pytest.raises(TimeoutError, match='no end within 2 s') as caught:
        execute(path, 2, env=surroundings(), kernels=kernels)
    assert 'in waits()' in plain(str(caught.value))
