"Other people's code beside ours, where a clone of it is at hand; none of it is in this kit."

import os
import subprocess
import sys

import pytest

MIMIC3D = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from training.networks_stylegan2 import aware3d
from wysiwyg.baselines.mimic3d import rolled_out
xy, xz, yz = planes = torch.randn(3, 2, 4, 6, 6)
ours = rolled_out(planes.transpose(0, 1))
theirs = aware3d([xy, yz, xz.mT]).unflatten(0, (-1, 3))  # their third plane is zx
theirs = torch.stack([theirs[:, 0], theirs[:, 2].mT, theirs[:, 1]], 1)
of_xy, of_yz, of_zx = theirs.chunk(3, 2)
assert torch.equal(torch.cat([of_xy, of_zx, of_yz], 2), ours)
"""


def clone_of(variable: str, repository: str) -> str:
    "The folder of the clone; skips where nobody says where it is."
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f'{variable} names no clone of github.com/{repository}')
    return folder


def run(*command):
    said = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def test_eg3d_is_the_generator_of_its_authors(root):
    code = clone_of('EG3D_CODE', 'NVlabs/eg3d')
    run(root / 'scripts' / 'eg3d_beside.py', code, '--sizes', '128')


def test_mimic3d_rolls_planes_out_as_its_authors_do():
    run('-c', MIMIC3D, clone_of('MIMIC3D_CODE', 'SeanChenxy/Mimic3D'))
