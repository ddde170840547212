"""Records what the published evaluators say of seeded inputs: test/fixtures/evaluators.json.

    git clone https://github.com/ifnspaml/vatrack
    git clone https://github.com/ifnspaml/S-AModal
    git clone https://github.com/UARK-AICV/AISFormer
    git clone https://github.com/YutingXiao/Amodal-Segmentation-Based-on-Visible-Region-Segmentation-and-Shape-Prior vrsp
    git clone https://github.com/amazon-science/efficient-object-centric-representation-amodal-segmentation eoras
    git clone https://github.com/amazon-science/self-supervised-amodal-video-object-segmentation savos
    PYTHONPATH=.:test python test/record_evaluators.py FOLDER_OF_THE_CLONES

Nothing of theirs is changed: their evaluators are loaded from the clones and given annotations and
detections as the dictionaries that their loaders make. numpy's removed `np.float` and counts given
as floats are put back for them.
"""  # noqa: E501

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from evaluation_data import PAIRS, layered
from pycocotools import mask as coco
from pycocotools.coco import COCO

from amodal_core.evaluation.sets import AnnotationSet

OUT = Path(__file__).parent / "fixtures" / "evaluators.json"
KINDS = ("amodal", "visible")


def load(path: Path, **given: Any) -> ModuleType:
    """A module of a clone, without its package."""
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(path.stem, None))
    source = path.read_text().replace("from . import mask as maskUtils", "")
    module.__dict__.update(given)
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def annotations(side: AnnotationSet, kind: str) -> list[dict[str, Any]]:
    """One dictionary an entry, with all that any of the evaluators reads."""
    masks, areas = side.rle(kind), side.areas(kind)
    amodal, visible = side.runs("amodal"), side.runs("visible")
    shown = amodal.shared(visible) / np.maximum(amodal.areas, 1)
    rows = []
    for n, mask in enumerate(masks):
        x0, y0, x1, y1 = side.boxes[n].tolist()
        rows.append(
            {
                "id": n + 1,
                "image_id": int(side.image_ids[n]),
                "category_id": int(side.class_ids[n]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": mask,
                "area": float(areas[n]),
                "shown": float(shown[n]),
                "occlude_rate": float(side.occlusion_rates[n]),
                "iscrowd": int(side.crowd[n]),
                "score": float(side.scores[n]),
            }
        )
    return rows


def images(
    module: ModuleType, name: str, truth: AnnotationSet, predictions: AnnotationSet, kind: str,
    share: bool = False, classes: bool = True,
) -> list[float]:  # fmt: skip
    """The numbers of an image evaluator; `share` puts the visible share in place of the area."""
    sides = []
    for side in (truth, predictions):
        data, rows = COCO(), annotations(side, kind)
        for row in rows:
            row["area"] = row["shown"] if share else row["area"]
        data.dataset = {
            "images": [{"id": i.id, "height": i.height, "width": i.width} for i in truth.images],
            "annotations": rows,
            "categories": [{"id": k + 1, "name": c} for k, c in enumerate(truth.classes)],
        }
        data.createIndex()
        sides.append(data)
    run = getattr(module, name)(*sides, "segm")
    run.params.useCats = int(classes)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats.tolist()


def videos(
    evaluator: ModuleType, loader: ModuleType, truth: AnnotationSet, predictions: AnnotationSet,
    kind: str, classes: bool = True,
) -> list[float]:  # fmt: skip
    """The numbers of a video evaluator."""
    records = {i.id: i for i in truth.images}
    names = sorted({i.video for i in truth.images})
    lengths = {v: 1 + max(i.frame for i in truth.images if i.video == v) for v in names}
    sides = []
    for side in (truth, predictions):
        tracks: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
        for n, row in enumerate(annotations(side, kind)):
            if row["area"] > 0:
                video = records[row["image_id"]].video
                tracks[video, int(side.instance_ids[n])].append(row)
        rows = []
        for (video, _), members in tracks.items():
            row = {
                "id": len(rows) + 1,
                "video_id": names.index(video) + 1,
                "category_id": int(np.bincount([m["category_id"] for m in members]).argmax()),
                "iscrowd": max(m["iscrowd"] for m in members),
                "score": float(np.mean([m["score"] for m in members])),
            }
            columns = {
                "segmentations": "segmentation",
                "areas": "area",
                "occlude_rate": "occlude_rate",
            }
            for target, source in columns.items():
                row[target] = [None] * lengths[video]
                for member in members:
                    row[target][records[member["image_id"]].frame] = member[source]
            rows.append(row)
        data = {
            "videos": [
                {"id": n + 1, "height": truth.images[0].height, "width": truth.images[0].width}
                for n in range(len(names))
            ],
            "annotations": rows,
            "categories": [{"id": k + 1, "name": c} for k, c in enumerate(truth.classes)],
        }
        sides.append(loader.YTVIS(data))
    run = evaluator.YTVISeval(*sides, "segm")
    run.params.useCats = int(classes)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats.tolist()


def dense(side: AnnotationSet, kind: str) -> np.ndarray:
    return np.stack([coco.decode(m) for m in side.rle(kind)])


def eoras(loss: ModuleType, truth: AnnotationSet, predictions: AnnotationSet) -> list[float]:
    """mIoU_full and mIoU_occ, object after object as a batch of one clip."""
    place = {
        k: n
        for n, k in enumerate(
            zip(predictions.image_ids.tolist(), predictions.instance_ids.tolist(), strict=True)
        )
    }
    keys = zip(truth.image_ids.tolist(), truth.instance_ids.tolist(), strict=True)
    amodal = dense(predictions, "amodal")
    predicted = [amodal[place[k]] if k in place else 0 * amodal[0] for k in keys]
    clip = [np.stack(predicted), dense(truth, "amodal"), dense(truth, "visible")]
    pred, full, visible = (torch.from_numpy(c).float()[None, :, None] for c in clip)
    whole = loss.iou(pred, full, average=False).item() / len(truth)
    hidden, count = loss.iou(pred - visible, full - visible, average=False, return_num=True)
    return [whole, hidden.item() / count.item()]


def savos(script: Path, truth: AnnotationSet, predictions: AnnotationSet) -> list[float]:
    """mIoU over frames of its evaluation script, whose loop is run on our masks.

    The script reads KINS and pickles at its top level: of it, only its two functions and the
    statements of its loop over the objects of a frame are run.
    """
    tree = ast.parse(script.read_text())
    wanted = ("get_IoU", "get_crop_coord", "iou_metric1")
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in wanted]
    (frames,) = (
        n for n in tree.body if isinstance(n, ast.For) and "kitti_img" in ast.unparse(n.target)
    )
    start = next(k for k, n in enumerate(frames.body) if ast.unparse(n).startswith("img_ious ="))
    space: dict[str, Any] = {"np": np, "savos_iou": [], "savos_inv_iou": []}
    space |= {"all_convex_iou": [], "all_convex_inv_iou": []}
    decode = {}

    class Masks:
        """Stands in for pycocotools, so that a segmentation may be any array."""

        decode = staticmethod(lambda key: decode[key["key"]])
        frPyObjects = staticmethod(lambda key, h, w: key)  # noqa: N815

    hull = ModuleType("cv2")
    hull.RETR_LIST = hull.CHAIN_APPROX_SIMPLE = 0
    hull.findContours = lambda mask, *_: ([np.zeros((1, 1, 2))], None)
    hull.convexHull = lambda contours: contours
    hull.fillPoly = lambda mask, *_: mask
    space |= {"coco_mask": Masks, "cv2": hull}
    exec(compile(ast.Module(functions, []), str(script), "exec"), space)
    body = compile(ast.Module(frames.body[start:], []), str(script), "exec")
    sides = [[dense(s, kind).astype(np.int32) for kind in KINDS] for s in (truth, predictions)]
    for image in truth.images:
        mine = np.flatnonzero(truth.image_ids == image.id)
        theirs = np.flatnonzero(predictions.image_ids == image.id)
        if not len(mine) or not len(theirs):
            continue
        size = [image.height, image.width]
        space["gt_modal_res"] = []
        for n in mine.tolist():
            decode[n, 0], decode[n, 1] = sides[0][0][n][..., None], sides[0][1][n]
            codes = [{"key": (n, k), "size": size} for k in (0, 1)]
            space["gt_modal_res"].append({"segmentation": codes[0], "inmodal_seg": codes[1]})
        space["pred_res"] = {
            k: {"vm": sides[1][1][k], "pred_fm": sides[1][0][k]} for k in theirs.tolist()
        }
        exec(body, space)
    metric = space["iou_metric1"]
    return [float(metric(space[name])) for name in ("savos_iou", "savos_inv_iou")]


