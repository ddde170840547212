"""Settings of models, training and launches."""

from __future__ import annotations

from pathlib import Path

import yaml

from amodal_core.drive.settings import DriveSettings
from amodal_core.geometry.config import GeometricConfig
from amodal_core.settings import checked, parse_rules
from amodal_ros import launching
from fuzzing import mutations as spoil
from training import config as training_config

from .base import add, file_of


def _rules(data: bytes, _: Path) -> None:
    texts = data.decode("utf-8", "replace").splitlines() or [""]
    kind = GeometricConfig if "min_score" in texts[0] else DriveSettings
    checked(kind, parse_rules(texts, "--set"), "--set")


_DRIVE = b"sync_slop=0.02\nminimum_range=1\ncalibration=\nextrinsics=[0,0,0,0,0,0,1]\n"
add("rules", [b"min_score=0.3\n", _DRIVE], spoil.of_text, _rules)
_SETTINGS = yaml.safe_dump({"min_score": 0.3}).encode()


def _settings(path: Path) -> None:
    checked(GeometricConfig, parse_rules([str(path)], "--set"), "--set")


add("settings_file", [_SETTINGS], spoil.of_yaml, file_of("s.yaml", _settings))
_CONFIGS = sorted((Path(__file__).parents[3] / "training" / "configs").rglob("*.yaml"))
add("training", [p.read_bytes() for p in _CONFIGS[::5]], spoil.of_yaml,
     file_of("t.yaml", training_config.read))  # fmt: skip
_CAMERAS = yaml.safe_dump(
    [{"name": "front", "image": "/front/image", "extrinsics": [0.0] * 6 + [1.0]}, {"name": "left"}]
).encode()


def _launched(data: bytes, folder: Path) -> None:
    path = folder / "cameras.yaml"
    path.write_bytes(data)
    launching.check({"cameras": str(path), "image": "/{camera}/image_raw"})


add("cameras", [_CAMERAS], spoil.of_yaml, _launched)
