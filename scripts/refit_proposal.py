"""Give a generator its preset's proposal network, trained anew on the frozen rest (Eq. 8); the file is replaced.

    python scripts/refit_proposal.py [--network data/generator.safetensors] [--images 4000]
"""
import argparse
from dataclasses import replace
from pathlib import Path
import torch
from safetensors import safe_open
from tqdm import tqdm
from wysiwyg.config import preset
from wysiwyg.generator import Generator, load_generator, save_generator, shipped
from wysiwyg.training import fit_proposal, proposal_examples


def refit(trained: Generator, images: int) -> Generator:
    "The same generator with a proposal network of `images` images."
    torch.manual_seed(trained.run.train.seed)
    g = Generator(replace(trained.run, proposal=preset(trained.run.name).proposal), start=False).eval()
    g.load_state_dict({k: v for k, v in trained.state_dict().items() if not k.startswith('proposal.')}, strict=False)
    with tqdm(total=images, desc='proposal network', mininterval=20) as bar:
        fit_proposal(g.proposal, proposal_examples(trained, g.run.train.seed), images, g.run.train.proposal_lr, lambda k, loss: bar.update())
    return g


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--network', type=Path, default=shipped()); ask.add_argument('--images', type=int, default=4000); a = ask.parse_args()
    with safe_open(a.network, 'pt') as f: notes = {k: v for k, v in f.metadata().items() if k != 'run'}
    notes['command'] = notes['command'].split('; python scripts/refit')[0] + f'; python scripts/refit_proposal.py --images {a.images}'
    save_generator(refit(load_generator(a.network, torch.device('cpu')), a.images), a.network, **notes)
    print(notes)


if __name__ == '__main__': main()
