"""Published backbones: known by their shapes, theirs to the bit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import seeded_weights
import torch
from torchvision.models import resnet50

from amodal_core.errors import InputError
from amodal_core.frame import Frame
from amodal_core.models.imports.backbone_names import BODIES, expected
from amodal_core.models.imports.importer import import_weights
from amodal_core.models.imports.two_stage_names import body_name
from amodal_core.models.layers.backbone import move_strides, resnet_fpn
from amodal_core.models.layers.batch import make_batch
from amodal_core.models.layers.efficientnet_lite import EfficientNetLite, package_shapes
from amodal_core.models.layers.weights import read_weights


class TestBackbones:
    @pytest.mark.parametrize("name", BODIES)
    def test_a_resnet_is_known_by_its_shapes(self, name):
        assert body_name(expected(name), "", "a file") == name

    def resnet(self, style: str):
        """A ResNet-50 whose strides lie where the style has them, with seeded weights."""
        body = resnet50(weights=None)
        own = seeded_weights.shapes_of(body.state_dict())
        body.load_state_dict(seeded_weights.state_of(own), strict=False)
        if style == "caffe":
            move_strides(body)
        return body.eval()

    def caffe2_name(self, name: str) -> str:
        layer, _, part = name.rpartition(".")
        parts = layer.split(".")
        kind = {"running_mean": "rm", "running_var": "riv", "weight": "s", "bias": "b"}
        end = f"bn_{kind[part]}" if "bn" in parts[-1] or parts[-2:] == ["downsample", "1"] else "w"
        if len(parts) == 1:
            return "conv1_w" if end == "w" else f"res_conv1_{end}"
        branch = "1" if parts[2] == "downsample" else f"2{'abc'[int(parts[2][-1]) - 1]}"
        return f"res{int(parts[0][-1]) + 1}_{parts[1]}_branch{branch}_{end}"

    def test_msra_of_caffe2_sees_the_same_image(self, tmp_path):
        """The original takes blue, green, red bytes less the mean, and norms without statistics."""
        body = self.resnet("caffe")
        state = body.state_dict()
        for name in state:
            if name.endswith("running_mean"):
                state[name].zero_()
            elif name.endswith("running_var"):
                state[name].fill_(1 - 1e-5)
        arrays = {
            self.caffe2_name(n): t.numpy()
            for n, t in state.items()
            if not n.startswith("fc.") and "running" not in n and "tracked" not in n
        } | {"fc1000_w": np.zeros((1000, 2048)), "conv1_b": np.zeros(64)}
        (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": arrays}, protocol=2))
        out = tmp_path / "msra.safetensors"
        done = import_weights([tmp_path / "R-50.pkl"], "resnet50", out)
        assert done.taken == done.tensors == 265
        ours = resnet_fpn("resnet50", lidar=False, weights=out, stride_in_1x1=True).body.eval()
        image = seeded_weights.image(64, 64)
        given = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1).float()
        given = (given - torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1))[None]
        batch = make_batch([Frame(0, image=image)])
        with torch.inference_mode():
            theirs = body.conv1(given)
            for layer in (body.bn1, body.relu, body.maxpool, body.layer1, body.layer2):
                theirs = layer(theirs)
            levels = ours(batch.images)
        assert torch.allclose(levels["1"], theirs, atol=1e-3, rtol=1e-4)

    def test_torchvisions_file_of_another_depth_is_named(self, tmp_path):
        torch.save(self.resnet("pytorch").state_dict(), tmp_path / "r.pth")
        out = tmp_path / "x.safetensors"
        with pytest.raises(InputError, match=r"weights of resnet50 \(--model resnet50\)"):
            import_weights([tmp_path / "r.pth"], "resnet101", out)
        import_weights([tmp_path / "r.pth"], "resnet50", out)
        stem = self.resnet("pytorch").conv1.weight
        assert torch.allclose(read_weights(out)["conv1.weight"], stem)

    def test_timms_efficientnet_lite_is_the_packages(self, tmp_path):
        shapes = package_shapes()
        package = seeded_weights.state_of(shapes)
        timm = {"conv_head.weight": torch.zeros(1), "classifier.bias": torch.zeros(1)}
        counts, number = (1, 2, 2, 3, 3, 4, 1), 0
        names = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
        for stage, count in enumerate(counts):
            for block in range(count):
                own = (
                    {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
                     "_bn2": "bn2"}
                    if stage == 0 else
                    {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
                     "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
                )  # fmt: skip
                names |= {f"_blocks.{number}.{k}": f"blocks.{stage}.{block}.{v}"
                          for k, v in own.items()}  # fmt: skip
                number += 1
        for name, value in package.items():
            layer, part = name.rsplit(".", 1)
            timm[f"{names[layer]}.{part}"] = value
        torch.save(timm, tmp_path / "tf_efficientnet_lite0.pth")
        out = tmp_path / "x.safetensors"
        done = import_weights([tmp_path / "tf_efficientnet_lite0.pth"], "efficientnet_lite0", out)
        assert done.taken == done.tensors
        assert all(torch.equal(v, package[k]) for k, v in read_weights(out).items())
        EfficientNetLite((0, 0, 0), (1, 1, 1), str(out))
