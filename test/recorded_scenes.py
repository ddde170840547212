"""A small drive with exact truth, in the published layouts of nuScenes, Argoverse 2 and Waymo.

A vehicle drives a bend past parked objects. What the files hold follows from the world alone:
points of the world seen by sensors that stand where the vehicle is at their own moments.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

BEGIN = 1_531_883_530_000_000  # microseconds
SIZE = (96, 160)  # height, width
K = np.array([[110.0, 0, 80], [0, 110.0, 45], [0, 0, 1]])
PERIOD = 100_000  # microseconds between scans; nuScenes' key frames are five apart
CAMERA_LATE = 20_000  # microseconds by which an image follows its scan
OPTICAL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0.0]])  # optical axes in a frame x ahead, z up

# Names in the three sets (Waymo's a number), length, width, height, place in the world, heading.
OBJECTS: tuple[tuple[str, str, int, tuple[float, ...], tuple[float, ...], float], ...] = (
    ("vehicle.car", "REGULAR_VEHICLE", 1, (4.2, 1.8, 1.5), (412.0, 1098.0, 0.75), 0.2),
    ("vehicle.truck", "BOX_TRUCK", 1, (7.0, 2.4, 3.0), (424.0, 1100.0, 1.5), 0.1),
    ("human.pedestrian.adult", "PEDESTRIAN", 2, (0.7, 0.6, 1.8), (414.0, 1104.0, 0.9), -1.0),
    ("movable_object.trafficcone", "CONSTRUCTION_CONE", 3, (0.4, 0.4, 0.7), (409, 1101, 0.35), 0),
    ("vehicle.bicycle", "BICYCLE", 4, (1.7, 0.6, 1.2), (416.0, 1102.5, 0.6), 2.0),
    ("vehicle.car", "REGULAR_VEHICLE", 1, (4.0, 1.7, 1.5), (380.0, 1100.0, 0.75), 0.0),  # behind
)  # fmt: skip


def rigid(place: Any, turn: Rotation) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn.as_matrix(), place
    return matrix


def world_from_base(micros: int) -> np.ndarray:
    """The vehicle at a moment; its base is 0.3 m above the ground."""
    t = (micros - BEGIN) / 1e6
    turn = Rotation.from_euler("ZYX", (0.15 * t + 0.05, 0.01, -0.008))
    return rigid((400 + 4 * t, 1100 + 0.4 * t, 0.3), turn)


BASE_FROM_CAMERA = rigid(
    (1.6, 0.1, 1.2),
    Rotation.from_euler("ZYX", (0.04, -0.02, 0.01)) * Rotation.from_matrix(OPTICAL),
)
# nuScenes' LiDAR looks along its y; the others' ahead.
BASE_FROM_LIDAR = rigid((0.9, 0.0, 1.5), Rotation.from_euler("ZYX", (-np.pi / 2 + 0.02, 0.01, 0)))
BASE_FROM_UP_LIDAR = rigid((1.35, 0.0, 1.34), Rotation.from_euler("ZYX", (0.02, 0.005, -0.01)))
BASE_FROM_TOP = rigid((1.43, 0.02, 1.9), Rotation.from_euler("ZYX", (2.6, 0.01, -0.005)))


def at(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def world_points() -> np.ndarray:
    """(N, 3) points on the objects' sides and on the ground."""
    rng = np.random.default_rng(3)
    parts = []
    for _, _, _, size, place, yaw in OBJECTS:
        unit = rng.uniform(-0.5, 0.5, (120, 3))
        unit[np.arange(120), rng.integers(0, 2, 120)] = rng.choice([-0.5, 0.5], 120)
        parts.append(at(rigid(place, Rotation.from_euler("Z", yaw)), unit * size))
    ground = np.column_stack([rng.uniform(402, 435, 900), rng.uniform(1090, 1110, 900)])
    parts.append(np.column_stack([ground, np.zeros(len(ground))]))
    return np.concatenate(parts)


