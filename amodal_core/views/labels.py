"""What is said of each track, in one line, for viewers that draw their own text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amodal_core.frame import Tracks
from amodal_core.views.report.record import PARTLY_HIDDEN


def name_of(classes: Sequence[str], class_id: int) -> str:
    """The class's name, its number where it has none."""
    return classes[class_id] if 0 <= class_id < len(classes) else str(class_id)


def track_labels(tracks: Tracks, classes: Sequence[str]) -> list[str]:
    """N lines such as `7 car 16 m, 58 % hidden by 4` or `3 car, unseen behind 2`.

    The occluder is the nearest of those that are known.

    Args:
        tracks: on the host.
        classes: names that class ids index into.
    """
    lines = []
    depths = np.asarray(tracks.depths)
    distance = np.where(depths > 0, depths, np.inf)
    for i in range(len(tracks)):
        line = f"{int(tracks.ids[i])} {name_of(classes, int(tracks.class_ids[i]))}"
        if depths[i] > 0:
            line += f" {depths[i]:.0f} m"
        hidden, by = float(tracks.occlusion_rates[i]), " by"
        if tracks.coasted[i]:
            line, by = f"{line}, unseen", " behind"
        elif hidden >= PARTLY_HIDDEN:
            line = f"{line}, {100 * hidden:.0f} % hidden"
        else:
            by = ""
        hiders = np.flatnonzero(tracks.occluders[i])
        if by and len(hiders):
            line += f"{by} {int(tracks.ids[hiders[np.argmin(distance[hiders])]])}"
        lines.append(line)
    return lines
