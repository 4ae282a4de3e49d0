#!/bin/sh
# Unpack a program of Debian's into DIRECTORY: no installation, no service started, no root needed.
#     install.sh DIRECTORY PACKAGE
set -eu
cd "$1"
apt-get download "$2"
dpkg -x "$2"_*.deb .
