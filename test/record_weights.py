"""Run the original networks on seeded weights and keep what they find, for test_models_imports.py.

    PYTHONPATH=.:test:DEPENDENCIES python test/record_weights.py CLONES [NAME ...]

CLONES holds AISFormer (UARK-AICV/AISFormer), vrsp (YutingXiao/Amodal-Segmentation-Based-on-
Visible-Region-Segmentation-and-Shape-Prior), S-AModal (ifnspaml/S-AModal), detectron2
(facebookresearch/detectron2) and aistron (trqminh/aistron); DEPENDENCIES is what
`pip install --no-deps --target` made of fvcore iopath yacs omegaconf antlr4-python3-runtime==4.9.3
portalocker termcolor cloudpickle hydra-core. What the originals import and networks do not need is
replaced by mocks; no code of theirs is kept.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import PIL.Image
import seeded_weights
import torch
from torchvision.ops import nms, roi_align

CLONES = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()


class Mocks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules, with those below them, that are imported but not used."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if any(name == n or name.startswith(f"{n}.") for n in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: MagicMock()  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None: ...


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """A network with seeded weights."""
    state = network.state_dict()
    network.load_state_dict(
        {
            n: t if n.startswith("pixel_") or "cell_anchors" in n or n.endswith("tracked")
            else seeded_weights.seeded(n, t.shape)
            for n, t in state.items()
        }
    )  # fmt: skip
    return network.eval()


def every(masks: torch.Tensor) -> np.ndarray:
    """Some cells of (N, 28, 28) masks."""
    return masks[:, 3::7, 3::7].numpy()


def detectron2(clone: str) -> None:
    """Make a fork of detectron2 importable on a CPU without its compiled part and data sets."""
    for name in [n for n in sys.modules if n.split(".")[0] == "detectron2"]:
        del sys.modules[name]
    sys.path.insert(0, str(CLONES / clone))
    PIL.Image.LINEAR = PIL.Image.BILINEAR
    unused = (
        "ipdb",
        "visdom",
        "skimage",
        "pytorch_toolbelt",
        "torch_dct",
        "einops",
        "timm",
        "pandas",
        "shapely",
    )
    sys.meta_path.insert(0, Mocks("detectron2.data", "detectron2._C", *unused))


@contextmanager
def without_gpu() -> Iterator[None]:
    """Code that asks for a GPU runs on the host."""
    with (
        torch.no_grad(),
        patch.object(torch.Tensor, "to", on_host(torch.Tensor.to)),
        patch.object(torch, "zeros_like", on_host(torch.zeros_like)),
    ):
        yield


def on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without its wish for a GPU."""

    def call(*given: Any, **named: Any) -> Any:
        return function(*given, **{k: v for k, v in named.items() if not str(v).startswith("cuda")})

    return call


def heard(module: torch.nn.Module) -> list[Any]:
    """What a module gives, call by call."""
    outputs: list[Any] = []
    module.register_forward_hook(lambda _, given, output: outputs.append(output))
    return outputs


def normalised(image: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W): blue, green, red bytes less Caffe's mean."""
    mean = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    return (torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1).float() - mean)[None]


