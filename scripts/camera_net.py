"""Train the network that finds a head's camera, and write data/camera_net.safetensors.

It begins as headnet1's network of pictures and learns yaw and pitch alone, of rendered heads with a
wide spread of cameras and of the training set. Set _CAMERA_NET_SHA of 16c_readers to the digest that
is printed.

python scripts/camera_net.py [--heads 4000] [--sets 1] [--seed 77] [--out FILE]

Rendering takes some four minutes, training twelve on one core.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from wysiwyg.camera import camera_angles
from wysiwyg.config import HeadsConfig, preset
from wysiwyg.core import Camera, file_sha
from wysiwyg.data import Dataset
from wysiwyg.generator import save_tensors
from wysiwyg.heads import render_heads
from wysiwyg.judges import SIDE, headnet_path
from wysiwyg.readers import MIRRORED, CameraNet, camera_net_path

BATCH = 32
KEPT = 400  # heads that only tell how well the camera is found
WIDEST = 1.4  # radians of yaw that are learned


@dataclass(frozen=True)
class Course:
    "A pass of training."

    epochs: int
    rate: float
    warm: float  # share of the steps in which the rate grows
    beta: float  # radians; errors below it count by their square
    light: float  # how far pictures are spoiled: by factors around 1,
    cast: float  # by a colour over all, of 255,
    grain: float  # and by noise, of 255


COURSES = (
    Course(18, 2e-3, 0.15, 0.05, 0.1, 8, 4),
    Course(12, 1.5e-3, 0.1, 0.02, 0.04, 3, 2),
)


def spoiled(x: Tensor, c: Course) -> Tensor:  # [b, 3, R, R] in [0, 255]
    "Pictures in other light, with some noise."
    light = 1 + c.light * torch.randn(len(x), 1, 1, 1)
    cast = c.cast * torch.randn(len(x), 3, 1, 1)
    grain = c.grain * torch.rand(len(x), 1, 1, 1) * torch.randn(x.shape)
    return x * light + cast + grain


def flipped(x: Tensor, which: Tensor) -> Tensor:  # [b, ..., 64, 64], [b] bool
    "Those rows mirrored that are asked."
    rows = which.reshape(-1, *[1] * (x.ndim - 1))
    return torch.where(rows, x.flip(-1), x)


def mirrored(x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    "Half of the pictures mirrored, with the angles of the mirrored cameras."
    half = torch.rand(len(x)) < 0.5
    return flipped(x, half), torch.where(half[:, None], angles * MIRRORED, angles)


@torch.no_grad()
def told(net: CameraNet, images: Tensor, angles: Tensor) -> str:
    "Median and 90 % of the errors of yaw and pitch, degrees."
    wrong = (net(images.float()) - angles).norm(dim=1).rad2deg()
    return f'median {wrong.median():.2f}, 90 % within {wrong.quantile(0.9):.2f} degrees'


def known_layers() -> dict[str, Tensor]:
    "The convolutions of headnet1 that see pictures."
    tensors, own = load_file(headnet_path()), 'picture.layers.'
    return {name.removeprefix(own): x.float() for name, x in tensors.items() if name.startswith(own)}


def start() -> CameraNet:
    "Layers that know pictures, and an answer of 0."
    net = CameraNet()
    net.layers.load_state_dict(known_layers())
    torch.nn.init.zeros_(net.read.weight)
    torch.nn.init.zeros_(net.read.bias)
    return net.to(memory_format=torch.channels_last)


def fit(
    net: nn.Module, rows: tuple[Tensor, ...], course: Course, decay: float, loss_of: Callable, told: Callable
):
    """Improve a network by loss_of(net, course, *rows of a batch), the pictures the first of them.

    The first KEPT of all are only asked: told(net, *rows) says how well they are read.
    """
    count = len(rows[0]) - KEPT
    adam = torch.optim.AdamW(net.parameters(), weight_decay=decay)
    steps = course.epochs * (count // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, course.rate, steps, pct_start=course.warm)
    begun = time.time()
    for epoch in range(course.epochs):
        net.train()
        order = KEPT + torch.randperm(count)
        for index in order[: count // BATCH * BATCH].split(BATCH):
            loss = loss_of(net, course, *[x[index] for x in rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            rate.step()
        said = told(net.eval(), *[x[:KEPT] for x in rows])
        print(f'{epoch + 1}/{course.epochs}: {said}, {time.time() - begun:.0f} s', flush=True)


def read(net: nn.Module, x: Tensor, course: Course):
    "What a network says of pictures in other light."
    return net(spoiled(x, course).contiguous(memory_format=torch.channels_last))


def camera_loss(net: CameraNet, course: Course, images: Tensor, angles: Tensor) -> Tensor:
    x, wanted = mirrored(images.float(), angles)
    return F.smooth_l1_loss(read(net, x, course), wanted, beta=course.beta)


def train(net: CameraNet, images: Tensor, angles: Tensor, course: Course):
    "Regression of yaw and pitch."
    fit(net, (images, angles), course, 0.05, camera_loss, told)


def heads(config: HeadsConfig) -> tuple[Tensor, Tensor]:
    "Pictures and angles of a set, without those from far behind."
    data = Dataset(render_heads(config))
    angles, index = angles_of(data)
    return data.images(index), angles[index]


def angles_of(data: Dataset) -> tuple[Tensor, Tensor]:  # [n, 2], [m]
    "Yaw and pitch of all pictures, and which of them are not from far behind."
    angles = camera_angles(Camera.from_label(data.camera_labels))
    return angles, torch.nonzero(angles[:, 0].abs() < WIDEST)[:, 0]


def wide_heads(n: int, seed: int) -> HeadsConfig:
    "Heads from more sides than a preset's."
    return HeadsConfig(n=n, resolution=SIDE, seed=seed, yaw_std=0.5, pitch_std=0.2)


def asked(about: str, out: Path) -> argparse.Namespace:
    "The options of a script whose network goes to `out`."
    ask = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--heads', type=int, default=4000, help='of a set')
    ask.add_argument('--sets', type=int, default=1, help='each of other people, with the next seed')
    ask.add_argument('--seed', type=int, default=77, help='of heads that no preset trains on')
    ask.add_argument('--out', type=Path, default=out)
    a = ask.parse_args()
    if min(a.heads, a.sets) < 1:
        ask.error('--heads and --sets are at least 1')
    return a


def all_sets(a: argparse.Namespace, heads: Callable) -> list[Tensor]:
    "What `heads` has of the wide sets and of the training set, one after the other."
    wide = [wide_heads(a.heads, a.seed + i) for i in range(a.sets)]
    sets = [heads(config) for config in (*wide, preset('heads64').heads)]
    return [torch.cat(x) for x in zip(*sets)]


def write(net: nn.Module, a: argparse.Namespace, script: str):
    "The file, in halves, with the command that made it."
    floats = {name: x.half() for name, x in net.state_dict().items() if x.is_floating_point()}
    command = f'python scripts/{script} --heads {a.heads} --sets {a.sets} --seed {a.seed}'
    save_tensors(floats, a.out, {'command': command})
    print(f'{a.out.name}: {a.out.stat().st_size / 1e6:.2f} MB, SHA-256 {file_sha(a.out)}')


def main():
    a = asked(__doc__, camera_net_path())
    torch.set_num_threads(1)
    images, angles = all_sets(a, heads)
    torch.manual_seed(0)
    net = start()
    for course in COURSES:
        train(net, images, angles, course)
    write(net, a, 'camera_net.py')


if __name__ == '__main__':
    main()
