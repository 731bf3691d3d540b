# shellcheck shell=bash
# Stages that corpora of recordings and texts share. To be sourced after recipe.sh.

# Options that go with these stages, for a recipe's options and usage.
declare -A corpus_options=([features]="" [clusters]=100 [kmeans]="" [vocab-size]=200 [vocoder-minutes]=20
  [voice-table]="$repository/scripts/quickstart/voices/ff_siwis.npy")
corpus_usage() {
  cat <<'HELP'
  --features NAME        whisper or mfcc: what units are clustered from (default: whisper where the target is English)
  --clusters N           number of units (default 100)
  --kmeans FILE          unit model to use instead of clustering anew, e.g. from scripts/units
  --vocab-size N         SentencePiece vocabulary of either language, at most (default 200)
  --vocoder-minutes M    training time of the vocoder (default 20)
  --voice-table PATH     Kokoro style vectors of the French voice (default: scripts/quickstart/voices/ff_siwis.npy)
HELP
}

# check_corpus_options TARGET_LANG
check_corpus_options() {
  counts clusters vocab-size
  if [[ -z "$features" ]]; then
    if [[ "$1" == en ]]; then features=whisper; else features=mfcc; fi
  fi
  choice features whisper mfcc
  [[ "$features" == mfcc || "$1" == en || -n "$kmeans" ]] ||
    die "--features whisper hears English only; for the target language $1 take mfcc, or a unit model with --kmeans"
  [[ -z "$kmeans" || -f "$kmeans" ]] || die "no unit model $kmeans (--kmeans)"
  if [[ -n "$kmeans" ]]; then
    clusters="$("$python" -c 'import sys, numpy; print(len(numpy.load(sys.argv[1])["centroids"]))' "$kmeans" \
      2>/dev/null)" || die "$kmeans is no unit model: an .npz file with the array centroids is wanted (--kmeans)"
  fi
}

# speak LANG TABLE COLUMN FOLDER: read the column of a table aloud into FOLDER/<id>.wav.
speak() {
  case "$1" in
    en) sharded --counts "$python" "$common/english_voice.py" --texts "$2" --column "$3" --out "$4" ;;
    fr)
      sharded --counts "$python" "$common/french_voice.py" --texts "$2" --column "$3" --out "$4" \
        --voice-table "$voice_table"
      ;;
    *) die "there is no voice for the language $1, only for en and fr" ;;
  esac
}

# make_units TABLE COLUMN FOLDER: units of the target speech in FOLDER (under the data root) -> units.tsv
make_units() {
  local model=(--features "$features" --clusters "$clusters") inputs=("$1" "$data_root/$3") outputs=("$data_root/units.tsv")
  if [[ -n "$kmeans" ]]; then
    model=(--kmeans "$kmeans")
    inputs+=("$kmeans")
  else
    outputs+=("$data_root/kmeans.npz")
  fi
  once units --inputs "${inputs[@]}" --outputs "${outputs[@]}" --uncounted=--jobs="$jobs" -- \
    "$python" "$common/units.py" --data-root "$data_root" --texts "$1" --column "$2" --audio "$3" "${model[@]}"
}

# make_manifests TABLE SOURCE_COLUMN TARGET_COLUMN FOLDER [--text-targets]: all that fairseq and SimulEval read.
# FOLDER (under the data root) has the source's recordings; the features in fbank/ must have been made.
make_manifests() {
  local units=("$data_root/units.tsv") targets=(--num-units "$clusters") split folder
  if [[ "${5:-}" == --text-targets ]]; then units=() targets=(--text-targets); fi
  once manifests --inputs "$1" "$data_root/fbank" "${units[@]}" \
    --outputs "$data_root/train.tsv" "$data_root/src_fbank80.zip" "$data_root/config_multitask.yaml" -- \
    "$python" "$common/manifests.py" --data-root "$data_root" --pairs "$1" --source-column "$2" --target-column "$3" \
    --source-audio "$4" --fbank "$data_root/fbank" --source-vocab "$vocab_size" --target-vocab "$vocab_size" \
    "${targets[@]}"
  for split in test dev; do
    folder=simuleval
    if [[ "$split" == dev ]]; then folder=simuleval_dev; fi
    plain "$python" "$common/simuleval_lists.py" --data-root "$data_root" --pairs "$1" --source-column "$2" \
      --target-column "$3" --source-audio "$4" --split "$split" --out "$folder"
  done
}

# make_features TABLE FOLDER: log-mel features of the source's recordings -> fbank/
make_features() {
  sharded --counts "$python" "$common/fbank.py" --texts "$1" --audio "$data_root/$2" --out "$data_root/fbank"
}

# make_vocoder: a vocoder of the target voice, trained on all units -> vocoder/
make_vocoder() {
  local config="$repository/configs/vocoder/istft_small.json"
  once vocoder --inputs "$data_root/units.tsv" "$config" --outputs "$data_root/vocoder/config.json" \
    --partial "$data_root/vocoder" -- \
    "$python" "$repository/scripts/vocoder/train.py" --units "$data_root/units.tsv" --audio-root "$data_root" \
    --config "$config" --out "$data_root/vocoder" --num-units "$clusters" --minutes "$vocoder_minutes" --threads 1
}
