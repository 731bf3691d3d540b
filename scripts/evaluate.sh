#!/usr/bin/env bash
# Evaluate a model on a test set at one or more segment sizes: quality and latency in one table.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: scripts/evaluate.sh --model CHECKPOINT --vocoder VOCODER --source WAVS --target TEXT --output DIR [options]

  --model CHECKPOINT   checkpoint to evaluate, or folder with model.yaml (--random-arch ARCH instead: random weights, to try the recipe;
                       --cascade instead: Whisper base translates whole utterances and Hibari speaks;
                       --streaming-cascade: the same with every segment, where two hypotheses in a row agree)
  --vocoder VOCODER    unit vocoder, for speech output (default: the one beside the checkpoint)
  --source WAVS        list of 16 kHz mono sound files, one a line
  --target TEXT        reference translations (--task asr: transcripts), one a line
  --source-text TEXT   transcripts of the sources, one a line, to score what the model heard
  --first-word-ends F  end of the first word of each source in seconds, one a line (scripts/judging/word_ends.py
                       makes it), to count latency from there
  --output DIR         gets segment_Nms/ for each size (SimulEval's logs and sound), results.json, results.tsv
  --segments "40 320"  segment sizes in ms, 0 for the whole utterance at once (default: "40 320")
  --limit N            only the first N sources (default 0: all)
  --task TASK          s2st (default), s2tt or asr
  --policy, --policy-option, --stride-n, --lag-k, --right-context-frames, --user-dir, --least-language,
  --least-confidence, --max-tempo, --precision VALUE, and --vad    as for the agents
  --device DEVICE      cpu (default), cuda, ...
  --language LANG      language of the output speech (default: en)
  --source-language L  of the source, for --cascade (default: fr)
  --asr-model MODELS   read output speech back: base, tiny.en or a directory (default: the best installed). With
                       several ("base tiny.en") the others' scores end in @MODEL.
                       Don't take tiny.en alone for a model whose units were made with tiny.en: it would be too kind.
  --asr-compute TYPE   float32 (default) or int8, in which the recognisers calculate
  --asr-cache FILE     remembers what they read, for several evaluations (default: one for each segment size)
  --no-asr             don't read output speech back: quality is that of the model's own text
  --live               show what is heard and said as it comes
  --force              do finished segment sizes again

A segment size that is finished is skipped, so an interrupted evaluation goes on where it stopped.
HELP
}

die() { echo "error: $*" >&2; exit 1; }

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
# shellcheck source=scripts/judging/agent_options.sh
source "$repository/scripts/judging/agent_options.sh"
segments="40 320" task=s2st device=cpu language=en source_language=fr limit=0
model="" random_arch="" vocoder="" source="" target="" source_text="" first_word_ends="" output=""
asr_model="" asr_compute="float32" asr_cache="" no_asr="" cascade="" force=() live=()
agent_options=()

