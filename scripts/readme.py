"""Write README.md from nbs/index.ipynb.

Hidden cells and directives out, outputs as text, links from the project root, pictures beside the notebook.

python scripts/readme.py
"""

import base64, json, posixpath, re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r'(\]\()(?!\w+:|#|/)([^)\s]+)')
HEAD = '<!-- Written from nbs/index.ipynb by `make readme`: edit the notebook, not this file. -->\n\n'


def relink(markdown: str) -> str:
    "Links in nbs/ start at nbs/; those of the README start one folder higher."
    return LINK.sub(lambda m: m[1] + posixpath.normpath('nbs/' + m[2]), markdown)


def output(o: dict) -> str:
    "An output as markdown: its markdown where it has one, else its text; HTML stays in the notebook."
    if o['output_type'] == 'stream':
        return '' if o['name'] == 'stderr' else fenced(''.join(o['text']), '')
    data = o.get('data', {})
    if 'text/markdown' in data:
        return relink(''.join(data['text/markdown']).strip())
    has_picture = any(kind.startswith('image/') for kind in data)
    if 'text/plain' in data and not has_picture:
        return fenced(''.join(data['text/plain']), '')
    return ''


def directives(c: dict) -> list[str]:
    "What a cell tells nbdev and Quarto."
    return [line[2:].strip() for line in ''.join(c['source']).splitlines() if line.startswith('#|')]


def alt(c: dict) -> str:
    "What a cell's picture shows, in words: its `#| fig-alt:`."
    for said in directives(c):
        if said.startswith('fig-alt:'):
            return said.removeprefix('fig-alt:').strip()
    return ''


def pictures(c: dict) -> dict[str, bytes]:
    "File name -> bytes of the picture that a cell with a `fig-alt` shows."
    if not alt(c):
        return {}
    for o in c.get('outputs', []):
        for kind, data in o.get('data', {}).items():
            if kind in ('image/png', 'image/jpeg'):
                name = f'index-{c["id"]}.{kind.removeprefix("image/")}'
                return {name: base64.b64decode(''.join(data))}
    return {}


def fenced(code: str, language: str) -> str:
    return f'```{language}\n{code.rstrip()}\n```'


def cell(c: dict) -> str:
    "One cell as markdown; empty when there is nothing to show."
    source = ''.join(c['source'])
    if c['cell_type'] == 'markdown':
        return relink(source.strip())
    if c['cell_type'] != 'code':
        return ''
    said = directives(c)
    if 'hide' in said or any(s.startswith('default_exp') for s in said):
        return ''
    code = '\n'.join(line for line in source.splitlines() if not line.startswith('#|')).strip()
    shown = []
    if code and 'hide_input' not in c['metadata'].get('tags', []):
        shown.append(fenced(code, 'python'))
    shown += [output(o) for o in c.get('outputs', [])]
    shown += [f'![{alt(c)}](nbs/{name})' for name in pictures(c)]
    return '\n\n'.join(filter(None, shown))


def readme(index: Path) -> str:
    "The README's text."
    cells = json.loads(index.read_text(encoding='utf8'))['cells']
    parts = filter(None, map(cell, cells))
    return HEAD + '\n\n'.join(parts) + '\n'


def write(root: Path = ROOT):
    "README.md, and the pictures it shows as nbs/index-*."
    index = root / 'nbs/index.ipynb'
    for stale in (root / 'nbs').glob('index-*'):
        stale.unlink()
    for c in json.loads(index.read_text(encoding='utf8'))['cells']:
        for name, data in pictures(c).items():
            (root / 'nbs' / name).write_bytes(data)
    (root / 'README.md').write_text(readme(index), encoding='utf8')


if __name__ == '__main__':
    write()
