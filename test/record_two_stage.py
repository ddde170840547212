"""Records what published heads say of seeded inputs and weights: two_stage_heads.npz, a codebook.

    git clone https://github.com/YutingXiao/Amodal-Segmentation-Based-on-Visible-Region-Segmentation-and-Shape-Prior vrsp
    git clone https://github.com/UARK-AICV/AISFormer
    git clone https://github.com/ifnspaml/vatrack
    PYTHONPATH=.:test python test/record_two_stage.py FOLDER_OF_THE_CLONES

Nothing of theirs is changed: single files of the clones are loaded, what they import of their
packages beside layers is an empty stand-in, and tensors stay where they are asked to go to a GPU.
"""  # noqa: E501

from __future__ import annotations

import importlib.abc
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from published_two_stage import (
    AISFORMER_LAYERS,
    BOXES,
    CHANNELS,
    CODEBOOK,
    HEAD_CASES,
    HEADS,
    PRIORS,
    SCORES,
    STEP,
    TRACKER_CASES,
    TRACKER_SEEDS,
    HeadCase,
    features,
    masks,
    seeded,
    tracker_frames,
    vrsp_config,
)
from torchvision.ops import batched_nms, box_iou

from amodal_core.models.aisformer import AisFormerConfig, AisFormerHead
from amodal_core.models.vrsp import Vrsp, VrspConfig


class Registry:
    """Takes classes and gives them back."""

    def __init__(self, _: str) -> None:
        pass

    def register(self) -> Callable[[Any], Any]:
        return lambda made: made


class StandIn(ModuleType):
    """A module that has whatever is asked of it."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = MagicMock()
        setattr(self, name, made)
        return made


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a stand-in for every module of packages that are not installed."""

    packages = (
        "detectron2",
        "fvcore",
        "torch_dct",
        "pytorch_toolbelt",
        "matplotlib",
        "pycocotools",
    )

    def find_spec(self, name: str, *_: Any) -> Any:
        known = name.partition(".")[0] in self.packages
        return importlib.util.spec_from_loader(name, self, is_package=True) if known else None

    def create_module(self, spec: Any) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


class Clone:
    """Loads files of one clone under their own names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in [m for m in sys.modules if m.partition(".")[0] in StandIns.packages]:
            del sys.modules[name]
        self.stand_in("detectron2.utils.registry", Registry=Registry)
        wrappers = self.load("detectron2/layers/wrappers.py")
        self.stand_in(
            "detectron2.layers", Conv2d=wrappers.Conv2d, ConvTranspose2d=wrappers.ConvTranspose2d,
            cat=wrappers.cat, get_norm=lambda *_, **__: None, ShapeSpec=SimpleNamespace,
            batched_nms=batched_nms,
        )  # fmt: skip
        self.stand_in("detectron2.structures", Instances=Instances, Boxes=Boxes)

    def stand_in(self, name: str, **values: Any) -> None:
        vars(importlib.import_module(name)).update(values)

    def load(self, path: str) -> ModuleType:
        name = path.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(name, self.root / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


class Boxes:
    """Boxes of an image, none of which is cut."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def clip(self, _: Any) -> None:
        pass


class Masks:
    """Annotated masks, seen from the RoIs."""

    def __init__(self, which: int) -> None:
        self.which = which

    def crop_and_resize(self, _: torch.Tensor, side: int) -> torch.Tensor:
        return masks(side)[self.which]


class Instances(SimpleNamespace):
    """Values of the objects of an image by name."""

    def __init__(self, size: Any = None, **values: Any) -> None:
        super().__init__(**values)

    def __len__(self) -> int:
        return len(next(v for v in vars(self).values() if isinstance(v, torch.Tensor)))

    def has(self, name: str) -> bool:
        return hasattr(self, name)


