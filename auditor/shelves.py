"""Things by name, with the file that each is from: what a workspace consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from auditor.errors import BadFile, UnknownName

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A thing with the file it is from, and the files whose namesakes it overrides."""

    value: T
    path: Path
    root: str
    overrides: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be used, in the place of what it would have been, and of what it would have overridden."""

    error: BadFile
    root: str
    overrides: tuple[Path, ...] = ()

    @property
    def path(self) -> Path:
        return self.error.path

    def __str__(self) -> str:
        return f"{self.error}{f' (override of {self.overrides[-1]})' if self.overrides else ''}"


@dataclass
class Shelf(Generic[T]):
    """All things of one kind, by name. A broken file is kept until somebody needs what it should have been.

    It hides its namesakes of earlier roots all the same: nobody gets the built-in one for their own. Some things hold
    others, which are called THING@WHICH: `inside` makes these, and raises UsageError for one that is not there.
    """

    kind: str
    items: dict[str, Loaded[T]] = field(default_factory=dict)
    broken: dict[str, Broken] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)  # whole workspaces that could not be read: what may be missing here
    inside: Callable[[T, str], T] | None = None

    def put(self, name: str, value: T, path: Path, root: str) -> None:
        self.items[name] = Loaded(value, path, root, self._hidden(name))

    def fail(self, names: Iterable[str], error: BadFile, root: str) -> None:
        """File `error` under every name that the broken file claims."""
        for name in names:
            self.broken[name] = Broken(error, root, self._hidden(name))

    def _hidden(self, name: str) -> tuple[Path, ...]:
        """Take what was there off the shelf: the files that a newcomer overrides."""
        before = self.items.pop(name, None) or self.broken.pop(name, None)
        return (*before.overrides, before.path) if before else ()

    def __getitem__(self, name: str) -> T:
        """Raises BadFile if the file that should define it is broken, UnknownName if there is none."""
        thing, at, which = name.partition("@")
        if at and self.inside and thing in self:
            return self.inside(self[thing], which)
        if name in self.broken:
            broken = self.broken[name]
            hidden = f" (override of {broken.overrides[-1]})" if broken.overrides else ""
            raise BadFile(broken.path, f"{broken.error.reason}{hidden}", broken.error.line)
        if name not in self.items:
            raise UnknownName(self.kind, name, [*self.items, *self.broken], "; ".join(self.lost))
        return self.items[name].value

    def get(self, name: str | None) -> T | None:
        """None if it is not there."""
        return self[name] if name is not None and name in self else None

    def __contains__(self, name: object) -> bool:
        """Whether it is there, if only as a broken file, or may be inside of what is there."""
        if name in self.items or name in self.broken:
            return True
        thing, at, _ = name.partition("@") if isinstance(name, str) else ("", "", "")
        return bool(at and self.inside and (thing in self.items or thing in self.broken))

    def __iter__(self) -> Iterator[Loaded[T]]:
        return iter(self.items.values())

    def by_name(self) -> Mapping[str, T]:
        """The same as a mapping: looking a broken one up raises, having it there does not."""
        return _ByName(self)


class _ByName(Mapping[str, T]):
    def __init__(self, shelf: Shelf[T]) -> None:
        self._shelf = shelf

    def __getitem__(self, name: str) -> T:
        return self._shelf[name]

    def __contains__(self, name: object) -> bool:
        return name in self._shelf

    def __iter__(self) -> Iterator[str]:
        return iter(self._shelf.items)

    def __len__(self) -> int:
        return len(self._shelf.items)
