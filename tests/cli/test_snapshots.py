"""`eventlab snapshots compare`: words that mean policies and workloads, a table or one JSON document, no code run."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.cli import policies
from eventlab.errors import EventlabError, SnapshotError
from eventlab.snapshots import CostOptimal, Every, EveryTime, Exponential, Keep, MaxGap, OnRead, SlowerThan
from eventlab.snapshots.placement.workloads import Drift, HotSpots, Uniform, Zipf
from eventlab.snapshots.placement.workloads import Exponential as Recent

MARKET = "market/BTCUSDT"


@pytest.fixture
def compare(cli, lab_dir):
    def run(*words, path=lab_dir):
        return cli("snapshots", "compare", path, "--reducer", "Trades", "--reads", 8, *words)

    return run


TWO = ("--policy", "Every(100)", "--policy", "Every(50) & Keep(3)", "--workload", "uniform")


def test_a_table_and_a_verdict(compare):
    done = compare(*TWO, "--workload", "zipf", "--aggregate", MARKET)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["policy", "workload", "seed", "snapshots"]
    assert sum(line.startswith("Every(n=100) ") for line in lines) == 2
    assert any(line.startswith("Uniform(): Every(n=") and "no adaptive placement can help" in line for line in lines)


def test_one_json_document(compare, lab_dir):
    done = compare(*TWO, "--seed", 1, "--seed", 2, "--budget", 1_000, "--budget", 100_000, "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["reducer"], document["aggregate_id"]) == ("Trades", MARKET)
    with el.open(lab_dir, read_only=True) as lab:
        assert document["version"] == lab.state(el.Trades, MARKET).version
        assert not lab.snapshots.table().height
    assert len(document["trials"]) == 8
    assert {(row["seed"], row["budget"]) for row in document["trials"]} == {
        (s, b) for s in (1, 2) for b in (1_000, 100_000)
    }
    assert all(row["bytes"] <= row["budget"] for row in document["trials"])
    assert len(document["verdict"]) == 2


def test_a_name_keeps_the_results_in_the_lab(compare, lab_dir):
    first = json.loads(compare(*TWO, "--name", "mine", "--json").stdout)
    with el.open(lab_dir, read_only=True) as lab:
        stop = lab.store.stop_position
        assert el.experiments.results(lab, "mine").frame.height == 2
    assert json.loads(compare(*TWO, "--name", "mine", "--json").stdout) == first
    with el.open(lab_dir, read_only=True) as lab:
        assert lab.store.stop_position == stop


def test_a_lab_that_is_not_there_is_not_made(compare, tmp_path):
    for words in ((), ("--name", "x")):
        done = compare(*TWO, *words, path=tmp_path / "nothing")
        assert done.exit_code == 1
        assert "error:" in done.stderr
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--policy", "Every(0)", "--workload", "uniform"), "Every takes a positive number"),
        (("--policy", "Every(100", "--workload", "uniform"), "not a valid policy"),
        (("--policy", "Every(9)", "--workload", "moon"), "unknown name moon"),
        (("--policy", "Keep(3)", "--workload", "uniform"), "never makes a snapshot"),
        (("--policy", "Every(9)", "--policy", "every(9)", "--workload", "uniform"), "duplicate policy"),
        ((*TWO, "--budget", "-5"), "a budget in bytes must be an integer"),
        ((*TWO, "--aggregate", "market/none"), "no event was ever appended"),
        ((*TWO, "--seed", "-1"), "a seed must be an integer"),
    ],
    ids=str,
)
def test_invalid_arguments_are_reported_on_stderr(compare, words, message):
    done = compare(*words)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not done.stdout


def test_policies_and_workloads_are_needed(compare):
    assert compare("--workload", "uniform").exit_code == 2
    assert compare("--policy", "Every(9)").exit_code == 2


# -- the words


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Every(1000)", Every(1_000)),
        (" every( n = 1_000 ) ", Every(1_000)),
        ("onread", OnRead()),
        ("OnRead()", OnRead()),
        ("Every(1000) & Keep(3)", Every(1_000) & Keep(3)),
        ("(Every(5) | OnRead()) & Keep(last=3)", (Every(5) | OnRead()) & Keep(3)),
        ("Every(5) | OnRead() & Keep(3)", Every(5) | OnRead() & Keep(3)),
        ("Exponential | MaxGap(10)", Exponential() | MaxGap(10)),
        ("SlowerThan('5ms')", SlowerThan("5ms")),
        ('EveryTime("1h")', EveryTime("1h")),
        ("CostOptimal(storage_budget=0.05)", CostOptimal(storage_budget=0.05)),
        ("CostOptimal('2ms', 1000, Zipf(1.5))", CostOptimal("2ms", 1_000, Zipf(1.5))),
        ("CostOptimal(workload=exponential(9))", CostOptimal(workload=Recent(9))),
        ("CostOptimal(workload=None)", CostOptimal()),
    ],
)
def test_a_policy_is_read_as_it_is_written(text, meant):
    assert policies.policy(text) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("uniform", Uniform()), ("Zipf(1.2)", Zipf(1.2)), ("drift(width=0.2)", Drift(0.2)),
        ("Exponential(half_life=50)", Recent(50)), ("HotSpots(count=4, seed=7)", HotSpots(count=4, seed=7)),
    ],
)  # fmt: skip
def test_a_workload_is_read_as_it_is_written(text, meant):
    assert policies.workload(text) == meant


@pytest.mark.parametrize(
    "policy", [Every(7), Every(3) & Keep(2), (Every(3) | OnRead()) & Keep(2), CostOptimal("2ms", 9, Zipf(1.5))]
)
def test_what_a_policy_looks_like_can_be_written(policy):
    assert policies.policy(repr(policy)) == policy


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "Every()()", "Every(1, 2)", "Every(m=1)", "Every(-1)", "Every(True)", "Every('x')", "Every(1) + 1",
        "Every(1) | 1", "1", "'Every(1)'", "Every(1), Every(2)", "Every(*[1])", "Every(**{'n': 1})", "Every(n=1)(2)",
        "Every(1 + 1)", "Every(-'x')", "Every(f'{1}')", "Every([1])", "lambda: 0", "[Every(1)]", "Every(1) if 1 else 2",
        "__import__('os').system('true')", "Every.n", "el.Every(1)", "Every(print(1))", "Uniform()",
        "Every(1) and Keep(3)",
        "Every(9j)", "Every(b'1')", "Every(...)", "Every(1) & Uniform()", "SlowerThan('never')", "Every\x00(1)",
        "Every(1e999)",
        "(" * 400 + "Every(1)" + ")" * 400, " | ".join(["Every(1)"] * 90), "Every(" + "9" * 2_000 + ")",
        "-" * 900 + "1",
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_other_text_is_refused_and_never_run(text):
    with pytest.raises(EventlabError):
        policies.policy(text)


@pytest.mark.parametrize("text", ["Every(1)", "uniform | zipf", "zipf(", "Zipf(0)", "", "uniform & uniform"])
def test_other_text_is_not_a_workload(text):
    with pytest.raises(SnapshotError):
        policies.workload(text)


@given(st.text(max_size=40) | st.text("Evry(1)&|Kep , =n'.", max_size=40))
def test_any_text_is_a_policy_or_an_error_in_words(text):
    try:
        policies.policy(text)
    except EventlabError as error:
        assert str(error)
