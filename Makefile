# Everything runs in a virtual environment of the checkout's own. PYTHON is any Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two stamps: everything, for tests and recipes; and the little that the shipped model needs.
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.ready-demo
MODEL ?= models/fr-en
SEGMENTS ?= 320
SOURCES := echostream agent scripts tests setup.py .ci

.PHONY: demo serve model-is-there quickstart test test-fast lint audit format clean

# The shipped model on its samples, or on a recording or a folder of them: make demo INPUT="my talk.mp3"
# Names reach the script through the environment, so that no shell reads them.
demo serve model-is-there: export DEMO_MODEL := $(value MODEL)
demo: export DEMO_INPUT := $(value INPUT)
demo: export DEMO_SEGMENTS := $(value SEGMENTS)
demo: model-is-there $(DEMO_READY)
	@scripts/demo.sh --python "$(CURDIR)/$(BIN)/python" --model "$$DEMO_MODEL" --input "$$DEMO_INPUT" \
	  --segments "$$DEMO_SEGMENTS" --output runs/demo

# The same model in a browser.
serve: model-is-there $(DEMO_READY)
	$(BIN)/echostream serve --model "$$DEMO_MODEL"

model-is-there:
	@test -f "$$DEMO_MODEL/model.yaml" || { echo "error: there is no model in $$DEMO_MODEL, $$DEMO_MODEL/model.yaml is missing:" \
	  "models/fr-en comes with the repository, 'git checkout models' brings it back" >&2; exit 1; }

# A small model of one's own: data, training and translation in about 12 minutes.
quickstart: $(READY)
	scripts/quickstart/demo.sh --python $(CURDIR)/$(BIN)/python --work runs/quickstart

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

# Unit tests only: seconds to a few minutes.
test-fast: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not integration"

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	git ls-files -z '*.sh' .ci/run | xargs -0 $(BIN)/shellcheck

# Known vulnerabilities of what is installed here; asks the advisory service of the Python package index.
audit: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[audit]'
	$(BIN)/python .ci/audit.py

format: $(READY)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

$(READY): EXTRAS := data,eval,dev
$(DEMO_READY): EXTRAS := eval,serve
$(READY) $(DEMO_READY): setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else f"error: Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	@echo "Installing into $(VENV) (about 4.5 GB, 1 to 3 minutes) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "error: 'python -m venv' failed; on Debian install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]' || { \
	  echo "error: the installation failed; bitarray, which simuleval needs, compiles C: on Debian install gcc and python3-dev" >&2; exit 1; }
	@touch $@ $(DEMO_READY)

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache .mypy_cache
