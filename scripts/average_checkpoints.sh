#!/usr/bin/env bash
# Average checkpoints of one run:  average_checkpoints.sh --save-dir DIR [--last 5] [--output FILE]
#                             or:  average_checkpoints.sh [--output FILE] CHECKPOINT... [--weights W...] [--keep PART...]
# PYTHON names the interpreter (default: python).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/recipes/require_packages.sh
source "$here/recipes/require_packages.sh"
require_packages "${PYTHON:-python}" torch fairseq
exec "${PYTHON:-python}" "$here/training/average_checkpoints.py" "$@"
