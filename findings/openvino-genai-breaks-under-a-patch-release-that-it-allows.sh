#!/usr/bin/env bash
# openvino-genai 2026.4.0.0, openvino 2026.4.1, Python 3.11, Linux x86-64.
#
# Guess: openvino-genai asks, by its tokenizers, for openvino~=2026.4.0, so any patch release will
# do. pip takes the newest, finds no conflict, and the import works.
# Behaviour: pip finds no conflict, and the import fails. Its library is linked against the exact
# file libopenvino.so.2640, which 2026.4.1 names otherwise. With openvino 2026.4.0 it works.
# Output seen:
#   openvino 2026.4.1: no conflict; ImportError: libopenvino.so.2640: cannot open shared object file
#   openvino 2026.4.0: no conflict; imported
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" -q "$@"; }
try() { { "$folder/venv/bin/python" -c "import openvino_genai" 2>&1 || true; } | tail -1; }

pip install openvino-genai==2026.4.0.0 openvino==2026.4.1
pip check
newer=$(try)
echo "openvino 2026.4.1: no conflict; $newer"
pip install openvino==2026.4.0
pip check
older=$(try)
echo "openvino 2026.4.0: no conflict; ${older:-imported}"
[[ $newer == "ImportError: libopenvino.so.2640"* && -z $older ]]
