"""The README's picture, from a real run: `auditor evaluate --budget 5 --json | python docs/picture.py`."""

import io
import sys
from importlib import import_module
from pathlib import Path

from rich.terminal_theme import MONOKAI

from auditor.cli.shared import out
from auditor.records.results import RunResult

out.record, out.file, out.width = True, io.StringIO(), 92
import_module("auditor.cli.evaluate").show(RunResult.model_validate_json(sys.stdin.read()))
picture = Path(__file__).parent / "evaluate.svg"
picture.write_text(out.export_svg(title="auditor evaluate --budget 5", theme=MONOKAI))
print(picture)
