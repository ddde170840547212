"""Messages, imports and command lines of embedded_ros, without a network."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import array
import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from embedded_peers import ROOT
from geometry_msgs.msg import Quaternion
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import GetParameters
from rclpy.clock import Clock
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, Image, NavSatFix
from std_msgs.msg import Char, Empty, Header, String

from amodal_msgs.msg import AmodalInstance, AmodalInstanceArray, Mask
from embedded_ros import arguments, interfaces, names


def test_a_message_starts_with_the_defaults_of_its_definition():
    assert Image().data == array.array("B")
    assert Image().header == Header()
    assert AmodalInstance().track_id == AmodalInstance.UNTRACKED == -1
    assert Quaternion().w == 1.0
    assert NavSatFix().status.status == -2
    assert CameraInfo().k.tolist() == [0.0] * 9
    assert DiagnosticStatus.WARN == b"\x01"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Image(height="3"), "height"),
        (lambda: Image(height=-1), "height"),
        (lambda: Image(height=np.int64(3)), "height"),
        (lambda: String(data=b"x"), "data"),
        (lambda: Mask(counts=1), "counts"),
        (lambda: AmodalInstance(score=1), "score"),
        (lambda: AmodalInstance(visible=String()), "visible"),
        (lambda: AmodalInstance(visible_box=[1.0]), "visible_box"),
        (lambda: AmodalInstance(box3d=[0.0] * 8), "box3d"),
        (lambda: AmodalInstance(occluders=["a"]), "occluders"),
        (lambda: Image(data=np.zeros((2, 2), np.uint8)), "data"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_and_the_field_named(make, field):
    with pytest.raises(AssertionError, match=field):
        make()


def test_an_unknown_field_is_refused():
    with pytest.raises(AssertionError, match="nope"):
        Image(nope=1)
    with pytest.raises(AttributeError, match="nope"):
        Image().nope = 1


@pytest.mark.parametrize(
    "payload",
    [
        b"\x01\x02\x03\x04",
        bytearray(b"\x01\x02\x03\x04"),
        memoryview(b"\x01\x02\x03\x04"),
        np.array([1, 2, 3, 4], np.uint8),
        array.array("B", [1, 2, 3, 4]),
        [1, 2, 3, 4],
    ],
)
def test_bytes_of_any_kind_are_taken_and_read_alike(payload):
    image = Image(data=payload)
    assert len(image.data) == 4
    assert bytes(memoryview(image.data)) == b"\x01\x02\x03\x04"
    assert np.frombuffer(image.data, np.uint8).tolist() == [1, 2, 3, 4]
    assert image == Image(data=[1, 2, 3, 4])
    assert image != Image(data=[1, 2, 3, 5])


def full_messages():
    yield Image(height=2, width=3, encoding="mono8", step=3, data=bytes(range(6)))
    yield CameraInfo(k=np.arange(9.0), d=[0.1, 0.2], distortion_model="plumb_bob")
    yield Empty()
    yield Char(data=200)
    yield DiagnosticStatus(level=DiagnosticStatus.STALE, name="a")
    yield ParameterValue(byte_array_value=[b"\xff"], bool_array_value=[True, False])
    yield GetParameters.Request(names=["a", "long name"])
    yield AmodalInstanceArray(
        header=Header(frame_id="camera"),
        instances=[
            AmodalInstance(occluders=[4, 5], box3d=[1.0] * 7, embedding=[0.5], coasted=True),
            AmodalInstance(visible=Mask(height=2, width=2, counts="04")),
        ],
    )


@pytest.mark.parametrize("message", list(full_messages()), ids=lambda m: type(m).__name__)
def test_messages_survive_the_wire_copying_and_pickling(message):
    read = interfaces.deserialize(interfaces.serialize(message), type(message))
    assert read == message
    assert copy.deepcopy(read) == message
    assert pickle.loads(pickle.dumps(read)) == message


def test_the_bytes_are_those_of_an_independent_codec():
    store = get_typestore(Stores.ROS2_JAZZY)
    ours = CameraInfo(height=4, width=5, k=np.arange(9.0), d=[1.5, 2.5], distortion_model="x")
    theirs = store.deserialize_cdr(interfaces.serialize(ours), "sensor_msgs/msg/CameraInfo")
    assert (theirs.height, theirs.width, theirs.distortion_model) == (4, 5, "x")
    assert theirs.k.tolist() == list(range(9))
    assert theirs.d.tolist() == [1.5, 2.5]
    again = store.serialize_cdr(theirs, "sensor_msgs/msg/CameraInfo")
    assert bytes(again) == bytes(interfaces.serialize(ours))


def test_image_bytes_are_read_without_a_copy():
    sent = interfaces.serialize(Image(data=np.arange(100, dtype=np.uint8)))
    payload = np.frombuffer(sent, np.uint8)
    read = interfaces.deserialize(sent, Image)
    assert np.shares_memory(np.frombuffer(read.data, np.uint8), payload)


# As `ros2 topic info -v` of ROS 2 Jazzy prints them; the last ones rosbags computes otherwise.
@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("std_msgs/msg/String", "df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"),
        (
            "rmw_dds_common/msg/ParticipantEntitiesInfo",
            "91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e",
        ),
        (
            "service_msgs/msg/ServiceEventInfo",
            "41bcbbe07a75c9b52bc96bfd5c24d7f0fc0a08c0cb7921b3373c5732345a6f45",
        ),
        ("std_msgs/msg/Char", "3ad2d04dd29ba19d04b16659afa3ccaedd691914b02a64e82e252f2fa6a586a9"),
    ],
)
def test_type_hashes_are_those_of_ros_2(name, digest):
    assert interfaces.type_hash(name) == f"RIHS01_{digest}"


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "import rclpy.action",
            "rclpy.action is not part of .*ros-jazzy-rclpy",
        ),
        ("from rclpy.executors import MultiThreadedExecutor", "install ros-jazzy-rclpy"),
        ("from message_filters import TimeSynchronizer", "install ros-jazzy-message-filters"),
        ("from std_msgs.msg import Nothing", "install ros-jazzy-std-msgs"),
        ("import nav_msgs.srv", "install ros-jazzy-nav-msgs"),
    ],
)
def test_what_is_missing_names_the_package_to_install(statement, named):
    with pytest.raises(ImportError, match=named):
        exec(statement)


@pytest.mark.parametrize(
    ("use", "named"),
    [
        (lambda: QoSProfile(depth=1, deadline=Duration(seconds=1)), r"QoSProfile\(deadline=\)"),
        (lambda: get_logger("x").info("text", skip_first=True), r"log\(skip_first=\)"),
        (lambda: Node("x", allow_undeclared_parameters=True), "allow_undeclared_parameters"),
        (lambda: Node.create_subscription(None, Image, "x", print, 1, raw=True), "raw="),
        (lambda: Node.__new__(LifecycleNode).create_rate, "rclpy.node.Node.create_rate"),
        (lambda: Clock().sleep_for, "rclpy.clock.Clock.sleep_for"),
    ],
)
def test_what_a_class_lacks_names_the_package_to_install(use, named):
    with pytest.raises((NotImplementedError, AttributeError), match=named) as refused:
        use()
    assert "install ros-jazzy-rclpy" in str(refused.value)


def install(folder, *packages):
    """Packages that say that they are real."""
    for package in packages:
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("real = True")


def run_beside(folder, code):
    """Run code where what lies in the folder is installed."""
    environment = {"PYTHONPATH": f"{folder}:{ROOT}", "PATH": ""}
    code = f"import embedded_ros; embedded_ros.activate()\n{code}"
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, check=True)


def test_an_installed_package_is_never_shadowed(tmp_path):
    install(tmp_path, "cv_bridge", "std_msgs")
    # Folders without code are no packages: here is where a checkout keeps launch files.
    (tmp_path / "launch").mkdir()
    (tmp_path / "sensor_msgs" / "msg").mkdir(parents=True)
    run_beside(
        tmp_path,
        "import cv_bridge, std_msgs, sensor_msgs.msg, launch\n"
        "assert cv_bridge.real and std_msgs.real and sensor_msgs.msg.Image and launch.__file__\n"
        "try: import std_msgs.msg\n"
        "except ModuleNotFoundError as e: assert 'embedded' not in str(e), e\n"
        "else: raise SystemExit('shadowed')",
    )


def test_a_real_rclpy_keeps_its_messages_and_gets_the_packages_that_are_missing(tmp_path):
    install(tmp_path, "rclpy", "std_msgs")
    run_beside(
        tmp_path,
        "import rclpy, std_msgs, launch.actions, ament_index_python\n"
        "assert rclpy.real and std_msgs.real and launch.actions.ExecuteProcess\n"
        # Real rclpy cannot send embedded messages: where it lacks a package, that is said.
        "try: import sensor_msgs.msg\n"
        "except ModuleNotFoundError as e: assert e.name == 'sensor_msgs', e\n"
        "else: raise SystemExit('mixed')",
    )


def test_conflicting_definitions_are_refused():
    with pytest.raises(Exception, match="different definition"):
        interfaces.add_messages({"std_msgs/msg/String": "int32 data\n"})


def test_ros_arguments_are_split_from_the_others():
    line = "prog --x --ros-args -r __node:=n -r a:b:=c -p rate:=2.5 -p k:=[1,2]"
    parsed = arguments.parse([*line.split(), "--log-level", "debug", "--", "tail"])
    assert parsed.others == ["prog", "--x", "tail"]
    assert parsed.rules == [
        arguments.Rule("", "__node", "n"),
        arguments.Rule("a", "b", "c"),
    ]
    assert parsed.parameters == [("/**", {"rate": 2.5}), ("/**", {"k": [1, 2]})]
    assert parsed.log_levels == {"": "debug"}


@pytest.mark.parametrize("bad", [["-p", "x"], ["-r", "x:="], ["-p"], ["--what", "x"]])
def test_malformed_ros_arguments_are_refused(bad):
    with pytest.raises(ValueError, match=r"(?i)argument|needs|parse"):
        arguments.parse(["--ros-args", *bad])


def test_a_parameter_file_may_nest_namespaces_and_use_wildcards(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "/**:\n  ros__parameters: {a: 1, b: {c: x}}\n"
        "ns:\n  node:\n    ros__parameters: {a: 2}\n/*/other:\n  ros__parameters: {a: 3}\n"
    )
    sources = arguments.parameter_file(path)

    def seen_by(node):
        found = {}
        for pattern, values in sources:
            if arguments.node_matches(pattern, node):
                found.update(values)
        return found

    assert seen_by("/node") == {"a": 1, "b.c": "x"}
    assert seen_by("/ns/node") == {"a": 2, "b.c": "x"}
    assert seen_by("/any/other") == {"a": 3, "b.c": "x"}


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("chat", "/ns/chat"),
        ("/chat", "/chat"),
        ("~/chat", "/ns/node/chat"),
        ("{node}/x", "/ns/node/x"),
    ],
)
def test_topic_names_expand_as_in_ros_2(name, full):
    assert names.topic_name_error(name) is None
    assert names.expand(name, "node", "/ns") == full


@pytest.mark.parametrize("name", ["", "a b", "1a", "a//b", "a/", "~a", "a/9"])
def test_bad_topic_names_are_found(name):
    assert names.topic_name_error(name) is not None


def test_remaps_apply_to_expanded_names():
    rules = [arguments.Rule("", "image", "camera/image"), arguments.Rule("other", "/x", "/y")]
    assert names.remap("/ns/image", "node", "/ns", rules) == "/ns/camera/image"
    assert names.remap("/image", "node", "/ns", rules) == "/image"
    assert names.remap("/x", "node", "/ns", rules) == "/x"
