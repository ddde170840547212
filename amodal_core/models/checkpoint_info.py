"""What a checkpoint says of itself; read without PyTorch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from amodal_core.errors import InputError

FORMAT = "amodal_ros checkpoint 1"


@dataclass
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        model: name in the registry.
        config: the model's configuration as JSON values.
        classes: class names.
        data: what it was trained on, one line.
        commit: of the code that trained it.
        metrics: on the held-out split.
        partial: it has not all tensors of the model: a beginning for training.
    """

    model: str
    config: dict[str, Any]
    classes: tuple[str, ...]
    data: str = ""
    commit: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    partial: bool = False


def read_info(path: str | Path) -> CheckpointInfo:
    """What a checkpoint says of itself, without its tensors.

    Raises:
        InputError: there is no such file, or it is none of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("there is no such checkpoint", str(path), "check the path")
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"not a safetensors file: {error}", str(path), "train or copy it again"
        ) from None
    if metadata.get("format") != FORMAT:
        raise InputError(
            "the file does not say which model it is of",
            str(path),
            "`amodal weights import` makes a checkpoint of published weights",
        )
    try:
        config, classes = json.loads(metadata["config"]), json.loads(metadata["classes"])
        metrics = json.loads(metadata.get("metrics", "{}"))
        names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if not (names and isinstance(config, dict) and isinstance(metrics, dict)):
            raise ValueError("configuration, classes or metrics of another kind")
        return CheckpointInfo(
            metadata["model"],
            config,
            tuple(classes),
            metadata.get("data", ""),
            metadata.get("commit", ""),
            metrics,
            metadata.get("partial") == "true",
        )
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(
            f"its metadata are broken: {error}", str(path), "write it with `amodal train`"
        ) from None