def both(
    name: str,
    network: torch.nn.Module,
    masks: tuple[str, str],
    logits: Callable[[Any], tuple[torch.Tensor, torch.Tensor]],
    codebook: dict[int, torch.Tensor] | None = None,
) -> None:
    """Record what a network finds in the bytes of an image, in single and in double precision.

    The image goes through the original's own resizing, network and pasting.

    Args:
        name: of the fixture.
        network: with seeded weights.
        masks: what the amodal and the visible masks are called in results.
        logits: gives both (N, 28, 28) of the classes found.
        codebook: of the network, which is no tensor of its state.
    """
    from detectron2.utils.events import EventStorage

    image = seeded_weights.image(*seeded_weights.SIZE)
    small = resize_shortest_edge(image[:, :, ::-1], seeded_weights.SHORT)
    one = {
        "image": torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1))),
        "height": image.shape[0],
        "width": image.shape[1],
        "inference_instances": torch.empty(0),
    }
    shapes, outputs = seeded_weights.shapes_of(network.state_dict()), {}
    for ending in ("", "_double"):
        with without_gpu(), EventStorage(), ExitStack() as patches:
            if ending:
                # Whatever the original brings to single precision on the way.
                patches.enter_context(patch.object(torch.Tensor, "float", torch.Tensor.double))
                patches.enter_context(double_by_default())
                one_type = lambda boxes, scores, iou: nms(boxes, scores.to(boxes), iou)  # noqa: E731
                patches.enter_context(patch("torchvision.ops.boxes.nms", one_type))
                network.double()
                for label in codebook or {}:
                    codebook[label] = codebook[label].double()
                if hasattr(network, "normalizer"):
                    mean = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
                    network.normalizer = lambda x, mean=mean: x - mean
            found = network([one])[0]["instances"]
            amodal, visible = logits(found)
        kept = {
            "boxes": found.pred_boxes.tensor,
            "scores": found.scores,
            "labels": found.pred_classes,
            "amodal": every(amodal),
            "visible": every(visible),
        }
        if not ending:
            for kind, field in zip(("amodal", "visible"), masks, strict=True):
                kept[f"{kind}_pixels"] = seeded_weights.moments(found.get(field).numpy())
        outputs |= {f"{key}{ending}": value for key, value in kept.items()}
    seeded_weights.write(name, shapes, outputs, digits=9)
    count = len(found)
    for key in ("boxes", "scores", "amodal", "visible"):
        single, double = (np.asarray(outputs[key + e]) for e in ("", "_double"))
        apart = np.abs(single - double)[: min(count, seeded_weights.KEPT)].max()
        print(f"{name}: {key} in single and double precision differ by {apart:.1e}")


@contextmanager
def double_by_default() -> Iterator[None]:
    """New tensors are of double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def resize_shortest_edge(image: np.ndarray, short: int) -> np.ndarray:
    """Of detectron2's newest version; record_images.py compares it by itself."""
    height, width = image.shape[:2]
    scale = short / min(height, width)
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    picture = PIL.Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize(size, PIL.Image.Resampling.BILINEAR))


def aisformer() -> None:
    """AISFormer's KINS model, from the normalised image to masks."""
    detectron2("AISFormer")
    sys.path.insert(0, str(CLONES / "AISFormer" / "tools"))
    from add_config import add_config
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    add_config(config)
    folder = CLONES / "AISFormer" / "configs" / "KINS-AmodalSeg"
    config.merge_from_file(str(folder / "aisformer_R_50_FPN_1x_amodal_kins.yaml"))
    config.MODEL.DEVICE = "cpu"
    network = filled(build_model(config))
    masks = heard(network.roi_heads.mask_head)

    def logits(found: Any) -> tuple[torch.Tensor, torch.Tensor]:
        visible, _, amodal, _ = masks[-1]
        return amodal[:, 0], visible[:, 0]

    both("aisformer", network, ("pred_amodal_masks", "pred_visible_masks"), logits)


def small_detectron2(**settings: Any) -> Any:
    """detectron2's configuration of Mask R-CNN with a quarter of its channels.

    Args:
        **settings: see `change`.
    """
    detectron2("detectron2")
    from detectron2.config import get_cfg

    config = get_cfg()
    folder = CLONES / "detectron2" / "configs" / "COCO-InstanceSegmentation"
    config.merge_from_file(str(folder / "mask_rcnn_R_50_FPN_1x.yaml"))
    settings |= {
        "DEVICE": "cpu", "FPN__OUT_CHANNELS": 64, "ROI_BOX_HEAD__FC_DIM": 256,
        "RPN__POST_NMS_TOPK_TEST": 60,
    }  # fmt: skip
    change(config, settings)
    return config


def change(config: Any, settings: dict[str, Any]) -> None:
    """Settings of a configuration of detectron2, below MODEL, `__` for each dot."""
    for name, value in settings.items():
        config.merge_from_list([f"MODEL.{name.replace('__', '.')}", value])


def found_by(network: Any, pixels: torch.Tensor) -> Any:
    """Instances that one of detectron2's networks finds in a normalised image."""
    from detectron2.structures import ImageList

    with without_gpu():
        images = ImageList(pixels, [tuple(pixels.shape[2:])])
        features = network.backbone(images.tensor)
        proposals, _ = network.proposal_generator(images, features, None)
        given = [torch.empty(0)] * len(proposals)  # truth, which one of them counts
        (instances,), _ = network.roi_heads(images, features, proposals, given)
    return instances


