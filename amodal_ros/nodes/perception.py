"""The stages from scan to overlay as nodes of one process.

`perception STAGE... --ros-args ...`; without stages depth_projection, segmentation and tracking.
Each node has the name, parameters and topics that it has as a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from amodal_core.errors import InputError
from amodal_ros.base_node import BaseNode, run_together
from amodal_ros.exchange import Exchange
from amodal_ros.nodes.depth_projection import DepthProjection
from amodal_ros.nodes.overlay import Overlay
from amodal_ros.nodes.segmentation import Segmentation
from amodal_ros.nodes.track_points import TrackPoints
from amodal_ros.nodes.tracking import Tracking

# In the order in which frames pass them.
STAGES: dict[str, type[BaseNode]] = {
    node.declaration.name: node
    for node in (DepthProjection, Segmentation, Tracking, Overlay, TrackPoints)
}
USUAL = ("depth_projection", "segmentation", "tracking")


def make(stages: Sequence[str]) -> Iterator[BaseNode]:
    """The nodes of these stages, in the order of the pipeline.

    Raises:
        InputError: there is no such stage.
    """
    for name in stages:
        if name not in STAGES:
            raise InputError(f"there is no stage '{name}'", "perception", ", ".join(STAGES))
    exchange = Exchange()
    return (STAGES[name](exchange=exchange) for name in STAGES if name in stages)


def main(args: Sequence[str] | None = None) -> int:
    """Run the nodes."""
    args = list(sys.argv if args is None else args)
    end = args.index("--ros-args") if "--ros-args" in args else len(args)
    try:
        nodes = make(args[1:end] or USUAL)
    except InputError as error:
        print(f"[ERROR] {error}", file=sys.stderr)
        return 1
    return run_together(lambda: nodes, args)


if __name__ == "__main__":
    sys.exit(main())
