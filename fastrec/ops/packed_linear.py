"""packed_linear: a linear layer whose weights were laid out once, in float32, bfloat16 or int8."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastrec import _native, config
from fastrec.errors import BackendUnavailable, ConfigError, DataError
from fastrec.ops import _arrays, _packed
from fastrec.ops._op import Backend, Op
from fastrec.ops.pack_items import aligned
from fastrec.types import F32

#: precision -> (number in csrc/encode.h, inputs in a step of 4 bytes)
KINDS = {"fp32": (0, 1), "bf16": (1, 2), "int8": (2, 4), "bf16x3": (3, 2), "int16": (4, 2)}
#: The largest code of a weight, and its dtype.
_CODES = {"int8": (127, np.int8), "int16": (32767, np.int16)}
#: The codes of a block of so many int16 are, as a vector, no longer than this: products sum up within int32.
_BLOCK, _LENGTH = 384, 46300.0
#: The largest code of an int8 input where bytes are multiplied by VNNI or tiles.
_WHOLE = 255
_LANES = 16


@dataclass(frozen=True, eq=False)
class PackedLinear:
    """Weights [N, K] in panels of 16 outputs, as csrc/encode.h lays them out.

    panels: [ceil(N / 16), steps, 16, inputs of a step], float32, uint16 (the upper halves of float32), int8, int16; for
        "bf16x3" [ceil(N / 16), 2, steps, 16, 2], the upper halves and those of what they leave out
    bias: float32 [N filled up to 16]
    scales: float32 of the same length, int8 and int16 only: weight = scale * code
    sums: float32 of the same length, int8 only: the sums of the codes of an output
    code_max: int8 only: the largest code of an input that the weights are made for
    """

    precision: str
    K: int
    N: int
    panels: npt.NDArray[Any]
    bias: F32
    scales: F32 | None
    sums: F32 | None
    code_max: int = _WHOLE

    def address(self) -> tuple[int, ...]:
        """What the native code takes; valid while this object lives."""
        vectors = (_native.ptr(a, np.float32) for a in (self.bias, self.scales, self.sums))
        return (self.K, self.N, self.panels.shape[-3], int(self.panels.ctypes.data), *vectors, self.code_max)

    def weights(self) -> F32:
        """float32 [N, K] as the panels have them."""
        values = self.panels
        if self.precision == "bf16x3":
            halves = (values.astype(np.uint32) << 16).view(np.float32)
            values = halves[:, 0] + halves[:, 1]
        elif self.precision == "bf16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        rows = values.transpose(0, 2, 1, 3).reshape(len(self.bias), -1)[: self.N, : self.K].astype(np.float32)
        return rows if self.scales is None else rows * self.scales[: self.N, None]


def pack_linear(weight: Any, bias: Any = None, *, precision: str = "fp32") -> PackedLinear:
    """Lay out weights [N, K] and bias [N] (None: zeros) for packed_linear.

    precision: "fp32", "bf16" (rounded to even), "int8" (a scale per output, codes of -127 .. 127), "int16" (the same
        with codes of -32767 .. 32767, and no more than 46300 for the length of 384 of them as a vector) or "bf16x3"
        (float32 as the sum of two bfloat16, for a CPU with AMX: right to 2^-15 of a product)

    For int8 the level of this moment counts: where the CPU has no VNNI, bytes are multiplied into int16, and the codes
    of the four inputs that are summed there are kept below 32767 / 200 together. Such weights suit every level.

    Raises DataError for shapes that do not fit or weights that are not finite, ConfigError for another precision.
    """
    where = "pack_linear"
    if precision not in KINDS:
        raise ConfigError(f"[{where}] precision={precision!r}, expected one of {', '.join(KINDS)}")
    matrix = _arrays.as_float_matrix(where, "weight", weight)
    _arrays.check_rows_finite(where, "weight", matrix, _arrays.squared_norms(matrix))
    N, K = matrix.shape
    vector = np.zeros(N, np.float32) if bias is None else _arrays.as_float_vector(where, "bias", bias, N)
    rows = -(-N // _LANES) * _LANES
    size = KINDS[precision][1]
    unit = 1 if precision == "fp32" else 16 * size  # inputs of a step, or of a row of tiles
    steps = -(-K // unit) * unit // size
    scales = sums = None
    values: npt.NDArray[Any] = matrix
    code_max = _WHOLE
    if precision in _CODES:
        top, dtype = _CODES[precision]
        if precision == "int16":
            scales = _word_scales(matrix)
        else:
            code_max = min(_WHOLE, level(where)[2]) if _native.missing_cpu() is None else _WHOLE
            scales = np.abs(matrix).max(axis=1, initial=0.0) / np.float32(top)
            if code_max < _WHOLE:
                scales = np.maximum(scales, _most_of_four(matrix) / np.float32(32767 // code_max - 2))
            scales = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
        values = np.rint(matrix / scales[:, None]).clip(-top, top).astype(dtype)
        if precision == "int8":
            sums = _filled(values.sum(axis=1, dtype=np.int64).astype(np.float32), rows)
        scales = _filled(scales, rows)
    elif precision != "fp32":
        values = round_bf16(matrix)
    full = np.zeros((rows, steps * size), values.dtype)
    full[:N, :K] = values
    panels = full.reshape(rows // _LANES, _LANES, steps, size).transpose(0, 2, 1, 3)
    if precision == "bf16x3":
        rest = matrix - (values.astype(np.uint32) << 16).view(np.float32)
        low = pack_linear(rest, precision="bf16").panels
        panels = np.stack([panels, low], axis=1)
    out = aligned(panels.shape, panels.dtype.type)  # a row of a panel is a line of the cache, and of a tile
    out[...] = panels
    return PackedLinear(precision, K, N, out, _filled(vector, rows), scales, sums, code_max)


def _word_scales(x: F32) -> F32:
    """Of the rows of x [R, K] as int16: the least of 12 bits with codes of at most 32767, blocks of at most _LENGTH."""
    blocks = -(-x.shape[1] // _BLOCK)
    padded = np.pad(x, ((0, 0), (0, blocks * _BLOCK - x.shape[1]))).reshape(len(x), blocks, _BLOCK)
    lengths = np.sqrt(np.einsum("rbk,rbk->rb", padded, padded, dtype=np.float64)).max(axis=1, initial=0.0)
    scale = np.maximum(lengths / _LENGTH, np.abs(x).max(axis=1, initial=0.0) / _CODES["int16"][0])
    bits = np.where(scale < np.finfo(np.float32).tiny, 1, scale).astype(np.float32).view(np.uint32)
    out: F32 = ((bits + 0xFFF) & ~np.uint32(0xFFF)).view(np.float32)  # up to 12 bits, as the native code has it
    return out


def _most_of_four(x: F32) -> F32:
    """The largest sum of sizes of four weights of a row that are multiplied into one int16: 0, 1, 4, 5 of eight, and
    2, 3, 6, 7."""
    groups = -(-x.shape[1] // 8)
    padded = np.pad(np.abs(x), ((0, 0), (0, 8 * groups - x.shape[1]))).reshape(len(x), groups, 2, 2, 2)
    out: F32 = padded.sum(axis=(2, 4)).max(axis=(1, 2), initial=0.0)
    return out


def _filled(vector: F32, length: int) -> F32:
    out = np.zeros(length, np.float32)
    out[: len(vector)] = vector
    return out


def round_bf16(x: F32) -> npt.NDArray[np.uint16]:
    """The upper halves of float32, rounded to even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class Problem:
    """What every backend takes: x [T, K]."""

    x: F32
    weights: PackedLinear


