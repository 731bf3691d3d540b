#!/usr/bin/env bash
# Prepare a small French-English speech corpus, from nothing but pip packages, on a CPU.
# Finished work is never done again: stop and restart at will.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/common/recipe.sh
source "$here/../common/recipe.sh"

usage() {
  cat <<'HELP'
usage: prepare.sh --data-root DIR [options]
stages: 1 texts   2 French speech   3 English speech   4 units   5 features and manifests   6 vocoder
  --sentences FILE       other pairs: tab-separated, with the columns id, fr and en (default: sentences.tsv)
  --limit N              use only the first N sentence pairs (default 0: all)
  --extra-lines N        English lines that only the vocoder learns from (default 260: 15 minutes of speech)
  --features NAME        whisper or mfcc: what units are clustered from (default whisper)
  --clusters N           number of units (default 100)
  --vocab-size N         SentencePiece vocabulary of either language, at most (default 200)
  --voice-table PATH     Kokoro style vectors of the French voice (default: voices/ff_siwis.npy)
  --vocoder-minutes M    training time of the vocoder (default 10)
HELP
}

declare -A options=([sentences]="$here/sentences.tsv" [limit]=0 [extra-lines]=260 [features]=whisper [clusters]=100 [vocab-size]=200
  [voice-table]="$here/voices/ff_siwis.npy" [vocoder-minutes]=10)
last_stage=6
recipe_options "$@"
counts limit extra-lines clusters vocab-size
choice features whisper mfcc
require_packages "$python" numpy torch torchaudio soundfile sentencepiece tqdm

pairs="$data_root/texts/pairs.tsv"
extra="$data_root/texts/extra.tsv"

if runs 1 "texts"; then
  once texts --inputs "$sentences" --outputs "$pairs" "$extra" -- \
    "$python" "$here/make_texts.py" --sentences "$sentences" --out "$data_root/texts" --limit "$limit" \
    --extra-lines "$extra_lines"
fi

if runs 2 "French speech"; then
  sharded --counts "$python" "$common/french_voice.py" --texts "$pairs" --out "$data_root/audio/fr" \
    --voice-table "$voice_table"
fi

if runs 3 "English speech"; then
  sharded --counts "$python" "$common/english_voice.py" --texts "$pairs" "$extra" --out "$data_root/audio/en"
fi

if runs 4 "units"; then
  once units --inputs "$pairs" "$extra" "$data_root/audio/en" \
    --outputs "$data_root/units.tsv" "$data_root/kmeans.npz" --uncounted=--jobs="$jobs" -- \
    "$python" "$common/units.py" --data-root "$data_root" --texts "$pairs" "$extra" \
    --features "$features" --clusters "$clusters"
fi

if runs 5 "features and manifests"; then
  once manifests --inputs "$pairs" "$data_root/audio/fr" "$data_root/units.tsv" \
    --outputs "$data_root/train.tsv" "$data_root/src_fbank80.zip" "$data_root/config_multitask.yaml" -- \
    "$python" "$common/manifests.py" --data-root "$data_root" --pairs "$pairs" \
    --source-vocab "$vocab_size" --target-vocab "$vocab_size" --num-units "$clusters"
  plain "$python" "$common/simuleval_lists.py" --data-root "$data_root" --pairs "$pairs"
fi

if runs 6 "vocoder"; then
  once vocoder --inputs "$data_root/units.tsv" "$repository/configs/vocoder/istft_small.json" \
    --outputs "$data_root/vocoder/config.json" --partial "$data_root/vocoder" -- \
    "$python" "$repository/scripts/vocoder/train.py" --units "$data_root/units.tsv" --audio-root "$data_root" \
    --config "$repository/configs/vocoder/istft_small.json" --out "$data_root/vocoder" \
    --num-units "$clusters" --minutes "$vocoder_minutes" --threads 1
fi
