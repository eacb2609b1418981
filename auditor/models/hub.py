"""Models on the Hugging Face hub: their names, what a repository holds, and a copy of it in the hub's cache."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import escape
from pathlib import Path

from auditor.config import Settings
from auditor.errors import BadModel
from auditor.models.identity import BESIDE, CODE, PICKLES, first_line
from auditor.models.size import bytes_as_loaded, demand_free

_NAME = re.compile(
    r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:/(?P<folder>\w[\w.-]*(?:/\w[\w.-]*)*))?(?:@(?P<revision>[\w./-]+))?"
)


@dataclass(frozen=True, slots=True)
class HubName:
    """`org/name`, `org/name/sub/folder`, and either with `@revision` (a branch, tag or commit) at the end."""

    repo: str
    folder: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """None if `text` cannot be a name on the hub."""
        match = _NAME.fullmatch(text)
        return cls(match["repo"], match["folder"] or "", match["revision"]) if match else None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.repo, self.folder))) + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A folder in the hub's cache, and the commit that it is of."""

    folder: Path
    commit: str


def fetch(name: HubName, settings: Settings, *, to_load: bool = True) -> Fetched:
    """A model's files from the hub, or from its cache where the hub cannot be reached; its code too, if that may run.

    Raises BadModel with what stands in the way: before anything large is fetched, if there are no safetensors, or,
    `to_load` it here, if it would not fit into memory.
    """
    from huggingface_hub import HfApi, snapshot_download

    patterns = patterns_of(settings)
    try:
        info = HfApi().model_info(name.repo, revision=name.revision)
        wanted = wanted_of(name, info.siblings, patterns)
        counted = info.safetensors.parameters if info.safetensors and not name.folder else {}
        if counted and to_load and missing_of(name, wanted, info.sha):
            kinds = ((count, kind) for kind, count in counted.items())
            demand_free(bytes_as_loaded(kinds, settings), str(name), settings)
    except BadModel:
        raise
    except Exception as error:
        return _cached(name, patterns, error)
    try:
        where = Path(snapshot_download(name.repo, revision=name.revision, allow_patterns=[*map(escape, wanted)]))
    except Exception as error:
        raise refusal(name, error) from error
    return Fetched(where / name.folder, where.name)


def patterns_of(settings: Settings) -> tuple[str, ...]:
    """Which files of a model are needed."""
    return (*BESIDE, "*.safetensors", *((CODE,) if settings.trust_remote_code else ()))


def adapter_config(name: HubName) -> Path | None:
    """An adapter's config, fetched alone; None if there is none. Raises BadModel with what stands in the way."""
    return single_file(name, "/".join(filter(None, (name.folder, "adapter_config.json"))))


def single_file(name: HubName, file: str) -> Path | None:
    """One file of the repository; None if there is none. Raises BadModel with what stands in the way."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name.repo, file, revision=name.revision))
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise refusal(name, error) from error
        return None
    except Exception as error:
        raise refusal(name, error) from error


def _cached(name: HubName, patterns: Sequence[str], error: Exception) -> Fetched:
    """What the hub's cache holds, now that the hub itself gave `error`. Raises BadModel if it lacks anything."""
    from huggingface_hub import snapshot_download

    prefix = f"{escape(name.folder)}/" if name.folder else ""
    try:
        where = Path(
            snapshot_download(
                name.repo, revision=name.revision, local_files_only=True,
                allow_patterns=[prefix + pattern for pattern in patterns],
                ignore_patterns=[f"{prefix}*/*", f"{prefix}consolidated*"],
            )
        )  # fmt: skip
    except Exception as local:
        if type(local).__name__ == "IncompleteSnapshotError":  # of newer clients
            why = refusal(name, error)
            raise BadModel(f"the hub's cache holds {name} in part, and the rest is not to be had: {why}") from error
        raise refusal(name, error) from error
    if not (where / name.folder).is_dir():
        raise refusal(name, error) from error
    return Fetched(where / name.folder, where.name)


