"""Masks: COCO RLE, boxes, crops and pasting, occlusion order."""
