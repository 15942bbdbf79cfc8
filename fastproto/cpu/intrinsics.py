"""LLVM instructions that numba does not expose, as functions for the compiled loops."""

# compiled functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def fetch(_context, matrix, row, column):
    """Prefetch the cache line of matrix[row, column]."""

    def ask(context, builder, signature, arguments):
        kind, (matrix, row, column) = signature.args[0], arguments
        array = context.make_array(kind)(context, builder, matrix)
        byte = ir.IntType(8).as_pointer()
        at = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, array, [row, column]), byte)
        flag = ir.IntType(32)
        prefetch = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], prefetch)
        builder.call(function, [at, flag(0), flag(2), flag(1)])  # for reading, into the L2 cache, data
        return context.get_dummy_value()

    return types.void(matrix, types.intp, types.intp), ask


@intrinsic
def widen(_context, value):
    """float32 of a float32, or of the bits of a bfloat16, which are the upper half of a float32."""
    if value == types.float32:
        return types.float32(value), lambda context, builder, signature, arguments: arguments[0]

    def upper_half(context, builder, signature, arguments):
        word = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(word, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(value), upper_half


@intrinsic
def narrow(_context, value, like):
    """A finite float32 in the type of ``like``: itself, or the bits of the nearest bfloat16, ties to even."""
    if like == types.float32:
        return types.float32(value, like), lambda context, builder, signature, arguments: arguments[0]

    def nearest(context, builder, signature, arguments):
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        carried = builder.add(builder.add(bits, ir.Constant(word, 0x7FFF)), odd)
        return builder.trunc(builder.lshr(carried, ir.Constant(word, 16)), ir.IntType(16))

    return types.uint16(types.float32, like), nearest


@intrinsic
def power_of_two(_context, whole):
    """2^n of a float32 that is a whole number from -126 to 127, by writing the exponent's bits."""
    word = ir.IntType(32)

    def exponent(context, builder, signature, arguments):
        biased = builder.add(builder.fptosi(arguments[0], word), ir.Constant(word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(whole), exponent


@intrinsic
def larger(_context, left, right):
    """max of two float32, neither NaN, in a form that LLVM vectorises; the built-in max stays scalar."""

    def select(context, builder, signature, arguments):
        greater = builder.fcmp_ordered(">", *arguments, flags=["nnan", "nsz"])
        return builder.select(greater, *arguments, flags=["nnan", "nsz"])

    return types.float32(types.float32, types.float32), select
