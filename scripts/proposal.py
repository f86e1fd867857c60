"""Fit the proposal network of a generator to its own dense weights; all other weights stay as they are.

A generator that was trained with other proposals has one that never saw its shapes. What is written asks
for the published probe, proposal and sampler.

python scripts/proposal.py data/heads64/generator.safetensors out.safetensors --images 2000
"""

import argparse
import copy
import shlex
import sys
import torch
from pathlib import Path
from wysiwyg.config import PUBLISHED, override
from wysiwyg.generator import load_generator, notes_of, save_generator
from wysiwyg.studies import fit_proposal, proposal_examples

KEPT = 'images', 'data'  # of the notes of its training
EVERY = 500


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('network', type=Path)
    ask.add_argument('out', type=Path)
    ask.add_argument('--images', type=int, default=2000)
    a = ask.parse_args()
    known = notes_of(a.network)
    g = load_generator(a.network, torch.device('cpu'))
    g = g.using(run=override(g.run, **PUBLISHED, **{'train.network': ''}))
    losses = []

    def log(k: int, loss: float):
        losses.append(loss)
        if len(losses) % EVERY == 0:
            mean = sum(losses[-EVERY:]) / EVERY
            print(f'{len(losses)} images: cross-entropy {mean:.4f}', flush=True)

    learner = copy.deepcopy(g.proposal).requires_grad_(True)
    fitted = fit_proposal(learner, proposal_examples(g), a.images, g.run.train.proposal_lr, log)
    g.proposal.load_state_dict(fitted.state_dict())
    notes = {name: known[name] for name in KEPT if name in known}
    notes['command'] = shlex.join(['python', *sys.argv])
    save_generator(g, a.out, **notes)


if __name__ == '__main__':
    main()
