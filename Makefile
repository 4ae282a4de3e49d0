# What people do with procd. No logic here: programs and settings live where they are used.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run dev fmt check browser test bench screenshots smoke clean

run: $(BIN)/procd  ## install procd into .venv and start it on 127.0.0.1:2280
	$(BIN)/procd serve $(ARGS)

$(BIN)/procd: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

dev: $(VENV)/.dev  ## install the development tools and the official SDK as well

$(VENV)/.dev: $(BIN)/procd
	$(BIN)/pip install --quiet --editable '.[dev,compat,web]'
	touch $@

fmt: dev  ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: dev  ## formatting, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

browser: dev  ## the browser for the tests of the web terminal, which are skipped without one
	-PYTHON=$(BIN)/python scripts/get-chromium.sh

test: check browser  ## install and pass all tests
	$(BIN)/python -m pytest $(ARGS)
	$(BIN)/python -m tests.daemon.smoke $(BIN)/procd

bench: dev  ## measure, beside the floors
	$(BIN)/python -m bench $(ARGS)

screenshots: browser  ## take the pictures of the web terminal anew
	$(BIN)/python -m tests.web.screenshots docs/screenshots

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
