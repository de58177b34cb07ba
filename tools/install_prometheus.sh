#!/bin/sh
# Puts prometheus and promtool into the folder $1: those on PATH, or unpacked from the distribution's package (Debian and
# its like), which needs no root and starts no service.
set -eu

folder=$1
if [ -x "$folder/prometheus" ] && [ -x "$folder/promtool" ]; then
    exit 0
fi
mkdir -p "$folder"
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    ln -sf "$(command -v prometheus)" "$(command -v promtool)" "$folder"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "prometheus and promtool are not on PATH, and there is no apt-get to get them with" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
apt-get download -q prometheus >/dev/null 2>&1 || { apt-get update -qq && apt-get download -q prometheus; }
dpkg-deb -x prometheus_*.deb root
cp root/usr/bin/prometheus root/usr/bin/promtool "$folder"
