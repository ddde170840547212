"""Records what public PointPillars find in a real scan, for test_models_pointpillars_public.py.

    pip install --target DEPENDENCIES mmengine mmcv-lite easydict
    git clone https://github.com/zhulf0804/PointPillars
    git clone https://github.com/open-mmlab/OpenPCDet            # 8cacccec
    git clone https://github.com/open-mmlab/mmdetection3d        # v1.4.0
    git clone -b v0.17.3 https://github.com/open-mmlab/mmdetection3d mmdetection3d_0
    PYTHONPATH=.:test:DEPENDENCIES python test/record_pointpillars.py CLONES KITTI_OBJECT

With "view" behind it, it prints how many boxes depend on how a scan is cut to the image.

Their networks, anchors, decoding and suppression by class run as they are, on the CPU, with seeded
weights. Stood in for, as these are compiled or for GPUs: sorting points into voxels, by the loop of
their CPU versions in Python; overlap of rotated rectangles, by OpenCV's. The scan is KITTI's
training scan 000000, cut to the image by this project.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import seeded_weights
import torch
import yaml
from record_two_stage import StandIn, StandIns
from seeded_pillars import scan_of, weights_of
from torch import nn

from amodal_core.datasets.kitti import KittiObject
from amodal_core.models.layers.anchor_boxes import from_lidar_boxes
from amodal_core.models.pointpillars import PointPillars

_RANGE = [0, -39.68, -3, 69.12, 39.68, 1]
_VOXEL = [0.16, 0.16, 4]


class NotInstalled(StandIns):
    """The clones' packages, of which single files are loaded, and what they need compiled."""

    packages = ("open3d", "pcdet", "spconv", "SharedArray", "kornia", "skimage",
                "mmdet", "mmdet3d")  # fmt: skip
    names = ("mmcv.ops", "mmcv.runner")

    def find_spec(self, name: str, *_: Any) -> Any:
        if name in self.names:
            return importlib.util.spec_from_loader(name, self, is_package=True)
        return super().find_spec(name)


class Clone:
    """Single files of a clone, loaded under their own names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in list(sys.modules):
            if name.partition(".")[0] in NotInstalled.packages or name in NotInstalled.names:
                del sys.modules[name]

    def stand_in(self, name: str, **values: Any) -> None:
        vars(importlib.import_module(name)).update(values)

    def load(self, name: str) -> ModuleType:
        """The module of that name, which its package then has, too."""
        path = self.root / (name.replace(".", "/") + ".py")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        package, _, last = name.rpartition(".")
        setattr(importlib.import_module(package), last, module)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


class Registry:
    """Makes what was registered from a configuration; a module without weights for a loss."""

    def __init__(self) -> None:
        self.kinds: dict[str, type] = {}

    def register_module(self, *_: Any, **__: Any) -> Callable[[type], type]:
        return lambda kind: self.kinds.setdefault(kind.__name__, kind)

    def build(self, config: dict[str, Any]) -> Any:
        kind = self.kinds.get(config["type"], nn.Module)
        return kind(**{k: v for k, v in config.items() if k != "type" and kind is not nn.Module})


def voxels_of(
    points: np.ndarray, size: Any, limits: Any, most: int, most_voxels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (V, most, 4), places z, y, x (V, 3), counts (V,), first come, first served."""
    places: dict[tuple[int, ...], int] = {}
    low, cell = np.float32(limits[:3]), np.float32(size)
    shape = np.round((np.float32(limits[3:]) - low) / cell).astype(int)
    voxels = np.zeros((most_voxels, most, points.shape[1]), np.float32)
    counts = np.zeros(most_voxels, np.int32)
    for point in points:
        place = np.floor((point[:3] - low) / cell).astype(int)
        if (place < 0).any() or (place >= shape).any():
            continue
        key = tuple(place[::-1].tolist())
        if key not in places:
            if len(places) >= most_voxels:
                continue
            places[key] = len(places)
        row = places[key]
        if counts[row] < most:
            voxels[row, counts[row]] = point
            counts[row] += 1
    n = len(places)
    return voxels[:n], np.array(list(places), np.int32), counts[:n]