def packed_linear(x: Any, weights: PackedLinear, *, backend: str = "auto", threads: int | None = None) -> Any:
    """x @ weights' + bias, [T, N] in the dtype of x.

    x: [T, K], numpy or torch, float32 or bfloat16
    weights: from pack_linear. With bf16 x is rounded, with int8 each row of x gets a scale and a zero of its own
        and codes of 0 .. 255 (0 .. 200 where the CPU has no VNNI), with int16 a scale and codes as those of weights;
        the sums are float32, or exact for int8 and for blocks of 384 inputs of int16

    Raises DataError for a shape that does not fit, BackendUnavailable for bf16 or bf16x3 on a CPU that cannot, and for
    weights laid out in int8 for a level with VNNI on one without.
    """
    where = "packed_linear"
    run = OP.choose(backend)
    n_threads = config.threads(threads)
    matrix = _arrays.as_float_matrix(where, "x", x, backend, columns=weights.K)
    if not isinstance(weights, PackedLinear):
        raise DataError(f"[{where}] weights is a {type(weights).__name__}, expected what pack_linear gives")
    return _packed.like(x, run(Problem(matrix, weights), n_threads))


def level(where: str) -> tuple[str, tuple[str, ...], int]:
    """(name of the level that runs, the precisions that it has, largest int8 code of an input)."""
    out: tuple[str, tuple[str, ...], int] = _native.module(where).encode_level(_arrays.simd(where))
    return out


