"Data sets: every fault is named, nothing is written, batches depend on (seed, position) alone."

import io, json, os, stat, struct, time, zipfile, zlib
import numpy as np
import pytest, torch
import wysiwyg.data as data
from wysiwyg.config import override, tiny
from wysiwyg.core import *
from wysiwyg.camera import *
from wysiwyg.data import *

torch.set_num_threads(1)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
LABELS = gaussian_cameras(30, rng(0)).label.tolist()
NAMES = [f'{i // 10:05d}/img{i:08d}.png' for i in range(30)]
ROWS = [(n, png_bytes(i), l) for n, i, l in zip(NAMES, IMAGES, LABELS)]
FILES = [(name, body) for name, body, _ in ROWS]
PAIRS = [[name, label] for name, _, label in ROWS]


def raw_zip(path, files, labels, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as z:
        for name, body in files:
            z.writestr(name, body)
        if labels is not None:
            text = labels if isinstance(labels, (str, bytes)) else json.dumps({'labels': labels})
            z.writestr('dataset.json', text)
    return path


def faults(path):
    return dict(validate(path).bad)


def flat_png(*shape):
    return png_bytes(np.full(shape, 7, np.uint8))


def chunk(kind, body):
    "Of a PNG."
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def crafted_png(side, bits, pixels=b''):
    "An RGB PNG of any header."
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, bits, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(pixels)) + chunk(b'IEND', b'')


def huge_png(side):
    return crafted_png(side, 8)


def label_with(i, **at):
    x = list(LABELS[i])
    for k, v in at.items():
        x[int(k[1:])] = v
    return x


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_many_faults_in_one_archive_are_all_named_and_nothing_is_written(tmp_path):
    files = [list(pair) for pair in FILES]
    labels = [list(pair) for pair in PAIRS]
    files[0][1] = files[0][1][:-30]
    files[1][1] = flat_png(16, 16)
    files[2][1] = flat_png(16, 16, 4)
    files[3][1] = flat_png(8, 8, 3)
    files[4][1] = flat_png(16, 8, 3)
    files[5][1] = flat_png(12, 12, 3)
    files[6][1] = huge_png(5000)
    files[7][1] = huge_png(60000)
    labels[8][1] = LABELS[8][:24]
    labels[9][1] = LABELS[9] + [0.0]
    labels[10][1] = label_with(10, _3=float('nan'))
    labels[11][1] = label_with(11, _16=float('inf'))
    labels[12][1] = label_with(12, _0=2.0)
    labels[13][1] = label_with(13, **{f'_{k}': -LABELS[13][k] for k in (0, 4, 8)})
    labels[14][1] = label_with(14, _18=0.6)
    labels[15][1] = label_with(15, _16=1105.0, _20=1105.0, _18=256.0, _21=256.0)
    labels[16][0] = 'nobody.png'
    labels.append([NAMES[17], LABELS[17]])
    labels[19][1] = label_with(19, _4='x')
    turned = to_opengl(Camera.from_label(torch.tensor(LABELS[20:21]))).flatten().tolist()
    labels[20][1] = turned + LABELS[20][16:]
    files += [[NAMES[18], files[18][1]], ['../../x.png', b''], ['/etc/y.png', b''], ['c:\\z.png', b'']]
    link = zipfile.ZipInfo('link.png')
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    files += [[link, b'/etc/passwd']]
    labels.append('nonsense')
    path = raw_zip(tmp_path / 'bad.zip', files, labels)
    before = sorted(os.listdir(tmp_path)), file_sha(path)
    want = {
        NAMES[0]: 'cannot be decoded',
        NAMES[1]: 'greyscale',
        NAMES[2]: 'alpha',
        NAMES[3]: 'is 8x8 where most are 16x16',
        NAMES[4]: 'not square',
        NAMES[5]: 'power of two',
        NAMES[6]: 'huge',
        NAMES[7]: 'huge',
        NAMES[8]: '24 numbers',
        NAMES[9]: '26 numbers',
        NAMES[10]: 'NaN or infinity at position 3',
        NAMES[11]: 'NaN or infinity at position 16',
        NAMES[12]: 'not rigid',
        NAMES[13]: 'determinant -1',
        NAMES[14]: 'off centre',
        NAMES[15]: 'in pixels',
        NAMES[16]: 'no label',
        NAMES[17]: 'two labels',
        NAMES[18]: 'appears 2 times',
        NAMES[19]: 'not a plain number',
        NAMES[20]: 'looks away',
        '../../x.png': 'climbs out',
        '/etc/y.png': 'absolute',
        'c:\\z.png': 'absolute',
        'link.png': 'symlink',
        'labels[31]': 'not a pair',
    }
    with pytest.raises(DataError) as e:
        Dataset(path)
    bad = dict(e.value.report.bad)
    assert bad.keys() == want.keys()
    assert len(e.value.report.bad) == len(want)
    for name, why in want.items():
        assert why in bad[name], (name, bad[name])
        assert f'{name}: ' in str(e.value)
    assert e.value.report.notes == ('left out: 1 labels without a picture, such as nobody.png',)
    assert 'nobody.png' in str(e.value)
    assert (sorted(os.listdir(tmp_path)), file_sha(path)) == before
    assert Dataset(path, skip_bad=True).names == tuple(NAMES[21:])


