"The other systems, through the command line: trained, resumed bit for bit, rendered and measured."

import shlex

import pytest
import torch

from wysiwyg.cli import main
from wysiwyg.config import METHODS, preset
from wysiwyg.generator import load_generator, method_of
from wysiwyg.heads import render_heads

BASELINES = [name for name in METHODS if name != 'wysiwyg']
SMALL = (
    '--cfg tiny --kimg .024 --batch 4 --render.coarse 6 --render.fine 6 '
    '--train.checkpoint-images 8 --train.snapshot-images 12 --no-track'
)


@pytest.fixture(scope='module')
def heads(tmp_path_factory):
    config = preset('tiny', **{'heads.n': 24, 'heads.workers': 1}).heads
    return render_heads(config, tmp_path_factory.mktemp('set') / 'heads.zip', False)


@pytest.fixture
def called(tmp_path, monkeypatch, capsys):
    "Run a command line, which must succeed; what it printed."
    monkeypatch.setenv('WYSIWYG_RUNS', str(tmp_path / 'runs'))

    def call(line: str) -> str:
        code = main(shlex.split(line))
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield call
    torch.set_num_threads(threads)


@pytest.mark.parametrize('method', BASELINES)
def test_it_trains_and_goes_on_to_the_bit(called, heads, tmp_path, method):
    start = f'train --method {method} --data {heads} {SMALL}'
    called(f'{start} --outdir {tmp_path}/whole')
    called(f'{start} --outdir {tmp_path}/cut --stop-at .012')
    called(f'{start} --outdir {tmp_path}/cut --resume latest')
    whole, cut = [load_generator(tmp_path / name) for name in ('whole', 'cut')]
    assert whole.run.system == method
    for (name, a), b in zip(whole.state_dict().items(), cut.state_dict().values(), strict=True):
        assert torch.equal(a, b), name

    network = tmp_path / 'whole' / 'generator.safetensors'
    told = called(f'eval --network {network} --data {heads} --n 8')
    assert 'fd_efflite0at96_8' in told
    called(f'render --network {network} --outdir {tmp_path}/pictures --seeds 0-1')
    assert len(list((tmp_path / 'pictures').glob('*normal.png'))) == 2


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('name', ['tiny', 'heads64', 'small'])
def test_every_preset_is_adapted(name, method):
    run = method_of(preset(name, system=method)).adapted(preset(name))
    assert run.system == method
    assert run.resolution == preset(name).resolution
    with torch.device('meta'):
        g = method_of(run).generator(run, start=False)
    assert sum(p.numel() for p in g.parameters()) > 1e5
