# What people do with procd. No logic here: programs and settings live where they are used.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
JOBS ?= 3
DIST ?= dist
OF_MAKE := MAKEFLAGS MFLAGS MAKELEVEL MAKE_TERMOUT MAKE_TERMERR ARGS PYTHON VENV
PREFIX ?= /opt/procd
BINDIR ?= /usr/local/bin
UNITDIR ?= /etc/systemd/system
CONFDIR ?= /etc/procd
PURGE ?=
SOURCES := LICENSE README.md procd pyproject.toml setup.cfg

.PHONY: run dev fmt check programs test fuzz bench screenshots dist install uninstall clean

# What procd runs inherits its environment: a make there would take these for its own.
run: $(BIN)/procd  ## install procd into .venv and start it on 127.0.0.1:2280
	env $(OF_MAKE:%=-u %) $(BIN)/procd serve $(ARGS)

$(BIN)/procd: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

dev: $(VENV)/.dev  ## install the development tools, the official SDK and matplotlib as well

$(VENV)/.dev: $(BIN)/procd
	$(BIN)/pip install --quiet --editable '.[dev,compat,charts,deploy,fuzz,web]'
	touch $@

fmt: dev  ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: dev  ## formatting, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

programs: dev  ## the programs that tests drive, a browser and other shells; without one, some are skipped
	-PYTHON=$(BIN)/python scripts/get-programs.sh

# Most tests wait for something, so a few files are run side by side.
test: check programs  ## install and pass all tests
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)
	$(BIN)/python -m tests.daemon.smoke $(BIN)/procd
	PYTHON=$(BIN)/python scripts/test-other-pythons.sh

fuzz: dev  ## send many requests made from the API's description; FUZZ_EXAMPLES for each route
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),500) $(BIN)/python -m pytest tests/fuzz $(ARGS)

bench: dev  ## measure, beside the floors
	$(BIN)/python -m bench $(ARGS)

screenshots: programs  ## take the pictures of the web terminal anew
	$(BIN)/python -m tests.web.screenshots docs/screenshots

dist: dev  ## as root on Debian: build sdist, wheel, bundle and .deb into DIST
	$(BIN)/python -m build --quiet --outdir $(DIST)
	packaging/bundle.sh $(DIST)
	packaging/deb.sh $(DIST)

# For everybody to run, whatever root's umask; from a copy, for what pip leaves in its sources would be
# in the user's way, and what it left there earlier would be packed again.
install:  ## as root: install procd, its units and, if there is none, its configuration
	@test -e $(PREFIX)/pyvenv.cfg || test -z "$$(ls -A $(PREFIX) 2>/dev/null)" \
	|| { echo 'PREFIX=$(PREFIX) has files of others, which make uninstall would remove' >&2; false; }
	umask 022; $(PYTHON) -m venv $(PREFIX)
	umask 022; copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT INT TERM \
	&& cp -R $(SOURCES) "$$copy" && $(PREFIX)/bin/pip install --quiet "$$copy"
	$(PREFIX)/bin/pip uninstall -qq --yes setuptools pip
	install -d $(BINDIR)
	ln -sf $(PREFIX)/bin/procd $(BINDIR)/procd
	install -D -m 644 -t $(UNITDIR) systemd/procd.service systemd/procd.socket
	sed -i 's|/usr/local/bin/procd|$(BINDIR)/procd|; s|/etc/procd/|$(CONFDIR)/|' $(UNITDIR)/procd.service
	test -e $(CONFDIR)/config.toml || install -D -m 640 config.example.toml $(CONFDIR)/config.toml
	test ! -d /run/systemd/system || systemctl daemon-reload

uninstall:  ## as root: undo make install, but for the configuration; with PURGE=1, that too
	test ! -d /run/systemd/system || test ! -e $(UNITDIR)/procd.service \
	|| systemctl disable --now procd.socket procd.service
	rm -f $(BINDIR)/procd $(UNITDIR)/procd.service $(UNITDIR)/procd.socket
	test ! -e $(PREFIX)/pyvenv.cfg || rm -rf $(PREFIX)
	test ! -d /run/systemd/system || systemctl daemon-reload
	$(if $(PURGE),rm -f $(CONFDIR)/config.toml,@test ! -e $(CONFDIR)/config.toml \
	|| echo '$(CONFDIR)/config.toml stays: make uninstall PURGE=1 removes it')

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
