#!/usr/bin/env bash
# Build DIST/procd-VERSION-linux-ARCH.tar.gz from the wheel in DIST: a folder with procd, its
# dependencies and a Python. It is built in a Debian 12, so that it runs with that one's C library
# (glibc 2.36) and newer ones. Takes root and debootstrap, and leaves that Debian in build/.
#     packaging/bundle.sh DIST
set -euo pipefail
dist=$(realpath "$1")
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' procd/__init__.py)
name=procd-$version-linux-$(uname -m)
root=build/debian-python

packaging/root.sh "$root" python3-venv libpython3.11 binutils
rm -rf "$root/procd"
mkdir "$root/procd"
cp -R packaging "$root/procd"
cp "$dist/procd_server-$version-py3-none-any.whl" "$root/procd"
# For pip: names are resolved, and certificates trusted, as on this machine.
cp /etc/resolv.conf "$root/etc"
cp --remove-destination /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs"

chroot "$root" sh -euc '
  cd /procd
  python3 -m venv venv
  venv/bin/pip install -qq ./*.whl "pyinstaller ==6.22.*"
  venv/bin/pyinstaller --log-level WARN --workpath work --distpath . packaging/procd.spec
  # Of the libraries; the licences of packages are beside them.
  mkdir procd/licences
  for library in procd/_internal/lib*.so*; do
    package=$(dpkg-query --search "*/${library##*/}" | head -n 1 | cut -d : -f 1)
    cp "/usr/share/doc/$package/copyright" "procd/licences/$package"
  done
'

mv "$root/procd/procd" "$root/procd/$name"
cp -R LICENSE config.example.toml systemd "$root/procd/$name"
tar -C "$root/procd" --create --gzip --sort=name --owner=0 --group=0 --numeric-owner \
  --file "$dist/$name.tar.gz" "$name"
