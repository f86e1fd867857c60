"""Train the network that finds a head's camera, and write data/camera_net.safetensors.

It begins as headnet1's network of pictures and learns yaw and pitch alone, of rendered heads with a
wide spread of cameras and of the training set. Set _CAMERA_NET_SHA of 16c_readers to the digest that
is printed.

python scripts/camera_net.py [--heads 4000] [--seed 77] [--out FILE]

Rendering takes some four minutes, training twelve on one core.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
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


def mirrored(x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    "Half of the pictures mirrored, with the angles of the mirrored cameras."
    half = torch.rand(len(x)) < 0.5
    pictures = torch.where(half[:, None, None, None], x.flip(-1), x)
    return pictures, torch.where(half[:, None], angles * MIRRORED, angles)


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


def train(net: CameraNet, images: Tensor, angles: Tensor, course: Course):
    "Regression of yaw and pitch; the first KEPT pictures are only asked."
    steps = course.epochs * ((len(images) - KEPT) // BATCH)
    adam = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, course.rate, steps, pct_start=course.warm)
    begun = time.time()
    for epoch in range(course.epochs):
        net.train()
        rows = KEPT + torch.randperm(len(images) - KEPT)
        for index in rows[: len(rows) // BATCH * BATCH].split(BATCH):
            x, wanted = mirrored(images[index].float(), angles[index])
            guess = net(spoiled(x, course).contiguous(memory_format=torch.channels_last))
            loss = F.smooth_l1_loss(guess, wanted, beta=course.beta)
            adam.zero_grad()
            loss.backward()
            adam.step()
            rate.step()
        said = told(net.eval(), images[:KEPT], angles[:KEPT])
        print(f'{epoch + 1}/{course.epochs}: {said}, {time.time() - begun:.0f} s', flush=True)


def heads(config: HeadsConfig) -> tuple[Tensor, Tensor]:
    "Pictures and angles of a set, without those from far behind."
    data = Dataset(render_heads(config))
    angles = camera_angles(Camera.from_label(data.camera_labels))
    index = torch.nonzero(angles[:, 0].abs() < WIDEST)[:, 0]
    return data.images(index), angles[index]


def wide_heads(n: int, seed: int) -> HeadsConfig:
    "Heads from more sides than a preset's."
    return HeadsConfig(n=n, resolution=SIDE, seed=seed, yaw_std=0.5, pitch_std=0.2)


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--heads', type=int, default=4000)
    ask.add_argument('--seed', type=int, default=77, help='of heads that no preset trains on')
    ask.add_argument('--out', type=Path, default=camera_net_path())
    a = ask.parse_args()
    torch.set_num_threads(1)
    sets = [heads(config) for config in (wide_heads(a.heads, a.seed), preset('heads64').heads)]
    images, angles = [torch.cat(x) for x in zip(*sets)]
    torch.manual_seed(0)
    net = start()
    for course in COURSES:
        train(net, images, angles, course)
    floats = {name: x.half() for name, x in net.state_dict().items() if x.is_floating_point()}
    command = f'python scripts/camera_net.py --heads {a.heads} --seed {a.seed}'
    save_tensors(floats, a.out, {'command': command})
    print(f'{a.out.name}: {a.out.stat().st_size / 1e6:.2f} MB, SHA-256 {file_sha(a.out)}')


if __name__ == '__main__':
    main()
