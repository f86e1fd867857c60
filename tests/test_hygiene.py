"""The house rules, each as a function that returns faults, each shown to catch a planted one.

Checkers take a notebook as a dictionary or a text, so that the planted faults below need no files.
"""

import ast, builtins, dis, importlib, json, re, shutil, subprocess, sys, types
from pathlib import Path

import density
import pytest
import torch
from drift import drift, same_names
from notebooks import ROOT, name, notebooks, settings, skipped, text
from readme import readme, write

PATHS = notebooks()
MODULES = sorted(p for p in (ROOT / 'wysiwyg').rglob('*.py'))
FLAGS = tuple(settings()['tst_flags'].split())


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding='utf8'))


def source(cell: dict) -> str:
    return ''.join(cell['source'])


def codes(nb: dict) -> list[dict]:
    return [c for c in nb['cells'] if c['cell_type'] == 'code']


def tags(cell: dict) -> list[str]:
    return cell['metadata'].get('tags', [])


def parse(code: str) -> ast.Module:
    "The cell as Python, its magics and directives blanked."
    return ast.parse('\n'.join('pass' if re.match(r'\s*[%!]', line) else line for line in code.splitlines()))


# ---- cells ---------------------------------------------------------------------------------------

ALLOWED = re.compile(r'#\| (default_exp [\w.]+|export|hide|eval: false|fig-alt: .+|' + '|'.join(FLAGS) + ')')


def directive_faults(nb: dict) -> list[str]:
    "Unknown directives, and directives below another line: nbdev silently runs such cells."
    out = []
    for c in codes(nb):
        leading = True
        for line in source(c).splitlines():
            if re.match(r'\s*#\s*\|', line):
                if not ALLOWED.fullmatch(line.rstrip()):
                    out.append(f'unknown directive: {line}')
                if not leading:
                    out.append(f'directive not at the top of its cell: {line}')
            else:
                leading = False
    return out


def import_cell_faults(nb: dict) -> list[str]:
    "Cells that mix imports with other code; magics may stay."
    out = []
    for c in codes(nb):
        body = [s for s in parse(source(c)).body if not isinstance(s, ast.Pass)]
        imports = [s for s in body if isinstance(s, (ast.Import, ast.ImportFrom))]
        if 0 < len(imports) < len(body):
            out.append(f'imports mixed with code: {source(c)[:80]!r}')
    return out


def stage(path: Path) -> tuple[int, str] | None:
    """A notebook's place, e.g. 07a_x -> (7, 'a'); those of baselines come last.

    None for index and ablations: they may import anything."""
    if path.parent == ROOT / 'nbs' / 'baselines':
        return 100, path.name
    found = re.match(r'(\d\d)([a-z]?)_', path.name)
    if not found or path.parent != ROOT / 'nbs':
        return None
    return int(found[1]), found[2]


def imported(code: str) -> set[str]:
    "The modules of wysiwyg that some code imports, wherever it does."
    out = set()
    for node in ast.walk(parse(code)):
        if isinstance(node, ast.Import):
            out |= {a.name.split('.')[1] for a in node.names if a.name.startswith('wysiwyg.')}
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or '').split('.')
            inside = node.level or parts[0] == 'wysiwyg'
            parts = [p for p in parts if p and p != 'wysiwyg']
            if inside:
                out |= {parts[0]} if parts else {a.name for a in node.names}
    return out


def upward_faults(nb: dict, place, places: dict) -> list[str]:
    "Imports of stages that do not come before this one."
    if not place:
        return []
    used = set().union(*(imported(source(c)) for c in codes(nb)))
    later = [m for m in sorted(used & set(places)) if places[m] >= place]
    return [f'imports {m}, stage {places[m]}, from stage {place}' for m in later]


def exported_name(nb: dict) -> str | None:
    for c in codes(nb):
        if found := re.match(r'#\| default_exp ([\w.]+)', source(c)):
            return found[1]
    return None


# ---- outputs -------------------------------------------------------------------------------------

NOTEBOOK_KB, IMAGE_KB = 600, 60


def kilobytes(kind: str, data) -> float:
    "Size of a picture's bytes: base64 text stands for three quarters of its length, SVG for itself."
    return len(''.join(data)) * (1 if 'svg' in kind else 0.75) / 1000


def size_faults(nb: dict, size: int) -> list[str]:
    "Notebooks and pictures that are too large, widget state."
    out = [f'{size / 1000:.0f} KB, allowed {NOTEBOOK_KB}'] if size > NOTEBOOK_KB * 1000 else []
    if 'widgets' in nb['metadata']:
        out.append('widget state in the metadata')
    for c in codes(nb):
        for o in c['outputs']:
            for kind, data in o.get('data', {}).items():
                if kind.startswith('image/') and (kb := kilobytes(kind, data)) > IMAGE_KB:
                    out.append(f'{kind} of {kb:.0f} KB, allowed {IMAGE_KB}: {source(c)[:60]!r}')
                if 'widget-state' in kind:
                    out.append('widget state in an output')
                if 'plotly' in kind:
                    out.append(f'a live figure is saved: show a picture: {source(c)[:60]!r}')
    return out


def speaks(statement: ast.stmt, calls: tuple[str, ...]) -> bool:
    "Is it a value that is there to be seen? Calls may return None, save those named."
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in calls
    return not (isinstance(value, ast.Constant) and value.value is None)


