#!/usr/bin/env bash
# Makes the virtual environment and installs the project in it, with the system packages that the
# project's libraries load at run time. Called by make; quick when everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

say() { printf '\033[1m== %s\033[0m\n' "$*"; }

"$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || {
  echo "Python 3.10 to 3.13 is needed, $("$PYTHON" --version) found; name another: make PYTHON=python3.12 ..." >&2
  exit 1
}

# Debian packages: python3-venv for the environment, EGL and Mesa's software renderer for synthetic drives.
if command -v apt-get >/dev/null; then
  missing=()
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  ldconfig -p | grep -q 'libEGL\.so\.1' || missing+=(libegl1)
  find /usr/lib -name 'swrast_dri.so' -o -name 'libgallium*' 2>/dev/null | grep -q . || missing+=(libgl1-mesa-dri)
  if ((${#missing[@]})); then
    if [ "$(id -u)" = 0 ]; then sudo=(); else sudo=(sudo -n); fi
    say "system packages: ${missing[*]}"
    if ! { "${sudo[@]}" apt-get update -qq && "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null; then
      echo "could not install ${missing[*]}; run: sudo apt-get install ${missing[*]}" >&2
      [[ " ${missing[*]} " == *" python3-venv "* ]] && exit 1
    fi
  fi
fi

# Without pip it is what an attempt without python3-venv left; the same command completes it.
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || {
  say "virtual environment $VENV"
  "$PYTHON" -m venv "$VENV"
}

# Installs the packages with constraints from a file.
packages() {
  local pip=("$VENV/bin/python" -m pip install -q --disable-pip-version-check -c "$1")
  "${pip[@]}" -e '.[test,dev]' &&
    # TrackEval asks for opencv-python, which would overwrite the headless build that needs no display.
    "${pip[@]}" --no-deps trackeval tabulate
}

say "Python packages (the first time takes some minutes)"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if ! packages constraints.txt 2>&1 | tee "$scratch/said" >&2; then
  # A version that cannot be had is worth another attempt; a full disk is not.
  grep -qE 'ResolutionImpossible|conflicting dependencies|No matching distribution' "$scratch/said" || {
    echo "pip could not install the packages; its words are above" >&2
    exit 1
  }
  say "WARNING: the tested versions in constraints.txt cannot be had here (see above: an index that"
  say "lacks one, or pip's own constraints, \`$VENV/bin/python -m pip config list\`); taking older ones"
  sed 's/==/<=/' constraints.txt >"$scratch/constraints.txt"
  packages "$scratch/constraints.txt" || {
    echo "no versions in the ranges of setup.py fit together here; pip's words are above" >&2
    exit 1
  }
fi

say "kernels and the network's graph, so that the first run does not wait for them"
"$VENV/bin/amodal" doctor --warm || say "WARNING: the first run will do what failed above"
