"""Kernels run on the CPU with a GPU's vectors of four floats, and say where a GPU would refuse one.

Run by `test_kernels.py` in a process of its own: a process cannot load any number of libraries.
"""

from dataclasses import replace

import pytest
import torch
from backends import GPU_FLAGS
from test_field_mma import asked_of, by_kernel
from test_kernels import agree, answered, double_all, how_of, march, mlp, points
from test_synthesis import backbone

from wysiwyg import fused_field as F, kernels
from wysiwyg.kernels import Ops


@pytest.fixture
def misaligned(monkeypatch, capfd):
    "The accesses so far that began off a multiple of 16 bytes."
    launch = kernels.launch_cpu

    def strict(kernel, grid, block, args, schedule='loop', **constants):
        vectors = dict(V=4) if 'V' in constants else {}
        launch(kernel, grid, block, args, schedule, **constants | vectors, extra=GPU_FLAGS)

    def said():
        return [line for line in capfd.readouterr().err.splitlines() if 'misaligned' in line]

    monkeypatch.setattr(kernels, 'launch_cpu', strict)
    return said


def test_the_field(misaligned):
    f, x = mlp(), march(23, 7)
    how = replace(F.FieldHow.forward('cpu'), wide=4)
    agree(answered(f, *x, how=how), answered(*double_all(f, *x)))
    assert not misaligned()


def test_the_field_on_tensor_cores(misaligned):
    f, (planes, *asked) = mlp(), march(23, 7)
    asked_of(by_kernel(how_of('cpu'), *asked), f, planes)
    assert not misaligned()


def test_a_lookup(misaligned):
    planes, x = torch.randn(2, 3, 12, 9, 11, requires_grad=True), points(2, 37)
    Ops('cpu').sample_planes(planes, x).sum().backward()
    assert not misaligned()


def test_the_backbone(misaligned):
    planes = Ops('cpu').synthesize(backbone(), torch.randn(3, 8, requires_grad=True))
    planes.sum().backward()
    assert not misaligned()