def output_faults(nb: dict) -> list[str]:
    """Errors, stderr, values that nobody sees; cells that end on a value but show none: they were not run.

    (Cleaning drops execution counts.)
    """
    out = []
    for c in codes(nb):
        code = source(c)
        kinds = [o['output_type'] for o in c['outputs']]
        if 'error' in kinds:
            out.append(f'error output: {code[:60]!r}')
        if any(o.get('name') == 'stderr' for o in c['outputs']):
            out.append(f'stderr output: {code[:60]!r}')
        body = parse(code).body
        silent = code.rstrip().endswith(';') or skipped(code)
        if body and not kinds and not silent and speaks(body[-1], ('print', 'show', 'display')):
            out.append(f'not run: {code[:60]!r}')
        out += [
            f'not the last of its cell: {ast.unparse(s)[:60]!r}' for s in body[:-1] if speaks(s, ('show',))
        ]
    return out


def parameter_faults(nb: dict) -> list[str]:
    "An ablation must have one cell tagged `parameters`, of plain assignments."
    cells = [c for c in codes(nb) if 'parameters' in tags(c)]
    if len(cells) != 1:
        return [f'{len(cells)} cells tagged parameters, 1 wanted']
    odd = [s for s in parse(source(cells[0])).body if not isinstance(s, (ast.Assign, ast.AnnAssign))]
    return ['the parameters cell holds more than assignments'] if odd else []


# ---- texts ---------------------------------------------------------------------------------------

PLACES = re.compile(r'(?<![\w.:])(?:/(?:home|root|work|tmp|Users|opt|mnt)/|[A-Z]:\\\\?Users)')
REGISTRIES = re.compile(
    r'pypi\.org|pythonhosted|download\.pytorch\.org|conda\.anaconda|/simple/|'
    r'--(?:extra-)?index-url|--find-links|trusted-host'
)


def place_faults(text: str) -> list[str]:
    around = [text[max(0, m.start() - 20) : m.end() + 20] for m in PLACES.finditer(text)]
    return [f'path of a machine: {words!r}' for words in around]


def registry_faults(text: str) -> list[str]:
    return [f'registry address: {m[0]}' for m in REGISTRIES.finditer(text)]


def words(nb: dict) -> str:
    "What a notebook says: sources and textual outputs, not pictures."
    said = [source(c) for c in nb['cells']]
    for c in codes(nb):
        for o in c['outputs']:
            said.append(''.join(o.get('text', [])))
            said += [''.join(v) for k, v in o.get('data', {}).items() if k.startswith('text/')]
    return '\n'.join(said)


FOLDERS = ('wysiwyg', 'scripts', 'data', 'tests', '.ci', '.githooks')
TEXTS = ('.py', '.md', '.json', '.csv', '.txt', '.toml', '.cff', '.ini', '.cu', '')


def ships(path: Path) -> bool:
    "A text of the repository; this file, which plants what is forbidden, is none."
    made = {'sets', '__pycache__'} & set(path.relative_to(ROOT).parts)
    spared = ('.git', Path(__file__).name)  # in a worktree .git is a file
    return path.is_file() and path.suffix in TEXTS and not made and path.name not in spared


def texts() -> dict[str, str]:
    "Every text that ships, by path from the root."
    found = [p for folder in FOLDERS for p in (ROOT / folder).rglob('*')]
    found += [*ROOT.glob('*'), ROOT / '.gitattributes', ROOT / '.gitignore']
    files = {p.relative_to(ROOT).as_posix(): p.read_text(encoding='utf8') for p in found if ships(p)}
    books = {f'nbs/{name(p)}': words(load(p)) for p in PATHS}
    return files | books


# ---- modules -------------------------------------------------------------------------------------

LONGEST = 60


def dotted(node) -> str:
    if isinstance(node, ast.Attribute):
        return f'{dotted(node.value)}.{node.attr}'
    return node.id if isinstance(node, ast.Name) else ''


def flag(call: ast.Call, key: str):
    "The constant given for a keyword, None when absent."
    for k in call.keywords:
        if k.arg == key and isinstance(k.value, ast.Constant):
            return k.value.value
    return None


def unsafe(call: ast.Call, around: str) -> str:
    """Why a call may run code that came with data; empty when it may not.

    `around` is the text of the enclosing function.
    """
    name = dotted(call.func)
    if re.fullmatch(r'(pickle|dill|joblib|cloudpickle)\.(loads?|Unpickler)', name):
        return f'{name}: unpickling runs code'
    if name == 'torch.load' and flag(call, 'weights_only') is not True:
        return 'torch.load needs weights_only=True'
    if flag(call, 'weights_only') is False:
        return 'weights_only=False'
    if flag(call, 'allow_pickle') is True:
        return 'allow_pickle=True'
    if name == 'torch.jit.load' and 'sha' not in around:
        return 'torch.jit.load of a file whose SHA-256 the same function does not check'
    if name.startswith('mlflow.') and name.endswith('.load_model'):
        return f'{name} can run code'
    return ''


def calls(node, around=None):
    "Every call below a node with the innermost function around it."
    for child in ast.iter_child_nodes(node):
        inner = child if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else around
        if isinstance(child, ast.Call):
            yield child, inner
        yield from calls(child, inner)


def call_faults(code: str) -> list[str]:
    "Forbidden calls in a module, and imports that would hide them."
    tree, out = ast.parse(code), []
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and n.module in ('pickle', 'dill', 'joblib', 'cloudpickle'):
            out.append(f'from {n.module} import …: hides what is called')
    for call, around in calls(tree):
        if why := unsafe(call, ast.unparse(around) if around else ''):
            out.append(f'line {call.lineno}: {why}')
    return out


def length_faults(code: str) -> list[str]:
    "Functions of more than LONGEST lines."
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [n for n in ast.walk(ast.parse(code)) if isinstance(n, kinds)]
    lines = [(f.name, f.end_lineno - f.lineno + 1) for f in functions]
    return [f'{name}: {count} lines' for name, count in lines if count > LONGEST]


