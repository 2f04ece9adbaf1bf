"""Which precision the linear layers of a model are computed in; without loading torch or the model."""

import logging
from collections.abc import Callable

from fastrec import _native
from fastrec.errors import BackendUnavailable, ConfigError
from fastrec.ops import _arrays

_LOG = logging.getLogger("fastrec.encode")
PRECISIONS = ("auto", "exact", "fp32", "bf16x3", "int16", "bf16", "int8")
#: What a model is tried in first, with the mean and the least cosine to float32 that it must keep on some sentences.
TRIED = {"int8": (0.995, 0.99)}
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
    taken, 16 bits instead of 24, with a cosine of .999999. "exact" is float32 everywhere.

    "int16", fixed point of 14 bits for the inputs of a token and 13 for the weights, is taken by name only: faster than
    float32 with AVX2 and VNNI, .999998 with MiniLM, but a text of another model may fall below the .99999 of "fp32".

    "auto" takes int8 where the CPU has VNNI or tiles, else what "fp32" comes to: on each of these machines that is the
    fastest way, among those whose vectors keep a cosine of .995 with those of fp32. (int8 with AVX2 alone does not: its
    inputs have 7 bits.) Models that do not run in C++, and CUDA, are fp32.

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
    full = "bf16x3" if "bf16x3" in has else "fp32"
    if precision == "fp32":
        return full
    if precision == "auto":
        precision = "int8" if level in ("amx", "avx512_vnni") else full
        message = f"[encode] precision 'auto' is {precision} on this machine (level {level})"
        if message not in _told:
            _told.add(message)
            _LOG.info(message)
    elif precision not in has:
        raise BackendUnavailable(
            "encode", precision, f"the level {level} cannot compute in {precision}", "precision='auto'"
        )
    return precision
