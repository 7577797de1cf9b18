"""Keyed tables and queues in kernels: rows in flat arrays, linked in order of first touch.

A table owns the rows ``base .. base + capacity`` of an array that all aggregates share. `slots` maps a key's code to
its row; it is filled when the fold enters an aggregate and cleared when it leaves. Rows never move, and a released row
is reused only after the event, so that a row which a handler holds stays valid. Overloads carry no annotations, because
Numba compares their signatures with their implementations'.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import RefType, iternext_impl, lower_builtin
from numba.extending import overload, overload_method, register_model
from numba.np import numpy_support

from eventlab.fold.compiler import state_view
from eventlab.fold.compiler.state_view import RowView, TextType, as_text, code_of, make, record_at, text_type
from eventlab.fold.declare.layout import Keyed, Queue
from eventlab.fold.native.constants import CHANGES, FREE, HEAD, INDEX, INDEX_DTYPE, LIVE, NONE, PENDING, TAIL, USED

_bytes = types.CPointer(types.uint8)
_int32s = types.CPointer(types.int32)
_int64s = types.CPointer(types.int64)
_SPACE = (("meta", _int64s), ("base", types.int64), ("capacity", types.int64))

_link_at = record_at(numpy_support.from_dtype(np.dtype([("_key", "i4"), ("_next", "i4"), ("_previous", "i4")])))
_next_at = record_at(numpy_support.from_dtype(np.dtype([("_next", "i4")])))


def _describe(table: Keyed) -> str:
    return f"{table.name}({','.join(f'{column.name}={column.kind}' for column in table.columns)})"


@state_view.viewed
class KeyedView(state_view.TableView, types.IterableType):
    """`Keyed` as a handler sees it."""

    members = (("rows", _bytes), ("slots", _int32s), *_SPACE)
    count_word = LIVE

    def __init__(self, table: Keyed) -> None:
        self.row = RowView(_describe(table), table.row_dtype, table.columns)
        super().__init__(_describe(table))

    @property
    def iterator_type(self) -> KeyIterator:
        return KeyIterator(self)


class KeyIterator(types.SimpleIteratorType):
    """Iterates over a table's keys in order of first touch."""

    def __init__(self, table: KeyedView) -> None:
        self.table = table
        super().__init__(f"iter({table.name})", text_type)


@register_model(KeyIterator)
class _KeyIteratorModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: KeyIterator) -> None:
        slot = types.EphemeralPointer(types.int64)
        members = [("rows", _bytes), ("base", types.int64), ("next", slot), ("meta", _int64s), ("changes", types.int64)]
        super().__init__(dmm, fe_type, members)


@njit
def _take(rows, base, meta, capacity, stride, next_at):
    """A zeroed row: a free one, or the next that was never used."""
    slot = meta[FREE]
    if slot != NONE:
        meta[FREE] = np.int64(next_at(rows, (base + slot) * stride)._next)
    else:
        slot = meta[USED]
        if slot == capacity:
            raise MemoryError("a table needs more rows than were planned for its aggregate")
        meta[USED] = slot + 1
    state_view.clear_bytes(rows, (base + slot) * stride, stride)
    return slot


@njit
def _touch(table, code, stride):
    if code < 0:
        raise KeyError("missing text cannot be a key")
    slot = np.int64(table._slots[code])
    if slot != NONE:
        return slot
    rows, base, meta = table._rows, table._base, table._meta
    slot = _take(rows, base, meta, table._capacity, stride, _link_at)
    link = _link_at(rows, (base + slot) * stride)
    link._key = code
    link._next = NONE
    link._previous = meta[TAIL]
    if meta[TAIL] == NONE:
        meta[HEAD] = slot
    else:
        _link_at(rows, (base + meta[TAIL]) * stride)._next = slot
    meta[TAIL] = slot
    meta[LIVE] += 1
    meta[CHANGES] += 1
    table._slots[code] = slot
    return slot


@njit
def _remove(table, code, stride):
    if code < 0 or table._slots[code] == NONE:
        raise KeyError("no row has this key")
    slot = np.int64(table._slots[code])
    rows, base, meta = table._rows, table._base, table._meta
    link = _link_at(rows, (base + slot) * stride)
    if link._previous == NONE:
        meta[HEAD] = link._next
    else:
        _link_at(rows, (base + link._previous) * stride)._next = link._next
    if link._next == NONE:
        meta[TAIL] = link._previous
    else:
        _link_at(rows, (base + link._next) * stride)._previous = link._previous
    link._next = meta[PENDING]
    meta[PENDING] = slot
    meta[LIVE] -= 1
    meta[CHANGES] += 1
    table._slots[code] = NONE


@njit
def _reuse(rows, base, meta, stride, next_at):
    while meta[PENDING] != NONE:
        link = next_at(rows, (base + meta[PENDING]) * stride)
        following = np.int64(link._next)
        link._next = meta[FREE]
        meta[FREE] = meta[PENDING]
        meta[PENDING] = following


@njit
def settle_table(table, stride):
    """After an event: rows that it released become free."""
    _reuse(table._rows, table._base, table._meta, stride, _link_at)


@njit
def set_slots(table, stride, clear):
    """On entering an aggregate, fill the map from keys to rows; on leaving it, clear the map for the next one."""
    slot = table._meta[HEAD]
    while slot != NONE:
        link = _link_at(table._rows, (table._base + slot) * stride)
        table._slots[link._key] = NONE if clear else slot
        slot = np.int64(link._next)


