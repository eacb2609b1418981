"""The command line: the only place that prints or exits."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

FAILED, WRONG, INTERRUPTED, NO_READER = 1, 2, 130, 141  # as the shell has it for Ctrl-C and for SIGPIPE


def main() -> None:
    """Entry point of `auditor`. Settings that must precede torch come first."""
    from auditor.runtime import remember_interrupts, tune_process

    tune_process()
    remember_interrupts()
    _write_anything()
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        _leave(NO_READER)
    except KeyboardInterrupt:
        _leave(INTERRUPTED)
    except OSError as error:  # a full disk behind stdout
        _leave(WRONG, f"error: cannot write: {error.strerror or error}\n")
    if code == INTERRUPTED:
        _leave(INTERRUPTED)  # a decoding thread may still hold the models
    sys.exit(code)


def _run() -> int:
    """The command's exit code; what the user can mend is told in one line."""
    from auditor.cli.app import app
    from auditor.cli.shared import err, verbose
    from auditor.errors import AuditorError, UsageError

    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:
            err.print(
                "interrupted; the same command takes it up; in a run `--resume` with the same --name goes on from here"
            )
        return code if isinstance(code, int) else 0
    except UsageError as error:
        return _told(err, str(error))
    except AuditorError as error:  # no fault of the request: it may go well another time
        return _told(err, str(error), FAILED)
    except SystemExit as left:  # how typer ends when nobody reads any more
        if isinstance(left.__context__, OSError):
            raise BrokenPipeError from left
        raise
    except BrokenPipeError:
        raise
    except (OSError, sqlite3.Error) as error:
        if verbose():
            raise
        return _told(err, _reason(error))
    except Exception as error:
        # Typer brings its own copy of click, whose usage errors are not the public click's.
        if not hasattr(error, "format_message"):
            from auditor.models.worker import out_of_memory

            if (lack := out_of_memory(error, "free some, or ask for less")) is None:
                raise
            return _told(err, str(lack), FAILED)
        said = error.format_message().replace("Value error, ", "")  # as it reads what is given with pydantic
        return _told(err, said) if said else 0  # nothing to say: no arguments were given, and help was printed


def _told(err: Console, text: str, code: int = WRONG) -> int:
    from rich.markup import escape

    err.print(f"[red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
    return code


def _reason(error: OSError | sqlite3.Error) -> str:
    """What the machine does not allow, and where."""
    if isinstance(error, sqlite3.Error):
        return f"the run's checkpoints.sqlite cannot be used: {error}"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error or type(error).__name__}"


def _write_anything() -> None:
    """What a stream's encoding does not have is written as an escape; nothing is raised over a letter."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process lives)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(code: int, last_words: str = "") -> NoReturn:
    """End the process now, whatever threads are at work and whoever has stopped to read."""
    with contextlib.suppress(OSError):
        sys.stderr.write(last_words)
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)
