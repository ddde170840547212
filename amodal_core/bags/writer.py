"""Write rosbag2 bags (MCAP, SQLite) without ROS; nothing half-written is ever left behind."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from amodal_core.bags.factory import typestore
from amodal_core.errors import InputError
from amodal_core.files import folder_beside

STORAGES = ("mcap", "sqlite3")
# The version of the format that ROS 2 Jazzy writes.
_VERSION: Literal[9] = 9
_FOREVER = QosTime(sec=9223372036, nsec=854775807)


def _qos(depth: int, durability: QosDurability) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=depth,
        reliability=QosReliability.RELIABLE,
        durability=durability,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )


_STREAM = _qos(10, QosDurability.VOLATILE)
_LATCHED = _qos(1, QosDurability.TRANSIENT_LOCAL)


class BagWriter:
    """Writes a bag beside its place and moves it there when all is written.

    Args:
        path: the bag's folder; a path that ends in .mcap makes that one file, without a folder.
        storage: "mcap" or "sqlite3".
        compress: zstd, in chunks (MCAP) or message by message (SQLite).
        overwrite: replace what lies at `path`, once the new bag is whole.

    Raises:
        InputError: something lies at `path`, or the place cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        storage: str = "mcap",
        *,
        compress: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self._single = self.path.suffix == ".mcap"
        if storage not in STORAGES:
            raise InputError(
                f"no storage '{storage}'", str(path), f"choose one of {', '.join(STORAGES)}"
            )
        if self._single and storage != "mcap":
            raise InputError("a single .mcap file has MCAP storage", str(path), "name a folder")
        if self.path.exists():
            replaceable = self.path.is_file() or (self.path / "metadata.yaml").exists()
            if not overwrite or not replaceable:
                raise InputError(
                    "exists already", str(path), "name another place or remove it first"
                )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._ending = ExitStack()
            work = self._ending.enter_context(folder_beside(self.path))
        except OSError as error:
            raise InputError(
                f"cannot write there: {error.strerror}", str(path), "name another place"
            ) from error
        name = self.path.stem if self._single else self.path.name
        self._writer = Writer(
            work / name,
            version=_VERSION,
            storage_plugin=StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3,
        )
        if compress:
            mode = CompressionMode.STORAGE if storage == "mcap" else CompressionMode.MESSAGE
            self._writer.set_compression(mode, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections: dict[str, Connection] = {}
        self._store = typestore()

    def add_topic(self, topic: str, type_name: str, *, latched: bool = False) -> None:
        """Announce a topic, latched (transient local, depth 1) where late joiners need it."""
        self._connections[topic] = self._writer.add_connection(
            topic,
            type_name,
            typestore=self._store,
            offered_qos_profiles=[_LATCHED if latched else _STREAM],
        )

    def remark(self, name: str, text: str) -> None:
        """Say something of the whole bag, in `custom_data` of its metadata."""
        self._writer.set_custom_data(name, text)

    def write(self, topic: str, message: Any, stamp: int) -> None:
        """Append a rosbags message of `add_topic`'s type; `stamp` in nanoseconds."""
        connection = self._connections[topic]
        data = self._store.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, stamp, data)

    def close(self) -> None:
        """Finish the bag and move it to its place."""
        with self._ending:
            self._writer.close()
            made = self._writer.path
            if self._single:
                (made / f"{made.name}.mcap").replace(self.path)
            else:
                if self.path.exists():
                    shutil.rmtree(self.path)
                made.replace(self.path)

    def abort(self) -> None:
        """Leave nothing behind."""
        with self._ending:
            self._writer.abort()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
