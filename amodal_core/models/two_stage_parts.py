"""The parts of the two-stage models that run in other runtimes than torch.

What selects among proposals and detections stays in torch, and so does RoIAlign: the graphs between
have inputs of fixed sizes, RoIs go through them some at a time, and what comes out can be compared
number by number. A frame takes no more RoIs through the mask heads than it has detections.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from amodal_core.errors import InputError
from amodal_core.models.layers.backbone import LEVELS
from amodal_core.models.layers.inputs import DEPTH_CHANNELS
from amodal_core.models.layers.parts import InParts, Part
from amodal_core.models.layers.roi_features import RoiFeatures
from amodal_core.models.learned import LearnedModel
from amodal_core.models.onnx_export import EXAMPLE, write_part
from amodal_core.runtime import graphs
from amodal_core.runtime.accelerator import Accelerator
from amodal_core.runtime.parity import OF_TENSORS

LOGITS = tuple(f"logits{k}" for k in range(5))
DELTAS = tuple(f"deltas{k}" for k in range(5))
PROPOSALS, DETECTIONS = 100, 8  # RoIs at a time
# Settings that no graph knows of.
_AROUND = frozenset(
    {
        *("short_side", "long_side", "resize", "most_pixels", "min_score", "max_instances"),
        *("runtime", "precision", "weights", "lidar_weights", "nms", "paste", "proposals"),
    }
)


def trunk_outputs(proposes: bool) -> tuple[str, ...]:
    """Names of what `TwoStage.pyramid` gives."""
    return (*LEVELS, *(LOGITS + DELTAS if proposes else ()))


def trunk(owner: InParts, lidar: bool, proposes: bool) -> Part:
    """Backbone and pyramid, and the head that proposes where there is one."""
    inputs = {"images": torch.zeros(1, 3, *EXAMPLE)}
    if lidar:
        inputs["depth"] = torch.zeros(1, DEPTH_CHANNELS, *EXAMPLE)
    return Part("trunk", owner, "pyramid", inputs, trunk_outputs(proposes))


def boxes(heads: InParts, channels: int, name: str = "boxes", rows: int = PROPOSALS) -> Part:
    """A head of classes and boxes."""
    inputs = {"pooled": torch.zeros(rows, channels, 7, 7)}
    return Part(name, heads, "outputs", inputs, ("classes", "deltas"), rows)


def masks(
    owner: InParts,
    channels: int,
    name: str = "masks",
    method: str = "mask_logits",
    outputs: tuple[str, ...] = ("amodal", "visible"),
) -> Part:
    """A method of a model that draws masks of RoIs, given their classes."""
    inputs = {
        "pooled": torch.zeros(DETECTIONS, channels, 14, 14),
        "labels": torch.zeros(DETECTIONS, dtype=torch.int64),
    }
    return Part(name, owner, method, inputs, outputs, DETECTIONS)


def embeddings(head: InParts, channels: int) -> Part:
    """The head of embeddings."""
    inputs = {"pooled": torch.zeros(DETECTIONS, channels, 7, 7)}
    return Part("embeddings", head, "embedded", inputs, ("embeddings",), DETECTIONS)


def accelerated(model: LearnedModel, parts: Sequence[Part], path: str | Path) -> list[Accelerator]:
    """Put what runs the parts elsewhere into a checkpoint's model, as its `runtime` says.

    Args:
        model: with the checkpoint's weights, on its device.
        parts: of the model.
        path: of the checkpoint.

    Raises:
        InputError: a runtime that is not installed, or one outside of torch on a GPU.
    """
    config, device = model.config, model.device
    if config.runtime == "torch" or (config.runtime == "auto" and device.type != "cpu"):
        return []
    if device.type != "cpu" and config.runtime != "compile":
        raise InputError(
            f"{model.name} runs in torch or compile on {device.type}",
            f"runtime {config.runtime}",
            "take one of them, or auto",
        )
    if config.precision == "int8":
        raise InputError(f"{model.name} has no graph in int8", "precision int8", "leave it out")
    inside = {k: v for k, v in asdict(config).items() if k not in _AROUND}
    key = graphs.key_of(path, model, json.dumps(inside, sort_keys=True))
    # What rounding costs in accuracy was measured for the flagship alone.
    precision = "float32" if config.precision == "auto" else config.precision
    result = []
    for part in parts:
        accelerator = Accelerator(
            part.network(),
            tuple(part.inputs),
            config.runtime,
            precision,
            f"{key}.{part.name}",
            partial(write_part, model, part),
            OF_TENSORS,
            what=f"the network's {part.name}",
            rows=part.rows,
        )
        part.owner.elsewhere[part.method] = accelerator
        result.append(accelerator)
    for module in model.modules():
        if isinstance(module, RoiFeatures):
            module.by_kernel = True
    return result
