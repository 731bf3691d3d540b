#!/usr/bin/env bash
# Discrete units of speech: k-means on MFCC, Whisper or HuBERT features of any list of recordings.
# Finished work is never done again: stop and restart at will.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/recipe.sh
source "$here/../recipes/recipe.sh"

usage() {
  cat <<'HELP'
usage: run.sh --data-root DIR --audio LIST [options]
stages: 1 phones (if there are texts)   2 clusters   3 units   4 quality
  --audio LIST             recordings, 16 kHz mono: a .tsv with the columns id and audio, a file with one path a line, or
                           a folder
  --audio-root DIR         folder that paths in the list are relative to (default: the data root)
  --text-column NAME       column of the list with what is said, in English: units are then judged by forced phone
                           alignments
  --phones FILE            phone alignments made elsewhere, any language: .tsv with id and phones, one phone per 20 ms
  --align-utterances N     recordings to align, a fifth of them for the report only (default 300)
  --features NAME          mfcc, whisper or hubert (default mfcc)
  --lda                    project Whisper or MFCC features onto what tells the aligned phones apart
  --clusters N             number of units (default 100)
  --sample-minutes M       speech to learn clusters from (default 60)
  --hubert FILE            fairseq HuBERT checkpoint
  --layer N                its layer (default 11)
  --kmeans FILE            clusters to use instead of learning some: joblib, pickle, .npz or .npy
  --device NAME            cpu or cuda, for HuBERT (default cpu)
writes into DIR: kmeans.npz, units.tsv, units_quality.json, phones.tsv
HELP
}

declare -A options=([audio]="" [audio-root]="" [text-column]="" [phones]="" [align-utterances]=300 [features]=mfcc
  [clusters]=100 [sample-minutes]=60 [hubert]="" [layer]=11 [kmeans]="" [device]=cpu)
flags=(lda)
last_stage=4
recipe_options "$@"
required audio
choice features mfcc whisper hubert
counts align-utterances clusters layer
[[ "$sample_minutes" =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--sample-minutes is a number of minutes, not '$sample_minutes'"
[[ -e "$audio" || "$dry_run" == true ]] || die "no list or folder of recordings $audio"
[[ -n "$audio_root" ]] || audio_root="$data_root"
model=()
if [[ "$features" == hubert ]]; then
  features="hubert:$layer"
  [[ -n "$hubert" ]] || die "--features hubert needs a checkpoint: --hubert FILE"
  model=(--hubert "$hubert" --device "$device")
fi
if [[ -z "$phones" && -n "$text_column" ]]; then phones="$data_root/phones.tsv"; fi
if $lda && [[ -z "$phones" ]]; then die "--lda needs alignments: give --text-column or --phones"; fi
require_packages "$python" numpy torch torchaudio soundfile tqdm sklearn

list=(--list "$audio" --audio-root "$audio_root")
# Of a folder only the name counts: reading all of it would take as long as the stage.
listed=()
if [[ -f "$audio" ]]; then listed=("$audio"); fi
clusters_file="$data_root/kmeans.npz"

if runs 1 "phones"; then
  if [[ -n "$text_column" ]]; then
    once phones --inputs "${listed[@]}" --outputs "$phones" --uncounted=--jobs="$jobs" -- \
      "$python" "$scripts/units/align_phones.py" "${list[@]}" --text-column "$text_column" \
      --utterances "$align_utterances" --out "$phones"
  else
    echo "phones: no --text-column, nothing to align"
  fi
fi

if runs 2 "clusters"; then
  if [[ -n "$kmeans" ]]; then
    once clusters --inputs "$kmeans" --outputs "$clusters_file" -- \
      "$python" "$scripts/units/import_kmeans.py" --kmeans "$kmeans" --features "$features" --out "$clusters_file"
  else
    known=() use=()
    if [[ -n "$phones" ]]; then known=("$phones") use=(--without "$phones"); fi
    if $lda; then use=(--phones "$phones"); fi
    if [[ -n "$hubert" ]]; then known+=("$hubert"); fi
    once clusters --inputs "${listed[@]}" "${known[@]}" --outputs "$clusters_file" --uncounted=--jobs="$jobs" -- \
      "$python" "$scripts/units/learn_units.py" "${list[@]}" --features "$features" "${model[@]}" "${use[@]}" \
      --clusters "$clusters" --sample-minutes "$sample_minutes" --out "$clusters_file"
  fi
fi

if runs 3 "units"; then
  sharded --counts "$python" "$scripts/units/apply_units.py" "${list[@]}" --kmeans "$clusters_file" "${model[@]}" \
    --out "$data_root/units.tsv"
fi

if runs 4 "quality"; then
  judge=()
  if [[ -n "$phones" ]]; then judge=(--phones "$phones"); fi
  plain "$python" "$scripts/units/unit_quality.py" --units "$data_root/units.tsv" --kmeans "$clusters_file" "${judge[@]}" \
    --out "$data_root/units_quality.json"
fi
