"""`python -m fuzzing`: minutes of spoilt inputs for every parser; what is found is kept."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .campaign import Campaign
from .targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of all targets together")
    parser.add_argument("--targets", default="", help="names, with commas; all by default")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the inputs")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="what is found")
    given = parser.parse_args()
    wanted = [n for n in given.targets.split(",") if n]
    targets = [t for t in TARGETS if not wanted or t.name in wanted]
    if len(targets) < len(wanted):
        parser.error(f"targets are {', '.join(t.name for t in TARGETS)}")
    total = inputs = 0
    for target in targets:
        seconds = 60 * given.minutes / len(targets)
        campaign = Campaign(target, given.seed, seconds, say=print)
        findings = campaign.run()
        print(f"{target.name:24} {campaign.done:8} inputs, {len(findings)} findings", flush=True)
        for finding in findings:
            given.out.mkdir(parents=True, exist_ok=True)
            (given.out / finding.name).write_bytes(finding.data)
            text = f"{finding.what}\n{finding.where}\n"
            (given.out / finding.name).with_suffix(".txt").write_text(text)
        total, inputs = total + len(findings), inputs + campaign.done
    kept = f", kept in {given.out}" if total else ""
    print(f"{inputs} inputs with seed {given.seed}, {total} findings{kept}")
    return 1 if total else 0


if __name__ == "__main__":
    raise SystemExit(main())