@overload(operator.getitem)
def _getitem(table, key):
    if not (isinstance(table, KeyedView) and isinstance(key, TextType)):
        return None
    stride, view, at = table.row.record.size, make(table.row), record_at(table.row.record)

    def getitem(table, key):
        slot = _touch(table, code_of(key), stride)
        return view((at(table._rows, (table._base + slot) * stride),))

    return getitem


@overload(operator.contains)
def _contains(table, key):
    if isinstance(table, KeyedView) and isinstance(key, types.NoneType):
        return lambda table, key: False
    if not (isinstance(table, KeyedView) and isinstance(key, TextType)):
        return None

    def contains(table, key):
        code = code_of(key)
        return code >= 0 and table._slots[code] != NONE

    return contains


@overload(operator.delitem)
def _delitem(table, key):
    if not (isinstance(table, KeyedView) and isinstance(key, TextType)):
        return None
    stride = table.row.record.size

    def delitem(table, key):
        _remove(table, code_of(key), stride)

    return delitem


def _meta_word(builder: Any, meta: Any, word: int) -> Any:
    return builder.load(builder.gep(meta, [ir.Constant(ir.IntType(64), word)]))


@lower_builtin("getiter", KeyedView)
def _getiter(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    table = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
    walk = cgutils.create_struct_proxy(sig.return_type)(context, builder)
    head = builder.load(table.meta)
    walk.rows, walk.base, walk.meta = table.rows, table.base, table.meta
    walk.changes = _meta_word(builder, table.meta, CHANGES)
    walk.next = cgutils.alloca_once_value(builder, head)
    return walk._getvalue()


@lower_builtin("iternext", KeyIterator)
@iternext_impl(RefType.UNTRACKED)
def _iternext(context: Any, builder: Any, sig: Any, args: Any, result: Any) -> None:
    walk = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
    with cgutils.if_unlikely(builder, builder.icmp_signed("!=", walk.changes, _meta_word(builder, walk.meta, CHANGES))):
        message = "keys were added or deleted while iterating"
        context.call_conv.return_user_exc(builder, RuntimeError, (message,))
    slot = builder.load(walk.next)
    valid = builder.icmp_signed("!=", slot, slot.type(NONE))
    result.set_valid(valid)
    with builder.if_then(valid):
        stride = sig.args[0].table.row.record.size

        def step(rows, base, slot):
            link = _link_at(rows, (base + slot) * stride)
            return np.int64(link._next), as_text(np.int32(link._key))

        stepped = types.Tuple((types.int64, text_type))
        signature = stepped(_bytes, types.int64, types.int64)
        pair = context.compile_internal(builder, step, signature, (walk.rows, walk.base, slot))
        builder.store(builder.extract_value(pair, 0), walk.next)
        result.yield_(builder.extract_value(pair, 1))


_INDEX_STRIDE = INDEX_DTYPE.itemsize


@state_view.viewed
class QueueView(state_view.View):
    """`Queue` as a handler sees it: an index of keys over a pool of linked rows. `meta` is the pool's."""

    members = (("index", KeyedView(INDEX)), ("pool", _bytes), *_SPACE)

    def __init__(self, table: Queue) -> None:
        self.row = RowView(_describe(table), table.row_dtype, table.columns)
        super().__init__(_describe(table))


@njit
def _append(queue, code, stride):
    """A new last row of a key; returns its number."""
    slot = _take(queue._pool, queue._base, queue._meta, queue._capacity, stride, _next_at)
    _next_at(queue._pool, (queue._base + slot) * stride)._next = NONE
    entry = queue._index[as_text(code)]
    if entry.count == 0:
        entry.first = slot
    else:
        _next_at(queue._pool, (queue._base + entry.last) * stride)._next = slot
    entry.last = slot
    entry.count += 1
    return slot


@njit
def _first(queue, code):
    if code < 0 or queue._index._slots[code] == NONE:
        raise KeyError("the queue has no row of this key")
    return queue._index[as_text(code)].first


@njit
def _pop(queue, code, stride):
    slot = _first(queue, code)
    entry = queue._index[as_text(code)]
    link = _next_at(queue._pool, (queue._base + slot) * stride)
    entry.first = link._next
    entry.count -= 1
    link._next = queue._meta[PENDING]
    queue._meta[PENDING] = slot
    if entry.count == 0:  # a key without rows is forgotten, so that order depends on the rows alone
        _remove(queue._index, code, _INDEX_STRIDE)


@njit
def settle_queue(queue, stride):
    """As `settle_table`, for a queue's index and rows."""
    settle_table(queue._index, _INDEX_STRIDE)
    _reuse(queue._pool, queue._base, queue._meta, stride, _next_at)


@overload_method(QueueView, "push")
def _queue_push(queue, key):
    stride, view, at = queue.row.record.size, make(queue.row), record_at(queue.row.record)

    def push(queue, key):
        return view((at(queue._pool, (queue._base + _append(queue, code_of(key), stride)) * stride),))

    return push


@overload_method(QueueView, "first")
def _queue_first(queue, key):
    stride, view, at = queue.row.record.size, make(queue.row), record_at(queue.row.record)

    def first(queue, key):
        return view((at(queue._pool, (queue._base + _first(queue, code_of(key))) * stride),))

    return first


@overload_method(QueueView, "pop")
def _queue_pop(queue, key):
    stride = queue.row.record.size

    def pop(queue, key):
        _pop(queue, code_of(key), stride)

    return pop


@overload_method(QueueView, "count")
def _queue_count(queue, key):
    def count(queue, key):
        code = code_of(key)
        if code < 0 or queue._index._slots[code] == NONE:
            return 0
        return queue._index[key].count

    return count
