"""The whole pipeline: projection, segmentation, tracking; with a bag, its player too."""

import json
import shutil
from functools import partial
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import (
    CAMERA_INFO,
    DEPTH,
    GROUND_TRUTH,
    IMAGE,
    INSTANCES,
    NAMESPACE,
    ODOM,
    OVERLAY,
    POINTS,
    TF,
    TF_STATIC,
    TRACK_POINTS,
    TRACKS,
    truth_topic,
)
from amodal_core.errors import InputError
from amodal_core.models.registry import DEFAULT
from amodal_ros import launching
from amodal_ros.declarations import parameters_of
from amodal_ros.launching import DRIVE
from amodal_ros.lifeline import LAUNCH, mark
from amodal_ros.middleware import settings
from amodal_ros.respawn import kept
from amodal_ros.rviz import shown_topics
from launch import LaunchDescription

SHARE = Path(__file__).resolve().parents[1]

# Arguments that are parameters of segmentation, and of tracking.
NETWORK = ("model", "checkpoint", "settings", "device")
TRACKING = ("tracker", "tracker_settings")
VIEWERS = ("overlay", "track_points", "evaluation")
_BOOL = ("true", "false")
# Of each group: name, default, description, choices.
GROUPS = {
    "What runs": (
        ("model", DEFAULT, "model to run; `amodal models` lists them", None),
        ("checkpoint", "", "weights file of a learned model; empty: the one that ships", None),
        ("settings", "", "settings in place of the checkpoint's: name=value,name=value", None),
        ("device", "cpu", "torch device: cpu, cuda:0 and so on", None),
        (
            "tracker",
            "motion",
            "what gives identities; quasi_dense for models with embeddings",
            ("motion", "quasi_dense", "quasi_dense_sailvos", "quasi_dense_published"),
        ),
        ("tracker_settings", "", "settings of the tracker: name=value,name=value", None),
        (
            "single_process",
            "true",
            "the stages in one process, which pass on what they make; false: each in its own",
            _BOOL,
        ),
    ),
    "Topics": (
        (IMAGE.name, IMAGE.bag_name, "camera image, raw, rectified or compressed", None),
        (CAMERA_INFO.name, CAMERA_INFO.bag_name, "its calibration; beside an image:=", None),
        (POINTS.name, POINTS.bag_name, "LiDAR scans; none: the camera alone", None),
        (
            "cameras",
            "",
            "names for {camera} in the topics: front,left; or a YAML list (launch/README.md)",
            None,
        ),
        (GROUND_TRUTH.name, "", "truth; empty: the bag's, or " + GROUND_TRUTH.bag_name, None),
        (ODOM.name, ODOM.bag_name, "odometry, where the transforms do not tell the motion", None),
        (TF.bag_name[1:], TF.name, "transforms, such as /robot/tf", None),
        (TF_STATIC.bag_name[1:], TF_STATIC.name, "static transforms", None),
        ("namespace", NAMESPACE, "namespace of all nodes and of their topics; /: none", None),
    ),
    "Calibration and time": (
        *(
            (
                p.name,
                "" if p.lengths else str(p.default),
                DRIVE[p.name],
                p.choices or None,
            )
            for p in parameters_of(DriveSettings)
            if p.name in DRIVE
        ),
        ("points_offset", "", "seconds that scans lag behind images; auto: find it", None),
    ),
    "Bag": (
        ("bag", "", "bag to play; the launch ends with it. Empty: live sensors", None),
        ("rate", "1.0", "speed of the bag", None),
        ("loop", "false", "play the bag again and again", _BOOL),
        ("use_sim_time", "auto", "follow /clock; auto: when a bag is played", ("auto", *_BOOL)),
    ),
    "Views and measures": (
        ("overlay", "false", "draw overlay, markers and the tracks' points", _BOOL),
        ("rviz", "false", "start rviz2 with a view of this launch", _BOOL),
        ("rviz_frame", "", "fixed frame of that view; empty: as the scans name it", None),
        (
            "evaluation",
            "auto",
            "measure latency, drops and accuracy; auto: of a bag with truth, played once",
            ("auto", *_BOOL),
        ),
        ("out", "", "folder for the evaluation's metrics.json; empty: only log them", None),
    ),
    "Nodes": (
        ("params_file", "", "YAML file with parameters that override all others", None),
        ("log_level", "info", "of all nodes", ("debug", "info", "warn", "error", "fatal")),
    ),
}
# Real ROS 2 lists them with their descriptions alone.
ARGUMENTS = [
    (name, default, f"[{group}] {text}", choices)
    for group, arguments in GROUPS.items()
    for name, default, text, choices in arguments
]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the nodes follow when their values are known."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    # With these images and scans arrive, where the user has set none of the kind.
    middleware = [
        SetEnvironmentVariable(name, value) for name, value in settings(SHARE / "config").items()
    ]
    # However this process ends, its nodes do.
    lifeline = SetEnvironmentVariable(LAUNCH, mark())
    return LaunchDescription([*declared, *middleware, lifeline, OpaqueFunction(function=_start)])


