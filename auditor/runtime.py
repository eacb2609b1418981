"""Process-wide settings that make CPU inference fast; called by the command line before torch loads."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from auditor.memory import usable_cpus

_interrupted = threading.Event()

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc malloc.h


def tune_process() -> None:
    """Keep freed activations in the heap and let OpenMP threads spin only briefly.

    glibc hands every block over 128 KiB back to the kernel, so that each activation is paged in anew; and what one
    thread freed is not there for another, unless all share an arena: a third less memory for four organisms. Two
    spinning OpenMP threads on a busy machine were seen to take ten times as long (docs: method 11), but threads
    that sleep at once cost up to half of the speed of small matrix products; a thousand spins avoid both. The
    policy must say "active" all the same: otherwise libgomp spins less once two Python threads use torch.

    The garbage collector looks at young objects after 20,000 instead of 700: it took a second of the four that
    importing and reading 10,000 records take, and found nothing.
    """
    gc.set_threshold(20_000)
    if (share := usable_cpus()) < (os.cpu_count() or 1):  # a container's share of time is nothing that OpenMP knows of
        os.environ.setdefault("OMP_NUM_THREADS", str(share))
    os.environ.setdefault("OMP_WAIT_POLICY", "active")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
            libc.mallopt(_M_ARENA_MAX, 1)


def remember_interrupts() -> None:
    """Let a Ctrl-C be noticed even if a library that is being imported or loaded swallows its KeyboardInterrupt."""

    def interrupt(_number: int, _frame: object) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        _interrupted.clear()
        signal.signal(signal.SIGINT, interrupt)


def heed_interrupts() -> None:
    """Raises KeyboardInterrupt if there was one."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


LIBRARIES = ("transformers", "peft", "huggingface_hub", "nnsight", "httpx", "accelerate", "sentence_transformers")
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}


class _ToStderr(logging.Handler):
    """A line for each, on whatever is standard error then."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"warning: {record.getMessage()}\n")


def quiet_libraries() -> None:
    """No bars, advice and warnings on stderr from libraries, loaded already or not yet, in any thread.

    Warnings of our own modules and of plugins stay, and so does what libraries log as an error.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    if logging.lastResort is not None:  # what all other loggers without a handler write through
        logging.lastResort.setLevel(logging.ERROR)
        ours = logging.getLogger("auditor")  # whose warnings say what a result rests on
        ours.handlers = ours.handlers or [_ToStderr(logging.WARNING)]
    warnings.showwarning = _show_ours
    _bars(shown=False)


def show_libraries() -> None:
    """The opposite, for a process that was quiet before; what the user's environment says stays."""
    for name, value in QUIET.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.NOTSET)
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.WARNING)
    warnings.showwarning = _show_all
    _bars(shown=True)


_show_all = warnings.showwarning


def _show_ours(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    ours = Path(__file__).parent in Path(filename).parents or any(
        name.startswith("_auditor_plugin") and getattr(module, "__file__", None) == filename
        for name, module in list(sys.modules.items())
    )
    if ours and issubclass(category, UserWarning):  # a FutureWarning at our line is a library's word to us
        _show_all(message, category, filename, lineno, file, line)


def _bars(*, shown: bool) -> None:
    """Bars of libraries that are loaded already, and so do not read the environment any more."""
    if "transformers" in sys.modules:
        from transformers.utils import logging as told

        (told.enable_progress_bar if shown else told.disable_progress_bar)()
        (told.set_verbosity_warning if shown else told.set_verbosity_error)()
