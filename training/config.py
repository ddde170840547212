"""The settings of a run: one typed YAML file; wrong keys and values are named before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from amodal_core.errors import InputError
from amodal_core.models.layers.resizing import Resizing
from amodal_core.settings import checked, merge, parse_rules, settings_type
from amodal_core.yaml_texts import read_yaml

_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Part = Annotated[float, Field(ge=0, lt=1)]  # of which something must be left


@settings_type
class Synthetic:
    """Drives that are rendered before the first step; see `amodal synth --help`.

    Attributes:
        frames: in all.
        seed: of everything in them.
        size: width, height; None for the camera's own.
        camera: kitti or asd.
        focal: pixels; None for the camera's own field of view.
        length: frames of a sequence; another world every so many frames.
        street: urban, residential or arterial; None to draw one.
        weather: sun, overcast or dusk; None to draw one.
        randomise: domain randomisation.
        structures: share of the sequences with bridges, sign gantries, shelters, containers, walls.
        riders: times as many cyclists as streets have.
        columns: LiDAR measurements of a beam in a turn.
    """

    frames: _Positive
    seed: _Count = 0
    size: tuple[int, int] | None = None
    camera: str = "kitti"
    focal: Annotated[float, Field(gt=0)] | None = None
    length: _Positive = 20
    street: str | None = None
    weather: str | None = None
    randomise: bool = False
    structures: Annotated[float, Field(ge=0, le=1)] = 0.0
    riders: Annotated[float, Field(ge=0)] = 1.0
    columns: Annotated[int, Field(ge=16)] = 2048


@settings_type
class Source:
    """Where samples come from: a path or synthetic drives.

    Attributes:
        path: of a data set as `amodal data` reads it, or a pattern such as "drives/*" for several.
        format: a name that `amodal data check` knows; recognised when "".
        images: folder of the images, where it is not near the annotations.
        options: of the reader.
        synthetic: rendered drives instead of a path.
        start: first sample that is used.
        stop: the sample after the last one used; None for all.
    """

    path: str = ""
    format: str = ""
    images: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    synthetic: Synthetic | None = None
    start: _Count = 0
    stop: int | None = None


@settings_type
class ScanAugment:
    """Random changes of the scan alone, for models that learn from it without the image.

    With `flip` they come after all changes of the image; mirroring then happens between the moves
    of single objects and those of the whole street, as published. Lengths in metres, angles in
    radians.

    Attributes:
        objects: by class, how many a scan is filled up to with objects of others, where they stood
            there and if nothing stands there.
        least_points: by class, the returns that such an object has at least.
        move: deviation of each object's shift along each axis.
        spin: largest turn of each object.
        tries: places drawn for an object until one is free.
        turn: largest turn of the street about the LiDAR.
        scale: lowest and highest factor of all lengths.
        shift: deviation of the street's shift along each axis.
    """

    objects: dict[str, _Count] = field(default_factory=dict)
    least_points: dict[str, _Count] = field(default_factory=dict)
    move: Annotated[float, Field(ge=0)] = 0.25
    spin: Annotated[float, Field(ge=0)] = 0.15707963267
    tries: _Positive = 100
    turn: Annotated[float, Field(ge=0)] = 0.78539816
    scale: tuple[float, float] = (0.95, 1.05)
    shift: Annotated[float, Field(ge=0)] = 0.0


@settings_type
class Augment:
    """Random changes of a sample; image, points, calibration, masks and boxes move together.

    Attributes:
        flip: probability of mirroring left and right.
        short_sides: lengths in pixels of which one is drawn for the image's shorter side; empty
            for the model's own `short_side`.
        long_side: most pixels of the longer side; 0 for the model's own `long_side`.
        resize: how images come to their size, "torch" for what loses least, or "pil" or "opencv"
            as bytes; a model that has its own `resize` learns with that.
        scale: lowest and highest factor on top of that.
        crop: width, height of a window that is cut out at a random place; None for no crop.
        brightness: largest relative change, likewise the next three.
        contrast: see there.
        saturation: see there.
        hue: largest turn, in whole turns.
        tone: largest change of each colour's own gain and gamma: other cameras and light.
        blur: largest deviation of a Gaussian blur in pixels.
        noise: largest deviation of a sensor's noise, of 255.
        depth_dropout: probability that a sample's depth is wholly unknown, so that one model works
            with and without a LiDAR.
        point_dropout: largest share of points that is left out of a sample.
        scan: changes of the scan alone; None for none.
    """

    flip: _Share = 0.5
    short_sides: tuple[int, ...] = ()
    long_side: _Count = 0
    resize: Resizing = "torch"
    scale: tuple[float, float] = (1.0, 1.0)
    crop: tuple[int, int] | None = None
    brightness: _Part = 0.0
    contrast: _Part = 0.0
    saturation: _Part = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    tone: _Part = 0.0
    blur: Annotated[float, Field(ge=0)] = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.0
    depth_dropout: _Share = 0.0
    point_dropout: _Part = 0.0
    scan: ScanAugment | None = None


@settings_type
class ClipConfig:
    """Frames of one video that are learnt from together; models for videos need it.

    Attributes:
        frames: of a clip; 0 for the model's own.
        reach: most frames between a key frame and its reference, for models that learn from such
            pairs; 0 for the model's own.
    """

    frames: _Count = 0
    reach: _Count = 0


@settings_type
class PartConfig:
    """How weights of one part of the model move, such as those that begin with public ones.

    Attributes:
        rate: factor on the learning rate; 0 keeps the weights as they are.
        pull: towards where the weights began, instead of `weight_decay`, which pulls them to zero
            (L2-SP, Li et al. 2018; taken out of the gradient as AdamW does with its decay).
    """

    rate: Annotated[float, Field(ge=0)] = 1.0
    pull: Annotated[float, Field(ge=0)] = 0.0


@settings_type
class Optimiser:
    """How weights move.

    Attributes:
        name: sgd or adamw.
        rate: the learning rate that the schedule scales.
        momentum: of sgd.
        betas: of adamw.
        weight_decay: of what `decays` names.
        decays: "matrices" and kernels; "biases", too (detectron2); or "all", norms as well
            (mmdetection).
        clip: largest norm of all gradients together; 0 for no limit.
        parts: name of a module, such as "backbone" or "backbone.stages.0", -> how its weights move;
            the longest name that fits a weight counts.
    """

    name: Literal["sgd", "adamw"] = "adamw"
    rate: Annotated[float, Field(gt=0)] = 1e-3
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decays: Literal["matrices", "biases", "all"] = "matrices"
    clip: Annotated[float, Field(ge=0)] = 0.0
    parts: dict[str, PartConfig] = field(default_factory=dict)


@settings_type
class Schedule:
    """How the learning rate goes over the steps, see `training.schedules`.

    Attributes:
        kind: step, cosine or one_cycle.
        warm_up: steps over which the rate rises linearly.
        warm_up_from: its share of the rate at the first step.
        milestones: steps at which a step schedule multiplies the rate by `gamma`.
        gamma: see there.
        floor: share of the rate at which a cosine ends.
    """

    kind: Literal["step", "cosine", "one_cycle"] = "cosine"
    warm_up: _Count = 0
    warm_up_from: _Share = 0.001
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    floor: _Share = 0.0


@settings_type
class Config:
    """A run.

    Attributes:
        model: name in the registry.
        settings: of the model, without its classes.
        classes: names that the model learns; the training data's own when empty.
        class_map: class of the data, in any case -> class of the model, or null for objects that
            are neither learnt nor counted as background. Equal and synonymous names need no entry,
            nor do classes that no object has.
        smallest: pixels of an amodal mask below which an object is neither learnt nor counted.
        least_visible: pixels of a visible mask below which an object is not learnt, and not counted
            where the model is judged: single images do not show it.
        train: where the samples come from.
        held_out: where those come from that the model is judged on.
        augment: random changes of the training samples.
        clip: what models for videos learn from; None for single frames.
        optimiser: how weights move.
        schedule: of the learning rate.
        steps: of the optimiser.
        batch_size: samples a step, or clips where there are clips, over all processes and
            accumulated parts together.
        accumulate: parts that a step's samples are computed in, one after the other.
        precision: fp32, bf16 or fp16 (with loss scaling).
        ema: decay of the moving average of the weights that is judged and kept; 0 for none.
        seed: of weights, order and augmentation.
        workers: reading processes of each training process.
        device: such as cpu or cuda; "" for a GPU where there is one.
        log_every: steps.
        log_to: what shows the run beside metrics.jsonl and report.html: tensorboard, wandb, mlflow.
        project: name of the project or experiment there.
        samples_every: steps between pictures of held-out samples with their predictions, or of
            training samples where nothing is held out; 0 for none. A run that long ends with some.
        samples: how many are shown.
        save_every: steps.
        evaluate_every: steps; 0 for only at the end.
        metric: kind and column of the best checkpoint, as `amodal eval image` names them.
        tracker: name of the tracker that held-out videos pass through before they are judged, as
            VATrack does it; "" to judge the detections.
        tracker_settings: those that differ from its defaults.
        out: folder of the run.
        cache: folder of rendered drives and unpacked bags, shared by runs.
        init: checkpoint whose weights are the first ones, "" for none. Of another model the tensors
            of the same names are taken, such as trunk and boxes of a Mask R-CNN for AISFormer.
        init_classes: "same": the checkpoint has the run's classes. "any": it may have others, such
            as COCO's; tensors whose shape depends on the classes then begin anew.
        store: fp32 or fp16, of the checkpoints for inference.
        sharding: none: every process holds the whole model. fsdp: each holds its share of the
            weights, of gradients and of the optimiser's state.
        split: every process takes two devices, the first for backbone and pyramid, the second for
            the heads.
    """

    model: str
    train: Annotated[tuple[Source, ...], Field(min_length=1)]
    settings: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    class_map: dict[str, str | None] = field(default_factory=dict)
    smallest: _Count = 0
    least_visible: _Count = 0
    held_out: tuple[Source, ...] = ()
    augment: Augment = field(default_factory=Augment)
    clip: ClipConfig | None = None
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    steps: _Positive = 1000
    batch_size: _Positive = 2
    accumulate: _Positive = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: _Part = 0.0
    seed: _Count = 0
    workers: _Count = 2
    device: str = ""
    log_every: _Positive = 20
    log_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    project: Annotated[str, Field(min_length=1)] = "amodal"
    samples_every: _Count = 500
    samples: _Positive = 4
    save_every: _Positive = 500
    evaluate_every: _Count = 0
    metric: str = "amodal AP"
    tracker: str = ""
    tracker_settings: dict[str, Any] = field(default_factory=dict)
    out: str = "runs/model"
    cache: str = "runs/cache"
    init: str = ""
    init_classes: Literal["same", "any"] = "same"
    store: Literal["fp32", "fp16"] = "fp32"
    sharding: Literal["none", "fsdp"] = "none"
    split: bool = False


def as_values(config: Config) -> dict[str, Any]:
    """Plain values, the inverse of reading."""
    return asdict(config)


def read(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Args:
        path: of the YAML file. Its `base: FILE`, beside it or by a path from it, is read first;
            groups are then merged key by key, everything else, lists too, is replaced.
        overrides: "setting=value" each; "optimiser.rate=0.01" reaches into a group,
            "train.0.path=x" into a list; values are YAML.

    Raises:
        InputError: a file is missing or no YAML, files are the base of each other, a key is
            unknown, or a value does not fit.
    """
    path = Path(path)
    if not path.is_file() and path.parts[:2] == ("training", "configs"):
        # Outside of a checkout those that were installed.
        path = Path(__file__).parent.joinpath(*path.parts[1:])
    values = _inherited(path, [])
    for text in overrides:  # one by one: what reaches into a list finds the list of the one before
        _override(values, parse_rules([text], "override"))
    return parse(values, str(path))