def image(number: int) -> np.ndarray:
    """(H, W, 3) uint8, smooth, so that JPEG hardly changes it."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    return np.stack([x, 2 * y, np.full_like(x, 40 * number + 20)], axis=2).astype(np.uint8)


def wxyz(matrix: np.ndarray) -> list[float]:
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()
    return [w, x, y, z]


def world_from_object(k: int) -> np.ndarray:
    return rigid(OBJECTS[k][4], Rotation.from_euler("Z", OBJECTS[k][5]))


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 98] if path.suffix == ".jpg" else []
    cv2.imwrite(str(path), pixels[..., ::-1], options)


# nuScenes ------------------------------------------------------------------------------------


def write_nuscenes(root: Path, keys: int = 3) -> Path:
    """A scene with `keys` key frames, a sweep between each two; tables and files as released."""
    tables: dict[str, list[dict[str, Any]]] = {}

    def token(*words: Any) -> str:
        import hashlib

        return hashlib.md5("/".join(map(str, words)).encode()).hexdigest()

    def add(table: str, *words: Any, **row: Any) -> str:
        made = token(table, *words)
        tables.setdefault(table, []).append({"token": made, **row})
        return made

    names = sorted({o[0] for o in OBJECTS})
    categories = {n: add("category", n, name=n, description="") for n in names}
    ridden = add("attribute", "r", name="cycle.with_rider", description="")
    alone = add("attribute", "a", name="cycle.without_rider", description="")
    for level, text in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"), 1):
        tables.setdefault("visibility", []).append(
            {"token": str(level), "level": text, "description": ""}
        )
    log = add("log", logfile="n000", vehicle="n000", date_captured="2018-07-18", location="here")
    tables["map"] = [{"token": token("map"), "log_tokens": [log], "category": "semantic_prior",
                      "filename": "maps/none.png"}]  # fmt: skip
    sensors = {
        "CAM_FRONT": (BASE_FROM_CAMERA, "camera", K.tolist()),
        "LIDAR_TOP": (BASE_FROM_LIDAR, "lidar", []),
    }
    calibrated = {}
    for channel, (place, modality, intrinsic) in sensors.items():
        sensor = add("sensor", channel, channel=channel, modality=modality)
        calibrated[channel] = add(
            "calibrated_sensor",
            channel,
            sensor_token=sensor,
            translation=place[:3, 3].tolist(),
            rotation=wxyz(place),
            camera_intrinsic=intrinsic,
        )
    scene = token("scene", 1)
    sample = [token("sample", k) for k in range(keys)]
    moments = [BEGIN + 5 * PERIOD * k for k in range(keys)]
    tables["scene"] = [{"token": scene, "log_token": log, "nbr_samples": keys,
                        "first_sample_token": sample[0], "last_sample_token": sample[-1],
                        "name": "scene-0001", "description": ""}]  # fmt: skip
    tables["sample"] = [
        {"token": sample[k], "timestamp": moments[k], "scene_token": scene,
         "prev": sample[k - 1] if k else "", "next": sample[k + 1] if k + 1 < keys else ""}
        for k in range(keys)
    ]  # fmt: skip
    for channel in sensors:
        times = [(m, True, k) for k, m in enumerate(moments)]
        times += [(m + 2 * PERIOD, False, k) for k, m in enumerate(moments[:-1])]
        for n, (moment, key, k) in enumerate(sorted(times)):
            stamp = moment + (CAMERA_LATE if channel == "CAM_FRONT" else 0)
            pose = add("ego_pose", channel, n, timestamp=stamp, **_pose(world_from_base(stamp)))
            folder = "samples" if key else "sweeps"
            camera = channel == "CAM_FRONT"
            name = f"n000__{channel}__{stamp}" + (".jpg" if camera else ".pcd.bin")
            path = root / folder / channel / name
            if camera:
                write_jpeg(path, image(n))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                own = at(np.linalg.inv(world_from_base(stamp) @ BASE_FROM_LIDAR), world_points())
                rows = np.column_stack([own, np.arange(len(own)) % 256, np.arange(len(own)) % 32])
                rows.astype("<f4").tofile(path)
            add("sample_data", channel, n, sample_token=sample[k], ego_pose_token=pose,
                calibrated_sensor_token=calibrated[channel], timestamp=stamp, is_key_frame=key,
                fileformat="jpg" if camera else "pcd", filename=f"{folder}/{channel}/{name}",
                height=SIZE[0] if camera else 0, width=SIZE[1] if camera else 0,
                prev="", next="")  # fmt: skip
    for k, (name, _, _, size, _, _) in enumerate(OBJECTS):
        instance = add("instance", k, category_token=categories[name], nbr_annotations=keys,
                       first_annotation_token=token("sample_annotation", k, 0),
                       last_annotation_token=token("sample_annotation", k, keys - 1))  # fmt: skip
        for n in range(keys):
            add("sample_annotation", k, n, sample_token=sample[n], instance_token=instance,
                attribute_tokens=[alone if n else ridden] if "bicycle" in name else [],
                visibility_token=str(1 + k % 4), translation=list(OBJECTS[k][4]),
                size=[size[1], size[0], size[2]], rotation=wxyz(world_from_object(k)),
                num_lidar_pts=9, num_radar_pts=0,
                prev=token("sample_annotation", k, n - 1) if n else "",
                next=token("sample_annotation", k, n + 1) if n + 1 < keys else "")  # fmt: skip
    write_jpeg(root / "maps" / "none.png", np.zeros((4, 4, 3), np.uint8))
    folder = root / "v1.0-mini"
    folder.mkdir(parents=True)
    for table, rows in tables.items():
        (folder / f"{table}.json").write_text(json.dumps(rows, indent=0))
    return root


def _pose(matrix: np.ndarray) -> dict[str, Any]:
    return {"rotation": wxyz(matrix), "translation": matrix[:3, 3].tolist()}


# Argoverse 2 ---------------------------------------------------------------------------------


def write_argoverse(root: Path, scans: int = 3) -> Path:
    """A log with images twice as often as sweeps."""
    log = root / "0b86f508-5df9-4a46-bc59-5b9536dbde9f"
    _feather(log / "calibration" / "egovehicle_SE3_sensor.feather", _se3(
        ("ring_front_center", BASE_FROM_CAMERA), ("up_lidar", BASE_FROM_UP_LIDAR),
        ("down_lidar", BASE_FROM_UP_LIDAR), key="sensor_name",
    ))  # fmt: skip
    _feather(log / "calibration" / "intrinsics.feather", {
        "sensor_name": ["ring_front_center"], "fx_px": [K[0, 0]], "fy_px": [K[1, 1]],
        "cx_px": [K[0, 2]], "cy_px": [K[1, 2]], "k1": [-0.24], "k2": [-0.2], "k3": [0.3],
        "height_px": [SIZE[0]], "width_px": [SIZE[1]],
    })  # fmt: skip
    sweeps = [BEGIN + PERIOD * k for k in range(scans)]
    images = [BEGIN + CAMERA_LATE + PERIOD // 2 * k for k in range(2 * scans)]
    stamps = sorted({*sweeps, *images})
    poses = ((t * 1000, world_from_base(t)) for t in stamps)
    _feather(log / "city_SE3_egovehicle.feather", _se3(*poses, key="timestamp_ns"))
    for n, stamp in enumerate(images):
        path = log / "sensors" / "cameras" / "ring_front_center" / f"{stamp * 1000}.jpg"
        write_jpeg(path, image(n))
    rows: dict[str, list[Any]] = {}
    for stamp in sweeps:
        base = at(np.linalg.inv(world_from_base(stamp)), world_points())
        n = len(base)
        columns = {name: base[:, k].astype(np.float16) for k, name in enumerate("xyz")}
        columns |= {"intensity": (np.arange(n) % 256).astype(np.uint8)}
        columns |= {"laser_number": (np.arange(n) % 64).astype(np.uint8)}
        columns |= {"offset_ns": np.arange(n, dtype=np.int32)}
        _feather(log / "sensors" / "lidar" / f"{stamp * 1000}.feather", columns)
        for k, (_, name, _, size, _, _) in enumerate(OBJECTS):
            own = np.linalg.inv(world_from_base(stamp)) @ world_from_object(k)
            row = {"timestamp_ns": stamp * 1000, "track_uuid": f"uuid-{9 - k}", "category": name}
            row |= dict(zip(("length_m", "width_m", "height_m"), size, strict=True))
            row |= dict(zip(("qw", "qx", "qy", "qz"), wxyz(own), strict=True))
            row |= dict(zip(("tx_m", "ty_m", "tz_m"), own[:3, 3].tolist(), strict=True))
            for column, value in {**row, "num_interior_pts": 9}.items():
                rows.setdefault(column, []).append(value)
    _feather(log / "annotations.feather", rows)
    return root


def _se3(*poses: tuple[Any, np.ndarray], key: str) -> dict[str, Any]:
    turns = np.array([wxyz(matrix) for _, matrix in poses])
    places = np.array([matrix[:3, 3] for _, matrix in poses])
    return {
        key: [name for name, _ in poses],
        **dict(zip(("qw", "qx", "qy", "qz"), turns.T, strict=True)),
        **dict(zip(("tx_m", "ty_m", "tz_m"), places.T, strict=True)),
    }


def _feather(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import feather

    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pa.table(columns), str(path), compression="zstd")


# Waymo ---------------------------------------------------------------------------------------

SEGMENT = "10023947602400723454_1120_000_1140_000"
BEAMS = np.radians([-17.0, -12.0, -8.0, -5.0, -3.0, -1.0, 0.5, 2.0])  # from the lowest up
LENS = (-0.05, 0.02, 0.001, -0.0008, 0.004)  # k1, k2, p1, p2, k3
READOUT = 30_000  # microseconds
POSE_EARLY = 4_000  # microseconds by which the recorded pose precedes the middle of the readout


def range_image(frame: int, columns: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 4) metres, intensity, elongation, zone; (H, W, 6) poses: each column later."""
    rng = np.random.default_rng(frame)
    ranges = np.zeros((len(BEAMS), columns, 4), np.float32)
    ranges[..., 0] = rng.uniform(4, 40, ranges.shape[:2])
    ranges[rng.random(ranges.shape[:2]) < 0.3] = -1
    ranges[..., 1] = rng.uniform(0, 3, ranges.shape[:2])
    poses = np.zeros((len(BEAMS), columns, 6), np.float32)
    for k in range(columns):
        pose = world_from_base(BEGIN + PERIOD * frame + PERIOD * k // columns)
        yaw, pitch, roll = Rotation.from_matrix(pose[:3, :3]).as_euler("ZYX")
        poses[:, k] = (roll, pitch, yaw, *pose[:3, 3])
    return ranges, poses


def write_waymo(root: Path, frames: int = 3) -> Path:
    """A segment of the top LiDAR and two cameras, whose rows alternate, in groups of two rows."""
    head = {"key.segment_context_name": SEGMENT}
    images: list[dict[str, Any]] = []
    parts: dict[str, list[dict[str, Any]]] = {}
    for n in range(frames):
        micros = BEGIN + PERIOD * n
        key = {**head, "key.frame_timestamp_micros": micros}
        pose = world_from_base(micros).reshape(-1).astype(np.float32).tolist()
        at_pose = "[VehiclePoseComponent].world_from_vehicle.transform"
        parts.setdefault("vehicle_pose", []).append({**key, at_pose: pose})
        images += [{**key, "key.camera_name": c, **_exposure(n, micros)} for c in (2, 1)]
        ranges, poses = range_image(n)
        laser = {**key, "key.laser_name": 1}
        parts.setdefault("lidar", []).append(laser | _flat("[LiDARComponent]", ranges))
        parts.setdefault("lidar_pose", []).append(laser | _flat("[LiDARPoseComponent]", poses))
        for k, (_, _, kind, size, _, _) in enumerate(OBJECTS):
            own = np.linalg.inv(world_from_base(micros)) @ world_from_object(k)
            values = [*own[:3, 3], *size, np.arctan2(own[1, 0], own[0, 0])]
            names = [f"{part}.{axis}" for part in ("center", "size") for axis in "xyz"]
            box = zip([*names, "heading"], map(float, values), strict=True)
            parts.setdefault("lidar_box", []).append(
                {**key, "key.laser_object_id": f"id-{9 - k}", "[LiDARBoxComponent].type": kind}
                | {f"[LiDARBoxComponent].box.{name}": value for name, value in box}
            )
    parts["camera_image"] = images
    camera = rigid(
        BASE_FROM_CAMERA[:3, 3], Rotation.from_matrix(BASE_FROM_CAMERA[:3, :3] @ OPTICAL.T)
    )
    lens = dict(zip(("k1", "k2", "p1", "p2", "k3"), LENS, strict=True))
    lens |= {"f_u": K[0, 0], "f_v": K[1, 1], "c_u": K[0, 2] + 0.5, "c_v": K[1, 2] + 0.5}
    name = "[CameraCalibrationComponent]"
    parts["camera_calibration"] = [
        {**head, "key.camera_name": number}
        | {f"{name}.intrinsic.{k}": float(v) for k, v in lens.items()}
        | {f"{name}.extrinsic.transform": camera.reshape(-1).tolist(),
           f"{name}.width": SIZE[1], f"{name}.height": SIZE[0],
           f"{name}.rolling_shutter_direction": 2}
        for number in (1, 2)
    ]  # fmt: skip
    name = "[LiDARCalibrationComponent]"
    parts["lidar_calibration"] = [
        {**head, "key.laser_name": 1,
         f"{name}.extrinsic.transform": BASE_FROM_TOP.reshape(-1).tolist(),
         f"{name}.beam_inclination.min": float(BEAMS[0]), f"{name}.beam_inclination.max": 0.04,
         f"{name}.beam_inclination.values": BEAMS.tolist()}
    ]  # fmt: skip
    for component, rows in parts.items():
        _parquet(root / component / f"{SEGMENT}.parquet", rows)
    return root


def _exposure(n: int, micros: int) -> dict[str, Any]:
    """An image, and a pose of a moment before the middle of its readout."""
    middle = micros + CAMERA_LATE
    pose_at = middle - POSE_EARLY
    pose, later = world_from_base(pose_at), world_from_base(middle)
    velocity = (later[:3, 3] - pose[:3, 3]) / (POSE_EARLY / 1e6)
    turn = Rotation.from_matrix(later[:3, :3] @ pose[:3, :3].T).as_rotvec() / (POSE_EARLY / 1e6)
    at_image = "[CameraImageComponent]"
    _, data = cv2.imencode(".jpg", image(n)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    row = {f"{at_image}.image": data.tobytes(),
           f"{at_image}.pose.transform": pose.reshape(-1).tolist(),
           f"{at_image}.pose_timestamp": pose_at / 1e6}  # fmt: skip
    for kind, vector in (("linear", velocity), ("angular", turn)):
        row |= {f"{at_image}.velocity.{kind}_velocity.{a}": float(v)
                for a, v in zip("xyz", vector, strict=True)}  # fmt: skip
    shutter = f"{at_image}.rolling_shutter_params"
    return row | {
        f"{shutter}.shutter": 0.002,
        f"{shutter}.camera_trigger_time": (middle - READOUT // 2) / 1e6,
        f"{shutter}.camera_readout_done_time": (middle + READOUT // 2) / 1e6,
    }


def _flat(component: str, pixels: np.ndarray) -> dict[str, Any]:
    at_return = f"{component}.range_image_return1"
    values = pixels.reshape(-1).tolist()
    return {f"{at_return}.values": values, f"{at_return}.shape": list(pixels.shape)}


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    # Numbers as narrow as released; lists of single precision where they are.
    kinds = {"lidar": pa.float32(), "lidar_pose": pa.float32(), "vehicle_pose": pa.float32()}
    for k, field in enumerate(table.schema):
        wanted = field.type
        if field.name in ("key.camera_name", "key.laser_name") or field.name.endswith(".type"):
            wanted = pa.int8()
        elif field.name.endswith(".shape"):
            wanted = pa.list_(pa.int32(), 3)
        elif field.name.endswith(".transform"):
            wanted = pa.list_(kinds.get(path.parent.name, pa.float64()), 16)
        elif pa.types.is_list(wanted) and path.parent.name in kinds:
            wanted = pa.list_(kinds[path.parent.name])
        table = table.set_column(k, field.name, table.column(k).cast(wanted))
    parquet.write_table(table, str(path), row_group_size=2)
