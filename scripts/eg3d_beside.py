"""EG3D's own generator beside ours, from the same weights and the same places on the rays.

python scripts/eg3d_beside.py CHECKOUT [--sizes 512 256 128] [--weights G_ema.pt] [--record NAME]

CHECKOUT is a clone of github.com/NVlabs/eg3d. Its code runs in this process, on the CPU, under its own
licence; none of it is part of this kit. Without `--weights`, the state dict of a published generator, its
weights are drawn at random, so that every tensor counts, and dense enough that rays are stopped.
All must agree to 1e-4, places of samples to 1e-3.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from wysiwyg.baselines import eg3d
from wysiwyg.baselines.eg3d_weights import import_eg3d, read_weights
from wysiwyg.camera import Camera, orbit
from wysiwyg.core import Samples
from wysiwyg.generator import one_line
from wysiwyg.results import write_results
from wysiwyg.samplers import _importance
from wysiwyg.volrend import march, midpoints

CLOSE = 1e-4  # in single precision, where densities are large
TRUNCATION = 0.7
PEOPLE = 2
AIR, MATTER = -2.0, 8.0  # raw densities
OF_AIR_AND_MATTER = [0.5, 0.95]  # quantiles that get them
LEAST = 0.005  # of the rays are opaque, and as many empty
OF_PLACES = 1e-3  # where samples go: theirs adds 1e-5 to each weight
SECOND_LOOK = 'second look'
OPAQUE, EMPTY = 'rays of opacity over 0.9', 'rays of opacity under 0.1'
ENLARGER = {512: 'SuperresolutionHybrid8XDC', 256: 'SuperresolutionHybrid4X', 128: 'SuperresolutionHybrid2X'}
WIDTHS = {'channel_base': 32768, 'channel_max': 512}
HALF = {  # on a CPU even the enlarger computes in single precision, and cuts off at 256 as ever
    'num_fp16_res': 0,
    'conv_clamp': None,
    'sr_num_fp16_res': 4,
}
SIDE = 64  # of the feature image, pixels
RENDERING = {  # of FFHQ, as published
    'ray_start': 2.25,
    'ray_end': 3.3,
    'box_warp': 1,
    'depth_resolution': 48,
    'depth_resolution_importance': 48,
    'disparity_space_sampling': False,
    'clamp_mode': 'softplus',
    'white_back': False,
    'sr_antialias': True,
    'superresolution_noise_mode': 'none',
    'c_gen_conditioning_zero': False,
    'c_scale': 1,
}


def theirs(size: int) -> torch.nn.Module:
    "Their generator at its start, with its published sizes."
    from training.triplane import TriPlaneGenerator

    rendering = RENDERING | {'superresolution_module': f'training.superresolution.{ENLARGER[size]}'}
    return TriPlaneGenerator(
        z_dim=512,
        c_dim=25,
        w_dim=512,
        img_resolution=size,
        img_channels=3,
        mapping_kwargs={'num_layers': 2},
        rendering_kwargs=rendering,
        sr_kwargs=WIDTHS | {'fused_modconv_default': 'inference_only'},
        **WIDTHS,
        **HALF,
    ).eval()


@torch.no_grad()
def disturb(g: torch.nn.Module):
    "Biases, strengths of noise and the mean w begin at zero or one: none of them stays there."
    for name, x in [*g.named_parameters(), *g.named_buffers()]:
        if name.endswith(('bias', 'noise_strength', 'w_avg')):
            x += 0.2 * torch.randn_like(x)


@torch.no_grad()
def thicken(g: torch.nn.Module, z: Tensor, label: Tensor):
    "Random weights give fog from near to far: here half of what is in the box is air, a little matter."
    x = torch.rand(len(z), 4096, 3) - 0.5
    raw = g.sample(x, x, z, label, truncation_psi=TRUNCATION)['sigma'].flatten()
    low, high = raw.quantile(torch.tensor(OF_AIR_AND_MATTER)).tolist()
    last, scale = g.decoder.net[-1], (MATTER - AIR) / (high - low)
    last.weight[0] *= scale
    last.bias[0] = scale * (last.bias[0] - low) + AIR


class Places:
    "The places on rays that their renderer ended with, [B, N, S] world units; ours is to look there."

    def __init__(self, renderer: torch.nn.Module):
        self.t = None
        renderer.ray_marcher.register_forward_pre_hook(self.keep)

    def keep(self, _, given: tuple):
        depths = given[2]
        self.t = depths[..., 0]


def look_there(places: Places):
    "Ours draws no places of its own any more."

    def given(*_):
        return places.t

    def at_places(field, rays, near, far, coarse, fine, t):
        return midpoints(march(field, rays, Samples(t, torch.zeros_like(t))))

    eg3d.places_in_strata, eg3d.two_pass = given, at_places


def imported(g: torch.nn.Module) -> eg3d.EG3DGenerator:
    "Ours, by way of a file."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'official.pt'
        torch.save(g.state_dict(), path)
        return import_eg3d(read_weights(path), side=SIDE)


def off(a: Tensor, b: Tensor) -> float:
    "Largest difference, in units of the largest value."
    assert a.shape == b.shape, f'{list(a.shape)} beside {list(b.shape)}'
    return ((a - b).abs().max() / b.abs().max()).item()


def second_look() -> float:
    "Where 48 samples go after 48, of the same random numbers."
    from training.volumetric_rendering.renderer import ImportanceRenderer

    random = torch.Generator().manual_seed(2)
    t = 2.25 + 1.05 * torch.rand(1, 500, 48, generator=random).sort(-1).values
    weights = torch.rand(1, 500, 47, generator=random) ** 8
    u = torch.rand(500, 48, generator=random)
    with mock.patch('torch.rand', lambda *_, **__: u):
        told = ImportanceRenderer().sample_importance(t[..., None], weights[..., None], 48)[..., 0]
    return off(_importance(weights, t, u[None]), told)


@torch.no_grad()
def differences(g: torch.nn.Module, z: Tensor, camera: Camera) -> dict[str, float]:
    "Of w, planes, feature image, depth and picture; and shares of rays."
    ours, places = imported(g), Places(g.renderer)
    look_there(places)
    found = {}
    g.superresolution.register_forward_pre_hook(lambda _, given: found.update(features=given[1].clone()))
    ws = g.mapping(z, camera.label, truncation_psi=TRUNCATION)
    told = g.synthesis(
        ws, camera.label, neural_rendering_resolution=SIDE, noise_mode='const', cache_backbone=True
    )
    scene = ours.synthesize(ours.map(z, camera, TRUNCATION))
    views = ours.views(scene, camera)
    opacity = views.seen.opacity
    met = opacity > 0.01  # theirs gives the others no depth of their own
    depth = views.seen.surface_depth(ours.run.render.far)[met]
    return {
        'w': off(scene.w, ws[:, 0]),
        'planes': off(scene.planes.flatten(1, 2), g._last_planes),
        'feature image': off(2 * views.seen.image() - 1, found['features']),
        'depth': off(depth, told['image_depth'].reshape(met.shape)[met]),
        'picture': off(views.image, told['image']),
        OPAQUE: (opacity > 0.9).float().mean().item(),
        EMPTY: (opacity < 0.1).float().mean().item(),
    }


def load(g: torch.nn.Module, weights: Path, size: int):
    try:
        g.load_state_dict(read_weights(weights))
    except (ValueError, RuntimeError) as e:
        sys.exit(f'{weights} is no state dict of a generator of {size} pixels (--sizes): {one_line(e)}')


def measured(size: int, weights: Path | None, people: int) -> dict[str, float]:
    "Print and return the differences."
    torch.manual_seed(0)
    g = theirs(size)
    if weights:
        load(g, weights, size)
    camera = orbit(torch.linspace(-0.4, 0.4, people), torch.linspace(0.2, -0.1, people))
    z = torch.randn(people, 512, generator=torch.Generator().manual_seed(1))
    if not weights:
        disturb(g)
        thicken(g, z, camera.label)
    found = differences(g, z, camera)
    for name, value in found.items():
        print(f'{size}: {name:25} {value:.1e}')
    shares = (OPAQUE, EMPTY) if weights else ()  # of published weights they are as they are
    return {f'{size}: {name}': value for name, value in found.items() if name not in shares}


def differ(found: dict[str, float]) -> dict[str, float]:
    "Those of the differences that are too large, or no number."
    limits = {name: OF_PLACES if name == SECOND_LOOK else CLOSE for name in found}
    compared = [name for name in found if not name.endswith((OPAQUE, EMPTY))]
    return {name: found[name] for name in compared if not found[name] <= limits[name]}


def too_few(found: dict[str, float]) -> dict[str, float]:
    "Shares of rays with which the trial is none."
    return {name: x for name, x in found.items() if name.endswith((OPAQUE, EMPTY)) and not x >= LEAST}


def commit_of(checkout: Path) -> str:
    "What a clone stands at; 'unknown' where the folder is none."
    ask = ['git', '-C', checkout, 'rev-parse', '--show-toplevel', 'HEAD']
    top, _, commit = subprocess.run(ask, capture_output=True, text=True).stdout.partition('\n')
    return commit[:7] if commit and Path(top) == checkout.resolve() else 'unknown'


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkout', type=Path)
    parser.add_argument('--sizes', type=int, nargs='+', choices=ENLARGER, default=list(ENLARGER))
    parser.add_argument('--weights', type=Path, help='state dict of a published G_ema, of the one size given')
    parser.add_argument('--people', type=int, default=PEOPLE)
    parser.add_argument('--record', default='', help='write data/results/<record>.json')
    a = parser.parse_args()
    if not (a.checkout / 'eg3d' / 'training' / 'triplane.py').is_file():
        parser.error(
            f'{a.checkout} holds no eg3d/training/triplane.py: give a clone of github.com/NVlabs/eg3d'
        )
    if a.people < 1:
        parser.error('--people: at least one')
    if a.weights and not a.weights.is_file():
        parser.error(f'there is no {a.weights}')
    if a.weights and len(a.sizes) > 1:
        parser.error('--weights are of one size: say it by --sizes, as 512')
    return a


def portable(a: argparse.Namespace) -> list[str]:
    "The options again, without a path of this machine."
    told = [f'CHECKOUT@{commit_of(a.checkout)}']
    if a.sizes != list(ENLARGER):
        told += ['--sizes', *map(str, a.sizes)]
    if a.weights:
        told += ['--weights', a.weights.name]
    if a.people != PEOPLE:
        told += ['--people', str(a.people)]
    return [*told, '--record', a.record]


def main():
    a = asked()
    sys.path.insert(0, str(a.checkout / 'eg3d'))
    found = {SECOND_LOOK: second_look()}
    print(f'{SECOND_LOOK}: {found[SECOND_LOOK]:.1e}')
    for size in a.sizes:
        found |= measured(size, a.weights, a.people)
    if a.record:
        rows = [{'what': name, 'value': value, 'unit': ''} for name, value in found.items()]
        write_results(a.record, rows, shlex.join(['python', 'scripts/eg3d_beside.py', *portable(a)]))
    if far := differ(found):
        sys.exit(f'they differ: {far}')
    if few := too_few(found):
        sys.exit(f'nothing differs, but there are too few such rays to tell: {few}; give more --people')


if __name__ == '__main__':
    main()
