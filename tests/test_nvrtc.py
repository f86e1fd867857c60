"Every kernel compiles for four generations of GPUs, without one, and spills nothing."

import pytest

from wysiwyg import kernels
from wysiwyg.generator import Generator
from wysiwyg.kernels import BuildError, nvrtc_report

assert Generator  # which brings every kernel into the tables

pytest.importorskip(
    'cuda.bindings.nvrtc', reason='NVRTC is not installed: pip install nvidia-cuda-nvrtc cuda-bindings'
)
MOST = dict(
    triplane=64,
    triplane_backward=80,
    certainty=32,
    kept_bins=32,
    robust=56,
    sdf_pdf=56,
    look_again=56,
    composite=40,
    composite_backward=48,
    field=96,
    field_backward=144,
    field_mma=128,
    activate=48,
    activate_backward=64,
    upsample=64,
    upsample_backward=72,
)  # registers a thread


@pytest.mark.parametrize('arch', [75, 80, 90, 100])
@pytest.mark.parametrize('kernel', list(kernels.KERNELS))
def test_kernel_compiles_and_spills_nothing(kernel, arch):
    if (kernel, arch) == ('field_mma', 75):
        pytest.skip('bf16 tensor cores came with sm_80')
    report = nvrtc_report(kernel, arch, **kernels.PAPER_SIZES[kernel])
    assert report.pop('registers') <= MOST[kernel]
    assert set(report.values()) == {0}, report


def test_a_fault_is_named_with_its_cell(monkeypatch):
    misspelt = kernels.PARTS['composite'].replace('float sum[F+3]', 'float sum[F+three]')
    monkeypatch.setitem(kernels.PARTS, 'composite', misspelt)
    with pytest.raises(BuildError, match=r"PARTS\['composite'\]"):
        nvrtc_report('composite', 90, F=3, LANES=16)
