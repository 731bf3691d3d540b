#!/usr/bin/env bash
# A corpus of your own: from a table of recordings (and texts) to everything that training and evaluation read.
# Finished work is never done again: stop and restart at will.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/recipe.sh
source "$here/../recipe.sh"
# shellcheck source=scripts/recipes/corpus.sh
source "$here/../corpus.sh"

usage() {
  cat <<'HELP'
usage: run.sh --data-root DIR --table FILE.tsv [options]
stages: 1 check the table   2 recordings   3 transcripts   4 pairs   5 target speech   6 units
        7 features and manifests   8 vocoder
  --table FILE           tab-separated, with a header out of source_wav target_wav source_text target_text id split
  --audio-root DIR       paths in the table start from here (default: the table's folder)
  --source-lang LANG     two-letter codes (default fr) ...
  --target-lang LANG     ... and (default en); en and fr have a voice for targets without a recording
  --transcribe           let Whisper write down what has no text
  --asr-model MODEL      base, tiny.en or a CTranslate2 Whisper directory (default: the best installed)
  --skip-bad             leave bad rows out instead of stopping; texts/bad_rows.tsv lists them
  --strict-rate          a recording that is not at 16 kHz is bad (otherwise it is converted)
  --min-seconds S        a shorter recording is bad (default 0.3)
  --max-seconds S        a longer recording is bad (default 30)
  --dev-percent P        held out by the hash of the sentence, where the table has no column split (default 5) ...
  --test-percent P       ... and as the test set (default 5)
  --seed N               another division into train, dev and test (default 0)
HELP
  corpus_usage
}

declare -A options=([table]="" [audio-root]="" [source-lang]=fr [target-lang]=en [asr-model]="" [min-seconds]=0.3
  [max-seconds]=30 [dev-percent]=5 [test-percent]=5 [seed]=0)
for name in "${!corpus_options[@]}"; do options[$name]="${corpus_options[$name]}"; done
flags=(transcribe skip-bad strict-rate)
last_stage=8
recipe_options "$@"
required table
[[ -f "$table" ]] || die "no table $table (--table)"
audio_root="${audio_root:-$(dirname "$table")}"
[[ -d "$audio_root" ]] || die "no folder $audio_root (--audio-root)"
for name in source_lang target_lang; do
  [[ "${!name}" =~ ^[a-z]{2}$ ]] || die "--${name/_/-} is a two-letter code such as fr, not '${!name}'"
done
for name in min_seconds max_seconds dev_percent test_percent; do
  [[ "${!name}" =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--${name/_/-} is a number, not '${!name}'"
done
counts seed
check_corpus_options "$target_lang"
require_packages "$python" numpy torch torchaudio soundfile soxr sentencepiece tqdm

texts="$data_root/texts"
pairs="$texts/pairs.tsv"

if runs 1 "check the table"; then
  how=()
  if $transcribe; then how+=(--transcribe); fi
  if $skip_bad; then how+=(--skip-bad); fi
  if $strict_rate; then how+=(--strict-rate); fi
  if [[ "$target_lang" != en && "$target_lang" != fr ]]; then how+=(--no-voice); fi
  # The recordings may change without the table: this stage is quick, and is done each time.
  plain "$python" "$here/check_table.py" --table "$table" --audio-root "$audio_root" --out "$texts" --jobs "$jobs" \
    --min-seconds "$min_seconds" --max-seconds "$max_seconds" "${how[@]}"
fi

if runs 2 "recordings"; then
  for side in source target; do
    sharded --counts "$python" "$here/import_audio.py" --texts "$texts/checked.tsv" --column "${side}_wav" \
      --audio-root "$audio_root" --out "$data_root/audio/$side"
  done
fi

if runs 3 "transcripts"; then
  if $transcribe; then
    asr=()
    if [[ -n "$asr_model" ]]; then asr=(--model "$asr_model"); fi
    for side in source target; do
      language="${side}_lang"
      sharded --counts "$python" "$here/transcribe.py" --texts "$texts/checked.tsv" --side "$side" \
        --language "${!language}" --audio "$data_root/audio/$side" --out "$texts/transcripts/$side" "${asr[@]}"
    done
  else
    echo "transcripts: the table has all texts"
  fi
fi

if runs 4 "pairs"; then
  how=() inputs=("$texts/checked.tsv")
  if $transcribe; then
    how+=(--transcripts "$texts/transcripts")
    if [[ -d "$texts/transcripts" ]]; then inputs+=("$texts/transcripts"); fi
  fi
  if $skip_bad; then how+=(--skip-bad); fi
  once pairs --inputs "${inputs[@]}" --outputs "$pairs" "$texts/to_speak.tsv" -- \
    "$python" "$here/make_pairs.py" --texts "$texts/checked.tsv" --out "$texts" --seed "$seed" \
    --dev-percent "$dev_percent" --test-percent "$test_percent" "${how[@]}"
fi

if runs 5 "target speech"; then
  case "$target_lang" in
    en | fr) speak "$target_lang" target_text "$data_root/audio/target" "$texts/to_speak.tsv" ;;
    *) echo "target speech: all of it was recorded" ;;
  esac
fi

if runs 6 "units"; then
  make_units target_text audio/target "$pairs"
fi

if runs 7 "features and manifests"; then
  make_features "$pairs" audio/source
  make_manifests "$pairs" source_text target_text audio/source
fi

if runs 8 "vocoder"; then
  make_vocoder
fi
