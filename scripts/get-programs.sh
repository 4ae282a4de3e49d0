#!/usr/bin/env bash
# Get the programs that tests drive, unless they are there: Debian's, if this is root on Debian; else
# Playwright's own browser at least. Tests are skipped without their program, and say so.
set -euo pipefail

programs=(chromium htop vim zsh busybox tmux debootstrap)
missing=()
for program in "${programs[@]}"; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} = 0 ]; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" fonts-dejavu-core >/dev/null
elif ! command -v chromium >/dev/null; then
  "${PYTHON:-python3}" -m playwright install chromium
fi
