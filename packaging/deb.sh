#!/usr/bin/env bash
# Build DIST/procd_VERSION_ARCH.deb from the bundle in DIST. Takes dpkg-deb.
#     packaging/deb.sh DIST
set -euo pipefail
dist=$(realpath "$1")
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' procd/__init__.py)
name=procd-$version-linux-$(uname -m)
architecture=$(dpkg --print-architecture)

umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree"/{usr/bin,usr/lib/systemd/system,usr/share/doc/procd,etc/procd,DEBIAN}
tar -C "$work" -xzf "$dist/$name.tar.gz"
mkdir "$tree/usr/lib/procd"
mv "$work/$name/procd" "$work/$name/_internal" "$tree/usr/lib/procd"
ln -s ../lib/procd/procd "$tree/usr/bin/procd"
for unit in systemd/*; do
  sed 's|/usr/local/bin/procd|/usr/bin/procd|' "$unit" >"$tree/usr/lib/systemd/system/${unit##*/}"
done
install -m 640 config.example.toml "$tree/etc/procd/config.toml"
cp LICENSE "$tree/usr/share/doc/procd/copyright"
cp -R "$work/$name/licences" "$tree/usr/share/doc/procd"

install -m 755 packaging/debian/{postinst,prerm,postrm} "$tree/DEBIAN"
echo /etc/procd/config.toml >"$tree/DEBIAN/conffiles"
sed "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$(du -sk "$tree" | cut -f1)/" \
  packaging/debian/control >"$tree/DEBIAN/control"
dpkg-deb --root-owner-group --build "$tree" "$dist/procd_${version}_$architecture.deb" >/dev/null