def header_faults(code: str) -> list[str]:
    "A module that nbdev did not write, or whose notebook describes itself in more than a line."
    faults = []
    if not re.search('autogenerated', code[:200], re.I):
        faults.append('not written by nbdev_export')
    if len(code.split('\n')[0]) > density.COLUMNS:
        faults.append('its description is longer than a line')
    return faults


LONE = """
import importlib, importlib.metadata, json, sys
import numpy, torch, torch.utils.checkpoint
spared = 'torch numpy wysiwyg torchgen functorch typing_extensions sympy mpmath networkx jinja2 markupsafe'
spared = {*spared.split(), 'fsspec', 'filelock', *sys.stdlib_module_names}
barred = {*importlib.metadata.packages_distributions(), *sys.argv[2].split()} - spared
for name in [n for n in sys.modules if n.split('.')[0] in barred]: del sys.modules[name]
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in barred:
            raise ImportError(f'{name} is not to be imported at the top of a module')
sys.meta_path.insert(0, Wall())
out = {}
for module in sys.argv[1].split():
    try: importlib.import_module(module)
    except Exception as e: out[module] = f'{type(e).__name__}: {e}'
print(json.dumps(out))
"""
HEAVY = (
    'mlflow cleanfid cupy plotly ipywidgets trimesh embreex tyro matplotlib nbdev fastcore skimage '
    'efficientnet_lite_pytorch scipy pandas PIL torchvision tqdm imageio papermill safetensors psutil '
    'IPython'
)


