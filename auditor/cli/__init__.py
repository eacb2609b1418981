"""The command line: the only place that prints or exits."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130  # what typer makes of a Ctrl-C


def main() -> None:
    """Entry point of `auditor`. Settings that must precede torch come first."""
    from auditor.runtime import remember_interrupts, tune_process

    tune_process()
    remember_interrupts()
    from rich.console import Console

    from auditor.cli.app import app
    from auditor.errors import AuditorError

    errors = Console(stderr=True, emoji=False)
    try:
        code = app(standalone_mode=False)
    except AuditorError as error:
        errors.print(f"[red]error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except Exception as error:
        # Typer brings its own copy of click, whose usage errors are not the public click's.
        if not hasattr(error, "format_message"):
            raise
        errors.print(f"[red]error:[/] {_plain(error.format_message())}", highlight=False, soft_wrap=True)
        sys.exit(2)
    if code == INTERRUPTED:
        errors.print("interrupted; `--resume` with the same --name goes on from here")
        sys.stdout.flush()
        os._exit(INTERRUPTED)  # a decoding thread may still hold the models
    sys.exit(code if isinstance(code, int) else 0)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
