"""Numba types of the state in a handler: views on flat arrays, without objects and without allocation.

A state's record is copied to the stack while its aggregate is folded, so that LLVM keeps the fields in registers. A
view is a value that holds pointers. Text is a code with a type of its own, so that the compiler refuses to compare it
with anything but text, which would otherwise be silently false.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import impl_ret_borrowed, lower_builtin, lower_cast, lower_constant
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.np import numpy_support

from eventlab.events.types import NULL_INT
from eventlab.fold.declare.layout import Layout, Scalar, is_null
from eventlab.fold.native.constants import NULL_TEXT


class Text:
    """A string constant in a lowered handler. Its code is the same in every fold of the reducer."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


class TextType(types.Type):
    """Type of a text code in a kernel."""

    def __init__(self) -> None:
        super().__init__(name="eventlab.Text")


text_type = TextType()


@extending.register_model(TextType)
class _TextModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.IntType(32))


@extending.typeof_impl.register(Text)
def _typeof_text(value: Text, context: Any) -> TextType:
    return text_type


@lower_constant(TextType)
def _text_constant(context: Any, builder: Any, ty: Any, value: Text) -> Any:
    return ir.Constant(ir.IntType(32), value.code)


@lower_cast(types.none, TextType)
def _none_to_text(context: Any, builder: Any, fromty: Any, toty: Any, value: Any) -> Any:
    return ir.Constant(ir.IntType(32), NULL_TEXT)


@lower_cast(types.Optional, TextType)
def _maybe_to_text(context: Any, builder: Any, fromty: Any, toty: Any, value: Any) -> Any:
    maybe = context.make_helper(builder, fromty, value=value)
    return builder.select(maybe.valid, maybe.data, ir.Constant(ir.IntType(32), NULL_TEXT))


@extending.intrinsic
def as_text(typingctx: Any, code: Any) -> Any:
    """An int32 code as text."""
    if code != types.int32:
        return None
    return text_type(types.int32), lambda context, builder, sig, args: args[0]


@extending.intrinsic
def code_of(typingctx: Any, text: Any) -> Any:
    """A text's int32 code."""
    if not isinstance(text, TextType):
        return None
    return types.int32(text_type), lambda context, builder, sig, args: args[0]


def _of_codes(compare: Any) -> Any:
    def typed(left, right):  # Numba compares an overload's signature with its implementation's
        if isinstance(left, TextType) and isinstance(right, TextType):
            return lambda left, right: compare(code_of(left), code_of(right))
        return None

    return typed


extending.overload(operator.eq)(_of_codes(operator.eq))
extending.overload(operator.ne)(_of_codes(operator.ne))


