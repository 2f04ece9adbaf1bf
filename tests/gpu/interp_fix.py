"""Makes TRITON_INTERPRET=1 compute what a GPU computes in bfloat16. Import it before a kernel runs.

Triton's interpreter keeps bf16 as uint16 and then multiplies, adds and matmuls those integers;
its f32 -> bf16 cast truncates where the hardware rounds to nearest even. Here every operation
on bf16 widens to f32, computes there and rounds back, and so does `dot`. What stays unlike a GPU:
`input_precision` is ignored (a tf32 dot runs in full fp32), programs run one after another, and an
access out of bounds is not reported. Written against triton 3.7.1.
"""

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, _get_np_dtype


def widen(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_to_bf16(x):
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FFF, rounded).astype(np.uint16)


def _is_bf16(handle):
    return handle.dtype.scalar == tl.bfloat16


def _wide(handle):
    return TensorHandle(widen(handle.data), tl.float32) if _is_bf16(handle) else handle


def _through_f32(method):
    """`method(self, *handles, op)` on bf16 handles: compute in f32, round the result back."""

    def wrapped(self, *args):
        *handles, op = args
        if not any(_is_bf16(h) for h in handles):
            return method(self, *args)
        result = method(self, *map(_wide, handles), op)
        if result.data.dtype == np.bool_:  # a comparison
            return TensorHandle(result.data, tl.int1)
        return TensorHandle(round_to_bf16(result.data), tl.bfloat16)

    return wrapped


def _cast(self, src, dst_type, *_rounding):
    if _is_bf16(src):
        src = _wide(src)
    if dst_type.scalar == tl.bfloat16:
        return TensorHandle(round_to_bf16(src.data.astype(np.float32)), tl.bfloat16)
    return TensorHandle(src.data.astype(_get_np_dtype(dst_type)), dst_type.scalar)


def _touches_bf16(src, dst_type):
    return _is_bf16(src) or dst_type.scalar == tl.bfloat16


def _install():
    builder = InterpreterBuilder
    for name in ("binary_op", "unary_op"):
        setattr(builder, name, _through_f32(getattr(builder, name)))

    cast_impl, fp_to_fp, dot, fma = (
        builder.cast_impl,
        builder.create_fp_to_fp,
        builder.create_dot,
        builder.create_fma,
    )
    builder.cast_impl = lambda self, src, dst: (_cast if _touches_bf16(src, dst) else cast_impl)(self, src, dst)
    builder.create_fp_to_fp = lambda self, src, dst, rounding: (_cast if _touches_bf16(src, dst) else fp_to_fp)(
        self, src, dst, rounding
    )

    def create_dot(self, a, b, d, *precision):
        # 16-bit products are exact in f32, which is what tensor cores add up.
        if d.dtype.scalar == tl.float32 and a.dtype.scalar in (tl.float16, tl.bfloat16):
            a, b = (TensorHandle(_wide(x).data.astype(np.float32), tl.float32) for x in (a, b))
        return dot(self, a, b, d, *precision)

    def create_fma(self, x, y, z):
        if not _is_bf16(z):
            return fma(self, x, y, z)
        return TensorHandle(round_to_bf16(fma(self, *map(_wide, (x, y, z))).data), tl.bfloat16)

    builder.create_dot, builder.create_fma = create_dot, create_fma
    builder.fastrec_fixed = True


if not getattr(InterpreterBuilder, "fastrec_fixed", False):
    assert interpreter.interpreter_builder.__class__ is InterpreterBuilder
    _install()
