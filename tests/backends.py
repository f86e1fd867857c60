"What tests of kernels run on, and skip visibly where it is not."

from importlib.util import find_spec

import pytest
import torch

from wysiwyg import kernels

NO_GPU = not (torch.cuda.is_available() and find_spec('cupy'))
needs_compiler = pytest.mark.skipif(not kernels.compiler(), reason='no g++')
needs_gpu = pytest.mark.skipif(NO_GPU, reason='no CUDA device with CuPy')
BACKENDS = [
    pytest.param('cpu', marks=needs_compiler),
    pytest.param('cuda', marks=[pytest.mark.cuda, needs_gpu]),
]
SCHEDULES = 'forward', 'reverse', 'seeded'


def on(backend: str, *values):
    "Tensors and modules where the backend wants them."
    return [v.to('cuda' if backend == 'cuda' else 'cpu') for v in values]
