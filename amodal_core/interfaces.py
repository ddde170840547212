"""Where the message definitions that the project carries lie on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from amodal_core.errors import InputError


def message_definitions() -> dict[str, str]:
    """The text of each definition that rosbags lacks, by full name, such as amodal_msgs/msg/Mask.

    These are all of amodal_msgs, and the part of vision_msgs that the nodes publish. They are
    looked for beside this package (a checkout), then where pip and ament install them.

    Raises:
        InputError: they are nowhere.
    """
    checkout = Path(__file__).resolve().parents[1] / "amodal_msgs"
    places = [(checkout / "msg", checkout / "vision_msgs" / "msg")]
    for prefix in (sys.prefix, *os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        installed = Path(prefix) / "share" / "amodal_ros"
        places.append((installed / "msg", installed / "vision_msgs"))
    for own, vision in places:
        files = {
            "amodal_msgs": sorted(own.glob("*.msg")),
            "vision_msgs": sorted(vision.glob("*.msg")),
        }
        if all(files.values()):
            return {
                f"{package}/msg/{f.stem}": f.read_text()
                for package, paths in files.items()
                for f in paths
            }
    raise InputError("no amodal_msgs/msg/*.msg", str(places[0][0]), "install amodal_ros again")