while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --force) force=(--force); shift; continue ;;
    --no-asr) no_asr=yes; shift; continue ;;
    --live) live=(--live /dev/fd/3); shift; continue ;;
    --vad) agent_options+=(--vad); shift; continue ;;
    --cascade | --streaming-cascade) cascade=$1; shift; continue ;;
    --model | --random-arch | --vocoder | --source | --target | --source-text | --first-word-ends | --output | \
    --segments | --limit | --task | --device | --language | --source-language | --asr-model | --asr-compute | \
    --asr-cache) ;;
    *) is_for_agents "$1" || die "unknown option $1; see scripts/evaluate.sh --help" ;;
  esac
  (($# > 1)) || die "$1 needs a value"
  if is_for_agents "$1"; then
    agent_options+=("$1" "$2")
  else
    name=${1#--}; printf -v "${name//-/_}" '%s' "$2"
  fi
  shift 2
done

if [[ -n $cascade ]]; then
  [[ -z $model$random_arch$vocoder ]] || die "$cascade has a model and a voice of its own: leave the others out"
  [[ $task == s2st ]] || die "$cascade is for the task s2st"
  [[ $cascade == --streaming-cascade ]] || segments=0
else
  [[ -n $model || -n $random_arch ]] || die "--model is missing; see scripts/evaluate.sh --help"
fi
for name in source target output; do
  [[ -n ${!name} ]] || die "--$name is missing; see scripts/evaluate.sh --help"
done
for name in source_text first_word_ends; do
  [[ -z ${!name} || -f ${!name} ]] || die "no such list: ${!name} (--${name//_/-})"
done
for segment in $segments; do
  [[ $segment =~ ^(0|[1-9][0-9]*)$ ]] || die "--segments takes milliseconds, got '$segment'"
  ((segment % 40 == 0)) || die "--segments takes multiples of 40 ms, got $segment"
done
[[ -n ${segments// /} ]] || die "--segments is empty"
[[ $limit =~ ^[0-9]+$ ]] || die "--limit takes a number, got '$limit'"
[[ $asr_compute =~ ^(float32|int8)$ ]] || die "--asr-compute is float32 or int8, not '$asr_compute'"

# shellcheck source=scripts/recipes/require_packages.sh
source "$repository/scripts/recipes/require_packages.sh"
require_packages "$python" torch simuleval soundfile

latency=(StartOffset EndOffset ATD LAAL AL)
[[ -z $first_word_ends ]] || latency+=(StartOffset_FirstWord)
metrics=("${latency[@]/#/ECHO_}")
metrics+=("${metrics[@]/%/_CA}")
quality=(ECHO_BLEU ECHO_chrF ECHO_WER)
scorer_options=()
case $task in
  s2st)
    agent=$repository/agent/speech_to_speech.echostream.agent.py
    read -r -a judges <<<"$asr_model"
    spoken=(ECHO_ASR_BLEU ECHO_ASR_BLEU_NoPause ECHO_ASR_chrF ECHO_ASR_WER ECHO_ASR_WER_OwnText)
    quality=("${spoken[@]}")
    for judge in "${judges[@]:1}"; do quality+=("${spoken[@]/%/@$judge}"); done
    scorer_options=(--target-speech-lang "$language" --asr-compute "$asr_compute")
    [[ -z $asr_model ]] || scorer_options+=(--asr-model "${judges[0]}")
    [[ -z $asr_cache ]] || scorer_options+=(--asr-cache "$asr_cache")
    [[ -z $no_asr ]] || quality=() scorer_options=()
    quality+=(ECHO_BLEU ECHO_chrF)
    metrics+=(ECHO_DiscontinuityNum ECHO_DiscontinuitySum ECHO_DiscontinuityNum_CA ECHO_DiscontinuitySum_CA)
    metrics+=(ECHO_SpokenLag ECHO_SpokenLagDrift ECHO_SpokenLag_CA ECHO_SpokenLagDrift_CA)
    ;;
  s2tt) agent=$repository/agent/speech_to_text.s2tt.echostream.agent.py ;;
  asr) agent=$repository/agent/speech_to_text.asr.echostream.agent.py ;;
  *) die "--task is s2st, s2tt or asr, not '$task'" ;;
esac
metrics+=(ECHO_RTF ECHO_StepP50 ECHO_StepP95)
if [[ -n $cascade ]]; then
  agent=$repository/scripts/judging/cascade_agent.py
  [[ $cascade == --cascade ]] || agent=$repository/scripts/judging/streaming_cascade_agent.py
  agent_options=(--source-language "$source_language")
else
  [[ $task == asr ]] || quality+=(ECHO_ST_Recall ECHO_ST_Precision)
  [[ $task == asr || -z $source_text ]] || quality+=(ECHO_SourceWER)
  agent_options+=(--device "$device")
fi
[[ " ${quality[*]} " != *" ECHO_SourceWER "* ]] || scorer_options+=(--source-text "$source_text")
[[ -z $first_word_ends ]] || scorer_options+=(--first-word-ends "$first_word_ends")

# What stands beside a checkpoint is named, so that a new one is noticed.
[[ -n $vocoder || ! -f $model || ! -d ${model%/*}/vocoder ]] || vocoder=${model%/*}/vocoder

[[ -z $model ]] || agent_options+=(--model-path "$model")
[[ -z $random_arch ]] || agent_options+=(--random-arch "$random_arch")
[[ -z $vocoder ]] || agent_options+=(--vocoder "$vocoder")

helper=$repository/scripts/judging/evaluation.py
"$python" "$helper" check --source "$source" --target "$target" --limit "$limit"
if ((limit)); then
  available=$(grep -c '' "$source")
  scorer_options+=(--end-index "$((limit < available ? limit : available))")
fi
settings=(--setting "model=$model$random_arch" --setting "vocoder=$vocoder" --setting "source=$source"
  --setting "target=$target" --setting "source text=$source_text" --setting "first word ends=$first_word_ends"
  --setting "limit=$limit" --setting "task=$task" --setting "device=$device" --setting "asr=$asr_model $asr_compute"
  --setting "language=$language" --setting "agent=${agent_options[*]}")
[[ -z $no_asr ]] || settings+=(--setting "asr=")
for segment in $segments; do
  run=$output/segment_${segment}ms
  size=(--source-segment-size "$segment")
  # The whole utterance in one push: an hour is more than any.
  ((segment)) || size=(--source-segment-size 3600000)
  ((segment)) || [[ -n $cascade ]] || size+=(--segment-ms 0)
  status=0
  "$python" "$helper" begin "$run" "${settings[@]}" "${force[@]}" || status=$?
  if ((status == 3)); then
    echo "segment $segment ms: finished before"
    continue
  fi
  resume=()
  ((status != 4)) || { resume=(--continue-unfinished); status=0; }
  ((status == 0)) || exit "$status"
  echo "segment $segment ms${resume:+, from where it stopped}"
  # What is shown live goes through a pipe: where stdout is a file, two writers would overwrite each other.
  "$python" -m echostream.evaluation --agent "$agent" "${agent_options[@]}" \
    --source "$source" --target "$target" "${size[@]}" "${resume[@]}" --output "$run" \
    --quality-metrics "${quality[@]}" "${scorer_options[@]}" --latency-metrics "${metrics[@]}" "${live[@]}" 3> >(cat) >"$run/simuleval.log" 2>&1 ||
    { grep '^error: ' "$run/simuleval.log" >&2 || tail -n 5 "$run/simuleval.log" >&2; die "segment $segment ms failed; the whole log is $run/simuleval.log"; }
done

# shellcheck disable=SC2086  # one argument a segment size
"$python" "$helper" table "$output" --segments $segments
