"""Settings that every trainable model has; known without PyTorch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from amodal_core.models.layers.resizing import Resizing
from amodal_core.runtime.engines import Runtime
from amodal_core.runtime.parity import Precision
from amodal_core.settings import Count, Positive, Share, settings_type

ClassNames = Annotated[tuple[str, ...], Field(min_length=1)]


# What runs a network is for this machine to say, not for the one that wrote its checkpoint.
OF_THE_MACHINE = frozenset({"runtime", "precision"})


@settings_type
class LearnedConfig:
    """What every trainable model can be told; models extend it.

    Attributes:
        classes: class names.
        lidar: take depth as further input channels.
        short_side: pixels of the image's shorter side at the model's input; 0 keeps the size.
        long_side: most pixels of the longer side; 0 for no limit.
        resize: how images come to that size: "torch" as floats, "pil" or "opencv" as bytes, which
            published weights need to the last digit; see `layers.resizing`.
        most_pixels: of the image at the model's input, whatever its shape; 0 for no limit.
        min_score: detections below it are dropped.
        max_instances: of the best-scored in an image.
        runtime: what runs a checkpoint's network: "auto" is the fastest of those that are installed
            that gives what torch gives, as seen on the first frame.
        precision: of a network's arithmetic outside of torch; "bfloat16" and "int8" are OpenVINO's
            alone, and "auto" takes them where the processor computes in them. "int8" needs a graph
            that `amodal export --int8` made, which says what it costs.
    """

    classes: ClassNames
    lidar: bool = True
    short_side: Count = 0
    long_side: Count = 0
    resize: Resizing = "torch"
    most_pixels: Count = 0
    min_score: Share = 0.05
    max_instances: Positive = 100
    runtime: Runtime = "auto"
    precision: Precision = "auto"
