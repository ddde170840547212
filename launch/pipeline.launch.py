"""The whole pipeline: projection, segmentation, tracking; with a bag, its player too."""

import json
import shutil
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
    NO_LIDAR,
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
from amodal_ros.declarations import parameters_of
from amodal_ros.middleware import settings
from amodal_ros.rviz import shown_topics
from launch import LaunchDescription

SHARE = Path(__file__).resolve().parents[1]

# The drive's settings that are arguments, with what they are for; empty: the nodes' own default.
DRIVE = {
    "calibration": "file of camera_calibration, KITTI or Kalibr in place of camera_info",
    "extrinsics": "camera_from_lidar x,y,z,qx,qy,qz,qw in place of the transforms",
    "rectify": "rectify images here; auto: what distorts and is not named image_rect",
    "minimum_range": "metres; nearer returns are dropped",
    "motion": "move scans to the image's time, where the vehicle's motion is known",
    "fixed_frame": "frame to which transforms tell the motion; empty: odom, map, world or earth",
}
_BOOL = ("true", "false")
# Of each group: name, default, description, choices.
GROUPS = {
    "What runs": (
        ("model", "flagship", "model to run; `amodal models` lists them", None),
        ("checkpoint", "", "weights file of a learned model; empty: the one that ships", None),
        ("settings", "", "settings in place of the checkpoint's: name=value,name=value", None),
        ("device", "cpu", "torch device: cpu, cuda:0 and so on", None),
        (
            "tracker",
            "motion",
            "what gives identities; quasi_dense for models with embeddings",
            ("motion", "quasi_dense", "quasi_dense_sailvos"),
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
        (CAMERA_INFO.name, CAMERA_INFO.bag_name, "its calibration", None),
        (POINTS.name, POINTS.bag_name, "LiDAR scans; none: the camera alone", None),
        (GROUND_TRUTH.name, "", "truth; empty: the bag's, or " + GROUND_TRUTH.bag_name, None),
        (ODOM.name, ODOM.bag_name, "odometry, where the transforms do not tell the motion", None),
        (TF.bag_name[1:], TF.name, "transforms, such as /robot/tf", None),
        (TF_STATIC.bag_name[1:], TF_STATIC.name, "static transforms", None),
        ("namespace", NAMESPACE, "namespace of all nodes and of their topics; /: none", None),
    ),
    "Calibration and time": (
        *(
            (p.name, "" if p.lengths else str(p.default), DRIVE[p.name], p.choices or None)
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
    return LaunchDescription([*declared, *middleware, OpaqueFunction(function=_start)])


def _start(context):
    value = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    # `~` and relative paths mean what they mean in the shell that launched.
    bag = str(Path(value["bag"]).expanduser()) if value["bag"] else ""
    truth = value[GROUND_TRUTH.name] or _truth_in(bag)
    value[GROUND_TRUTH.name] = truth or GROUND_TRUTH.bag_name
    measurable = bool(bag and truth) and value["loop"] == "false"
    evaluated = {"auto": measurable, "true": True, "false": False}[value["evaluation"]]
    sim_time = {"auto": bool(bag), "true": True, "false": False}[value["use_sim_time"]]

    def node(executable, parameters, remap=(), stages=()):
        files = [str(SHARE / "config" / "live.yaml")]
        if bag:
            files.append(str(SHARE / "config" / "replay.yaml"))
        overrides = [value["params_file"]] if value["params_file"] else []
        return Node(
            package="amodal_ros",
            executable=executable,
            # Several nodes in a process keep their own names.
            name=None if stages else executable,
            namespace=value["namespace"],
            parameters=[*files, {"use_sim_time": sim_time}, parameters, *overrides],
            remappings=[(name, value[name.lstrip("/")]) for name in remap],
            arguments=list(stages),
            ros_arguments=["--log-level", value["log_level"]],
            output="screen",
            # A busy machine may need longer than the usual 5 s to finish the last frames.
            sigterm_timeout="15",
        )

    drive = _drive_settings(value)
    segmentation = {k: value[k] for k in ("model", "checkpoint", "settings", "device")}
    tracking = {k: value[k] for k in ("tracker", "tracker_settings")}
    expected = [INSTANCES.name, TRACKS.name]
    if value["points_offset"] == "auto":
        drive["auto_points_offset"] = True
    elif value["points_offset"]:
        drive["points_offset"] = float(value["points_offset"])
    camera_only = value[POINTS.name] == NO_LIDAR
    by_image = camera_only or "calibration" in drive
    sensors = (IMAGE.name, CAMERA_INFO.name, POINTS.name, ODOM.name, TF.name, TF_STATIC.name)
    viewers = []
    stages = {}  # parameters of each, and what is remapped for it
    if camera_only:
        segmentation["optional_inputs"] = tracking["use_depth"] = False
    else:
        stages["depth_projection"] = drive, sensors
        expected.append(DEPTH.name)
    stages["segmentation"] = segmentation | drive, sensors
    stages["tracking"] = tracking, ()
    if value["overlay"] == "true" or value["rviz"] == "true":
        camera = {k: v for k, v in drive.items() if k in ("calibration", "rectify")}
        stages["overlay"] = camera, (IMAGE.name, CAMERA_INFO.name)
        expected.append(OVERLAY.name)
        if not camera_only:
            stages["track_points"] = drive, sensors
            expected.append(TRACK_POINTS.name)
    if value["single_process"] == "true":
        # What stages have in common they are given alike; what one does not declare it ignores.
        together = {k: v for parameters, _ in stages.values() for k, v in parameters.items()}
        nodes = [node("perception", together, sensors, stages)]
    else:
        nodes = [node(name, *given) for name, given in stages.items()]
    if evaluated:
        file = Path(value["out"]).expanduser() / "metrics.json" if value["out"] else None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        nodes.append(
            node(
                "evaluation",
                {"metrics_file": str(file.resolve()) if file else ""},
                (CAMERA_INFO.name, GROUND_TRUTH.name),
            )
        )
    if value["rviz"] == "true":
        viewers.append(_rviz(value, sim_time))
    if bag:
        nodes.append(
            node(
                "player",
                {
                    "bag": bag,
                    "rate": float(value["rate"]),
                    "loop": value["loop"] == "true",
                    "frame_topic": value[(IMAGE if by_image else CAMERA_INFO).name],
                    "wait_for": ",".join(expected),
                    # The player tells the time, it does not follow it.
                    "use_sim_time": False,
                },
            )
        )
    handlers = [
        RegisterEventHandler(OnProcessExit(target_action=process, on_exit=_ended))
        for process in nodes
    ]
    return [*handlers, *nodes, *viewers]


def _truth_in(bag):
    """The topic of the bag's ground truth; "" also where it cannot be read: the player says why."""
    if not bag:
        return ""
    # Heavier than all else here, and needed for bags alone.
    from amodal_core.bags.reader import BagReader

    try:
        with BagReader(bag) as reader:
            return truth_topic(reader)
    except InputError:
        return ""


def _rviz(value, sim_time):
    """The process that becomes rviz2; the pipeline goes on when it is closed."""
    if shutil.which("rviz2") is None:
        raise RuntimeError(
            "rviz:=true needs rviz2, which is not installed: apt install ros-$ROS_DISTRO-rviz2 "
            "with ROS 2; without it, overlay:=true publishes the overlay"
        )
    topics = shown_topics(value["namespace"], value[IMAGE.name], value[POINTS.name])
    frame = ["--frame", value["rviz_frame"]] if value["rviz_frame"] else []
    return Node(
        package="amodal_ros",
        executable="rviz_view",
        arguments=[str(SHARE / "rviz" / "amodal.rviz"), json.dumps(topics), *frame],
        parameters=[{"use_sim_time": sim_time}],
        output="screen",
    )


def _drive_settings(value):
    """The given ones of the drive's settings, as the nodes' parameters."""
    usual = {name: default for name, default, *_ in GROUPS["Calibration and time"]}
    given = {name: value[name] for name in DRIVE if value[name] not in ("", usual[name])}
    if "calibration" in given:
        given["calibration"] = str(Path(value["calibration"]).expanduser().resolve())
    if "minimum_range" in given:
        given["minimum_range"] = float(value["minimum_range"])
    if "extrinsics" in given:
        given["extrinsics"] = [float(v) for v in value["extrinsics"].split(",")]
    return given


def _ended(event, context):
    """The first process that ends takes the others along; a crash is the launch's failure."""
    stopped = context.is_shutdown and event.returncode in (-2, -15)
    if event.returncode != 0 and not stopped:
        raise RuntimeError(f"{event.process_name} died with exit code {event.returncode}")
    if context.is_shutdown:
        return None
    return [Shutdown(reason=f"{event.process_name} has ended")]
