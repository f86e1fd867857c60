"""Do the notebooks, the modules and the README agree?

Cleans and exports a copy, then compares it with the tree as it is; changes nothing.

python scripts/drift.py          exit code 1 and the differences when they do not agree
python scripts/drift.py names    only: do two notebooks write the same module?
"""

import json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

from readme import write

ROOT = Path(__file__).resolve().parent.parent
DIFF = 'git diff --no-index --exit-code --no-color --no-ext-diff --no-textconv --stat --patch tree expected'
IGNORE = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '.last_checked', '*.tmp')
BIN = Path(sys.executable).parent


def drift(root: Path = ROOT) -> str:
    "What clean + export + readme would change under `root`, as a diff; empty when all agree."
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / 'tree', Path(folder) / 'expected'
        for copy in before, after:
            for part in 'nbs', 'wysiwyg':
                shutil.copytree(root / part, copy / part, ignore=IGNORE)
        shutil.copy(root / 'settings.ini', after)
        modules = set((after / 'wysiwyg').rglob('*.py'))
        for stale in modules - {after / 'wysiwyg/__init__.py'}:
            stale.unlink()
        for tool in 'nbdev_clean', 'nbdev_export':
            subprocess.run([BIN / tool], cwd=after, check=True, env=os.environ | {'PYTHONPATH': ''})
        (after / 'settings.ini').unlink()
        write(after)
        shutil.copy(root / 'README.md', before)
        for copy in before, after:
            for cache in list(copy.rglob('.last_checked')):
                cache.unlink()
        return subprocess.run(DIFF.split(), cwd=folder, capture_output=True, text=True).stdout


def modules_of(path: Path) -> set[str]:
    "The names that a notebook gives with `default_exp`."
    cells = json.loads(path.read_text(encoding='utf8'))['cells']
    sources = [''.join(c['source']) for c in cells if c['cell_type'] == 'code']
    found = [re.match(r'#\|\s*default_exp\s+([\w.]+)', source) for source in sources]
    return {m[1] for m in found if m}


def same_names(root: Path = ROOT) -> str:
    "Notebooks that would write one module, as a line for each such module; empty when there are none."
    writers = {}
    for path in sorted((root / 'nbs').rglob('*.ipynb')):
        if any(part[0] in '._' for part in path.relative_to(root).parts):
            continue
        for module in modules_of(path):
            writers.setdefault(module, []).append(path.name)
    clashes = {module: ' and '.join(names) for module, names in writers.items() if len(names) > 1}
    mend = 'give one another `default_exp`, or move it away'
    return '\n'.join(f'{names} both write the module {module}: {mend}' for module, names in clashes.items())


if __name__ == '__main__':
    if found := same_names():
        sys.exit(found)
    if sys.argv[1:] == ['names']:
        sys.exit()
    if found := drift():
        print(found[:20000] + '\nThese would change: run `make export`, look, commit.')
        sys.exit(1)
