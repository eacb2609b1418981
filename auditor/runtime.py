"""Process-wide settings that make CPU inference fast; called by the command line before torch loads."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

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
    """
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


def quiet_libraries() -> None:
    """No bars and no advice on stderr from the libraries that load models: our own progress says enough."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
