"""The stages from scan to overlay as nodes of one process.

`perception STAGE... --ros-args ...`; without stages depth_projection, segmentation and tracking.
Each node has the name, parameters and topics that it has as a process of its own. The launch gives
several cameras as `--cameras JSON`: each has nodes of its own in its own namespace; what keeps
nothing of a stream, the network, they share.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from amodal_core.errors import InputError
from amodal_ros.base_node import BaseNode
from amodal_ros.exchange import Exchange
from amodal_ros.nodes.depth_projection import DepthProjection
from amodal_ros.nodes.overlay import Overlay
from amodal_ros.nodes.segmentation import Segmentation
from amodal_ros.nodes.track_points import TrackPoints
from amodal_ros.nodes.tracking import Tracking
from amodal_ros.restarts import REFUSED
from amodal_ros.running import run_together

Make: TypeAlias = Callable[[], BaseNode]

# In the order in which frames pass them.
STAGES: dict[str, type[BaseNode]] = {
    node.declaration.name: node
    for node in (DepthProjection, Segmentation, Tracking, Overlay, TrackPoints)
}
USUAL = ("depth_projection", "segmentation", "tracking")


def make(stages: Sequence[str], cameras: Sequence[Mapping[str, Any]] = ()) -> list[Make]:
    """What makes the nodes, in the order of the pipeline.

    Args:
        stages: of the only camera.
        cameras: or those of several; each with `namespace`, `stages`, `topics` (remapped, by their
            names in the nodes) and `parameters`, which go before all others.

    Raises:
        InputError: there is no such stage.
    """
    exchange, models = Exchange(), dict[Any, Any]()
    made: list[Make] = []
    for camera in cameras or [{"stages": stages}]:
        arguments = [
            *_pairs("-r", {"__ns": camera.get("namespace", "")} | camera.get("topics", {})),
            *_pairs("-p", {k: json.dumps(v) for k, v in camera.get("parameters", {}).items()}),
        ]
        given: dict[str, Any] = {"exchange": exchange}
        if cameras:
            given["cli_args"] = ["--ros-args", *arguments]
        for name in camera["stages"]:
            if name not in STAGES:
                raise InputError(f"there is no stage '{name}'", "perception", ", ".join(STAGES))
        for name, stage in STAGES.items():
            shared: dict[str, Any] = {}
            if cameras and stage is Segmentation:
                shared["models"] = models
            if name in camera["stages"]:
                made.append(partial(stage, **given, **shared))
    return made


def _pairs(option: str, values: Mapping[str, str]) -> list[str]:
    """ROS arguments of names and values."""
    return [text for name, value in values.items() for text in (option, f"{name}:={value}")]


def main(args: Sequence[str] | None = None) -> int:
    """Run the nodes."""
    args = list(sys.argv if args is None else args)
    end = args.index("--ros-args") if "--ros-args" in args else len(args)
    stages = args[1:end]
    cameras = []
    if stages[:1] == ["--cameras"]:
        cameras, stages = json.loads(stages[1]), []
    try:
        nodes = make(stages or USUAL, cameras)
    except InputError as error:
        print(f"[ERROR] {error}", file=sys.stderr)
        return REFUSED
    return run_together(lambda: (node() for node in nodes), args)


if __name__ == "__main__":
    sys.exit(main())
