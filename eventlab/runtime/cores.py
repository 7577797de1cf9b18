"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from eventlab.errors import EventlabError

VARIABLE = "EVENTLAB_CORES"
"""The environment variable that says how many cores to use."""

_CGROUPS, _OF_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@cache
def count() -> int:
    """The cores that this process may use, as they were when it was first asked.

    Raises
    ------
    EventlabError
    """
    return usable(os.environ, _affinity())


def usable(
    environ: Mapping[str, str], affinity: int, *, cgroups: Path = _CGROUPS, of_process: Path = _OF_PROCESS
) -> int:
    """EVENTLAB_CORES, else the smaller of CPU affinity and cgroup quota, rounded up, at least 1.

    Parameters
    ----------
    environ : mapping of str to str
    affinity : int
        Cores that the process may be scheduled on.
    cgroups, of_process : Path
        Where control groups are mounted, and the file that says which ones the process is in.

    Raises
    ------
    EventlabError
        EVENTLAB_CORES is not a whole number of at least 1.
    """
    text = environ.get(VARIABLE, "").strip()
    if text:
        if not (text.isascii() and text.isdigit() and int(text)):
            raise EventlabError(f"{VARIABLE} is not a number of cores", got=text, expected="a whole number, 1 or more")
        return int(text)
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(cgroups, of_process))]))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(cgroups: Path, of_process: Path) -> Iterator[float]:
    """Cores' worth of time that control groups of the process, and the groups around them, grant: both versions."""
    for line in _read(of_process).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            for folder in _up(cgroups, group):
                yield from _quota(*_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                for folder in _up(cgroups / mount, group):
                    yield from _quota(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _quota(*parts: str) -> Iterator[float]:
    """A quota in cores from the texts of quota and period; nothing where there is none."""
    try:
        quota, period = map(int, parts)
    except ValueError:  # "max", or no such file
        return
    if quota > 0 and period > 0:
        yield quota / period


def _up(mount: Path, group: str) -> Iterator[Path]:
    """A group's folder and those around it. In a container the mount itself may be the group's."""
    folder = mount / group.strip("/")
    yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(mount)))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
