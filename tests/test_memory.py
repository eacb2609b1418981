"""Memory: a container's limits count, wherever above the process they are set; what is remembered has a bound."""

import os

import numpy as np
import psutil
import pytest

from auditor.config import Settings
from auditor.memory import available_memory, usable_cpus
from auditor.models.embed import remembering
from auditor.models.size import bytes_as_loaded

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function from files to a root folder that has them; 8 GiB available and 16 processors."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 8192 * MIB}))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)

    def make(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")
        return tmp_path

    return make


V2 = {"proc/self/cgroup": "0::/user/shell"}
V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job/step\n0::/"}


def test_a_limit_of_the_process_itself_counts(machine, monkeypatch):
    resource = pytest.importorskip("resource")
    mapped = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (mapped + 64 * MIB, resource.RLIM_INFINITY))
    assert available_memory(machine({})) <= 64 * MIB


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 8192),
        (V2, 8192),
        ({**V2, "sys/fs/cgroup/user/shell/memory.max": "max", "sys/fs/cgroup/user/shell/memory.current": 5}, 8192),
        ({**V2, "sys/fs/cgroup/user/shell/memory.max": 512 * MIB, "sys/fs/cgroup/user/shell/memory.current": 112 * MIB},
         400),
        ({**V2, "sys/fs/cgroup/user/memory.max": 256 * MIB, "sys/fs/cgroup/user/memory.current": 56 * MIB,
          "sys/fs/cgroup/user/shell/memory.max": "max"}, 200),
        # the host's path, which is not there: the container sees its own cgroup at the top
        ({"proc/self/cgroup": "0::/../../kube/pod", "sys/fs/cgroup/memory.max": 512 * MIB,
          "sys/fs/cgroup/memory.current": 300 * MIB,
          "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {100 * MIB}"}, 312),
        ({**V1, "sys/fs/cgroup/memory/job/memory.limit_in_bytes": 1024 * MIB,
          "sys/fs/cgroup/memory/job/memory.usage_in_bytes": 1000 * MIB,
          "sys/fs/cgroup/memory/job/memory.stat": f"total_inactive_file {500 * MIB}",
          "sys/fs/cgroup/memory/job/step/memory.limit_in_bytes": 1 << 63}, 524),
        ({**V2, "sys/fs/cgroup/memory.max": 100, "sys/fs/cgroup/memory.current": 200}, 0),
    ],
    ids=["none", "no limit", "max", "own", "parent's", "container", "version 1", "used up"],
)  # fmt: skip
def test_the_least_of_what_is_left(machine, files, left):
    assert available_memory(machine(files)) == left * MIB


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 16),
        ({**V2, "sys/fs/cgroup/user/cpu.max": "max 100000"}, 16),
        ({**V2, "sys/fs/cgroup/user/cpu.max": "250000 100000"}, 2),
        ({**V2, "sys/fs/cgroup/user/shell/cpu.max": "10000 100000"}, 1),
        ({**V1, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": -1, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": 100000}, 16),
        ({**V1, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": 400000, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": 100000},
         4),
    ],
)  # fmt: skip
def test_processors_that_may_be_kept_busy(machine, files, count):
    assert usable_cpus(machine(files)) == count


def test_this_machine_has_some():
    assert 0 < available_memory() <= psutil.virtual_memory().total
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


def test_vectors_are_remembered_up_to_a_bound():
    """Each is still right; those used last are not computed again."""
    asked = []

    def encode(texts):
        asked.extend(texts)
        return np.array([[float(text), 1.0] for text in texts], np.float32).reshape(-1, 2)

    embed = remembering(encode, 10 * 400)
    many = [str(number) for number in range(100)]
    assert embed(many + many)[:, 0].tolist() == [*range(100), *range(100)]
    assert len(asked) == 100
    embed(["99", "98"])
    assert len(asked) == 100
    embed(["0"])
    assert len(asked) == 101
    assert embed([]).shape == (0, 2)


def test_packed_numbers_take_the_bytes_that_they_are_stored_in():
    """GPTQ and AWQ pack eight 4-bit weights into an I32."""
    told = bytes_as_loaded([(100, "F16"), (100, "I32"), (10, "I64"), (10, "U8")], Settings(dtype="float32"))
    assert told == 400 + 400 + 80 + 10
