"""Models against the labelled boxes of real KITTI frames.

    PYTHONPATH=. python benchmarks/kitti_boxes.py path/to/kitti_object geometric flagship

KITTI labels 2D boxes of whole objects, no masks. Beside every label stands the best IoU of a
detection's amodal box, its class and its score. What a detection shows that is neither labelled nor
in a region that KITTI leaves open counts as wrong.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torchvision.ops import box_iou

from amodal_core.datasets.kitti import KittiObject
from amodal_core.frame import Report
from amodal_core.inference import tracks_of
from amodal_core.models import registry

SCORE, IOU = 0.3, 0.5


def main(root: str, names: list[str]) -> None:
    """Print a line a label and a sum a model."""
    data = KittiObject(root)
    for text in names:
        name, _, checkpoint = text.partition(":")
        model = registry.create(name, "cpu", **({"checkpoint": checkpoint} if checkpoint else {}))
        found = wrong = total = 0
        print(f"{text}\n  frame   label       height  IoU   as")
        for index in range(len(data)):
            (told,) = tracks_of(model, [data.frame(index)], Report())
            told = told[np.asarray(told.scores) >= SCORE]
            boxes = torch.as_tensor(np.asarray(told.amodal_boxes))
            labels = data.labels(index)
            overlap = box_iou(boxes, torch.tensor([x.box for x in labels])).numpy()
            explained = np.zeros(len(told), bool)
            for k, label in enumerate(labels):
                best = int(overlap[:, k].argmax()) if len(told) else -1
                iou = overlap[best, k] if best >= 0 else 0.0
                explained |= overlap[:, k] >= (0.01 if label.type == "DontCare" else IOU)
                if label.type == "DontCare":
                    continue
                as_what = (
                    f"{model.classes[told.class_ids[best]]} {told.scores[best]:.2f}"
                    if iou > 0
                    else "-"
                )
                height = label.box[3] - label.box[1]
                place = data.place(index).name[-6:]
                print(f"  {place}  {label.type:10}  {height:6.0f}  {iou:.2f}  {as_what}")
                total += 1
                found += iou >= IOU
            wrong += int((~explained).sum())
        print(f"  found {found} of {total}, {wrong} wrong\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
