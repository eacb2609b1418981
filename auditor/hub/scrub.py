"""What nobody means to publish: keys, and paths of this machine. Both are replaced, counted, and said."""

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
_HOMES = rf"(?:/home/[\w.-]+|/Users/[\w.-]+|/root(?![\w.-])|[A-Za-z]:\\{{1,2}}Users\\{{1,2}}[\w.-]+){_PART}*"
_KEYS = re.compile(
    r"\b(?:sk-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|AKIA[A-Z0-9]{16}|AIza[\w-]{30,}|xox[abprs]-[\w-]{10,})|(?<=[Bb]earer )[\w.~+/-]{16,}=*"
    r"|(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)"
)
_SECRET = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")


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
        for pattern in (self._secrets, _KEYS):
            text, count = pattern.subn(KEY, text)
            self.removed["keys"] += count
        if os.path.isabs(text) and text.count(os.sep) > 1 and os.path.exists(text):
            self.removed["local paths"] += 1
            return _last(text)
        text, count = self._paths.subn(lambda found: _last(found[0]), text)
        self.removed["local paths"] += count
        return text


def _last(path: str) -> str:
    return "…/" + re.split(r"[\\/]", path.rstrip("\\/"))[-1]
