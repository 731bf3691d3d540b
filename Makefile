# Everything runs in a virtual environment of the checkout's own. PYTHON is any Python 3.11 or 3.12.
PYTHON ?= python3
# The scripts know a variable of this name, too: there it is the interpreter that has the packages.
unexport PYTHON
VENV := .venv
BIN := $(VENV)/bin
# Two stamps: everything, for tests and recipes; and the little that the shipped model needs.
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.ready-demo
MODEL ?= models/fr-en
SEGMENTS ?= 320
SOURCES := echostream agent scripts tests setup.py .ci
# What `make test-newest` makes: everything, and the light installation.
NEWEST := .venv-newest
NEWEST_LIGHT := .venv-newest-light
# What `make docs` builds the site with.
DOCS := .venv-docs
DOCS_READY := $(DOCS)/.ready
# `make lock`: uv, and nothing else. UPGRADE=1 takes newer releases than those that are pinned.
LOCKER := .venv-lock
UV_VERSION := 0.13.9

.PHONY: demo serve model-is-there quickstart test test-fast test-newest test-newest-light docs lint lock lock-check \
  audit format clean

# The shipped model on its samples, or on a recording or a folder of them: make demo INPUT="my talk.mp3"
# Names reach the script through the environment, so that no shell reads them.
demo serve model-is-there: export DEMO_MODEL := $(value MODEL)
demo: export DEMO_INPUT := $(value INPUT)
demo: export DEMO_SEGMENTS := $(value SEGMENTS)
demo: model-is-there $(DEMO_READY)
	@scripts/demo/demo.sh --python "$(CURDIR)/$(BIN)/python" --model "$$DEMO_MODEL" --input "$$DEMO_INPUT" \
	  --segments "$$DEMO_SEGMENTS" --output runs/demo

# The same model in a browser.
serve: model-is-there $(DEMO_READY)
	$(BIN)/echostream serve --model "$$DEMO_MODEL"

model-is-there:
	@test -f "$$DEMO_MODEL/model.yaml" || { echo "error: there is no model in $$DEMO_MODEL, $$DEMO_MODEL/model.yaml is missing:" \
	  "models/fr-en comes with the repository, 'git checkout models' brings it back" >&2; exit 1; }

# A small model of one's own: data, training and translation in about 12 minutes.
quickstart: $(READY)
	scripts/recipes/quickstart/demo.sh --python $(CURDIR)/$(BIN)/python --work runs/quickstart

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

# Unit tests only: seconds to a few minutes.
test-fast: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not integration"

# The unit tests with the newest releases that the bounds of pyproject.toml allow, and no locks. The extra `train` holds
# torch at one release, so what needs no training is tried with the newest torch as well.
test-newest: test-newest-light
	@$(call make-venv,$(NEWEST))
	$(NEWEST)/bin/python -m pip install --quiet --upgrade pip
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager \
	  --editable '.[train,eval,data,serve,onnx,cluster,tensorboard,dev]'
	$(NEWEST)/bin/python -m pip list
	$(NEWEST)/bin/python -m pytest -n auto --dist loadfile -m "not integration"

test-newest-light:
	@$(call make-venv,$(NEWEST_LIGHT))
	$(NEWEST_LIGHT)/bin/python -m pip install --quiet --upgrade pip
	$(NEWEST_LIGHT)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[serve]' \
	  'pytest>=8,<9' 'pytest-timeout>=2.3,<3'
	$(NEWEST_LIGHT)/bin/python -m pip list
	$(NEWEST_LIGHT)/bin/python -m pytest tests/light

# The documentation as a site, build/site/index.html. Strict: a link or an anchor that leads nowhere ends the build.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --site-dir build/site
	@echo "the site is in build/site; $(DOCS)/bin/mkdocs serve shows it while it is being written"

$(DOCS_READY): requirements/docs.txt requirements/installer.txt
	@$(call make-venv,$(DOCS))
	@$(DOCS)/bin/python -m pip install --quiet --require-hashes -r requirements/installer.txt
	@$(DOCS)/bin/python -m pip install --quiet --require-hashes -r requirements/docs.txt
	@touch $@

lint: $(READY) lock-check
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	git ls-files -z '*.sh' .ci/run | xargs -0 $(BIN)/shellcheck
	$(BIN)/hadolint Dockerfile

# Pins and hashes of requirements/ from pyproject.toml; needed whenever its requirements change.
lock:
	@$(call make-venv,$(LOCKER))
	@$(LOCKER)/bin/python -m pip install --quiet uv==$(UV_VERSION)
	.ci/lock.sh $(LOCKER)/bin/uv

lock-check: $(READY)
	$(BIN)/python .ci/check_lock.py

# Known vulnerabilities of what is installed here; asks the advisory service of the Python package index. In CI with
# AUDIT=--skip-unreachable, since a run must not depend on whether somebody answers.
audit: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[audit]' || test '$(AUDIT)' = --skip-unreachable
	$(BIN)/python .ci/audit.py $(AUDIT)

format: $(READY)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# make-venv FOLDER
define make-venv
$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else f"error: Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")' && \
  { $(PYTHON) -m venv $(1) || { echo "error: 'python -m venv' failed; on Debian install python3-venv" >&2; exit 1; }; }
endef

# Exactly the files that requirements/ names by their hashes, what builds packages included; then EchoStream itself,
# for which nothing is fetched any more.
$(READY): LOCK := requirements/all.txt
$(READY): SIZE := 6.5
$(DEMO_READY): LOCK := requirements/demo.txt
$(DEMO_READY): SIZE := 5.6
$(READY): requirements/all.txt
$(DEMO_READY): requirements/demo.txt
$(READY) $(DEMO_READY): pyproject.toml requirements/install.sh requirements/installer.txt requirements/build.txt
	@$(call make-venv,$(VENV))
	@echo "Installing into $(VENV) (about $(SIZE) GB, 2 to 6 minutes) ..."
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/installer.txt
	@requirements/install.sh $(BIN)/python $(LOCK) --build-constraint requirements/build.txt || { \
	  echo "error: the installation failed, see above; if it was bitarray, which simuleval needs and which compiles C: on Debian install gcc and python3-dev" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
	@touch $@ $(DEMO_READY)

clean:
	rm -rf $(VENV) $(NEWEST) $(NEWEST_LIGHT) $(DOCS) $(LOCKER) runs build *.egg-info .pytest_cache .ruff_cache .mypy_cache
