"""Train the network that finds a head's depth, and write data/depth_net.safetensors.

It begins as headnet1's network of pictures, and learns the true depth and the silhouette of the heads
by which the camera's network was trained (scripts/camera_net.py). Set _DEPTH_NET_SHA of 16c_readers to
the digest that is printed.

python scripts/depth_net.py [--heads 4000] [--sets 1] [--seed 77] [--out FILE]

What is shipped was made with --heads 8000 --sets 2: rendering takes some ten minutes, training forty on one
core.
"""

import torch
import torch.nn.functional as F
from camera_net import Course, all_sets, angles_of, asked, fit, flipped, known_layers, read, write
from torch import Tensor
from wysiwyg.config import HeadsConfig
from wysiwyg.data import Dataset
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
    _, index = angles_of(data)
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


@torch.no_grad()
def told(net: DepthNet, images: Tensor, depth: Tensor, mask: Tensor) -> str:
    "Mean error of depth where all of a pixel is covered, and the share of the pixels told apart rightly."
    found, silhouette = net(images.float())
    wrong = (found - depth).abs()[mask == 255].mean()
    right = ((silhouette > 0) == (mask > 127)).float().mean()
    return f'depth {wrong:.5f}, silhouette {right:.4f}'


def depth_loss(net: DepthNet, course: Course, images: Tensor, depth: Tensor, mask: Tensor) -> Tensor:
    "Of depth where all of a pixel is covered, and of the silhouette; half of the rows mirrored."
    half = torch.rand(len(images)) < 0.5
    x, wanted, covered = [flipped(y, half) for y in (images.float(), depth, mask)]
    found, silhouette = read(net, x, course)
    solid = covered == 255
    outline = F.binary_cross_entropy_with_logits(silhouette, covered / 255)
    return F.smooth_l1_loss(found[solid], wanted[solid], beta=course.beta) + OUTLINE * outline


def train(net: DepthNet, images: Tensor, depth: Tensor, mask: Tensor, course: Course):
    "Regression of depth and silhouette."
    fit(net, (images, depth, mask), course, 0.02, depth_loss, told)


def main():
    a = asked(__doc__, depth_net_path())
    torch.set_num_threads(1)
    images, depth, mask = all_sets(a, heads)
    torch.manual_seed(0)
    net = start()
    train(net, images, depth, mask, COURSE)
    write(net, a, 'depth_net.py')


if __name__ == '__main__':
    main()
