#!/usr/bin/env bash
# Train EchoStream with fairseq, on one CPU, one GPU, several GPUs or several machines. Interrupt and start again at
# will: it goes on from checkpoint_last.pt.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: train.sh --data DIR --save-dir DIR [options] [-- fairseq-train options]
  --data DIR             train.tsv, config_gcmvn.yaml, config_multitask.yaml and, for validation, dev.tsv
  --save-dir DIR         checkpoints and train.log are written here
  --arch NAME            echostream, echostream_small, echostream_tiny ... (default echostream_tiny)
  --config FILE          fairseq-train options, one to a line (default configs/train/ARCH.args)
  --max-minutes M        stop after M minutes of training in all, resumed runs included (default: no limit)
  --max-update N         stop after N updates (default: no limit; one of the two limits is needed)
  --max-tokens N         source frames of 10 ms in a batch on each device (default 1500 on a CPU, 22000 on a GPU)
  --update-freq N        batches added up for an update on each device (default 1)
  --segment-sizes LIST   frames of 40 ms, 0 for the whole utterance, or uniform (default: the config's)
  --save-every N         updates between checkpoints, validated when there is a dev.tsv (default 500)
  --tensorboard          write tensorboard's event files to SAVE_DIR/tensorboard (pip install -e '.[tensorboard]')
  --python PATH          interpreter to use (default: python)
where it runs
  --device cpu|cuda      default: cuda where there is a GPU
  --precision NAME       amp, fp16, bf16 or fp32 (default amp on a GPU, fp32 on a CPU)
  --num-gpus N           GPUs to train on (default 1); with --launcher torchrun and --device cpu: processes
  --launcher NAME        spawn: one process a GPU, started by fairseq (default)
                         torchrun: the same by torchrun, on several machines too
                         slurm: a SLURM job, by fairseq-hydra-train and submitit (pip install -e '.[cluster]')
  --nodes N              machines (default 1); each runs this command, except with slurm, where one is enough
  --rendezvous HOST:PORT torchrun on several machines: where they find each other, the same on each
  --partition NAME       slurm: partition
  --hours H              slurm: time limit of a job, which is queued again until training is done (default 24)
All fairseq-train options, EchoStream's own included: python scripts/training/train_options.py
After -- with --launcher slurm: overrides of hydra, such as optimization.update_freq=[4] (configs/README.md).
USAGE
}
fail() { echo "error: $*" >&2; exit 2; }

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
data="" save_dir="" arch=echostream_tiny config="" max_minutes="" max_update="" max_tokens="" update_freq=""
segment_sizes="" save_every=500 tensorboard=false device="" precision="" num_gpus=1 launcher=spawn nodes=1
rendezvous="" partition="" hours=24 python=python
extra=()

while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --) shift; extra=("$@"); break ;;
    --tensorboard) tensorboard=true; shift; continue ;;
    --*) [[ $# -ge 2 ]] || fail "$1 needs a value" ;;&
    --data) data="$2" ;;
    --save-dir) save_dir="$2" ;;
    --arch) arch="$2" ;;
    --config) config="$2" ;;
    --max-minutes) max_minutes="$2" ;;
    --max-update) max_update="$2" ;;
    --max-tokens) max_tokens="$2" ;;
    --update-freq) update_freq="$2" ;;
    --segment-sizes) segment_sizes="$2" ;;
    --save-every) save_every="$2" ;;
    --device) device="$2" ;;
    --precision) precision="$2" ;;
    --num-gpus) num_gpus="$2" ;;
    --launcher) launcher="$2" ;;
    --nodes) nodes="$2" ;;
    --rendezvous) rendezvous="$2" ;;
    --partition) partition="$2" ;;
    --hours) hours="$2" ;;
    --python) python="$2" ;;
    *) fail "unknown option $1 (see --help; options for fairseq-train come after --)" ;;
  esac
  shift 2
