#!/usr/bin/env bash
# A speech corpus from the text of Multi30k (captions of photographs), read aloud by synthetic voices.
# Finished work is never done again: stop and restart at will.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/recipe.sh
source "$here/../recipe.sh"
# shellcheck source=scripts/recipes/corpus.sh
source "$here/../corpus.sh"

usage() {
  cat <<'HELP'
usage: run.sh --data-root DIR [--text-dir DIR] [options]
stages: 1 texts   2 source speech   3 target speech   4 units   5 features and manifests   6 vocoder
  --text-dir DIR         folder with train, val and test_2016_flickr (or test2016), each .fr and .en
  --url URL              without --text-dir: fetch them, gzipped, from here (default: Multi30k's own repository)
  --source-lang LANG     fr (default: French into English) or en (English into French)
  --text-targets         no target speech: the target is text only (train with --unit-weight 0)
  --limit-train N        use only the first N pairs (default 0: all 29,000, about 30 h of French, and as long to make)
  --limit-dev N          likewise (default 0: all 1,014)
  --limit-test N         likewise (default 0: all 1,000)
HELP
  corpus_usage
}

declare -A options=([text-dir]="" [url]=https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw
  [source-lang]=fr [limit-train]=0 [limit-dev]=0 [limit-test]=0)
for name in "${!corpus_options[@]}"; do options[$name]="${corpus_options[$name]}"; done
flags=(text-targets)
last_stage=6
recipe_options "$@"
choice source-lang fr en
counts limit-train limit-dev limit-test
if [[ "$source_lang" == fr ]]; then target_lang=en; else target_lang=fr; fi
check_corpus_options "$target_lang"
require_packages "$python" numpy torch torchaudio soundfile sentencepiece tqdm

pairs="$data_root/texts/pairs.tsv"

if runs 1 "texts"; then
  if [[ -n "$text_dir" ]]; then inputs=("$text_dir") where=(--text-dir "$text_dir"); else inputs=() where=(--url "$url"); fi
  once texts --inputs "${inputs[@]}" --outputs "$pairs" -- \
    "$python" "$here/make_pairs.py" "${where[@]}" --out "$data_root/texts" \
    --limit-train "$limit_train" --limit-dev "$limit_dev" --limit-test "$limit_test"
fi

if runs 2 "source speech"; then
  speak "$source_lang" "$source_lang" "$data_root/audio/$source_lang" "$pairs"
fi

if $text_targets; then
  if runs 5 "features and manifests"; then
    make_features "$pairs" "audio/$source_lang"
    make_manifests "$pairs" "$source_lang" "$target_lang" "audio/$source_lang" --text-targets
  fi
  exit 0
fi

if runs 3 "target speech"; then
  speak "$target_lang" "$target_lang" "$data_root/audio/$target_lang" "$pairs"
fi

if runs 4 "units"; then
  make_units "$target_lang" "audio/$target_lang" "$pairs"
fi

if runs 5 "features and manifests"; then
  make_features "$pairs" "audio/$source_lang"
  make_manifests "$pairs" "$source_lang" "$target_lang" "audio/$source_lang"
fi

if runs 6 "vocoder"; then
  make_vocoder
fi
