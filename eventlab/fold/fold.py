"""Runs a reducer over events, compiled or interpreted, with the same bits.

Compiling takes about a second and interpreting about ten microseconds an event. So a reducer is interpreted until the
events that it has seen would have paid for compiling, and compiled from then on. That costs at most about twice as much
as the better choice.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from eventlab.errors import NotCompiled, ReducerError
from eventlab.events.frame import EventTable
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.executors import Executor, Threads, spans
from eventlab.fold.interpreter.loop import interpreted
from eventlab.fold.interpreter.state import StateType
from eventlab.fold.native.cache import find, keep, key_of
from eventlab.fold.native.call import KernelRaised, Native, Types, types_of
from eventlab.fold.result import Folded, concat_batches
from eventlab.fold.run.kernel_call import Run
from eventlab.fold.stops import Stops, empty_table, narrowed

WORTH_LOADING, WORTH_COMPILING = 3_000, 100_000
"""Events that are interpreted before a kept kernel is loaded, and before one is compiled: interpreting them takes about
as long."""


@dataclass
class _Known:
    """What this process knows of a reducer's code: its interpreted form, the events it has interpreted, its kernels."""

    types: StateType
    interpreted: int = 0
    kernels: dict[Types, Native] = field(default_factory=dict)
    not_kept: set[Types] = field(default_factory=set)
    refused: bool = False
    """By the compiler."""

    def kernel(self, reducer: Reducer, types: Types, work: int, interpret: bool | None) -> Native | None:  # noqa: FBT001
        """The kernel for a fold of `work` more events; None to interpret them."""
        native = self.kernels.get(types)
        if native is not None:
            return native
        total = self.interpreted + work
        key = key_of([reducer.code_key], types)
        if types not in self.not_kept:
            native = find(key)
            if native is None:
                self.not_kept.add(types)
        if native is None and (interpret is not None or (total >= WORTH_COMPILING and not self.refused)):
            from eventlab.fold.compiler.kernel import compile_kernel

            try:
                native, code = compile_kernel(reducer, types)
            except ReducerError as error:
                if interpret is not None:
                    raise
                self.refused = True
                warnings.warn(NotCompiled(f"{error} Its folds go on as plain Python, slowly."), stacklevel=2)
                return None
            if code is not None:
                keep(key, code)
        if native is not None:
            self.kernels[types] = native
        return native


_known: dict[str, _Known] = {}


def _known_of(reducer: Reducer) -> _Known:
    known = _known.get(reducer.code_key)
    return _known.setdefault(reducer.code_key, _Known(StateType(reducer))) if known is None else known


def fold(
    reducer: Reducer,
    aggregates: Sequence[str],
    states: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    stops: Stops,
    *,
    emit: bool = False,
    interpret: bool | None = None,
    executor: Executor | None = None,
) -> Folded:
    """Fold events into states.

    Parameters
    ----------
    reducer : Reducer
    aggregates : sequence of str
        Ids, one a state, named in errors.
    states : pyarrow.RecordBatch
        Portable states to go on from, one row an aggregate.
    tables : mapping of str to EventTable
        A table for every event type the reducer handles.
    stops : Stops
    emit : bool
        Also give the record and the properties at each stop.
    interpret : bool, optional
        True runs the handlers as Python, False compiles at once, None does what is quicker.
    executor : Executor, optional
        All cores by default.

    Raises
    ------
    FoldError
        A handler raised: names the aggregate and version.
    ReducerError
        With ``interpret=False``, a handler cannot be compiled.

    Warns
    -----
    NotCompiled
        A handler cannot be compiled and `interpret` is None: the fold goes on interpreted.
    """
    known, executor = _known_of(reducer), executor or Threads()
    tables, stops = narrowed(tables, stops)
    work = stops.events
    total = int(work.sum())
    few = interpret is None and not known.kernels and known.interpreted + total < WORTH_LOADING
    if few:
        known.interpreted += total
    elif not interpret:
        made = Run(reducer, states, tables, stops, emit)
        native = known.kernel(reducer, types_of(made.arguments(0, 0)), total, interpret)
        if native is not None:
            # Where a kernel raises, the fold starts over interpreted: that says which event failed, or, where the
            # kernel only ran out of planned space, gives the answer.
            with contextlib.suppress(KernelRaised):
                return made.run(native, spans(work, executor), executor)
        else:
            known.interpreted += total
    return interpreted(reducer, known.types, aggregates, states, tables, stops, emit)


def expect(reducer: Reducer, events: int) -> None:
    """Announce events that will be folded in pieces, so that compiling is weighed as for one fold of all of them."""
    known = _known_of(reducer)
    known.interpreted = max(known.interpreted, events)


def runs_interpreted(reducer: Reducer, interpret: bool | None) -> bool:  # noqa: FBT001
    """Whether a fold of a few events would run as plain Python now."""
    return bool(interpret) or (interpret is None and not _known_of(reducer).kernels)


def fold_through(
    reducer: Reducer,
    aggregate: str,
    state: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    stops: Stops,
    *,
    emit: bool = False,
    interpret: bool | None = None,
) -> Folded:
    """Fold the events of one aggregate as `fold` does. The result has the states at each stop, a row a stop.

    Raises
    ------
    FoldError, ReducerError
    """
    known, (count,) = _known_of(reducer), np.diff(stops.offsets)
    tables, stops = narrowed(tables, stops)
    total = int(stops.events[0])
    compiles = interpret is False or known.kernels or known.interpreted + total >= WORTH_LOADING
    if count and compiles and not interpret:
        made = Run(reducer, state, tables, stops, emit)
        native = known.kernel(reducer, types_of(made.arguments(0, 0)), total, interpret)
        if native is not None:
            with contextlib.suppress(KernelRaised):
                return made.through(native)
    found = []
    for stop in stops.one_by_one():
        found.append(fold(reducer, [aggregate], state, tables, stop, emit=emit, interpret=interpret))
        state = found[-1].states
    states = concat_batches([state.slice(0, 0), *(one.states for one in found)])
    emitted = [one.emitted for one in found if one.emitted is not None]
    return Folded(states, concat_batches(emitted) if emitted else None)


def derive(
    reducer: Reducer, aggregates: Sequence[str], states: pa.RecordBatch, *, interpret: bool | None = None
) -> pa.RecordBatch:
    """Records and properties of portable states, one row each."""
    tables = {name: empty_table(reducer, name, states.num_rows) for name in reducer.handlers}
    stops = Stops.without_events(reducer, states.num_rows)
    folded = fold(reducer, aggregates, states, tables, stops, emit=True, interpret=interpret)
    return folded.emitted if folded.emitted is not None else states


def warm(reducer: Reducer) -> None:
    """Compile and keep the kernels of a reducer's folds, with its routed handlers and without.

    Raises
    ------
    ReducerError
        A handler cannot be compiled.
    """
    for one in (reducer, reducer.with_routed) if reducer.routed else (reducer,):
        derive(one, ["none"], one.layout.initial(1), interpret=False)
