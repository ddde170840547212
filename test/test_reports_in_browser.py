"""The reports in a browser, wide and on a phone: nothing cut off, no errors, no network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import random_pair

from amodal_core import replays
from amodal_core.evaluation import report, results
from amodal_core.evaluation.failures import Confusion
from amodal_core.evaluation.protocols import VIDEO_PROTOCOLS
from amodal_core.evaluation.run import Evaluation, evaluate
from amodal_core.evaluation.throughput import RunResult, Search, Throughput
from amodal_core.evaluation.throughput_report import render as render_throughput
from amodal_core.evaluation.truth import Truth
from amodal_core.frame import FrameWarning
from amodal_core.views.report import learning
from amodal_core.views.report.page import render as render_replay
from amodal_core.views.report.record import TOTAL, Record, TrackRow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
KINDS = ("car", "van", "truck", "bus", "pedestrian", "person_sitting", "cyclist", "tram", "misc")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt install chromium)"),
]

# What goes wrong from the page's first line on; captured, as what cannot be loaded does not bubble.
_WATCH = """<head><script>
const errors = [];
const note = e => errors.push(String(e.message || e.target.src || e.target.href));
addEventListener('error', note, true);
</script>"""
# Tells the page around what sticks out of the window, what words are cut off at the edge of their
# chart, tile or list, and where the columns that matter stand.
_PROBE = """<script>
addEventListener('load', () => {
  const outside = (e, around) => {
    const [a, b] = [e.getBoundingClientRect(), around.getBoundingClientRect()];
    return a.left < b.left - 1 || a.right > b.right + 1;
  };
  // Words of a drawing that clips nothing may reach as far as its card.
  const edge = e => getComputedStyle(e).overflow === 'visible' ? e.closest('.card') || e : e;
  const cut = [
    ...[...document.querySelectorAll('svg text')].filter(e => e.getClientRects().length)
      .filter(e => outside(e, edge(e.closest('svg')))),
    ...[...document.querySelectorAll('.tile *, .warnings, .notes')]
      .filter(e => e.scrollWidth > e.clientWidth + 1),
  ];
  const right = e => e.getBoundingClientRect().right;
  const columns = name => [...document.querySelectorAll('th')]
    .filter(e => e.textContent === name).map(right);
  parent.postMessage({
    window: innerWidth, page: document.documentElement.scrollWidth, errors,
    cut: cut.map(e => e.textContent),
    missed: columns('missed'), amodal: columns('amodal'),
    tiles: [...document.querySelectorAll('.tile')].map(right),
    charts: [...document.querySelectorAll('.card svg, .card svg text, .rows div')].map(right),
    scrolled: [...document.querySelectorAll('body *')]
      .filter(e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX === 'auto')
      .map(e => e.textContent.slice(0, 80)),
    rows: [...document.querySelectorAll('.tile')].map(e => e.getBoundingClientRect().top),
  }, '*');
});
</script></body>"""
_AROUND = """<!doctype html><body style="margin:0"><pre id="probe"></pre>
<iframe src="inner.html" width="{width}" height="{height}" style="border:0"></iframe>
<script>addEventListener('message', e => {{
  document.getElementById('probe').textContent = JSON.stringify(e.data); }});</script>"""


def chromium(*arguments: str) -> subprocess.CompletedProcess[str]:
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    command = [str(CHROMIUM), *flags, offline, "--virtual-time-budget=4000", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)


def in_browser(page: str, width: int, folder: Path) -> dict:
    """What the page measures of itself in a window of that width."""
    watched = page.replace("<head>", _WATCH, 1).replace("</body>", _PROBE)
    (folder / "inner.html").write_text(watched)
    outer = folder / "outer.html"
    outer.write_text(_AROUND.format(width=width, height=3000))
    done = chromium("--window-size=1500,3200", "--dump-dom", outer.absolute().as_uri())
    found = re.search(r'<pre id="probe">(.+?)</pre>', done.stdout)
    assert found, done.stderr
    return json.loads(html.unescape(found[1]))


def an_evaluation() -> tuple[Evaluation, Truth]:
    """Videos of three classes; the confusion has nine, as KITTI's does."""
    truth, predictions = random_pair(9, images=24, videos=3)
    result = evaluate(truth, predictions, VIDEO_PROTOCOLS["default"], "video")
    counts = np.random.default_rng(0).integers(0, 400, (len(KINDS), len(KINDS) + 1))
    result.confusion = {
        name: Confusion(list(KINDS), [*KINDS, "missed"], counts) for name in result.confusion
    }
    result.warnings.append("a warning of a name that " + "has_no_place_to_break_at_" * 12)
    result.notes.append("of_a_word_without_end_" * 20)
    return result, Truth(truth, {})


