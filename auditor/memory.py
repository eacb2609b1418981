"""What this process may use of the machine: a container has its own limits of memory and of processors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def available_memory(root: Path = ROOT) -> int:
    """Bytes: what the machine has left, or what the strictest of the cgroups above this process, or its own limit
    (`ulimit -v`), leaves.
    """
    import psutil  # not for `auditor --help`

    left = [int(psutil.virtual_memory().available), *_unmapped()]
    for folder in _cgroups(root, ""):
        left += _left(folder, "memory.max", "memory.current", "inactive_file")
    for folder in _cgroups(root, "memory"):
        left += _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return max(0, min(left))


def usable_cpus(root: Path = ROOT) -> int:
    """Processors that this process may keep busy, one at least: what it may run on, and its cgroups' share of time."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for folder in _cgroups(root, ""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        count = min(count, _share(quota, period))
    for folder in _cgroups(root, "cpu"):
        count = min(count, _share(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")))
    return max(1, int(count))


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process' cgroup and of all above it; version 2 has no name for its one controller."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, own = line.split(":", 2)
        if controller in names.split(","):
            mounted = root / "sys/fs/cgroup"
            top = mounted / controller if controller else mounted
            if controller and not top.exists():
                top = mounted / names
            # Within a container the path may be the host's: what is mounted there is the container's own.
            folder = top / own.strip("/")
            while folder != top:
                yield folder
                folder = folder.parent
            yield top


def _unmapped() -> list[int]:
    """What this process may still map into its memory, if that is limited."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return []
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    import psutil

    return [] if limit == resource.RLIM_INFINITY else [limit - int(psutil.Process().memory_info().vms)]


def _left(folder: Path, limit: str, used: str, cached: str) -> list[int]:
    """What a cgroup leaves of its limit, if it has one; pages of files that can be dropped are not in use."""
    bound, now = _read(folder / limit), _read(folder / used)
    if not bound.isdigit() or not now.isdigit():
        return []
    droppable = [
        line.split()[1] for line in _read(folder / "memory.stat").splitlines() if line.startswith(f"{cached} ")
    ]
    return [int(bound) - max(0, int(now) - sum(map(int, droppable)))]


def _share(quota: str, period: str) -> float:
    """Processors' worth of time; infinite without a limit."""
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else float("inf")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
