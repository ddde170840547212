"""Published PointPillars of both projects: every tensor has its place, settings are theirs."""

from __future__ import annotations

import numpy as np
import pytest
import seeded_weights
import torch

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, read_info, save_checkpoint
from amodal_core.models.imports.importer import import_weights
from amodal_core.models.layers.weights import read_weights


class TestPointPillars:
    """That they find what the originals find: test_models_pointpillars_public.py."""

    def state(self, name: str) -> dict[str, torch.Tensor]:
        """Seeded tensors under the names of a recorded original."""
        return seeded_weights.state_of(seeded_weights.read(f"pointpillars_{name}")[0])

    def imported(self, state, tmp_path, meta=None, **options):
        """What was done, the checkpoint's settings and its tensors."""
        value = {"state_dict": state} | ({"meta": meta} if meta else {})
        torch.save(value, tmp_path / "x.pth")
        out = tmp_path / "x.safetensors"
        done = import_weights([tmp_path / "x.pth"], "pointpillars", out, **options)
        assert (done.rest, done.taken) == ((), done.tensors)
        return done, read_info(out).config, read_weights(out)

    @pytest.mark.parametrize("name", ["pure", "pcdet", "mmdet3d", "mmdet3d_0"])
    def test_every_tensor_has_its_place(self, name, tmp_path):
        state = self.state(name)
        _, _, ours = self.imported(state, tmp_path)
        sums = sorted(float(t.double().sum()) for n, t in state.items() if n != "global_step")
        assert sorted(float(t.double().sum()) for t in ours.values()) == sums

    def test_settings_are_those_of_each_project(self, tmp_path):
        _, pure, _ = self.imported(self.state("pure"), tmp_path)
        _, pcdet, _ = self.imported(self.state("pcdet"), tmp_path)
        _, mmdet3d, _ = self.imported(self.state("mmdet3d"), tmp_path)
        _, old, _ = self.imported(self.state("mmdet3d_0"), tmp_path)
        kind = registry.learned("pointpillars")
        assert kind.from_config(pure).config == kind.from_config({}).config
        # As their configuration files have them.
        assert (pcdet["candidates"], pcdet["max_instances"]) == (4096, 500)
        assert not pcdet["multi_classes_nms"]
        assert not pcdet["align_center"]
        assert (pcdet["dir_offset"], mmdet3d["dir_offset"]) == (0.78539, -np.pi / 2)
        assert (mmdet3d["candidates"], mmdet3d["max_instances"]) == (100, 50)
        assert mmdet3d["features"] == {**pcdet["features"], "xyz": "legacy"}
        assert old["anchor_range"] == [0, -39.68, 70.4, 39.68]

    def test_classes_are_chosen_with_their_anchors(self, tmp_path):
        state = self.state("pcdet")
        _, config, ours = self.imported(state, tmp_path, classes=["cyclist", "car"])
        assert config["classes"] == ["cyclist", "car"]
        scores = state["dense_head.conv_cls.bias"].reshape(3, 2, 3)  # car, pedestrian, cyclist
        assert torch.equal(ours["head.conv_cls.bias"], scores[[2, 0]][:, :, [2, 0]].flatten())
        boxes = state["dense_head.conv_box.weight"].reshape(3, 14, 384)
        assert torch.equal(ours["head.conv_reg.weight"].flatten(), boxes[[2, 0]].flatten())
        turns = state["dense_head.conv_dir_cls.bias"].reshape(3, 4)
        # Another order of all classes is a choice, too, not other names of them.
        own = ["pedestrian", "cyclist", "car"]
        _, config, ours = self.imported(state, tmp_path, classes=own)
        assert config["classes"] == own
        assert torch.equal(ours["head.conv_dir_cls.bias"], turns[[1, 2, 0]].flatten())

    def test_a_network_of_cars_is_known_as_one(self, tmp_path):
        state = self.state("mmdet3d")
        for name, rows in {"cls": 2, "reg": 14, "dir_cls": 4}.items():
            for kind in ("weight", "bias"):
                key = f"bbox_head.conv_{name}.{kind}"
                state[key] = state[key][:rows]
        assert self.imported(state, tmp_path)[0].classes == ("car",)
        meta = {"dataset_meta": {"classes": ["Pedestrian"]}}
        assert self.imported(state, tmp_path, meta)[0].classes == ("pedestrian",)
        meta = {"CLASSES": ("Cyclist",)}
        assert self.imported(state, tmp_path, meta)[0].classes == ("cyclist",)

    @pytest.mark.parametrize(
        ("name", "width", "expected"),
        [
            ("pcdet", 7, {"xyz": "none", "voxel_center": "xyz", "with_distance": False}),
            ("pcdet", 11, {"xyz": "absolute", "voxel_center": "xyz", "with_distance": True}),
            ("mmdet3d", 11, {"xyz": "legacy", "voxel_center": "xyz", "with_distance": True}),
        ],
    )
    def test_what_a_point_is_follows_from_its_width(self, name, width, expected, tmp_path):
        state = self.state(name)
        (key,) = [k for k in state if "linear.weight" in k]
        state[key] = torch.zeros(64, width)
        settings = {"features": {"with_distance": True}}
        if expected["with_distance"]:  # Waymo's networks have as many numbers
            with pytest.raises(InputError, match=r"points of 11 numbers.*Waymo"):
                self.imported(state, tmp_path)
        else:
            settings = {}
        assert self.imported(state, tmp_path, settings=settings)[1]["features"] == expected

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (["vfe.pfn_layers.0.linear.weight", "dense_head.rpn_heads.0.conv_cls.weight"],
             r"several heads \(nuScenes\)"),
            (["vfe.pfn_layers.0.linear.weight", "dense_head.heads_list.0.hm.0.0.weight"],
             "CenterPoint on pillars"),
            (["vfe.pfn_layers.0.linear.weight", "rpn_head.conv_cls.weight"], "PCDet 0.1's"),
            (["pts_voxel_encoder.pfn_layers.0.linear.weight", "pts_bbox_head.conv_cls.weight"],
             "nuScenes, Lyft and Waymo"),
            (["voxel_feature_extractor.pfn_layers.0.linear.weight", "rpn.conv_cls.weight"],
             "second.pytorch's"),
        ],
    )  # fmt: skip
    def test_other_networks_on_pillars_are_refused_by_name(self, names, said, tmp_path):
        with pytest.raises(InputError, match=rf"{said}.*which 'pointpillars' cannot take"):
            self.imported({name: torch.zeros(64, 10) for name in names}, tmp_path)

    def test_a_version_that_contradicts_the_tensors_is_refused(self, tmp_path):
        for name, version in (("mmdet3d_0", "1.4.0"), ("mmdet3d", "0.17.3")):
            with pytest.raises(InputError, match=f"mmdetection3d {version} with a point of other"):
                self.imported(self.state(name), tmp_path, {"mmdet3d_version": version})

    def test_settings_that_weights_were_trained_with_cannot_be_changed(self, tmp_path):
        self.imported(self.state("pcdet"), tmp_path)
        out = tmp_path / "x.safetensors"
        registry.create("pointpillars", checkpoint=out, multi_classes_nms=True)
        for name, value in (("heading", "rotation_y"), ("align_center", True), ("dir_offset", 0)):
            with pytest.raises(InputError, match=f"weights for {name} "):
                registry.create("pointpillars", checkpoint=out, **{name: value})

    def test_a_checkpoint_from_before_is_as_it_was(self, tmp_path):
        model = registry.learned("pointpillars").from_config({})
        config = model.config_json()
        newer = ("features", "heading", "align_center", "anchor_range", "dir_offset")
        old = {name: value for name, value in config.items() if name not in newer}
        info = CheckpointInfo("pointpillars", old, model.classes)
        save_checkpoint(tmp_path / "x.safetensors", model, info)
        again = registry.create("pointpillars", checkpoint=tmp_path / "x.safetensors")
        assert again.config == model.config
        with pytest.raises(InputError, match="weights for heading rotation_y, not yaw"):
            registry.create("pointpillars", checkpoint=tmp_path / "x.safetensors", heading="yaw")
