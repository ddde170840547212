"""Run mmdetection's networks on seeded weights and keep what they find, for test_models_imports.py.

    PYTHONPATH=.:test:PACKAGES python test/record_mmdet.py NAME

Each NAME has its own PACKAGES, which `pip install --no-deps --target` makes of addict, six,
termcolor, terminaltables and, without their compiled parts,

- mask_rcnn_3: mmcv-lite==2.1.0 mmengine==0.10.7 mmdet==3.3.0
- mask_rcnn_2, qdtrack: mmcv==1.7.2 mmdet==2.28.2, and a clone of SysCV/qdtrack
- vatrack, vatrack_two_box: mmcv==1.2.7 mmdet==2.10.0, and a clone of ifnspaml/vatrack

(mmcv before 2 builds where `PIP_CONSTRAINT` names a file with `setuptools<70`.) torchvision's
RoIAlign and suppression stand in for the compiled ones. No code of theirs is kept.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import seeded_weights
import torch
from record_weights import Mocks, every, filled, heard, without_gpu
from torchvision.ops import nms, roi_align

UNUSED = (
    "yapf", "seaborn", "motmetrics", "pandas", "skimage", "scipy.ndimage", "mmtrack", "shapely",
)  # fmt: skip
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


class Compiled(types.ModuleType):
    """The compiled part of mmcv, as far as two-stage detectors need it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None

    @staticmethod
    def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> Any:
        assert offset == 0
        return nms(boxes, scores, iou_threshold)

    @staticmethod
    def roi_align_forward(
        x: torch.Tensor, rois: torch.Tensor, out: torch.Tensor, *_: Any,
        aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
        pool_mode: int, aligned: bool,
    ) -> None:  # fmt: skip
        assert pool_mode == 1  # the mean
        size = aligned_height, aligned_width
        out.copy_(roi_align(x, rois, size, spatial_scale, sampling_ratio, aligned))


def configured(package: str, *path: str) -> Any:
    """A configuration file that lies beside or in a package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    try:
        from mmengine import Config
    except ImportError:
        from mmcv import Config
    return Config.fromfile(str(Path(spec.origin).parent.joinpath(*path)))


def small(model: Any, classes: int, *, deep: bool = False) -> Any:
    """The configuration with few classes, 64 channels where it has 256, and few proposals.

    Args:
        model: of a detector.
        classes: without background.
        deep: keep ResNet-50, which tells where strides lie; else ResNet-18.
    """
    model.backbone.pop("init_cfg", None)
    if not deep:
        model.backbone.depth = 18
        model.neck.in_channels = [64, 128, 256, 512]
    model.neck.out_channels = 64
    model.rpn_head.in_channels = model.rpn_head.feat_channels = 64
    model.test_cfg.rpn["max_num" if "max_num" in model.test_cfg.rpn else "max_per_img"] = 60
    for name, part in model.roi_head.items():
        if name.endswith("extractor"):
            part.out_channels = 64
        elif name.endswith("head"):
            of_head(part)
            if "num_classes" in part:
                part.num_classes = classes
                part.get("loss_cls", {}).pop("class_weight", None)
    return model


def of_head(head: Any) -> None:
    """Give a head of the second stage 64 channels, and 256 where it has 1024."""
    head.in_channels = 64
    if "bbox" in head.type.lower() or "Embed" in head.type:
        head.fc_out_channels = 256
    if "bbox" not in head.type.lower():
        head.conv_out_channels = 64


def of_version_2(model: Any) -> tuple[torch.nn.Module, torch.Tensor, list[dict[str, Any]]]:
    """A network, the image as its loader normalises it, and what goes with it."""
    from mmcv import imnormalize
    from mmdet.models import build_detector

    network = filled(build_detector(model))
    image = seeded_weights.image()
    pixels = imnormalize(image[:, :, ::-1], np.array(MEAN), np.array(STD), to_rgb=True)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    about = {
        "ori_shape": image.shape, "img_shape": image.shape, "pad_shape": image.shape,
        "scale_factor": np.ones(4, np.float32), "flip": False, "batch_input_shape": image.shape[:2],
    }  # fmt: skip
    return network, tensor, [about]


def write(
    name: str,
    network: torch.nn.Module,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    labels: torch.Tensor,
    *,
    amodal: torch.Tensor,
    visible: torch.Tensor,
    **more: torch.Tensor,
) -> None:
    """Keep what was found: masks (N, C, 28, 28), in the channel of each object's class."""
    rows = torch.arange(len(labels))
    outputs = {"boxes": boxes, "scores": scores, "labels": labels, **more}
    outputs |= {
        kind: every(logits[rows, labels])
        for kind, logits in (("amodal", amodal), ("visible", visible))
    }
    print(name, {k: v.shape for k, v in outputs.items()}, scores[:5])
    seeded_weights.write(name, seeded_weights.shapes_of(network.state_dict()), outputs)


