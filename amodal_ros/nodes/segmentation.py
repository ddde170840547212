"""Frames to amodal instances with any model of the registry."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.drive.assembler import Moment
from amodal_core.drive.outputs import instances_output
from amodal_core.drive.shared import Shared
from amodal_core.drive.topics import (
    CAMERA_INFO,
    DEPTH,
    IMAGE,
    INSTANCES,
    ODOM,
    POINTS,
    TF,
    TF_STATIC,
    Topic,
)
from amodal_core.errors import InputError
from amodal_core.frame import Report
from amodal_core.geometry.lifting import PARTS
from amodal_core.models import registry
from amodal_core.models.base import Model
from amodal_core.models.batching import BatchedModel
from amodal_core.models.registry import DEFAULT, FALLBACK
from amodal_core.pipeline import Pipeline
from amodal_core.settings import parse_rules
from amodal_core.warm_up import warm_up_frame
from amodal_ros.conversions import FACTORY
from amodal_ros.declarations import Declaration, Parameter
from amodal_ros.running import run
from amodal_ros.synced_node import SENSORS, SyncedNode


class Segmentation(SyncedNode):
    """Runs the model; subscribes only to what that model needs."""

    declaration = Declaration(
        name="segmentation",
        purpose="Finds the objects of each frame: visible and amodal masks, occluders, distance. "
        "Subscribes only to the inputs that the chosen model needs.",
        subscribes=(IMAGE, CAMERA_INFO, POINTS, DEPTH, TF_STATIC, TF, ODOM),
        publishes=(INSTANCES,),
        parameters=(
            Parameter("model", DEFAULT, "Name of the model; `amodal models` lists them."),
            Parameter(
                "checkpoint",
                "",
                "Weights file of a learned model (.safetensors); empty: the one that ships.",
            ),
            Parameter(
                "settings",
                "",
                "Settings in place of the checkpoint's, such as detector=geometric,min_score=0.3.",
            ),
            Parameter(
                "min_score",
                0.0,
                "Objects that score less are dropped, beside those that the model drops itself by "
                "its setting of that name.",
                low=0.0,
                high=1.0,
                dynamic=True,
            ),
            Parameter("device", "cpu", "Torch device, such as cpu or cuda:0."),
            Parameter(
                "batch",
                8,
                "Where one process serves several cameras, frames that go through the model in one "
                "call at most; with 1 the results are to the last bit those of each camera alone.",
                low=1,
                high=64,
            ),
            Parameter(
                "optional_inputs",
                True,
                "Wait also for inputs that the model can do without but uses where they are there, "
                "such as the image for `geometric`, and for the scan that gives objects 3D boxes.",
            ),
            *SENSORS,
        ),
    )

    model: Model

    def __init__(self, models: dict[Any, Model] | None = None, **kwargs: Any) -> None:
        self._models = models  # that segmentations of this process share, by what they were made of
        super().__init__(**kwargs)

    # Built where their model needs them.
    _needs: tuple[Topic, ...] = ()
    _parts: frozenset[str] = frozenset()

    def configure(self) -> None:
        """Load the model, or the one without weights where its checkpoint is missing."""
        self.model = self._shared()
        self._pipeline = Pipeline(self.model)
        self._parts = self.model.inputs
        if self.value("optional_inputs"):
            # Whatever the model needs, a scan gives its objects boxes in space.
            self._parts = self._parts | getattr(self.model, "optional", frozenset()) | PARTS
        self.calibrated = "calibration" in self._parts
        # A camera_info tells also whether the image has to be rectified.
        required = self.calibrated or "image" not in self._parts
        needs = [replace(CAMERA_INFO, required=required)]
        if self.value("calibration"):
            needs = [] if "image" in self._parts else [IMAGE]
        for name, topic in (("image", IMAGE), ("points", POINTS), ("depth", DEPTH)):
            if name in self._parts:
                needs.append(topic)
        self._needs = tuple(needs)
        super().configure()
        # A model's first frame compiles and allocates: seconds, in which no real frame may wait.
        report = Report()
        self.model.infer([Pipeline.project(warm_up_frame(), report)], report)
        self.model.reset()
        self.warn_all(report.warnings)
        self.get_logger().info(
            f"model {self.model.name} on {self.value('device')}, "
            f"inputs: {', '.join(sorted(self._parts))}"
        )

    def frame_topics(self) -> tuple[str, ...]:
        """The image, or camera_info with its stamp where the model needs no image; and the rest."""
        names = {t.name for t in self._needs}
        first = IMAGE.name if IMAGE.name in names else CAMERA_INFO.name
        return (first, *(n for n in (POINTS.name, DEPTH.name) if n in names))

    def optional_topics(self) -> tuple[str, ...]:
        """A scan or depth image that the model can do without."""
        topics = (("points", POINTS), ("depth", DEPTH))
        return tuple(t.name for part, t in topics if part in self._parts - self.model.inputs)

    def inputs(self) -> tuple[Topic, ...]:
        """What the model needs."""
        transforms = (TF_STATIC, TF) if self._parts & {"calibration", "points"} else ()
        odometry = (ODOM,) if "points" in self._parts else ()
        return (*self._needs, *transforms, *odometry)

    def process(self, stamp: int, item: Moment) -> None:
        """Run the model on one frame."""
        made, report = self.read(item), Report()
        # On the host once, for all who take them.
        instances = self._pipeline.segment(made.frame, report).numpy()
        least = self.value("min_score")
        if least:
            instances = instances[np.asarray(instances.scores) >= least]
        self.warn_all(report.warnings)
        classes = self.model.classes
        result = instances, dict(enumerate(classes)), made.lidar_frame
        self.pass_on(
            INSTANCES,
            Shared.made(INSTANCES.name, result, stamp, made.frame_id),
            lambda: instances_output(
                FACTORY, instances, stamp, made.frame_id, classes, made.lidar_frame
            ),
        )

    def reset_state(self) -> None:
        """Forget what the model remembers of the stream."""
        self.model.reset()

    def _shared(self) -> Model:
        """The model; the other cameras' where it keeps nothing of a stream and theirs is alike."""
        if self._models is None:
            return self._load()
        names = ("model", "checkpoint", "settings", "device", "batch")
        made_of = tuple(self.value(name) for name in names)
        if made_of not in self._models:
            model = self._load()
            if getattr(model, "remembers", False):
                return model
            self._models[made_of] = BatchedModel(model, self.value("batch"))
        return self._models[made_of]

    def _load(self) -> Model:
        name, checkpoint = self.value("model"), self.value("checkpoint")
        available = registry.available()
        if name not in available:
            listed = f"there are: {', '.join(available)}"
            raise InputError(f"there is no model '{name}'", "parameter model", listed)
        if name == FALLBACK:
            checkpoint = ""
        elif not Path(checkpoint).is_file() and (checkpoint or not registry.shipped(name)):
            lacks = (
                f"there is no checkpoint {checkpoint}" if checkpoint else "no checkpoint is given"
            )
            self.get_logger().warning(
                f"{lacks}: the model '{name}' cannot run without its weights, '{FALLBACK}' runs in "
                "its place (set the parameter `checkpoint`)"
            )
            return registry.create(FALLBACK, self.value("device"))
        rules = [rule for rule in self.value("settings").split(",") if rule.strip()]
        settings = parse_rules(rules, "parameter settings")
        return registry.create(name, self.value("device"), checkpoint, **settings)


def main() -> int:
    """Run the node."""
    return run(Segmentation)


if __name__ == "__main__":
    sys.exit(main())
