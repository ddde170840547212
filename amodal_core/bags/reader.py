"""Read rosbag2 bags (MCAP, SQLite; split or compressed) and ROS 1 bags without ROS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.interfaces import MessageDefinitionFormat, Nodetype, QosDurability
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from amodal_core.bags.factory import RosbagsFactory, typestore
from amodal_core.bags.storage import files_of, open_recording
from amodal_core.errors import InputError

# What every message of a type may hold: a definition of a hundred bytes can ask for gigabytes.
_MOST_NUMBERS, _MOST_FIELDS, _LONGEST_DEFINITION = 2**20, 1000, 2**18
_REPAIR = "mend it with `ros2 bag reindex` or `mcap recover`, or record it again"


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Attributes:
        name: such as /tf_static.
        type: such as tf2_msgs/msg/TFMessage.
        count: messages in the bag.
        latched: its last message is for late subscribers too (transient local).
    """

    name: str
    type: str
    count: int
    latched: bool = False


class BagMessage(NamedTuple):
    """A message of a bag; `stamp` is when it was recorded, nanoseconds."""

    topic: str
    stamp: int
    message: Any


class RawMessage(NamedTuple):
    """A message of a bag as it was recorded: CDR with its encapsulation header."""

    topic: str
    type: str
    stamp: int
    data: bytes | memoryview


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: a file by its name, a folder by what lies in it."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(files_of(path))
    return path.suffix in (".mcap", ".db3", ".bag")


