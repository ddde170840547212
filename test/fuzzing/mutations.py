"""Valid inputs, spoilt: bytes, texts, trees of values, pickles, archives, pictures, messages."""

from __future__ import annotations

import io
import json
import pickletools
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import yaml

Mutate = Callable[[random.Random, bytes], bytes]

_INTEGERS = (0, 1, -1, 2, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
_TEXTS = (
    "", "a", "..", "../../a", "/etc/passwd", "a\0b", "\udcff", "ä" * 300, "nan", "inf", "-1",
    "1e400", "9" * 400, "0x10", "null", "PPYo1", "1" * 5000, "%s", "{}", "a/b",
    "2011-13-45 99:99:99",
)  # fmt: skip
_FLOATS = (0.0, -0.0, 0.5, 1e-40, 1e30, -1e308, float("nan"), float("inf"), float("-inf"))


def junk(rng: random.Random, depth: int = 2) -> Any:
    """Any value that JSON or YAML can hold."""
    kind = rng.randrange(9 if depth else 6)
    if kind == 0:
        return None
    if kind == 1:
        return rng.random() < 0.5
    if kind == 2:
        return rng.choice(_INTEGERS) * rng.choice((1, 1, 1, -1))
    if kind == 3:
        return rng.choice(_FLOATS)
    if kind in (4, 5):
        return rng.choice(_TEXTS)
    if kind == 6:
        return [junk(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {rng.choice(_TEXTS): junk(rng, depth - 1) for _ in range(rng.randrange(3))}
    return [rng.choice(_FLOATS) for _ in range(rng.choice((4, 6, 7, 8, 16, 3000)))]


def of_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes changed, cut off, put in, doubled, or replaced by numbers that mean sizes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.choice((1, 2, 4, 8, 100))]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 64)))
        elif kind == 5:
            length = rng.choice((1, 8, 64, 1000))
            data[at:at] = data[at : at + length]
        else:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(_INTEGERS) % (1 << 8 * width)
            order = rng.choice(("little", "big"))
            data[at : at + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
    return bytes(data)


def of_text(rng: random.Random, data: bytes) -> bytes:
    """Lines left out, doubled or exchanged; words and numbers replaced; bytes that are no text."""
    if rng.random() < 0.15:
        return of_bytes(rng, data)
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(rng.choice((1, 1, 2, 5))):
        if rng.random() < 0.4:
            lines = text.splitlines()
            if not lines:
                break
            k, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            kind = rng.randrange(4)
            if kind == 0:
                del lines[k]
            elif kind == 1:
                lines[k:k] = [lines[other]] * rng.choice((1, 1, 500))
            elif kind == 2:
                lines[k], lines[other] = lines[other], lines[k]
            else:
                lines[k] = rng.choice(_TEXTS)
            text = "\n".join(lines) + "\n"
        else:
            words = list(re.finditer(r"[^\s:,=\[\]{}]+", text))
            if not words:
                break
            word = rng.choice(words)
            new = str(junk(rng, 0)) if rng.random() < 0.7 else rng.choice(("", ":", " ", "[", "{"))
            text = text[: word.start()] + new + text[word.end() :]
    return text.encode("utf-8", "surrogateescape" if "\udcff" in text else "replace")


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a tree of values."""
    places = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value[:12]))
    for key, inner in items:
        places += _places(inner, (*path, key))
    return places


def of_tree(rng: random.Random, value: Any) -> Any:
    """A tree of values with some changed, left out, doubled, exchanged or wrapped."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(value)
        if not places:
            return junk(rng)
        path = rng.choice(places)
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        kind, key = rng.randrange(8), path[-1]
        if kind < 4:
            parent[key] = junk(rng)
        elif kind == 4:
            del parent[key]
        elif kind == 5:
            parent[key] = [parent[key]] * rng.choice((1, 2, 50))
        elif kind == 6 and isinstance(parent, dict):
            parent[rng.choice(_TEXTS)] = parent.pop(key)
        else:
            other = rng.choice(places)
            inner = value
            for step in other:
                inner = inner[step]
            parent[key] = json.loads(json.dumps(inner))
    return value


def of_json(rng: random.Random, data: bytes) -> bytes:
    """JSON whose values are spoilt, or whose text is."""
    kind = rng.random()
    if kind < 0.1:
        return of_bytes(rng, data)
    if kind < 0.2:
        return of_text(rng, data)
    if kind < 0.23:
        depth = rng.choice((100, 100_000))
        return b"[" * depth + data + b"]" * depth
    text = json.dumps(of_tree(rng, json.loads(data)))
    if kind < 0.3:  # numbers that Python writes otherwise
        text = re.sub(r"-?\d+(\.\d+)?", lambda m: rng.choice((m[0], m[0], "1e999", "9" * 60)), text)
    return text.encode()


def of_yaml(rng: random.Random, data: bytes) -> bytes:
    """YAML whose values are spoilt, or whose text is."""
    kind = rng.random()
    if kind < 0.35:
        return of_text(rng, data)
    if kind < 0.38:  # each line ten times the one before
        names = "abcdefghi"
        lines = [f"{n}: &{n} [{', '.join(['*' + m] * 10)}]" for m, n in zip(names, names[1:])]  # noqa: B905, RUF007
        return ("a: &a [1,1,1,1]\n" + "\n".join(lines)).encode()
    value = of_tree(rng, yaml.safe_load(data))
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")


def of_pickle(rng: random.Random, data: bytes) -> bytes:
    """A pickle whose instructions are left out, doubled, exchanged, or given other numbers."""
    if rng.random() < 0.3:
        return of_bytes(rng, data)
    starts = [at for *_, at in pickletools.genops(data)] + [len(data)]
    steps = [data[a:b] for a, b in zip(starts, starts[1:])]  # noqa: B905, RUF007
    for _ in range(rng.choice((1, 1, 2, 4))):
        k, other = rng.randrange(len(steps)), rng.randrange(len(steps))
        kind = rng.randrange(5)
        if kind == 0 and len(steps) > 1:
            del steps[k]
        elif kind == 1:
            steps.insert(k, steps[other])
        elif kind == 2:
            steps[k], steps[other] = steps[other], steps[k]
        elif kind == 3:
            opcode = rng.choice(pickletools.opcodes).code.encode("latin-1")
            steps[k] = opcode + steps[k][1:]
        else:
            steps[k] = steps[k][:1] + of_bytes(rng, steps[k][1:] or b"\0")
        if not steps:
            break
    return b"".join(steps)


def of_zip(inner: Mutate) -> Mutate:
    """Of an archive: its members, or its own bytes."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.3:
            return of_bytes(rng, data)
        result = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
            names = old.namelist()
            spoilt = rng.choice(names)
            for name in names:
                content = old.read(name)
                if name == spoilt:
                    if rng.random() < 0.15:
                        continue
                    content = inner(rng, content)
                new.writestr(name, content)
        return result.getvalue()

    return mutate


def of_npy(rng: random.Random, data: bytes) -> bytes:
    """An .npy file: the words of its header, or its bytes."""
    if rng.random() < 0.5 or data[:6] != b"\x93NUMPY":
        return of_bytes(rng, data)
    (length,) = struct.unpack("<H", data[8:10])
    header = data[10 : 10 + length].decode("latin-1")
    swaps = {
        r"'[<>|]\w*'": ["'|O'", "'<U999999999'", "'V8'", "3", "''"],
        r"\([\d, ]*\)": ["(99999999999,)", "(-1,)", "()", "(0, 9)", "3", "(1.5,)", "(True,)"],
        r"True|False": ["None", "3", "True", "'F'"],
    }
    pattern = rng.choice(list(swaps))
    header = re.sub(pattern, lambda _: rng.choice(swaps[pattern]), header, count=1)
    return data[:8] + struct.pack("<H", len(header)) + header.encode() + data[10 + length :]


def of_safetensors(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file: its header, the JSON inside the header's metadata, or its bytes."""
    if rng.random() < 0.25:
        return of_bytes(rng, data)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__")
    if metadata and rng.random() < 0.6:
        name = rng.choice(list(metadata))
        spoil = of_json if metadata[name][:1] in "[{" else of_text
        metadata[name] = spoil(rng, metadata[name].encode()).decode("utf-8", "replace")
    else:
        header = of_tree(rng, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def of_picture(rng: random.Random, data: bytes) -> bytes:
    """A PNG with another size, depth or kind of colour, its check sum right; or other bytes."""
    if data[:4] != b"\x89PNG" or rng.random() < 0.5:
        return of_bytes(rng, data)
    width, height, *rest = struct.unpack(">IIBBBBB", data[16:29])
    kind = rng.randrange(4)
    if kind == 0:
        width, height = rng.choice((0, 1, 30_000, 2**31)), rng.choice((height, 0, 30_000, 2**31))
    elif kind == 1:
        rest[0] = rng.choice((1, 2, 4, 8, 16, 3))
    elif kind == 2:
        rest[1] = rng.choice((0, 2, 3, 4, 6, 9))
    else:
        rest[4] = rng.choice((0, 1, 7))
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, *rest)
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def of_floats(rng: random.Random, data: bytes) -> bytes:
    """A file of 32-bit numbers: some that are no points, or its bytes."""
    if rng.random() < 0.4:
        return of_bytes(rng, data)
    numbers = [v for (v,) in struct.iter_unpack("<f", data)]
    for _ in range(rng.choice((1, 4, len(numbers)))):
        numbers[rng.randrange(len(numbers))] = rng.choice((*_FLOATS[:-4], 1e38, *_FLOATS[-3:]))
    return b"".join(struct.pack("<f", max(-3e38, min(3e38, v)) if v == v else v) for v in numbers)


def of_message(fields: Callable[[], dict[str, Any]], store: Any, root: str) -> Mutate:
    """A message in CDR: its fields (of any message inside it), or its bytes.

    Args:
        fields: gives the store's `fielddefs`.
        store: of rosbags, which reads and writes it.
        root: its type.
    """

    def nested(value: Any, kind: str) -> list[tuple[Any, str]]:
        """The messages in a message with their types, itself first."""
        result = [(value, kind)]
        for name, (node, detail) in fields()[kind][1]:
            inner = getattr(value, name)
            if int(node) == 2:
                result += nested(inner, detail)
            elif int(node) in (3, 4) and int(detail[0][0]) == 2:
                for item in list(inner)[:4]:
                    result += nested(item, detail[0][1])
        return result

    def mutate(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.4:
            return data[:4] + of_bytes(rng, data[4:])
        message = store.deserialize_cdr(data, root)
        for _ in range(rng.choice((1, 1, 2, 4))):
            value, kind = rng.choice(nested(message, root))
            names = fields()[kind][1]
            if not names:
                continue
            name, (node, detail) = rng.choice(names)
            old = getattr(value, name)
            if int(node) == 1:
                object.__setattr__(value, name, _scalar(rng, detail[0], old))
            elif int(node) == 4:
                length = rng.choice((0, 1, len(old) // 2, len(old), 2 * len(old), 5000))
                if len(old):
                    items = [old[k % len(old)] for k in range(length)]
                    new = items if isinstance(old, list) else type(old)((length,), old.dtype)
                    if not isinstance(old, list):
                        new[:] = items
                    object.__setattr__(value, name, new)
            elif hasattr(old, "dtype") and len(old):
                old = old.copy()
                pool = _FLOATS if old.dtype.kind == "f" else (0, 1, 100, 127)
                old[rng.randrange(len(old))] = rng.choice(pool)
                object.__setattr__(value, name, old)
        return bytes(store.serialize_cdr(message, root))

    return mutate


def _scalar(rng: random.Random, kind: str, old: Any) -> Any:
    if kind == "string":
        return rng.choice((*(t for t in _TEXTS if "\udcff" not in t and "\0" not in t), old[:-1]))
    if kind == "bool":
        return not old
    if kind.startswith("float"):
        return rng.choice(_FLOATS[:5] + _FLOATS[6:] if kind == "float32" else _FLOATS)
    bits = int(re.sub(r"\D", "", kind) or 8)
    number = rng.choice((*_INTEGERS, old + 1, old * 2, old // 2)) % (1 << bits)
    return number - (1 << bits) if kind.startswith("int") and number >= 1 << bits - 1 else number
