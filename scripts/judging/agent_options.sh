# shellcheck shell=bash
# Which options of evaluate.sh and evaluate_long.sh go to the agents as they are. To be sourced.

# Whether $1 is such an option with a value.
is_for_agents() {
  local options="policy|policy-option|stride-n|lag-k|right-context-frames|user-dir|least-language|least-confidence"
  [[ $1 =~ ^--($options|max-tempo|precision)$ ]]
}