class BagReader:
    """A rosbag2 bag: a folder, or one .mcap or .db3 file; or a .bag of ROS 1.

    Messages are read with the definitions that the bag carries; a bag without definitions is read
    as ROS 2 Jazzy with amodal_msgs. `lacks` says what a killed recorder did not write, or "".

    Args:
        path: the folder or file.

    Raises:
        InputError: it is not a bag, is damaged, or is not readable.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        where = str(self.path)
        if not self.path.exists():
            raise InputError("there is no such bag", where, "check the path")
        if self.path.is_dir() and not is_bag(self.path):
            packed = any(self.path.glob("*.zstd"))
            cure = _REPAIR if packed else "give a bag's folder, .mcap, .db3 or .bag"
            raise InputError("not a rosbag2 bag: no metadata.yaml", where, cure)
        if not self.path.is_dir() and not is_bag(self.path):
            raise InputError("not a bag", where, "give a bag's folder, .mcap, .db3 or .bag")
        try:
            self._reader, self.lacks = open_recording(self.path)
        except Exception as error:
            # rosbags lets struct, zstd, YAML and sqlite errors of damaged files through.
            raise InputError(f"cannot open the bag: {_line(error)}", where, _REPAIR) from error
        self._check_topics()
        self._store, self._readable = self._types()
        self._factory = RosbagsFactory()
        self._differs: dict[str, bool] = {}  # whether a type's layout here is another

    def _check_topics(self) -> None:
        """Whether the metadata's topics are what topics are; YAML may hold anything."""
        for c in self._reader.connections:
            texts = isinstance(c.topic, str) and isinstance(c.msgtype, str)
            if not texts or not isinstance(c.msgcount, int) or c.msgcount < 0:
                text = f"{c.msgcount!s:.20} messages of type {c.msgtype!s:.60} on {c.topic!s:.60}"
                self._reader.close()
                raise InputError(text, str(self.path), _REPAIR)

    def _types(self) -> tuple[Any, set[str]]:
        store = get_typestore(Stores.EMPTY)
        types: dict[str, Any] = {}
        for c in self._reader.connections:
            parse = {
                MessageDefinitionFormat.MSG: lambda c: get_types_from_msg(c.msgdef.data, c.msgtype),
                MessageDefinitionFormat.IDL: lambda c: get_types_from_idl(c.msgdef.data),
            }.get(c.msgdef.format)
            if parse is None:
                continue
            try:
                if len(c.msgdef.data) > _LONGEST_DEFINITION:
                    raise ValueError(f"{len(c.msgdef.data)} letters")
                types.update(parse(c))
            except Exception as error:
                raise self._no_definition(c, error) from error
        own = typestore().fielddefs
        sizes: dict[str, int] = {}
        needed: dict[str, Any] = {}  # of all 200 the code is made in half a second
        c = None
        try:
            for c in self._reader.connections:
                _collect(c.msgtype, types, own, needed)
                if c.msgtype in needed and _numbers(c.msgtype, needed, sizes) > _MOST_NUMBERS:
                    raise ValueError(f"over {_MOST_NUMBERS} values in every message")
            store.register(needed)
        except Exception as error:  # of rosbags, where names are none or twice the same
            raise self._no_definition(c, error) from error
        return store, set(store.fielddefs)

    def _no_definition(self, connection: Any, error: Exception) -> InputError:
        self.close()
        return InputError(
            f"the definition of {connection.msgtype} is damaged: {_line(error)}",
            f"{self.path} {connection.topic}",
            _REPAIR,
        )

    @property
    def topics(self) -> dict[str, Topic]:
        """Topics by name."""
        topics: dict[str, Topic] = {}
        for c in self._reader.connections:
            count = c.msgcount + (topics[c.topic].count if c.topic in topics else 0)
            latched = (
                c.topic.endswith("/tf_static")
                or bool(getattr(c.ext, "latching", False))
                or any(
                    q.durability == QosDurability.TRANSIENT_LOCAL
                    for q in getattr(c.ext, "offered_qos_profiles", ())
                )
            )
            topics[c.topic] = Topic(c.topic, c.msgtype, count, latched)
        return topics

    @property
    def duration(self) -> int:
        """Nanoseconds from the first message to the last."""
        return max(0, self._reader.duration - 1)

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[BagMessage]:
        """Messages of these topics (of all by default) in the order of their recording.

        Raises:
            InputError: a topic's type is unknown, or the bag is damaged from some message on.
        """
        wanted = None if topics is None else set(topics)
        for c in self._reader.connections:
            if (wanted is None or c.topic in wanted) and c.msgtype not in self._readable:
                raise InputError(
                    f"the bag does not carry the definition of {c.msgtype}",
                    f"{self.path} {c.topic}",
                    "record it as MCAP",
                )
            if (wanted is None or c.topic in wanted) and (lack := self._misfit(c.msgtype)):
                raise InputError(
                    f"its {c.msgtype} is another than ROS 2's: {lack}",
                    f"{self.path} {c.topic}",
                    "give the type another name",
                )
        for done, raw in enumerate(self.raw_messages(wanted)):
            try:
                message = self._store.deserialize_cdr(raw.data, raw.type)
            except Exception as error:
                raise self._damaged(done, raw.topic, error) from error
            yield BagMessage(raw.topic, raw.stamp, message)

    def _misfit(self, name: str) -> str:
        """What a type that is known here lacks in the bag, "" where nothing that is read.

        Fields that later versions of our own messages have may be missing.
        """
        own, theirs = self._factory.store.fielddefs, self._store.fielddefs
        pending, checked = [name], set()
        while pending:
            kind = pending.pop()
            if kind in checked or kind not in own or kind not in theirs:
                continue
            checked.add(kind)
            fields = dict(theirs[kind][1])
            for field, described in own[kind][1]:
                if field not in fields:
                    if kind.startswith("amodal_msgs/"):
                        continue
                    return f"no field {field} of {kind}"
                if _plain(fields[field]) != _plain(described):
                    return f"field {field} of {kind} is of another type"
                pending += [part for part, _ in _parts(("", [(field, described)]))]
        return ""

    def raw_messages(self, topics: Iterable[str] | None = None) -> Iterator[RawMessage]:
        """Like `messages`, not deserialised; their types need not be known.

        Raises:
            InputError: the bag is damaged from some message on.
        """
        wanted = None if topics is None else set(topics)
        chosen = [c for c in self._reader.connections if wanted is None or c.topic in wanted]
        if not chosen:
            return
        done = 0
        raw = self._reader.messages(connections=chosen)
        while True:
            try:
                item = next(raw, None)
            except Exception as error:
                raise self._damaged(done, "", error) from error
            if item is None:
                break
            connection, stamp, data = item
            if not isinstance(data, bytes | memoryview):  # SQLite's columns hold any value
                raise self._damaged(done, connection.topic, TypeError("a message without bytes"))
            yield RawMessage(connection.topic, connection.msgtype, stamp, data)
            done += 1
        expected = sum(c.msgcount for c in chosen)
        if done < expected:
            raise InputError(
                f"the bag ends after {done} of {expected} messages", str(self.path), _REPAIR
            )

    def current(self, raw: RawMessage) -> bytes:
        """CDR of a message in the layout that its type has here.

        A bag of an earlier version may have been recorded with another one.

        Raises:
            InputError: the message is damaged.
        """
        differs = self._differs.get(raw.type)
        if differs is None:
            hashes = [
                s.hash_rihs01(raw.type) if raw.type in s.fielddefs else ""
                for s in (self._factory.store, self._store)
            ]
            differs = self._differs[raw.type] = all(hashes) and hashes[0] != hashes[1]
        if not differs:
            return bytes(raw.data)
        try:
            message = self._store.deserialize_cdr(raw.data, raw.type)
            message = self._factory.adopted(raw.type, message)
            return bytes(self._factory.store.serialize_cdr(message, raw.type))
        except Exception as error:
            raise InputError(
                f"a damaged message: {_line(error)}", f"{self.path} {raw.topic}", _REPAIR
            ) from error

    def _damaged(self, done: int, topic: str, error: Exception) -> InputError:
        return InputError(
            f"the bag is damaged after {done} messages: {_line(error)}",
            f"{self.path} {topic}".strip(),
            _REPAIR,
        )

    def close(self) -> None:
        """Close the files."""
        if self._reader.is_open:
            with suppress(AttributeError):  # of metadata whose lists are none
                self._reader.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain(described: Any) -> tuple[Any, ...]:
    """A field's type without the bounds of strings and lists."""
    node, detail = described
    if node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return node, detail[1] if node == Nodetype.ARRAY else 0, *_plain(detail[0])
    return node, detail if node == Nodetype.NAME else detail[0]


