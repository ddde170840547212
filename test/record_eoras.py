"""Records what EoRaS' published network says of seeded inputs and weights: test/fixtures/eoras.npz.

    git clone https://github.com/amazon-science/efficient-object-centric-representation-amodal-segmentation eoras
    PYTHONPATH=.:test python test/record_eoras.py FOLDER_OF_THE_CLONE

Nothing of theirs is changed; it is kept from downloading weights and from asking for a GPU. Weights
follow from the tensors' names, see `eoras_published.py`.
"""  # noqa: E501

from __future__ import annotations

import sys
from argparse import Namespace

import numpy as np
import torch
from eoras_published import CASES, FIXTURE, STEP, Case, images, seeded


def record(case: Case) -> tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray]]:
    """Names and shapes of the network's tensors, and every STEP-th value of its masks."""
    from model.network import Amodal_imgcrop_simplebevcrop_bid

    args = Namespace(
        d_model=512, f_dim=16, n_head=8, num_layers=2, num_slot=8,
        decoder=case.decoder, pos_type=case.positions, camera_position=case.camera,
    )  # fmt: skip
    network = Amodal_imgcrop_simplebevcrop_bid(args).eval()
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    network.load_state_dict(seeded(shapes, network.state_dict()))
    crops = torch.from_numpy(images(case)).permute(0, 3, 1, 2)[None].float() / 255
    calibration = torch.tensor(case.intrinsics).expand(1, len(crops[0]), 3, 3)
    with torch.no_grad():
        masks = network(crops, calibration)
    return shapes, {k: v[0, :, 0, ::STEP, ::STEP].numpy() for k, v in masks.items()}


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    torch.hub.load_state_dict_from_url = lambda *args, **kwargs: {}
    torch.Tensor.cuda = lambda self: self
    arrays: dict[str, np.ndarray] = {}
    for name, case in CASES.items():
        shapes, masks = record(case)
        lines = [f"{k} {' '.join(map(str, v))}".strip() for k, v in shapes.items()]
        arrays[f"{name}/tensors"] = np.array("\n".join(lines))
        arrays |= {f"{name}/{k}": v for k, v in masks.items()}
        values = sum(int(np.prod(s)) for s in shapes.values())
        print(
            name, len(shapes), "tensors", values, {k: (v.min(), v.max()) for k, v in masks.items()}
        )
    np.savez_compressed(FIXTURE, **arrays)


if __name__ == "__main__":
    main()
