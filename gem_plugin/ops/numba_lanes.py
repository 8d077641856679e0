"""Vectors of eight float32 for Numba kernels whose inner loop the compiler would not make one of by itself.

Multiplication and addition are separate and in the order written, so that results do not depend on the processor.
"""

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic

LANES = 8
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(64)
_EACH_FIRST = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
_FLOAT_BYTES = 4


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Address of the eight numbers of a contiguous float32 array that begin at `index`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _load(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    return builder.load(_place(context, builder, kind, array, index), align=_FLOAT_BYTES)


def _everywhere(builder: Any, value: Any) -> Any:
    """The vector of one number."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, _EACH_FIRST)


def _sum_of_product(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b), c)


@intrinsic
def _add_product(typing_context: Any, out: Any, index: Any, factors: Any, value: Any) -> Any:
    """out[index : index + 8] += factors[:8] * value, for contiguous float32 arrays of one axis; nothing is checked."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, at, factor, number = arguments
        place = _place(context, builder, signature.args[0], to, at)
        vector = _load(context, builder, signature.args[2], factor, ir.Constant(_INDEX, 0))
        before = builder.load(place, align=_FLOAT_BYTES)
        after = _sum_of_product(builder, vector, _everywhere(builder, number), before)
        builder.store(after, place, align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return numba.types.none(out, numba.types.int64, factors, numba.types.float32), code


@intrinsic
def _polynomials(typing_context: Any, out: Any, coefficients: Any, degree: Any, u: Any) -> Any:
    """out[:8] = eight polynomials at u; `coefficients` holds eight of each degree, the highest first.

    `degree` is a literal: the loop is written out. Nothing is checked.
    """
    if not isinstance(degree, numba.types.IntegerLiteral):
        return None
    highest = int(degree.literal_value)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, table, _, number = arguments
        at = _everywhere(builder, number)
        rows = [ir.Constant(_INDEX, d * LANES) for d in range(highest + 1)]
        total = _load(context, builder, signature.args[1], table, rows[0])
        for row in rows[1:]:
            total = _sum_of_product(builder, total, at, _load(context, builder, signature.args[1], table, row))
        builder.store(total, _place(context, builder, signature.args[0], to, rows[0]), align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return numba.types.none(out, coefficients, degree, numba.types.float32), code


# as mypy should see them: it takes what an intrinsic's Python function does for the call's
add_product: Any = _add_product
polynomials: Any = _polynomials
