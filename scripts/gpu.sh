#!/usr/bin/env bash
# Everything that wants a GPU, in one call: parity tests with the CUDA backend, compute-sanitizer, benchmarks, training throughput,
# then TRAIN_MINUTES of training `small` on the heads, from the last checkpoint in RUN where there is one (OUT/small when not given);
# DATA names a posed set where the machine cannot render its own (trimesh, embreex).
# Uses the project's environment where there is one, else the machine's own python (torch, cupy and pytest are enough).
# Every step runs even when one before it failed; the exit status is that of the tests.
set -uo pipefail
cd "$(dirname "$0")/.."
python=python3; [ -x .venv/bin/python ] && python=.venv/bin/python
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
out="${OUT:-data/results}"; mkdir -p "$out"
$python -c 'import torch; assert torch.cuda.is_available(), "no GPU that torch can use"; print(torch.cuda.get_device_name(), torch.__version__)' || exit 1

echo "[1/5] parity of the kernels"
$python -m pytest tests/test_kernels.py tests/test_field_mma.py tests/test_synthesis.py tests/test_nvrtc.py -q -k 'cuda or nvrtc' 2>&1 | tee "$out/gpu_tests.log"; status=$?

echo "[2/5] compute-sanitizer"
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        timeout 240 compute-sanitizer --tool $tool --error-exitcode 9 $python -m pytest tests/test_kernels.py tests/test_field_mma.py tests/test_synthesis.py -q -x -k cuda 2>&1 | tail -n 15 | tee "$out/sanitizer_$tool.log" || status=1
    done
else echo "compute-sanitizer is not installed: skipped"; fi

echo "[3/5] benchmarks"
$python scripts/bench.py --device cuda --out "$out" 2>&1 | tee "$out/bench_gpu.log"

echo "[4/5] training throughput"
$python scripts/bench.py --device cuda --train --out "$out" 2>&1 | tee "$out/bench_train_gpu.log"

minutes="${TRAIN_MINUTES:-0}"; run="${RUN:-$out/small}"
echo "[5/5] training small for $minutes minutes"
if [ "$minutes" != 0 ]; then
    timeout -s INT -k 60 "${minutes}m" $python -m wysiwyg.cli train --cfg small --outdir "$run" --resume latest --no-track --heads.workers "$(nproc)" ${DATA:+--data "$DATA"} 2>&1 | tail -n 5
    $python -m wysiwyg.cli eval --network "$run/generator.safetensors" ${DATA:+--data "$DATA"} --n 1000 --no-track --json > "$out/small_eval.json" || status=1
fi
exit $status