def test_any_flipped_bit_of_a_picture_is_found(tmp_path):
    path = write_zip(tmp_path / 'a.zip', ROWS[:2])
    whole = path.read_bytes()
    body = ROWS[0][1]
    start = whole.index(body)
    for at in range(0, len(body), 37):
        broken = bytearray(whole)
        broken[start + at] ^= 1 << at % 8
        bad = tmp_path / f'{at}.zip'
        bad.write_bytes(broken)
        assert list(faults(bad)) == [NAMES[0]]
        bad.unlink()
    for at in range(8, len(body), 37):  # in a folder PNG's own checksums must do
        broken = bytearray(body)
        broken[at] ^= 1 << at % 8
        with pytest.raises(ValueError):
            decode(bytes(broken))
    for cut in range(0, len(body), 41):
        with pytest.raises(ValueError):
            decode(body[:cut])


def test_archives_that_are_not(tmp_path):
    path = write_zip(tmp_path / 'a.zip', ROWS[:5])
    (tmp_path / 'cut.zip').write_bytes(path.read_bytes()[:-50])
    (tmp_path / 'text.zip').write_text('hello')
    (tmp_path / 'empty').mkdir()
    for name in ('cut.zip', 'text.zip'):
        assert 'neither a folder nor a whole zip' in faults(tmp_path / name)[name]
    assert faults(tmp_path / 'absent.zip') == {'absent.zip': f'there is no {tmp_path / "absent.zip"}'}
    with pytest.raises(DataError, match='there is no no/such/god.zip'):
        Dataset('no/such/god.zip')
    assert 'holds no pictures' in faults(tmp_path / 'empty')['empty']
    with pytest.raises(DataError, match='absent.zip'):
        Dataset(tmp_path / 'absent.zip')


@pytest.mark.parametrize(
    'text', [None, '{', '[]', '{"labels": 3}', '{"labels": {"a": 1}}', '{}', b'\xff\xfe\x00']
)
def test_dataset_json_faults_say_what_to_write(tmp_path, text):
    path = raw_zip(tmp_path / 'a.zip', FILES[:3], text)
    assert faults(path).keys() == {'dataset.json'}
    assert '{"labels": [["NAME.png"' in faults(path)['dataset.json']
    with pytest.raises(DataError):
        Dataset(path, skip_bad=True)