def _inherited(path: Path, derived: list[Path]) -> dict[str, Any]:
    """The values of a file over those of its base; `derived` are the files that lead to it."""
    where = f"base of {derived[-1]}" if derived else str(path)
    if path.resolve() in [p.resolve() for p in derived]:
        chain = " -> ".join(p.name for p in (*derived, path))
        raise InputError(f"files that are the base of each other: {chain}", where, "break the ring")
    if not path.is_file():
        what = f"there is no {path}" if derived else "there is no such configuration"
        raise InputError(what, where, "see training/configs")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError("not a table of keys and values", str(path), "see training/configs")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise InputError(f"base: {base!r} is no file", str(path), "give one path")
    inherited = _inherited(path.parent / Path(base).expanduser(), [*derived, path])
    merge(inherited, values)
    return inherited


def parse(values: dict[str, Any], where: str = "configuration") -> Config:
    """A configuration from plain values.

    Raises:
        InputError: a key is unknown or a value does not fit.
    """
    config = checked(Config, values, where)
    for source in (*config.train, *config.held_out):
        if bool(source.path) == (source.synthetic is not None):
            raise InputError("a source has either a path or synthetic drives", where, "give one")
    if config.split and config.sharding != "none":
        raise InputError("a split model is not sharded", where, "turn off split or sharding")
    return config


def _override(place: Any, values: dict[str, Any], way: str = "") -> None:
    """Put values, nested as their dotted names were, into a table or a list."""
    for key, value in values.items():
        name = f"{way}{key}"
        try:
            index: Any = int(key) if isinstance(place, list) else key
            inner = place[index] if isinstance(place, list) else place.get(index)
        except (ValueError, IndexError):
            raise InputError(f"there is no place '{name}'", "override", "name a key") from None
        if isinstance(value, dict) and isinstance(inner, dict | list):
            _override(inner, value, f"{name}.")
        else:
            place[index] = value
