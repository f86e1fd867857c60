"What tests of kernels run on, and skip visibly where it is not."

import copy
from contextlib import contextmanager
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
GPU_FLAGS = (
    '-DALIGNED=16',
    '-fsanitize=alignment',
)  # vectors lie where a GPU wants them, or it is said on stderr
SCHEDULES = 'forward', 'reverse', 'seeded'


def on(backend: str, *values):
    "Tensors and copies of modules where the backend wants them: a module's own `to` would move it itself."
    device = 'cuda' if backend == 'cuda' else 'cpu'
    return [(copy.deepcopy(v) if isinstance(v, torch.nn.Module) else v).to(device) for v in values]


@contextmanager
def planted(right: str, wrong: str):
    "A fault in the one part of the kernels that says `right`."
    (part,) = [name for name, text in kernels.PARTS.items() if right in text]
    text = kernels.PARTS[part]
    assert text.count(right) == 1
    kernels.PARTS[part] = text.replace(right, wrong)
    kernels.build_cpu.cache_clear()
    try:
        yield
    finally:
        kernels.PARTS[part] = text
        kernels.build_cpu.cache_clear()
