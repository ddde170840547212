"""A synthetic drive goes through every written format and comes back the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets_scenes import same_masks

from amodal_core.datasets.convert import convert
from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.synthetic.generate import RunOptions, generate


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames of a street, 310x94."""
    out = tmp_path_factory.mktemp("synthetic") / "drive"
    try:
        generate(out, RunOptions(frames=3, seed=3, format="bag", size=(310, 94)))
    except InputError as error:
        pytest.skip(f"no synthetic drives here: {error}")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("to", ["kins", "kins2019", "cocovid", "coco", "asd", "labelme", "bag"])
def test_truth_is_the_same_after_every_format(bag: Path, tmp_path: Path, to: str) -> None:
    source = open_dataset(bag)
    broken: dict[str, str] = {}
    list(convert(source, tmp_path / "out", to, broken=broken))
    assert broken == {}
    made = open_dataset(tmp_path / "out")
    assert len(made) == len(source) == 3
    for index in range(3):
        before, after = source.truth(index), made.truth(index)
        assert before is not None
        assert after is not None
        assert len(before) > 0
        same_masks(before, after)
    assert [f for f in made.check() if f is not None] == []