def _is_missing(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    text = args[0] if isinstance(sig.args[0], TextType) else args[1]
    return builder.icmp_signed("==", text, ir.Constant(ir.IntType(32), NULL_TEXT))


def _is_given(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.not_(_is_missing(context, builder, sig, args))


# Numba's own rule is that a value of any other type than None neither is nor equals None.
for _same, _other in ((operator.is_, operator.is_not), (operator.eq, operator.ne)):
    for _pair in ((TextType, types.NoneType), (types.NoneType, TextType)):
        lower_builtin(_same, *_pair)(_is_missing)
        lower_builtin(_other, *_pair)(_is_given)


@extending.overload(operator.truth)
def _text_truth(value):
    return (lambda value: code_of(value) > 0) if isinstance(value, TextType) else None


@extending.overload(operator.not_)
def _text_not(value):
    return (lambda value: code_of(value) <= 0) if isinstance(value, TextType) else None


@lower_builtin(bool, TextType)
def _text_bool(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Missing and empty text count as false, as in Python."""
    return builder.icmp_signed(">", args[0], ir.Constant(ir.IntType(32), 0))


@extending.overload(is_null)
def _is_null(value):
    if isinstance(value, TextType):
        return lambda value: code_of(value) == NULL_TEXT
    if isinstance(value, types.Float):
        return lambda value: value != value  # noqa: PLR0124 - only NaN differs from itself
    if isinstance(value, types.Integer):
        return lambda value: value == NULL_INT
    return (lambda value: False) if isinstance(value, types.Boolean) else None


@extending.intrinsic
def stack_copy(typingctx: Any, record: Any) -> Any:
    """A copy of a record on the kernel's stack, where LLVM can promote its fields to registers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = context.get_value_type(sig.return_type)
        place = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(8), record.size))
        place.align = 16
        cgutils.raw_memcpy(builder, place, args[0], ir.Constant(ir.IntType(64), record.size), 1)
        return builder.bitcast(place, pointer)

    return record(record), codegen


@extending.intrinsic
def copy_record(typingctx: Any, target: Any, source: Any) -> Any:
    """Copy one record's bytes onto another of the same type."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        size = ir.Constant(ir.IntType(64), source.size)
        cgutils.raw_memcpy(builder, args[0], args[1], size, 1)
        return context.get_dummy_value()

    return types.none(target, source), codegen


def _element(context: Any, builder: Any, sig: Any, args: Any, pointer: Any) -> Any:
    """The address of an array's element, as a pointer of a type."""
    data = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).data
    place = builder.gep(data, [args[1]], source_etype=context.get_data_type(sig.args[0].dtype))
    return builder.bitcast(place, pointer)


@extending.intrinsic
def pointer_to(typingctx: Any, array: Any, first: Any) -> Any:
    """The address of an array's element, of a record as bytes. Views hold pointers, which need no reference counts."""
    element = types.uint8 if isinstance(array.dtype, types.Record) else array.dtype
    pointer = types.CPointer(element)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _element(context, builder, sig, args, context.get_value_type(pointer))

    return pointer(array, types.int64), codegen


@extending.intrinsic
def prefetch(typingctx: Any, array: Any, first: Any) -> Any:
    """Prefetch the cache line of an array's element, which may lie beyond the array's end."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _element(context, builder, sig, args, ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.none(array, types.int64), codegen


@extending.intrinsic
def clear_bytes(typingctx: Any, pointer: Any, offset: Any, size: Any) -> Any:
    """Zero `size` bytes at `offset` from a byte pointer."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]], source_etype=ir.IntType(8))
        cgutils.memset(builder, place, args[2], 0)
        return context.get_dummy_value()

    return types.none(types.CPointer(types.uint8), types.int64, types.int64), codegen


def record_at(record: types.Record) -> Any:
    """A function for kernels: the record at a byte offset from a pointer."""

    @extending.intrinsic
    def locate(typingctx: Any, pointer: Any, offset: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = builder.gep(args[0], [args[1]], source_etype=ir.IntType(8))
            return builder.bitcast(place, context.get_value_type(record))

        return record(types.CPointer(types.uint8), types.int64), codegen

    return locate


class View(types.Type):
    """A value made of other values, to which subclasses add methods. To the compiler equal views are one type."""

    members: tuple[tuple[str, types.Type], ...] = ()

    def __init__(self, key: str) -> None:
        described = ",".join(f"{name}:{member}" for name, member in self.members)
        super().__init__(name=f"{type(self).__name__}({key};{described})")


class _ViewModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: View) -> None:
        super().__init__(dmm, fe_type, list(fe_type.members))


def viewed(cls: type[View]) -> type[View]:
    """Register a subclass of View with the compiler; compiled code reads a member `x` as ``view._x``."""
    extending.register_model(cls)(type(f"_{cls.__name__}Model", (_ViewModel,), {}))
    for name, _ in cls.members:
        extending.make_attribute_wrapper(cls, name, f"_{name}")
    return cls


class TableView(View):
    """A view with a block of words about its rows, `meta`. It is true where it has rows."""

    count_word: int
    """The word of `meta` that counts the rows."""


@extending.overload(len)
def _len(table):
    if not isinstance(table, TableView):
        return None
    word = table.count_word
    return lambda table: table._meta[word]


