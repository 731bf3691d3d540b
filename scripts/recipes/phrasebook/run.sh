#!/usr/bin/env bash
# A French-English speech corpus from a phrasebook: sentence pairs from a grammar of our own, read aloud by synthetic
# voices. Finished work is never done again: stop and restart at will.
# shellcheck disable=SC2154  # recipe_options makes a variable of each option
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/recipe.sh
source "$here/../recipe.sh"
# shellcheck source=scripts/recipes/corpus.sh
source "$here/../corpus.sh"

usage() {
  cat <<'HELP'
usage: run.sh --data-root DIR [options]
stages: 1 texts   2 French speech   3 English speech   4 units   5 rooms, features and manifests   6 vocoder
  --hours H              French speech to train on, estimated (default 10; making it takes as long on 2 cores)
  --train-sentences N    likewise, as a number of sentence pairs (default 0: as --hours says)
  --dev N                sentence pairs (default 300)
  --test N               sentence pairs of each of the two test sets (default 300)
  --unseen-templates N   templates that only the test set "templates" uses (default 24)
  --seed N               of sentences, speed, pitch, accents, rooms and noise (default 0)
  --voices-dir DIR       other Kokoro voice tables (.bin, .npy), for accents (default: none)
  --accent-share S       share of the French recordings with an accent, from 0 to 1 (default 0.15)
  --unseen-voice NAME    table of --voices-dir that is kept for a test set of its own (default: none)
  --noisy-share S        share of the training recordings in a room and with noise, from 0 to 1 (default 0.5)
  --pause-share S        share of these that go on with a pause, hum or music, from 0 to 1 (default 0.4)
HELP
  corpus_usage
}

declare -A options=([hours]=10 [train-sentences]=0 [dev]=300 [test]=300 [unseen-templates]=24 [seed]=0 [voices-dir]=""
  [accent-share]=0.15 [unseen-voice]="" [noisy-share]=0.5
  [pause-share]=0.4)
for name in "${!corpus_options[@]}"; do options[$name]="${corpus_options[$name]}"; done
last_stage=6
recipe_options "$@"
counts train-sentences dev test unseen-templates seed
[[ -z "$unseen_voice" || -n "$voices_dir" ]] || die "--unseen-voice needs --voices-dir"
[[ -z "$voices_dir" || -d "$voices_dir" ]] || die "no folder $voices_dir (--voices-dir)"
[[ -z "$unseen_voice" || -f "$voices_dir/$unseen_voice.bin" || -f "$voices_dir/$unseen_voice.npy" ]] ||
  die "no voice $unseen_voice in $voices_dir (--unseen-voice)"
check_corpus_options en
require_packages "$python" numpy torch torchaudio soundfile sentencepiece tqdm

texts="$data_root/texts"
pairs="$texts/pairs.tsv"
sets=(test_sentences test_templates)

if runs 1 "texts"; then
  once texts --inputs "$here/lexicon" "$here/templates" "$here"/*.py --outputs "$pairs" "$texts/report.json" -- \
    "$python" "$here/phrase_texts.py" --out "$texts" --hours "$hours" --train-sentences "$train_sentences" \
    --dev "$dev" --test "$test" --unseen-templates "$unseen_templates" --seed "$seed"
fi

manner=(--column fr --voice-table "$voice_table" --variation "$seed")
if [[ -n "$voices_dir" ]]; then manner+=(--voices-dir "$voices_dir" --accent-share "$accent_share"); fi
french=("$python" "$scripts/speech/french_voice.py" "${manner[@]}" --engine "$voice_engine")
others=()
if [[ -n "$unseen_voice" ]]; then others=(--held-out-voice "$unseen_voice"); fi

if runs 2 "French speech"; then
  sharded --counts "${french[@]}" "${others[@]}" --texts "$pairs" --out "$data_root/audio/fr"
  if [[ -n "$unseen_voice" ]]; then
    sharded --counts "${french[@]}" --only "$unseen_voice" --texts "$texts/test_sentences.tsv" \
      --out "$data_root/audio/fr_unseen_voice"
  fi
fi

if runs 3 "English speech"; then
  speak en en "$data_root/audio/en" "$pairs"
fi

if runs 4 "units"; then
  make_units en audio/en "$pairs"
fi

if runs 5 "rooms, features and manifests"; then
  # Training recordings in rooms and with noise, the others as they are; and the test sets in noise, for a test.
  sharded --counts "$python" "$scripts/speech/augmentation.py" --texts "$pairs" --audio "$data_root/audio/fr" \
    --out "$data_root/audio/fr_rooms" --only train --share "$noisy_share" --pause-share "$pause_share" \
    --seed "$seed"
  sharded --counts "$python" "$scripts/speech/augmentation.py" --texts "$texts/test_sentences.tsv" \
    --audio "$data_root/audio/fr" --out "$data_root/audio/fr_noise" --share 1 --seed "$seed"
  make_features "$pairs" audio/fr_rooms
  make_manifests "$pairs" fr en audio/fr_rooms
  once phones --inputs "$pairs" "$data_root/audio/fr" --outputs "$data_root/source_phones.tsv" -- \
    "$python" "$scripts/speech/french_phones.py" --texts "$pairs" --audio "$data_root/audio/fr" --jobs "$jobs" \
    "${manner[@]}" "${others[@]}" --out "$data_root/source_phones.tsv"
  lists() {
    plain "$python" "$scripts/data/simuleval_lists.py" --data-root "$data_root" --pairs "$texts/$1.tsv" --all \
      --source-audio "audio/$2" --target-audio audio/en --out "$3"
  }
  for set in "${sets[@]}"; do lists "$set" fr "simuleval_${set#test_}"; done
  lists test_sentences fr_noise simuleval_noise
  if [[ -n "$unseen_voice" ]]; then lists test_sentences fr_unseen_voice simuleval_unseen_voice; fi
fi

if runs 6 "vocoder"; then
  make_vocoder
fi