def main(clones: Path) -> None:
    setattr(np, "float", float)  # noqa: B010
    linspace = np.linspace
    np.linspace = lambda a, b, n, **options: linspace(a, b, int(n), **options)
    sub = "detectron2/data/amodal_datasets/pycocotools/cocoeval.py"
    vatrack = load(clones / "vatrack/vatrack/datasets/sailvoseval.py")
    tools = clones / "vatrack/mmtracking-0.5.1/mmtrack/core/evaluation"
    ytvis = load(tools / "ytvis.py")
    vatrack_video = load(tools / "ytviseval.py")
    samodal = load(clones / "S-AModal/evaluation/ap_evaluation.py")
    samodal_video = load(clones / "S-AModal/evaluation/ytviseval.py")
    vrsp = load(clones / "vrsp" / sub, maskUtils=coco)
    aisformer = load(clones / "AISFormer" / sub, maskUtils=coco)
    loss = load(clones / "eoras/model/loss.py")
    out: dict[str, Any] = {}
    for name, make in PAIRS.items():
        numbers: dict[str, list[float]] = {}
        with contextlib.redirect_stdout(io.StringIO()):
            for kind in KINDS:
                truth, predictions = make()
                truth = truth.select(truth.areas(kind) > 0)
                pair = truth, predictions, kind
                numbers[f"image vatrack {kind}"] = images(vatrack, "COCOeval", *pair)
                numbers[f"image s-amodal {kind}"] = images(
                    samodal, "customCOCOeval", *pair, classes=False
                )
                numbers[f"image vrsp {kind}"] = images(vrsp, "COCOeval", *pair, share=True)
                numbers[f"image aisformer {kind}"] = images(
                    aisformer, "COCOeval", *pair, share=True
                )
                numbers[f"video vatrack {kind}"] = videos(vatrack_video, ytvis, *pair)
                numbers[f"video s-amodal {kind}"] = videos(
                    samodal_video, ytvis, *pair, classes=False
                )
            truth, predictions = make()
            numbers["hidden eoras"] = eoras(loss, truth.select(~truth.crowd), predictions)
            shown = truth.select(~truth.crowd & (truth.areas("visible") > 0))
            script = clones / "savos/Kins_Car/eval.py"
            numbers["hidden savos"] = savos(script, shown, layered(predictions))
        out[name] = {k: [None if math.isnan(x) else x for x in v] for k, v in numbers.items()}
    OUT.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
