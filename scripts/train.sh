#!/usr/bin/env bash
# Train EchoStream with fairseq. Interrupt and start again at will: it goes on from checkpoint_last.pt.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: train.sh --data DIR --save-dir DIR [options] [-- fairseq-train options]
  --data DIR             train.tsv, config_gcmvn.yaml, config_multitask.yaml and, for validation, dev.tsv
  --save-dir DIR         checkpoints and train.log are written here
  --arch NAME            echostream, echostream_small, echostream_tiny ... (default echostream_tiny)
  --config FILE          fairseq-train options, one to a line (default configs/fr-en/ARCH.args)
  --max-minutes M        stop after M minutes of training in all, resumed runs included (default: no limit)
  --max-update N         stop after N updates (default: no limit; one of the two limits is needed)
  --max-tokens N         source frames of 10 ms in a batch on each device (default 1500 on a CPU, 20000 on a GPU)
  --segment-sizes LIST   frames of 40 ms, 0 for the whole utterance, or uniform (default: the config's)
  --save-every N         updates between checkpoints, validated when there is a dev.tsv (default 500)
  --device cpu|cuda      default: cuda where there is a GPU
  --num-gpus N           GPUs to train on (default 1)
  --python PATH          interpreter to use (default: python)
All fairseq-train options, EchoStream's own included: python scripts/train_options.py
USAGE
}
fail() { echo "error: $*" >&2; exit 2; }

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
data="" save_dir="" arch=echostream_tiny config="" max_minutes="" max_update="" max_tokens="" segment_sizes=""
save_every=500 device="" num_gpus=1 python=python
extra=()

while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --) shift; extra=("$@"); break ;;
    --*) [[ $# -ge 2 ]] || fail "$1 needs a value" ;;&
    --data) data="$2" ;;
    --save-dir) save_dir="$2" ;;
    --arch) arch="$2" ;;
    --config) config="$2" ;;
    --max-minutes) max_minutes="$2" ;;
    --max-update) max_update="$2" ;;
    --max-tokens) max_tokens="$2" ;;
    --segment-sizes) segment_sizes="$2" ;;
    --save-every) save_every="$2" ;;
    --device) device="$2" ;;
    --num-gpus) num_gpus="$2" ;;
    --python) python="$2" ;;
    *) fail "unknown option $1 (see --help; options for fairseq-train come after --)" ;;
  esac
  shift 2
done
[[ -n "$data" && -n "$save_dir" ]] || fail "--data and --save-dir are needed (see --help)"
[[ -n "$max_minutes$max_update" ]] || fail "say when to stop: --max-minutes or --max-update"
[[ -d "$data" ]] || fail "--data $data: no such folder"
for number in "$max_minutes" "$max_update" "$max_tokens" "$save_every" "$num_gpus"; do
  [[ "$number" =~ ^([0-9]+)?$ && "$number" != 0 ]] || fail "$number is not a positive whole number"
done
if [[ -z "$config" ]]; then
  config="$repository/configs/fr-en/$arch.args"
  [[ -f "$config" ]] || config="$repository/configs/fr-en/echostream.args"
fi
[[ -f "$config" ]] || fail "--config $config: no such file"
[[ "$device" =~ ^(cpu|cuda)?$ ]] || fail "--device $device: cpu or cuda"
# shellcheck source=scripts/common/require_packages.sh
source "$repository/scripts/common/require_packages.sh"
require_packages "$python" torch torchaudio fairseq
[[ -n "$device" ]] || device="$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')"

case "$device" in
  # A CPU has enough to do: no half precision, no worker processes; small batches learn most for the work.
  cpu) [[ "$num_gpus" == 1 ]] || fail "--num-gpus $num_gpus needs --device cuda"
    hardware=(--cpu --num-workers 0 --max-tokens "${max_tokens:-1500}")
    # Threads that wait without spinning: on a busy machine spinning makes training many times slower.
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" ;;
  # Mixed precision, not --fp16 or --bf16: those would round the feature normalisation in the checkpoint.
  cuda) hardware=(--amp --num-workers 4 --max-tokens "${max_tokens:-20000}") ;;
esac
hardware+=(--distributed-world-size "$num_gpus")

options=()
while read -r line; do
  [[ -z "$line" || "$line" == \#* ]] || { read -r -a words <<<"$line"; options+=("${words[@]}"); }
done <"$config"
[[ -z "$segment_sizes" ]] || options+=(--segment-sizes "$segment_sizes")
[[ -z "$max_update" ]] || options+=(--max-update "$max_update")
# A decaying rate ends where the training ends.
[[ -z "$max_update" || " ${options[*]} " != *" polynomial_decay "* ]] || options+=(--total-num-update "$max_update")
[[ -z "$max_minutes" ]] || options+=(--stop-time-hours "$("$python" -c "print($max_minutes / 60)")")
if [[ -f "$data/dev.tsv" ]]; then
  options+=(--valid-subset dev --validate-interval 1000000 --validate-interval-updates "$save_every")
else
  options+=(--disable-validation)
fi

mkdir -p "$save_dir"
log="$save_dir/train.log"
echo "training $arch on $device; the full log is $log"
# Epochs of a small corpus are seconds long: checkpoints follow the updates instead.
"$python" -u -m fairseq_cli.train "$data" --user-dir "$repository/echostream" --save-dir "$save_dir" \
  --task echostream --criterion echostream_multitask --arch "$arch" "${hardware[@]}" \
  --required-batch-size-multiple 1 --log-format simple --log-interval 20 --no-epoch-checkpoints \
  --save-interval 1000000 --save-interval-updates "$save_every" --keep-interval-updates 5 \
  "${options[@]}" "${extra[@]}" 2>&1 | tee -a "$log" |
  "$python" -u "$repository/scripts/train_progress.py" --max-update "${max_update:-0}" --max-minutes "${max_minutes:-0}" ||
  { echo "error: training stopped; see the end of $log" >&2; exit 1; }
