# shellcheck shell=bash
# What all data recipes share: options, stages, resuming, shards, jobs on a cluster. To be sourced.
#
#   set -euo pipefail
#   source scripts/recipes/recipe.sh
#   usage() { ...; }                              # the recipe's own options and stages; --help adds the standard ones
#   declare -A options=([limit]=0 [vocab-size]=200)   # own options and their defaults; each becomes a variable (vocab_size)
#   flags=(text-targets)                          # own options without a value; each becomes true or false
#   last_stage=5
#   recipe_options "$@"                           # --data-root, --stage ... become data_root, stage ...
#   require_packages "$python" numpy soundfile
#   if runs 1 "texts"; then
#     once NAME --inputs A B --outputs C -- "$python" tool.py ...    # recorded; done again only if something changed
#     plain "$python" tool.py ...                                    # finds out by itself what is done
#     sharded "$python" tool.py ...     # the same, and takes --num-shards N --shard I --jobs J
#   fi
#
# Write "if runs", not "runs && ...": the latter makes a recipe that stops before its last stage exit with 1.
# plain and sharded take --counts first if the tool has an option --dry-run of its own that tells how much is left.

scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
repository="$(cd "$scripts/.." && pwd)"
# shellcheck source=scripts/recipes/require_packages.sh
source "$scripts/recipes/require_packages.sh"

standard_usage() {
  cat <<'HELP'
options of every recipe
  --data-root DIR        everything is written here
  --stage N              first stage to run (default 1)
  --stop-stage N         last stage to run (default: the last)
  --jobs N               processes, one thread each (default: number of processors; with --submit 1 a shard)
  --dry-run              only list what would be done and what is done already
  --num-shards N         divide the long stages into N parts (default 1)
  --shard I              of those, do only part I (0 to N-1): one machine's share. Stages that cannot be divided are
                         left to a run without --shard
  --submit WHERE         give each shard to submitit as a job and wait for it: local or slurm
  --submit-options LIST  for submitit: key=value pairs separated by spaces, or a JSON file, e.g.
                         "slurm_partition=cpu cpus_per_task=4 timeout_min=600"
  --python PATH          interpreter to use (default: python)
HELP
}

die() { echo "error: $*" >&2; exit 2; }

is_count() { [[ "$1" =~ ^(0|[1-9][0-9]{0,17})$ ]]; }

# is_between VALUE MIN [MAX]
is_between() { is_count "$1" && (($1 >= $2 && $1 <= ${3:-$1})); }

