"""Files that a kill, a full disk or a bad copy left broken: what the same command says then.

For test_cuts.py and campaigns/cuts.py.
"""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

KINDS = ("cut", "cut", "cut", "hole", "empty", "gone")
UNTOLD = {"seconds", "costs", "run"}  # of a result: what differs from run to run


class Campaign:
    """Commands whose right results are known, and the folders that they read."""

    def __init__(self, run, folders, commands):
        """`run`: (exit code, stdout, stderr) of the arguments; `commands`: arguments by name, each printing JSON."""
        self.run, self.folders, self.commands = run, [Path(folder) for folder in folders], commands
        self.kept = [folder.with_name(folder.name + ".kept") for folder in self.folders]
        for folder, kept in zip(self.folders, self.kept, strict=True):
            shutil.copytree(folder, kept)
        self.right = {name: _read(run(*args)[1]) for name, args in commands.items()}
        self.restore()
        self.outcomes = Counter()

    def restore(self):
        """All folders as they were."""
        for folder, kept in zip(self.folders, self.kept, strict=True):
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)

    def files(self):
        return sorted(
            (folder, path) for folder in self.folders for path in folder.rglob("*")
            if path.is_file() and path.name != ".lock"
        )  # fmt: skip

    def strike(self, rng, path, kind):
        """Break one file."""
        content = path.read_bytes()
        at = rng.randrange(max(1, len(content)))
        hole = rng.randint(1, max(1, len(content) // 4))
        broken = {"cut": content[:at], "hole": content[:at] + content[at + hole :], "empty": b""}
        if kind == "gone":
            path.unlink()
        else:
            path.write_bytes(broken[kind])
        return f"{path.relative_to(path.parents[2])}: {kind} at {at} of {len(content)}" + (
            f", {hole} long" if kind == "hole" else ""
        )

    def trial(self, rng, path, kind, name):
        """Break a file, give a command; what went wrong, or nothing."""
        where = self.strike(rng, path, kind)
        code, out, err = self.run(*self.commands[name])
        self.restore()
        if code in (0, 1) and _read(out) == self.right[name]:
            self.outcomes["right"] += 1
            return ""
        named = path.name in err or any(f"{folder.parent.name}/{folder.name}" in err for folder in self.folders)
        if code == 2 and not out and "Traceback" not in err and named:
            self.outcomes["told"] += 1
            return ""
        self.outcomes["wrong"] += 1
        return f"{where}; {name}: exit code {code}, {err.strip()[-300:] or out[:300]}"

    def trials(self, count, seed):
        """`count` trials, every file in its turn; what went wrong in each that did."""
        rng, wrong = random.Random(seed), []
        files = [path for _, path in self.files()]
        for number in range(count):
            names = list(self.commands)
            path, name = files[number % len(files)], names[number // len(files) % len(names)]
            wrong += filter(None, [self.trial(rng, path, rng.choice(KINDS), name)])
        return wrong


def _read(text):
    """A command's JSON without what no two runs share."""
    try:
        return _bare(json.loads(text))
    except ValueError:
        return text


def _bare(value):
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if key not in UNTOLD}
    return [_bare(item) for item in value] if isinstance(value, list) else value
