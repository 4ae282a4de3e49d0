#!/usr/bin/env bash
# Test what differs between versions of Python on each other version that is installed: the event loops'
# sockets, limits, JSON, and cells, which run with it as well. Each has its own environment,
# .venv-VERSION.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=(
  tests/test_logging.py
  tests/http/test_responses.py
  tests/daemon/test_listen.py
  tests/faults/test_descriptors.py
  tests/api/test_errors.py
  tests/api/test_execute.py
  tests/api/test_interpreter_display.py
  tests/api/test_interpreter_ends.py
  tests/api/test_interpreter.py
)
ours=$("$PYTHON" -c 'import sys; print("{}.{}".format(*sys.version_info))')
for version in 3.11 3.12 3.13 3.14 3.15; do
  if [ "$version" = "$ours" ] || ! "python$version" -c 'import venv, ensurepip' 2>/dev/null; then
    continue
  fi
  env=.venv-$version
  # Made once, and again when what it is made from changes, as the Makefile's is: pip needs a network.
  if [ ! "$env/.dev" -nt setup.cfg ] || [ ! "$env/.dev" -nt pyproject.toml ]; then
    "python$version" -m venv "$env"
    "$env/bin/pip" install --quiet --editable '.[dev]'
    touch "$env/.dev"
  fi
  PATH="$PWD/$env/bin:$PATH" "$env/bin/python" -m pytest --numprocesses 3 --dist loadfile \
    "${tests[@]}" "$@"
done