def lone_faults(modules: list[str], folder: Path = ROOT) -> dict[str, str]:
    "Modules that do not import with torch and numpy alone -> why."
    child = [sys.executable, '-c', LONE, ' '.join(modules), HEAVY]
    done = subprocess.run(child, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ---- names ---------------------------------------------------------------------------------------


def exports(code: str) -> list[str]:
    "What a module's __all__ names."
    for s in ast.parse(code).body:
        if isinstance(s, ast.Assign) and dotted(s.targets[0]) == '__all__':
            return ast.literal_eval(s.value)
    return []


def twice_exported(modules: dict[str, str]) -> set[str]:
    "Names that two modules export."
    every = [name for code in modules.values() for name in exports(code)]
    return {name for name in every if every.count(name) > 1}


def named(code: str) -> set[str]:
    "Names, attributes, imports, and dotted words in strings of some code."
    out = set()
    for n in ast.walk(parse(code)):
        if isinstance(n, (ast.Name, ast.Attribute)):
            out.add(dotted(n).split('.')[-1] or getattr(n, 'attr', ''))
        if isinstance(n, ast.alias):
            out |= set(n.name.split('.'))
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and re.fullmatch(r'[\w.:]+', n.value):
            out |= set(re.split('[.:]', n.value))
    return out


def unused_exports(modules: dict[str, str], others: list[str]) -> dict[str, set[str]]:
    "Of each module, what it exports and no other module nor other code names."
    names = {module: named(code) for module, code in modules.items()}
    elsewhere = set().union(*map(named, others))
    out = {}
    for module, code in modules.items():
        used = elsewhere.union(*(names[other] for other in modules if other != module))
        if alone := set(exports(code)) - used:
            out[module] = alone
    return out


def package() -> dict[str, str]:
    "Code by module."
    return {module_name(p): p.read_text(encoding='utf8') for p in MODULES if p.stem[0] != '_'}


def module_name(path: Path) -> str:
    "A module's name inside wysiwyg: 'core', 'baselines.eg3d'."
    return '.'.join(path.relative_to(ROOT / 'wysiwyg').with_suffix('').parts)


def outside() -> list[str]:
    "Lessons of notebooks, tests and scripts."
    lessons = [source(c) for p in PATHS for c in codes(load(p)) if not source(c).startswith('#| export')]
    files = [p for folder in ('tests', 'scripts') for p in (ROOT / folder).glob('*.py')]
    return lessons + [p.read_text(encoding='utf8') for p in files if p != Path(__file__).resolve()]


def functions(code: str) -> list[ast.FunctionDef]:
    "The functions that a module exports."
    names = set(exports(code))
    return [s for s in ast.parse(code).body if isinstance(s, ast.FunctionDef) and s.name in names]


def unshown(code: str, lesson: str) -> set[str]:
    "Exported functions that their own lesson does not use."
    return {f.name for f in functions(code)} - named(lesson)


def shapeless(code: str) -> list[str]:
    "Tensors that exported functions take without saying their shape, beside them or in the docstring."
    lines, out = code.splitlines(), []
    for f in functions(code):
        doc = ast.get_docstring(f) or ''
        for a in f.args.args + f.args.kwonlyargs:
            is_tensor = a.annotation is not None and ast.unparse(a.annotation) in ('Tensor', 'Tensor | None')
            beside = '[' in lines[a.lineno - 1].partition('#')[2]
            if is_tensor and not beside and not re.search(r'\[[\w.,* +-]*\]', doc):
                out.append(f'{f.name}: {a.arg}')
    return out


def silent(code: str) -> set[str]:
    "Exported functions that raise, and whose docstring names no error."
    names = r'Error|Damaged|NotFinite|Interrupted|SystemExit'
    out = set()
    for f in functions(code):
        raises = any(isinstance(n, ast.Raise) and n.exc for n in ast.walk(f))
        if raises and not re.search(names, ast.get_docstring(f) or ''):
            out.add(f.name)
    return out


def lesson_of(module: str) -> str:
    "The code of a module's notebook that is not exported."
    [book] = [load(p) for p in PATHS if stage(p) and exported_name(load(p)) == module]
    cells = [source(c) for c in codes(book) if not source(c).startswith('#| export')]
    return '\n'.join(ast.unparse(parse(c)) for c in cells)


# ---- imports and places --------------------------------------------------------------------------


def circle(modules: dict[str, str]) -> list[str]:
    "Modules that import each other, in turn; empty where none do."
    needs = {module: imported(code) & set(modules) for module, code in modules.items()}
    while free := [module for module, used in needs.items() if not used & set(needs)]:
        for module in free:
            needs.pop(module)
    return sorted(needs)


def upward_modules(modules: dict[str, str], order: list[str]) -> list[tuple[str, str]]:
    "(module, what it imports) where that stands at the same place or later."
    place = {module: i for i, module in enumerate(order)}
    pairs = [(a, b) for a in modules for b in imported(modules[a]) if b in place]
    return [(a, b) for a, b in pairs if place[b] >= place[a]]


# What ties the package to one method (a pattern over modules, all when none is named), how often it is left,
# and a line that has it. The numbers may only fall.
TIES = {
    'the name of the method is typed': (
        r"""['"]?\bmethod['"]?\s*[:=]\s*['"]wysiwyg""",
        '',
        0,
        "tags = {'method': 'wysiwyg'}",
    ),
    'a class in place of METHODS': (
        r'(?<!def )\bGenerator\(\w',
        'cli loop training',
        0,
        'g = Generator(run)',
    ),
    'the bar needs a metric': (r"\['geometry/beta'\]", 'loop', 0, "means['geometry/beta']"),
    "a list of a loss's parts": (r'^PARTS\b', 'training loop', 0, "PARTS = ('surface',)"),
    'inheritance as a filing system': (
        r'^class \w+\((Draws|Batches|Objective)\)',
        'training loop',
        0,
        'class Trainer(Objective):',
    ),
    'optimisers know the networks': (
        r'\bg\.(mapping|triplane|field|proposal)\.\w*parameters',
        'training',
        0,
        'g.field.named_parameters()',
    ),
    'reaching through the generator': (
        r'\bg\.run\.probe|\.triplane\.blocks|\.mapping\.w_mean\.device',
        'metrics inversion cli loop results',  # `studies` are of WYSIWYG's own samplers
        0,
        'z.to(g.mapping.w_mean.device)',
    ),
    'the probe is a quarter': (
        r'4 \* run\.probe\.resolution',
        'generator',
        0,
        'r != 4 * run.probe.resolution',
    ),
    'kernels know the layers of a field': (
        r'\bf\.sdf0|field\.sdf0',
        'generator renderer',  # a kernel knows the `Field` that it is made for, and lets others answer
        0,
        'f.sdf0.weight',
    ),
    'a picture has beta': (
        r'^    beta: Tensor *(?:#|$)',
        'core probe volrend',
        0,
        '    beta: Tensor  # [B, N]',
    ),
    'metrics know sdf and beta': (r'density\(m\.sdf, m\.beta\)', 'metrics', 0, 'density(m.sdf, m.beta)'),
    'a label is a camera': (r'labels?\.shape\[1\] != 25', '', 0, 'if data.labels.shape[1] != 25:'),
}


def ties(what: str, modules: dict[str, str]) -> int:
    "How often a tie is left."
    pattern, where, _, _ = TIES[what]
    chosen = where.split() or list(modules)
    return sum(len(re.findall(pattern, modules.get(module, ''), re.M)) for module in chosen)


# Lessons whose exercises wait for a solution; the list may only shrink.
UNSOLVED = """
""".split()


# ---- exercises -----------------------------------------------------------------------------------

SOLUTION_KB = 150


def is_solution(path: Path) -> bool:
    return path.parent.name == 'solutions'


def solution_of(path: Path) -> Path:
    "Where the exercises of a lesson or an ablation are solved."
    return ROOT / 'nbs' / 'solutions' / f's{path.name}'


def asked(nb: dict) -> str:
    "A lesson's paragraph of exercises; empty where there is none."
    found = [source(c) for c in nb['cells'] if '**Exercises.**' in source(c)]
    return found[-1].split('**Exercises.**')[1] if found else ''


def exercises(nb: dict) -> dict[str, str]:
    "A lesson's exercises '(1) … (2) …' by number, without the link that follows them."
    text = re.sub(r' Solved in \[.*', '', asked(nb).strip(), flags=re.S)
    parts = re.split(r'(?:^|\s)\((\d+)\) ', text)
    return {number: ' '.join(said.split()) for number, said in zip(parts[1::2], parts[2::2])}


def solutions(nb: dict) -> dict[str, tuple[str, str]]:
    "(the exercise as quoted, the code below it) by the number in the heading '## Exercise 1'."
    out, number = {}, None
    for c in nb['cells']:
        if c['cell_type'] == 'code':
            if number:
                quote, code = out[number]
                out[number] = quote, f'{code}\n{source(c)}'
            continue
        for found in re.finditer(r'## Exercise (\d+)\n\n> (.+)', source(c)):
            number = found[1]
            out[number] = found[2], ''
    return out


def has_check(code: str) -> bool:
    "Is there an assert, or a test of fastcore?"
    return bool(re.search(r'(?m)^\s*(assert |test_\w+\()', code))


def solution_faults(lesson: dict, solved: dict, link: str) -> list[str]:
    "Exercises that are not solved, not quoted word for word, or not checked; and a link that is missing."
    want, have = exercises(lesson), solutions(solved)
    out = [] if f']({link}).' in asked(lesson) else [f'the exercises do not end with a link to {link}']
    out += [f'exercise {n} has no section' for n in want if n not in have]
    out += [f'section {n} has no exercise' for n in have if n not in want]
    for n in sorted(want.keys() & have.keys()):
        quote, code = have[n]
        if quote != want[n]:
            out.append(f'exercise {n} is quoted as {quote!r}')
        if not has_check(code):
            out.append(f'exercise {n} is not checked')
    return out


# ---- the tree keeps the rules --------------------------------------------------------------------

BOOK = pytest.mark.parametrize('path', PATHS, ids=name)
CODE = pytest.mark.parametrize('path', MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())


@BOOK
def test_directives(path):
    assert not directive_faults(load(path))


@BOOK
def test_import_cells(path):
    assert not import_cell_faults(load(path))


@BOOK
def test_imports_go_down(path):
    places = {exported_name(load(p)): stage(p) for p in PATHS if stage(p)}
    assert not upward_faults(load(path), stage(path), places)


@BOOK
def test_sizes(path):
    assert not size_faults(load(path), path.stat().st_size)


def test_every_stage_ends_with_exercises():
    assert [name(p) for p in PATHS if stage(p) and not is_solution(p) and not asked(load(p))] == []


@pytest.mark.parametrize('path', [p for p in PATHS if asked(load(p))], ids=name)
def test_exercises_are_solved(path):
    if path.stem in UNSOLVED:
        pytest.skip('still to be solved')
    solved = solution_of(path)
    link = f'{"" if path.parent == ROOT / "nbs" else "../"}solutions/{solved.name}'
    assert not solution_faults(load(path), load(solved), link)


def test_solutions_are_small_and_export_nothing():
    for path in filter(is_solution, PATHS):
        assert path.stat().st_size <= SOLUTION_KB * 1000, path.name
        assert exported_name(load(path)) is None, path.name


@BOOK
def test_outputs(path):
    assert not output_faults(load(path))


@BOOK
def test_module_has_the_notebooks_name(path):
    if stage(path):
        *_, module = exported_name(load(path)).split('.')
        assert module == path.stem.split('_', 1)[1]


@pytest.mark.parametrize('path', [p for p in PATHS if p.parent.name == 'ablations'], ids=name)
def test_ablations_have_parameters(path):
    assert not parameter_faults(load(path))


@CODE
def test_no_unsafe_calls(path):
    assert not call_faults(path.read_text(encoding='utf8'))


@CODE
def test_function_length(path):
    assert not length_faults(path.read_text(encoding='utf8'))


@pytest.mark.parametrize('path', density.files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_one_thing_on_a_line(path):
    assert not density.faults(path)


def twins(nb: dict) -> list[str]:
    "Ids that two cells have."
    ids = [c['id'] for c in nb['cells']]
    return sorted({i for i in ids if ids.count(i) > 1})


@pytest.mark.parametrize('path', PATHS, ids=name)
def test_no_two_cells_have_one_id(path):
    assert not twins(load(path))


def test_catches_twins():
    assert twins({'cells': [{'id': i} for i in 'abca']}) == ['a']


@pytest.mark.parametrize('path', [p for p in MODULES if p.name != '__init__.py'], ids=lambda p: p.name)
def test_modules_are_generated(path):
    assert not header_faults(path.read_text(encoding='utf8'))


def test_modules_import_with_torch_and_numpy_alone():
    paths = [p.relative_to(ROOT).with_suffix('') for p in MODULES if p.stem[0] != '_']
    assert not lone_faults(['.'.join(path.parts) for path in paths])


def test_no_paths_of_machines():
    found = {path: place_faults(text) for path, text in texts().items()}
    assert not {path: faults for path, faults in found.items() if faults}


def test_no_registries():
    found = {path: registry_faults(text) for path, text in texts().items()}
    assert not {path: faults for path, faults in found.items() if faults}


def test_no_drift():
    found = drift()
    assert not found, found[:4000]


def test_constraints_have_no_local_versions():
    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    pins = [line for line in lines if line and line[0] != '#']
    assert pins
    assert not [pin for pin in pins if not re.fullmatch(r'[\w.-]+==[\w.]+', pin)]


def test_no_name_is_exported_twice():
    assert not twice_exported(package())


def test_exports_are_used_elsewhere():
    assert not unused_exports(package(), outside())


def test_exported_functions_are_shown_and_say_what_they_take_and_raise():
    modules = package()
    assert not {m: found for m, code in modules.items() if (found := unshown(code, lesson_of(m)))}
    assert not {m: found for m, code in modules.items() if (found := shapeless(code))}
    assert not {m: found for m, code in modules.items() if (found := silent(code))}


def test_modules_import_downwards_and_in_no_circle():
    order = [exported_name(load(p)) for p in sorted((p for p in PATHS if stage(p)), key=stage)]
    modules = package()
    assert set(order) == set(modules)
    assert not upward_modules(modules, order)
    assert not circle(modules)


@pytest.mark.parametrize('what', TIES)
def test_nothing_new_stands_in_another_methods_way(what):
    assert ties(what, package()) <= TIES[what][2]


def test_a_later_field_renames_no_run():
    "Digests leave out what was meant before it was a field; any other value changes them."
    from wysiwyg.config import LATER, flat, identity, tiny
    from wysiwyg.tracking import digest

    known = {'sampler.tau': 0.9}
    for field, value in LATER.items():
        assert digest(known | {field: value}) == digest(known)
        assert digest(known | {field: 'another'}) != digest(known)
    assert not identity(flat(tiny())).keys() & LATER.keys()


def test_a_word_that_is_no_rule_is_refused():
    "Planes took any word but 'product' as a sum."
    from wysiwyg.triplane import sample_planes

    with pytest.raises(ValueError, match='magic'):
        sample_planes(torch.zeros(1, 3, 4, 8, 8), torch.zeros(1, 5, 3), combine='magic')


# ---- the checkers catch planted faults -----------------------------------------------------------


def book(*cells, **metadata) -> dict:
    "A notebook of code cells: a source, or (source, outputs), or (source, outputs, tags)."

    def cell(i, source, outputs=(), tags=()):
        return dict(
            cell_type='code',
            source=source,
            outputs=list(outputs),
            metadata={'tags': tags} if tags else {},
            execution_count=None,
            id=f'c{i}',
        )

    made = [cell(i, c) if isinstance(c, str) else cell(i, *c) for i, c in enumerate(cells)]
    return {'cells': made, 'metadata': metadata, 'nbformat': 4, 'nbformat_minor': 5}


def shown(kind='text/plain', data='3'):
    return [dict(output_type='execute_result', data={kind: data}, metadata={}, execution_count=None)]


@pytest.mark.parametrize(
    'code',
    [
        '#| exprot\nx = 1',
        '#| cudaa\nx = 1',
        '#|export\nx = 1',
        '# note\n#| export\nx = 1',
        'x = 1\n#| hide',
        '#| eval: true\nx',
        '#| export core\nx = 1',
        '# | hide',
    ],
)
def test_catches_directives(code):
    assert directive_faults(book(code))


@pytest.mark.parametrize(
    'code',
    [
        '#| default_exp core',
        '#| export\nx = 1',
        '#| hide\n#| eval: false\nx = 1',
        '#| gpu\nx = 1',
        'x = "a #| b"',
    ],
)
def test_passes_directives(code):
    assert not directive_faults(book(code))


@pytest.mark.parametrize(
    'code', ['import torch\nx = 1', '#| export\nfrom .core import *\ndef f(): pass', 'x = 1\nfrom a import b']
)
def test_catches_mixed_imports(code):
    assert import_cell_faults(book(code))


@pytest.mark.parametrize(
    'code',
    [
        '%matplotlib inline\nimport torch',
        'def f():\n    import mlflow',
        '#| export\nimport torch\nfrom .core import *',
        '# only a remark',
    ],
)
def test_passes_import_cells(code):
    assert not import_cell_faults(book(code))


LESSON = '**Exercises.** (1) Plot f(2) at (2, 3). (2) Prove\nit. Solved in [s](solutions/s00_core.ipynb).'
SOLVED = '## Exercise 1\n\n> Plot f(2) at (2, 3).'


def lesson(*cells) -> dict:
    "Markdown for texts, code for lists of one source."
    kinds = [('code', c[0]) if isinstance(c, list) else ('markdown', c) for c in cells]
    return {'cells': [dict(cell_type=kind, source=text, outputs=[], metadata={}) for kind, text in kinds]}


@pytest.mark.parametrize(
    'asks, solves, fault',
    [
        (LESSON, (SOLVED, ['assert x']), 'exercise 2 has no section'),
        (
            LESSON,
            (SOLVED, ['print(x)'], '## Exercise 2\n\n> Prove it.', ['assert x']),
            'exercise 1 is not checked',
        ),
        (LESSON, (SOLVED.replace('3', '4'), ['assert x']), "exercise 1 is quoted as 'Plot f(2) at (2, 4).'"),
        (LESSON, ('## Exercise 3\n\n> More.', ['assert x']), 'section 3 has no exercise'),
        (LESSON.split(' Solved')[0], (SOLVED, ['assert x']), 'the exercises do not end with a link to'),
    ],
)
def test_catches_unsolved_exercises(asks, solves, fault):
    found = solution_faults(lesson('x', asks), lesson(*solves), 'solutions/s00_core.ipynb')
    assert any(f.startswith(fault) for f in found), found


def test_passes_solved_exercises():
    asks = lesson('x', LESSON)
    solves = lesson(
        SOLVED, ['x = 1'], ['test_eq(x, 1)'], 'So 1.\n\n## Exercise 2\n\n> Prove it.', ['assert x']
    )
    assert not solution_faults(asks, solves, 'solutions/s00_core.ipynb')


STAGES = dict(core=(0, ''), sampler=(10, ''), losses=(14, ''))


@pytest.mark.parametrize(
    'code',
    [
        'from wysiwyg.losses import *',
        'from .losses import adversarial',
        'import wysiwyg.losses',
        'from wysiwyg import losses',
        'from . import losses',
        'def f():\n    from wysiwyg.losses import x',
        'from wysiwyg.sampler import *',
    ],
)
def test_catches_upward_imports(code):
    assert upward_faults(book(code), (10, ''), STAGES)


def test_passes_downward_imports():
    plain = book('from wysiwyg.core import *', 'from torch.losses import x', 'import losses')
    assert not upward_faults(plain, (10, ''), STAGES)
    assert not upward_faults(book('from wysiwyg.losses import *'), None, STAGES)
    assert not upward_faults(book('from wysiwyg.sampler import *'), (10, 'a'), STAGES)


@pytest.mark.parametrize(
    'nb, size',
    [
        (book('x'), 600_001),
        (book(('x', shown('image/png', 'A' * 90_000))), 0),
        (book('x', widgets={}), 0),
        (book(('x', shown('image/svg+xml', ['A' * 70_000]))), 0),
        (book(('x', shown('application/vnd.jupyter.widget-state+json', {}))), 0),
        (book(('x', shown('application/vnd.plotly.v1+json', {}))), 0),
    ],
)
def test_catches_sizes(nb, size):
    assert size_faults(nb, size)


def test_passes_sizes():
    assert not size_faults(book(('x', shown('image/png', 'A' * 79_000))), 599_000)


@pytest.mark.parametrize(
    'cell',
    [
        'x',
        'y = 1\ny + 1',
        'print(x)',
        'show(x)\ny = 1',
        'x.mean()[0]\ny = 1',
        ('f()', [dict(output_type='error', ename='E', evalue='', traceback=[])]),
        ('f()', [dict(output_type='stream', name='stderr', text='warning')]),
    ],
)
def test_catches_outputs(cell):
    assert output_faults(book(cell))


@pytest.mark.parametrize(
    'cell',
    [
        *('x = 1', 'test_eq(1, 1)', 'x;', '#| eval: false\nx', '#| gpu\nx', ('x', shown()), '# remark'),
        ('print(x)\nshow(x)', shown()),
    ],
)
def test_passes_outputs(cell):
    assert not output_faults(book(cell))


@pytest.mark.parametrize(
    'nb',
    [
        book('tau = 1'),
        book(('tau = 1', [], ['parameters']), ('b = 1', [], ['parameters'])),
        book(('import os\ntau = 1', [], ['parameters'])),
    ],
)
def test_catches_parameters(nb):
    assert parameter_faults(nb)


@pytest.mark.parametrize(
    'text',
    [
        'see ' + '/home' + '/me/x',
        "PosixPath('" + '/tmp' + "/a')",
        '"' + '/work' + '/main"',
        'C:' + '\\Users\\me',
        '~ ' + '/root' + '/.cache',
    ],
)
def test_catches_places(text):
    assert place_faults(text)


@pytest.mark.parametrize('text', ['data/sets/x', 'https://a.org/home/x', 'nbs/work/x', 'and/or', 'images/s'])
def test_passes_places(text):
    assert not place_faults(text)


@pytest.mark.parametrize(
    'text',
    [
        'https://pypi' + '.org/simple',
        'pip install --index-url x',
        'https://download.' + 'pytorch.org/whl/cpu',
        'file:///opt/x/simple/',
    ],
)
def test_catches_registries(text):
    assert registry_faults(text)


@pytest.mark.parametrize(
    'code',
    [
        'pickle.load(f)',
        'import pickle\nx = pickle.loads(b)',
        'from pickle import load',
        'torch.load(p)',
        'torch.load(p, weights_only=False)',
        'np.load(p, allow_pickle=True)',
        'def f(p): return torch.jit.load(p)',
        'mlflow.pytorch.load_model(u)',
        'mlflow.pyfunc.load_model(u)',
        'f(weights_only=False)',
        'def sha(p): return 1\ndef f(p): return torch.jit.load(p)',
    ],
)
def test_catches_unsafe_calls(code):
    assert call_faults(code)


@pytest.mark.parametrize(
    'code',
    [
        'torch.load(p, weights_only=True)',
        'np.load(p)',
        'json.load(f)',
        'load_model(p)',
        'def f(p):\n    if file_sha(p) != want: raise E\n    return torch.jit.load(p)',
    ],
)
def test_passes_safe_calls(code):
    assert not call_faults(code)


def test_catches_long_functions():
    assert length_faults('def f():\n' + '    x = 1\n' * 60)
    assert not length_faults('def f():\n' + '    x = 1\n' * 49)


@pytest.mark.parametrize(
    'code',
    [
        'x = ' + 'y + ' * 20 + 'y',
        'x = 1  # ' + 'long ' * 21,
        'f(y := 1)',
        'f(a, [y := 1])',
        'f = lambda x: x',
        "x = 's' * (n > 1)",
        "x = 's' * (not n)",
    ],
)
def test_catches_dense_code(code, tmp_path):
    file = tmp_path / 'code.py'
    file.write_text(code)
    assert len(density.faults(file)) == 1


def test_passes_plain_code(tmp_path):
    file = tmp_path / 'code.py'
    table = f'T = dict(a=({"1, " * 25}), b=f(2))\n'
    file.write_text(f"{table}if y := f(1):\n    x = '-' * 9\n    g([a for b in c if (a := f(b))])\n")
    assert not density.faults(file)


def test_catches_handwritten_modules():
    written = '# AUTOGENERATED! DO NOT EDIT!'
    assert header_faults('def f(): pass')
    assert header_faults(f'"In: {"much " * 30}"\n{written}')
    assert not header_faults(written)


@pytest.mark.parametrize('heavy', ['mlflow', 'matplotlib.pyplot as plt', 'PIL'])
def test_catches_heavy_imports(tmp_path, heavy):
    (tmp_path / 'planted.py').write_text(f'import {heavy}\n')
    (tmp_path / 'light.py').write_text(f'import numpy, torch\ndef f():\n    import {heavy}\n')
    assert set(lone_faults(['planted', 'light'], tmp_path)) == {'planted'}


def test_catches_names_exported_twice():
    assert twice_exported({'a': "__all__ = ['x', 'y']", 'b': "__all__ = ['y']\nfrom .a import x"}) == {'y'}


def test_catches_exports_that_nobody_uses():
    modules = {
        'a': "__all__ = ['lone', 'used', 'attr', 'told', 'tested']\nlone()",
        'b': "from .a import *\nused()\na.attr\nf('a:told')",
    }
    assert unused_exports(modules, ['# lone\ntested']) == {'a': {'lone'}}


def test_catches_functions_that_are_not_shown_or_do_not_say():
    code = """__all__ = ['f', 'g']
def f(x: Tensor, y: Tensor):  # [B]
    "Of x."
    raise ValueError
def g(
    x: Tensor,  # [B]
    y: Tensor = None,
):
    "ValueError where it must."
    raise ValueError
def _h(x: Tensor): raise ValueError
"""
    assert unshown(code, 'a.f(1)') == {'g'}
    assert shapeless(code) == ['g: y']
    assert silent(code) == {'f'}


@pytest.mark.parametrize(
    'code', ['from .b import x', 'def f():\n    from wysiwyg.b import x', 'import wysiwyg.a']
)
def test_catches_upward_modules(code):
    modules = {'a': code, 'b': ''}
    assert upward_modules(modules, ['a', 'b'])
    assert not upward_modules({'a': '', 'b': 'from .a import x'}, ['a', 'b'])


def test_catches_circles():
    modules = {
        'a': 'from .b import x',
        'b': 'def f():\n    from . import c',
        'c': 'import wysiwyg.a',
        'd': 'from .a import x',
    }
    assert {'a', 'b', 'c'} <= set(circle(modules))
    assert not circle(modules | {'c': ''})


@pytest.mark.parametrize('what', TIES)
def test_catches_ties(what):
    _, where, left, line = TIES[what]
    modules = package()
    module = (where.split() or ['cli'])[0]
    assert ties(what, {module: line}) == 1
    assert ties(what, modules | {module: f'{modules.get(module, "")}\n{line}\n'}) == ties(what, modules) + 1


# ---- tools do what the rules rely on -------------------------------------------------------------


def small_project(folder: Path) -> Path:
    "A project of one notebook that agrees with its module and README."
    shutil.copy(ROOT / 'settings.ini', folder)
    (folder / 'nbs').mkdir()
    (folder / 'wysiwyg').mkdir()
    (folder / 'wysiwyg/__init__.py').write_text('')
    cells = (
        '#| default_exp core',
        '#| export\ndef f(): return 1',
        ('f()', shown()),
        ('tau = .98', [], ['parameters']),
        'tau*2',
    )
    kernel = dict(display_name='python3', language='python', name='python3')
    (folder / 'nbs/00_core.ipynb').write_text(json.dumps(book(*cells, kernelspec=kernel)))
    picture = ('#| fig-alt: a face\ng()', shown('image/png', 'AAAA'))
    (folder / 'nbs/index.ipynb').write_text(json.dumps(book('#| eval: false\nf()', picture)))
    for tool in 'nbdev_clean', 'nbdev_export':
        subprocess.run([Path(sys.executable).parent / tool], cwd=folder, check=True)
    write(folder)
    return folder


def plant(path: Path, old: str, new: str):
    path.write_text(path.read_text().replace(old, new, 1))


def test_readme_shows_pictures(tmp_path):
    small_project(tmp_path)
    assert '![a face](nbs/index-c1.png)' in (tmp_path / 'README.md').read_text()
    assert (tmp_path / 'nbs/index-c1.png').read_bytes() == bytes(3)


@pytest.mark.parametrize(
    'file, old, new',
    [
        ('wysiwyg/core.py', 'return 1', 'return 2'),
        ('README.md', 'f()', 'g()'),
        ('nbs/index-c1.png', '\0', '\1'),
        ('wysiwyg/_modidx.py', 'core', 'cure'),
        ('nbs/00_core.ipynb', '"execution_count": null', '"execution_count": 3'),
        ('nbs/00_core.ipynb', 'return 1', 'return 3'),
    ],
)
def test_catches_drift(tmp_path, file, old, new):
    small_project(tmp_path)
    assert drift(tmp_path) == ''
    plant(tmp_path / file, old, new)
    assert drift(tmp_path)


def test_catches_modules_without_notebook(tmp_path):
    (small_project(tmp_path) / 'wysiwyg/stray.py').write_text('# AUTOGENERATED\n')
    assert 'stray.py' in drift(tmp_path)


def test_catches_two_notebooks_of_one_module(tmp_path):
    nbs = small_project(tmp_path) / 'nbs'
    assert same_names() == same_names(tmp_path) == ''
    shutil.copy(nbs / '00_core.ipynb', nbs / '00_core_mine.ipynb')
    assert same_names(tmp_path).startswith('00_core.ipynb and 00_core_mine.ipynb both write the module core')


def test_parameters_survive_cleaning(tmp_path):
    "nbdev_clean with this project's settings keeps the tag, so papermill's value wins over the notebook's."
    path = small_project(tmp_path) / 'nbs/00_core.ipynb'
    assert 'parameters' in tags(load(path)['cells'][3])
    import nbformat, papermill

    how = dict(kernel_name='python3', progress_bar=False, cwd=str(tmp_path))
    done = papermill.execute_notebook(str(path), None, parameters={'tau': 0.1}, **how)
    assert float(nbformat.from_dict(done).cells[-1].outputs[0].data['text/plain']) == 0.2


def test_readme_shows_what_it_should(tmp_path):
    nb = book(
        '#| hide\nsecret',
        ('#| eval: false\nx', [dict(output_type='stream', name='stderr', text='noise')]),
        ('y', shown('text/markdown', '| [a](01_a.ipynb) |')),
        ('z', shown('text/plain', '42')),
    )
    links = '[b](../LICENSE) [c](https://a.org) [d](#there)'
    nb['cells'].append(dict(cell_type='markdown', source=links, metadata={}))
    (tmp_path / 'index.ipynb').write_text(json.dumps(nb))
    out = readme(tmp_path / 'index.ipynb')
    assert '```python\nx\n```' in out
    assert '| [a](nbs/01_a.ipynb) |' in out
    assert '```\n42\n```' in out
    assert '[b](LICENSE) [c](https://a.org) [d](#there)' in out
    for hidden in ('secret', 'noise', '#|'):
        assert hidden not in out


def test_notebook_diffs_are_text(tmp_path):
    path = tmp_path / 'a.ipynb'
    path.write_text(json.dumps(book(('tau = 1', shown(), ['parameters']))))
    assert text(path) == '# %% parameters\ntau = 1\n'


def _codes(code):
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _codes(inner)


@pytest.mark.parametrize('path', [p for p in MODULES if p.stem[0] != '_'], ids=module_name)
def test_every_global_name_is_defined(path):
    "Star imports hide a missing name from the linter."
    module = importlib.import_module(f'wysiwyg.{module_name(path)}')
    code = compile(path.read_text(encoding='utf8'), path.name, 'exec')
    instructions = [i for c in _codes(code) for i in dis.get_instructions(c)]
    used = {i.argval for i in instructions if i.opname == 'LOAD_GLOBAL'}
    assert not [name for name in used if not hasattr(module, name) and not hasattr(builtins, name)]
