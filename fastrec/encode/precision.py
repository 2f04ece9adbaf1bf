"""Which precision the linear layers of a model are computed in; without loading torch or the model."""

import logging
from collections.abc import Callable

from fastrec import _native
from fastrec.errors import BackendUnavailable, ConfigError
from fastrec.ops import _arrays

_LOG = logging.getLogger("fastrec.encode")
PRECISIONS = ("auto", "exact", "fp32", "bf16x3", "int16", "bf16", "int8")
#: What a model is tried in first, with the mean and the least cosine to float32 that it must keep on some sentences:
#: what is promised and, for int16, room for texts that are harder than these.
TRIED = {"int8": (0.995, 0.99), "int16": (0.999998, 0.999996)}
#: Levels at which multiplying int16 is faster than an FMA, and those whose int8 is good enough for "auto".
_WORDS = ("avx2", "avx512_vnni", "avx512_bf16")
_BYTES = ("avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")
#: Model types that run in C++; see families.py.
NATIVE_TYPES = ("bert", "distilbert", "mpnet", "roberta", "xlm-roberta", "camembert")
_told: set[str] = set()


def check(precision: object) -> None:
    """ConfigError where it is none of PRECISIONS."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ConfigError(f"[encode] precision={precision!r}, expected one of {', '.join(PRECISIONS)}")


def resolve(precision: str, model_type: str, on_cpu: Callable[[], bool]) -> str:
    """ "fp32", "bf16x3", "int16", "bf16" or "int8": what the linear layers are computed in.

    "fp32" asks for vectors with a cosine of at least .99999 to those of float32. Where the CPU has tiles (AMX) it comes
    to "bf16x3", more than twice as fast: each number is the sum of two bfloat16, and three of their four products are
    taken, 16 bits instead of 24, with a cosine of .999999. With AVX2 or VNNI it comes to "int16", fixed point of up to
    16 bits with a scale for every token and every output: 1.6 and 2 times as fast, .9999998 with MiniLM. The model is
    tried on some sentences when it is loaded, and goes on in float32 if it keeps less than .999998. "exact" is float32
    everywhere.

    "auto" takes int8 on a CPU with AVX2 or more, else what "fp32" comes to: the fastest way of each machine. A model
    that keeps less than a cosine of .995 with it goes on in what "fp32" comes to. Models that do not run in C++, and
    CUDA, are fp32.

    on_cpu: asked only where it matters, since the answer may need torch

    Raises ConfigError for a precision that this model has not, BackendUnavailable for one that the CPU has not.
    """
    if precision == "exact":
        return "fp32"
    gap = _native.missing_cpu()
    if model_type not in NATIVE_TYPES or gap is not None or not on_cpu():
        if precision in ("auto", "fp32"):
            return "fp32"
        if gap is not None:
            raise BackendUnavailable("encode", precision, *gap)
        where = f"a model of type {model_type}" if model_type not in NATIVE_TYPES else "this device"
        raise ConfigError(f"[encode] precision={precision!r}, expected 'auto', 'fp32' or 'exact' for {where}")
    level, has, _ = _native.module("encode").encode_level(_arrays.simd("encode"))
    full = "bf16x3" if "bf16x3" in has else "int16" if level in _WORDS else "fp32"
    if precision == "fp32":
        return full
    if precision == "auto":
        precision = "int8" if level in _BYTES else full
        message = f"[encode] precision 'auto' is {precision} on this machine (level {level})"
        if message not in _told:
            _told.add(message)
            _LOG.info(message)
    elif precision not in has:
        raise BackendUnavailable(
            "encode", precision, f"the level {level} cannot compute in {precision}", "precision='auto'"
        )
    return precision


def instead_of(precision: str, model_type: str) -> str:
    """What a model goes on in that has been tried and loses too much."""
    return resolve("fp32", model_type, lambda: True) if precision == "int8" else "fp32"
