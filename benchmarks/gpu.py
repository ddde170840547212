"""The networks on a GPU: latencies of a frame, all in, and images a second of training.

    bash benchmarks/gpu.sh          # on a machine with a GPU; sets itself up
    PYTHONPATH=. python benchmarks/gpu.py --smoke    # tiny sizes on the CPU: that it runs

A frame is an image of 1242x375 with a depth image on the host; `infer` is timed with resizing,
normalising, copies to the device and back, suppression and masks to RLE. Weights are random, so
that as many instances come out as may. `training` takes the same loop, images and objects for ours
and for torchvision's Mask R-CNN: ResNet-50, bf16, forward, backward, AdamW.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.flagship import Flagship, FlagshipConfig
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.mask_rcnn import MaskRcnnAmodal, MaskRcnnConfig

CLASSES = ("car", "truck", "pedestrian", "cyclist")
RUNTIMES = ("torch", "compile", "tensorrt", "onnxruntime")


def frame(size: tuple[int, int], seed: int = 0) -> Frame:
    """Noise, and about as many returns as a 64-beam LiDAR leaves in the lower half."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    depth = np.where(rng.random(size) < 0.08, rng.uniform(4, 60, size), 0).astype(np.float32)
    depth[: size[0] // 3] = 0
    return Frame(0, image=image, depth=depth)


def objects(size: tuple[int, int], count: int) -> Tracks:
    """Ellipses side by side, each half hidden by the next."""
    height, width = size
    step = width // (count + 1)
    w, h = max(2 * step, 8), max(height // 3, 8)
    v, u = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    places = np.array([(k * step, height // 3) for k in range(count)])
    amodal = RleMasks.from_crops([u**2 + v**2 < 1] * count, places, size)
    visible = amodal.layered(np.arange(count)[::-1])
    return Tracks(
        size,
        amodal.boxes(),
        visible.boxes(),
        np.full(count, 0.9, np.float32),
        np.arange(count) % len(CLASSES),
        amodal,
        visible,
        1 - (visible.areas() / amodal.areas()).astype(np.float32),
        np.linspace(40, 5, count).astype(np.float32),
        np.zeros((count, count), bool),
        ids=np.arange(count),
        ages=np.ones(count, np.int64),
        coasted=np.zeros(count, bool),
    )


def latencies(run: Callable[[], object], seconds: float, device: str) -> np.ndarray:
    """(N,) milliseconds of wall time, after a warm-up; of 0 seconds two."""
    for _ in range(3 if seconds else 1):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < (5 if seconds else 2):
        begin = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e3)
    return np.array(times)


def row(name: str, times: np.ndarray) -> str:
    """A line of the table."""
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    return f"| {name} | {p50:.2f} | {p95:.2f} | {p99:.2f} | {len(times)} |"


def flagship(device: str, smoke: bool, seconds: float) -> Iterator[str]:
    """R50 and compact in every runtime that is installed."""
    size = (96, 320) if smoke else (375, 1242)
    with tempfile.TemporaryDirectory() as folder:
        for variant in ("compact",) if smoke else ("r50", "compact"):
            torch.manual_seed(0)
            config = getattr(FlagshipConfig, variant)(CLASSES, min_score=0.0, nms=1.0)
            path = Path(folder) / f"{variant}.safetensors"
            model = Flagship(config)
            save_checkpoint(path, model, CheckpointInfo("flagship", model.config_json(), CLASSES))
            for runtime in RUNTIMES[:1] if smoke else RUNTIMES:
                try:
                    made: Any = registry.create("flagship", device, path, runtime=runtime)
                    one = frame(size)
                    times = latencies(lambda: made.infer([one])[0].numpy(), seconds, device)  # noqa: B023
                except InputError as error:
                    yield f"| flagship {variant}, {runtime}: {error} | | | | |"
                    continue
                yield row(f"flagship {variant}, {runtime}, {size[1]}x{size[0]}", times)


def s_amodal(device: str, smoke: bool, seconds: float) -> Iterator[str]:
    """SAM's ViT-B and the decoder for 1 and for 20 objects, whose visible masks are given."""
    from amodal_core.models.s_amodal import SAModal, SAModalConfig

    size = (96, 320) if smoke else (375, 1242)
    kind: Any = "tiny" if smoke else "vit_b"
    torch.manual_seed(0)
    model = SAModal(SAModalConfig(CLASSES, size=kind)).to(device).eval()
    one = frame(size)
    for count in (1, 20):
        tracks = objects(size, count)
        times = latencies(lambda: model.complete([one], [tracks]), seconds, device)  # noqa: B023
        yield row(f"S-AModal {kind}, {count} objects, {size[1]}x{size[0]}", times)


def training(device: str, smoke: bool, seconds: float) -> Iterator[str]:
    """Images a second of a step, ours and torchvision's in the same loop."""
    size, batch = ((64, 192), 1) if smoke else ((375, 1242), 8)
    short = min(size)
    frames = [frame(size, k) for k in range(batch)]
    truths = [objects(size, 8) for _ in frames]
    torch.manual_seed(0)
    config = MaskRcnnConfig(CLASSES, lidar=False, weights="", norm="frozen", short_side=short)
    ours = MaskRcnnAmodal(config).to(device)

    def our_losses() -> dict[str, torch.Tensor]:
        targets = [targets_of(t) for t in truths]
        images = [replace(f, depth=None) for f in frames]
        return ours.losses(make_batch(images, targets, device=device))

    peer = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=len(CLASSES) + 1, min_size=short,
        max_size=max(size),
    ).to(device)  # fmt: skip

    def peer_losses() -> dict[str, torch.Tensor]:
        images = [
            torch.from_numpy(f.image).to(device).permute(2, 0, 1) / 255  # type: ignore[arg-type]
            for f in frames
        ]
        targets = [
            {
                "boxes": torch.from_numpy(t.amodal_boxes).to(device),
                "labels": torch.from_numpy(t.class_ids).to(device) + 1,
                "masks": torch.from_numpy(t.amodal.rle().dense()).to(device, torch.uint8),
            }
            for t in truths
        ]
        losses: dict[str, torch.Tensor] = peer(images, targets)
        return losses

    speeds = []
    for model, losses in ((ours, our_losses), (peer, peer_losses)):
        model.train()
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-5)

        def step(losses: Any = losses, optimiser: Any = optimiser) -> None:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device.split(":")[0], torch.bfloat16):
                total = torch.stack([v.float() for v in losses().values()]).sum()
            total.backward()
            optimiser.step()

        speeds.append(batch * 1e3 / float(np.median(latencies(step, seconds, device))))
    name = f"training, Mask R-CNN R50, batch {batch}, {size[1]}x{size[0]}, bf16"
    yield f"| {name}, two masks and occlusion: ours | {speeds[0]:.2f} images/s | | | |"
    peer_name = f"torchvision {torchvision.__version__}, one mask"
    ratio = f"ours / peer {speeds[0] / speeds[1]:.2f}"
    yield f"| the same: {peer_name} | {speeds[1]:.2f} images/s | | | {ratio} |"


PARTS = {"flagship": flagship, "s_amodal": s_amodal, "training": training}


def main() -> None:
    """See the head of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    device = "cpu" if given.smoke else "cuda:0"
    if given.smoke:
        torch.set_num_threads(1)
    if not given.smoke and not torch.cuda.is_available():
        sys.exit("no GPU is seen by torch (--smoke runs tiny sizes on the CPU)")
    name = "CPU, smoke sizes" if given.smoke else torch.cuda.get_device_name(0)
    print(f"{name}, torch {torch.__version__}\n")
    print("| what | p50 ms | p95 ms | p99 ms | runs |\n|---|---|---|---|---|", flush=True)
    for part in given.only:
        for line in PARTS[part](device, given.smoke, 0.0 if given.smoke else given.seconds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