done
[[ -n "$data" && -n "$save_dir" ]] || fail "--data and --save-dir are needed (see --help)"
[[ -n "$max_minutes$max_update" ]] || fail "say when to stop: --max-minutes or --max-update"
[[ -d "$data" ]] || fail "--data $data: no such folder"
for number in "$max_minutes" "$max_update" "$max_tokens" "$update_freq" "$save_every" "$num_gpus" "$nodes" "$hours"; do
  [[ "$number" =~ ^([0-9]+)?$ && "$number" != 0 ]] || fail "$number is not a positive whole number"
done
if [[ -z "$config" ]]; then
  config="$repository/configs/train/$arch.args"
  [[ -f "$config" ]] || config="$repository/configs/train/echostream.args"
fi
[[ -f "$config" ]] || fail "--config $config: no such file"
[[ "$device" =~ ^(cpu|cuda)?$ ]] || fail "--device $device: cpu or cuda"
[[ "$precision" =~ ^(amp|fp16|bf16|fp32)?$ ]] || fail "--precision $precision: amp, fp16, bf16 or fp32"
case "$launcher" in
  spawn) [[ "$nodes" == 1 ]] || fail "--nodes $nodes needs --launcher torchrun or slurm" ;;
  torchrun) [[ "$nodes" == 1 || "$rendezvous" =~ ^[^:]+:[0-9]+$ ]] || fail "--nodes $nodes needs --rendezvous HOST:PORT" ;;
  slurm)
    [[ -n "$max_update" && -z "$max_minutes" ]] || fail "--launcher slurm needs --max-update, not --max-minutes"
    [[ -n "$partition" ]] || fail "--launcher slurm needs --partition" ;;
  *) fail "--launcher $launcher: spawn, torchrun or slurm" ;;
esac
# shellcheck source=scripts/recipes/require_packages.sh
source "$repository/scripts/recipes/require_packages.sh"
require_packages "$python" torch torchaudio fairseq
[[ "$tensorboard" == false ]] || require_packages "$python" tensorboard

if [[ "$launcher" == slurm ]]; then
  require_packages "$python" submitit hydra_plugins
  hydra_config="$arch"
  [[ -f "$repository/configs/hydra/$arch.yaml" ]] || hydra_config=echostream
  overrides=("model._name=$arch" "task.data=$(realpath "$data")" "checkpoint.save_dir=$(realpath -m "$save_dir")"
    "common.user_dir=$repository/echostream" "optimization.max_update=$max_update"
    "checkpoint.save_interval_updates=$save_every" "hydra.launcher.partition=$partition"
    "hydra.launcher.nodes=$nodes" "hydra.launcher.gpus_per_node=$num_gpus"
    "hydra.launcher.timeout_min=$((60 * hours))" "distributed_training.distributed_world_size=$((nodes * num_gpus))")
  [[ -z "$max_tokens" ]] || overrides+=("dataset.max_tokens=$max_tokens")
  [[ -z "$update_freq" ]] || overrides+=("optimization.update_freq=[$update_freq]")
  [[ -z "$segment_sizes" ]] || overrides+=("task.segment_sizes='$segment_sizes'")
  [[ "$tensorboard" == false ]] || overrides+=("common.tensorboard_logdir=$(realpath -m "$save_dir")/tensorboard")
  case "$precision" in
    fp16 | bf16) overrides+=(common.amp=false "common.$precision=true") ;;
    fp32) overrides+=(common.amp=false) ;;
  esac
  [[ -f "$data/dev.tsv" ]] || overrides+=(dataset.disable_validation=true)
  echo "submitting $arch to SLURM; its logs are in $save_dir/hydra/.submitit"
  exec "$python" -m fairseq_cli.hydra_train --multirun --config-dir "$repository/configs/hydra" \
    --config-name "$hydra_config" run=slurm "${overrides[@]}" "${extra[@]}"
fi

