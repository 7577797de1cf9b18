"""How many processor cores this process may use."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from eventlab.errors import EventlabError

VARIABLE = "EVENTLAB_CORES"
"""The environment variable that says how many cores to use."""


@cache
def count() -> int:
    """The cores that this process may use, found out once.

    Raises
    ------
    EventlabError
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return usable(os.environ, affinity)


def usable(
    environ: Mapping[str, str],
    affinity: int,
    *,
    cgroups: Path = Path("/sys/fs/cgroup"),
    of_process: Path = Path("/proc/self/cgroup"),
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
    if not text:
        return max(1, min([affinity, *map(math.ceil, _quotas(cgroups, of_process))]))
    if not (text.isascii() and text.isdigit() and int(text)):
        raise EventlabError(f"{VARIABLE} is not a number of cores", got=text, expected="a whole number, 1 or more")
    return int(text)


def _quotas(cgroups: Path, of_process: Path) -> Iterator[float]:
    """Cores' worth of time that the process's control groups grant, and the groups around them: both versions."""
    for line in _text(of_process).splitlines():
        _, controllers, group = line.split(":", 2)
        mounts = [cgroups / controllers, cgroups / "cpu"] if "cpu" in controllers.split(",") else []
        for mount in mounts if controllers else [cgroups]:
            folder = mount / group.strip("/")  # in a container the mount itself may be the group's
            for place in (folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))):
                version_1 = _text(place / "cpu.cfs_quota_us"), _text(place / "cpu.cfs_period_us")
                with contextlib.suppress(ValueError):  # "max", or no such file
                    quota, period = map(int, _text(place / "cpu.max").split() or version_1)
                    if quota > 0:
                        yield quota / period


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
