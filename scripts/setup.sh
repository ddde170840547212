#!/usr/bin/env bash
# Makes the virtual environment and installs the project in it, with the system packages that the
# project's libraries load at run time. Called by make; quick when everything is there.
# usage: scripts/setup.sh small|all: what the demo runs, or what tests and every command run, too
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
size=${1:-all}
[ "$size" = small ] || [ "$size" = all ] || {
  echo "usage: $0 small|all" >&2
  exit 1
}

say() { printf '\033[1m== %s\033[0m\n' "$*"; }

"$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || {
  echo "Python 3.10 to 3.13 is needed, $("$PYTHON" --version) found; name another: make PYTHON=python3.12 ..." >&2
  exit 1
}

# Debian packages: python3-venv for the environment, EGL and Mesa's software renderer for synthetic drives.
if command -v apt-get >/dev/null; then
  missing=()
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  if [ "$size" = all ]; then
    ldconfig -p | grep -q 'libEGL\.so\.1' || missing+=(libegl1)
    find /usr/lib -name 'swrast_dri.so' -o -name 'libgallium*' 2>/dev/null | grep -q . || missing+=(libgl1-mesa-dri)
  fi
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

# PyTorch's index of CPU builds, where that is what to take and it answers; pip prefers it, as its
# versions (2.9.1+cpu) count as newer than PyPI's of the same number.
cpu_builds=https://download.pytorch.org/whl/cpu
torch_index() {
  [ "$(uname -sm)" = "Linux x86_64" ] && ! [ -e /proc/driver/nvidia/version ] || return 0
  "$VENV/bin/python" -c 'import torch' 2>/dev/null && return 0
  if "$VENV/bin/python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1] + "/torch/", timeout=5)' $cpu_builds 2>/dev/null; then
    echo "--extra-index-url $cpu_builds"
  else
    say "no NVIDIA GPU here, and $cpu_builds does not answer: PyTorch for GPUs it is, about 3 GB to download and 5.5 GB on disk" >&2
  fi
}

# Installs the packages with constraints from a file.
packages() {
  local pip=("$VENV/bin/python" -m pip install -q --disable-pip-version-check -c "$1") index
  # TrackEval asks for opencv-python, which would overwrite the headless build that needs no display.
  local trackeval=("${pip[@]}" --no-deps trackeval tabulate)
  if [ "$size" = small ]; then
    # Python compiles what the demo imports, and not the rest.
    "${pip[@]}" --no-compile -e . && "${trackeval[@]}"
    return
  fi
  index=$(torch_index)
  # Alone, so that nothing else comes from that index.
  # shellcheck disable=SC2086
  { [ -z "$index" ] || "${pip[@]}" $index torch torchvision; } && "${pip[@]}" -e '.[test,dev]' && "${trackeval[@]}"
}

say "Python packages (the first time takes $([ "$size" = small ] && echo "half a minute" || echo "some minutes"))"
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

say "kernels, so that the first run does not wait for them"
if [ "$size" = small ]; then
  # The demo compiles the little that these leave.
  "$VENV/bin/python" -m amodal_ros.cli._warm geometry tracking network
else
  "$VENV/bin/amodal" doctor --warm || say "WARNING: the first run will do what failed above"
fi