def group(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(**values)


def vrsp_settings(case: HeadCase, ours: VrspConfig) -> SimpleNamespace:
    """Their configuration of our settings."""
    recon = group(
        NUM_CONV=case.convolutions, CONV_DIM=8, NORM="", KMEANS=1024, MEMO_AUG=True,
        MEMORY_REFINE=ours.prior_refinement, MEMORY_REFINE_K=PRIORS,
        RESCORING=ours.prior_rescoring,
    )  # fmt: skip
    recls = group(
        NUM_CONV=0, CONV_DIM=256, NUM_FC=2, FC_DIM=ours.reclassification_hidden, NORM="",
        RESCORING=ours.reclassification_rescoring,
    )  # fmt: skip
    head = group(
        CONV_DIM=CHANNELS, NORM="", NUM_CONV=4, CLS_AGNOSTIC_MASK=False, VERSION=3,
        AMODAL_FEATURE_MATCHING=(3, 4), AMODAL_FM_BETA=ours.matching_weights,
        ATTENTION_MODE="attention", RECON_NET=recon, RECLS_NET=recls,
    )  # fmt: skip
    roi_heads = group(NUM_CLASSES=case.classes, NAME="Parallel_Amodal_Visible_ROIHeads")
    return group(MODEL=group(ROI_MASK_HEAD=head, ROI_HEADS=roi_heads))


# Their names -> ours, in turn.
VRSP_NAMES = (
    (
        r"^(amodal|visible)_mask_fcn(\d)\.",
        lambda m: f"{m[1]}_head.convolutions.{2 * int(m[2]) - 2}.",
    ),
    (r"^(amodal|visible)_deconv", r"\1_head.upsample.8"),
    (r"^(amodal|visible)_predictor", r"\1_head"),
    (r"^fuse_layer", "prior_fusion"),
    (r"^mask_fcn_enc(\d)\.", lambda m: f"auto_encoder.encoder.{2 * int(m[1]) - 2}."),
    (r"^mask_fcn_dec(\d)\.1\.", lambda m: f"auto_encoder.decoder.{3 * int(m[1]) - 2}."),
    (r"^fc(\d)\.", lambda m: f"reclassifier.{2 * int(m[1]) - 1}."),
    (r"^recls\.", "reclassifier.5."),
)  # fmt: skip
AISFORMER_NAMES = (
    (r"^mask_feat_learner_TR", "upsample.0"),
    (r"^deconv_for_TR\.0", "upsample.2"),
    (r"^pixel_embed", "pixel_embedding"),
    (r"^norm_rois", "pixel_norm"),
    (r"^query_embed\.weight", "queries"),
    (r"^mask_embed\.layers\.(\d)", lambda m: f"mask_embedding.{2 * int(m[1])}"),
    (r"^subtract_model\.layers\.(\d)", lambda m: f"invisible_embedding.{2 * int(m[1])}"),
    (r"^positional_encoding\.row_embed\.weight", "position.rows"),
    (r"^positional_encoding\.col_embed\.weight", "position.columns"),
    (r"^transformer_(encoder|decoder)\.layers\.(\d)\.", r"\1.\2."),
    (r"\.self_attn\.", ".self_attention.attention."),
    (r"\.multihead_attn\.", ".cross_attention.attention."),
    (r"\.linear1\.", ".feed_forward.layers.0."),
    (r"\.linear2\.", ".feed_forward.layers.3."),
    (r"\.norm1\.", ".self_attention.norm."),
    (r"^(encoder\.\d)\.norm2\.", r"\1.feed_forward.norm."),
    (r"^(decoder\.\d)\.norm2\.", r"\1.cross_attention.norm."),
    (r"\.norm3\.", ".feed_forward.norm."),
)


def give(theirs: torch.nn.Module, ours: torch.nn.Module, names: Sequence[Any]) -> None:
    """Load our seeded weights under their names; all of theirs must be ours."""
    shapes = {n: tuple(t.shape) for n, t in ours.state_dict().items()}
    table = {}
    for name, old in theirs.state_dict().items():
        new = name
        for pattern, replacement in names:
            new = re.sub(pattern, replacement, new)
        table[name] = seeded({new: shapes[new]})[new].reshape(old.shape)
    theirs.load_state_dict(table)


def thinned(logits: torch.Tensor) -> np.ndarray:
    return logits[..., ::STEP, ::STEP].detach().numpy()


def record_vrsp(clone: Clone, name: str, case: HeadCase) -> dict[str, np.ndarray]:
    """Logits, losses and scores of their heads."""
    folder = "detectron2/modeling/roi_heads"
    heads, recons, recls_heads, boxes = (
        clone.load(f"{folder}/{n}.py")
        for n in ("mask_head", "recon_net", "recls_head", "fast_rcnn")
    )
    ours = Vrsp(vrsp_config(case))
    settings = vrsp_settings(case, ours.config)
    shape = SimpleNamespace(channels=CHANNELS, width=14, height=14)
    head = heads.Parallel_Amodal_Visible_Head(settings, shape)
    give(head, ours, VRSP_NAMES)
    recls = recls_heads.ReclsConvFCHead(settings, shape)
    give(recls, ours, VRSP_NAMES)
    recon = None
    if ours.config.prior_refinement:
        recon = recons.General_Recon_Net(settings, shape)
        last = f"auto_encoder.decoder.{3 * case.convolutions}."
        give(recon, ours, (*VRSP_NAMES, (r"^outconv\.0\.", last)))
        with torch.no_grad():
            known = recon.encode(masks(28)[0][:, None].float()).flatten(1)
            known = torch.cat([known, recon.encode(masks(28)[1][:, None].float()).flatten(1)])
        recon.recording_vectors({0: known[:5], case.classes - 1: known[5:]})
        if name == "kins":
            np.save(CODEBOOK, recon.vector_dict)
        head.recon_net = recon
    x, labels = features(), torch.tensor(case.labels)
    truth = Instances(
        gt_classes=labels, gt_masks=Masks(0), gt_visible_masks=Masks(1),
        proposal_boxes=Boxes(torch.tensor(BOXES)),
    )  # fmt: skip
    logits, matched = head(x, [truth])
    loss = heads.amodal_mask_rcnn_loss
    guided = ours.config.guided_weight
    values = {
        "amodal": loss(logits[0][0], [truth]),
        "visible": loss(logits[0][1], [truth], mode="visible"),
        "amodal_guided": loss(logits[2][0], [truth], weights=guided),
        "visible_guided": loss(logits[2][1], [truth], guided),
        "matching": heads.mask_fm_loss(matched, ours.config.matching_weights),
        "visible_class": ours.config.reclassification_weight
        * recls_heads.mask_recls_adaptive_loss(
            recls, boxes.get_pred_masks_logits_by_cls(logits[1][1], labels), x, [truth],
            gt_weight=ours.config.reclassification_guided_weight,
        ),
    }  # fmt: skip
    if case.classes == 1:
        roi_heads = clone.load(f"{folder}/roi_heads.py").Parallel_Amodal_Visible_ROIHeads
        weights = roi_heads.attention_weights(None, logits[0], [truth])
        values["amodal_refined"] = loss(logits[1][0], [truth], weights=weights[1])
        values["visible_refined"] = loss(logits[1][1], [truth], weights=weights[0], mode="visible")
    result = {f"{name}/loss/{k}": v.detach().numpy() for k, v in values.items()}
    with torch.no_grad():
        seen = Instances(pred_classes=labels)
        looks, _ = head(x, [seen])
        heads.amodal_mask_rcnn_inference(looks, [seen])
        table = torch.zeros(len(SCORES), case.classes + 1)
        table[torch.arange(len(SCORES)), labels] = torch.tensor(SCORES)
        every = torch.tensor(BOXES)[:, None].expand(-1, case.classes, -1)
        found, _ = boxes.fast_rcnn_inference_single_image_recon_recls(
            every.reshape(len(SCORES), -1), table, (100, 300), 0.05, 0.5, 100, None,
            lambda *_: x, head, recon, ours.config.rescoring_alpha, recls,
        )  # fmt: skip
    kinds = ("amodal", "visible")
    result |= {f"{name}/coarse {k}": thinned(getattr(seen, f"pred_{k}_masks")) for k in kinds}
    result |= {f"{name}/refined {k}": thinned(getattr(seen, f"pred_{k}2_masks")) for k in kinds}
    result |= {
        f"{name}/ensemble {k}": thinned(getattr(seen, f"pred_{k}_ensemble_masks")) for k in kinds
    }
    place = [int(b[0] // 40) for b in found.pred_boxes.tensor]
    result[f"{name}/scores"] = found.scores[np.argsort(place)].numpy()
    return result


def record_aisformer(clone: Clone, layers: int) -> np.ndarray:
    """Visible, occluder, amodal and invisible logits."""
    clone.stand_in("detectron2.layers", **vars(clone.load("detectron2/layers/mlp.py")))
    clone.load("detectron2/layers/transformer.py")
    clone.load("detectron2/layers/position_encoding.py")
    module = clone.load("detectron2/modeling/roi_heads/aisformer/aisformer.py")
    head = group(CONV_DIM=256, NORM="", NUM_CONV=4, CLS_AGNOSTIC_MASK=True)
    own = group(N_LAYERS=layers, N_HEADS=2, JUSTIFY_LOSS=True, USE=True)
    settings = group(MODEL=group(ROI_HEADS=group(NUM_CLASSES=2), ROI_MASK_HEAD=head, AISFormer=own))
    theirs = module.AISFormer(settings, SimpleNamespace(channels=256)).eval()
    ours = AisFormerHead(AisFormerConfig(classes=("a", "b"), layers=layers))
    del theirs.predictor_TR  # used nowhere
    give(theirs, ours, AISFORMER_NAMES)
    with torch.no_grad():
        return thinned(torch.cat(theirs(features(256)), 1))


def record_tracker(root: Path, settings: dict[str, Any], seed: int) -> np.ndarray:
    """The id of every detection of all frames in a row, -1 where it has none.

    As their detectors do it: a frame without detections does not reach the tracker.
    """
    for name in ("vatrack", "vatrack.models", "vatrack.models.trackers", "mmdet", "mmdet.core"):
        sys.modules[name] = StandIn(name)
    builder = StandIn("vatrack.models.builder")
    builder.TRACKERS = SimpleNamespace(register_module=lambda: lambda made: made)
    sys.modules["vatrack.models.builder"] = builder
    sys.modules["mmdet.core"].bbox_overlaps = box_iou
    path = root / "vatrack/vatrack/models/trackers/quasi_dense_embed_tracker.py"
    spec = importlib.util.spec_from_file_location("vatrack.models.trackers.embed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tracker, ids = module.QuasiDenseEmbedTracker(**settings), []
    for k, frame in enumerate(tracker_frames(seed)):
        if not len(frame["scores"]):
            continue
        boxes = torch.from_numpy(np.column_stack([frame["boxes"], frame["scores"]]))
        kept, _, own = tracker.match(
            boxes, torch.from_numpy(frame["labels"]), torch.from_numpy(frame["embeddings"]), k
        )
        place = {tuple(b.tolist()): i for b, i in zip(kept, own.tolist(), strict=True)}
        ids += [max(place.get(tuple(b.tolist()), -1), -1) for b in boxes]
    return np.array(ids, np.int16)


def main() -> None:
    clones = Path(sys.argv[1])
    sys.meta_path.insert(0, StandIns())
    torch.Tensor.cuda = lambda self: self
    move = torch.Tensor.to
    torch.Tensor.to = lambda self, *given, **named: (
        self if named.get("device") == "cuda" else move(self, *given, **named)
    )
    arrays: dict[str, np.ndarray] = {}
    clone = Clone(clones / "vrsp")
    for name, case in HEAD_CASES.items():
        arrays |= record_vrsp(clone, name, case)
    clone = Clone(clones / "AISFormer")
    arrays |= {f"aisformer/{n} layers": record_aisformer(clone, n) for n in AISFORMER_LAYERS}
    for name, settings in TRACKER_CASES.items():
        each = [record_tracker(clones, settings, seed) for seed in range(TRACKER_SEEDS)]
        arrays[f"tracker/{name}"] = np.concatenate(each)
    np.savez_compressed(HEADS, **arrays)
    for name, value in arrays.items():
        print(name, value.shape, float(np.abs(value).max()))


if __name__ == "__main__":
    main()