def test_16_bits_palette_and_jpeg():
    from PIL import Image

    def saved(im, kind):
        b = io.BytesIO()
        im.save(b, kind)
        return b.getvalue()

    rgb = Image.fromarray(IMAGES[0])
    assert decode(saved(rgb, 'JPEG')).shape == (16, 16, 3)
    for bytes_, why in (
        (saved(rgb.convert('P'), 'PNG'), 'not RGB'),
        (saved(rgb, 'BMP'), 'cannot be decoded'),
        (saved(Image.fromarray(np.zeros((16, 16), np.uint16)), 'PNG'), 'greyscale'),
        (b'', 'cannot be decoded'),
    ):
        with pytest.raises(ValueError, match=why):
            decode(bytes_)
    deep = crafted_png(4, 16, b'\0' * (4 * 25))
    with pytest.raises(ValueError, match='16 bits'):
        decode(deep)


def test_oversized_entries_are_not_read(tmp_path, monkeypatch):
    files = [*FILES[:2], ('bomb.png', b'\0' * 100_000)]
    labels = [*PAIRS[:2], ['bomb.png', LABELS[2]]]
    path = raw_zip(tmp_path / 'a.zip', files, labels, zipfile.ZIP_DEFLATED)
    read = data._Source.read

    def read_but_the_bomb(self, name):
        assert 'bomb' not in name
        return read(self, name)

    monkeypatch.setattr(data, '_MAX_BYTES', 50_000)
    monkeypatch.setattr(data._Source, 'read', read_but_the_bomb)
    assert 'huge: 100000 bytes' in faults(path)['bomb.png']


