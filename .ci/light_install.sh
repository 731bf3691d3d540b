#!/usr/bin/env bash
# How large the light installation is (what the Dockerfile installs), and how long its first word takes.
# usage: .ci/light_install.sh [TORCH]
#   TORCH   what pip is to install as torch: a requirement or a wheel of a CPU build. Without it, the release of
#           requirements/torch-cpu.txt from PyTorch's own CPU builds, by uv.
#   PYTHON  in the environment: the Python to make it with (python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
python=$work/venv/bin/python
"$python" -m pip install --quiet --require-hashes -r requirements/installer.txt
"$python" -m pip install --quiet --require-hashes -r requirements/inference-cpu.txt
if [[ $# -gt 0 ]]; then
  "$python" -m pip install --quiet "$1"
else
  "${PYTHON:-python3}" -m venv "$work/uv"
  "$work/uv/bin/python" -m pip install --quiet uv==0.13.9
  "$work/uv/bin/uv" pip install --quiet --python "$python" --torch-backend cpu -r requirements/torch-cpu.txt
fi
"$python" -m pip install --quiet --no-index --no-deps --no-build-isolation .

packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -m pip list
echo "site-packages: $(du -sm "$packages" | cut -f1) MB"
du -sm "$packages"/* | sort -rn | head -8

# Twice, since the first run compiles modules and reads everything from the disk. Its output is not needed any further.
model=$PWD/models/fr-en
for run in first second; do
  started=$(date +%s%N)
  (cd "$work" && PYTHONUNBUFFERED=1 "$work/venv/bin/echostream" translate "$model/samples/tatoeba_1.flac" \
    --model "$model" --output "$work/$run.wav" 2> "$work/$run.log" || true) | head -c 1 > "$work/$run.word"
  [[ -s $work/$run.word ]] || { echo "error: echostream translate wrote no word:" >&2; cat "$work/$run.log" >&2; exit 1; }
  echo "first word, $run run: $((($(date +%s%N) - started) / 1000000)) ms after the start of the command"
done
