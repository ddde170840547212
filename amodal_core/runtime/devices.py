"""The devices that networks run on, by name: which are there."""

from __future__ import annotations

from amodal_core.errors import InputError
from amodal_core.extras import extra


def check_device(name: str) -> None:
    """Refuse a device that is none, or that is not there.

    No memory of a GPU is taken for it, and for "cpu" torch is not imported, which takes seconds.

    Args:
        name: as torch has them, such as "cpu", "cuda" or "cuda:0".

    Raises:
        InputError: torch knows no such device or cannot compute on it here, or PyTorch is not
            installed and it is another than "cpu".
    """
    if name == "cpu":
        return
    where, cure = f"device {name}".strip(), "take cpu, or cuda:0 for the first GPU"
    with extra("torch", where):
        import torch
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError("there is no device of that name", where, cure) from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            cure = "take cpu; `amodal doctor` says what is there"
            raise InputError("there is no GPU that torch can use", where, cure)
        if (device.index or 0) >= count:
            raise InputError(f"the last GPU here is cuda:{count - 1}", where, cure)
        return
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError):
        # As each backend likes; several thousand letters of some, and `meta` holds no numbers.
        raise InputError("torch cannot compute on it here", where, cure) from None
