"""Records what TAO-Amodal's own evaluation says of `tao_scenes`: test/fixtures/tao_amodal.json.

Run by hand: `python test/record_tao.py lvis_amodal`, the folder of that name of its repository.
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import tao_scenes

OUT = Path(__file__).parent / "fixtures" / "tao_amodal.json"

if __name__ == "__main__":
    setattr(np, "float", float)  # noqa: B010, the original is of NumPy 1
    package = types.ModuleType("lvis_amodal")
    package.__path__ = [sys.argv[1]]
    sys.modules["lvis_amodal"] = package
    with tempfile.TemporaryDirectory() as folder:
        file, results = tao_scenes.write(Path(folder), amodal_key=False)
        judge = import_module("lvis_amodal.eval").LVISEval(str(file), results, "bbox")
        judge.run()
    names = [f"AP{i}{k}" for k in ("", "-HO", "-PO", "-HP", "-HV") for i in ("", "50", "75")]
    values = {n.replace("-", " "): float(judge.results[n]) for n in names}
    OUT.write_text(json.dumps(values, indent=1) + "\n")
    print(values)