def mask_rcnn_3() -> None:
    """Mask R-CNN of version 3 on Caffe's ResNet, bytes in."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules

    register_all_modules()
    config = configured(
        "mmdet", ".mim", "configs", "mask_rcnn", "mask-rcnn_r50-caffe_fpn_1x_coco.py"
    )
    network = filled(MODELS.build(small(config.model, 7, deep=True)))
    network.backbone.conv1.weight.data *= seeded_weights.BYTES
    masks = heard(network.roi_head.mask_head)
    image = seeded_weights.image()
    sample = DetDataSample(
        metainfo={
            "img_shape": image.shape[:2],
            "ori_shape": image.shape[:2],
            "scale_factor": (1, 1),
        }
    )
    pixels = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)
    with torch.no_grad():
        (done,) = network.test_step({"inputs": [pixels], "data_samples": [sample]})
    result = done.pred_instances
    write(
        "mmdet_3", network, result.bboxes, result.scores, result.labels,
        amodal=masks[0], visible=masks[0],
    )  # fmt: skip


def mask_rcnn_2() -> None:
    """Mask R-CNN of version 2 on torchvision's ResNet."""
    config = configured("mmdet", ".mim", "configs", "mask_rcnn", "mask_rcnn_r50_fpn_1x_coco.py")
    network, image, about = of_version_2(small(config.model, 7, deep=True))
    masks = heard(network.roi_head.mask_head)
    with torch.no_grad():
        features = network.extract_feat(image)
        proposals = network.rpn_head.simple_test_rpn(features, about)
        (boxes,), (labels,) = network.roi_head.simple_test_bboxes(
            features, about, proposals, network.roi_head.test_cfg
        )
        network.roi_head.simple_test_mask(features, about, [boxes], [labels])
    write(
        "mmdet_2", network, boxes[:, :4], boxes[:, 4], labels, amodal=masks[0], visible=masks[0]
    )  # fmt: skip


def qdtrack() -> None:
    """QDTrack's network of driving data, with mmdetection's mask head beside its box head."""
    import qdtrack.models  # registers its parts

    config = configured("qdtrack", "..", "configs", "_base_", "qdtrack_faster_rcnn_r50_fpn.py")
    masks_too = configured("mmdet", ".mim", "configs", "mask_rcnn", "mask_rcnn_r50_fpn_1x_coco.py")
    detector, heads = config.model.detector, masks_too.model.roi_head
    detector.type = "MaskRCNN"
    detector.roi_head.mask_roi_extractor = heads.mask_roi_extractor
    detector.roi_head.mask_head = heads.mask_head
    small(detector, 8)
    config.model.track_head.track_roi_extractor.out_channels = 64
    of_head(config.model.track_head.track_head)
    detector.train_cfg.rcnn.mask_size, detector.test_cfg.rcnn.mask_thr_binary = 28, 0.5
    config.model.type = qdtrack.models.MODELS.get(config.model.type)
    network, image, about = of_version_2(config.model)
    masks = heard(network.detector.roi_head.mask_head)
    heads = network.detector.roi_head
    with torch.no_grad():
        features = network.detector.extract_feat(image)
        proposals = network.detector.rpn_head.simple_test_rpn(features, about)
        (boxes,), (labels,) = heads.simple_test_bboxes(features, about, proposals, heads.test_cfg)
        heads.simple_test_mask(features, about, [boxes], [labels])
        embeddings = network.track_head.extract_bbox_feats(features, boxes, about)
    write(
        "qdtrack", network, boxes[:, :4], boxes[:, 4], labels,
        amodal=masks[0], visible=masks[0], embeddings=embeddings[:, ::16],
    )  # fmt: skip


def of_vatrack(name: str, config_file: str) -> None:
    """A network of VATrack's repository on the ResNet-50 of its base configuration.

    Args:
        name: of the fixture.
        config_file: with its heads.
    """
    import vatrack.models  # registers its parts

    config = configured("vatrack", "..", "configs", config_file)
    base = configured("vatrack", "..", "configs", "QDTrack-frcnn_r50_fpn_12e.py")
    config.model.backbone = base.model.backbone
    config.model.type = vatrack.models.MODELS.get(config.model.type)
    network, image, about = of_version_2(small(config.model, 24))
    visible, amodal = heard(network.roi_head.mask_head), heard(network.roi_head.amodal_mask_head)
    with without_gpu():
        features = network.extract_feat(image)
        proposals = network.rpn_head.simple_test_rpn(features, about)
        boxes, labels, _, embeddings = network.roi_head.simple_test(
            features, about, proposals, False
        )
    order, more = torch.arange(len(embeddings)), {}
    if isinstance(boxes, list):
        order = order.flip(0)  # it puts each detection before the last
        (boxes, visible_boxes), (labels,) = boxes, labels
        more = {"visible_boxes": visible_boxes[order, :4]}
    labels = labels.long()
    write(
        name, network, boxes[order, :4], boxes[order, 4], labels[order],
        amodal=amodal[0][order], visible=visible[0][order], embeddings=embeddings[order, ::16],
        **more,
    )  # fmt: skip


NETWORKS = {
    "mask_rcnn_3": mask_rcnn_3,
    "mask_rcnn_2": mask_rcnn_2,
    "qdtrack": qdtrack,
    "vatrack": lambda: of_vatrack("vatrack", "QDbasedVATrack_SAILVOScut.py"),
    "vatrack_two_box": lambda: of_vatrack(
        "vatrack_two_box", "QDbasedVATrack_twobbox_SAILVOScut.py"
    ),
}

if __name__ == "__main__":
    cv2.setNumThreads(1)
    for name in ("int", "float"):  # which NumPy has taken back
        setattr(np, name, getattr(builtins, name))
    sys.meta_path.insert(0, Mocks(*UNUSED))
    sys.modules["mmcv._ext"] = Compiled("mmcv._ext")
    NETWORKS[sys.argv[1]]()
