#!/bin/sh
# Makes tests/node/node_modules from the lock file, with the distribution's Node and npm where there are none.
set -eu
cd "$(dirname "$0")"

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "test-node: needs node (18 or newer) and npm on PATH" >&2
        exit 1
    fi
    echo "test-node: installing nodejs and npm from the distribution"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
fi
node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' || {
    echo "test-node: needs Node 18 or newer, found $(node --version)" >&2
    exit 1
}
# No package of ours needs to run anything when it is installed.
npm ci --ignore-scripts --loglevel=error
