#!/usr/bin/env bash
# A model of one's own, from nothing: make a small corpus, train on it, and translate it live through the SimulEval agent.
# Every step is skipped when it is already done, so an interrupted run goes on where it stopped.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: scripts/recipes/quickstart/demo.sh --work DIR [options]
  --work DIR             corpus, model, vocoder and results are kept here
  --model-updates N      training updates of the model (default 1300: 5 to 7 minutes)
  --vocoder-minutes M    training time of the vocoder, on the other core meanwhile (default 6)
  --limit N              use only the first N sentence pairs (default 0: all)
  --segments "320 40"    segment sizes in ms to translate at (default "320 40")
  --python PATH          interpreter (default: python)
HELP
}
die() { echo "error: $*" >&2; exit 2; }

work="" python=python model_updates=1300 vocoder_minutes=6 limit=0 segments="320 40"
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --work | --python | --model-updates | --vocoder-minutes | --limit | --segments) ;;
    *) die "unknown option $1 (see --help)" ;;
  esac
  (($# > 1)) || die "$1 needs a value (see --help)"
  name=${1#--}
  printf -v "${name//-/_}" '%s' "$2"
  shift 2
done
[[ -n $work ]] || die "--work is missing (see --help)"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scripts=$here/../..
corpus=$work/corpus model=$work/model
mkdir -p "$work"

echo "== 1/3  A small corpus: French sentences by a French voice, their English counterparts by an English one"
"$here/prepare.sh" --data-root "$corpus" --limit "$limit" --stop-stage 5 --python "$python"

echo "== 2/3  Training: the model on one core ($model_updates updates, about 6 min), the vocoder on the other ($vocoder_minutes min)"
vocoder_log=$work/vocoder.log
"$here/prepare.sh" --data-root "$corpus" --limit "$limit" --stage 6 --vocoder-minutes "$vocoder_minutes" \
  --python "$python" >"$vocoder_log" 2>&1 &
vocoder_job=$!
trap 'kill "$vocoder_job" 2>/dev/null || true' EXIT
if [[ -f $model/.trained ]]; then
  echo "model: already trained"
else
  OMP_NUM_THREADS=1 "$scripts/train.sh" --data "$corpus" --save-dir "$model" --arch echostream_tiny --device cpu \
    --max-update "$model_updates" --save-every 250 --python "$python" -- --disable-validation
  touch "$model/.trained"
fi
echo "vocoder: waiting for its training to end (log in $vocoder_log)"
wait "$vocoder_job" || { tail -n 3 "$vocoder_log" >&2; die "the vocoder's training failed; the whole log is $vocoder_log"; }
trap - EXIT
# Evidence from so few sentences is rash: the policy waits for two more target tokens.
cat >"$model/model.yaml" <<'SETTINGS'
checkpoint: checkpoint_last.pt
vocoder: ../corpus/vocoder
source_lang: fr
target_lang: en
lag_k: 2
SETTINGS

echo "== 3/3  Live, through the SimulEval agent: what is heard, what is said, and when"
PYTHON=$python "$scripts/evaluate.sh" --model "$model" \
  --source "$corpus/simuleval/source.txt" --target "$corpus/simuleval/target.txt" \
  --output "$work/results" --segments "$segments" --live
echo "The spoken translations are in $work/results/segment_*ms/wavs; all figures in $work/results/results.json"
echo "Your own voice: echostream translate RECORDING --model $model"
