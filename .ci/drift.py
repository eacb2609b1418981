"""Prints what is installed in another version than requirements.lock says; exit status 1 if anything is."""

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

from packaging.markers import Marker

OURS = {"auditor-adl", "pip", "setuptools"}

lines = re.findall(r"^([\w.-]+)==(\S+)(?: ; (.+))?", Path("requirements.lock").read_text(), re.M)
locked = {name: version for name, version, when in lines if not when or Marker(when).evaluate()}
installed = {re.sub(r"[-_.]+", "-", d.name).lower(): d.version.partition("+")[0] for d in distributions()}
drift = {name: at for name, at in sorted(installed.items()) if name not in OURS and locked.get(name) != at}
for name, version in drift.items():
    print(f"{name}: {version}, locked: {locked.get(name, 'not at all')}")
sys.exit(bool(drift))
