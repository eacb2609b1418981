"""Files that are read back later: written whole or not at all, and noticed if they were cut since."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copy2, copytree, rmtree

from safetensors import SafetensorError

from auditor.errors import BadFile

_ENDINGS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".json", ".zip", ".tar", ".gz", "/")
SEAL = "seal.json"  # of a folder: its files' hashes, written last


def like_a_path(name: str, root: Path = Path()) -> bool:
    """Whether `name` must mean a file or folder, there or not, and no model on the hub; it would lie in `root`."""
    first, slash, _ = name.partition("/")
    odd = not slash or first.startswith((".", "~")) or "\\" in name or Path(name).is_absolute()
    return odd or name.endswith(_ENDINGS) or os.path.isdir(root / first)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place, on the disk, when the block ends well.

    The name is this call's own, so several processes may write the same file; readers see one of them, whole.
    Raises BadFile if it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode  # safetensors makes files that only their owner can read
        yield part
        part.chmod(mode)
        _to_disk(part)
        os.replace(part, path)
        _to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        raise BadFile(path, f"cannot be written ({getattr(error, 'strerror', None) or error})") from error
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of `folder` as a whole when the block ends well.

    Files that `folder` has under other names stay. Cut off, it is as it was, or not there; never some of both. Raises
    BadFile if it cannot be written.
    """
    folder = folder.expanduser().resolve()  # of a link, what it leads to
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    part, before = (folder.with_name(f".{folder.name}.{mark}.{kind}") for kind in ("part", "old"))
    try:
        part.mkdir(parents=True)
        yield part
        if folder.is_dir():
            for path in folder.iterdir():
                if not (part / path.name).exists():
                    (copytree if path.is_dir() else copy2)(path, part / path.name)
        for path in part.iterdir():
            _to_disk(path)
        if folder.is_dir():
            os.replace(folder, before)
        os.replace(part, folder)
        _to_disk(folder.parent)
    except OSError as error:
        raise BadFile(folder, f"cannot be written ({error.strerror or error})") from error
    finally:
        rmtree(part, ignore_errors=True)
        if before.exists() and not folder.exists():
            os.replace(before, folder)
        rmtree(before, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """`content` (text as UTF-8) in place of whatever `path` holds. Raises BadFile if it cannot be written."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


Digest = Callable[[Path], str]


def seal(folder: Path, digest: Digest = sha256_of) -> None:
    """Record a finished folder's files in it, so that `flaw` can tell later whether they are as they were."""
    files = [path for path in sorted(folder.iterdir()) if path.name != SEAL]
    for path in files:
        _to_disk(path)
    write_atomically(folder / SEAL, json.dumps({path.name: digest(path) for path in files}, indent=1))


def flaw(folder: Path, digest: Digest = sha256_of) -> str:
    """What is wrong with a sealed folder, in a few words; empty if its files are as they were sealed.

    `digest` is what it was sealed with; it may remember what it read before.
    """
    try:
        record = json.loads((folder / SEAL).read_bytes())
        for name, known in record.items():
            if digest(folder / name) != known:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError):
        return f"{SEAL} cannot be read"
    return ""


def take_place(part: Path, target: Path, digest: Digest = sha256_of) -> None:
    """Move the sealed folder `part` to `target`, unless another process has put a whole one there by now.

    `part` must lie on the same disk; a flawed folder at `target` ends up beside `part`. Raises BadFile if it cannot.
    """
    for _ in range(3):  # another process may put its own there between the steps
        try:
            os.replace(part, target)
            return
        except OSError as error:
            problem = error
        if not flaw(target, digest):
            return
        try:
            if target.is_dir():
                os.replace(target, part.with_name(f"{part.name}-{secrets.token_hex(4)}"))
            else:
                target.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            problem = error
    raise BadFile(target, f"cannot be written ({problem.strerror or problem})") from problem


def _to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of files, would outlive a power cut."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some network disks know no fsync of folders
            raise
    finally:
        os.close(handle)
