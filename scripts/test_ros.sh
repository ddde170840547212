#!/usr/bin/env bash
# The node, launch and fault tests on a real rclpy, and embedded_ros against it: PyPI's wheels of ROS 2 Jazzy with Fast DDS,
# in an environment of its own beside .venv, made once. Called by make; where there is no compiler or
# the wheels cannot be had, it says so and ends with 0; what does not compile is a failure.
# Arguments go to pytest in place of the usual tests.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
ROS=${ROS_VENV:-.venv-ros}
BUILD=build/ros
# rclpy and Fast DDS; then what compiles messages, much of which the wheels do not ask for by themselves.
WHEELS=(rclpy rmw-fastrtps-cpp sensor-msgs visualization-msgs diagnostic-msgs std-srvs nav-msgs
  rosidl-default-generators rosidl-default-runtime rosidl-core-generators rosidl-generator-cpp
  ament-cmake ament-cmake-include-directories ament-cmake-ros ament-cmake-gtest ament-cmake-gmock
  ament-cmake-pytest ament-lint ament-package python-cmake-module fastrtps-cmake-module)
TESTS=(test/test_nodes_*.py test/test_domains.py test/test_faults.py test/test_launch_*.py
  test/test_live_supervision.py test/test_several_cameras.py test/test_evaluation_live.py)

skip() {
  echo "== tests on a real ROS 2: skipped, $*"
  exit 0
}

[ "$(uname -sm)" = "Linux x86_64" ] || skip "its wheels are for Linux on x86-64 only"
for tool in cmake g++ make; do
  command -v "$tool" >/dev/null || skip "$tool is missing; it compiles our messages"
done
header=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
[ -f "$header" ] || skip "$header is missing (apt install python3-dev)"

# Compiles the message package in $BUILD/src.
messages() {
  local name=$1 source=$BUILD/src/$1 out=$BUILD/$1
  cmake -S "$source" -B "$out" -DBUILD_TESTING=OFF -DCMAKE_PREFIX_PATH="$PWD/$ROS" \
    -DCMAKE_INSTALL_PREFIX="$PWD/$ROS" -DPython3_EXECUTABLE="$PWD/$ROS/bin/python" &&
    cmake --build "$out" -j "$(nproc)" && cmake --install "$out"
}

# A package of the message definitions given, which needs std_msgs and geometry_msgs.
package() {
  local name=$1 source=$BUILD/src/$1
  mkdir -p "$source/msg"
  cp "${@:2}" "$source/msg/"
  sed "s/amodal_msgs/$name/" amodal_msgs/package.xml >"$source/package.xml"
  cat >"$source/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.8)
project($name)
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
find_package(geometry_msgs REQUIRED)
find_package(std_msgs REQUIRED)
file(GLOB definitions RELATIVE \${CMAKE_CURRENT_SOURCE_DIR} msg/*.msg)
rosidl_generate_interfaces(\${PROJECT_NAME} \${definitions} DEPENDENCIES std_msgs geometry_msgs)
ament_package()
EOF
  messages "$name"
}

wheels() {
  rm -rf "$ROS" "$BUILD"
  mkdir -p "$BUILD/src"
  "$VENV/bin/python" -m venv "$ROS"
  "$ROS/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt \
    --retries 2 catkin_pkg "${WHEELS[@]/#/ros-jazzy-}"
}

compile() {
  # The project, PyTorch and all else come from the usual environment, after what is here.
  "$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$ROS/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_amodal_ros.pth"
  # The wheels' CMake files name the Python of the machine that built them.
  local numpy
  numpy=$("$ROS/bin/python" -c 'import numpy; print(numpy.get_include())')
  grep -rl --include='*.cmake' /opt/python "$ROS/share" | xargs -r sed -i -E \
    -e "s#/opt/python/[^\";]*/numpy/_core/include#$numpy#g" \
    -e "s#/opt/python/[^\";]*/include/python3\.[0-9]+#${header%/Python.h}#g"
  environment >"$ROS/environment"
  . "$ROS/environment"
  echo 'geometry_msgs/TransformStamped[] transforms' >"$BUILD/TFMessage.msg"
  package tf2_msgs "$BUILD/TFMessage.msg"
  package vision_msgs amodal_msgs/vision_msgs/msg/*.msg
  cp -r amodal_msgs "$BUILD/src/"
  messages amodal_msgs
}

# What a shell sources to have this ROS 2, as setup.bash of an installed one.
environment() {
  cat <<EOF
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
LD_LIBRARY_PATH=\$($PWD/$ROS/bin/python -c 'import os; print(os.environ["LD_LIBRARY_PATH"])')
export LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE=1 AMENT_PREFIX_PATH=$PWD/$ROS PATH=$PWD/$ROS/bin:\$PATH
EOF
}

state=$({ cat scripts/test_ros.sh constraints.txt; find amodal_msgs -type f | sort | xargs cat; "$VENV/bin/python" -VV; } | sha256sum)
if [ "$(cat "$ROS/.set-up" 2>/dev/null)" != "$state" ]; then
  echo "== a real ROS 2 in $ROS (the first time takes some minutes; $BUILD.log)"
  mkdir -p "$ROS" build
  # In the background, since a condition would have them go on after what fails.
  wheels >"$BUILD.log" 2>&1 &
  wait $! || {
    tail -n 5 "$BUILD.log" >&2
    skip "its wheels cannot be had here (see above and $BUILD.log)"
  }
  compile >>"$BUILD.log" 2>&1 &
  wait $! || {
    tail -n 20 "$BUILD.log" >&2
    echo "== tests on a real ROS 2: failed, our messages do not compile (see above and $BUILD.log)"
    exit 1
  }
  echo "$state" >"$ROS/.set-up"
fi

[ $# -gt 0 ] || set -- "${TESTS[@]}"
(
  . "$ROS/environment"
  # As the launch file has it; Fast DDS reads it once a process, with the first test.
  export FASTDDS_DEFAULT_PROFILES_FILE=$PWD/config/fastdds.xml
  export FASTRTPS_DEFAULT_PROFILES_FILE=$FASTDDS_DEFAULT_PROFILES_FILE
  export PYTHONPATH=$PWD
  # As make test: what failed once more and alone.
  python -m pytest -n "${WORKERS:-2}" -m "not slow" "$@" || {
    echo "== once more, what failed"
    python -m pytest --last-failed --last-failed-no-failures none
  }
)
echo "== embedded_ros against it"
AMODAL_ROS_PEER=$PWD/$ROS/environment exec "$VENV/bin/python" -m pytest test/test_embedded_real_peer.py