def quantized(x: F32, code_max: int) -> F32:
    """x as int8 sees it: rows of scale * (code - zero), codes of 0 .. code_max."""
    low = np.minimum(x.min(axis=1, initial=0.0), 0)[:, None]
    span = np.maximum(x.max(axis=1, initial=0.0), 0)[:, None] - low
    scale = span / np.float32(code_max)
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale).astype(np.float32)
    zero = np.rint(-low / scale)
    codes = (np.rint(x * (np.float32(1) / scale)) + zero).clip(0, code_max)
    out: F32 = (scale * (codes - zero)).astype(np.float32)
    return out


def _seen(p: Problem) -> F32:
    """The inputs in the precision of the weights."""
    if p.weights.precision == "bf16":
        return (round_bf16(p.x).astype(np.uint32) << 16).view(np.float32).reshape(p.x.shape)
    if p.weights.precision == "int16":
        scale, most = _word_scales(p.x)[:, None], _CODES["int16"][0]
        out: F32 = np.rint(p.x * (np.float32(1) / scale)).clip(-most, most) * scale
        return out
    if p.weights.precision == "int8":
        return quantized(p.x, p.weights.code_max)
    return p.x


def packed_linear_reference(p: Problem, threads: int = 1) -> F32:
    """The definition, with inputs in the precision of the weights."""
    out = _seen(p).astype(np.float64) @ p.weights.weights().astype(np.float64).T + p.weights.bias[: p.weights.N]
    return out.astype(np.float32)


@_packed.torch_backend
def _torch(torch: Any, p: Problem) -> Any:
    rows = torch.from_numpy(p.weights.weights())
    return torch.nn.functional.linear(torch.from_numpy(_seen(p)), rows, torch.from_numpy(p.weights.bias[: p.weights.N]))


def _cpu(p: Problem, threads: int) -> F32:
    name, has, code_max = level("packed_linear")
    if p.weights.precision not in has:
        reason = f"the level {name} does not compute in {p.weights.precision}"
        raise BackendUnavailable("packed_linear", "cpu", reason, "precision='fp32' or 'int8'")
    if p.weights.precision == "int8" and p.weights.code_max > code_max:
        reason = f"the weights were laid out for a level with VNNI, not for {name}"
        raise BackendUnavailable("packed_linear", "cpu", reason, "pack_linear at this level")
    out = _arrays.empty((len(p.x), p.weights.N), np.float32)
    _packed.call(
        "packed_linear",
        x=_native.ptr(p.x, np.float32),
        T=len(p.x),
        weights=p.weights.address(),
        kind=KINDS[p.weights.precision][0],
        out=_native.ptr(out, np.float32),
        threads=threads,
    )
    return out


OP = Op(
    "packed_linear",
    reference=packed_linear_reference,
    backends={
        "cpu": Backend(_cpu, "cpu", _native.missing_cpu),
        "torch": Backend(_torch, "cpu", _packed.missing_torch),
    },
    cases=[
        {"T": t, "K": k, "N": n, "precision": precision}
        for t, k, n in [(0, 5, 3), (1, 1, 1), (33, 63, 17), (129, 384, 48), (65, 1023, 33), (13, 300, 80)]
        for precision in ("fp32", "int8", "int16")
    ],
    exact=False,
)

__all__ = ["pack_linear", "packed_linear", "PackedLinear"]
