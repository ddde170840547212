"""The compact flagship within 100 ms a frame on two cores; beside it, a two-stage model.

`make bench` runs it; `python -m pytest benchmarks/test_bench_models.py -k cpu` the CPU part alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from amodal_core.frame import Frame
from amodal_core.models.flagship import Flagship, FlagshipConfig
from amodal_core.models.layers.batch import make_batch
from amodal_core.models.mask_rcnn import MaskRcnnAmodal, MaskRcnnConfig

CLASSES = ("car", "truck", "pedestrian", "cyclist")
SIZES = {"621x188": (188, 621), "1242x375": (375, 1242)}
THREADS = 2


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def frame(size: tuple[int, int]) -> Frame:
    """Noise, and about as many returns as a 64-beam LiDAR leaves in the lower half."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    depth = np.where(rng.random(size) < 0.08, rng.uniform(4, 60, size), 0).astype(np.float32)
    depth[: size[0] // 3] = 0
    return Frame(0, image=image, depth=depth)


def flagship(**settings: Any) -> Flagship:
    """With random weights; it draws as many masks as a trained one."""
    config = FlagshipConfig.compact(CLASSES, min_score=0.0, nms=1.0, **settings)
    return Flagship(config).fuse()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.benchmark(group="compact flagship, a frame on two cores (budget 100 ms at 621x188)")
def test_flagship_infer_cpu(benchmark: Any, size: str) -> None:
    model = flagship()
    one = frame(SIZES[size])

    def run() -> int:
        # As many come out as there are in a busy street.
        found = model.infer([one])[0]
        order = np.argsort(-found.scores.numpy())[:30]
        return len(found[torch.as_tensor(order.copy())].numpy())

    benchmark.pedantic(run, rounds=15, warmup_rounds=3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.benchmark(group="compact flagship, the network alone on two cores")
def test_flagship_network_cpu(benchmark: Any, size: str, dtype: str) -> None:
    model = flagship().to(getattr(torch, dtype))
    batch = make_batch([frame(SIZES[size])])

    def run() -> None:
        with torch.inference_mode():
            model(batch.images, batch.depth)

    benchmark.pedantic(run, rounds=15, warmup_rounds=3)


@pytest.mark.benchmark(group="compact flagship, a frame on two cores (budget 100 ms at 621x188)")
def test_mask_rcnn_resnet18_cpu(benchmark: Any) -> None:
    config = MaskRcnnConfig(CLASSES, backbone="resnet18", norm="frozen", proposals=100)
    model = MaskRcnnAmodal(config).eval()
    one = frame(SIZES["621x188"])
    benchmark.pedantic(lambda: len(model.infer([one])[0].numpy()), rounds=5, warmup_rounds=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("variant", ["compact", "r50"])
@pytest.mark.benchmark(group="flagship, network on a GPU at 1242x375 (budgets 2.5 and 8 ms)")
def test_flagship_network_gpu(benchmark: Any, variant: str) -> None:
    config = getattr(FlagshipConfig, variant)(CLASSES)
    model = Flagship(config).fuse().cuda().bfloat16()
    model.compile(mode="reduce-overhead")
    batch = make_batch([frame(SIZES["1242x375"])], device="cuda")

    def run() -> None:
        with torch.inference_mode():
            model.detect(batch)
        torch.cuda.synchronize()

    benchmark.pedantic(run, rounds=100, warmup_rounds=10)
