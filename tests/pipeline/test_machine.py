from __future__ import annotations

from pathlib import Path

import pytest

from llmrepair.pipeline.machine import free_disk, free_memory

STATUS = "Name:\tpython\nVmRSS:\t    1000 kB\nRssAnon:\t     600 kB\n"
MEMINFO = "MemTotal:  9000 kB\nMemAvailable:    8000 kB\n"
STAT = "anon 5\ninactive_file 4096\nactive_file 1024\n"
KB = 1024


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 8000 kB available, on which this process holds 1000 kB."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text(STATUS)
    (tmp_path / "meminfo").write_text(MEMINFO)
    return tmp_path


def free(machine: Path) -> int | None:
    return free_memory(machine / "self", machine / "meminfo", machine / "cgroup")


def group(machine: Path, path: str, membership: str, **files: object) -> None:
    folder = machine / "cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(STAT)
    (machine / "self" / "cgroup").write_text(membership)


def test_without_limits_it_is_what_is_available_and_what_the_process_holds(machine: Path) -> None:
    assert free(machine) == 9000 * KB


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path / "meminfo", tmp_path) is None


def test_version_2(machine: Path) -> None:
    group(machine, "box/inner", "0::/box/inner\n", memory__max="max", memory__current=3000 * KB)
    assert free(machine) == 9000 * KB
    group(machine, "box", "0::/box/inner\n", memory__max=5000 * KB, memory__current=3000 * KB)
    assert free(machine) == (5000 - 3000 + 5 + 1000) * KB  # what files' copies take is given up


def test_version_1(machine: Path) -> None:
    membership = "9:name=systemd:/\n4:cpu,memory:/box\n0::/\n"
    files = {"memory__limit_in_bytes": 4000 * KB, "memory__usage_in_bytes": 2500 * KB}
    group(machine, "memory/box", membership, **files)
    assert free(machine) == (4000 - 2500 + 5 + 1000) * KB


def test_inside_a_container_only_the_root_of_the_group_is_seen(machine: Path) -> None:
    group(machine, "memory", "4:memory:/docker/abc\n", memory__limit_in_bytes=3000 * KB, memory__usage_in_bytes=0)
    assert free(machine) == (3000 + 5 + 1000) * KB


def test_a_limit_above_what_is_available_changes_nothing(machine: Path) -> None:
    group(machine, "memory", "4:memory:/\n", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=5)
    assert free(machine) == 9000 * KB


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "a" / "b") == pytest.approx(free_disk(tmp_path), rel=0.01)


def test_this_machine() -> None:
    found = free_memory()
    assert found is None or found > 1_000_000
