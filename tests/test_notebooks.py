"Every notebook runs from top to bottom in a fresh kernel, two at a time."

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from notebooks import name, notebooks, run

SECONDS = float(os.environ.get('WYSIWYG_NOTEBOOK_SECONDS', 300))  # the aim is 90 on two busy cores


@pytest.fixture(scope='module')
def running(request):
    "The notebooks of this session's tests, all handed to two workers at once."
    chosen = [item.callspec.params['path'] for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(2) as pool:
        yield {path: pool.submit(run, path, SECONDS) for path in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize('path', notebooks(), ids=name)
def test_notebook(path, running, capfd):
    passed, took, said = running[path].result()
    with capfd.disabled():
        print(f' {took:.0f} s ', end='', flush=True)
    assert passed, f'{name(path)} failed after {took:.0f} s\n{said[-6000:]}'
