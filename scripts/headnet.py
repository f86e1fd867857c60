"""Train the judges of heads, and write data/headnet.safetensors.

Two networks learn who a head is, from its picture and from its normals by differences of depth;
beside them go the principal components of frontal reliefs. Set HEADNET_SHA of 16b_judges to the
digest that is printed; judges that are trained anew need a new name there.

python scripts/headnet.py [--heads 8000] [--epochs 14] [--seed 1009] [--out FILE]

Rendering takes some four minutes, training ten on one core; the same command gives the same bytes.
"""

import argparse
import time
from dataclasses import astuple
from pathlib import Path
import numpy as np
import torch
from torch import Tensor, nn
from wysiwyg.camera import Camera
from wysiwyg.config import HeadsConfig
from wysiwyg.core import file_sha
from wysiwyg.data import Dataset
from wysiwyg.generator import save_tensors
from wysiwyg.heads import Person, head_camera, load_head_model, render_heads, sample_person, truth
from wysiwyg.judges import (
    SIDE,
    HeadNet,
    bumps,
    bumpy,
    depth_normals,
    front_camera,
    headnet_path,
    relief,
    true_depth,
)

COMPONENTS = 32
VARIANCE = 100.0  # of true pictures, over all features
BATCH = 32
KEPT = 40  # that only tell how well the others were learned


def traits(person: Person, camera: Camera) -> np.ndarray:
    "What there is to know of a picture: shape, camera, hair, colours."
    back = camera.cam2world[0, :3, 2].numpy()
    colours = [person.skin, person.tint, person.iris, person.lip]
    rest = [person.age, person.gender, *person.brow, *person.beard]
    return np.concatenate([person.latent, back, astuple(person.hair), *colours, rest]).astype(np.float32)


def importance(count: int) -> Tensor:  # [count]
    "How much each trait counts: coefficients of shape by how far they move vertices, all others 1."
    model, out = load_head_model(), torch.ones(count)
    start = 0
    for parts in (model.identity, model.expression):
        size = np.linalg.norm(parts.reshape(len(parts), -1), axis=1)
        out[start : start + len(parts)] = torch.from_numpy(size / size[0])
        start += len(parts)
    return out / out.mean()


class Known:
    """Pictures, depths and traits of a set, and batches of either kind.

    images uint8 [N, 3, 64, 64], depth and mask [N, 64, 64], label [N, 25], traits [N, T] of unit variance,
    weight [T]: how much each trait counts."""

    def set_bumps(self):
        banks = [bumps((64, SIDE, SIDE), i, width) for i, width in enumerate((2, 3, 4, 6))]
        self.bumps = torch.cat(banks)

    def batch(self, kind: str, index: Tensor, spoiled: bool) -> Tensor:  # [b, 3, 64, 64]
        "Pictures or normals; in training with bumps, or noise and other light, and moved a little."
        x = self.pictures(index, spoiled) if kind == 'picture' else self.normals(index, spoiled)
        if spoiled:
            x = x.roll(torch.randint(-2, 3, (2,)).tolist(), (2, 3))
        return x.contiguous(memory_format=torch.channels_last)

    def pictures(self, index: Tensor, spoiled: bool) -> Tensor:
        x = self.images[index].float()
        if not spoiled:
            return x
        light = 1 + 0.1 * torch.randn(len(x), 1, 1, 1)
        cast = 8 * torch.randn(len(x), 3, 1, 1)
        grain = 4 * torch.rand(len(x), 1, 1, 1) * torch.randn(x.shape)
        return x * light + cast + grain

    def normals(self, index: Tensor, spoiled: bool) -> Tensor:
        depth = self.depth[index]
        if spoiled:
            some = self.bumps[torch.randint(len(self.bumps), (len(index),))]
            smooth = torch.rand(len(index), 1, 1) < 0.5
            depth = bumpy(depth, 0.15 * torch.rand(len(index), 1, 1) * ~smooth, some)
        return depth_normals(depth, self.mask[index], Camera.from_label(self.label[index])).float()


class Heads(Known):
    "The heads of a configuration."

    def __init__(self, config: HeadsConfig):
        path, model = render_heads(config), load_head_model()
        known = truth(path)
        n = len(known['depth'])
        self.images = Dataset(path).images(torch.arange(n))
        self.depth = torch.from_numpy(known['depth'])
        self.mask = torch.from_numpy(known['mask']) / 255
        self.label = torch.from_numpy(known['labels'])
        people = [traits(sample_person(model, config.seed, i), head_camera(config, i)) for i in range(n)]
        told = torch.from_numpy(np.stack(people))
        self.traits = (told - told.mean(0)) / told.std(0).clamp_min(1e-6)
        self.weight = importance(self.traits.shape[1])
        self.set_bumps()