# recipe_options "$@": parse the command line into variables, check the standard options, make the data root.
recipe_options() {
  declare -gA options
  declare -ga flags
  data_root="" stage=1 stop_stage="${last_stage:=99}" jobs="" dry_run=false
  num_shards=1 shard="" submit="" submit_options="" python=python
  local name
  for name in "${!options[@]}"; do printf -v "${name//-/_}" '%s' "${options[$name]}"; done
  for name in "${flags[@]}"; do printf -v "${name//-/_}" false; done
  while (($#)); do
    name="${1#--}"
    case "$1" in
      -h | --help) usage; echo; standard_usage; exit 0 ;;
      --dry-run) dry_run=true; shift; continue ;;
      --data-root | --stage | --stop-stage | --jobs | --num-shards | --shard | --submit | --submit-options | --python) ;;
      --?*)
        if [[ " ${flags[*]} " == *" $name "* ]]; then
          printf -v "${name//-/_}" true
          shift
          continue
        fi
        [[ "$name" =~ ^[a-z][a-z0-9-]*$ && -v "options[$name]" ]] || die "unknown option $1 (see --help)"
        ;;
      *) die "unknown option $1 (see --help)" ;;
    esac
    # An empty value is meant; "--data-root --jobs" is a slip.
    [[ $# -ge 2 && "$2" != --* ]] || die "$1 needs a value (see --help)"
    printf -v "${name//-/_}" '%s' "$2"
    shift 2
  done

  [[ -n "$data_root" ]] || die "--data-root is missing (see --help)"
  # Written as an option, a folder that begins with a hyphen would be one.
  [[ "$data_root" != -* ]] || data_root="./$data_root"
  local range="a number from 1 to $last_stage"
  if ((last_stage == 99)); then range="a number from 1"; fi
  is_between "$stage" 1 "$last_stage" || die "--stage is $range, not '$stage'"
  is_between "$stop_stage" 1 "$last_stage" || die "--stop-stage is $range, not '$stop_stage'"
  ((stage <= stop_stage)) || die "--stage $stage comes after --stop-stage $stop_stage: nothing would be done"
  if [[ -z "$jobs" && -n "$submit" ]]; then jobs=1; fi
  [[ -n "$jobs" ]] || jobs="$(nproc)"
  is_between "$jobs" 1 || die "--jobs is a number from 1, not '$jobs'"
  is_between "$num_shards" 1 || die "--num-shards is a number from 1, not '$num_shards'"
  if [[ -n "$shard" ]]; then
    is_between "$shard" 0 $((num_shards - 1)) ||
      die "--shard is a number from 0 to $((num_shards - 1)) (with --num-shards $num_shards), not '$shard'"
  fi
  [[ "$submit" == "" || "$submit" == local || "$submit" == slurm ]] || die "--submit is local or slurm, not '$submit'"
  [[ -z "$submit_options" || -n "$submit" ]] || die "--submit-options needs --submit"
  if [[ -n "$submit" ]]; then require_packages "$python" submitit; fi
  if [[ -e "$data_root" && ! -d "$data_root" ]]; then die "--data-root $data_root is a file, not a folder"; fi
  if ! $dry_run; then
    mkdir -p "$data_root" || die "cannot make the folder $data_root; choose another --data-root"
  fi
  # Each process uses one thread; a recipe runs as many processes as asked.
  export OMP_NUM_THREADS=1
  trap 'echo "interrupted: the same command goes on from here" >&2; exit 130' INT
}

# required NAME ...: stop unless these own options were given.
required() {
  local name variable
  for name in "$@"; do
    variable="${name//-/_}"
    [[ -n "${!variable}" ]] || die "--$name is missing (see --help)"
  done
}

# counts NAME ...: stop unless these own options are whole numbers from 0.
counts() {
  local name variable
  for name in "$@"; do
    variable="${name//-/_}"
    is_count "${!variable}" || die "--$name is a whole number from 0, not '${!variable}'"
  done
}

# choice NAME VALUE ...: stop unless this own option has one of the values.
choice() {
  local variable="${1//-/_}" value
  for value in "${@:2}"; do [[ "${!variable}" != "$value" ]] || return 0; done
  die "--$1 is one of: ${*:2}; not '${!variable}'"
}

# runs N TITLE: whether stage N was asked for; says so if it is.
runs() {
  ((stage <= $1 && $1 <= stop_stage)) || return 1
  echo "stage $1: ${2:-}"
}

# Also under --shard: a part of a stage that cannot be divided.
_left_to_others() {
  [[ -n "$shard" ]] || return 1
  echo "$1: not divided into shards; left to a run without --shard"
}

_say() { printf 'would run:'; printf ' %q' "$@"; echo; }

once() {
  if _left_to_others "$1"; then return; fi
  local mode=()
  if $dry_run; then mode=(--dry-run); fi
  "$python" "$scripts/recipes/run_once.py" "${mode[@]}" --data-root "$data_root" --name "$@"
}

plain() {
  local can_count=false
  if [[ "$1" == --counts ]]; then can_count=true; shift; fi
  if $dry_run; then
    if $can_count; then "$@" --dry-run; else _say "$@"; fi
    return
  fi
  # The second word is the tool, the first its interpreter.
  if _left_to_others "$(basename -- "${2:-$1}")"; then return; fi
  "$@"
}

sharded() {
  local can_count=false part
  if [[ "$1" == --counts ]]; then can_count=true; shift; fi
  if $dry_run; then
    local share=()
    if [[ -n "$shard" ]]; then share=(--num-shards "$num_shards" --shard "$shard"); fi
    if $can_count; then "$@" "${share[@]}" --dry-run; else _say "$@" "${share[@]}" --jobs "$jobs"; fi
  elif [[ -n "$submit" ]]; then
    local only=()
    if [[ -n "$shard" ]]; then only=(--shard "$shard"); fi
    "$python" "$scripts/recipes/submit.py" --where "$submit" --options "$submit_options" --logs "$data_root/jobs" \
      --num-shards "$num_shards" "${only[@]}" --jobs "$jobs" -- "$@"
  elif [[ -n "$shard" ]]; then
    "$@" --num-shards "$num_shards" --shard "$shard" --jobs "$jobs"
  else
    for ((part = 0; part < num_shards; part++)); do
      "$@" --num-shards "$num_shards" --shard "$part" --jobs "$jobs"
    done
  fi
}
