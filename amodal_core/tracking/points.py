"""Points followed through images: OpenCV's Lucas-Kanade, or a CoTracker that lies on this machine.

Pixel coordinates are x, y with integer centres.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from amodal_core import torch_files
from amodal_core.errors import InputError, foreign

# Of CoTracker's hubconf.py, in its three versions; those of version 1 differ in their windows.
_ENTRIES = (
    "cotracker3_offline",
    "cotracker2",
    "cotracker2v1",
    "cotracker_w8",
    "cotracker_w12",
    "cotracker_w16",
)


@dataclass
class Trajectories:
    """Where N points are in T images.

    Attributes:
        places: (T, N, 2) float32 x, y.
        visible: (T, N) bool, whether a point is visible; its place is a guess where it is not.
    """

    places: np.ndarray
    visible: np.ndarray


class PointTracker(Protocol):
    """Follows points through successive images.

    Attributes:
        history: images before the newest that it makes use of, at least 1.
    """

    history: int

    def track(self, images: Sequence[np.ndarray], points: np.ndarray) -> Trajectories:
        """Follow points of the first image through all.

        Args:
            images: T (H, W, 3) uint8 RGB of one size, at least one.
            points: (N, 2) x, y in the first image.
        """
        ...


def point_tracker(path: str = "", device: str = "cpu", weights: str = "") -> PointTracker:
    """A point tracker.

    Args:
        path: of a CoTracker, see `CoTracker`; "" for Lucas-Kanade.
        weights: of a CoTracker.
        device: where a CoTracker runs.

    Raises:
        InputError: there is no CoTracker at the path.
    """
    return CoTracker(path, device, weights) if path else LucasKanade()


class LucasKanade:
    """Pyramidal Lucas-Kanade from image to image, checked by following each point back.

    Bouguet 2000; the forward-backward check is that of Kalal et al. 2010. A point that is lost once
    stays lost.

    Args:
        window: pixels along the square that is compared.
        levels: of the pyramid above the image.
        error: pixels by which a point followed there and back may miss itself.
    """

    history = 1

    def __init__(self, window: int = 15, levels: int = 3, error: float = 1.0) -> None:
        self.error = error
        self._options: dict[str, Any] = {
            "winSize": (window, window),
            "maxLevel": levels,
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02),
        }

    def track(self, images: Sequence[np.ndarray], points: np.ndarray) -> Trajectories:
        """See `PointTracker`."""
        places = [np.asarray(points, np.float32).reshape(-1, 2)]
        visible = [np.ones(len(places[0]), bool)]
        greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        for before, after in pairwise(greys):
            moved, tracked = self._step(before, after, places[-1])
            places.append(moved)
            visible.append(visible[-1] & tracked)
        return Trajectories(np.stack(places), np.stack(visible))

    def _step(
        self, before: np.ndarray, after: np.ndarray, points: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if not len(points):
            return points, np.zeros(0, bool)
        moved, status = self._flow(before, after, points)
        back, returned = self._flow(after, before, moved)
        height, width = after.shape
        inside = (moved > -0.5).all(1) & (moved < (width - 0.5, height - 0.5)).all(1)
        close = np.abs(back - points).max(1) < self.error
        return moved, status & returned & inside & close

    def _flow(
        self, before: np.ndarray, after: np.ndarray, points: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        flow: Any = cv2.calcOpticalFlowPyrLK
        moved, status, _ = flow(before, after, points, None, **self._options)
        return moved.reshape(-1, 2), status[:, 0] > 0


class CoTracker:
    """A CoTracker (Karaev et al. 2024) that the user has; nothing is downloaded by this project.

    Args:
        path: of a TorchScript file that takes a video (1, T, 3, H, W) of 0-255 and queries
            (1, N, 3) of t, x, y, and gives places (1, T, N, 2) and visibility (1, T, N); or of a
            copy of CoTracker's repository, whose hubconf.py is then run.
        device: where it runs.
        weights: for a repository, such as cotracker_stride_4_wind_8.pth or scaled_offline.pth; the
            network of its hubconf.py that they fit is taken. "" for those in torch's hub cache.

    Raises:
        InputError: nothing of the kind is there, or it cannot be loaded.
    """

    history = 31  # three seconds at 10 Hz

    def __init__(self, path: str | Path, device: str = "cpu", weights: str = "") -> None:
        import torch

        self._device = torch.device(device)
        path = Path(path).expanduser()
        cure = "give a TorchScript file or a copy of CoTracker's repository"
        if not path.is_file() and not (path / "hubconf.py").is_file():
            raise InputError("there is no CoTracker", str(path), cure)
        try:
            if path.is_file():
                self._model: Any = torch.jit.load(str(path), map_location=self._device)
            else:
                self._model = _from_hub(path, weights).to(self._device)
        except InputError:
            raise
        except Exception as error:
            # A foreign file or foreign code fails in any way it likes.
            line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise InputError(f"no CoTracker: {line}", str(path), cure) from None
        self._model.eval()

    def track(self, images: Sequence[np.ndarray], points: np.ndarray) -> Trajectories:
        """See `PointTracker`."""
        import torch

        points = np.asarray(points, np.float32).reshape(-1, 2)
        if not len(points) or len(images) < 2:
            places = np.repeat(points[None], len(images), axis=0)
            return Trajectories(places, np.ones(places.shape[:2], bool))
        video = torch.from_numpy(np.stack(images)).to(self._device)
        video = video.permute(0, 3, 1, 2)[None].float()
        queries = np.column_stack([np.zeros(len(points), np.float32), points])
        with torch.inference_mode():
            places, visible = self._model(video, torch.from_numpy(queries)[None].to(self._device))[
                :2
            ]
        return Trajectories(
            places[0].float().cpu().numpy(), (visible[0].float() > 0.5).cpu().numpy()
        )


def _from_hub(path: Path, weights: str) -> Any:
    """A predictor of a repository, with weights of a file or of torch's hub cache."""
    import torch

    tree = ast.parse((path / "hubconf.py").read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    offered = [name for name in _ENTRIES if name in names]
    if not offered:
        raise ValueError(f"hubconf.py offers none of {', '.join(_ENTRIES)}")
    if not weights:
        return torch.hub.load(str(path), offered[0], source="local")
    file = Path(weights).expanduser()
    if not file.is_file():
        raise InputError("there are no such weights", str(file), "check points_weights")
    with foreign(file, "not a file of weights", "check points_weights"):
        torch_files.check(file)
    state = torch.load(file, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    # Windows are told apart by the file's name alone where shapes are the same.
    window = re.search(r"wind_(\d+)", file.name)
    if window and f"cotracker_w{window[1]}" in offered:
        offered = [f"cotracker_w{window[1]}"]
    for name in offered:
        predictor = torch.hub.load(str(path), name, source="local", pretrained=False)
        own = predictor.model.state_dict()
        if {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in state.items()}:
            predictor.model.load_state_dict(state)
            return predictor
    raise InputError(
        f"weights of {len(state)} tensors, which fit none of {', '.join(offered)}",
        str(file),
        "give the repository at the commit that they belong to",
    )
