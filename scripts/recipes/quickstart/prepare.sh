#!/usr/bin/env bash
# Prepare a small French-English speech corpus, from nothing but pip packages, on a CPU.
# Finished work is never done again: stop and restart at will.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/recipe.sh
source "$here/../recipe.sh"
# shellcheck source=scripts/recipes/corpus.sh
source "$here/../corpus.sh"

usage() {
  cat <<'HELP'
usage: prepare.sh --data-root DIR [options]
stages: 1 texts   2 French speech   3 English speech   4 units   5 features and manifests   6 vocoder
  --sentences FILE       other pairs: tab-separated, with the columns id, fr and en (default: sentences.tsv)
  --limit N              use only the first N sentence pairs (default 0: all)
  --extra-lines N        English lines that only the vocoder learns from (default 260: 15 minutes of speech)
HELP
  corpus_usage
}

declare -A options=([sentences]="$here/sentences.tsv" [limit]=0 [extra-lines]=260)
for name in "${!corpus_options[@]}"; do options[$name]="${corpus_options[$name]}"; done
last_stage=6
recipe_options "$@"
counts limit extra-lines
check_corpus_options en
require_packages "$python" numpy torch torchaudio soundfile sentencepiece tqdm

pairs="$data_root/texts/pairs.tsv"
extra="$data_root/texts/extra.tsv"

if runs 1 "texts"; then
  once texts --inputs "$sentences" --outputs "$pairs" "$extra" -- \
    "$python" "$here/make_texts.py" --sentences "$sentences" --out "$data_root/texts" --limit "$limit" \
    --extra-lines "$extra_lines"
fi

if runs 2 "French speech"; then
  speak fr fr "$data_root/audio/fr" "$pairs"
fi

if runs 3 "English speech"; then
  speak en en "$data_root/audio/en" "$pairs" "$extra"
fi

if runs 4 "units"; then
  make_units en audio/en "$pairs" "$extra"
fi

if runs 5 "features and manifests"; then
  make_features "$pairs" audio/fr
  make_manifests "$pairs" fr en audio/fr
fi

if runs 6 "vocoder"; then
  make_vocoder
fi
