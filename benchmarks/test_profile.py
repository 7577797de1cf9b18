from __future__ import annotations

from benchmarks import profile


def test_every_call_is_timed_by_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "ROUNDS", 1)
    found = profile.profiled(tmp_path / "lab", rows=2_000)
    assert len(found) == 5
    for what, _, seconds in found:
        assert all(seconds[stage] > 0.0 for stage in ("decoding", "rest")), what
    assert profile.table(found).count("\n") == len(found) + 3
