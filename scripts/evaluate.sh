#!/usr/bin/env bash
# Evaluate a model on a test set at one or more segment sizes: quality and latency in one table.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: scripts/evaluate.sh --model CHECKPOINT --vocoder VOCODER --source WAVS --target TEXT --output DIR [options]

  --model CHECKPOINT   checkpoint to evaluate (--random-arch ARCH instead: random weights, to try the recipe)
  --vocoder VOCODER    unit vocoder, for speech output
  --source WAVS        list of 16 kHz mono sound files, one a line
  --target TEXT        reference translations (--task asr: transcripts), one a line
  --output DIR         gets segment_Nms/ for each size (SimulEval's logs and sound), results.json, results.tsv
  --segments "40 320"  segment sizes in ms (default: "40 320")
  --task TASK          s2st (default), s2tt or asr
  --policy, --stride-n, --lag-k, --right-context-frames VALUE    as for the agents
  --device DEVICE      cpu (default), cuda, ...
  --language LANG      language of the output speech (default: en)
  --asr-model MODEL    reads output speech back: base, tiny.en or a directory (default: the best installed).
                       Don't take tiny.en for a model whose units were made with tiny.en: it would be too kind.
  --live               show what is heard and said as it comes
  --force              do finished segment sizes again

A segment size that is finished is skipped, so an interrupted evaluation goes on where it stopped.
HELP
}

die() { echo "error: $*" >&2; exit 1; }

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
segments="40 320" task=s2st device=cpu language=en
model="" random_arch="" vocoder="" source="" target="" output="" asr_model="" force=() live=()
agent_options=(--policy alignment)

while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --force) force=(--force); shift; continue ;;
    --live) live=(--live /dev/fd/3); shift; continue ;;
    --model | --random-arch | --vocoder | --source | --target | --output | --segments | --task | --policy | \
    --stride-n | --lag-k | --right-context-frames | --device | --language | --asr-model) ;;
    *) die "unknown option $1; see scripts/evaluate.sh --help" ;;
  esac
  (($# > 1)) || die "$1 needs a value"
  case $1 in
    --policy | --stride-n | --lag-k | --right-context-frames) agent_options+=("$1" "$2") ;;
    *) name=${1#--}; printf -v "${name//-/_}" '%s' "$2" ;;
  esac
  shift 2
done

[[ -n $model || -n $random_arch ]] || die "--model is missing; see scripts/evaluate.sh --help"
for name in source target output; do
  [[ -n ${!name} ]] || die "--$name is missing; see scripts/evaluate.sh --help"
done
for segment in $segments; do
  [[ $segment =~ ^[1-9][0-9]*$ ]] || die "--segments takes milliseconds, got '$segment'"
  ((segment % 40 == 0)) || die "--segments takes multiples of 40 ms, got $segment"
done
[[ -n ${segments// /} ]] || die "--segments is empty"

# shellcheck source=scripts/common/require_packages.sh
source "$repository/scripts/common/require_packages.sh"
require_packages "$python" torch torchaudio fairseq simuleval soundfile

latency=(StartOffset EndOffset ATD LAAL AL)
metrics=("${latency[@]/#/ECHO_}")
metrics+=("${metrics[@]/%/_CA}")
quality=(ECHO_BLEU ECHO_chrF ECHO_WER)
asr_options=()
case $task in
  s2st)
    agent=speech_to_speech.echostream.agent.py
    quality=(ECHO_ASR_BLEU ECHO_ASR_BLEU_NoPause ECHO_ASR_chrF ECHO_ASR_WER ECHO_ASR_WER_OwnText ECHO_BLEU ECHO_chrF)
    metrics+=(ECHO_DiscontinuityNum ECHO_DiscontinuitySum ECHO_DiscontinuityNum_CA ECHO_DiscontinuitySum_CA)
    asr_options=(--target-speech-lang "$language")
    [[ -z $asr_model ]] || asr_options+=(--asr-model "$asr_model")
    ;;
  s2tt) agent=speech_to_text.s2tt.echostream.agent.py ;;
  asr) agent=speech_to_text.asr.echostream.agent.py ;;
  *) die "--task is s2st, s2tt or asr, not '$task'" ;;
esac
metrics+=(ECHO_RTF ECHO_StepP50 ECHO_StepP95)

if [[ -n $model ]]; then agent_options+=(--model-path "$model"); else agent_options+=(--random-arch "$random_arch"); fi
[[ -z $vocoder ]] || agent_options+=(--vocoder "$vocoder")

helper=$repository/scripts/common/evaluation.py

"$python" "$helper" check --source "$source" --target "$target"
settings=(--setting "model=$model$random_arch" --setting "vocoder=$vocoder" --setting "source=$source"
  --setting "target=$target" --setting "task=$task" --setting "device=$device" --setting "asr=$asr_model"
  --setting "language=$language" --setting "agent=${agent_options[*]}")

for segment in $segments; do
  run=$output/segment_${segment}ms
  status=0
  "$python" "$helper" begin "$run" "${settings[@]}" "${force[@]}" || status=$?
  if ((status == 3)); then
    echo "segment $segment ms: finished before"
    continue
  fi
  ((status == 0)) || exit "$status"
  echo "segment $segment ms"
  # What is shown live goes through a pipe: where stdout is a file, two writers would overwrite each other.
  "$python" -m echostream.simuleval --agent "$repository/agent/$agent" "${agent_options[@]}" --device "$device" \
    --source "$source" --target "$target" --source-segment-size "$segment" --output "$run" \
    --quality-metrics "${quality[@]}" "${asr_options[@]}" --latency-metrics "${metrics[@]}" "${live[@]}" 3> >(cat) >"$run/simuleval.log" 2>&1 ||
    { tail -n 5 "$run/simuleval.log" >&2; die "segment $segment ms failed; the whole log is $run/simuleval.log"; }
done

# shellcheck disable=SC2086  # one argument a segment size
"$python" "$helper" table "$output" --segments $segments
