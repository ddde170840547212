"""A small set in TAO-Amodal's published layout, and results for it; seeded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIZE = (60, 80)  # height, width
VIDEOS = ("train/ArgoVerse/rear_right_1", "train/BDD/b1")
NAMES = ("car", "person", "bicycle", "suitcase")


def write(root: Path, *, amodal_key: bool = True) -> tuple[Path, list[dict[str, Any]]]:
    """`frames` and `amodal_annotations/validation_lvis_v1.json`; results as trackers write them.

    Args:
        root: the folder that is made.
        amodal_key: the amodal box as `amodal_bbox` beside the modal `bbox`; without, as `bbox`.
    """
    rng = np.random.default_rng(11)
    videos = [{"id": k + 1, "name": v, "width": SIZE[1], "height": SIZE[0],
               "neg_category_ids": [], "not_exhaustive_category_ids": []}
              for k, v in enumerate(VIDEOS)]  # fmt: skip
    categories = [{"id": 10 * k + 7, "name": n, "synset": f"{n}.n.01", "frequency": "rcf"[k % 3]}
                  for k, n in enumerate(NAMES)]  # fmt: skip
    categories[0]["merged"] = [{"id": 901, "name": "cab"}]
    images, annotations, results = [], [], []
    tracks = [{"id": 100 * v + t, "video_id": v + 1, "category_id": 10 * (t % 3) + 7}
              for v in range(2) for t in range(6)]  # fmt: skip
    for v, video in enumerate(VIDEOS):
        for n in range(6):
            number = 50 * v + n + 1
            name = f"{video}/frame{30 * n:04d}.jpg"
            path = root / "frames" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((*SIZE, 3), 40 * n, np.uint8))
            images.append({"id": number, "video_id": v + 1, "file_name": name, "license": 0,
                           "width": SIZE[1], "height": SIZE[0], "frame_index": 30 * n,
                           "video": video, "neg_category_ids": [37] if n % 2 else [],
                           "not_exhaustive_category_ids": [17] if n % 3 == 0 else []})  # fmt: skip
            for track in tracks:
                if track["video_id"] != v + 1 or rng.random() < 0.6:
                    continue
                box = [*rng.uniform(-15, 60, 2).round(1), *rng.uniform(8, 40, 2).round(1)]
                x2, y2 = box[0] + box[2], box[1] + box[3]
                modal = [max(box[0], 0), max(box[1], 0), 0, 0]
                modal[2:] = max(min(x2, SIZE[1]) - modal[0], 1), max(min(y2, SIZE[0]) - modal[1], 1)
                annotation = {
                    "id": len(annotations) + 1, "image_id": number, "track_id": track["id"],
                    "video_id": v + 1, "category_id": track["category_id"], "iscrowd": 0,
                    "bbox": modal if amodal_key else box, "area": box[2] * box[3],
                    "visibility": float(rng.choice([0, 0.05, 0.1, 0.4, 0.8, 0.95, 1.0])),
                    "out_of_frame": bool(min(box[:2]) < 0 or x2 > SIZE[1] or y2 > SIZE[0]),
                    "segmentation": [],
                }  # fmt: skip
                if amodal_key:
                    annotation |= {"amodal_bbox": box, "amodal_is_uncertain": False}
                annotations.append(annotation)
                for _ in range(int(rng.integers(0, 3))):
                    moved = (np.array(box) + rng.normal(0, 2.5, 4)).round(2)
                    wrong = rng.random() < 0.4
                    category = int(rng.choice([7, 17, 27, 37])) if wrong else track["category_id"]
                    moved[2:] = np.maximum(moved[2:], 2)
                    results.append({"image_id": number, "category_id": category,
                                    "bbox": moved.tolist(),
                                    "score": round(float(rng.uniform(0.05, 1)), 4),
                                    "track_id": track["id"], "video_id": v + 1})  # fmt: skip
            # What is not there, of classes that the image may not be annotated with.
            results += [
                {"image_id": number, "category_id": int(rng.choice([7, 17, 27])),
                 "bbox": [float(x) for x in rng.uniform(5, 40, 4).round(1)],
                 "score": round(float(rng.uniform(0.3, 1)), 4), "track_id": 900 + k,
                 "video_id": v + 1}
                for k in range(3)
            ]  # fmt: skip
    file = root / "amodal_annotations" / "validation_lvis_v1.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {}, "licenses": [], "categories": categories, "videos": videos,
               "images": images, "tracks": tracks, "annotations": annotations}  # fmt: skip
    file.write_text(json.dumps(content))
    return file, results
