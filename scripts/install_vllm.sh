#!/usr/bin/env bash
# Installs vLLM into PREFIX: its build for CPUs, or on a machine with an NVIDIA GPU the one for that.
#
#   scripts/install_vllm.sh /path/to/venv       # once; again: "already there", at once
#
# About two minutes and 2.3 GB (CPU). Exit status: 0 it can be imported, else pip's.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 PREFIX" >&2
    exit 2
fi
python="$1/bin/python"

if "$python" -c 'import vllm' >/dev/null 2>&1; then
    echo "vLLM is already there"
    exit 0
fi
if nvidia-smi >/dev/null 2>&1; then
    "$python" -m pip install --quiet --disable-pip-version-check --editable '.[gpu]'
else
    "$python" -m pip install --quiet --disable-pip-version-check --editable '.[cpu]'
    # It names these as needed, which PyPI has for CUDA only; text needs none of them, and their import fails.
    "$python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
fi
"$python" -c 'import vllm'
