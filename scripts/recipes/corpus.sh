# shellcheck shell=bash
# Stages that corpora of recordings and texts share. To be sourced after recipe.sh.

# Options that go with these stages, for a recipe's options and usage.
declare -A corpus_options=([features]="" [clusters]=100 [sample-minutes]=30 [kmeans]="" [hubert]="" [device]=cpu
  [vocab-size]=200 [continue-from]="" [vocoder-minutes]=20 [voice-table]="$repository/scripts/recipes/quickstart/voices/ff_siwis.npy"
  [voice-engine]=onnxruntime)
corpus_usage() {
  cat <<'HELP'
  --features NAME        whisper or mfcc: what units are clustered from (default: whisper where the target is English)
  --clusters N           number of units (default 100)
  --sample-minutes M     target speech to cluster, drawn from all there is (default 30: 2 GB of memory)
  --kmeans FILE          unit model to use instead of clustering anew, e.g. from scripts/units
  --hubert FILE          fairseq checkpoint, if the clusters of --kmeans are of HuBERT's features
  --device NAME          cpu or cuda, for HuBERT (default cpu)
  --vocab-size N         SentencePiece vocabulary of either language, at most (default 200)
  --continue-from DIR    data set or model that a training will go on from: its vocabularies, units and normalisation
                         are taken
  --vocoder-minutes M    training time of the vocoder (default 20)
  --voice-table PATH     Kokoro style vectors of the French voice (default: scripts/recipes/quickstart/voices/ff_siwis.npy)
  --voice-engine NAME    what computes it: onnxruntime, or openvino, 1.8 times as fast on a processor with AMX and not
                         the same samples on every processor (default onnxruntime)
HELP
}

# check_corpus_options TARGET_LANG
check_corpus_options() {
  counts clusters vocab-size
  if [[ -z "$features" ]]; then
    if [[ "$1" == en ]]; then features=whisper; else features=mfcc; fi
  fi
  choice features whisper mfcc
  choice voice-engine onnxruntime openvino
  [[ "$sample_minutes" =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--sample-minutes is a number of minutes, not '$sample_minutes'"
  [[ "$features" == mfcc || "$1" == en || -n "$kmeans" ]] ||
    die "--features whisper hears English only; for the target language $1 take mfcc, or a unit model with --kmeans"
  [[ -z "$continue_from" || -d "$continue_from" ]] || die "no folder $continue_from (--continue-from)"
  if [[ -z "$kmeans" && -n "$continue_from" && -f "$continue_from/kmeans.npz" ]]; then
    kmeans="$continue_from/kmeans.npz"
  fi
  [[ -z "$kmeans" || -f "$kmeans" ]] || die "no unit model $kmeans (--kmeans)"
  if [[ -n "$kmeans" ]]; then
    local about
    about="$("$python" -c 'import sys, numpy; a = numpy.load(sys.argv[1]); print(len(a["centroids"]), a["features"])' \
      "$kmeans" 2>/dev/null)" || die "$kmeans is no unit model; scripts/units/run.sh makes one, or converts (--kmeans)"
    clusters="${about% *}" features="${about#* }"
    [[ "$features" != hubert:* || -f "$hubert" ]] ||
      die "$kmeans clusters HuBERT's features ($features): give the checkpoint with --hubert"
  fi
}

# speak LANG COLUMN FOLDER TABLE ...: read the column of the tables aloud into FOLDER/<id>.wav.
speak() {
  local voice=(--column "$2" --out "$3" --texts "${@:4}")
  case "$1" in
    en) sharded --counts "$python" "$scripts/speech/english_voice.py" "${voice[@]}" ;;
    fr)
      sharded --counts "$python" "$scripts/speech/french_voice.py" "${voice[@]}" --voice-table "$voice_table" \
        --engine "$voice_engine"
      ;;
    *) die "there is no voice for the language $1, only for en and fr" ;;
  esac
}

