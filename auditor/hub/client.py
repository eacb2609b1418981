"""Asking the hub to take something: one commit, or a pull request; what it refuses is said in a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from auditor.errors import UsageError
from auditor.models.hub import HubName, causes
from auditor.models.identity import first_line

Kind = Literal["dataset", "model"]
TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True, slots=True)
class Place:
    """A repository as it stands; `exists`: whether there is one. `card`: its README.md, None where it has none."""

    repo: str
    kind: Kind
    exists: bool = False
    private: bool = True
    commit: str | None = None
    files: tuple[str, ...] = ()
    card: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the hub made of it. `url`: of the repository, or of the pull request."""

    commit: str
    url: str


def repository(text: str) -> str:
    """Raises UsageError unless it is a repository's name, and nothing in it."""
    name = HubName.parse(text)
    if name is None or name.folder or name.revision:
        raise UsageError(f"{text}: give a repository of the hub, as ORG/NAME")
    return name.repo


def place_of(repo: str, kind: Kind) -> Place:
    """What the hub has under a name, seen with the user's token. Raises UsageError: no token, no hub."""
    from huggingface_hub import HfApi, errors, get_token, hf_hub_download

    try:
        if get_token() is None:
            raise errors.LocalTokenNotFoundError
        info = HfApi().dataset_info(repo) if kind == "dataset" else HfApi().model_info(repo)
        files = tuple(each.rfilename for each in info.siblings or ())
        card = None
        if "README.md" in files:
            card = Path(hf_hub_download(repo, "README.md", repo_type=kind, revision=info.sha)).read_bytes()
    except errors.GatedRepoError as error:
        raise refusal(error, repo) from error
    except errors.RepositoryNotFoundError:
        return Place(repo, kind)
    except Exception as error:
        raise refusal(error, repo) from error
    return Place(repo, kind, True, bool(info.private), info.sha, files, card)


def demand_new(place: Place) -> None:
    """Raises UsageError unless the user may make a dataset of this name, and would not take it for a model's."""
    from huggingface_hub import HfApi

    space = place.repo.partition("/")[0]
    try:
        who = HfApi().whoami()
    except Exception as error:
        raise refusal(error, place.repo) from error
    own = [who["name"], *(org["name"] for org in who.get("orgs") or ())]
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
    if space not in own and role != "fineGrained":  # such a token may not be told of all
        raise UsageError(f"{place.repo}: you are {own[0]} on the hub, and no member of {space}; you may push to "
                         f"{', '.join(f'{name}/…' for name in own)}")  # fmt: skip
    if place_of(place.repo, "model").exists:
        raise UsageError(
            f"{place.repo} is a model: give the dataset another name, such as {place.repo}-audit; its card is written "
            f"to by `auditor card RUN --push {place.repo}`"
        )


def push_folder(place: Place, folder: Path, files: Iterable[str], gone: Iterable[str], message: str) -> Pushed:
    """All `files` of `folder` in one commit, without those that are `gone`. Makes the dataset where there is none.

    Raises UsageError.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    try:
        if not place.exists:
            HfApi().create_repo(place.repo, repo_type=place.kind, private=place.private, exist_ok=True)
        steps = [CommitOperationAdd(file, folder / file) for file in files]
        drops = [CommitOperationDelete(file) for file in gone]
        done = HfApi().create_commit(place.repo, [*steps, *drops], commit_message=message, repo_type=place.kind)
    except Exception as error:
        raise refusal(error, place.repo) from error
    return Pushed(done.oid, str(done.repo_url))


def push_card(place: Place, card: bytes, message: str, about: str, *, pull: bool) -> Pushed:
    """A README.md in place of the one that was looked at, as a pull request or at once. Raises UsageError."""
    from huggingface_hub import CommitOperationAdd, HfApi

    step = CommitOperationAdd("README.md", card)
    more: Mapping[str, Any] = {"commit_message": message, "commit_description": about, "create_pr": pull}
    try:
        done = HfApi().create_commit(place.repo, [step], parent_commit=place.commit, **more)
    except Exception as error:
        raise refusal(error, place.repo) from error
    return Pushed(done.oid, done.pr_url or str(done.repo_url))


def refusal(error: BaseException, repo: str) -> UsageError:
    """What the hub's answer means, and what to do about it."""
    from huggingface_hub import constants, errors

    reasons = list(causes(error))

    def of(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in reasons if isinstance(cause, kinds)), None)

    if of(errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return UsageError("HF_HUB_OFFLINE is set, so that nothing can be pushed: unset it")
    if of(errors.LocalTokenNotFoundError):
        return UsageError(f"no token of the hub: set HF_TOKEN to one that may write ({TOKENS}), or run `hf auth login`")
    if of(errors.GatedRepoError):
        return UsageError(f"{repo} is gated: accept its licence at {constants.ENDPOINT}/{repo} first")
    if of(UnicodeDecodeError):
        return UsageError(f"{repo}: its README.md is not UTF-8, which the hub does not take: write it anew first")
    if (bad := of(ValueError)) and "Invalid metadata" in str(bad):
        return UsageError(f"{repo}: the hub takes no such card: {' '.join(str(bad).split())[:300]}")
    if isinstance(answer := of(errors.HfHubHTTPError), errors.HfHubHTTPError):
        return UsageError(_meaning(answer, repo))
    told = first_line(reasons[-1])
    return UsageError(f"{constants.ENDPOINT} cannot be reached for {repo} ({told}); see `auditor doctor`")


def _meaning(error: Any, repo: str) -> str:
    status = error.response.status_code
    said = " ".join(str(error.response.headers.get("X-Error-Message") or "").split())[:200]
    why = f" ({said})" if said else ""
    match status:
        case 401:
            return (
                f"the hub does not take the token that it was sent{why}: set HF_TOKEN to one that may write ({TOKENS})"
            )
        case 402 | 403:
            return (
                f"the hub does not let you write to {repo}{why}: the token must be one that may write there ({TOKENS})"
            )
        case 404:
            return f"{repo} is not on the hub, or your token may not see it{why}: check the name"
        case 409 | 412:
            return f"{repo} was changed meanwhile{why}: the same command again looks at it anew"
        case 413:
            return f"{repo}: the hub finds this too large{why}; leave --transcripts out, or push fewer audits"
    return f"the hub answers {status} for {repo}{why}: try again later"