def _start(context):
    value = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    # Of several cameras none is told by the bag which truth is its own.
    truth = value[GROUND_TRUTH.name] or ("" if value["cameras"] else _truth_in(value["bag"]))
    value[GROUND_TRUTH.name] = truth
    # Whatever is malformed ends the launch here, before anything is started or written.
    cameras, rate = launching.cameras(value), launching.rate(value)
    # `~` and relative paths mean what they mean in the shell that launched.
    bag = str(Path(value["bag"]).expanduser()) if value["bag"] else ""
    measurable = bool(bag and truth) and value["loop"] == "false"
    evaluated = {"auto": measurable, "true": True, "false": False}[value["evaluation"]]
    sim_time = {"auto": bool(bag), "true": True, "false": False}[value["use_sim_time"]]

    def node(executable, parameters, topics=None, namespace=value["namespace"], arguments=()):
        files = [str(SHARE / "config" / "live.yaml")]
        if bag:
            files.append(str(SHARE / "config" / "replay.yaml"))
        overrides = [value["params_file"]] if value["params_file"] else []
        return Node(
            package="amodal_ros",
            executable=executable,
            # Several nodes in a process keep their own names.
            name=None if executable == "perception" else executable,
            namespace=namespace,
            parameters=[*files, {"use_sim_time": sim_time}, parameters, *overrides],
            remappings=list((topics or {}).items()),
            arguments=list(arguments),
            ros_arguments=["--log-level", value["log_level"]],
            output="screen",
            # A busy machine may need longer than the usual 5 s to finish the last frames.
            sigterm_timeout="15",
        )

    # What makes each process, since one that ends is started again; and whether it only looks on.
    nodes, measures, viewers, expected, together = [], [], [], [], []

    def add(executable, *given, arguments=()):
        make = partial(node, executable, *given, arguments=arguments)
        nodes.append((make, executable in VIEWERS))

    for camera in cameras:
        stages, published = _stages(value, camera)
        namespace = camera.namespace(value["namespace"])
        expected += [camera.topic(name) for name in published]
        if value["single_process"] == "true":
            together.append((namespace, stages))
        else:
            for name, given in stages.items():
                add(name, *given, namespace)
        if evaluated:
            names = (IMAGE.name, GROUND_TRUTH.name)
            topics = {name: camera.topics[name] for name in names}
            measures.append((_metrics_file(value, camera), topics, namespace))
    if len(together) > 1 or (cameras[0].name and together):
        common = {name: value[name] for name in (*NETWORK, *TRACKING)}
        add("perception", common, arguments=["--cameras", _told(together)])
    elif together:
        # What stages have in common they are given alike; what one does not declare it ignores.
        _, stages = together[0]
        add("perception", *_merged(stages), arguments=stages)
    for given in measures:
        add("evaluation", *given)
    if value["rviz"] == "true":
        viewers.append(_rviz(value, cameras[0], sim_time))
    if not bag:
        return [
            *(action for make, viewer in nodes for action in kept(make, viewer=viewer)),
            *viewers,
        ]
    played = {
        "bag": bag,
        "rate": rate,
        "loop": value["loop"] == "true",
        "frame_topic": ",".join(camera.topics[IMAGE.name] for camera in cameras),
        "answers": ",".join(camera.topic(TRACKS.name) for camera in cameras),
        "wait_for": ",".join(expected),
        # The player tells the time, it does not follow it.
        "use_sim_time": False,
    }
    add("player", played)
    processes = [make() for make, _ in nodes]
    handlers = [
        RegisterEventHandler(OnProcessExit(target_action=process, on_exit=_ended))
        for process in processes
    ]
    return [*handlers, *processes, *viewers]


