"""Names of classes here and there: one mapping for models, data, training and evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.classes import ClassMap, check_renames, parse_renames, renamed
from amodal_core.errors import InputError


def test_names_match_by_renames_then_by_themselves_then_by_synonyms_in_any_case():
    sources = ("Person", "van", "Rider", "truck", "tree", "misc")
    targets = ("Car", "cyclist", "truck", "pedestrian")
    classes = ClassMap.between(sources, targets, {"VAN": "car", "misc": None})
    assert classes.table.tolist() == [3, 0, 1, 2, -1, -1]
    assert classes.missing == ("tree",)  # misc was to be left out
    np.testing.assert_array_equal(classes.ids(np.array([5, 0, 0, 3])), [-1, 3, 3, 2])
    assert classes.ids(np.zeros(0)).tolist() == []


def test_a_name_of_its_own_goes_before_a_synonym():
    assert ClassMap.between(("bus", "tram"), ("tram", "bus")).table.tolist() == [1, 0]


def test_every_class_has_a_target_or_the_cure_is_named():
    assert ClassMap.between(("car",), ("Van", "Car")).complete() == [1]
    with pytest.raises(InputError, match=r"means tree, bush .*--class tree=Car; there are: Car"):
        ClassMap.between(("tree", "car", "bush"), ("Car",)).complete()


def test_exact_names_know_no_synonyms_and_no_case():
    classes = ClassMap.exact(("person", "Car", "car"), ("pedestrian", "car"))
    assert (classes.table.tolist(), classes.missing) == ([-1, -1, 1], ("person", "Car"))


def test_sources_that_get_one_name_become_one_class():
    classes = ClassMap.renaming(("car", "van", "tram"), {"van": "car"})
    assert (classes.targets, classes.table.tolist()) == (("car", "tram"), [0, 0, 1])


def test_renames_are_read_from_options_and_checked_against_the_owners_names():
    renames = parse_renames(["van=car", "tree=bush"], "--map")
    assert (renamed("Van", renames), renamed("car", renames)) == ("car", "car")
    check_renames(renames, ("VAN", "Tree"), "the data", "--map")
    with pytest.raises(InputError, match=r"the data has no class tree \(there are: van\)"):
        check_renames(renames, ("van",), "the data", "--map")
    for rule in ("car", "=car", "van="):
        with pytest.raises(InputError, match="is not class=class"):
            parse_renames([rule], "--map")
