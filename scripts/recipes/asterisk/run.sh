#!/usr/bin/env bash
# A test set of real human speech, French-English or another pair, from the prompts of the Asterisk telephone system.
# Finished work is never done again: stop and restart at will.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/recipe.sh
source "$here/../recipe.sh"

usage() {
  cat <<'HELP'
usage: run.sh --data-root DIR [options]
stages: 1 packages   2 recordings and texts   3 SimulEval lists
  --source-lang LANG       fr (default), es, it or ru; the target is en
  --packages DIR           Debian packages asterisk-core-sounds-LANG, -LANG-g722, -en and -en-g722 (.deb), or a folder
                           they were unpacked in (default: fetched with apt-get download)
  --mirror URL             mirror of Debian to fetch them from instead (the folder that has pool/ in it)
  --min-source-words N     shorter prompts are left out (default 5)
  --min-target-words N     likewise in English (default 6)
  --max-seconds S          source recordings of this length or more are left out (default 28)
HELP
}

declare -A options=([source-lang]=fr [packages]="" [mirror]="" [min-source-words]=5 [min-target-words]=6
  [max-seconds]=28)
last_stage=3
recipe_options "$@"
choice source-lang fr es it ru
counts min-source-words min-target-words
[[ "$max_seconds" =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--max-seconds is a number of seconds, not '$max_seconds'"
require_packages "$python" numpy soundfile av tqdm

prompts="$data_root/prompts"
out="$data_root/$source_lang-en"

if runs 1 "packages"; then
  inputs=() where=()
  if [[ -n "$packages" ]]; then inputs=("$packages") where=(--packages "$packages"); fi
  if [[ -n "$mirror" ]]; then where+=(--mirror "$mirror"); fi
  once "packages-$source_lang" --inputs "${inputs[@]}" \
    --outputs "$prompts/$source_lang/transcript.txt" "$prompts/en/transcript.txt" -- \
    "$python" "$here/packages.py" --languages "$source_lang" en --out "$prompts" "${where[@]}"
fi

if runs 2 "recordings and texts"; then
  once "pairs-$source_lang" --inputs "$prompts/$source_lang" "$prompts/en" \
    --outputs "$out/pairs.tsv" "$out/audio" -- \
    "$python" "$here/make_test_set.py" --prompts "$prompts" --source-lang "$source_lang" --out "$out" \
    --min-source-words "$min_source_words" --min-target-words "$min_target_words" --max-seconds "$max_seconds"
fi

if runs 3 "SimulEval lists"; then
  plain "$python" "$scripts/data/simuleval_lists.py" --data-root "$out" --pairs "$out/pairs.tsv" --all \
    --source-column "$source_lang" --source-audio "audio/$source_lang" --target-audio audio/en
fi
