"""Code in a process in which no extra is installed."""

from __future__ import annotations

import subprocess
import sys

HIDE = """
from importlib.machinery import PathFinder

# As where pip installed no extra.
real = PathFinder.find_spec
hidden = {
    "matplotlib", "moderngl", "onnx", "onnxruntime", "onnxscript", "pyarrow", "rerun",
    "sklearn", "supervision", "tensorboard", "torch", "torchvision", "transformers",
}
PathFinder.find_spec = classmethod(
    lambda c, name, path=None, target=None:
        None if name in hidden and path is None else real(name, path, target))
"""


def run_without(code: str) -> subprocess.CompletedProcess:
    """Run code where no extra is installed."""
    return subprocess.run([sys.executable, "-c", HIDE + code], capture_output=True, text=True)