def _truth_in(bag):
    """The topic of the bag's ground truth; "" also where it cannot be read: the player says why."""
    if not bag:
        return ""
    # Heavier than all else here, and needed for bags alone.
    from amodal_core.bags.reader import BagReader

    try:
        with BagReader(Path(bag).expanduser()) as reader:
            return truth_topic(reader)
    except InputError:
        return ""


def _stages(value, camera):
    """Parameters and topics of a camera's stages by name, and what they publish."""
    drive = camera.drive
    network, tracking = ({k: value[k] for k in names} for names in (NETWORK, TRACKING))
    names = (IMAGE.name, CAMERA_INFO.name, POINTS.name)
    sensors = {name: camera.topics[name] for name in names}
    sensors |= {name: value[name.lstrip("/")] for name in (ODOM.name, TF.name, TF_STATIC.name)}
    published, stages = [INSTANCES.name, TRACKS.name], {}
    if camera.camera_only:
        network["optional_inputs"] = tracking["use_depth"] = False
    else:
        tracking["use_points"] = True
        stages["depth_projection"] = drive, sensors
        published.append(DEPTH.name)
    stages["segmentation"] = network | drive, sensors
    stages["tracking"] = (tracking, {}) if camera.camera_only else (tracking | drive, sensors)
    if value["overlay"] == "true" or value["rviz"] == "true":
        image = {k: v for k, v in drive.items() if k in ("calibration", "rectify")}
        topics = {name: camera.topics[name] for name in (IMAGE.name, CAMERA_INFO.name)}
        stages["overlay"] = image, topics
        published.append(OVERLAY.name)
        if not camera.camera_only:
            stages["track_points"] = drive, sensors
            published.append(TRACK_POINTS.name)
    return stages, published


def _merged(stages):
    """Parameters and topics of all stages."""
    merged = {}, {}
    for given in stages.values():
        for whole, part in zip(merged, given, strict=True):
            whole.update(part)
    return merged


def _told(together):
    """What perception is told of several cameras: what is each one's own, the rest is common."""
    told = []
    for namespace, stages in together:
        parameters, topics = _merged(stages)
        own = {k: v for k, v in parameters.items() if k not in (*NETWORK, *TRACKING)}
        told.append(
            {
                "namespace": f"/{namespace.strip('/')}",
                "stages": list(stages),
                "topics": topics,
                "parameters": own,
            }
        )
    return json.dumps(told)


def _metrics_file(value, camera):
    """Where the evaluation of a camera writes; makes its folder."""
    if not value["out"]:
        return {"metrics_file": ""}
    file = (Path(value["out"]).expanduser() / camera.name / "metrics.json").resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    return {"metrics_file": str(file)}


def _rviz(value, camera, sim_time):
    """The process that becomes rviz2; the pipeline goes on when it is closed."""
    if shutil.which("rviz2") is None:
        raise RuntimeError(
            "rviz:=true needs rviz2, which is not installed: apt install ros-$ROS_DISTRO-rviz2 "
            "with ROS 2; without it, overlay:=true publishes the overlay"
        )
    topics = shown_topics(
        camera.namespace(value["namespace"]), camera.topics[IMAGE.name], camera.topics[POINTS.name]
    )
    frame = ["--frame", value["rviz_frame"]] if value["rviz_frame"] else []
    return Node(
        package="amodal_ros",
        executable="rviz_view",
        arguments=[str(SHARE / "rviz" / "amodal.rviz"), json.dumps(topics), *frame],
        parameters=[{"use_sim_time": sim_time}],
        output="screen",
    )


def _ended(event, context):
    """With a bag the first process that ends takes all along; a crash is the launch's failure."""
    stopped = context.is_shutdown and event.returncode in (-2, -15)
    if event.returncode != 0 and not stopped:
        raise RuntimeError(f"{event.process_name} died with exit code {event.returncode}")
    if context.is_shutdown:
        return None
    return [Shutdown(reason=f"{event.process_name} has ended")]
