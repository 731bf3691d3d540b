# shellcheck shell=bash
# Whatever is run from here on may import the package "scripts".
PYTHONPATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH

# require_packages PYTHON NAME ...: stop with one line if a package can't be found, without the time it takes to import it.
require_packages() {
  command -v "$1" >/dev/null || { echo "error: no such interpreter: $1" >&2; exit 1; }
  "$1" -c '
import sys
from importlib.util import find_spec
missing = [name for name in sys.argv[1:] if find_spec(name) is None]
if missing:
    extras = {"submitit": "cluster", "hydra_plugins": "cluster", "tensorboard": "tensorboard", "simuleval": "eval"}
    extra = extras.get(missing[0], "train,eval,data")
    sys.exit(f"error: the package {missing[0]} is missing: pip install -e \".[{extra}]\", or use the virtual environment of make test")
' "${@:2}" || exit 1
}
