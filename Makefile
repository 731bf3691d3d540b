# Everything runs in a virtual environment of the checkout's own. PYTHON is any Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := echostream agent scripts tests setup.py

.PHONY: demo serve test test-fast lint format clean

demo: $(READY)
	scripts/demo.sh --python $(CURDIR)/$(BIN)/python --work runs/demo

# The model that `make demo` has trained, in a browser.
serve: $(READY)
	@test -f runs/demo/model/checkpoint_last.pt || { echo "error: there is no model yet: run 'make demo' first" >&2; exit 1; }
	$(BIN)/echostream serve --model runs/demo/model/checkpoint_last.pt --vocoder runs/demo/corpus/vocoder \
	  --lag-k 2 --source-lang fr --target-lang en

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

# Unit tests only: seconds to a few minutes.
test-fast: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not integration"

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	git ls-files -z '*.sh' .ci/run | xargs -0 $(BIN)/shellcheck

format: $(READY)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

$(READY): setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else f"error: Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	@echo "Installing into $(VENV) (4.6 GB, 1 to 3 minutes) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "error: 'python -m venv' failed; on Debian install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable '.[data,eval,dev]' || { \
	  echo "error: the installation failed; bitarray, which simuleval needs, compiles C: on Debian install gcc and python3-dev" >&2; exit 1; }
	@touch $(READY)

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache
