"""Where the message definitions of amodal_msgs lie on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from amodal_core.errors import InputError


def message_definitions() -> dict[str, str]:
    """The text of each amodal_msgs definition by its full name, such as amodal_msgs/msg/Mask.

    Looked for beside this package (a checkout), then where pip and ament install them.

    Raises:
        InputError: they are nowhere.
    """
    places = [Path(__file__).resolve().parents[1] / "amodal_msgs" / "msg"]
    places.append(Path(sys.prefix) / "share" / "amodal_ros" / "msg")
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        places.append(Path(prefix) / "share" / "amodal_msgs" / "msg")
    for place in places:
        files = sorted(place.glob("*.msg"))
        if files:
            return {f"amodal_msgs/msg/{f.stem}": f.read_text() for f in files}
    raise InputError("no amodal_msgs/msg/*.msg", str(places[0]), "install amodal_ros again")
