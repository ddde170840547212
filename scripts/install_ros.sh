#!/usr/bin/env bash
# Builds amodal_ros and amodal_msgs in a ROS 2 workspace, with what they need; called by `make ros`.
# usage: scripts/install_ros.sh [--no-rosdep] [--break-system-packages] [WORKSPACE]
#
# Python's libraries go into a virtual environment of the workspace, which sees the system's
# packages: Debian and Ubuntu let pip write nowhere else (PEP 668). The nodes' executables run its
# Python; WORKSPACE/amodal.bash sources the workspace and lets `ros2 launch` see it, too.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)

say() { printf '\033[1m== %s\033[0m\n' "$*"; }
refuse() {
  printf '%s\n' "$@" >&2
  exit 1
}

rosdep=yes system=no workspace=
for argument in "$@"; do
  case $argument in
    --no-rosdep) rosdep=no ;;
    --break-system-packages) system=yes ;;
    -*) refuse "unknown option $argument" "usage: $0 [--no-rosdep] [--break-system-packages] [WORKSPACE]" ;;
    *) workspace=$argument ;;
  esac
done
workspace=${workspace:-$HOME/ros2_ws}
workspace=${workspace/#\~/$HOME}
mkdir -p "$workspace"
workspace=$(cd "$workspace" && pwd)

# ROS 2 itself: the one that is sourced, or the only one that is installed.
if [ -z "${AMENT_PREFIX_PATH:-}" ]; then
  installed=(/opt/ros/*/setup.bash)
  [ -f "${installed[0]}" ] || refuse "there is no ROS 2 here: no /opt/ros and none is sourced" \
    "install it (https://docs.ros.org/en/jazzy/Installation.html), or do without: make demo"
  [ ${#installed[@]} = 1 ] || refuse "several ROS 2 are installed; source one of them:" "${installed[@]}"
  set +u
  . "${installed[0]}"
  set -u
fi
[ -n "${ROS_DISTRO:-}" ] || refuse "ROS_DISTRO is not set; source the setup.bash of your ROS 2"
tools=(colcon:python3-colcon-common-extensions cmake:cmake g++:g++)
[ $rosdep = no ] || tools+=(rosdep:python3-rosdep)
for tool in "${tools[@]}"; do
  command -v "${tool%%:*}" >/dev/null || refuse "${tool%%:*} is missing: sudo apt install ${tool#*:}"
done

# Both packages are named, since the one at the top hides the messages' below it.
packages=("$repository" "$repository/amodal_msgs")
if [ $rosdep = yes ]; then
  say "packages of ROS 2 $ROS_DISTRO"
  rosdep install --from-paths "${packages[@]}" --ignore-src -y --rosdistro "$ROS_DISTRO" ||
    refuse "rosdep could not install them; its words are above" \
      "once after its installation: sudo rosdep init; then: rosdep update"
fi

say "Python packages (the first time takes some minutes)"
python=$(command -v python3)
# What the system's cv_bridge was compiled with is what it runs with.
numpy=$("$python" -c 'import numpy; print(f"numpy>=1.26,<{int(numpy.__version__.split(chr(46))[0]) + 1}")' 2>/dev/null || echo "numpy>=1.26")
pip=("$python" -m pip install --break-system-packages)
if [ $system = no ]; then
  "$python" -c 'import ensurepip' 2>/dev/null || refuse "venv is missing: sudo apt install python3-venv"
  [ -x "$workspace/.venv/bin/pip" ] || "$python" -m venv --system-site-packages "$workspace/.venv"
  touch "$workspace/.venv/COLCON_IGNORE"
  python=$workspace/.venv/bin/python
  pip=("$python" -m pip install)
fi
# The libraries of setup.py, with PyTorch for a vehicle's GPU and for every model; the DDS of
# embedded_ros is not needed where there is a ROS 2.
# colcon's own limit is that of setuptools.
requirements=$(cd "$repository" && "$python" -c '
import runpy, setuptools
setuptools.setup = lambda **v: print(*v["install_requires"], *v["extras_require"]["torch"], sep="\n")
runpy.run_path("setup.py")' | grep -v '^cyclonedds')
printf '%s\n' "$requirements" "$numpy" 'setuptools<80' >"$workspace/.amodal_requirements"
"${pip[@]}" -q --disable-pip-version-check -r "$workspace/.amodal_requirements" ||
  refuse "pip could not install them; its words are above, the list is $workspace/.amodal_requirements"

say "colcon build in $workspace"
cd "$workspace"
# colcon by the environment's Python: executables run with what builds them.
"$python" "$(command -v colcon)" build --base-paths "${packages[@]}" --packages-select amodal_msgs amodal_ros \
  --cmake-args -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$python"

{
  echo "# amodal_ros in this workspace, for bash: made by scripts/install_ros.sh"
  [ $system = yes ] || echo "export PYTHONPATH=\${PYTHONPATH:+\$PYTHONPATH:}$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  echo ". $workspace/install/setup.bash"
} >"$workspace/amodal.bash"
say "done. In every shell:  source $workspace/amodal.bash"
echo "then: amodal doctor; ros2 launch amodal_ros pipeline.launch.py --show-args"