def kept_of(boxes: torch.Tensor, scores: torch.Tensor, limit: float, turn: int) -> torch.Tensor:
    """Positions of (N, 5) x, y, dx, dy, angle that no better one overlaps by more, best first."""
    rows = boxes.double().tolist()
    rects = [((x, y), (dx, dy), turn * math.degrees(t)) for x, y, dx, dy, t in rows]
    kept: list[int] = []
    for index in scores.sort(0, descending=True)[1].tolist():
        for other in kept:
            kind, corners = cv2.rotatedRectangleIntersection(rects[index], rects[other])
            shared = cv2.contourArea(cv2.convexHull(corners)) if kind else 0.0
            areas = [w * h for w, h in (rects[index][1], rects[other][1])]
            if shared / (sum(areas) - shared) > limit:
                break
        else:
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def _nms_of_corners(
    boxes: torch.Tensor, scores: torch.Tensor, thresh: float, **_: Any
) -> torch.Tensor:
    """The same of x1, y1, x2, y2, angle, which goes clockwise."""
    a, b, c, d, t = boxes.unbind(1)
    centred = torch.stack([(a + c) / 2, (b + d) / 2, c - a, d - b, t], 1)
    return kept_of(centred, scores, thresh, -1)


def _as_is(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """A decorator that leaves a function as it is."""
    return lambda function: function


class _Base(nn.Module):
    """mmcv's module, which also knows how to begin."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()


# What is found: boxes with z of the bottom, scores and labels.
Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Original = tuple[nn.Module, Callable[[torch.Tensor], Found]]


def pure(clones: Path) -> Original:
    """zhulf0804/PointPillars."""

    def voxelize(points, voxels, coors, counts, size, limits, most, most_voxels, *_):  # type: ignore[no-untyped-def]
        made = voxels_of(points.numpy(), size, limits, most, most_voxels)
        for target, values in zip((voxels, coors, counts), made, strict=True):
            target[: len(values)] = torch.from_numpy(values)
        return len(made[0])

    sys.path.append(str(clones / "PointPillars"))
    for name, values in (
        ("voxel_op", {"hard_voxelize": voxelize}),
        ("iou3d_module", {"nms_cuda": _nms_of_corners}),
    ):
        sys.modules[f"pointpillars.ops.{name}"] = module = StandIn(name)
        vars(module).update(values)
    network = importlib.import_module("pointpillars.model").PointPillars(nclasses=3)

    def find(scan: torch.Tensor) -> Found:
        (result,) = network(batched_pts=[scan], mode="test")
        keys = ("lidar_bboxes", "scores", "labels")
        return tuple(torch.as_tensor(result[key]) for key in keys)  # type: ignore[return-value]

    return network, find


def pcdet(clones: Path) -> Original:
    """OpenPCDet: its whole detector, made of its configuration, and its preparation of points."""
    from easydict import EasyDict

    clone = Clone(clones / "OpenPCDet")
    models = "pcdet.models"
    clone.load("pcdet.utils.common_utils")
    clone.load("pcdet.utils.box_coder_utils")
    clone.load("pcdet.utils.box_utils")
    clone.load("pcdet.utils.loss_utils")
    overlap = importlib.import_module("pcdet.ops.iou3d_nms.iou3d_nms_utils")
    overlap.nms_gpu = lambda boxes, scores, thresh, **_: (  # type: ignore[attr-defined]
        kept_of(boxes[:, [0, 1, 3, 4, 6]], scores, thresh, 1), None
    )  # fmt: skip
    clone.load(f"{models}.model_utils.model_nms_utils")
    clone.load(f"{models}.backbones_3d.vfe.vfe_template")
    for folder, file, name in (
        ("backbones_3d.vfe", "pillar_vfe", "PillarVFE"),
        ("backbones_2d.map_to_bev", "pointpillar_scatter", "PointPillarScatter"),
        ("backbones_2d", "base_bev_backbone", "BaseBEVBackbone"),
    ):
        made = getattr(clone.load(f"{models}.{folder}.{file}"), name)
        clone.stand_in(f"{models}.{folder}", __all__={name: made})
    for name in ("anchor_generator", "atss_target_assigner", "axis_aligned_target_assigner"):
        clone.load(f"{models}.dense_heads.target_assigner.{name}")
    clone.load(f"{models}.dense_heads.anchor_head_template")
    head = clone.load(f"{models}.dense_heads.anchor_head_single").AnchorHeadSingle
    clone.stand_in(f"{models}.dense_heads", __all__={"AnchorHeadSingle": head})
    clone.load(f"{models}.detectors.detector3d_template")
    detector = clone.load(f"{models}.detectors.pointpillar").PointPillar
    prepare = clone.load("pcdet.datasets.processor.data_processor")
    prepare.VoxelGeneratorWrapper = lambda vsize_xyz, coors_range_xyz, **numbers: SimpleNamespace(
        generate=lambda points: voxels_of(
            points,
            vsize_xyz,
            coors_range_xyz,
            numbers["max_num_points_per_voxel"],
            numbers["max_num_voxels"],
        )
    )
    text = (clone.root / "tools/cfgs/kitti_models/pointpillar.yaml").read_text()
    config = EasyDict(yaml.safe_load(text))
    limits = np.array(config.DATA_CONFIG.POINT_CLOUD_RANGE, np.float32)
    processor = prepare.DataProcessor(config.DATA_CONFIG.DATA_PROCESSOR, limits, False, 4)
    data = SimpleNamespace(
        class_names=config.CLASS_NAMES,
        point_feature_encoder=SimpleNamespace(num_point_features=4),
        grid_size=processor.grid_size,
        point_cloud_range=limits,
        voxel_size=processor.voxel_size,
        depth_downsample_factor=None,
    )
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
    network = detector(config.MODEL, 3, data)

    def find(scan: torch.Tensor) -> Found:
        batch = processor.forward({"points": scan.numpy(), "use_lead_xyz": True})
        count = len(batch["voxels"])
        first = np.zeros((count, 1), np.int32)
        tensors = {
            "voxels": batch["voxels"],
            "voxel_num_points": batch["voxel_num_points"],
            "voxel_coords": np.concatenate([first, batch["voxel_coords"]], 1),
        }
        tensors = {name: torch.from_numpy(value) for name, value in tensors.items()}
        (result,), _ = network({**tensors, "batch_size": 1})
        boxes = result["pred_boxes"].clone()
        boxes[:, 2] -= boxes[:, 5] / 2  # of the bottom, as the others are
        return boxes, result["pred_scores"], result["pred_labels"] - 1

    return network, find


_SIZES = [[0.8, 0.6, 1.73], [1.76, 0.6, 1.73], [3.9, 1.6, 1.56]]


def _mm_parts(clone: Clone) -> tuple[type, ...]:
    """The classes of the parts that mmdetection3d makes a PointPillars of."""
    names = {
        "voxel_encoders.pillar_encoder": "PillarFeatureNet",
        "middle_encoders.pillar_scatter": "PointPillarsScatter",
        "backbones.second": "SECOND",
        "necks.second_fpn": "SECONDFPN",
    }
    clone.load("mmdet3d.models.voxel_encoders.utils")
    parts = [getattr(clone.load(f"mmdet3d.models.{file}"), name) for file, name in names.items()]
    return (*parts, clone.load("mmdet3d.models.dense_heads.anchor3d_head").Anchor3DHead)


class _Mm(nn.Module):
    """mmdetection3d's parts in the order in which its VoxelNet calls them."""

    def __init__(self, parts: tuple[type, ...], head: dict[str, Any]) -> None:
        super().__init__()
        encoder, scatter, backbone, neck, kind = parts
        self.voxel_encoder = encoder(4, (64,), False, voxel_size=_VOXEL, point_cloud_range=_RANGE)
        self.middle_encoder = scatter(64, [496, 432])
        self.backbone = backbone(64, [64, 128, 256], [3, 5, 5], [2, 2, 2])
        self.neck = neck([64, 128, 256], [128, 128, 128], [1, 2, 4])
        self.bbox_head = kind(3, 384, train_cfg=None, feat_channels=384, **head)

    def forward(self, scan: torch.Tensor) -> Any:
        """What the head says of the voxels of a scan."""
        made = voxels_of(scan.numpy(), _VOXEL, _RANGE, 32, 40_000)
        voxels, places, counts = (torch.from_numpy(v) for v in made)
        places = nn.functional.pad(places, (1, 0))
        features = self.voxel_encoder(voxels, counts, places)
        return self.bbox_head(self.neck(self.backbone(self.middle_encoder(features, places, 1))))


def _head_config(kind: str, ranges: list[float], sizes: list[list[float]]) -> dict[str, Any]:
    """The published head; `ranges` are x of the last edge and z of each class."""
    end, *heights = ranges
    edges = [[0, -39.68, z, end, 39.68, z] for z in heights]
    test = {
        "use_rotate_nms": True,
        "nms_thr": 0.01,
        "score_thr": 0.1,
        "nms_pre": 100,
        "max_num": 50,
    }
    return {
        "anchor_generator": {
            "type": kind, "ranges": edges, "sizes": sizes, "rotations": [0, 1.57],
            "reshape_out": False,
        },
        "bbox_coder": {"type": "DeltaXYZWLHRBBoxCoder"},
        "loss_cls": {"type": "mmdet.FocalLoss", "use_sigmoid": True},
        "loss_bbox": {"type": "mmdet.SmoothL1Loss"},
        "loss_dir": {"type": "mmdet.CrossEntropyLoss"},
        "test_cfg": SimpleNamespace(**test, get=test.get),
    }  # fmt: skip


def _multi_apply(function: Callable[..., Any], *arguments: Any) -> tuple[list[Any], ...]:
    return tuple(map(list, zip(*map(function, *arguments), strict=True)))


def mmdet3d(clones: Path) -> Original:
    """mmdetection3d 1.4."""
    clone = Clone(clones / "mmdetection3d")
    kinds = Registry()
    clone.stand_in("mmdet3d.registry", MODELS=kinds, TASK_UTILS=kinds)
    clone.stand_in(
        "mmdet.models.utils",
        multi_apply=_multi_apply,
        select_single_mlvl=lambda levels, number: [level[number] for level in levels],
    )
    clone.stand_in("mmdet.models.task_modules", BaseBBoxCoder=object)
    clone.stand_in("mmcv.ops", nms_rotated=lambda boxes, scores, limit: (
        None, kept_of(boxes, scores, limit, 1)
    ))  # fmt: skip
    clone.stand_in(
        "mmdet3d.utils",
        array_converter=clone.load("mmdet3d.utils.array_converter").array_converter,
    )
    clone.stand_in("mmdet3d.models.task_modules", PseudoSampler=object)
    tools = clone.load("mmdet3d.structures.bbox_3d.utils")
    clone.stand_in(
        "mmdet3d.structures", limit_period=tools.limit_period, xywhr2xyxyr=tools.xywhr2xyxyr
    )
    clone.load("mmdet3d.structures.bbox_3d.base_box3d")
    boxes3d = clone.load("mmdet3d.structures.bbox_3d.lidar_box3d").LiDARInstance3DBoxes
    clone.load("mmdet3d.models.task_modules.anchor.anchor_3d_generator")
    clone.load("mmdet3d.models.task_modules.coders.delta_xyzwhlr_bbox_coder")
    suppress = clone.load("mmdet3d.models.layers.box3d_nms").box3d_multiclass_nms
    clone.stand_in("mmdet3d.models.layers", box3d_multiclass_nms=suppress)
    clone.load("mmdet3d.models.dense_heads.base_3d_dense_head")
    clone.load("mmdet3d.models.dense_heads.train_mixins")
    heights = [69.12, -0.6, -0.6, -1.78]
    head = _head_config("AlignedAnchor3DRangeGenerator", heights, _SIZES)
    network = _Mm(_mm_parts(clone), head)

    def find(scan: torch.Tensor) -> Found:
        outputs = network(scan)
        (result,) = network.bbox_head.predict_by_feat(
            *outputs, batch_input_metas=[{"box_type_3d": boxes3d}]
        )
        return result.bboxes_3d.tensor, result.scores_3d, result.labels_3d

    return network, find


def mmdet3d_0(clones: Path) -> Original:
    """mmdetection3d 0.17.3; its data set turns the boxes by half a turn, which is done here."""
    clone = Clone(clones / "mmdetection3d_0")
    kinds = Registry()
    clone.stand_in("mmcv.runner", force_fp32=_as_is, auto_fp16=_as_is, BaseModule=_Base)
    clone.stand_in("mmdet.models", HEADS=kinds, BACKBONES=kinds, NECKS=kinds)
    clone.stand_in(
        "mmdet3d.models.builder",
        VOXEL_ENCODERS=kinds, MIDDLE_ENCODERS=kinds, build_loss=kinds.build,
    )  # fmt: skip
    clone.stand_in("mmdet.core.anchor", ANCHOR_GENERATORS=kinds)
    clone.stand_in("mmdet.core.bbox.builder", BBOX_CODERS=kinds)
    clone.stand_in(
        "mmdet.core",
        build_bbox_coder=kinds.build, build_prior_generator=kinds.build, multi_apply=_multi_apply,
    )  # fmt: skip
    clone.stand_in("mmdet.core.bbox", BaseBBoxCoder=object)
    # Where mmcv 1 had it.
    clone.stand_in("mmcv", is_list_of=importlib.import_module("mmengine").is_list_of)
    clone.stand_in("mmdet3d.ops.iou3d.iou3d_utils", nms_gpu=_nms_of_corners)
    tools = clone.load("mmdet3d.core.bbox.structures.utils")
    clone.load("mmdet3d.core.bbox.structures.base_box3d")
    boxes3d = clone.load("mmdet3d.core.bbox.structures.lidar_box3d").LiDARInstance3DBoxes
    suppress = clone.load("mmdet3d.core.post_processing.box3d_nms").box3d_multiclass_nms
    clone.stand_in(
        "mmdet3d.core",
        limit_period=tools.limit_period, xywhr2xyxyr=tools.xywhr2xyxyr,
        box3d_multiclass_nms=suppress,
    )  # fmt: skip
    clone.load("mmdet3d.core.anchor.anchor_3d_generator")
    clone.load("mmdet3d.core.bbox.coders.delta_xyzwhlr_bbox_coder")
    clone.load("mmdet3d.models.dense_heads.train_mixins")
    sizes = [[w, length, h] for length, w, h in _SIZES]
    head = _head_config("Anchor3DRangeGenerator", [70.4, -0.6, -0.6, -1.78], sizes)
    network = _Mm(_mm_parts(clone), head)

    def find(scan: torch.Tensor) -> Found:
        metas = [{"box_type_3d": boxes3d}]
        ((result, scores, labels),) = network.bbox_head.get_bboxes(*network(scan), metas)
        boxes = result.tensor.clone()
        boxes[:, 6] -= math.pi
        return boxes, scores, labels

    return network, find


class _EndOfRunError(Exception):
    """What a layer made is known."""


def _output_of(
    layer: nn.Module, find: Callable[[torch.Tensor], Any], scan: torch.Tensor
) -> torch.Tensor:
    """What a layer makes of a scan; the run ends there."""
    made = []

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        made.append(output)
        raise _EndOfRunError

    handle = layer.register_forward_hook(keep)
    with contextlib.suppress(_EndOfRunError):
        find(scan)
    handle.remove()
    return made[0]


def _bias_of(logits: torch.Tensor, top: float) -> float:
    """What makes an anchor's best logit `top`, where it is that of objects; else takes all away.

    Empty ground looks the same everywhere, and so does each border of the grid.
    """
    best = logits.sort(descending=True).values[:40]
    different = (best[:-1] - best[1:] > 1e-4).float().mean() > 0.8
    return round(top - float(best[0]), 3) if different else -100.0


def main(clones: Path, root: Path) -> None:
    """Run the originals and keep their boxes in their own form, with z of the bottom."""
    scan = scan_of(root)
    for name, original in ORIGINALS.items():
        network, find = original(clones)
        network.eval()
        shapes = seeded_weights.shapes_of(network.state_dict())
        (layer,) = [n for n in shapes if n.endswith("conv_cls.bias")]
        head = network.get_submodule(layer.removesuffix(".bias"))
        with torch.inference_mode():
            bias = [0.0] * shapes[layer][0]
            network.load_state_dict(weights_of(shapes, bias), strict=False)
            logits = _output_of(head, find, scan)[0].flatten(1)
            bias = [_bias_of(row, 1.0 + 0.05 * k) for k, row in enumerate(logits)]
            network.load_state_dict(weights_of(shapes, bias), strict=False)
            boxes, scores, labels = find(scan)
        order = scores.argsort(descending=True, stable=True)
        print(f"{name}: {len(order)} boxes, by class {labels.bincount().tolist()}")
        outputs = {"boxes": boxes[order], "scores": scores[order], "labels": labels[order]}
        seeded_weights.write(f"pointpillars_{name}", shapes, {**outputs, "bias": bias}, kept=None)


def view(clones: Path, root: Path) -> None:
    """Print how many of the pure network's boxes are others if a scan is cut otherwise.

    In the frames of KITTI, with the recorded weights: the original on its own cut (its
    `remove_outside_points`), on the whole scan, and this project's model given the whole scan.
    """
    network, find = pure(clones)
    remove = sys.modules["pointpillars.utils.process"].remove_outside_points
    shapes, recorded = seeded_weights.read("pointpillars_pure")
    state = weights_of(shapes, recorded["bias"])
    network.eval().load_state_dict(state, strict=False)
    model = PointPillars.from_config({}).eval()
    model.load_state_dict(state, strict=False)
    data = KittiObject(root)
    for index in range(len(data)):
        frame = data.frame(index)
        assert frame.calibration is not None
        scan, calibration = torch.from_numpy(frame.points), frame.calibration
        projection = np.eye(4)
        projection[:3, :3] = calibration.K
        size = calibration.height, calibration.width
        cut = remove(frame.points, np.eye(4), calibration.camera_from_lidar, projection, size)
        (ours,) = model.in_view([scan], [calibration])
        with torch.inference_mode():
            truth = find(torch.from_numpy(cut))
            (detections,) = model.detect3d([ours])
            whole = find(scan)
        found = from_lidar_boxes(detections.boxes), detections.scores, detections.labels
        print(
            f"{data.place(index).name}: {len(scan)} points, {len(cut)} in its cut, "
            f"{len(ours)} in ours; {len(truth[0])} boxes, of which moved or lost: "
            f"{_others(truth, found)} by this project, {_others(truth, whole)} on the whole scan"
        )


def _others(truth: Found, found: Found) -> int:
    """Boxes of `truth` that `found` has not within 1 mm and 1e-3 of score, of the same class."""
    near = (truth[0][:, None, :6] - found[0][None, :, :6]).abs().amax(2) < 1e-3
    near &= (truth[1][:, None] - found[1]).abs() < 1e-3
    return int((~(near & (truth[2][:, None] == found[2])).any(1)).sum())


ORIGINALS: dict[str, Callable[[Path], Original]] = {
    "pure": pure,
    "pcdet": pcdet,
    "mmdet3d": mmdet3d,
    "mmdet3d_0": mmdet3d_0,
}

if __name__ == "__main__":
    sys.meta_path.insert(0, NotInstalled())
    (view if sys.argv[3:] == ["view"] else main)(Path(sys.argv[1]), Path(sys.argv[2]))
