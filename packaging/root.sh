#!/usr/bin/env bash
# Make ROOT, unless it exists: the files of a minimal Debian 12, with PACKAGEs installed. Takes root
# and debootstrap.
#     packaging/root.sh ROOT [PACKAGE...]
set -euo pipefail
root=$1
shift
base=$(dirname "$root")/debian

if [ ! -e "$base" ]; then
  rm -rf "$base.new"
  mkdir -p "$base.new"
  debootstrap --variant=minbase bookworm "$base.new" >"$base.log" || {
    tail "$base.log" >&2
    exit 1
  }
  # Security updates are in an archive beside the main one.
  sed '/^deb /!d; s|/debian bookworm|/debian-security bookworm-security|' \
    "$base.new/etc/apt/sources.list" >"$base.new/etc/apt/sources.list.d/security.list"
  mv "$base.new" "$base"
fi
if [ ! -e "$root" ]; then
  rm -rf "$root.new"
  cp -a "$base" "$root.new"
  if [ $# != 0 ]; then
    cp /etc/resolv.conf "$root.new/etc"
    DEBIAN_FRONTEND=noninteractive chroot "$root.new" sh -euc '
      apt-get update -qq
      apt-get install -qq -o Acquire::Retries=3 --no-install-recommends "$@"
    ' sh "$@" >"$root.log" 2>&1 || {
      tail "$root.log" >&2
      exit 1
    }
  fi
  mv "$root.new" "$root"
fi
