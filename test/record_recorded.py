"""Records what the development kits of nuScenes, Argoverse 2 and Waymo read from `recorded_scenes`.

Run by hand where the kits are: `python test/record_recorded.py WAYMO_SOURCE`, with nuscenes-devkit
and av2 installed and the folder `src/waymo_open_dataset` of Waymo's repository. Of the latter the
two functions of range images are run on NumPy in place of TensorFlow, and the components' columns
taken from their declarations.
"""

from __future__ import annotations

import ast
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import recorded_scenes as scenes

OUT = Path(__file__).parent / "fixtures" / "recorded_drives.json"
EVERY = 41  # of the points
COLUMNS = {
    "camera_image": ("camera_image.py", "CameraImageComponent"),
    "camera_calibration": ("context.py", "CameraCalibrationComponent"),
    "lidar": ("lidar.py", "LiDARComponent"),
    "lidar_pose": ("lidar.py", "LiDARPoseComponent"),
    "lidar_calibration": ("context.py", "LiDARCalibrationComponent"),
    "lidar_box": ("box.py", "LiDARBoxComponent"),
    "vehicle_pose": ("pose.py", "VehiclePoseComponent"),
}


def nuscenes(root: Path) -> list[dict[str, Any]]:
    from nuscenes.nuscenes import NuScenes
    from nuscenes.utils.geometry_utils import view_points

    kit = NuScenes("v1.0-mini", str(scenes.write_nuscenes(root)), verbose=False)
    frames = []
    for sample in kit.sample:
        camera, lidar = sample["data"]["CAM_FRONT"], sample["data"]["LIDAR_TOP"]
        explorer = kit.explorer
        uv, depth, _ = explorer.map_pointcloud_to_image(lidar, camera, min_dist=0.5)
        _, boxes, K = kit.get_sample_data(camera)
        frames.append(
            {
                "stamps": [kit.get("sample_data", t)["timestamp"] for t in (camera, lidar)],
                "uvd": np.vstack([uv[:2], depth]).T[::EVERY].tolist(),
                "boxes": {
                    b.name: {
                        "corners": b.corners().T.tolist(),
                        "pixels": view_points(b.corners(), K, True)[:2].T.tolist(),
                    }
                    for b in boxes
                },
            }
        )
    return frames


def argoverse(root: Path) -> list[dict[str, Any]]:
    from av2.geometry.camera.pinhole_camera import PinholeCamera
    from av2.structures.cuboid import CuboidList
    from av2.structures.sweep import Sweep
    from av2.utils.io import read_city_SE3_ego

    log = next(scenes.write_argoverse(root).iterdir())
    camera = PinholeCamera.from_feather(log, "ring_front_center")
    poses = read_city_SE3_ego(log)
    every = CuboidList.from_feather(log / "annotations.feather")
    frames = []
    for path in sorted((log / "sensors" / "lidar").iterdir()):
        sweep = Sweep.from_feather(path)
        stamp = sweep.timestamp_ns
        image = stamp + 1000 * scenes.CAMERA_LATE
        uv, cam, valid = camera.project_ego_to_img_motion_compensated(
            sweep.xyz, poses[image], poses[stamp]
        )
        moved = poses[image].inverse().compose(poses[stamp])
        frames.append(
            {
                "stamps": [image, stamp],
                "uvd": np.column_stack([uv[:, :2], cam[:, 2]])[valid][::EVERY].tolist(),
                "boxes": {
                    c.category: moved.transform_point_cloud(c.vertices_m).tolist()
                    for c in every.cuboids
                    if c.timestamp_ns == stamp
                },
                "camera": camera.ego_SE3_cam.transform_matrix.tolist(),
            }
        )
    return frames


class _Scope:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _numpy_as_tensorflow() -> Any:
    tf = types.SimpleNamespace(
        cast=lambda x, dtype: np.asarray(x, dtype),
        cos=np.cos, sin=np.sin, atan2=np.arctan2, range=np.arange, einsum=np.einsum, tile=np.tile,
        stack=lambda values, axis=0: np.stack(values, axis), reshape=np.reshape,
        unstack=lambda x, axis: list(np.moveaxis(x, axis, 0)),
        expand_dims=lambda x, axis: np.expand_dims(x, axis),
        reverse=lambda x, axis: np.flip(x, axis), matmul=np.matmul,
        ones_like=np.ones_like, zeros_like=np.zeros_like, float32=np.float64,
        linalg=np.linalg, Tensor=np.ndarray, newaxis=None,
    )  # fmt: skip
    tf.compat = types.SimpleNamespace(v1=types.SimpleNamespace(name_scope=lambda *_: _Scope()))
    return tf


def _functions(path: Path, names: set[str], scope: dict[str, Any]) -> dict[str, Any]:
    """Some functions of a file, without its imports."""
    tree = ast.parse(path.read_text())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names]
    exec(compile(tree, str(path), "exec"), scope)
    return scope


def waymo(source: Path) -> list[dict[str, Any]]:
    scope = {"np": np, "tf": _numpy_as_tensorflow()}
    scope["_combined_static_and_dynamic_shape"] = np.shape
    names = {"compute_range_image_polar", "compute_range_image_cartesian", "compute_inclination"}
    kit = _functions(source / "utils" / "range_image_utils.py", names, scope)
    turns = _functions(source / "utils" / "transform_utils.py", {"get_rotation_matrix"}, scope)
    frames = []
    for n in range(2):
        ranges, poses = (a.astype(np.float64) for a in scenes.range_image(n))
        pixel = np.tile(np.eye(4), (*poses.shape[:2], 1, 1))
        pixel[..., :3, :3] = turns["get_rotation_matrix"](*np.moveaxis(poses[..., :3], -1, 0))
        pixel[..., :3, 3] = poses[..., 3:]
        frame = scenes.world_from_base(scenes.BEGIN + n * scenes.PERIOD).astype(np.float32)
        extrinsic = scenes.BASE_FROM_TOP[None]
        polar = kit["compute_range_image_polar"](
            ranges[None, ..., 0], extrinsic, scenes.BEAMS[::-1][None], np.float64
        )
        points = kit["compute_range_image_cartesian"](
            polar, extrinsic, pixel[None], frame[None].astype(np.float64), np.float64
        )[0]
        frames.append({"points": points[ranges[..., 0] > 0][::11].tolist()})
    return frames


def columns(source: Path) -> dict[str, list[str]]:
    """The columns that Waymo's declarations give each component."""
    made: dict[str, Any] = {"tensorflow": types.ModuleType("tensorflow")}
    made["tensorflow"].Tensor = np.ndarray
    for package in (
        "waymo_open_dataset",
        "waymo_open_dataset.v2",
        "waymo_open_dataset.v2.perception",
    ):
        made[package] = types.ModuleType(package)
        made[package].__path__ = [str(source.joinpath(*package.split(".")[1:]))]
    sys.modules.update(made)
    from importlib import import_module

    listed = {}
    for component, (file, name) in COLUMNS.items():
        module = import_module(f"waymo_open_dataset.v2.perception.{file[:-3]}")
        listed[component] = getattr(module, name).schema().names
    return listed


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        place, waymo_source = Path(folder), Path(sys.argv[1])
        recorded = {
            "nuscenes": nuscenes(place / "nuscenes"),
            "av2": argoverse(place / "av2"),
            "waymo": waymo(waymo_source),
            "waymo_columns": columns(waymo_source),
        }
    OUT.write_text(
        json.dumps(json.loads(json.dumps(recorded), parse_float=lambda t: round(float(t), 6)))
    )
    print(OUT.stat().st_size)
