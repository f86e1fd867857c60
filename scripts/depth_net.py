"""Train the network that finds a head's depth, and write data/depth_net.safetensors.

It begins as headnet1's network of pictures, and learns the true depth and the silhouette of the heads
by which the camera's network was trained (scripts/camera_net.py). Set _DEPTH_NET_SHA of 16c_readers to
the digest that is printed.

python scripts/depth_net.py [--heads 4000] [--seed 77] [--out FILE]

Rendering takes some four minutes, training fifteen on one core.
"""

import argparse
import time
from pathlib import Path
import torch
import torch.nn.functional as F
from camera_net import BATCH, KEPT, WIDEST, Course, known_layers, spoiled, wide_heads
from torch import Tensor
from wysiwyg.camera import camera_angles
from wysiwyg.config import HeadsConfig, preset
from wysiwyg.core import Camera, file_sha
from wysiwyg.data import Dataset
from wysiwyg.generator import save_tensors
from wysiwyg.heads import render_heads, truth
from wysiwyg.readers import DepthNet, depth_net_path

COURSE = Course(20, 3e-3, 0.15, 0.005, 0.05, 4, 3)
OUTLINE = 0.005  # weight of the silhouette's error beside that of depth, world units


def heads(config: HeadsConfig) -> tuple[Tensor, Tensor, Tensor]:
    "Pictures, depth less the camera's distance, and masks of a set, without those from far behind."
    data = Dataset(render_heads(config))
    known = truth(data.path)
    row_of = {str(name): row for row, name in enumerate(known['names'])}
    rows = [row_of[name] for name in data.names]
    angles = camera_angles(Camera.from_label(data.camera_labels))
    index = torch.nonzero(angles[:, 0].abs() < WIDEST)[:, 0]
    depth = torch.from_numpy(known['depth'][rows])[index].float() - config.radius
    mask = torch.from_numpy(known['mask'][rows])[index]
    return data.images(index), depth, mask


def start() -> DepthNet:
    "Layers that know pictures, and an answer of 0."
    net = DepthNet()
    down = [layer for level in net.down for layer in level]
    torch.nn.Sequential(*down).load_state_dict(known_layers())
    torch.nn.init.zeros_(net.read.weight)
    torch.nn.init.zeros_(net.read.bias)
    return net.to(memory_format=torch.channels_last)


def mirrored(*maps: Tensor) -> list[Tensor]:
    "Half of the rows mirrored, the same in each [b, ..., 64, 64]."
    half = torch.rand(len(maps[0])) < 0.5
    return [flipped(x, half) for x in maps]


def flipped(x: Tensor, which: Tensor) -> Tensor:  # [b, ..., 64, 64], [b]
    rows = which.reshape(-1, *[1] * (x.ndim - 1))
    return torch.where(rows, x.flip(-1), x)


@torch.no_grad()
def told(net: DepthNet, images: Tensor, depth: Tensor, mask: Tensor) -> str:
    "Mean error of depth where all of a pixel is covered, and the share of the pixels told apart rightly."
    found, silhouette = net(images.float())
    wrong = (found - depth).abs()[mask == 255].mean()
    right = ((silhouette > 0) == (mask > 127)).float().mean()
    return f'depth {wrong:.5f}, silhouette {right:.4f}'


def train(net: DepthNet, images: Tensor, depth: Tensor, mask: Tensor, course: Course):
    "Regression of depth and silhouette; the first KEPT pictures are only asked."
    steps = course.epochs * ((len(images) - KEPT) // BATCH)
    adam = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, course.rate, steps, pct_start=course.warm)
    begun = time.time()
    for epoch in range(course.epochs):
        net.train()
        rows = KEPT + torch.randperm(len(images) - KEPT)
        for index in rows[: len(rows) // BATCH * BATCH].split(BATCH):
            x, wanted, covered = mirrored(images[index].float(), depth[index], mask[index])
            found, silhouette = net(spoiled(x, course).contiguous(memory_format=torch.channels_last))
            solid = covered == 255
            loss = F.smooth_l1_loss(found[solid], wanted[solid], beta=course.beta)
            outline = F.binary_cross_entropy_with_logits(silhouette, covered / 255)
            adam.zero_grad()
            (loss + OUTLINE * outline).backward()
            adam.step()
            rate.step()
        said = told(net.eval(), images[:KEPT], depth[:KEPT], mask[:KEPT])
        print(f'{epoch + 1}/{course.epochs}: {said}, {time.time() - begun:.0f} s', flush=True)


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--heads', type=int, default=4000)
    ask.add_argument('--seed', type=int, default=77, help='of heads that no preset trains on')
    ask.add_argument('--out', type=Path, default=depth_net_path())
    a = ask.parse_args()
    torch.set_num_threads(1)
    sets = [heads(config) for config in (wide_heads(a.heads, a.seed), preset('heads64').heads)]
    images, depth, mask = [torch.cat(x) for x in zip(*sets)]
    torch.manual_seed(0)
    net = start()
    train(net, images, depth, mask, COURSE)
    floats = {name: x.half() for name, x in net.state_dict().items() if x.is_floating_point()}
    command = f'python scripts/depth_net.py --heads {a.heads} --seed {a.seed}'
    save_tensors(floats, a.out, {'command': command})
    print(f'{a.out.name}: {a.out.stat().st_size / 1e6:.2f} MB, SHA-256 {file_sha(a.out)}')


if __name__ == '__main__':
    main()
