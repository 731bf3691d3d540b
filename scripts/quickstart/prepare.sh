#!/usr/bin/env bash
# Prepare a small French-English speech corpus, from nothing but pip packages, on a CPU.
#
#   scripts/quickstart/prepare.sh --data-root DIR [options]
#
# Stages: 1 texts   2 French speech   3 English speech   4 units   5 features and manifests   6 vocoder
# Finished work is never done again: stop and restart at will.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: prepare.sh --data-root DIR [options]
  --data-root DIR        everything is written here
  --stage N              first stage to run (default 1)
  --stop-stage N         last stage to run (default 6)
  --limit N              use only the first N sentence pairs (default 0: all)
  --jobs N               processes, one thread each (default: number of processors)
  --extra-lines N        English lines that only the vocoder learns from (default 260: 15 minutes of speech)
  --features NAME        whisper or mfcc: what units are clustered from (default whisper)
  --clusters N           number of units (default 100)
  --vocab-size N         SentencePiece vocabulary of either language, at most (default 200)
  --voice-table PATH     Kokoro style vectors of the French voice (default: voices/ff_siwis.npy)
  --vocoder-minutes M    training time of the vocoder (default 10)
  --python PATH          interpreter to use (default: python)
EOF
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(cd "$here/../.." && pwd)"
common="$repository/scripts/common"

data_root=""
stage=1
stop_stage=6
limit=0
jobs="$(nproc)"
extra_lines=260
features=whisper
clusters=100
vocab_size=200
voice_table="$here/voices/ff_siwis.npy"
vocoder_minutes=10
python=python

while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --*) [[ $# -ge 2 ]] || { echo "error: $1 needs a value" >&2; exit 2; } ;;&
    --data-root) data_root="$2" ;;
    --stage) stage="$2" ;;
    --stop-stage) stop_stage="$2" ;;
    --limit) limit="$2" ;;
    --jobs) jobs="$2" ;;
    --extra-lines) extra_lines="$2" ;;
    --features) features="$2" ;;
    --clusters) clusters="$2" ;;
    --vocab-size) vocab_size="$2" ;;
    --voice-table) voice_table="$2" ;;
    --vocoder-minutes) vocoder_minutes="$2" ;;
    --python) python="$2" ;;
    *) echo "error: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
  shift 2
done
[[ -n "$data_root" ]] || { echo "error: --data-root is missing (see --help)" >&2; exit 2; }
[[ "$stage" =~ ^[0-9]+$ && "$stop_stage" =~ ^[0-9]+$ ]] || { echo "error: a stage is a number from 1 to 6" >&2; exit 2; }
# shellcheck source=scripts/common/require_packages.sh
source "$common/require_packages.sh"
require_packages "$python" numpy torch torchaudio soundfile sentencepiece tqdm
mkdir -p "$data_root"

# Each process uses one thread; the recipe runs as many processes as asked.
export OMP_NUM_THREADS=1

runs() { [[ "$stage" -le "$1" && "$1" -le "$stop_stage" ]]; }
once() { "$python" "$common/run_once.py" --data-root "$data_root" --name "$@"; }
pairs="$data_root/texts/pairs.tsv"
extra="$data_root/texts/extra.tsv"

if runs 1; then
  once texts --inputs "$here/sentences.tsv" --outputs "$pairs" "$extra" -- \
    "$python" "$here/make_texts.py" --out "$data_root/texts" --limit "$limit" --extra-lines "$extra_lines"
fi

if runs 2; then
  "$python" "$common/french_voice.py" --texts "$pairs" --out "$data_root/audio/fr" \
    --voice-table "$voice_table" --jobs "$jobs"
fi

if runs 3; then
  "$python" "$common/english_voice.py" --texts "$pairs" "$extra" --out "$data_root/audio/en" --jobs "$jobs"
fi

if runs 4; then
  once units --inputs "$pairs" "$extra" "$data_root/audio/en" \
    --outputs "$data_root/units.tsv" "$data_root/kmeans.npz" --uncounted=--jobs="$jobs" -- \
    "$python" "$common/units.py" --data-root "$data_root" --texts "$pairs" "$extra" \
    --features "$features" --clusters "$clusters"
fi

if runs 5; then
  once manifests --inputs "$pairs" "$data_root/audio/fr" "$data_root/units.tsv" \
    --outputs "$data_root/train.tsv" "$data_root/src_fbank80.zip" "$data_root/config_multitask.yaml" -- \
    "$python" "$common/manifests.py" --data-root "$data_root" --pairs "$pairs" \
    --source-vocab "$vocab_size" --target-vocab "$vocab_size" --num-units "$clusters"
  "$python" "$common/simuleval_lists.py" --data-root "$data_root" --pairs "$pairs"
fi

if runs 6; then
  once vocoder --inputs "$data_root/units.tsv" "$repository/configs/vocoder/istft_small.json" \
    --outputs "$data_root/vocoder/config.json" --partial "$data_root/vocoder" -- \
    "$python" "$repository/scripts/vocoder/train.py" --units "$data_root/units.tsv" --audio-root "$data_root" \
    --config "$repository/configs/vocoder/istft_small.json" --out "$data_root/vocoder" \
    --num-units "$clusters" --minutes "$vocoder_minutes" --threads 1
fi
