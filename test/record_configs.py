"""Records what the published configurations say: test/fixtures/published_configs.json.

    git clone https://github.com/ifnspaml/vatrack
    git clone https://github.com/UARK-AICV/AISFormer
    git clone https://github.com/YutingXiao/Amodal-Segmentation-Based-on-Visible-Region-Segmentation-and-Shape-Prior vrsp
    git clone https://github.com/SysCV/qdtrack
    python test/record_configs.py FOLDER_OF_THE_CLONES

detectron2's are their defaults with the YAML files of a configuration put over them, mmdetection's
the Python files of a configuration; nothing else of theirs is run.
"""  # noqa: E501

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import yaml

OUT = Path(__file__).parent / "fixtures" / "published_configs.json"
_VRSP = "mask_rcnn_R_50_FPN_1x_parallel_CtRef_VAR_SPRef_SPRet_FM.yaml"
# Ours -> theirs.
DETECTRON = {
    f"{ours}/{model}": ("vrsp", f"{theirs}-AmodalSegmentation/{file}")
    for ours, theirs in (("kins", "KINS"), ("d2sa", "D2SA"), ("cocoa_cls", "COCOA_cls"))
    for model, file in (
        ("vrsp", _VRSP),
        ("orcnn", "mask_orcnn_R_50_FPN_1x.yaml"),
        ("mask_rcnn", "mask_rcnn_R_50_FPN_1x_amodal.yaml"),
    )
} | {
    f"{ours}/aisformer": (
        "AISFormer",
        f"{theirs}-AmodalSeg/aisformer_R_50_FPN_1x_amodal_{ours}.yaml",
    )
    for ours, theirs in (("kins", "KINS"), ("d2sa", "D2SA"), ("cocoa_cls", "COCOA_cls"))
}
SAILVOS = {
    "qdtrack": "QDTrack", "amodal_track": "QDbasedAmodalTrack", "vatrack": "QDbasedVATrack",
    "vatrack_two_box": "QDbasedVATrack_twobbox",
}  # fmt: skip
KEPT = {
    "MODEL": {
        "BACKBONE": ("FREEZE_AT",),
        "RPN": (
            "POST_NMS_TOPK_TRAIN", "POST_NMS_TOPK_TEST", "SMOOTH_L1_BETA", "NMS_THRESH",
            "BATCH_SIZE_PER_IMAGE", "POSITIVE_FRACTION", "IOU_THRESHOLDS",
        ),
        "ROI_HEADS": (
            "BATCH_SIZE_PER_IMAGE", "POSITIVE_FRACTION", "SCORE_THRESH_TEST", "NMS_THRESH_TEST",
        ),
        "ROI_BOX_HEAD": ("SMOOTH_L1_BETA", "POOLER_TYPE", "POOLER_SAMPLING_RATIO"),
        "ROI_MASK_HEAD": (
            "NUM_CONV", "VERSION", "GT_AMODAL_WEIGHT", "GT_VISIBLE_WEIGHT", "AMODAL_FM_BETA",
            "AMODAL_FEATURE_MATCHING", "RECLS_NET", "RECON_NET",
        ),
        "AISFormer": ("N_LAYERS", "N_HEADS"),
        "WEIGHTS": (),
    },
    "SOLVER": (
        "IMS_PER_BATCH", "BASE_LR", "STEPS", "MAX_ITER", "GAMMA", "MOMENTUM", "WEIGHT_DECAY",
        "WEIGHT_DECAY_NORM", "BIAS_LR_FACTOR", "WARMUP_ITERS", "WARMUP_FACTOR",
    ),
    "INPUT": ("MIN_SIZE_TRAIN", "MAX_SIZE_TRAIN", "MIN_SIZE_TEST", "MAX_SIZE_TEST"),
    "TEST": ("DETECTIONS_PER_IMAGE",),
}  # fmt: skip


class Node(dict[str, Any]):
    """A table whose entries are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A table with another one put over it, groups one by one."""
    result = dict(base)
    for key, value in over.items():
        inner = result.get(key)
        if isinstance(value, str) and value.startswith("("):
            value = ast.literal_eval(value)
        if isinstance(inner, dict) and isinstance(value, dict):
            value = merged(inner, value)
        result[key] = value
    return result


def defaults(root: Path) -> dict[str, Any]:
    """detectron2's defaults of a clone, and what its tools add."""
    source = (root / "detectron2/config/defaults.py").read_text()
    space: dict[str, Any] = {"CN": Node}
    exec(source.replace("from .config import CfgNode as CN", ""), space)
    added = root / "tools/add_config.py"
    if added.exists():
        lines = [n for n in added.read_text().splitlines() if not n.startswith("from detectron2")]
        more: dict[str, Any] = {"CN": Node, "__name__": "add_config"}
        exec("\n".join(lines), more)
        more["add_config"](space["_C"])
    values: dict[str, Any] = space["_C"]
    return values


def of_yaml(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text())
    base = values.pop("_BASE_", None)
    return merged(of_yaml(path.parent / base), values) if base else merged({}, values)


def of_python(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    exec(path.read_text(), values)
    base = values.pop("_base_", None)
    plain = {k: v for k, v in values.items() if not k.startswith("__")}
    return merged(of_python(path.parent / base), plain) if base else plain


def kept(values: dict[str, Any], wanted: Any) -> dict[str, Any]:
    """Only what is compared."""
    if isinstance(wanted, dict):
        return {
            k: kept(values[k], inner) if inner else values[k]
            for k, inner in wanted.items()
            if k in values
        }
    return {k: values[k] for k in wanted if k in values}


def main() -> None:
    clones = Path(sys.argv[1])
    result = {
        ours: kept(
            merged(defaults(clones / clone), of_yaml(clones / clone / "configs" / file)), KEPT
        )
        for ours, (clone, file) in DETECTRON.items()
    }
    for ours, theirs in SAILVOS.items():
        values = of_python(clones / "vatrack/configs" / f"{theirs}_SAILVOScut.py")
        names = ("model", "optimizer", "lr_config", "total_epochs", "load_from")
        result[f"sailvos/{ours}"] = {n: values[n] for n in names} | {
            "samples_per_gpu": values["data"]["samples_per_gpu"],
            "ref_img_sampler": values["data"]["train"][0]["ref_img_sampler"],
            "img_scale": values["test_pipeline"][1]["img_scale"],
        }
    driving = of_python(clones / "qdtrack/configs/bdd100k/qdtrack-frcnn_r50_fpn_12e_bdd100k.py")
    result["driving"] = {"tracker": driving["model"]["tracker"]}
    OUT.write_text(json.dumps(result, sort_keys=True) + "\n")
    print(len(result), "configurations,", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
