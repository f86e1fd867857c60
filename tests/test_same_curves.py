"""Forty steps of `tiny` and of the last stage of `heads64`, by the published sampler, bit for bit.

python tests/test_same_curves.py    records them again in curves.json: only where new numbers are meant
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest
import torch

from wysiwyg.config import PUBLISHED, override, preset
from wysiwyg.data import Dataset
from wysiwyg.heads import render_heads
from wysiwyg.method import WYSIWYG
from wysiwyg.training import Trainer

CURVES = Path(__file__).with_name('curves.json')
STEPS, FEW = 40, 5  # bit for bit; where a machine rounds otherwise
COURSES = {'tiny': ('tiny', 9_000), 'heads64': ('heads64', 299_000)}  # preset, and where the schedule stands


def arithmetic() -> str:
    "A digest of what computes: torch, the processor, and how products and convolutions of many sizes round."
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    model = [line for line in lines if line.startswith('model name')][:1]
    digest = hashlib.sha256(repr((torch.__version__, model)).encode())
    for side in (4, 8, 16, 32, 64):
        x = torch.linspace(-1, 1, 4 * 16 * side**2).sin().reshape(4, 16, side, side).requires_grad_()
        w = torch.linspace(-1, 1, 32 * 16 * 9).cos().reshape(32, 16, 3, 3).requires_grad_()
        y = torch.nn.functional.conv2d(x, w, padding=1).exp()
        y.square().sum().backward()
        flat = y.detach().flatten(2)
        for part in (flat, x.grad, w.grad, flat.flatten(1) @ flat.flatten(1).T):
            digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def course(name: str, folder: Path, steps: int = STEPS) -> list[list[str]]:
    "Both losses of so many steps, exactly, and a digest of G's weights at the end, by WYSIWYG_IMPL=torch."
    start, images = COURSES[name]
    few = {'heads.n': 8, 'heads.workers': 1, 'train.batch': 4}
    run = override(preset(start), **PUBLISHED, **few)
    heads = render_heads(run.heads, folder / f'{name}.zip', False)
    t = Trainer(WYSIWYG, run, Dataset(heads, resolution=run.resolution), torch.device('cpu'))
    t.images = images
    values = [t.step() for _ in range(steps)]
    weights = b''.join(p.detach().numpy().tobytes() for p in t.g.parameters())
    curve = [[v['loss/D'].hex(), v['loss/adversarial'].hex()] for v in values]
    return [*curve, [hashlib.sha256(weights).hexdigest()[:16]]]


@pytest.fixture
def plain(monkeypatch):
    "Sums depend neither on a compiler's rounding, nor on who takes which part of them."
    monkeypatch.setenv('WYSIWYG_IMPL', 'torch')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize('name', COURSES)
def test_the_curves_are_the_recorded_ones(name, tmp_path, plain):
    recorded = json.loads(CURVES.read_text(encoding='utf8'))
    if recorded['arithmetic'] == arithmetic():
        assert course(name, tmp_path) == recorded[name]
        return
    print('this machine rounds otherwise than the one of the record: the first steps are compared')
    made = course(name, tmp_path, FEW)
    for step, (ours, theirs) in enumerate(zip(made[:FEW], recorded[name][:FEW])):
        for a, b in zip(ours, theirs):
            assert float.fromhex(a) == pytest.approx(float.fromhex(b), rel=1e-3 * 4**step, abs=1e-3)


if __name__ == '__main__':
    os.environ['WYSIWYG_IMPL'] = 'torch'
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made_in:
        found = {name: course(name, Path(made_in)) for name in COURSES}
    CURVES.write_text(json.dumps({'arithmetic': arithmetic()} | found, indent=None) + '\n', encoding='utf8')
