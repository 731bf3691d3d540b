#!/usr/bin/env bash
# CVSS-C: speech translation from French, Spanish or German to English, from the published corpora to training data.
# Finished work is never done again: stop and restart at will.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/recipe.sh
source "$here/../recipe.sh"

usage() {
  cat <<'HELP'
usage: run.sh --data-root DIR --lang LANG [options]
stages: 1 downloads   2 texts   3 recordings   4 pairs   5 features   6 units   7 manifests and lists
  --lang LANG              source language: fr, es or de (default fr); the target is en
  --corpora DIR            Common Voice 4, CoVoST 2, CVSS-C and mHuBERT (default: corpora in the data root)
  --common-voice-url URL   tar file of Common Voice 4, an address or a file (Mozilla gives no lasting address)
  --covost-url URL, --cvss-url URL, --hubert-url URL, --kmeans-url URL
                           other addresses, or files, than the published ones
  --limit N                only the first N pairs of each split (default 0: all)
  --manifest KIND          zip: features in zip files (default); npy: one file each; wav: recordings, analysed in training
  --archive-bytes N        size of a zip file, beyond which another one follows (default: just below 2 GiB)
  --features NAME          what units are clustered from: hubert (default), whisper or mfcc
  --hubert FILE            fairseq HuBERT checkpoint (default: mHuBERT of the corpora)
  --layer N                its layer (default 11)
  --kmeans FILE            clusters, joblib or .npz (default with hubert: those of the corpora); "learn": make some
  --clusters N             number of units to learn (default 1000)
  --device NAME            cpu or cuda, for HuBERT (default cpu)
  --vocab-size N           SentencePiece vocabulary of either language (default 6000)
HELP
}

published=https://dl.fbaipublicfiles.com
declare -A options=([lang]=fr [corpora]="" [common-voice-url]="" [covost-url]="" [cvss-url]=""
  [hubert-url]="$published/hubert/mhubert_base_vp_en_es_fr_it3.pt"
  [kmeans-url]="$published/hubert/mhubert_base_vp_en_es_fr_it3_L11_km1000.bin"
  [limit]=0 [manifest]=zip [features]=hubert [hubert]="" [layer]=11 [kmeans]="" [clusters]=1000 [device]=cpu
  [vocab-size]=6000 [archive-bytes]="")
last_stage=7
recipe_options "$@"
choice lang fr es de
choice manifest zip npy wav
choice features hubert whisper mfcc
counts limit layer clusters vocab-size
[[ -z "$archive_bytes" ]] || is_between "$archive_bytes" 1 || die "--archive-bytes is a number from 1, not '$archive_bytes'"
require_packages "$python" numpy torch torchaudio soundfile sentencepiece tqdm yaml sklearn

[[ -n "$corpora" ]] || corpora="$data_root/corpora"
[[ -n "$covost_url" ]] || covost_url="$published/covost/covost_v2.${lang}_en.tsv.tar.gz"
[[ -n "$cvss_url" ]] || cvss_url="https://storage.googleapis.com/cvss/cvss_c_v1.0/cvss_c_${lang}_en_v1.0.tar.gz"
# Checkpoint and clusters that the user names need not be fetched.
if [[ "$features" != hubert || -n "$hubert" ]]; then hubert_url=""; fi
if [[ "$features" != hubert || -n "$kmeans" ]]; then kmeans_url=""; fi
if [[ "$features" == hubert ]]; then
  [[ -n "$hubert" ]] || hubert="$corpora/mhubert_base_vp_en_es_fr_it3.pt"
  [[ -n "$kmeans" ]] || kmeans="$corpora/mhubert_base_vp_en_es_fr_it3_L11_km1000.bin"
fi
if [[ "$kmeans" == learn ]]; then kmeans=""; fi
pairs="$data_root/texts/pairs.tsv"

if runs 1 "downloads"; then
  plain --counts "$python" "$here/download.py" --lang "$lang" --out "$corpora" --common-voice-url "$common_voice_url" \
    --covost-url "$covost_url" --cvss-url "$cvss_url" --hubert-url "$hubert_url" --kmeans-url "$kmeans_url"
fi

if runs 2 "texts"; then
  covost=("$corpora/covost_v2.${lang}_en.tsv")
  if [[ -f "$corpora/covost_v2.${lang}_en.train.tsv" ]]; then
    covost=("$corpora/covost_v2.${lang}_en."{train,dev,test}.tsv)
  fi
  once texts --inputs "$corpora/cv-corpus-4/$lang/validated.tsv" "${covost[@]}" \
    "$corpora/cvss_c_${lang}_en_v1.0/"{train,dev,test}.tsv --outputs "$data_root/texts/all.tsv" -- \
    "$python" "$here/texts.py" --lang "$lang" --corpora "$corpora" --limit "$limit" --out "$data_root/texts"
fi

if runs 3 "recordings"; then
  sharded --counts "$python" "$here/extract.py" --lang "$lang" --corpora "$corpora" --data-root "$data_root"
fi

if runs 4 "pairs"; then
  plain "$python" "$here/pairs.py" --lang "$lang" --data-root "$data_root"
fi

if runs 5 "features"; then
  if [[ "$manifest" == wav ]]; then
    echo "features: none, training analyses the recordings"
  else
    sharded --counts "$python" "$scripts/data/fbank.py" --texts "$pairs" --audio "$data_root/audio/$lang" \
      --out "$data_root/fbank"
  fi
fi

if runs 6 "units"; then
  again=(--python "$python" --data-root "$data_root" --jobs "$jobs" --num-shards "$num_shards")
  if $dry_run; then again+=(--dry-run); fi
  if [[ -n "$shard" ]]; then again+=(--shard "$shard"); fi
  if [[ -n "$submit" ]]; then again+=(--submit "$submit" --submit-options "$submit_options"); fi
  clusters_of=(--features "$features" --clusters "$clusters")
  if [[ "$features" == hubert ]]; then clusters_of+=(--hubert "$hubert" --layer "$layer" --device "$device"); fi
  if [[ -n "$kmeans" ]]; then clusters_of+=(--kmeans "$kmeans"); fi
  "$scripts/units/run.sh" "${again[@]}" --audio "$pairs" "${clusters_of[@]}" --stage 2
fi

if runs 7 "manifests and lists"; then
  how=(--manifest "$manifest")
  if [[ -n "$archive_bytes" ]]; then how+=(--archive-bytes "$archive_bytes"); fi
  once manifests --inputs "$pairs" "$data_root/units.tsv" "$data_root/kmeans.npz" \
    "$repository/configs/config_gcmvn.yaml" \
    --outputs "$data_root"/{train,dev,test}.tsv "$data_root/gcmvn.npz" "$data_root"/config_{gcmvn,multitask}.yaml -- \
    "$python" "$here/data_set.py" --lang "$lang" --data-root "$data_root" --kmeans "$data_root/kmeans.npz" \
    "${how[@]}" --vocab-size "$vocab_size" --config "$repository/configs/config_gcmvn.yaml"
  for split in test dev; do
    folder=simuleval
    if [[ "$split" == dev ]]; then folder=simuleval_dev; fi
    plain "$python" "$scripts/data/simuleval_lists.py" --data-root "$data_root" --pairs "$pairs" --split "$split" \
      --source-column "$lang" --target-column en --source-audio "audio/$lang" --target-audio audio/en \
      --out "$folder"
  done
fi
