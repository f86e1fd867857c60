"""Train the network that finds a head's camera, and write data/camera_net.safetensors.

It begins as headnet1's network of pictures and learns yaw and pitch alone. Set CAMERA_NET_SHA of
20_inversion to the digest that is printed.

python scripts/camera_net.py [--heads 8000] [--epochs 12] [--seed 77] [--out FILE]

Rendering takes some four minutes, training ten on one core; the same command gives the same bytes.
"""

import argparse
import time
from pathlib import Path
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from wysiwyg.camera import Camera
from wysiwyg.config import HeadsConfig
from wysiwyg.core import file_sha
from wysiwyg.data import Dataset
from wysiwyg.generator import save_tensors
from wysiwyg.heads import render_heads
from wysiwyg.inversion import MIRRORED, CameraNet, camera_net_path, camera_angles
from wysiwyg.judges import SIDE, headnet_path

BATCH = 32
KEPT = 400  # heads that only tell how well the camera is found
RATE = 2e-3


def spoiled(x: Tensor) -> Tensor:  # [b, 3, R, R] in [0, 255]
    "Pictures in other light, with some noise."
    light = 1 + 0.1 * torch.randn(len(x), 1, 1, 1)
    cast = 8 * torch.randn(len(x), 3, 1, 1)
    grain = 4 * torch.rand(len(x), 1, 1, 1) * torch.randn(x.shape)
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


def start() -> dict[str, Tensor]:
    "The convolutions of headnet1 that see pictures."
    tensors, own = load_file(headnet_path()), 'picture.layers.'
    return {name.removeprefix(own): x.float() for name, x in tensors.items() if name.startswith(own)}


def train(images: Tensor, angles: Tensor, epochs: int, seed: int) -> CameraNet:
    "Regression of yaw and pitch, from headnet1's layers on."
    torch.manual_seed(seed)
    net = CameraNet().to(memory_format=torch.channels_last)
    net.layers.load_state_dict(start())
    rows = len(images) - KEPT
    steps = epochs * (rows // BATCH)
    adam = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    course = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, steps, pct_start=0.15)
    begun = time.time()
    for epoch in range(epochs):
        net.train()
        for index in torch.randperm(rows)[: rows // BATCH * BATCH].split(BATCH):
            x, wanted = mirrored(images[index].float(), angles[index])
            guess = net(spoiled(x).contiguous(memory_format=torch.channels_last))
            loss = F.smooth_l1_loss(guess, wanted, beta=0.05)
            adam.zero_grad()
            loss.backward()
            adam.step()
            course.step()
        said = told(net.eval(), images[rows:], angles[rows:])
        print(f'{epoch + 1}/{epochs}: {said}, {time.time() - begun:.0f} s', flush=True)
    return net


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--heads', type=int, default=8000)
    ask.add_argument('--epochs', type=int, default=12)
    ask.add_argument('--seed', type=int, default=77, help='of heads that no preset trains on')
    ask.add_argument('--out', type=Path, default=camera_net_path())
    a = ask.parse_args()
    torch.set_num_threads(1)
    config = HeadsConfig(n=a.heads, resolution=SIDE, seed=a.seed, yaw_std=0.5, pitch_std=0.2)
    data = Dataset(render_heads(config))
    angles = camera_angles(Camera.from_label(data.camera_labels))
    net = train(data.images(torch.arange(len(data))), angles, a.epochs, a.seed)
    floats = {name: x.half() for name, x in net.state_dict().items() if x.is_floating_point()}
    command = f'python scripts/camera_net.py --heads {a.heads} --epochs {a.epochs} --seed {a.seed}'
    save_tensors(floats, a.out, {'command': command})
    print(f'{a.out.name}: {a.out.stat().st_size / 1e6:.2f} MB, SHA-256 {file_sha(a.out)}')


if __name__ == '__main__':
    main()
