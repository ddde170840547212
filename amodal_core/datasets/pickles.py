"""Read the pickles that some data sets ship without running what else may be in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.errors import InputError

# What an array, a NumPy scalar or a plain container needs, under old and new module names. None of
# these runs code of the file's choosing.
_ALLOWED = {
    "builtins": {"set", "frozenset", "bytearray", "complex", "slice", "range"},
    "__builtin__": {"set", "frozenset", "bytearray", "complex", "slice", "xrange"},
    "collections": {"OrderedDict"},
    "_codecs": {"encode"},
    "numpy": {"ndarray", "dtype"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def load(path: str | Path) -> Any:
    """What a pickle of NumPy arrays and builtin types holds.

    Raises:
        InputError: the file is missing or broken, or holds anything else.
    """
    try:
        with Path(path).open("rb") as file:
            return _Restricted(file, encoding="latin1").load()
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", str(path)) from None
    except Exception as error:
        # A broken pickle may raise anything; whatever it is, the file is not one of ours.
        raise InputError(
            f"no pickle of arrays and plain values: {error}",
            str(path),
            "download it again; pickles that name other code are refused",
        ) from None


def load_npy(path: str | Path) -> np.ndarray:
    """An array of a .npy file, arrays of objects through the same unpickler.

    Raises:
        InputError: the file is missing or broken, or holds anything but arrays and builtin types.
    """
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", str(path)) from None
    except ValueError:
        pass
    try:
        with Path(path).open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape = read[version[0]](file)[0]
            return np.asarray(_Restricted(file, encoding="latin1").load()).reshape(shape)
    except Exception as error:
        raise InputError(f"no array: {error}", str(path), "download it again") from None