# make_units COLUMN FOLDER TABLE ...: units of the target speech in FOLDER (under the data root), of which the tables'
# column says the text -> units.tsv, units_quality.json, and kmeans.npz unless that was given
make_units() {
  local list="$data_root/texts/speech.tsv" model="$kmeans" project=() extractor=()
  once speech --inputs "${@:3}" --outputs "$list" -- \
    "$python" "$scripts/speech/speech_list.py" --texts "${@:3}" --column "$1" --audio "$2" --out "$list"
  if [[ -z "$model" ]]; then
    model="$data_root/kmeans.npz"
    # The phones of the projection are English; MFCC stay what needs no other model.
    if [[ "$features" == whisper ]]; then project=(--align text); fi
    once clusters --inputs "$list" "$data_root/$2" --outputs "$model" --uncounted=--jobs="$jobs" -- \
      "$python" "$scripts/units/learn_units.py" --list "$list" --audio-root "$data_root" --features "$features" \
      "${project[@]}" --clusters "$clusters" --sample-minutes "$sample_minutes" --out "$model"
  fi
  if [[ "$features" == hubert:* ]]; then extractor=(--hubert "$hubert" --device "$device"); fi
  sharded --counts "$python" "$scripts/units/apply_units.py" --list "$list" --audio-root "$data_root" --kmeans "$model" \
    "${extractor[@]}" --out "$data_root/units.tsv"
  once quality --inputs "$data_root/units.tsv" "$model" --outputs "$data_root/units_quality.json" -- \
    "$python" "$scripts/units/unit_quality.py" --units "$data_root/units.tsv" --kmeans "$model" \
    --out "$data_root/units_quality.json"
}

# make_manifests TABLE SOURCE_COLUMN TARGET_COLUMN FOLDER [--text-targets]: all that fairseq and SimulEval read.
# FOLDER (under the data root) has the source's recordings; the features in fbank/ must have been made.
make_manifests() {
  local units=("$data_root/units.tsv") targets=(--num-units "$clusters") earlier=() split folder
  if [[ "${5:-}" == --text-targets ]]; then units=() targets=(--text-targets); fi
  if [[ -n "$continue_from" ]]; then earlier=(--continue-from "$continue_from"); fi
  once manifests --inputs "$1" "$data_root/fbank" "${units[@]}" \
    --outputs "$data_root/train.tsv" "$data_root/src_fbank80.zip" "$data_root/config_multitask.yaml" -- \
    "$python" "$scripts/data/manifests.py" --data-root "$data_root" --pairs "$1" --source-column "$2" --target-column "$3" \
    --source-audio "$4" --fbank "$data_root/fbank" --source-vocab "$vocab_size" --target-vocab "$vocab_size" \
    "${targets[@]}" "${earlier[@]}"
  for split in test dev; do
    folder=simuleval
    if [[ "$split" == dev ]]; then folder=simuleval_dev; fi
    plain "$python" "$scripts/data/simuleval_lists.py" --data-root "$data_root" --pairs "$1" --source-column "$2" \
      --target-column "$3" --source-audio "$4" --split "$split" --out "$folder"
  done
}

# make_features TABLE FOLDER: log-mel features of the source's recordings -> fbank/
make_features() {
  sharded --counts "$python" "$scripts/data/fbank.py" --texts "$1" --audio "$data_root/$2" --out "$data_root/fbank"
}

# make_vocoder: a vocoder of the target voice, trained on all units -> vocoder/
make_vocoder() {
  local config="$repository/configs/vocoder/istft_small.json"
  once vocoder --inputs "$data_root/units.tsv" "$config" --outputs "$data_root/vocoder/config.json" \
    --partial "$data_root/vocoder" -- \
    "$python" "$repository/scripts/vocoder/train.py" --units "$data_root/units.tsv" --audio-root "$data_root" \
    --config "$config" --out "$data_root/vocoder" --num-units "$clusters" --minutes "$vocoder_minutes" --threads 1
}
