"""Write README.md from nbs/index.ipynb: hidden cells and directives out, outputs as text, links from the project root.

    python scripts/readme.py
"""
import json, posixpath, re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r'(\]\()(?!\w+:|#|/)([^)\s]+)')
HEAD = '<!-- Written from nbs/index.ipynb by `make readme`: edit the notebook, not this file. -->\n\n'


def relink(markdown: str) -> str:
    "Links in nbs/ start at nbs/; those of the README start one folder higher."
    return LINK.sub(lambda m: m[1] + posixpath.normpath('nbs/' + m[2]), markdown)


def output(o: dict) -> str:
    "An output as markdown: its markdown where it has one, else its text; pictures and HTML stay in the notebook."
    if o['output_type'] == 'stream': return '' if o['name'] == 'stderr' else fenced(''.join(o['text']), '')
    data = o.get('data', {})
    if 'text/markdown' in data: return relink(''.join(data['text/markdown']).strip())
    return fenced(''.join(data['text/plain']), '') if 'text/plain' in data and not any(k.startswith('image/') for k in data) else ''


def fenced(code: str, language: str) -> str: return f'```{language}\n{code.rstrip()}\n```'


def cell(c: dict) -> str:
    "One cell as markdown; empty when there is nothing to show."
    source = ''.join(c['source'])
    if c['cell_type'] == 'markdown': return relink(source.strip())
    if c['cell_type'] != 'code': return ''
    lines = source.splitlines()
    said = [line[2:].strip() for line in lines if line.startswith('#|')]
    if 'hide' in said or any(s.startswith('default_exp') for s in said): return ''
    code = '\n'.join(line for line in lines if not line.startswith('#|')).strip()
    show = [] if 'hide_input' in c['metadata'].get('tags', []) or not code else [fenced(code, 'python')]
    return '\n\n'.join(show + [text for o in c.get('outputs', []) if (text := output(o))])


def readme(index: Path = ROOT/'nbs/index.ipynb') -> str:
    "The README's text."
    parts = [text for c in json.loads(index.read_text(encoding='utf8'))['cells'] if (text := cell(c))]
    return HEAD + '\n\n'.join(parts) + '\n'


if __name__ == '__main__': (ROOT/'README.md').write_text(readme(), encoding='utf8')
