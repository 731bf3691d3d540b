#!/usr/bin/env bash
# make lock: pins and hashes of requirements/*.txt from pyproject.toml, for Python 3.11 and 3.12 on Linux x86-64.
# Pins that still fit are kept. UPGRADE=1 takes the newest releases that the bounds allow instead.
# usage: .ci/lock.sh UV   (the uv to use, with a Python 3.11 or later in the same folder)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $# -eq 1 ]] || { echo "usage: .ci/lock.sh UV" >&2; exit 2; }
uv=$1

# Settings of this machine must not show in the result: only those of pyproject.toml count.
settings=$(mktemp -d)
trap 'rm -rf "$settings"' EXIT
for name in $(compgen -e UV_ || true); do
  [[ $name == UV_CACHE_DIR ]] || unset "$name"
done
export XDG_CONFIG_HOME=$settings XDG_CONFIG_DIRS=$settings

# compile NAME OPTION...: requirements/NAME.txt. All pins are for these environments only, which uv repeats on every
# line; without the repetition pip fails on another platform, instead of installing nothing there.
environments=" ; python_full_version < '3.13' and platform_machine == 'x86_64' and sys_platform == 'linux'"
compile() {
  local output="requirements/$1.txt"
  "$uv" pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
    --custom-compile-command "make lock" ${UPGRADE:+--upgrade} --output-file "$output" "${@:2}"
  sed -i "s/$environments//" "$output"
}

compile installer requirements/installer.in
compile build requirements/build.in --constraint requirements/installer.txt
compile all pyproject.toml --extra dev --constraint requirements/build.txt
compile demo pyproject.toml --extra eval --extra serve --constraint requirements/all.txt

# The light installation: everything but torch, and what torch's builds for CUDA bring. Pins are those of all.txt as
# far as the newer torch allows.
cp requirements/all.txt requirements/inference-cpu.txt
UPGRADE='' compile inference-cpu pyproject.toml requirements/torch-cpu.txt --extra serve
mapfile -t left_out < <(grep -oE '^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==' requirements/inference-cpu.txt | tr -d =)
UPGRADE='' compile inference-cpu pyproject.toml requirements/torch-cpu.txt --extra serve \
  "${left_out[@]/#/--no-emit-package=}"

# The documentation: the extra alone, for which nothing of the package itself is installed.
"$(dirname "$uv")/python" -c 'import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"]["docs"], sep="\n")' > "$settings/docs.in"
compile docs "$settings/docs.in" --constraint requirements/all.txt --constraint requirements/build.txt --no-annotate
wc -l requirements/*.txt
