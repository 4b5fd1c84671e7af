"""What this machine has left for a stage: memory, as far as the system and a container's limits allow, and disk."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

_PROCESS = Path("/proc/self")
_CGROUPS = Path("/sys/fs/cgroup")


def free_memory(process: Path = _PROCESS, meminfo: Path = Path("/proc/meminfo"), cgroups: Path = _CGROUPS) -> int | None:
    """Bytes that this process could come to hold, those that it holds already included; None where the system does not tell."""
    if not meminfo.exists():
        return None
    free = min([_fields(meminfo)["MemAvailable:"] * 1024, *_left_in_cgroups(process / "cgroup", cgroups)])
    return free + resident_memory(process)


def resident_memory(process: Path = _PROCESS) -> int:
    """Bytes that this process holds; 0 where the system does not tell."""
    return _status(process, "VmRSS:")


def private_memory(process: Path = _PROCESS) -> int:
    """Bytes that this process holds and shares with no other, as it does the libraries' code."""
    return _status(process, "RssAnon:")


def clear_gpu() -> None:
    """Gives back what the last stage took of a GPU: its models may refer to themselves, and torch keeps what was freed."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def free_disk(folder: Path) -> int:
    """Bytes that can be written into a folder, which need not be there yet."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _left_in_cgroups(membership: Path, root: Path) -> Iterator[int]:
    """What each limit on the way from this process's control group up to the root leaves, for versions 1 and 2."""
    if not membership.exists():
        return
    for line in membership.read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield from _left_on_the_way(root, path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            yield from _left_on_the_way(root / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")


def _left_on_the_way(root: Path, path: str, limit_file: str, usage_file: str) -> Iterator[int]:
    group = root / path.strip("/")
    for folder in (group, *group.parents):
        if (folder / limit_file).exists() and (limit := (folder / limit_file).read_text().strip()) != "max":
            yield int(limit) - int((folder / usage_file).read_text()) + _file_cache(folder / "memory.stat")
        if folder == root:
            return


def _file_cache(stat: Path) -> int:
    """Copies of files, which are given up when memory is needed."""
    values = _fields(stat)
    return sum(values.get(f"total_{name}", values.get(name, 0)) for name in ("active_file", "inactive_file"))


def _status(process: Path, name: str) -> int:
    return _fields(process / "status").get(name, 0) * 1024 if sys.platform == "linux" else 0


def _fields(file: Path) -> dict[str, int]:
    """Files of lines `name number [kB]`; other lines are left out."""
    pairs = (line.split()[:2] for line in file.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) > 1 and pair[1].isdigit()}
