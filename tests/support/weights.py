"""Files of msgpack as Flax writes them, of NeMo, TensorFlow and llama.cpp, made without these."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


def packed(value: object) -> bytes:
    """Return a value in msgpack: texts and lists of less than 16, bytes of less than 64 KB, dictionaries, numbers."""
    match value:
        case None:
            return b"\xc0"
        case int():
            return bytes([value]) if 0 <= value < 128 else b"\xd3" + struct.pack(">q", value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case str():
            return bytes([0xA0 + len(value)]) + value.encode()
        case bytes():
            return b"\xc5" + struct.pack(">H", len(value)) + value
        case Array():
            content = packed([[*value.shape], value.type, value.content])
            return b"\xc8" + struct.pack(">Hb", len(content), value.extension) + content
        case list():
            return bytes([0x90 + len(value)]) + b"".join(map(packed, value))
        case dict():
            pairs = b"".join(packed(key) + packed(one) for key, one in value.items())
            return (bytes([0x80 + len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))) + pairs
    raise TypeError


class Array(NamedTuple):
    """An array as Flax packs it."""

    shape: tuple[int, ...]
    type: str
    content: bytes
    extension: int = 1


def flax() -> bytes:
    """Return a state of training."""
    layers = {f"layer_{n}": {"kernel": Array((4, n), "bfloat16", bytes(8 * n)), "bias": None} for n in range(17)}
    return packed({"step": Array((), "int32", bytes(4), 3), "params": layers, "lr": 0.1, "seeds": [1, 2, 70_000]})


def tarred(files: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar file of a folder, as NeMo writes it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:", format=form) as tar:
        folder = tarfile.TarInfo(".")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def varint(number: int) -> bytes:
    """Return a number of seven bits a byte."""
    more = number >> 7
    return bytes([number & 0x7F | 0x80]) + varint(more) if more else bytes([number])


def message(fields: Mapping[int, int | bytes]) -> bytes:
    """Return a message of Protocol Buffers."""
    return b"".join(
        varint(field << 3 | (2 if isinstance(value, bytes) else 0))
        + (varint(len(value)) + value if isinstance(value, bytes) else varint(value))
        for field, value in fields.items()
    )


def crc32c(data: bytes) -> int:
    """Return the checksum of a block, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def block(entries: Iterable[tuple[bytes, bytes]], packed_as: int = 0) -> bytes:
    """Return a block of a table, and what stands behind it."""
    rows = (varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    content = b"".join(rows) + struct.pack("<LLB", 0, 1, packed_as)
    crc = crc32c(content)
    return content + struct.pack("<L", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def table(*blocks: bytes) -> bytes:
    """Return a table of LevelDB of these blocks."""
    content, rows = b"", []
    for number, one in enumerate(blocks):
        rows.append((b"%d" % number, varint(len(content)) + varint(len(one) - 5)))
        content += one
    footer = b""
    for last in (block([]), block(rows)):
        footer += varint(len(content)) + varint(len(last) - 5)
        content += last
    return content + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


HEAD = message({1: 1, 3: message({1: 1})})  # one shard


def tensor(size: int, offset: int = 0, shard: int = 0) -> bytes:
    """Return what an index says of a tensor of floats."""
    place = {3: shard, 4: offset, 5: size}
    return message({1: 1, 2: message({2: message({1: size // 4})}), **{k: v for k, v in place.items() if v}}) + (
        b"\x35" + bytes(4)
    )


def tensorflow(*tensors: bytes, head: bytes = HEAD) -> bytes:
    """Return an index: half of its tensors in each of two blocks."""
    rows = [(b"", head), *((b"w%d" % number, one) for number, one in enumerate(tensors))]
    half = len(rows) // 2 + 1
    return table(block(rows[:half]), block(rows[half:]))


INDEX = tensorflow(tensor(400), tensor(40, 400), tensor(8, 440))
DATA = bytes(448)


def gguf(
    tensors: Iterable[tuple[Sequence[int], int, int]] = (((256, 2), 12, 0), ((5, 3), 1, 288)),
    data: bytes = bytes(318),
    *,
    pairs: Mapping[str, bytes] | None = None,
    version: int = 3,
    order: str = "<",
) -> bytes:
    """Return a file of GGUF; a tensor is its sides, its type and its place. Values of ``pairs`` begin with their kind."""

    def text(content: str) -> bytes:
        return struct.pack(f"{order}Q", len(content)) + content.encode()

    words = struct.pack(f"{order}IIQ", 9, 8, 2) + text("a") + text("b")
    said = (
        {"tokenizer.ggml.tokens": words, "general.alignment": struct.pack(f"{order}II", 4, 32)}
        if pairs is None
        else pairs
    )
    listed = [
        text("w") + struct.pack(f"{order}I{len(sides)}QIQ", len(sides), *sides, kind, place)
        for sides, kind, place in tensors
    ]
    head = b"GGUF" + struct.pack(f"{order}IQQ", version, len(listed), len(said))
    head += b"".join(text(key) + value for key, value in said.items()) + b"".join(listed)
    return head + bytes(-len(head) % 32) + data
