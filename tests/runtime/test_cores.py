"""How many cores are used: what the environment says, else affinity and cgroup quotas of both versions."""

from __future__ import annotations

import pytest

import eventlab as el
from eventlab.errors import EventlabError
from eventlab.runtime import cores


@pytest.fixture
def groups(tmp_path):
    """A function that writes control groups' files, and gives how many cores they leave of eight."""

    def usable(groups="", **files):
        of_process = tmp_path / "groups"
        of_process.write_text(groups)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cores.usable({}, 8, cgroups=tmp_path / "cgroup", of_process=of_process)

    return usable


def test_without_quotas_affinity_counts(groups):
    assert groups() == 8
    assert groups("0::/job\n", job__cpu_DOT_max="max 100000") == 8


@pytest.mark.parametrize(("quota", "expected"), [(100_000, 1), (150_000, 2), (10_000, 1), (400_000, 4), (9_900_000, 8)])
def test_a_quota_of_version_2_is_rounded_up(groups, quota, expected):
    assert groups("0::/job/step\n", job__step__cpu_DOT_max=f"{quota} 100000\n") == expected


def test_the_smallest_quota_of_the_groups_around_counts(groups):
    files = {"job__step__cpu_DOT_max": "500000 100000", "job__cpu_DOT_max": "300000 100000"}
    assert groups("0::/job/step\n", **files) == 3
    assert groups("0::/job/step\n", cpu_DOT_max="200000 100000", **files) == 2


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_a_quota_of_version_1(groups, mount):
    lines = "5:memory:/job\n3:cpu,cpuacct:/job\n0::/\n"
    files = {f"{mount}__job__cpu_DOT_cfs_quota_us": "250000", f"{mount}__job__cpu_DOT_cfs_period_us": "100000"}
    assert groups(lines, **files) == 3
    assert groups(lines, **{**files, f"{mount}__job__cpu_DOT_cfs_quota_us": "-1"}) == 8


def test_in_a_container_the_mount_is_the_group(groups):
    files = {"cpu__cpu_DOT_cfs_quota_us": "100000", "cpu__cpu_DOT_cfs_period_us": "100000"}
    assert groups("1:cpu:/docker/abc\n", **files) == 1


def test_the_variable_decides():
    assert cores.usable({cores.VARIABLE: " 3 "}, 8) == 3
    assert cores.usable({cores.VARIABLE: ""}, 1) == 1


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "2 3", "²"])
def test_a_variable_that_is_no_number_of_cores_is_refused(text):
    with pytest.raises(EventlabError, match="EVENTLAB_CORES is not a number of cores"):
        cores.usable({cores.VARIABLE: text}, 8)


def test_threads_are_as_many_as_cores_by_default(monkeypatch):
    monkeypatch.setattr(cores, "count", lambda: 5)
    assert el.executors.Threads().parts == 5