def keep(name: str, network: Any, instances: Any, amodal: Any, visible: Any) -> None:
    """Write a fixture of instances and their logits (N, 28, 28)."""
    seeded_weights.write(
        name,
        seeded_weights.shapes_of(network.state_dict()),
        {
            "boxes": instances.pred_boxes.tensor,
            "scores": instances.scores,
            "labels": instances.pred_classes,
            "amodal": every(amodal),
            "visible": every(visible),
        },
    )


def zoo() -> None:
    """Mask R-CNN on a ResNeXt as in the zoo, with all norms and layers of its new baselines."""
    config = small_detectron2(
        ROI_HEADS__NUM_CLASSES=7, RESNETS__NUM_GROUPS=32, RESNETS__WIDTH_PER_GROUP=4,
        RESNETS__STRIDE_IN_1X1=False, FPN__NORM="BN", RPN__CONV_DIMS=[-1, -1],
        ROI_BOX_HEAD__NUM_CONV=4, ROI_BOX_HEAD__CONV_DIM=64, ROI_BOX_HEAD__NUM_FC=1,
        ROI_BOX_HEAD__NORM="BN", ROI_MASK_HEAD__CONV_DIM=64, ROI_MASK_HEAD__NORM="BN",
    )  # fmt: skip
    from detectron2.modeling import build_model

    network = filled(build_model(config))
    network.backbone.bottom_up.stem.conv1.weight.data /= seeded_weights.BYTES
    # Its ResNeXts take blue, green, red less the mean over the deviation.
    std = torch.tensor([57.375, 57.12, 58.395]).view(3, 1, 1)
    logits: list[torch.Tensor] = []
    network.roi_heads.mask_head.predictor.register_forward_hook(
        lambda _, given, output: logits.append(output)
    )
    instances = found_by(network, normalised(seeded_weights.image()) / std)
    own = logits[-1][torch.arange(len(instances)), instances.pred_classes]
    keep("detectron2", network, instances, own, own)


def aistron() -> None:
    """AISFormer's later head in aistron, with eight convolutions before and after."""
    config = small_detectron2(
        ROI_HEADS__NUM_CLASSES=8, RESNETS__DEPTH=18, RESNETS__RES2_OUT_CHANNELS=64
    )
    sys.path.insert(0, str(CLONES / "aistron" / "projects" / "AISFormer"))
    from aisformer import add_aisformer_config
    from detectron2.modeling import build_model

    add_aisformer_config(config)
    config.AISFORMER.EMB_DIM = 64
    config.MODEL.ROI_MASK_HEAD.NAME = "AISFormer"
    network = filled(build_model(config))
    head, masks = network.roi_heads.mask_head, []
    layers = head.layers
    head.layers = lambda x: masks.append(layers(x)) or masks[-1]
    instances = found_by(network, normalised(seeded_weights.image()))
    visible, _, amodal, _ = masks[-1]
    keep("aistron", network, instances, amodal[:, 0], visible[:, 0])


def old_detectron2(config_file: str, **settings: Any) -> Any:
    """A network of VRSP-Net's repository, whose detectron2 has its RoIAlign in C++.

    Args:
        config_file: below its folder of configurations.
        **settings: see `change`.
    """
    detectron2("vrsp")
    compiled = types.ModuleType("detectron2._C")
    compiled.roi_align_forward = (  # type: ignore[attr-defined]
        lambda x, rois, scale, height, width, ratio, aligned: roi_align(
            x, rois.to(x), (height, width), scale, ratio, aligned
        )
    )
    sys.modules["detectron2._C"] = compiled
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    config.merge_from_file(str(CLONES / "vrsp" / "configs" / config_file))
    config.MODEL.DEVICE = "cpu"
    config.MODEL.RPN.POST_NMS_TOPK_TEST = 40  # every candidate goes through the heads
    config.TEST.DETECTIONS_PER_IMAGE = 30  # before scores change
    change(config, settings)
    return filled(build_model(config))


