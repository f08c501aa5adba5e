#!/bin/sh
# Make the virtual environment $1 hold exactly what the requirements file $2 names, unless it does.
# Where a site builds wheels of its own, they are installed instead: scripts/site_wheels.py.
# An environment that this script did not make is never changed: it is used if it has what is needed.
# Needs Python 3.11 or later, a package index that pip knows, and about 8 GB of disk.
set -eu

venv=$1
requirements=$2
scripts=$(dirname "$0")
ours=$venv/made-by-make-venv
from_site=$venv/made-of-site-wheels

fail() {
    echo "error: $*" >&2
    exit 1
}

stamp() {
    echo "$venv/installed-$(basename "$1")"
}

# The stamp also holds the folder's path: scripts in a virtual environment do not survive a move.
# It is the path without symbolic links, so that several clones may link to one environment.
expected() {
    echo "# $(cd "$venv" 2>/dev/null && pwd -P)"
    cat "$1"
    # Which versions the site's wheels may have.
    [ ! -e "$from_site" ] || cat "$scripts/../pyproject.toml" "$scripts/../constraints.txt"
}

# Whether the environment holds what a requirements file names.
holds() {
    [ -f "$1" ] && [ -f "$(stamp "$1")" ] && expected "$1" | cmp -s - "$(stamp "$1")"
}

recent_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    set -- python3 python3.13 python3.12 python3.11
    [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
    for python; do
        if recent_enough "$python"; then
            echo "$python"
            return
        fi
    done
}

# Whether the folder exists, is not empty, and has nothing that shows that this script made it.
somebody_elses() {
    [ -n "$(ls -A "$venv" 2>/dev/null)" ] && [ ! -e "$ours" ] &&
        ! ls "$venv"/installed-requirements*.txt >/dev/null 2>&1
}

# --no-deps: the file names every package; the hashes make sure that it is those and no others.
# pip compiles the bytecode, without which each start of Snakemake or torch takes seconds longer.
install_exactly() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --require-hashes --use-pep517 --progress-bar on --compile -r "$requirements" ||
        fail "pip could not install $requirements (see above). The usual causes:
- no network, or a package index that needs a proxy: set https_proxy, or PIP_INDEX_URL for a mirror;
  on a cluster, run this on the login node
- no space: pip unpacks into TMPDIR (now ${TMPDIR:-/tmp}) and keeps downloads in its cache; set
  TMPDIR to a larger folder, or PIP_NO_CACHE_DIR=1
Then type the same command again."
}

# The test tools come with everything else, in the same versions.
if { holds "$requirements" || holds "${requirements%.txt}-dev.txt"; } &&
    "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

if somebody_elses; then
    [ -x "$venv/bin/python" ] || fail "$venv is not a virtual environment, so it is not touched.
Name one, or a folder that does not exist yet: make run VENV=/path/of/a/new/folder"
    recent_enough "$venv/bin/python" || fail "the Python of $venv is older than 3.11"
    "$venv/bin/python" "$scripts/missing_packages.py" --requirements "$requirements" || exit 1
    exit 0
fi

python=$(find_python)
[ -n "$python" ] || fail "no Python 3.11 or later found (tried: ${PYTHON:-python3, python3.13,
python3.12, python3.11}). Install one, load your cluster's module (module avail python), or name it:
make run PYTHON=/path/to/python3.12"

# Only a new one is sure to need the space: one that is updated has most of it already. Where Python
# could not make it, since Debian's python3-venv was missing, it may have a python and no pip.
is_new=false
{ recent_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; } ||
    is_new=true
if $is_new; then
    # The number before the percentage: names of file systems and folders may have spaces.
    free=$(df -Pk "$(dirname "$venv")" |
        awk 'match($0, /[0-9]+ +[0-9]+% /) {print int(substr($0, RSTART) / 1000000)}')
    [ "${free:-8}" -ge 8 ] || fail "$venv needs about 8 GB, and only $free GB are free in
$(cd "$(dirname "$venv")" && pwd). Free some space, or clone into a larger file system."
fi

echo "Setting up $venv with $("$python" --version): some gigabytes to download, some minutes." >&2
if $is_new; then
    rm -rf "$venv"
    mkdir -p "$venv"
    touch "$ours"
    "$python" -m venv "$venv" || fail "$python cannot make a virtual environment (see above).
On Debian and Ubuntu: apt-get install python3-venv"
fi
touch "$ours" # also in one that an older version of this script made
rm -f "$venv"/installed-* "$from_site" # of another version, which is about to be replaced

if why=$("$venv/bin/python" "$scripts/site_wheels.py" --why); then
    echo "$why: the site's wheels, then what is pure Python from the index, without hashes." >&2
    touch "$from_site"
    "$venv/bin/python" "$scripts/site_wheels.py" --requirements "$requirements" || exit 1
else
    install_exactly
fi
expected "$requirements" >"$(stamp "$requirements")"