[[ -n "$device" ]] || device="$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')"
world_size=$((nodes * num_gpus))
case "$device" in
  # A CPU has enough to do: no worker processes; small batches learn most for the work.
  cpu) [[ "$num_gpus" == 1 || "$launcher" == torchrun ]] ||
      fail "--num-gpus $num_gpus needs --device cuda, or --launcher torchrun for several processes"
    hardware=(--cpu --num-workers 0 --max-tokens "${max_tokens:-1500}" --distributed-backend gloo)
    precision="${precision:-fp32}"
    [[ "$precision" != fp16 ]] || hardware+=(--fp16-no-flatten-grads)
    # Threads that wait without spinning: on a busy machine spinning makes training many times slower.
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" ;;
  cuda) hardware=(--num-workers 4 --max-tokens "${max_tokens:-22000}")
    precision="${precision:-amp}" ;;
esac
[[ "$precision" == fp32 ]] || hardware+=("--$precision")
hardware+=(--distributed-world-size "$world_size" --update-freq "${update_freq:-1}")
# The simplest of fairseq's wrappers; it also copes with layers that layer drop skips on one process only.
[[ "$world_size" == 1 ]] || hardware+=(--ddp-backend legacy_ddp)

options=()
while read -r line; do
  [[ -z "$line" || "$line" == \#* ]] || { read -r -a words <<<"$line"; options+=("${words[@]}"); }
done <"$config"
[[ -z "$segment_sizes" ]] || options+=(--segment-sizes "$segment_sizes")
[[ -z "$max_update" ]] || options+=(--max-update "$max_update")
# A decaying rate ends where the training ends.
[[ -z "$max_update" || " ${options[*]} " != *" polynomial_decay "* ]] || options+=(--total-num-update "$max_update")
[[ -z "$max_minutes" ]] || options+=(--stop-time-hours "$("$python" -c 'import sys; print(float(sys.argv[1]) / 60)' "$max_minutes")")
[[ "$tensorboard" == false ]] || options+=(--tensorboard-logdir "$save_dir/tensorboard")
if [[ -f "$data/dev.tsv" ]]; then
  options+=(--valid-subset dev --validate-interval 1000000 --validate-interval-updates "$save_every")
else
  options+=(--disable-validation)
fi

command=("$python" -u -m fairseq_cli.train)
if [[ "$launcher" == torchrun ]]; then
  meeting=(--standalone)
  [[ "$nodes" == 1 ]] || meeting=(--rdzv-backend c10d --rdzv-endpoint "$rendezvous")
  # fairseq could read torchrun's variables itself, but only where there is a GPU.
  # shellcheck disable=SC2016  # expanded in each process
  command=("$python" -u -m torch.distributed.run "${meeting[@]}" --nnodes "$nodes" --nproc-per-node "$num_gpus"
    --no-python bash -c 'exec "$@" --distributed-init-method env:// --distributed-no-spawn \
      --distributed-rank "$RANK" --device-id "$LOCAL_RANK"' bash "${command[@]}")
fi

log="$save_dir/train.log"
{ mkdir -p "$save_dir" && : >>"$log"; } 2>/dev/null || fail "--save-dir $save_dir can't be written to; choose another"
echo "training $arch on $device ($precision, $world_size process$([[ "$world_size" == 1 ]] || echo es)); the full log is $log"
# Epochs of a small corpus are seconds long: checkpoints follow the updates instead.
"${command[@]}" "$data" --user-dir "$repository/echostream" --save-dir "$save_dir" \
  --task echostream --criterion echostream_multitask --arch "$arch" "${hardware[@]}" \
  --required-batch-size-multiple 1 --log-format simple --log-interval 20 --no-epoch-checkpoints \
  --save-interval 1000000 --save-interval-updates "$save_every" --keep-interval-updates 5 \
  "${options[@]}" "${extra[@]}" 2>&1 | tee -a "$log" |
  "$python" -u "$repository/scripts/training/train_progress.py" --max-update "${max_update:-0}" --max-minutes "${max_minutes:-0}" ||
  { echo "error: training stopped; see the end of $log" >&2; exit 1; }
