"""What is to be fetched from the hub for some models, how much of it is missing, and the fetching."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from auditor.config import Settings
from auditor.errors import BadModel, UsageError
from auditor.files import like_a_path
from auditor.models.embedded import is_embedded
from auditor.models.hub import HubName, fetch, missing_of, patterns_of, refusal, wanted_of

LOOKS = 8  # at the hub at once


@dataclass(frozen=True, slots=True)
class Package:
    """A model on the hub: bytes in all, and those that are not in the cache yet; why it cannot be had, if so."""

    name: str
    size: int = 0
    missing: int = 0
    gated: bool = False
    refused: str = ""


def on_hub(models: Iterable[str]) -> list[HubName]:
    """Those that are fetched from the hub, each once: no folders, and not what is embedded."""
    names = [model for model in dict.fromkeys(models) if not (is_embedded(model) or like_a_path(model))]
    return [name for name in map(HubName.parse, names) if name is not None and not Path(str(name)).is_dir()]


def looked_up(names: Iterable[HubName], settings: Settings) -> list[Package]:
    """What the hub says of each, in order; nothing is fetched."""
    with ThreadPoolExecutor(LOOKS) as pool:
        return list(pool.map(lambda name: _look(name, settings), names))


def demand_disk(packages: Iterable[Package]) -> int:
    """Bytes that are free where the hub's cache lies. Raises UsageError if the missing ones do not fit there."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).absolute()
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    missing = sum(package.missing for package in packages)
    if missing > free:
        raise UsageError(
            f"{missing / 1e9:.1f} GB are to be fetched, and {free / 1e9:.1f} GB are free in {cache}: set HF_HUB_CACHE"
        )
    return free


def pull(
    names: Iterable[HubName], settings: Settings, tell: Callable[[str], None] = lambda line: None
) -> Iterator[tuple[HubName, str]]:
    """Fetch each, one after another; yields it with what went wrong, if anything. A part of a file is gone on with."""
    for name in names:
        tell(str(name))
        try:
            fetch(name, settings, to_load=False)
            yield name, ""
        except BadModel as error:
            yield name, str(error)


def _look(name: HubName, settings: Settings) -> Package:
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(name.repo, revision=name.revision, files_metadata=True)
        wanted = set(wanted_of(name, info.siblings, patterns_of(settings)))
        if info.gated:
            HfApi().auth_check(name.repo)
    except BadModel as error:
        return Package(str(name), refused=str(error))
    except Exception as error:  # of the client, about the hub
        return Package(str(name), refused=str(refusal(name, error)))
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or () if each.rfilename in wanted}
    missing = missing_of(name, sizes, info.sha)
    return Package(str(name), sum(sizes.values()), sum(sizes[file] for file in missing), bool(info.gated))
