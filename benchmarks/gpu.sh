#!/usr/bin/env bash
# What a GPU gives, within ten minutes on a fresh machine: installs what is missing into a virtual
# environment of its own, measures, and leaves a table. On a machine without a GPU it only shows
# that it runs: bash benchmarks/gpu.sh OUT --smoke
#   bash benchmarks/gpu.sh [OUT [--smoke] [--seconds 5] [--only flagship s_amodal training]]
# PYTHON  an interpreter that has the package already; nothing is installed then.
set -euo pipefail
out=$(realpath -m "${1:-build/gpu}")
more=("${@:2}")
cd "$(dirname "$0")/.."
mkdir -p "$out"
python=${PYTHON:-}
if [ -z "$python" ]; then
    python=$out/venv/bin/python
    if [ ! -e "$out/venv/.done" ]; then
        python3 -m venv "$out/venv"
        "$python" -m pip install -q --disable-pip-version-check '.[tensorrt,sam,onnxruntime]'
        # The plain wheel of onnxruntime lies in the place of the one for GPUs.
        "$python" -m pip uninstall -q -y onnxruntime
        "$python" -m pip install -q --disable-pip-version-check --force-reinstall --no-deps onnxruntime-gpu
        touch "$out/venv/.done"
    fi
fi
PYTHONPATH=$PWD "$python" benchmarks/gpu.py "${more[@]}" | tee "$out/gpu.md"
