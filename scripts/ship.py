"""Make a finished run the generator that ships.

Its averaged weights, its discriminator and its curve go into data/.

python scripts/ship.py runs/FOLDER --command 'the command that trained it'
"""

import argparse
import json
from pathlib import Path
import pandas as pd
from wysiwyg.config import Run, from_dict
from wysiwyg.core import atomic, data_dir
from wysiwyg.generator import method_of
from wysiwyg.loop import latest_checkpoint, load_checkpoint, open_data, save_pair
from wysiwyg.training import Trainer

CURVE = (
    'images',
    'loss/D',
    'loss/adversarial',
    'loss/r1',
    'loss/surface',
    'loss/hinge',
    'loss/smooth',
    'loss/sampler',
    'geometry/beta',
    'schedule/beta_target',
    'schedule/resolution',
    'geometry/inside',
    'geometry/opacity',
)


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('folder', type=Path)
    ask.add_argument('--command', required=True)
    a = ask.parse_args()
    run = from_dict(Run, json.loads((a.folder / 'run.json').read_text(encoding='utf8')))
    t = load_checkpoint(Trainer(method_of(run), run, open_data(run)), latest_checkpoint(a.folder))
    save_pair(t, data_dir(), command=a.command)
    steps = (a.folder / 'metrics.jsonl').read_text(encoding='utf8').splitlines()
    curve = pd.DataFrame(map(json.loads, steps))
    known = [name for name in CURVE if name in curve]
    with atomic(data_dir() / 'generator_curve.csv') as tmp:
        curve[known].round(5).to_csv(tmp, index=False)
    print(f'{t.images} images of {run.name} are in {data_dir()}')


if __name__ == '__main__':
    main()
