"""Run the notebooks, or show one as text.

python scripts/notebooks.py run [--save] [--workers 2] [--timeout 300] [NOTEBOOK ...]    or all of nbs/
python scripts/notebooks.py text NOTEBOOK                                                sources only
"""

import argparse, os, re, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / 'nbs'
HEAP = {
    'MALLOC_MMAP_THRESHOLD_': '4000000000',
    'MALLOC_TRIM_THRESHOLD_': '16000000000',
    'MALLOC_TOP_PAD_': '268435456',
}  # as in the Makefile
QUIET = {
    'MPLBACKEND': 'module://matplotlib_inline.backend_inline',
    'MLFLOW_DISABLE_TELEMETRY': 'true',
    'DO_NOT_TRACK': 'true',
    'PYTHONWARNINGS': 'ignore::RuntimeWarning:zmq',
}


def settings() -> dict:
    "settings.ini as a dictionary."
    parser = ConfigParser(delimiters=['='], interpolation=None)
    parser.read(ROOT / 'settings.ini', encoding='utf8')
    return dict(parser['DEFAULT'])


def notebooks() -> list[Path]:
    "Every notebook of the book, in reading order; then the ablations, then the solutions."
    found = [p for p in NBS.rglob('*.ipynb') if not is_hidden(p)]
    return sorted(found, key=lambda p: (len(p.parts), p.name == 'index.ipynb', str(p)))


def is_hidden(path: Path) -> bool:
    "Is it, or a folder around it, named with a dot or an underscore in front?"
    return any(part[0] in '._' for part in path.relative_to(NBS).parts)


def name(path: Path) -> str:
    return path.resolve().relative_to(NBS).with_suffix('').as_posix()


def skipped(source: str, flags=tuple(settings()['tst_flags'].split())) -> bool:
    "Is this code cell marked `#| eval: false`, or with one of the test flags of settings.ini?"
    said = [line[2:].strip() for line in source.splitlines() if line.startswith('#|')]
    return 'eval: false' in said or any(flag in said for flag in flags)


def surroundings(workers: int = 2) -> dict[str, str]:
    "The environment of a notebook when so many run side by side."
    count = str(max(1, (os.cpu_count() or 1) // workers))
    return os.environ | HEAP | QUIET | {'OMP_NUM_THREADS': count, 'MKL_NUM_THREADS': count}


def plain(text: str) -> str:
    "Without colours."
    return re.sub(r'\x1b\[[0-9;]*m', '', text)


def execute(path: Path, seconds: float, save: bool = False, env: dict[str, str] = os.environ, kernels=None):
    """Run one notebook in a fresh kernel within `seconds`; with `save`, keep its outputs but for stderr.

    TimeoutError where that is not enough: the cell is interrupted, and the error says where it stood.
    `kernels`: the class of their manager; each a new Python when not given.
    """
    import asyncio, nbformat
    from nbclient import NotebookClient
    from wysiwyg.executors import this_python

    class Client(NotebookClient):
        async def async_execute_cell(self, cell, *args, **kwargs):
            return cell if skipped(cell.source) else await super().async_execute_cell(cell, *args, **kwargs)

    begun = []

    def left(cell) -> float:
        begun.append(time.monotonic())  # the kernel is there
        return max(1, begun[0] + seconds - begun[-1])

    nb = nbformat.read(path, 4)
    client = Client(
        nb,
        kernel_manager_class=kernels or this_python(),
        timeout_func=left,
        interrupt_on_timeout=True,
        startup_timeout=120,
        resources={'metadata': {'path': str(path.parent)}},
    )
    said = ''
    try:
        asyncio.run(asyncio.wait_for(client.async_execute(env=env), seconds + 60))
    except Exception as e:
        said = str(e) or repr(e)
        if not begun or time.monotonic() < begun[0] + seconds:
            raise
    if time.monotonic() > begun[0] + seconds:
        raise TimeoutError(f'no end within {seconds:.0f} s: {said}')
    if not save:
        return
    for cell in nb.cells:
        if cell.cell_type == 'code':
            cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
            for output in cell.outputs:
                _keep_picture(output.get('data', {}))
    nb.metadata.pop('widgets', None)
    temporary = path.with_suffix('.tmp')
    nbformat.write(nb, temporary)
    os.replace(temporary, path)


def _keep_picture(data: dict):
    "A saved widget has nobody to answer it: where it comes with a picture, that is what is kept."
    if 'image/png' in data:
        data.pop('application/vnd.jupyter.widget-view+json', None)


def run(path: Path, seconds: float = 300, save: bool = False, workers: int = 2) -> tuple[bool, float, str]:
    "Run one notebook in a process of its own -> (passed, seconds, what it said)."
    command = [sys.executable, __file__, 'one', str(path), '--timeout', str(seconds)]
    if save:
        command.append('--save')
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            env=surroundings(workers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds + 150,
        )
        passed, said = done.returncode == 0, done.stdout
    except subprocess.TimeoutExpired:
        passed, said = False, f'no end after {seconds + 150:.0f} s'
    return passed, time.monotonic() - start, plain(said)


def run_all(paths: list[Path], **kw) -> bool:
    "Run notebooks side by side, one line for each as it ends; True when all passed."

    def one(path):
        passed, took, said = run(path, **kw)
        line = f'{took:6.1f} s  {name(path)}'
        print(f'ok   {line}' if passed else f'FAIL {line}\n{said}', flush=True)
        return passed

    with ThreadPoolExecutor(kw.get('workers', 2)) as pool:
        return all(list(pool.map(one, paths)))


def text(path: Path) -> str:
    "The sources of the cells."
    import json

    cells = json.loads(path.read_text(encoding='utf8'))['cells']

    def shown(c):
        kind = [] if c['cell_type'] == 'code' else ['md']
        head = ' '.join(['# %%', *kind, *c['metadata'].get('tags', [])])
        return head + '\n' + ''.join(c['source'])

    return '\n\n'.join(map(shown, cells)) + '\n'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('action', choices=['run', 'one', 'text'])
    parser.add_argument('paths', nargs='*', type=Path)
    parser.add_argument('--save', action='store_true')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--timeout', type=float, default=300, help='seconds per notebook')
    args = parser.parse_intermixed_args()
    if args.action == 'text':
        return print(text(args.paths[0]), end='')
    if args.action == 'one':
        return execute(args.paths[0], args.timeout, args.save)
    passed = run_all(
        [p.resolve() for p in args.paths] or notebooks(),
        seconds=args.timeout,
        save=args.save,
        workers=args.workers,
    )
    sys.exit(not passed)


if __name__ == '__main__':
    main()
