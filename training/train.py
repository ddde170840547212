"""Train a model: `torchrun -m training.train CONFIG [key=value ...]`, or without torchrun alone."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from amodal_core.errors import InputError
from amodal_core.files import out_folder

from .config import Config, read
from .distributed import Place, joined
from .engine import Outcome, Trainer
from .hooks import usual
from .progress import Display, console, display


@contextmanager
def session(config: Config) -> Iterator[tuple[Place, Display]]:
    """This process among those that torchrun started, and what it shows.

    Raises:
        InputError: a device is not there.
    """
    with joined(config.device, config.split) as place, display(place.first) as shown:
        if place.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        yield place, shown


def train(config: Config) -> Outcome:
    """Run a configuration in this process, together with those that torchrun started.

    Raises:
        InputError: whatever a user can mend.
    """
    with session(config) as (place, shown), out_folder(Path(config.out)):
        outcome = Trainer(config, place, shown, usual()).run()
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; bad input ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="training.train", description=__doc__)
    parser.add_argument("config", help="a YAML file, see training/configs")
    parser.add_argument("overrides", nargs="*", help="key=value, such as optimiser.rate=0.01")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    try:
        outcome = train(read(given.config, given.overrides))
    except InputError as error:
        console.print(f"[red bold]error[/] {error}", soft_wrap=True)
        return 2
    if os.environ.get("RANK", "0") == "0":
        for path in outcome.checkpoints:
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
