"""Files that grow by a line: JSON objects, each on the disk before anybody goes on."""

from __future__ import annotations

import json
import os
import threading
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from auditor.errors import BadFile

CHECK = "crc32"  # of the line without it
_TURN = threading.Lock()  # of the process that writes: half a line of another thread looks like one that was cut off


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects in `path`, with their lines' numbers; what a kill cut off at the end is left out.

    A file that is not there has none. Raises BadFile for a line that is no object.
    """
    try:
        *whole, tail = path.read_bytes().split(b"\n")  # not at U+2028 and its like, which stand inside texts
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or error})") from error
    found = []
    for number, line in enumerate(whole, 1):
        value = _object(line)
        if value is None and line.strip():
            raise BadFile(
                path, "is no JSON object as it was written; without this line, what it told is done again", number
            )
        if value is not None:
            found.append((number, value))
    last = _object(tail)  # nothing but the line's end was cut off
    return found if last is None else [*found, (len(whole) + 1, last)]


def add_line(path: Path, line: str) -> None:
    """Write `line`, an object's JSON, behind the last whole one, with its checksum, down to the disk.

    Raises BadFile if it cannot be written.
    """
    try:
        with _TURN, path.open("ab+") as stream:
            _end_well(stream)
            stream.write(seal(line.encode()) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise BadFile(path, f"cannot be written ({error.strerror or error})") from error


def _end_well(stream: BinaryIO) -> None:
    """Drop a line that a kill cut off, or end one that lacks nothing else."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 1))
    if stream.read(1) in (b"", b"\n"):
        return
    stream.seek(0)
    tail = stream.read().rpartition(b"\n")[2]
    if _object(tail) is None:
        stream.truncate(size - len(tail))
    else:
        stream.write(b"\n")


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:  # of JSON, or of UTF-8
        return None
    if not isinstance(value, dict):
        return None
    if value.pop(CHECK, None) is not None:  # lines of older runs have none
        plain, _, _ = line.rpartition(f',"{CHECK}":'.encode())
        return value if line.strip() == seal(plain + b"}") else None
    return value


def seal(line: bytes) -> bytes:
    """An object's JSON with its checksum: a line that lost a piece may still be JSON, and tell something else."""
    return line[:-1] + f',"{CHECK}":"{zlib.crc32(line):08x}"}}'.encode()