def _parts(fields: Any) -> Iterator[tuple[str, int]]:
    """The messages and strings in a type's fields, and how many of each every message has."""
    for _, (node, detail) in fields[1]:
        many = detail[1] if node == Nodetype.ARRAY else 1
        kind, inner = detail[0] if node in (Nodetype.ARRAY, Nodetype.SEQUENCE) else (node, detail)
        name = inner if kind == Nodetype.NAME else inner[0]
        yield name if kind == Nodetype.NAME or name == "string" else "", many


def _collect(name: str, first: dict[str, Any], then: dict[str, Any], into: dict[str, Any]) -> None:
    """Put a type and those inside it, as `first` or else `then` has them, `into` a table."""
    fields = first.get(name) or then.get(name)
    if name in into or fields is None:
        return
    if len(fields[1]) > _MOST_FIELDS:
        raise ValueError(f"{len(fields[1])} fields of {name}")
    into[name] = fields
    for part, _ in _parts(fields):
        if part not in ("", "string"):
            if part not in first and part not in then:
                raise KeyError(f"{part} is not in it")
            _collect(part, first, then, into)


def _numbers(name: str, types: dict[str, Any], sizes: dict[str, int]) -> int:
    """The least values that a message of a type has; one that holds itself has none."""
    if name not in sizes:
        sizes[name] = _MOST_NUMBERS + 1
        sizes[name] = sum(
            many * (_numbers(part, types, sizes) if part in types else 1)
            for part, many in _parts(types[name])
        )
    return sizes[name]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
