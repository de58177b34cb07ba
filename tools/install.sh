#!/bin/sh
# Sets up .venv from requirements-dev.lock: `sh tools/install.sh STAMP`, run by the Makefile from the repository's root.
#
# Makes a virtual environment with $PYTHON, or with the first Python found that fits, installs the locked packages by
# their hashes and this repository as editable, and then writes the stamp file. Safe to repeat from any state: a broken
# environment, or one that came here with a moved checkout, is made anew.
set -eu

stamp=$1
venv=.venv
fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'

fail() {
    echo "setup: $1" >&2
    exit 1
}

# Really runs each candidate: a version manager's shim may exist and yet refuse to start.
find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c "$fits" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python >= 3.11 and < 3.14 runs here (tried: ${PYTHON:-python3 python3.13 python3.12 python3.11}); \
install one, or name one: make PYTHON=/path/to/python3"
}

if [ -d "$venv" ] && ! { "$venv/bin/python" -c "$fits" && grep -qF "$PWD/$venv" "$venv/pyvenv.cfg" &&
    "$venv/bin/python" -m pip --version; } >/dev/null 2>&1; then
    echo "setup: $venv does not work here; making it anew"
    rm -rf "$venv"
fi
if [ ! -d "$venv" ]; then
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || fail "$python has no venv module; \
install it (Debian and Ubuntu: apt install python3-venv), or name another Python: make PYTHON=/path/to/python3"
    echo "setup: virtual environment in $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi

echo "setup: locked packages (the first time takes a minute or two)"
pip="$venv/bin/python -m pip --disable-pip-version-check --quiet"
$pip install --require-hashes -r requirements-dev.lock
$pip install --no-build-isolation --no-deps -e .
rm -f "$venv"/.installed-*
touch "$stamp"
