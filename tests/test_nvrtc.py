"Every kernel compiles for four generations of GPUs, without one, and keeps to its registers: nothing is spilled."
import pytest

from wysiwyg.kernels import KERNELS, BuildError, PARTS, nvrtc_report

pytest.importorskip('cuda.bindings.nvrtc', reason='NVRTC is not installed: pip install nvidia-cuda-nvrtc cuda-bindings')
PLANES = dict(C=32, V=4, PRODUCT=1, LANES=8)
MLPS = dict(C=32, V=4, PRODUCT=1, LANES=1, FREQS=6, HIDE=128, GEO=64, COLOR=64, SHARPNESS=100., P=32, PT=4, RO=8, THREADS=128, ROWS=128)
TABLE = dict(      # kernel -> (constants at the paper's sizes, most registers a thread)
    triplane=(PLANES, 64), triplane_backward=(PLANES, 80), certainty=(dict(K=191, LANES=32), 32), robust=(dict(K=191, LANES=32), 56),
    composite=(dict(F=3, LANES=16), 40), composite_backward=(dict(F=3, LANES=16), 48),
    field=(MLPS | dict(LOG1P='log1pf'), 80), field_mma=(MLPS | dict(LOG1P='FAST_LOG1P'), 128))


@pytest.mark.parametrize('arch', [75, 80, 90, 100])
@pytest.mark.parametrize('kernel', list(KERNELS))
def test_kernel_compiles_and_spills_nothing(kernel, arch):
    if (kernel, arch) == ('field_mma', 75): pytest.skip('bf16 tensor cores came with sm_80')
    constants, most = TABLE[kernel]
    report = nvrtc_report(kernel, arch, **constants)
    assert report.pop('registers') <= most
    assert set(report.values()) == {0}, report


def test_a_fault_is_named_with_its_cell(monkeypatch):
    monkeypatch.setitem(PARTS, 'composite', PARTS['composite'].replace('float sum[F+3]', 'float sum[F+three]'))
    with pytest.raises(BuildError, match=r'11_kernels.ipynb: composite'): nvrtc_report('composite', 90, F=3, LANES=16)
