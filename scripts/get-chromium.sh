#!/usr/bin/env bash
# Get the browser that the tests of the web terminal use, unless there is one: Debian's, if this is
# root on Debian, else Playwright's own. Without any, those tests are skipped and say so.
set -euo pipefail

if command -v chromium >/dev/null; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core htop vim >/dev/null
else
  "${PYTHON:-python3}" -m playwright install chromium
fi
