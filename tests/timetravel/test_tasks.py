"""Work as data: a task goes to another process and its outcome comes back, with the same bits."""

from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import eventlab as el
from eventlab.errors import ReducerError
from eventlab.timetravel.reconstruct import StatesTask
from tests.timetravel.desks import Desk
from tests.timetravel.worlds import SECOND, T0


def run_elsewhere(path, task, outcome):
    """In a process of its own: open the lab, run the task, and send back a pickle of Arrow streams and marks."""
    with el.open(path, read_only=True) as lab:
        found = pickle.loads(task).run(lab.store, lab.snapshots)
        sent = [
            (one.aggregates, stream_of(one.states), stream_of(one.emitted), pickle.dumps(one.marks)) for one in found
        ]
    outcome.send_bytes(pickle.dumps(sent))


def stream_of(batch):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def batch_of(stream):
    return next(iter(pa.ipc.open_stream(stream)))


def elsewhere(path, tasks):
    """The outcomes of tasks, each from a spawned process."""
    context, found = multiprocessing.get_context("spawn"), []
    for task in tasks:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=run_elsewhere, args=(path, pickle.dumps(task), sender))
        process.start()
        sender.close()
        found.append(pickle.loads(receiver.recv_bytes()))
        process.join()
        assert process.exitcode == 0
    return found


@pytest.fixture
def lab(tmp_path):
    with el.open(tmp_path / "lab") as lab:
        for number, name in enumerate(("a", "b", "c", "d")):
            prices = 100.0 + np.arange(50.0) * (number + 1)
            times = [T0 + at * SECOND for at in range(50)]
            lab.append(name, [el.MarketData("S", float(price), 1.0) for price in prices], timestamp=times)
        lab.append("desk", el.PortfolioChange("S", 2.0, 100.0), timestamp=T0)
        lab.seal()
        lab.snapshots.policy = el.snapshots.Every(20)
        lab.snapshots.build(el.Trades)
        lab.append("a", el.MarketData("S", 1.0, 1.0), timestamp=T0 + 60 * SECOND)
        yield lab


def test_a_task_and_its_outcome_go_through_another_process(lab, tmp_path):
    names = ["a", "b", "c", "d"]
    moment = el.AsOf(time=T0 + 45 * SECOND)
    whole = StatesTask.of(lab.store, [el.Trades, el.Ewma(alpha=0.25)], names, moment)
    marked = StatesTask.of(lab.store, [el.Portfolio], ["desk"], moment, mark_with=["a", "b"])
    halves = [replace(whole, aggregates=part) for part in (("a", "b"), ("c", "d"))]
    *sent, sent_marked = elsewhere(tmp_path / "lab", [*halves, marked])
    here = whole.run(lab.store)
    for at, found in enumerate(here):
        parts = [outcome[at] for outcome in sent]
        assert [name for part in parts for name in part[0]] == list(found.aggregates)
        assert pa.Table.from_batches([batch_of(part[1]) for part in parts]).equals(pa.table(found.states))
        assert pa.Table.from_batches([batch_of(part[2]) for part in parts]).equals(pa.table(found.emitted))
        marks = [pickle.loads(part[3]) for part in parts]
        assert type(found.marks).joined(marks) == found.marks
    (portfolio,) = marked.run(lab.store)
    ((_, states, emitted, _),) = sent_marked
    assert batch_of(states).equals(portfolio.states)
    assert batch_of(emitted).equals(portfolio.emitted)


@pytest.mark.parametrize("executor", [el.executors.Serial(), el.executors.Threads(2)])
def test_executors_run_tasks_in_their_order(lab, executor):
    tasks = [StatesTask.of(lab.store, [el.Trades], [name], el.AsOf(version=9)) for name in "abc"]
    found = executor.run(tasks, lab.store, lab.snapshots)
    assert [one.aggregates for (one,) in found] == [("a",), ("b",), ("c",)]
    assert [float(one.states.column("last")[0].as_py()) for (one,) in found] == [108.0, 116.0, 124.0]


def test_a_pickled_reducer_is_the_one_of_its_module():
    assert pickle.loads(pickle.dumps(el.Portfolio)) is el.Portfolio
    faster = pickle.loads(pickle.dumps(el.Ewma(alpha=0.5)))
    assert faster.fingerprint == el.Ewma(alpha=0.5).fingerprint
    assert pickle.loads(pickle.dumps(Desk)) is Desk


def test_a_reducer_that_no_module_has_is_refused():
    @el.reducer
    class Local:
        count: int = 0

        def on_market_data(state, event):
            state.count += 1

    with pytest.raises(ReducerError, match="cannot be imported"):
        pickle.loads(pickle.dumps(Local))


def test_a_reducer_with_other_code_in_its_module_is_refused(monkeypatch):
    sent = pickle.dumps(el.Portfolio)
    monkeypatch.setattr(__import__(el.Portfolio.declaration.__module__, fromlist=["_"]), "Portfolio", el.Trades)
    with pytest.raises(ReducerError, match="other code"):
        pickle.loads(sent)