def networks(known: Known, epochs: int, seed: int) -> dict[str, Tensor]:
    "Both networks' tensors, as '<kind>.<name>'."
    tensors = {}
    for kind in ('picture', 'normal'):
        state = train(known, kind, epochs, seed).state_dict()
        floats = {name: x for name, x in state.items() if x.is_floating_point()}
        tensors |= {f'{kind}.{name}': x for name, x in floats.items()}
    return tensors


def train(known: Known, kind: str, epochs: int, seed: int) -> HeadNet:
    "Regression of all traits; the last linear map is thrown away."
    torch.manual_seed(seed)
    weight = known.weight
    net = HeadNet()
    read = nn.Linear(96, len(weight))
    both = nn.Sequential(net, read).to(memory_format=torch.channels_last)
    rows = len(known.depth) - KEPT
    steps = epochs * (rows // BATCH)
    adam = torch.optim.AdamW(both.parameters(), weight_decay=0.05)
    course = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, steps, pct_start=0.2)
    begun = time.time()
    for epoch in range(epochs):
        both.train()
        for index in torch.randperm(rows)[: rows // BATCH * BATCH].split(BATCH):
            guess = both(known.batch(kind, index, True))
            loss = (weight * (guess - known.traits[index]).square()).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            course.step()
        left = unexplained(known, kind, both.eval(), torch.arange(rows, rows + KEPT))
        mean, took = (weight * left).mean(), time.time() - begun
        print(f'{kind} {epoch + 1}/{epochs}: {mean:.3f} left, {took:.0f} s', flush=True)
    return scaled(net, known.batch(kind, torch.arange(min(2000, rows)), False))


@torch.no_grad()
def unexplained(known: Known, kind: str, both: nn.Module, index: Tensor) -> Tensor:
    "Mean squared error of each trait, where 1 is its variance."
    return (both(known.batch(kind, index, False)) - known.traits[index]).square().mean(0)


@torch.no_grad()
def scaled(net: HeadNet, x: Tensor) -> HeadNet:
    "The same network, whose features of true pictures x have the variance VARIANCE."
    net.scale.fill_((VARIANCE / net(x).var(0).sum()).sqrt())
    return net


def basis(seed: int, n: int) -> dict[str, Tensor]:
    "Mean and scaled principal components of the reliefs of n people."
    model, rows = load_head_model(), []
    for i in range(n):
        seen = true_depth(model, sample_person(model, seed, i), front_camera())
        rows.append(relief(*seen).flatten(1))
    x = torch.cat(rows)
    mean = x.mean(0)
    _, size, components = torch.linalg.svd(x - mean, full_matrices=False)
    share = size.square()[:COMPONENTS].sum() / size.square().sum()
    print(f'{COMPONENTS} components hold {100 * share:.1f} % of the variance of {n} reliefs', flush=True)
    spread = size[:COMPONENTS].square().sum() / (n - 1)
    return {'front.mean': mean, 'front.basis': components[:COMPONENTS] * (VARIANCE / spread).sqrt()}


def ship(tensors: dict[str, Tensor], out: Path, command: str):
    "In half precision, with the command that made them."
    save_tensors({name: x.half() for name, x in tensors.items()}, out, {'command': command})
    print(f'{out.name}: {out.stat().st_size / 1e6:.2f} MB, SHA-256 {file_sha(out)}')


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--heads', type=int, default=8000)
    ask.add_argument('--epochs', type=int, default=14)
    ask.add_argument('--seed', type=int, default=1009, help='of heads that no preset trains on')
    ask.add_argument('--out', type=Path, default=headnet_path())
    a = ask.parse_args()
    torch.set_num_threads(1)
    heads = Heads(HeadsConfig(n=a.heads, resolution=SIDE, seed=a.seed, yaw_std=0.6))
    tensors = basis(a.seed, min(2000, a.heads))
    tensors |= networks(heads, a.epochs, a.seed)
    command = f'python scripts/headnet.py --heads {a.heads} --epochs {a.epochs} --seed {a.seed}'
    ship(tensors, a.out, command)


if __name__ == '__main__':
    main()
