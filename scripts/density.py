"""One thing on a line: what `ruff format` cannot hold. Faults of files, or the counts of the package.

python scripts/density.py [FILE ...]    faults, one a line; every notebook, test and script when none is named
python scripts/density.py --counts      lines, nodes a statement, lines a function of the package
"""

import ast
import re
import sys
from pathlib import Path

from notebooks import ROOT, notebooks

COLUMNS = 110
NODES = 40  # in a simple statement
CELL = 40  # lines of an exported cell
CLASS = 90  # of one that is a single class, whose methods belong together


def code_cells(path: Path) -> list[str]:
    "The sources of a notebook's code cells, magics blanked; a script is one cell."
    text = path.read_text(encoding='utf8')
    if path.suffix != '.ipynb':
        return [text]
    import json

    cells = [''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'code']
    return [re.sub(r'(?m)^[%!].*$', 'pass', cell) for cell in cells]


def is_simple(node: ast.AST) -> bool:
    "A statement without a body that is neither an import nor a docstring."
    if not isinstance(node, ast.stmt) or hasattr(node, 'body') or isinstance(node, ast.Match):
        return False
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return False
    return not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def nodes(statement: ast.AST) -> int:
    "How many things are said at once: nodes of the syntax tree; where each entry has a line, of the largest."
    value = getattr(statement, 'value', None)
    entries = []
    if isinstance(value, ast.Dict):
        entries = [*value.values]
    elif isinstance(value, ast.Call):
        entries = [*value.args, *value.keywords]
    if len(entries) > 2 and len({e.lineno for e in entries}) == len(entries):
        return max(map(nodes, entries))
    return sum(1 for _ in ast.walk(statement))


def is_table(statement: ast.stmt) -> bool:
    "A literal: numbers and words in rows are read as a table, not as a sentence."
    value = getattr(statement, 'value', None)
    if isinstance(value, ast.Call):
        called = isinstance(value.func, ast.Name) and value.func.id == 'dict'
        rows = [k.value for k in value.keywords] + value.args
        return called and all(is_literal(v) for v in rows)
    return value is not None and is_literal(value)


def is_literal(node: ast.AST) -> bool:
    "Constants, names, and lists, tuples, sets, dictionaries, or calls of one name over such, as in a table."
    if isinstance(node, (ast.Constant, ast.Name, ast.Attribute)):
        return True
    if isinstance(node, ast.UnaryOp):
        return is_literal(node.operand)
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return all(is_literal(e) for e in node.elts)
    if isinstance(node, ast.Dict):
        return all(is_literal(e) for e in [*filter(None, node.keys), *node.values])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return all(is_literal(a) for a in [*node.args, *(k.value for k in node.keywords)])
    return False


def statement_faults(tree: ast.AST) -> list[str]:
    "Statements that say too much, walruses in arguments, lambdas with names, strings times truth values."
    faults = []
    for node in ast.walk(tree):
        if is_simple(node) and nodes(node) > NODES and not is_table(node):
            faults.append(f'line {node.lineno}: a statement of {nodes(node)} nodes, at most {NODES}')
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            faults.append(f'line {node.lineno}: a lambda with a name: write a function')
        if isinstance(node, ast.Call):
            arguments = [*node.args, *(k.value for k in node.keywords)]
            if any(isinstance(n, ast.NamedExpr) for a in arguments for n in walk_outside_generators(a)):
                faults.append(f'line {node.lineno}: a walrus inside the arguments of a call')
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and is_string_times_truth(node):
            faults.append(f'line {node.lineno}: a string times a truth value: write a conditional')
    return faults


def walk_outside_generators(node: ast.AST):
    "Every node but those within comprehensions, whose conditions may bind what they yield."
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.comprehension):
            yield from walk_outside_generators(child)


def is_string_times_truth(node: ast.BinOp) -> bool:
    "'word' * (a > b), or the other way round; '-' * n is repetition."
    sides = (node.left, node.right)
    return any(is_string(side) for side in sides) and any(is_truth(side) for side in sides)


def is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(getattr(node, 'value', None), str)


def is_truth(node: ast.AST) -> bool:
    negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return negation or isinstance(node, (ast.Compare, ast.BoolOp))


def cell_faults(code: str) -> list[str]:
    "An exported cell that says more than one idea."
    lines, body = len(code.splitlines()) - 1, ast.parse(code).body
    most = CLASS if len(body) == 1 and isinstance(body[0], ast.ClassDef) else CELL
    return [f'an exported cell of {lines} lines, at most {most}'] if lines > most else []


def faults(path: Path) -> list[str]:
    "What is wrong with a file, with the number of the cell in a notebook."
    out = []
    for i, code in enumerate(code_cells(path)):
        where = f'code cell {i}, ' if path.suffix == '.ipynb' else ''
        lines = code.splitlines()
        found = [f'line {n}: {len(line)} columns' for n, line in enumerate(lines, 1) if len(line) > COLUMNS]
        found += statement_faults(ast.parse(code))
        if path.suffix == '.ipynb' and code.startswith('#| export'):
            found += cell_faults(code)
        out += [where + fault for fault in found]
    return out


def files() -> list[Path]:
    "Every notebook, test and script."
    return [*notebooks(), *sorted((ROOT / 'tests').glob('*.py')), *sorted((ROOT / 'scripts').glob('*.py'))]


def counts() -> dict:
    "Of the package: lines, and nodes a simple statement and lines a function as median, 90 %, most."
    modules = [p for p in (ROOT / 'wysiwyg').rglob('*.py') if p.stem[0] != '_']
    trees = [ast.parse(p.read_text(encoding='utf8')) for p in modules]
    said = [nodes(n) for t in trees for n in ast.walk(t) if is_simple(n)]
    kinds = ast.FunctionDef, ast.AsyncFunctionDef
    functions = [n for t in trees for n in ast.walk(t) if isinstance(n, kinds)]
    lengths = [f.end_lineno - f.lineno + 1 for f in functions]
    lines = [p.read_text(encoding='utf8').count('\n') for p in modules]
    return {
        'lines': sum(lines),
        'nodes a statement': spread(said),
        'lines a function': spread(lengths),
        'functions': len(functions),
    }


def spread(values: list[int]) -> tuple[int, int, int]:
    "Median, 90 % and the largest."
    ranked = sorted(values)
    return ranked[len(ranked) // 2], ranked[len(ranked) * 9 // 10], ranked[-1]


if __name__ == '__main__':
    if sys.argv[1:] == ['--counts']:
        for name, value in counts().items():
            print(f'{name:20} {value}')
        sys.exit()
    found = {p: faults(p) for p in [Path(a).resolve() for a in sys.argv[1:]] or files()}
    for path, said in found.items():
        for fault in said:
            print(f'{path.relative_to(ROOT)}: {fault}')
    sys.exit(any(found.values()))
