"""The cache: one sealed entry a reading, `evidence/LENS/KEY/`, whole or made anew."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from weakref import WeakValueDictionary

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from auditor.errors import BadFile
from auditor.evidence.mapping import Cost
from auditor.files import flaw, replacing, seal, take_place, write_atomically
from auditor.lenses import Lens
from auditor.models.identity import first_line
from auditor.models.worker import LEFT, ClientGone
from auditor.readings import Reading

log = logging.getLogger("auditor.evidence")

_LOCKS: WeakValueDictionary[tuple[Path, str, str], threading.Lock] = WeakValueDictionary()
_LOCKING = threading.Lock()
READING, ARRAYS = "reading.json", "arrays.safetensors"


def kept(root: Path, lens: Lens, key: str) -> tuple[Reading, Cost] | None:
    """What the cache at `root` holds; None if that is nothing, or not whole, which is said."""
    folder = root / lens.name / key
    if not folder.exists():
        return None
    try:
        return _read(folder, lens, key)
    except BadFile as error:
        log.warning("%s; it is read anew", error)
        _set_aside(folder)
        return None


@contextmanager
def alone(root: Path, lens: Lens, key: str) -> Iterator[None]:
    """Nobody else in this process makes this entry inside. Raises ClientGone if who asks leaves before his turn."""
    with _LOCKING:
        lock = _LOCKS.setdefault((root, lens.name, key), threading.Lock())
    while not lock.acquire(timeout=1):
        if LEFT.get()():
            raise ClientGone("who asked has left")
    try:
        yield
    finally:
        lock.release()


def keep(root: Path, lens: Lens, key: str, reading: Reading, cost: Cost) -> None:
    """Write an entry: it is there whole, or not at all. What cannot be written is said."""
    folder = root / lens.name / key
    part = _beside(folder)
    told = {"key": key, "cost": cost.model_dump(), "reading": reading.model_dump(mode="json")}
    try:
        part.mkdir(parents=True)
        with replacing(part / ARRAYS) as path:
            save_file({name: array.clone().contiguous() for name, array in reading.arrays.items()}, path)
        write_atomically(part / READING, json.dumps(told, ensure_ascii=False, indent=1))
        seal(part)
        take_place(part, folder)
    except (BadFile, OSError) as error:
        reason = error if isinstance(error, BadFile) else BadFile(folder, f"cannot be written ({error.strerror})")
        log.warning("%s; %s will have to be read again", reason, lens.name)
    finally:
        rmtree(part, ignore_errors=True)


def _read(folder: Path, lens: Lens, key: str) -> tuple[Reading, Cost]:
    """Raises BadFile if the entry is not as it was written, or is of something else."""
    if problem := flaw(folder):
        raise BadFile(folder, problem)
    try:
        told = (folder / READING).read_text("utf-8")
        found = unpacked(lens, told, load_file(folder / ARRAYS))
        own = json.loads(told)["key"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadFile(folder, f"cannot be read ({first_line(error)})") from error
    if own != key:
        raise BadFile(folder, "is the reading of something else")
    return found


def unpacked(lens: Lens, told: str, arrays: Mapping[str, Tensor]) -> tuple[Reading, Cost]:
    """A reading and what it cost, from JSON and its arrays. Raises ValueError, KeyError or TypeError for anything
    else.
    """
    parts = json.loads(told)
    reading = lens.reading.model_validate_json(json.dumps(parts["reading"]))
    return reading.model_copy(update={"arrays": dict(arrays)}), Cost.model_validate(parts["cost"])


def _set_aside(folder: Path) -> None:
    """Take an entry away, however it looks: a whole one of something else would stand in the way for ever."""
    aside = _beside(folder)
    with suppress(OSError):  # another process has done it
        os.replace(folder, aside)
    rmtree(aside, ignore_errors=True)
    aside.unlink(missing_ok=True)


def _beside(folder: Path) -> Path:
    """A name that is this call's own."""
    return folder.with_name(f".{folder.name[:16]}.{os.getpid()}-{secrets.token_hex(4)}.part")
