#!/usr/bin/env bash
# A voice for units: train, evaluate and export a unit vocoder on recordings of one speaker.
# Finished work is never done again: stop and restart at will.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/recipe.sh
source "$here/../recipes/recipe.sh"

usage() {
  cat <<'HELP'
usage: run.sh --data-root DIR --units FILE [options]
stages: 1 tables   2 training   3 evaluation
  --units FILE             .tsv with the columns id and units, one unit each 20 ms, with repeats: units.tsv of scripts/units
  --audio LIST             recordings, 16 kHz mono: a .tsv with the columns id and audio, a file with one path a line, or
                           a folder (default: the units' own column audio)
  --audio-root DIR         folder that paths in tables are relative to (default: the data root)
  --text-column NAME       column of the list with what is said: for word error rates
  --held-out N             recordings to evaluate on, at most a tenth (default 60)
  --config FILE            vocoder (default: configs/vocoder/istft_small.json; or code_hifigan_small.json, code_hifigan.json)
  --num-units N            number of units (default: the config's num_embeddings)
  --gan                    train with discriminators
  --minutes M              training time; on a CPU its own, whatever else runs (default 20)
  --evaluate-minutes M     of training between two evaluations (default 5)
  --threads N              for training (default 1)
  --device NAME            cpu or cuda, for training (default cpu)
  --seed N                 of weights, of the order of the data and of what is held out (default 0)
  --language LANG          two-letter code of the speech, for the speech recogniser (default en)
  --asr-model MODEL        base, tiny.en or a CTranslate2 Whisper folder (default: the best installed; without any, word
                           error rates are left out)
writes into DIR: train.tsv, held_out.tsv, vocoder/ (config.json and weights), evaluation.json, samples/
HELP
}

declare -A options=([units]="" [audio]="" [audio-root]="" [text-column]="" [held-out]=60
  [config]="$repository/configs/vocoder/istft_small.json" [num-units]="" [minutes]=20 [evaluate-minutes]=5 [threads]=1
  [device]=cpu [seed]=0 [language]=en [asr-model]="")
flags=(gan)
last_stage=3
recipe_options "$@"
required units
counts held-out seed
is_between "$threads" 1 || die "--threads is a number from 1, not '$threads'"
[[ -z "$num_units" ]] || is_between "$num_units" 1 || die "--num-units is a number from 1, not '$num_units'"
for name in minutes evaluate_minutes; do
  [[ "${!name}" =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--${name//_/-} is a number of minutes, not '${!name}'"
done
[[ "$language" =~ ^[a-z]{2}$ ]] || die "--language is a two-letter code such as en, not '$language'"
[[ -f "$units" || "$dry_run" == true ]] || die "no table of units $units (--units)"
[[ -z "$audio" || -e "$audio" || "$dry_run" == true ]] || die "no list or folder of recordings $audio (--audio)"
[[ -f "$config" ]] || die "no vocoder configuration $config (--config)"
[[ -n "$audio_root" ]] || audio_root="$data_root"
require_packages "$python" numpy torch torchaudio soundfile
# pydub, which SimulEval imports, warns about a program that nothing here needs.
export PYTHONWARNINGS="ignore:Couldn't find ffmpeg:RuntimeWarning"
if [[ "$device" == cpu ]]; then export OMP_NUM_THREADS="$threads"; fi

vocoder="$data_root/vocoder"
reader=(--language "$language")
if [[ -n "$asr_model" ]]; then reader+=(--asr-model "$asr_model"); fi

if runs 1 "tables"; then
  list=() listed=("$units")
  if [[ -n "$audio" ]]; then list=(--audio "$audio"); fi
  if [[ -n "$text_column" ]]; then list+=(--text-column "$text_column"); fi
  # Of a folder only the name counts: reading all of it would take as long as a stage.
  if [[ -f "$audio" ]]; then listed+=("$audio"); fi
  once tables --inputs "${listed[@]}" --outputs "$data_root/train.tsv" "$data_root/held_out.tsv" -- \
    "$python" "$here/make_tables.py" --units "$units" "${list[@]}" --audio-root "$audio_root" --held-out "$held_out" \
    --seed "$seed" --out "$data_root"
fi

if runs 2 "training"; then
  how=()
  if [[ -n "$num_units" ]]; then how+=(--num-units "$num_units"); fi
  if $gan; then how+=(--gan); fi
  if [[ "$held_out" != 0 ]]; then
    how+=(--held-out "$data_root/held_out.tsv" --evaluate-minutes "$evaluate_minutes" "${reader[@]}")
  fi
  # Finds out by itself what is done: more minutes go on with the same training.
  plain "$python" "$here/train.py" --units "$data_root/train.tsv" --audio-root "$audio_root" --config "$config" \
    --out "$vocoder" --minutes "$minutes" --threads "$threads" --device "$device" --seed "$seed" "${how[@]}"
fi

if runs 3 "evaluation"; then
  if [[ "$held_out" == 0 ]]; then
    echo "evaluation: no recording was held out"
  else
    once evaluation --inputs "$data_root/held_out.tsv" "$vocoder/training.pt" --outputs "$data_root/evaluation.json" -- \
      "$python" "$here/evaluate_vocoder.py" --vocoder "$vocoder" --table "$data_root/held_out.tsv" \
      --audio-root "$audio_root" --out "$data_root/evaluation.json" --samples "$data_root/samples" "${reader[@]}"
  fi
fi
