"""What nobody means to publish: keys, chat models' addresses, paths of this machine. All are replaced, and counted."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KEY, SHORTEST = "[a key was here]", 8  # characters of a secret in the environment
_BEFORE, _PART = r"(?:(?<![\w/.])|(?<=file://))", r"(?:[\\/]{1,2}[\w.+@=-]+)"
_WINDOWS = r"[A-Za-z]:\\{1,2}(?:Users\\{1,2}[^\\/:*?\"<>|\n]+|[\w.+@=-]+)"
_HOMES = (
    rf"(?:/(?:home|Users)/[\w.-]+|/root(?![\w.-])"
    rf"|/(?:mnt|media|scratch|nfs|Volumes)(?=/)|{_WINDOWS}){_PART}*"
)
_HOME = re.compile(r"(?:/(?:home|Users)/[\w.-]+|/root|[A-Za-z]:\\{1,2}Users\\{1,2}[^\\]+)[\\/]*")
_KEYS = re.compile(
    r"\b(?:sk-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|gsk_\w{20,}|xai-[\w-]{20,}|r8_\w{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+"
    r"|AKIA[A-Z0-9]{16}|AIza[\w-]{30,}|xox[abprs]-[\w-]{10,})|(?<=[Bb]earer )[\w.~+/-]{16,}=*"
    r"|(?<=://)[^/\s@\"'<>]+(?=@)"
)
_NAMED = re.compile(
    r"""((?:api[-_]?key|access[-_]?key|(?:client|api|app)[-_]secret|passw(?:or)?d)["']?\s*[=:]\s*["']?"""
    r"|[?&](?:key|token)=)[\w.~+/-]{8,}=*", re.I,
)  # fmt: skip
_ADDRESS = re.compile(  # among a chat model's options
    r"([?&])(?:(?:base_url|key_env|key_file)=[^&\s\"'`)\]}]+(?:&|(?![^\s\"'`)\]}])))+"
)
_SECRET = re.compile(r"(?:^|_)(?:API)?(?:KEYS?|TOKEN|SECRET|PASS(?:WORD|WD)?|PAT|CREDENTIALS?)$", re.I)


class Scrubber:
    """Replaces in texts, however deep they lie in a value. `removed`: how many keys and paths it met.

    `roots`: folders of this machine beside the usual ones.
    """

    def __init__(self, roots: Iterable[Path | str] = ()) -> None:
        usual = (Path.home(), Path.cwd(), tempfile.gettempdir(), sys.prefix)
        known = {os.path.abspath(os.path.expanduser(root)) for root in (*usual, *roots)}
        known |= {os.path.realpath(root) for root in known}
        own = sorted((root for root in known if root.strip("/\\")), key=len, reverse=True)
        heads = "|".join(re.escape(root) for root in own)
        self._paths = re.compile(rf"{_BEFORE}(?:(?:{heads})(?![\w.-]){_PART}*|{_HOMES})")
        secrets = {value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= SHORTEST}
        self._secrets = re.compile("|".join(map(re.escape, sorted(secrets, key=len, reverse=True))) or r"(?!)")
        self.removed: Counter[str] = Counter()

    def clean(self, value: Any) -> Any:
        """The same without them."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self.clean(key): self.clean(each) for key, each in value.items()}
        return [self.clean(each) for each in value] if isinstance(value, list | tuple) else value

    @property
    def told(self) -> str:
        """What was replaced, in a line; empty if nothing was."""
        return ", ".join(f"{kind}: {count}" for kind, count in sorted(self.removed.items()) if count)

    def _text(self, text: str) -> str:
        text, count = _ADDRESS.subn(lambda found: found[1] if found[0].endswith("&") else "", text)
        self.removed["addresses of chat models"] += count
        for pattern in (self._secrets, _KEYS):
            text, count = pattern.subn(KEY, text)
            self.removed["keys"] += count
        text, count = _NAMED.subn(rf"\g<1>{KEY}", text)
        self.removed["keys"] += count
        if os.path.isabs(text) and text.count(os.sep) > 1 and os.path.exists(text):
            self.removed["local paths"] += 1
            return _last(text)
        text, count = self._paths.subn(lambda found: _last(found[0]), text)
        self.removed["local paths"] += count
        return text


def _last(path: str) -> str:
    if _HOME.fullmatch(path):  # whose name is somebody's
        return "…"
    return "…/" + re.split(r"[\\/]", path.rstrip("\\/"))[-1]
