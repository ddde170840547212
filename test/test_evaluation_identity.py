"""Identities through full occlusion: kept, switched, lost, and what is no occlusion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluation_data import HEIGHT, WIDTH, make_set, rectangles

from amodal_core.evaluation import identity
from amodal_core.evaluation.sets import ImageRecord


def hidden_walk(back_id, hidden_frames=3, carried=True):
    """An object visible in frames 0-1, hidden `hidden_frames`, visible in two more."""
    images = [ImageRecord(t + 1, HEIGHT, WIDTH, str(t), "v", t) for t in range(4 + hidden_frames)]
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    true, predicted = [], []
    for t in range(4 + hidden_frames):
        mask = rectangles([(2 + 4 * t, 10, 20, 20)])
        away = 2 <= t < 2 + hidden_frames
        true.append((t + 1, 0, 5, mask, 1.0, None, nothing if away else mask))
        if not away or carried:
            predicted.append((t + 1, 0, 9 if t < 2 + hidden_frames else back_id, mask))
    return make_set(true, images), make_set(predicted, images)


def test_identity_kept_counts_reappearances_by_length():
    same = identity.evaluate(*hidden_walk(9, hidden_frames=3))
    assert (same.reappearances, same.kept, same.carried) == (1, 1.0, 1.0)
    assert same.by_length["1-5 frames"] == (1, 1.0)
    other = identity.evaluate(*hidden_walk(10, hidden_frames=8, carried=False))
    assert (other.kept, other.switched, other.lost, other.carried) == (0.0, 1.0, 0.0, 0.0)
    assert other.by_length["6-10 frames"] == (1, 0.0)
    assert other.occlusions[0].frames == 8


@pytest.mark.parametrize("back_id", [9, 10])
def test_numbers_of_frames_may_have_gaps(back_id):
    """Every tenth frame of a recording is annotated; the tracker misses the one before it hides."""
    pair = hidden_walk(back_id)
    late = pair[1].select(pair[1].image_ids != 2)
    tenth = [image._replace(frame=10 * image.frame) for image in pair[0].images]
    sets = [replace(one, images=tenth) for one in (pair[0], late)]
    assert identity.evaluate(*sets).occlusions == identity.evaluate(pair[0], late).occlusions
    assert identity.evaluate(*sets).by_length["1-5 frames"] == (1, float(back_id == 9))


def walk(states):
    """An object over frames: None where it is not in the image, else (is it visible, its id)."""
    images = [ImageRecord(t + 1, HEIGHT, WIDTH, str(t), "v", t) for t in range(len(states))]
    mask = rectangles([(5, 5, 20, 20)])
    nothing = np.zeros_like(mask)
    true, predicted = [], []
    for t, state in enumerate(states, start=1):
        if state is not None:
            true.append((t, 0, 5, mask, 1.0, None, mask if state[0] else nothing))
            if state[1] is not None:
                predicted.append((t, 0, state[1], mask))
    return make_set(true, images), make_set(predicted, images)


IN_VIEW, UNTRACKED, HIDDEN, AWAY = (True, 9), (True, None), (False, None), None


@pytest.mark.parametrize(
    ("states", "occlusions"),
    [
        # Leaving the image is no occlusion, and ends what was known of the id.
        ([IN_VIEW, AWAY, IN_VIEW], []),
        ([IN_VIEW, AWAY, UNTRACKED, HIDDEN, IN_VIEW], [(-1, 9)]),
        # An object that is not found between two occlusions is not tracked before the second.
        ([IN_VIEW, HIDDEN, UNTRACKED, HIDDEN, IN_VIEW], [(9, -1), (-1, 9)]),
        # The id before is the last one, the id after the first one.
        ([(True, 8), IN_VIEW, UNTRACKED, HIDDEN, UNTRACKED, (True, 7), IN_VIEW], [(9, 7)]),
        # A frame of the gap outside of the image leaves it an occlusion.
        ([IN_VIEW, HIDDEN, AWAY, HIDDEN, IN_VIEW], [(9, 9)]),
        # An id found only after the next occlusion is not the id after the first.
        ([IN_VIEW, HIDDEN, UNTRACKED, AWAY, IN_VIEW], [(9, -1)]),
        # Nothing is tracked before the first id.
        ([UNTRACKED, HIDDEN, IN_VIEW], [(-1, 9)]),
        # An occlusion at the end of the video has no reappearance.
        ([IN_VIEW, HIDDEN, HIDDEN], []),
    ],
)
def test_the_id_before_an_occlusion_and_the_id_after_it(states, occlusions):
    kept = identity.evaluate(*walk(states))
    assert [(o.before, o.after) for o in kept.occlusions] == occlusions
    tracked = [o for o in occlusions if o[0] >= 0]
    assert (kept.reappearances, kept.untracked) == (len(tracked), len(occlusions) - len(tracked))


def test_an_id_is_carried_where_its_mask_covers_half_of_the_union_in_a_hidden_frame():
    """Of four hidden frames: on the place, IoU exactly 1/2, below 1/2, and another id's mask."""
    images = [ImageRecord(t + 1, HEIGHT, WIDTH, str(t), "v", t) for t in range(6)]
    mask = rectangles([(0, 0, 20, 20)])
    nothing = np.zeros_like(mask)
    true = [(t, 0, 5, mask, 1.0, None, mask if t in (1, 6) else nothing) for t in range(1, 7)]
    half, less = rectangles([(0, 0, 20, 10)]), rectangles([(0, 0, 20, 9)])
    predicted = [(t, 0, 9, m) for t, m in enumerate((mask, mask, half, less), 1)]
    predicted += [(5, 0, 8, mask), (6, 0, 9, mask)]
    kept = identity.evaluate(make_set(true, images), make_set(predicted, images))
    assert kept.occlusions[0].carried == 0.5


def test_shares_of_kept_switched_and_lost_are_of_the_reappearances():
    """Three occlusions: 9 comes back as 7, 7 as 7, and then nothing is found."""
    other = True, 7
    kept = identity.evaluate(*walk([IN_VIEW, HIDDEN, other, HIDDEN, other, HIDDEN, UNTRACKED]))
    assert kept.reappearances == 3
    assert kept.kept == kept.switched == kept.lost == pytest.approx(1 / 3)


def test_an_object_that_is_never_seen_has_no_identity_to_keep():
    amodal = rectangles([(5, 5, 20, 20)])
    nothing = np.zeros_like(amodal)
    truth = make_set([(k, 0, 1, amodal, 1.0, None, nothing) for k in (1, 2, 3)])
    kept = identity.evaluate(truth, truth)
    assert (kept.reappearances, kept.untracked) == (0, 0)


def test_leaving_the_image_is_no_occlusion():
    truth, predictions = hidden_walk(9)
    out = truth.select(truth.areas("visible") > 0)
    assert identity.evaluate(out, predictions).reappearances == 0
