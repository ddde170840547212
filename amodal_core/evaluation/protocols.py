"""Which numbers are quoted, over which bins, by which rules: the protocols of the field by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from amodal_core.errors import InputError
from amodal_core.evaluation import occluded_iou

Range = tuple[float, float]


@dataclass(frozen=True)
class Bin:
    """A part of the truth, both ends inclusive as in COCO.

    Attributes:
        occlusion: range of the hidden share of the amodal area.
        area: range of the area in pixels of what is compared (box, visible or amodal mask; for
            videos the mean over the frames in which the object is present).
        own_occlusion: also ignore unmatched detections whose *own* predicted occlusion is outside;
            otherwise they are ignored by area alone.
    """

    occlusion: Range | None = None
    area: Range | None = None
    own_occlusion: bool = False


@dataclass(frozen=True)
class Column:
    """One number: AP or AR in a bin.

    Attributes:
        name: its name in tables and files.
        bin: the truth that counts.
        recall: average recall instead of average precision.
        iou: one IoU threshold; None for the mean over .50:.05:.95.
        limit: detections an image (or video) that are looked at.
    """

    name: str
    bin: Bin
    recall: bool = False
    iou: float | None = None
    limit: int = 100


@dataclass(frozen=True)
class Protocol:
    """A named list of numbers and the rules that they are computed by.

    Attributes:
        name: its name for `--protocol`.
        says: one paragraph, printed beside the numbers.
        columns: the numbers; none where only hidden parts are compared.
        class_agnostic: ignore classes when matching.
        kinds: what is compared by default: "box", "visible", "amodal".
        hidden: the protocol of `occluded_iou` that is asked for; "" for those that always are.
    """

    name: str
    says: str
    columns: tuple[Column, ...]
    class_agnostic: bool = False
    kinds: tuple[str, ...] = ("box", "visible", "amodal")
    hidden: str = ""


SMALL, MEDIUM, LARGE = (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, inf)
_ALL = Bin()

_HIDDEN = tuple(
    Protocol(p.name, p.says, (), hidden=p.name) for p in occluded_iou.PROTOCOLS.values()
)

_COCO_PRECISION = (
    Column("AP", _ALL),
    Column("AP50", _ALL, iou=0.5),
    Column("AP75", _ALL, iou=0.75),
    Column("AP small", Bin(area=SMALL)),
    Column("AP medium size", Bin(area=MEDIUM)),
    Column("AP large", Bin(area=LARGE)),
)
_COCO_RECALL = (
    Column("AR@1", _ALL, recall=True, limit=1),
    Column("AR@10", _ALL, recall=True, limit=10),
    Column("AR@100", _ALL, recall=True),
)
_OCCLUSION = (
    Column("AP partial", Bin(occlusion=(0.0, 0.25))),
    Column("AP medium", Bin(occlusion=(0.25, 0.5))),
    Column("AP heavy", Bin(occlusion=(0.5, 1.0))),
    Column("AP occluded >0.15", Bin(occlusion=(0.15, 1.0))),
)


def _vrsp(low: float, own: bool = True) -> Bin:
    return Bin(occlusion=(low, 1.0), own_occlusion=own)


def _field(names: tuple[str, ...], bins: tuple[Bin, ...], iou: float) -> tuple[Column, ...]:
    return tuple(Column(name, b, iou=iou) for name, b in zip(names, bins, strict=True))


# Shares are kept in single precision: ends of bins belong to both.
_EDGE = 1e-6
_VISIBILITY = {
    "": _ALL,
    **{
        name: Bin(occlusion=(1 - high - _EDGE, 1 - low + _EDGE))
        for name, low, high in (("HO", 0, 0.1), ("PO", 0.1, 0.8), ("HP", 0, 0.8), ("HV", 0.8, 1))
    },
}

IMAGE_PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "default",
            "COCO AP (IoU .50:.05:.95, 101 recalls, 100 detections an image) by class; sizes "
            "32² and 96² pixels of the mask (or box) compared; occlusion is the truth's hidden "
            "share of its amodal area: partial [0,.25], medium [.25,.5], heavy [.5,1], occluded "
            ">= .15. Truth outside a bin is ignored with what matches it; unmatched detections "
            "count in every occlusion bin.",
            _COCO_PRECISION + _COCO_RECALL + _OCCLUSION,
        ),
        Protocol(
            "coco",
            "The twelve numbers of COCO: AP over IoU .50:.05:.95, sizes by the area of the mask "
            "(or box) compared, AR at 1, 10 and 100 detections an image.",
            _COCO_PRECISION
            + _COCO_RECALL
            + tuple(
                Column(name, Bin(area=size), recall=True)
                for name, size in (
                    ("AR small", SMALL),
                    ("AR medium size", MEDIUM),
                    ("AR large", LARGE),
                )
            ),
        ),
        Protocol(
            "vrsp",
            "VRSP-Net and AISFormer: AP of occluded objects, occlusion >= .15, .25 and .4 of the "
            "amodal area. An unmatched detection counts only where its own predicted masks say the "
            "same occlusion.",
            (
                Column("AP", _ALL),
                Column("AP50", _ALL, iou=0.5),
                Column("AP75", _ALL, iou=0.75),
                Column("AR@100", _ALL, recall=True),
                Column("AP occluded >0.15", _vrsp(0.15)),
                Column("AP occluded >0.25", _vrsp(0.25)),
                Column("AP occluded >0.40", _vrsp(0.40)),
            ),
        ),
        Protocol(
            "s-amodal",
            "S-AModal: class-agnostic AP50; all = occlusion [0,.75] (more is ignored), P [0,.25], "
            "M [.25,.5], H [.25,.75]; sizes 32² and 96². Unmatched detections are ignored by "
            "area only.",
            (
                Column("AP", Bin(occlusion=(0.0, 0.75))),
                *_field(
                    ("AP50", "AP50 P", "AP50 M", "AP50 H"),
                    tuple(
                        Bin(occlusion=o) for o in ((0, 0.75), (0, 0.25), (0.25, 0.5), (0.25, 0.75))
                    ),
                    0.5,
                ),
                *_field(
                    ("AP50 large", "AP50 medium size", "AP50 small"),
                    tuple(Bin(occlusion=(0, 0.75), area=a) for a in (LARGE, MEDIUM, SMALL)),
                    0.5,
                ),
            ),
            class_agnostic=True,
            kinds=("visible", "amodal"),
        ),
        Protocol(
            "vatrack",
            "VATrack on SAIL-VOS: AP over IoU .50:.05:.95 with occlusion [0,.75]; every other "
            "column is AP50: P = [0,.25], H = [.25,.75], sizes 32² and 96². Unmatched "
            "detections are ignored by area only.",
            (
                Column("AP", Bin(occlusion=(0.0, 0.75))),
                *_field(
                    ("AP50", "AP50 P", "AP50 H"),
                    tuple(Bin(occlusion=o) for o in ((0, 0.75), (0, 0.25), (0.25, 0.75))),
                    0.5,
                ),
                *_field(
                    ("AP50 large", "AP50 medium size", "AP50 small"),
                    tuple(Bin(occlusion=(0, 0.75), area=a) for a in (LARGE, MEDIUM, SMALL)),
                    0.5,
                ),
                Column("AR@100", Bin(occlusion=(0.0, 0.75)), recall=True),
            ),
            kinds=("visible", "amodal"),
        ),
        Protocol(
            "tao-amodal",
            "TAO-Amodal: AP of amodal boxes over IoU .50:.05:.95, 100 detections of a class and "
            "image (the original: 300 of an image); by the truth's visibility HO = [0,.1], PO = "
            "[.1,.8], HP = [0,.8], HV = [.8,1]. Results of classes that an image is not annotated "
            "with do not count (LVIS).",
            tuple(
                Column(f"AP{iou or ''}{name and f' {name}'}", hidden, iou=iou and iou / 100)
                for name, hidden in _VISIBILITY.items()
                for iou in (None, 50, 75)
            ),
            kinds=("box",),
        ),
        *_HIDDEN,
    )
}
IMAGE_PROTOCOLS["aisformer"] = replace(IMAGE_PROTOCOLS["vrsp"], name="aisformer")

# "Heavy" is half hidden and more; the H of VATrack and S-AModal begins at a quarter.
_OURS = {"partial": (0.0, 0.25), "medium": (0.25, 0.5), "heavy": (0.5, 1.0)}
_PAPER = {"P": (0.0, 0.25), "M": (0.25, 0.5), "H": (0.25, 0.75)}
_YTVIS_SMALL, _YTVIS_MEDIUM, _YTVIS_LARGE = (0.0, 128.0**2), (128.0**2, 256.0**2), (256.0**2, inf)


def _video(
    name: str,
    says: str,
    sizes: tuple[Range, ...] = (SMALL, MEDIUM, LARGE),
    occlusions: dict[str, Range] = _PAPER,
    most: Range | None = (0.0, 0.75),
) -> Protocol:
    small, medium, large = sizes
    everything = Bin(occlusion=most)
    return Protocol(
        name,
        says,
        (
            Column("vAP", everything),
            Column("vAP50", everything, iou=0.5),
            Column("vAP75", everything, iou=0.75),
            *(Column(f"vAP50 {k}", Bin(occlusion=o), iou=0.5) for k, o in occlusions.items()),
            Column("vAP50 large", Bin(occlusion=most, area=large), iou=0.5),
            Column("vAP50 medium size", Bin(occlusion=most, area=medium), iou=0.5),
            Column("vAP50 small", Bin(occlusion=most, area=small), iou=0.5),
            Column("vAR@1", everything, recall=True, limit=1),
            Column("vAR@10", everything, recall=True, limit=10),
            Column("vAR@100", everything, recall=True),
        ),
        kinds=("visible", "amodal"),
    )


_VIDEO_SAYS = (
    "Spatio-temporal IoU: intersections and unions summed over the frames of a video; the "
    "track's score is the mean of its frames' scores; its occlusion the mean of the larger half "
    "of its frames' occlusion rates; its size the mean area over the frames in which it is "
    "present. "
)

VIDEO_PROTOCOLS = {
    p.name: p
    for p in (
        _video(
            "default",
            _VIDEO_SAYS + "All occlusions count; partial [0,.25], medium [.25,.5], heavy [.5,1]; "
            "sizes 32² and 96² pixels.",
            occlusions=_OURS,
            most=None,
        ),
        _video(
            "vatrack",
            _VIDEO_SAYS + "VATrack: occlusion above .75 is ignored; P = [0,.25], M = [.25,.5], "
            "H = [.25,.75]; sizes 32² and 96² pixels.",
        ),
        replace(
            _video(
                "s-amodal",
                _VIDEO_SAYS
                + "S-AModal: class-agnostic, occlusion above .75 is ignored; P = [0,.25], "
                "M = [.25,.5], H = [.25,.75]; sizes 32² and 96² pixels.",
            ),
            class_agnostic=True,
        ),
        _video(
            "youtube-vis",
            _VIDEO_SAYS + "YouTube-VIS: sizes 128^2 and 256^2 pixels; all occlusions count.",
            (_YTVIS_SMALL, _YTVIS_MEDIUM, _YTVIS_LARGE),
            _OURS,
            None,
        ),
        *_HIDDEN,
    )
}


def legacy_size_names(protocol: Protocol) -> Protocol:
    """VRSP's numbers under the names that the original evaluation prints: APs, APm and APl.

    There the ground truth's area was replaced by its visible share, so that COCO's sizes became
    occlusion: "small" is a visible share up to .85, "medium" up to .75, "large" up to .6.

    Raises:
        InputError: the protocol is another than "vrsp".
    """
    if protocol.name not in ("vrsp", "aisformer"):
        raise InputError(
            "occlusion stood under the size names in VRSP's evaluation only",
            "--legacy-names",
            "use it with --protocol vrsp",
        )
    names = {
        "AP occluded >0.15": "APs (occlusion >0.15)",
        "AP occluded >0.25": "APm (occlusion >0.25)",
        "AP occluded >0.40": "APl (occlusion >0.40)",
    }
    columns = tuple(replace(c, name=names.get(c.name, c.name)) for c in protocol.columns)
    return replace(protocol, columns=columns)


def find(protocols: dict[str, Protocol], name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: there is none.
    """
    if name not in protocols:
        raise InputError(
            f"no protocol '{name}'", "--protocol", f"there are: {', '.join(protocols)}"
        )
    return protocols[name]