@extending.overload(operator.truth)
def _truth(table):
    if not isinstance(table, TableView):
        return None
    word = table.count_word
    return lambda table: table._meta[word] != 0


@lower_builtin(bool, TableView)
def _bool(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    table = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
    count = builder.load(builder.gep(table.meta, [ir.Constant(ir.IntType(64), sig.args[0].count_word)]))
    return builder.icmp_signed("!=", count, count.type(0))


def make(view: View) -> Any:
    """A constructor of `view` for kernels: takes the members' values in order."""

    @extending.intrinsic
    def construct(typingctx: Any, values: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            proxy = cgutils.create_struct_proxy(view)(context, builder)
            for at, (name, member) in enumerate(view.members):
                value, given = builder.extract_value(args[0], at), sig.args[0][at]
                if isinstance(given, types.Record):  # a view with a record in it cannot be returned: its address
                    value = builder.bitcast(value, context.get_value_type(member))
                else:
                    value = context.cast(builder, value, given, member)
                setattr(proxy, name, value)
            return proxy._getvalue()

        return view(values), codegen

    return construct


class RecordView(View):
    """A view whose record's fields are its attributes. `text` has the names of those that are codes."""

    def __init__(
        self, key: str, dtype: np.dtype[Any], fields: tuple[Scalar, ...], tables: tuple[tuple[str, View], ...] = ()
    ) -> None:
        self.record: types.Record = numpy_support.from_dtype(dtype)
        self.text, self.tables = frozenset(field.name for field in fields if field.kind == "text"), dict(tables)
        self.properties: dict[str, Any] = {}
        own = ((f"table_{table}", view) for table, view in tables)
        self.members = (("record", types.CPointer(types.uint8)), *own)
        super().__init__(key)


@viewed
class StateView(RecordView):
    """The `state` of handlers."""


@viewed
class RowView(RecordView):
    """A row of a table."""


@infer_getattr
class _RecordAttributes(AttributeTemplate):
    key = RecordView

    def generic_resolve(self, view: RecordView, attr: str) -> Any:
        if attr in view.tables:
            return view.tables[attr]
        if attr in view.properties:
            return _property_signature(self.context, view, attr).return_type
        if attr in view.record.fields and not attr.startswith("_"):
            return text_type if attr in view.text else view.record.typeof(attr)
        return None


def _property_signature(typingctx: Any, view: RecordView, attr: str) -> Any:
    return typingctx.resolve_function_type(types.Dispatcher(view.properties[attr]), (view,), {})


@extending.lower_getattr_generic(RecordView)
def _record_getattr(context: Any, builder: Any, view: RecordView, value: Any, attr: str) -> Any:
    proxy = cgutils.create_struct_proxy(view)(context, builder, value=value)
    if attr in view.tables:
        return impl_ret_borrowed(context, builder, view.tables[attr], getattr(proxy, f"table_{attr}"))
    if attr in view.properties:
        function = types.Dispatcher(view.properties[attr])
        signature = _property_signature(context.typing_context, view, attr)
        return context.get_function(function, signature)(builder, (value,))
    record = builder.bitcast(proxy.record, context.get_value_type(view.record))
    return context.get_getattr(view.record, attr)(context, builder, view.record, record, attr)


@extending.lower_setattr_generic(RecordView)
def _record_setattr(context: Any, builder: Any, sig: Any, args: Any, attr: str) -> Any:
    view, stored = sig.args[0], sig.args[0].record.typeof(attr)
    proxy = cgutils.create_struct_proxy(view)(context, builder, value=args[0])
    record = builder.bitcast(proxy.record, context.get_value_type(view.record))
    setter = context.get_setattr(attr, types.none(view.record, stored))
    return setter(builder, (record, args[1]))


def state_view(name: str, layout: Layout, tables: tuple[tuple[str, View], ...]) -> StateView:
    """The view of a reducer's state."""
    return StateView(name, layout.dtype, layout.scalars, tables)
