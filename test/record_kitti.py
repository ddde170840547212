"""Records what KITTI's own development kit says of seeded detections: test/fixtures/kitti.json.

    git clone https://github.com/prclibo/kitti_eval
    sed 's/%f %f %f %f/%.17g %.17g %.17g %.17g/' kitti_eval/evaluate_object_3d_offline.cpp > \
        kitti_eval/exact.cpp  # all digits of the curves that it writes
    g++ -O1 -w kitti_eval/exact.cpp -o official  # needs Boost's headers
    PYTHONPATH=.:test python test/record_kitti.py official

The kit writes 41 precisions a class and difficulty; AP is their mean from the second on (R40), and
the mean of every fourth (R11).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from kitti_scenes import CASES, write_scenes

OUT = Path(__file__).parent / "fixtures" / "kitti.json"
FILES = {"2D": "detection", "orientation": "orientation", "BEV": "detection_ground",
         "3D": "detection_3d"}  # fmt: skip


def recorded(program: Path, case: str) -> dict[str, dict[str, dict[str, list[float]]]]:
    """AP by recalls, class and kind; one number a difficulty."""
    with tempfile.TemporaryDirectory() as folder:
        labels, results = write_scenes(case, Path(folder))
        (Path(folder) / "run").mkdir()
        results.rename(Path(folder) / "run" / "data")
        subprocess.run([program, labels, Path(folder) / "run"], check=True, capture_output=True)
        scores: dict[str, dict[str, dict[str, list[float]]]] = {"R40": {}, "R11": {}}
        for name in ("Car", "Pedestrian", "Cyclist"):
            for kind, file in FILES.items():
                path = Path(folder) / "run" / "plot" / f"{name.lower()}_{file}.txt"
                curves = np.loadtxt(path)[:, 1:]
                scores["R40"].setdefault(name, {})[kind] = curves[1:].mean(axis=0).tolist()
                scores["R11"].setdefault(name, {})[kind] = curves[::4].mean(axis=0).tolist()
        return scores


if __name__ == "__main__":
    kit = Path(sys.argv[1]).resolve()
    OUT.write_text(json.dumps({case: recorded(kit, case) for case in CASES}, indent=1) + "\n")
