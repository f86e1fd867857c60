"What several tests share: a run and a generator in seconds, features that are pixels, the program here."

import shlex

import torch

from wysiwyg.cli import main
from wysiwyg.config import override, preset, tiny
from wysiwyg.core import rng
from wysiwyg.generator import Generator
from wysiwyg.method import WYSIWYG
from wysiwyg.metrics import Extractor

SMALL = {
    'backbone.channel_base': 128,
    'backbone.channel_max': 16,
    'backbone.plane_channels': 4,
    'backbone.plane_hidden': 4,
    'proposal.width': 8,
}
RUN = override(tiny(resolution=64), **SMALL)
PIXELS = Extractor('pixels', 16, 'a' * 64, lambda x: x.flatten(1) / 255)


def small_generator() -> Generator:
    "Of 32 pixels, that nobody has trained."
    torch.manual_seed(0)
    g = WYSIWYG.generator(override(preset('tiny'), **SMALL)).eval().requires_grad_(False)
    g.mapping.w_mean.normal_(generator=rng('w'))
    return g


def called(line: str, capsys) -> tuple[int, str, str]:
    "Exit code, stdout and stderr of a command line."
    try:
        code = main(shlex.split(line))
    except SystemExit as e:
        code = e.code
    return code, *capsys.readouterr()