def two_masks(name: str, network: torch.nn.Module, heads: Callable[[], list[torch.Tensor]]) -> None:
    """Record a network of VRSP-Net's repository in a normalised image.

    Args:
        name: of the fixture.
        network: with seeded weights.
        heads: gives the amodal and the visible logits (N, C, 28, 28) of the last call.
    """
    from detectron2.utils.events import EventStorage

    with EventStorage():
        instances = found_by(network, normalised(seeded_weights.image()))
    rows, classes = torch.arange(len(instances)), instances.pred_classes
    amodal, visible = (logits[rows, classes] for logits in heads())
    keep(name, network, instances, amodal, visible)


def vrsp() -> None:
    """VRSP-Net's KINS model with feature matching, shapes, and a codebook by a rule."""
    network = old_detectron2(
        "KINS-AmodalSegmentation/mask_rcnn_R_50_FPN_1x_parallel_CtRef_VAR_SPRef_SPRet_FM.yaml"
    )
    masks = heard(network.roi_heads.mask_head)

    def logits(found: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows, classes = torch.arange(len(found)), found.pred_classes
        amodal, visible = (of_kind[rows, classes] for of_kind in masks[-1][0][-1])
        return amodal, visible

    codebook = {k: seeded_weights.codebook(k, 392) for k in range(7)}
    network.roi_heads.recon_net.vector_dict = codebook
    both("vrsp", network, ("pred_amodal2_masks", "pred_visible2_masks"), logits, codebook)


def orcnn() -> None:
    """ORCNN with KINS' seven classes and a quarter of its channels."""
    network = old_detectron2(
        "KINS-AmodalSegmentation/mask_orcnn_R_50_FPN_1x.yaml",
        ROI_HEADS__NUM_CLASSES=7, FPN__OUT_CHANNELS=64, ROI_BOX_HEAD__FC_DIM=256,
        ROI_AMODAL_MASK_HEAD__CONV_DIM=64, ROI_VISIBLE_MASK_HEAD__CONV_DIM=64,
    )  # fmt: skip
    heads = network.roi_heads
    masks = [heard(heads.amodal_mask_head), heard(heads.visible_mask_head)]
    two_masks("orcnn", network, lambda: [outputs[-1][1] for outputs in masks])


def s_amodal() -> None:
    """S-AModal's SAM in its three modes, at the size of `tiny`: one point in a square image."""
    sys.meta_path.insert(0, Mocks("einops"))
    sys.path.insert(0, str(CLONES / "S-AModal"))
    from segment_anything import modeling

    image = torch.from_numpy(seeded_weights.image(256, 256)).permute(2, 0, 1).float()
    for mode in ("normal", "adapt", "samadpt"):
        network = modeling.Sam(
            image_encoder=modeling.ImageEncoderViT(
                {"mode": mode, "mid_dim": None}, img_size=256, patch_size=8, embed_dim=128,
                depth=4, num_heads=4, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                use_rel_pos=True, global_attn_indexes=(1, 3), window_size=8, out_chans=64,
            ),
            prompt_encoder=modeling.PromptEncoder(64, (32, 32), (256, 256), 16),
            mask_decoder=modeling.MaskDecoder(
                transformer_dim=64,
                transformer=modeling.TwoWayTransformer(2, 64, 4, 256),
                iou_head_hidden_dim=64,
            ),
        )  # fmt: skip
        network = filled(network)
        point = torch.tensor([[[100.0, 60.0]]]), torch.ones(1, 1)
        with torch.no_grad():
            embedding = network.image_encoder(network.preprocess(image)[None])
            sparse, dense = network.prompt_encoder(points=point, boxes=None, masks=None)
            masks, score = network.mask_decoder(
                embedding, network.prompt_encoder.get_dense_pe(), sparse, dense, False
            )
        seeded_weights.write(
            f"s_amodal_{mode}",
            seeded_weights.shapes_of(network.state_dict()),
            {"logits": masks[0, 0, ::8, ::8], "iou": score[0]},
        )


NETWORKS = {f.__name__: f for f in (aisformer, vrsp, orcnn, s_amodal, zoo, aistron)}

if __name__ == "__main__":
    for name in sys.argv[2:] or NETWORKS:
        NETWORKS[name]()