def a_record() -> Record:
    record = Record("a_drive_with_a_long_name_2011_09_26_0001_sync", "fused", "cpu", KINDS)
    for frame in range(12):
        record.stamps.append(frame * 10**8)
        record.instances.append(3)
        for stage, ms in (("segmentation", 40.0), ("tracking", 1.0), (TOTAL, 41.0)):
            record.timings.setdefault(stage, []).append(ms)
        for k in range(3):
            record.rows.append(TrackRow(frame, k, k, k == 2 and 3 < frame < 7, 0.3 * k, 9.0))
    record.warnings.update({FrameWarning("refused", "an image of another size"): 3})
    record.warnings.update({FrameWarning("motion", "scans are moved by /odom"): 1})
    record.accuracy = {
        "amodal_AP": 0.25, "HOTA": 0.31, "ID_switches": 4.0,
        "occlusions": 16.0, "occlusions_of_tracks": 4.0, "occlusions_survived": 3.0,
    }  # fmt: skip
    record.counts = tuple(n for n in record.accuracy if n.startswith(("ID", "occ")))
    return record


def a_throughput() -> Throughput:
    run = RunResult(
        10.0, 100, 99, 10.0, 9.9, np.linspace(40, 90, 99),
        {"segmentation: overload": 1}, {"perception": 1.1}, {"perception": 640.0},
    )  # fmt: skip
    return Throughput(
        10.0,
        run.numbers(),
        run.drops,
        run.cpu,
        run.memory_mb,
        [(run, True)] * 6,
        [run] * 3,
        ["search higher"],
    )


def a_training() -> str:
    """Three parts of a loss over decades, and a held-out split."""
    rows: list[dict] = []
    for step in range(10, 3001, 10):
        parts = {"class_of_the_object": 30 / step, "box": 3 / step, "amodal": 1 / step**0.5}
        rates = {"rate": 1e-3 / step, "gradient_norm": 2.0, "images_per_second": 9.0}
        loss = {"loss": sum(parts.values())}
        rows.append({"step": step, "group": "train", **loss, **parts, **rates, "memory_gb": 2.0})
        if step % 1000 == 0:
            held_out = {f"{k} {c}": step / 1e4 for k in learning._KINDS for c in ("AP", "AP50")}
            rows.append({"step": step, "group": "held_out", **held_out})
    long = "train: /a/very/long/path/" + "that/has/no/space/" * 12
    return learning.render("a_run", "flagship", rows, (3000, 3000), "amodal AP", [], long)


def many_drives(folder: Path) -> str:
    """Drives with truth, one of which failed."""
    numbers = {"frames": 1234, "seconds": 123.4, "fps": 9.1, "instances": 9999, "tracks": 321}
    accuracy = {"amodal_AP": 0.23, "visible_AP": 0.25, "HOTA": 0.35}
    drive = numbers | {"coasted": 77, "warnings": ["one"], "accuracy": accuracy}
    names = [f"2011_09_26_drive_{k:04d}_sync_with_a_long_name" for k in range(4)]
    failed = {"broken": "a/very/long/path/" + "that/has/no/space/" * 9 + ": no images"}
    replays._write(replays.Replays(dict.fromkeys(names, drive), failed), folder)
    return (folder / "report.html").read_text()


def pages(folder: Path) -> dict[str, str]:
    """One of each design."""
    result, truth = an_evaluation()
    record = a_record()
    record.headlines = report.headlines(result)
    for name in ("first", "second_run_with_a_long_name"):
        _, predictions = random_pair(9, images=24, videos=3)
        plain = replace(result, failures=[])
        results.write(plain, folder / name, {"gt": "g", "dt": name}, truth, predictions)
    runs = [results.read(folder / n) for n in ("first", "second_run_with_a_long_name")]
    results.write_comparison(runs, results.compare_runs(runs, 20), 20, folder / "both")
    (folder / "many").mkdir()
    return {
        "replay": render_replay([record]),
        "replays": many_drives(folder / "many"),
        "evaluation": report.render(result, [], "truth", "predictions"),
        "comparison": (folder / "both" / "report.html").read_text(),
        "training": a_training(),
        "throughput": render_throughput(a_throughput(), Search(), "fused", "drive"),
    }


def test_reports_fit_a_screen_and_a_phone(tmp_path):
    for name, page in pages(tmp_path).items():
        for width in (1400, 390):
            got = in_browser(page, width, tmp_path)
            where = f"{name} at {width}: {got}"
            assert got["errors"] == [], where
            assert got["cut"] == [], where
            assert got["window"] == width, where
            assert got["page"] <= width, where
            assert got["scrolled"] == [], where
            for kind in ("missed", "amodal", "tiles", "charts"):
                assert all(right <= width for right in got[kind]), where
            in_rows = Counter(got["rows"]).values()
            assert width == 390 or len(in_rows) <= 1 or 1 not in in_rows, where
        if name == "evaluation":
            assert got["missed"], where
            assert got["amodal"], where
