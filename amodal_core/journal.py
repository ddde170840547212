"""The journal of an unfinished run: pieces kept as they come, so that a killed run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from amodal_core.errors import InputError
from amodal_core.files import make_folder, write_json

_FOLDER, _NOTE = ".parts", "run.json"


class Journal:
    """JSON values by number, in a folder `.parts` beside the results.

    The folder is there from the first piece on: a run that did nothing leaves nothing behind.

    Args:
        out: folder of the results.
        settings: what decides them, as JSON values.

    Raises:
        InputError: the folder cannot be made, or pieces of a run with other settings lie there.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.folder, self._settings = out / _FOLDER, settings
        self._note = self.folder / _NOTE
        make_folder(out)
        if self._note.exists():
            earlier = json.loads(self._note.read_text())
            if earlier != json.loads(json.dumps(settings)):
                raise InputError(
                    "an unfinished run of another model or other settings",
                    str(self.folder),
                    "finish it with them or remove that folder",
                )

    def __contains__(self, number: int) -> bool:
        return self._path(number).exists()

    def keep(self, number: int, value: Any) -> None:
        """Write a piece, whole or not at all; with the first one the settings.

        Raises:
            InputError: it cannot be written.
        """
        if not self._note.exists():
            make_folder(self.folder)
            write_json(self._settings, self._note)
        write_json(value, self._path(number))

    def read(self, number: int) -> Any:
        """A piece that was kept.

        Raises:
            InputError: it is broken.
        """
        path = self._path(number)
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"a broken piece: {error}", str(path), "remove it") from None

    def remove(self) -> None:
        """Remove all pieces; the run is finished."""
        if not self.folder.exists():
            return  # there was nothing to do
        for path in sorted(self.folder.iterdir()):
            path.unlink()
        self.folder.rmdir()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.json"
