"""Do the notebooks, the modules and the README agree? Cleans and exports a copy, then compares it with the tree as it is; changes nothing.

    python scripts/drift.py          exit code 1 and the differences when they do not agree
"""
import os, shutil, subprocess, sys, tempfile
from pathlib import Path

from readme import write

ROOT = Path(__file__).resolve().parent.parent
IGNORE = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '.last_checked', '*.tmp')
BIN = Path(sys.executable).parent


def drift(root: Path = ROOT) -> str:
    "What clean + export + readme would change under `root`, as a diff; empty when all agree."
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder)/'tree', Path(folder)/'expected'
        for copy in before, after:
            for part in 'nbs', 'wysiwyg': shutil.copytree(root/part, copy/part, ignore=IGNORE)
        shutil.copy(root/'settings.ini', after)
        for stale in set((after/'wysiwyg').rglob('*.py')) - {after/'wysiwyg/__init__.py'}: stale.unlink()
        for tool in 'nbdev_clean', 'nbdev_export': subprocess.run([BIN/tool], cwd=after, check=True, env=os.environ | {'PYTHONPATH': ''})
        (after/'settings.ini').unlink()
        write(after)
        shutil.copy(root/'README.md', before)
        for copy in before, after:
            for cache in list(copy.rglob('.last_checked')): cache.unlink()
        command = 'git diff --no-index --exit-code --no-color --no-ext-diff --no-textconv --stat --patch tree expected'.split()
        return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


if __name__ == '__main__':
    if found := drift():
        print(found[:20000] + '\nThese would change: run `make export`, look, commit.')
        sys.exit(1)
