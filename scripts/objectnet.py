"""Train the judges of objects, and write data/objectnet.safetensors.

Two networks learn what an object is, from its picture and from its normals by differences of depth: its
class, the camera, and how it looks from four fixed sides. Half of the pictures are taken from all around,
half from in front. Set _OBJECTNET_SHA of 16d_object_judges to the digest that is printed; judges that are
trained anew need a new name there.

python scripts/objectnet.py [--objects 6000] [--epochs 14] [--seed 1011] [--out FILE]

Rendering takes some ten minutes, training ten more on one core; the same command gives the same bytes.
"""

import argparse
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from headnet import Known, networks, ship
from torch import Tensor
from tqdm.auto import tqdm
from wysiwyg.camera import orbit
from wysiwyg.data import Dataset
from wysiwyg.heads import sample_light
from wysiwyg.judges import SIDE
from wysiwyg.object_judges import objectnet_path
from wysiwyg.objects import ObjectsConfig, Solid, objects_truth, render_object, render_objects, sample_object

YAWS, PITCHES = (0.0, 0.8, 1.6, 3.1), (0.1, 0.3, 0.2, 1.2)  # of the four sides, radians
SMALL = 16  # pixels a side of what is seen from there
COMPONENTS = 32
KNOWN = ('classes', 'cameras', 'mask', 'depth')


def looks(solid: Solid, config: ObjectsConfig) -> np.ndarray:
    "Covered share, depth over it and colours from the four sides, in one light."
    rows, light = [], sample_light(0, 0, spread=0)
    for yaw, pitch in zip(YAWS, PITCHES):
        camera = orbit(torch.tensor([yaw]), torch.tensor([pitch]), config.radius, config.focal)
        seen = render_object(solid, camera, light, config)
        mask = seen['mask'] / 255
        near = np.where(mask > 0, config.radius - seen['depth'], 0)
        colours = seen['image'] / 255 - np.array(config.background)
        rows += [mask.ravel(), 2 * near.ravel(), 0.5 * colours.ravel()]
    return np.concatenate(rows).astype(np.float32)


def sides(config: ObjectsConfig) -> np.ndarray:  # [n, D]
    "The looks of each object."
    small, count = replace(config, resolution=SMALL), len(config.classes)
    each = tqdm(range(config.n), desc='sides', unit='object')
    return np.stack([looks(sample_object(config.classes[i % count], config.seed, i), small) for i in each])


def components(x: Tensor) -> tuple[Tensor, Tensor]:  # [N, D] -> [N, COMPONENTS], [COMPONENTS]
    "Coefficients of unit variance in the principal components, and how much each counts."
    u, size, _ = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    share = size[:COMPONENTS].square().sum() / size.square().sum()
    print(f'{COMPONENTS} components hold {100 * share:.1f} % of the variance of looks', flush=True)
    return u[:, :COMPONENTS] * len(x) ** 0.5, size[:COMPONENTS] / size[0]


class Objects(Known):
    "The objects of several configurations, one after the other."

    def __init__(self, configs: list[ObjectsConfig]):
        paths = [render_objects(config) for config in configs]
        truths = [objects_truth(path) for path in paths]
        known = {name: torch.from_numpy(np.concatenate([x[name] for x in truths])) for name in KNOWN}
        sets = [Dataset(path) for path in paths]
        self.images = torch.cat([x.images(torch.arange(len(x))) for x in sets])
        self.depth, self.label = known['depth'], known['cameras']
        self.mask = known['mask'] / 255
        from_sides = np.concatenate([sides(config) for config in configs])
        seen, weight = components(torch.from_numpy(from_sides))
        forward = self.label[:, [2, 6, 10]]  # of the camera
        plain = torch.cat([F.one_hot(known['classes']), forward], 1)
        plain = (plain - plain.mean(0)) / plain.std(0)
        self.traits = torch.cat([plain, seen], 1)
        counts = torch.cat([torch.ones(plain.shape[1]), weight])
        self.weight = counts / counts.mean()
        self.set_bumps()

    def pictures(self, index: Tensor, spoiled: bool) -> Tensor:
        x = super().pictures(index, spoiled)
        if spoiled and torch.rand(()) < 0.5:  # as generators of 32 pixels show them
            small = F.interpolate(x, size=SIDE // 2, mode='area')
            x = F.interpolate(small, size=SIDE, mode='bilinear')
        return x


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--objects', type=int, default=6000)
    ask.add_argument('--epochs', type=int, default=14)
    ask.add_argument(
        '--seed', type=int, default=1011, help='and the next: of objects that no preset trains on'
    )
    ask.add_argument('--out', type=Path, default=objectnet_path())
    a = ask.parse_args()
    torch.set_num_threads(1)
    half = ObjectsConfig(n=a.objects // 2, resolution=SIDE, seed=a.seed)
    objects = Objects([half, replace(half, seed=a.seed + 1, cameras='prior')])
    tensors = networks(objects, a.epochs, a.seed)
    command = f'python scripts/objectnet.py --objects {a.objects} --epochs {a.epochs} --seed {a.seed}'
    ship(tensors, a.out, command)


if __name__ == '__main__':
    main()