def missing_of(name: HubName, files: Iterable[str], commit: str | None) -> list[str]:
    """Those files that the hub's cache does not have."""
    from huggingface_hub import try_to_load_from_cache

    return [file for file in files if not isinstance(try_to_load_from_cache(name.repo, file, revision=commit), str)]


def wanted_of(name: HubName, siblings: object, patterns: Sequence[str]) -> list[str]:
    """The files to fetch. Raises BadModel if the repository has no safetensors there."""
    files = [str(each.rfilename) for each in siblings or ()]  # type: ignore[attr-defined]
    prefix = f"{name.folder}/" if name.folder else ""
    here = [file for file in files if file.startswith(prefix) and "/" not in file.removeprefix(prefix)]
    if any(file.endswith(".safetensors") for file in here):
        templates = [file for file in files if fnmatch(file, f"{escape(prefix)}additional_chat_templates/*.jinja")]
        # Mistral's own format, a second copy of all weights
        own = [file for file in here if not Path(file).name.startswith("consolidated")]
        return [file for file in own if any(fnmatch(Path(file).name, p) for p in patterns)] + templates
    where = f"{name.repo}, folder {name.folder}," if name.folder else name.repo
    if name.folder and not any(file.startswith(prefix) for file in files):
        raise BadModel(f"{name.repo} has no folder {name.folder}")
    for suffix, kind in (*((suffix, "pickle weights") for suffix in PICKLES), (".gguf", "GGUF files")):
        if found := [file for file in here if file.endswith(suffix)]:
            why = ", which can run code when loaded" if kind.startswith("pickle") else ""
            raise BadModel(f"{where} holds {kind} only ({found[0]}){why}; convert them to safetensors")
    folders = sorted({str(Path(file).parent) for file in files if file.endswith(".safetensors")})
    hint = f"; they are in {', '.join(f'{name.repo}/{folder}' for folder in folders[:3])}" if folders else ""
    raise BadModel(f"{where} holds no .safetensors file{hint}")


def refusal(name: HubName, error: BaseException) -> BadModel:
    """What the hub's answer means, and what to do about it."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{name.repo}"
    reasons = list(causes(error))

    def of(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in reasons if isinstance(cause, kinds)), None)

    if of(errors.GatedRepoError):
        return BadModel(f"{name.repo} is gated: accept its licence at {page}, and set HF_TOKEN to a token of yours")
    if of(errors.RevisionNotFoundError):
        return BadModel(f"{name.repo} has no revision {name.revision!r}; see {page}/commits")
    if of(errors.DisabledRepoError):
        return BadModel(f"{name.repo} is disabled on the hub; see {page}")
    if of(errors.RepositoryNotFoundError):
        return BadModel(
            f"no folder {name} here, and no model {name.repo} on the hub: check the name (if it is private, HF_TOKEN)"
        )
    if of(errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return BadModel(
            f"no folder {name} here, none in the hub's cache, and HF_HUB_OFFLINE is set; fetch it first, or unset that"
        )
    if isinstance(refused := of(errors.HfHubHTTPError), errors.HfHubHTTPError):
        status = refused.response.status_code
        if status in {401, 403}:
            return BadModel(f"the hub refuses {name} ({status}): check HF_TOKEN, and that it may read {page}")
        return BadModel(f"the hub answers {status} for {name}: try again later, or give a local folder")
    full = of(OSError)
    if isinstance(full, OSError) and full.errno in {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EROFS,
        errno.ENOTDIR,
    }:
        return BadModel(f"{name} cannot be kept in {constants.HF_HUB_CACHE} ({full.strerror}); set HF_HUB_CACHE")
    return BadModel(
        f"no folder {name} here, and {constants.ENDPOINT} does not give it ({first_line(reasons[-1])}); see "
        "`auditor doctor`"
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """It, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