def test_folder_zip_and_deflated_are_one(tmp_path):
    write_zip(tmp_path / 'a.zip', ROWS)
    raw_zip(tmp_path / 'b.zip', FILES[::-1], PAIRS, zipfile.ZIP_DEFLATED)
    for n, body, _ in ROWS:
        p = tmp_path / 'c' / n
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(body)
    (tmp_path / 'c/dataset.json').write_text(json.dumps({'labels': PAIRS}))
    (tmp_path / 'c/README.txt').write_text('kept apart')
    a, b, c = (Dataset(tmp_path / n) for n in ('a.zip', 'b.zip', 'c'))
    assert a.sha == b.sha == c.sha
    assert a.resolution == 16
    assert len(a) == 30
    assert a.name == 'a'
    x, y, z = [ds.batch(3, 9, 1)[0] for ds in (a, b, c)]
    assert torch.equal(x, y)
    assert torch.equal(x, z)
    assert torch.equal(a.images(torch.arange(30)), torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    assert torch.equal(a.labels, torch.tensor(LABELS))
    other = write_zip(tmp_path / 'd.zip', [(n, b, LABELS[0]) for n, b, _ in ROWS])
    assert Dataset(other).sha != a.sha
    (tmp_path / 'c' / 'link.png').symlink_to(tmp_path / 'c' / NAMES[0])
    (tmp_path / 'c' / 'dir').symlink_to(tmp_path)
    assert faults(tmp_path / 'c').keys() == {'link.png', 'dir'}


def test_symlinked_labels_are_refused(tmp_path):
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x/a.png').write_bytes(ROWS[0][1])
    (tmp_path / 'o.json').write_text(json.dumps({'labels': [['a.png', LABELS[0]]]}))
    (tmp_path / 'x/dataset.json').symlink_to(tmp_path / 'o.json')
    assert 'symlink' in faults(tmp_path / 'x')['dataset.json']
    assert not validate(tmp_path / 'x').good


def test_validation_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = write_zip(tmp_path / 'a.zip', ROWS[:4])
    first = validate(path)
    assert validate(path) is first
    write_zip(path, ROWS[:5])
    assert len(validate(path).good) == 5


def test_batches_depend_on_seed_and_position_alone(tmp_path):
    path = write_zip(tmp_path / 'a.zip', ROWS)
    ds = Dataset(path)
    whole = ds.order(0, 150, seed=3)[0].reshape(5, 30)
    assert all(sorted(e.tolist()) == list(range(30)) for e in whole)
    assert len({tuple(e.tolist()) for e in whole}) == 5
    for position, b in ((0, 1), (29, 2), (25, 64), (149, 1)):
        index = ds.order(position, min(b, 150 - position), 3)[0]
        assert torch.equal(index, whole.flatten()[position : position + b])
    x, label = ds.batch(50, 24, 3, mirror=True)
    parts = [Dataset(path).batch(50 + 8 * r, 8, 3, mirror=True) for r in (2, 0, 1)]
    assert torch.equal(x, torch.cat([parts[i][0] for i in (1, 2, 0)]))
    assert torch.equal(label, torch.cat([parts[i][1] for i in (1, 2, 0)]))
    assert not torch.equal(ds.batch(0, 8, 0)[0], ds.batch(0, 8, 1)[0])


def test_mirroring_flips_half_with_their_labels_and_keeps_the_order(tmp_path):
    ds = Dataset(write_zip(tmp_path / 'a.zip', ROWS))
    n = 600
    index, flips = ds.order(0, n, 5)
    assert 0.42 < flips.float().mean() < 0.58
    (plain, l0), (mixed, l1) = ds.batch(0, n, 5), ds.batch(0, n, 5, mirror=True)
    assert torch.equal(mixed, torch.where(flips[:, None, None, None], plain.flip(-1), plain))
    assert torch.equal(l1[flips], mirror_label(l0[flips]))
    assert torch.equal(l1[~flips], l0[~flips])
    assert torch.equal(l0, ds.labels[index])
    assert plain.dtype == torch.float32
    assert plain.min() >= -1
    assert plain.max() <= 1


def test_large_sets_are_decoded_on_demand(tmp_path, monkeypatch):
    path = write_zip(tmp_path / 'a.zip', ROWS)
    kept = Dataset(path).batch(7, 40, 0)[0]
    monkeypatch.setattr(data, '_KEEP_BYTES', 100)
    ds = Dataset(path)
    assert torch.equal(ds.batch(7, 40, 0)[0], kept)
    assert ds._kept is None


def test_written_sets_are_whole_identical_or_absent(tmp_path):
    a, b = (write_zip(tmp_path / n, iter(ROWS)) for n in 'ab')
    assert a.read_bytes() == b.read_bytes()
    assert {i.compress_type for i in zipfile.ZipFile(a).infolist()} == {zipfile.ZIP_STORED}

    def power_cut():
        yield ROWS[0]
        raise RuntimeError('power cut')

    for rows, error, text in (
        (power_cut(), RuntimeError, 'cut'),
        ([ROWS[0], ROWS[0]], ValueError, 'appears twice'),
        ([('../x.png', *ROWS[0][1:])], ValueError, r'\.\./x\.png: climbs'),
        ([('x.png', b'no', LABELS[0])], ValueError, 'x.png: cannot be decoded'),
        ([('x.png', ROWS[0][1], LABELS[0][:3])], ValueError, 'x.png: label has 3'),
    ):
        with pytest.raises(error, match=text):
            write_zip(tmp_path / 'c', rows)
    assert sorted(os.listdir(tmp_path)) == ['a', 'b']


# ---- labels that are numbers, and yet no camera --------------------------------------------------


def moved(factor):
    return [v * factor if i in (3, 7, 11) else v for i, v in enumerate(LABELS[0])]


@pytest.mark.parametrize(
    'label, why',
    [
        (label_with(0, _3=1e308), 'NaN or infinity at position 3'),
        (label_with(0, _19=1e39), 'NaN or infinity at position 19'),
        (moved(0.0), 'stands 0 from the origin'),
        (moved(0.1 / 2.7), 'stands 0.1 from the origin'),
        (moved(100 / 2.7), 'stands 100 from the origin, 0.2 to 50 wanted'),
        (label_with(0, _16=1e-6, _20=1e-6), 'focal length 1e-06'),
        (label_with(0, _17=0.5), 'skew of 0.5'),
        (label_with(0, _19=0.5), 'skew of 0.5'),
    ],
)
def test_cameras_that_cannot_be_are_refused(label, why):
    assert why in label_fault(label)


def test_cameras_that_can_be_are_taken():
    for radius, focal in ((0.3, 0.5), (1.35, 2.13), (2.7, 4.2647), (27.0, 40.0)):
        assert all(label_fault(l) is None for l in sphere_cameras(20, rng(2), radius, focal).label.tolist())
    eye = orbit(0.3, 0.1).cam2world[:, :3, 3]
    aside = look_at(eye, (0.0, 0.0, 0.2)).label[0].tolist()  # as FFHQ's, beside the origin
    assert label_fault(aside) is None


def inverted(labels):
    pose = torch.linalg.inv(torch.tensor(labels)[:, :16].reshape(-1, 4, 4).double())
    return torch.cat([pose.flatten(1).float(), torch.tensor(labels)[:, 16:]], 1).tolist()


def test_world_to_camera_poses_are_refused(tmp_path):
    many = inverted(gaussian_cameras(400, rng(1)).label.tolist())
    named = [label for label in many if 'invert it' in (label_fault(label) or '')]
    assert len(named) > 340  # the rest look almost straight ahead
    labels = [list(pair) for pair in zip(NAMES, inverted(LABELS))]
    path = raw_zip(tmp_path / 'a.zip', FILES, labels)
    assert list(faults(path).values()) == [
        'all cameras stand at one point and look different ways: world-to-camera poses? invert them'
    ]
    with pytest.raises(DataError, match='world-to-camera poses'):
        Dataset(path, skip_bad=True)
    one_camera = [[name, LABELS[0]] for name in NAMES]
    assert not faults(raw_zip(tmp_path / 'b.zip', FILES, one_camera))


# ---- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_pictures_that_exif_turns_are_refused(kind):
    from PIL import Image

    def saved(turn):
        exif = Image.Exif()
        exif[274] = turn
        buffer = io.BytesIO()
        Image.fromarray(IMAGES[0]).save(buffer, kind, exif=exif)
        return buffer.getvalue()

    for turn in range(2, 9):
        with pytest.raises(ValueError, match=rf'is turned by EXIF \(orientation {turn}\): save it upright'):
            decode(saved(turn))
    assert decode(saved(1)).shape == decode(saved(0)).shape == (16, 16, 3)


def test_other_kinds_of_pictures_say_what_is_read(tmp_path):
    labels = [*PAIRS[:3], ['a.webp', LABELS[3]], ['b/c.TIFF', LABELS[4]]]
    files = [*FILES[:3], ('a.webp', b'RIFF'), ('b/c.TIFF', b''), ('readme.md', b'')]
    path = raw_zip(tmp_path / 'a.zip', files, labels)
    assert faults(path) == {
        'a.webp': 'is a .webp: only .png and .jpg are read',
        'b/c.TIFF': 'is a .TIFF: only .png and .jpg are read',
    }


# ---- what is no set of files ---------------------------------------------------------------------


def folder_set(path, n=4):
    for name, body, _ in ROWS[:n]:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(body)
    (path / 'dataset.json').write_text(json.dumps({'labels': PAIRS[:n]}))
    return path


def test_pipes_and_devices_are_named_and_not_read(tmp_path):
    s = folder_set(tmp_path / 's')
    os.mkfifo(s / 'pipe.png')
    assert faults(s) == {'pipe.png': 'is a pipe or a device: store a file'}
    assert len(Dataset(s, skip_bad=True)) == 4
    (tmp_path / 'f').mkdir()
    os.mkfifo(tmp_path / 'f/dataset.json')
    os.mkfifo(tmp_path / 'p.zip')
    assert faults(tmp_path / 'f')['dataset.json'] == 'is a pipe or a device: store a file'
    for path in ('/dev/zero', tmp_path / 'p.zip'):
        why = f'{path} is a pipe or a device: a zip archive or a folder is wanted'
        with pytest.raises(DataError, match=why):
            Dataset(path)


def test_a_small_archive_does_not_fill_the_memory(tmp_path):
    begun = time.monotonic()
    for text in ('[],' * 2**21 + '[]', '{},' * 2**21 + '{}', '[[' * 2**19):
        labels = '{"labels": [' + text + ']}'
        path = raw_zip(tmp_path / 'a.zip', FILES[:3], labels, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 50_000
        assert list(faults(path)) == ['dataset.json']
        assert 'more brackets than labels' in faults(path)['dataset.json']
    blanks = '{"labels": [' + ' ' * 2**26 + ']}'
    path = raw_zip(tmp_path / 'b.zip', FILES[:3], blanks, zipfile.ZIP_DEFLATED)
    assert 'is huge: 67108878 bytes' in faults(path)['dataset.json']
    assert time.monotonic() - begun < 10


def test_rows_that_are_no_pairs_are_counted(tmp_path):
    labels = PAIRS[:3] + ['a row that is long enough to be one'] * 5000
    path = raw_zip(tmp_path / 'a.zip', FILES[:3], labels)
    report = validate(path)
    assert len(report.bad) == 11
    assert dict(report.bad)['dataset.json'] == 'has 4990 more rows that are no pairs'
    assert len(report.good) == 3


def test_a_fault_of_all_pictures_is_counted(tmp_path):
    grey = [(name, flat_png(16, 16)) for name in NAMES[:25]]
    path = raw_zip(tmp_path / 'a.zip', grey + FILES[25:], PAIRS)
    with pytest.raises(DataError) as e:
        Dataset(path)
    lines = str(e.value).splitlines()
    assert len(lines) == 13
    assert lines[0].endswith('25 faults:')
    assert lines[-2:] == ['  and 15 more of this kind', 'mend them, or leave them out by --data.skip_bad']
    assert len(e.value.report.bad) == 25


def test_labels_without_pictures_are_one_line_and_no_fault(tmp_path, capsys):
    gone = [[f'gone{i}.png', LABELS[0]] for i in range(2000)]
    path = raw_zip(tmp_path / 'a.zip', FILES[:5], PAIRS[:5] + gone)
    ds = Dataset(path)
    Dataset(path)
    assert len(ds) == 5
    assert ds.sha == Dataset(write_zip(tmp_path / 'b.zip', ROWS[:5])).sha
    assert capsys.readouterr().err == 'a.zip: left out: 2000 labels without a picture, such as gone0.png\n'


def test_what_macos_and_jupyter_leave_behind_is_skipped(tmp_path):
    litter = [
        '__MACOSX/00000/._img00000000.png',
        '00000/._img00000001.png',
        '.ipynb_checkpoints/a-checkpoint.png',
        '.DS_Store',
    ]
    files = FILES[:5] + [(name, b'\0') for name in litter]
    path = raw_zip(tmp_path / 'a.zip', files, PAIRS[:5])
    assert not faults(path)
    assert validate(path).notes == (f'left out: 4 files of macOS or Jupyter, such as {litter[0]}',)
    assert Dataset(path).sha == Dataset(write_zip(tmp_path / 'b.zip', ROWS[:5])).sha


def test_a_set_one_folder_down_is_pointed_at(tmp_path):
    folder_set(tmp_path / 'outer/inner')
    said = faults(tmp_path / 'outer')['dataset.json']
    assert said == 'lies in inner/: name that folder, or pack its contents'
    inner = [(f'inner/{name}', body) for name, body in FILES[:3]]
    path = raw_zip(tmp_path / 'a.zip', [*inner, ('inner/dataset.json', b'{}')], None)
    said = faults(path)['dataset.json']
    assert said == 'lies in inner/: unpack the archive and name that folder, or pack its contents'


# ---- labels that are classes, or none ------------------------------------------------------------

CLASSES = [2, 0, 5, 0, 2]


def test_classes_become_one_hot_rows(tmp_path):
    rows = [(name, body, k) for (name, body), k in zip(FILES, CLASSES)]
    pairs = [[name, k] for name, _, k in rows]
    made = write_zip(tmp_path / 'a.zip', rows)
    found = raw_zip(tmp_path / 'b.zip', FILES[:5][::-1], pairs)
    a, b = Dataset(made), Dataset(found)
    written = json.loads(zipfile.ZipFile(made).read('dataset.json'))
    assert written == {'labels': pairs}
    assert a.sha == b.sha
    assert a.label_kind == b.label_kind == 'class'
    assert torch.equal(b.labels, torch.eye(6)[CLASSES])
    assert str(a.report) == 'a.zip: 5 usable pictures of 16x16, 6 classes'
    (plain, l0), (mixed, l1) = a.batch(0, 40, 0), a.batch(0, 40, 0, mirror=True)
    assert torch.equal(l0, l1)  # a mirrored cat is a cat
    assert not torch.equal(plain, mixed)
    tensors = [(n, body, torch.tensor(k)) for n, body, k in rows]
    assert write_zip(tmp_path / 'c.zip', tensors).read_bytes() == made.read_bytes()
    other = write_zip(tmp_path / 'd.zip', [(n, body, 1) for n, body, _ in rows])
    assert Dataset(other).sha != a.sha


def test_null_means_no_labels(tmp_path):
    made = write_zip(tmp_path / 'a.zip', [(name, body, None) for name, body in FILES])
    found = raw_zip(tmp_path / 'b.zip', FILES, '{"labels": null}')
    assert json.loads(zipfile.ZipFile(made).read('dataset.json')) == {'labels': None}
    a, b = Dataset(made), Dataset(found)
    assert a.sha == b.sha
    assert (a.label_kind, a.labels.shape, a.labels.dtype) == ('none', (30, 0), torch.float32)
    assert str(a.report) == 'a.zip: 30 usable pictures of 16x16, no labels'
    x, label = a.batch(25, 12, 0, mirror=True)
    assert (len(x), label.shape) == (12, (12, 0))
    each = raw_zip(tmp_path / 'c.zip', FILES, [[name, None] for name, _ in FILES])
    assert Dataset(each).sha == a.sha


def test_many_short_rows_are_no_bomb(tmp_path):
    files = [(f'{i}.png', FILES[0][1]) for i in range(10)]
    rows = [[f'{i}.png', i] for i in range(10)]
    text = json.dumps({'labels': rows * 50}, separators=(',', ':'))
    found = faults(raw_zip(tmp_path / 'a.zip', files, text))
    assert set(found.values()) == {'has two labels'}


@pytest.mark.parametrize('index', [-1, 1.5, 3.0, float('nan'), 10**6, 10**400])
def test_a_class_is_a_small_integer(tmp_path, index):
    labels = [[NAMES[0], index], *([n, 0] for n in NAMES[1:5])]
    path = raw_zip(tmp_path / 'a.zip', FILES[:5], labels)
    assert faults(path) == {NAMES[0]: f'class {str(index)[:20]} is no integer from 0 to 9999'}
    assert len(Dataset(path, skip_bad=True)) == 4
    with pytest.raises(ValueError, match='is no integer from 0'):
        write_zip(tmp_path / 'b.zip', [(*FILES[0], index)])


@pytest.mark.parametrize('odd', [True, 'cat', {}, [3]])
def test_other_labels_are_neither(tmp_path, odd):
    labels = [[NAMES[0], odd], *([n, 0] for n in NAMES[1:5])]
    path = raw_zip(tmp_path / 'a.zip', FILES[:5], labels)
    assert faults(path)[NAMES[0]].startswith('label ')
    assert '25 ' in faults(path)[NAMES[0]]


def test_mixed_kinds_are_named(tmp_path):
    labels = [list(pair) for pair in PAIRS]
    labels[3][1], labels[4][1] = 7, None
    path = raw_zip(tmp_path / 'a.zip', FILES, labels)
    assert faults(path) == {
        NAMES[3]: 'has a class where most have a camera',
        NAMES[4]: 'has no label where most have a camera',
    }
    with pytest.raises(DataError, match='img00000003.png: has a class'):
        Dataset(path)
    kept = Dataset(path, skip_bad=True)
    assert (len(kept), kept.label_kind) == (28, 'camera')
    rest = [[name, 1] for name in NAMES[1:]]
    path = raw_zip(tmp_path / 'b.zip', FILES, [PAIRS[0], *rest])
    assert faults(path) == {NAMES[0]: 'has a camera where most have a class'}
    why = f'{NAMES[1]}: has no label where the first picture has a camera'
    with pytest.raises(ValueError, match=why):
        write_zip(tmp_path / 'c.zip', [ROWS[0], (*FILES[1], None)])


def test_what_needs_cameras_says_what_to_give(tmp_path):
    run = override(tiny(), **{'schedule.resolution': [[0, 16]]})
    for label, has in ((1, r'classes \(an integer a picture\)'), (None, 'no labels')):
        other = Dataset(write_zip(tmp_path / 'a.zip', [(*file, label) for file in FILES]))
        why = rf'^a has {has}: give a set with cameras \(25 numbers a picture\)$'
        for call in (lambda: other.view, lambda: other.camera_labels, lambda: check_data(run, other)):
            with pytest.raises(ValueError, match=why):
                call()
        told = override(run, **{'backbone.label_dim': other.labels.shape[1]})
        check_data(told, other, kinds=('class', 'none'))
    with pytest.raises(ValueError, match='pixels wide and the run renders 32'):
        check_data(tiny(), other, kinds=('none',))
    posed = same_faces(tmp_path / 'b.zip', torch.tensor(LABELS))
    mend = r'classes .* or no labels, or --backbone.label_dim 0, which withholds them$'
    with pytest.raises(ValueError, match=mend):
        check_data(run, posed, kinds=('class', 'none'))


# ---- a set and a run -----------------------------------------------------------------------------


def same_faces(path, labels):
    "The pictures of all tests under other cameras."
    return Dataset(write_zip(path, [(n, b, l) for (n, b), l in zip(FILES, labels)]))


def test_near_and_far_must_enclose_what_the_cameras_look_at(tmp_path):
    run = override(tiny(), **{'schedule.resolution': [[0, 16]]})
    far = same_faces(tmp_path / '2.7.zip', gaussian_cameras(30, rng(0), radius=2.7, focal=4.2647).label)
    near = same_faces(tmp_path / '1.35.zip', gaussian_cameras(30, rng(0), radius=1.35, focal=2.13).label)
    assert near.view == pytest.approx((1.35, 2.13))
    assert far.view == pytest.approx((2.7, 4.2647))
    check_data(run, far)
    outside = 'render.near = 2.2, render.far = 3.2: .* for 100% of the cameras, which stand 1.35 to 1.35'
    with pytest.raises(ValueError, match=f'{outside} .*give --render.near 0.85 --render.far 1.85$'):
        check_data(run, near)
    check_data(override(run, **{'render.near': 0.85, 'render.far': 1.85}), near)
    with pytest.raises(ValueError, match='give --render.near 2.2 --render.far 3.2'):
        check_data(override(run, **{'render.near': 0.85, 'render.far': 1.85}), far)
    with pytest.raises(ValueError, match='16 pixels wide and the run renders 32'):
        check_data(tiny(), far)
    mixed = same_faces(tmp_path / 'mixed.zip', torch.cat([far.labels[:20], near.labels[:10]]))
    check_data(run, mixed)  # a few odd ones do not stop a run
    assert mixed.view == pytest.approx((2.7, 4.2647))
