#!/usr/bin/env bash
# Fetch xterm.js and its addons from npm into procd/web/vendor, as published, and write down in
# VENDORED what each file is: SHA-256, file, package@version. Run it to change a version.
set -euo pipefail
cd "$(dirname "$0")/../procd/web/vendor"

packages=(
  @xterm/xterm@6.0.0
  @xterm/addon-fit@0.11.0
  @xterm/addon-search@0.16.0
  @xterm/addon-unicode11@0.9.0
  @xterm/addon-web-links@0.12.0
  @xterm/addon-webgl@0.19.0
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >VENDORED

take() { # package, file in the package, name here
  cp "$work/package/$2" "$3"
  chmod 644 "$3"
  echo "$(sha256sum <"$3" | cut -d' ' -f1)  $3  $1" >>VENDORED
}

for package in "${packages[@]}"; do
  name=${package%@*}
  name=${name#@xterm/}
  archive=$(npm pack --silent --pack-destination "$work" "$package")
  rm -rf "$work/package"
  tar -xzf "$work/$archive" -C "$work" package
  take "$package" "lib/$name.mjs" "$name.mjs"
  if [ "$name" = xterm ]; then
    take "$package" css/xterm.css xterm.css
    take "$package" LICENSE LICENSE
  fi
done
