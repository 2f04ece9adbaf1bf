"""score_topk on CUDA: the bound that makes its screen exact, and arrays that never leave the device.

The kernel screens with tensor cores and computes the scores of what passes by the definition, in float64
(csrc/score_topk_cuda.cu). The pad of a user bounds what its screen may be wrong by, for the type that the screen
multiplies in: the result does not depend on it, as long as it bounds.
"""

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec.errors import DataError
from fastrec.ops import _cuda
from fastrec.ops._arrays import LARGEST_SCORE
from fastrec.ops._sparse import Lists, Matrix
from fastrec.ops.pack_items import PackedItems
from fastrec.types import F32, I64

if TYPE_CHECKING:
    from fastrec.ops.score_topk import Problem

#: Numbers of csrc/ops_cuda.h, and what rounding a query and an item to the type of the screen costs, relatively.
_SCREENS = {"float32": (1, 2.0**-11, 2.0**-11), "float16": (2, 2.0**-11, 0.0), "bfloat16": (3, 2.0**-8, 0.0)}
#: float32 without tensor cores: nothing is rounded before it is multiplied.
_PLAIN = (0, 0.0, 0.0)
#: Rounded to this type a larger query becomes infinite.
_LARGEST = {"float32": 3.0e38, "float16": 6.0e4, "bfloat16": 3.0e38}
#: Tensor cores add products with fewer guard bits than float32 has: each step is taken to cost so many roundings.
_STEP = 4 * 2.0**-24


@dataclass(frozen=True, eq=False)
class DeviceItems:
    """Items on a device. rows: [N, D] float32, float16 or bfloat16, last dimension contiguous."""

    rows: Any
    max_norm: float


#: Catalogues that were used before, per device: one is copied to it, or looked at, once.
_packed: "weakref.WeakKeyDictionary[PackedItems, DeviceItems]" = weakref.WeakKeyDictionary()
_tensors: dict[int, tuple[Any, int, DeviceItems]] = {}


def of_packed(items: PackedItems, device: Any) -> DeviceItems:
    """The float32 rows on the device."""
    known = _packed.get(items)
    if known is None or known.rows.device != device:
        known = _packed[items] = DeviceItems(_cuda.to_device(items.rows, device), items.max_norm)
    return known


def of_tensor(where: str, items: Any) -> DeviceItems:
    """Items that lie on the device, checked once as long as nothing is written to them. Waits for the device."""
    import torch

    key = id(items)
    version = -1 if items.is_inference() else items._version  # without a version a change would go unseen
    known = _tensors.get(key)
    if known is not None and known[0]() is items and known[1] == version >= 0:
        return known[2]
    if items.ndim != 2 or items.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        kind = f"dtype {items.dtype} and shape {tuple(items.shape)}"
        raise DataError(f"[{where}] items has {kind}, expected [N, D] of float32, float16 or bfloat16")
    rows = items if items.stride(1) == 1 and items.stride(0) >= items.shape[1] else items.contiguous()
    if len(rows) > 2**31 - 1:
        raise DataError(f"[{where}] items has {len(rows)} rows, expected at most {2**31 - 1}")
    largest = 0.0
    for first in range(0, len(rows), 1 << 20):
        largest = max(largest, _finite(where, "items", rows[first : first + (1 << 20)], first))
    # detach() makes another tensor of the same memory: the entry must not keep ``items`` alive.
    found = DeviceItems(rows.detach(), largest * (1 + 1e-9))
    _tensors[key] = (weakref.ref(items, lambda _: _tensors.pop(key, None)), version, found)
    return found


def _finite(where: str, name: str, rows: Any, first: int) -> float:
    """The largest length of a row, or DataError for one with NaN or inf."""
    if not rows.numel():
        return 0.0
    squares = rows.double().square().sum(1)
    largest = float(squares.max())
    if not np.isfinite(largest):
        row = int(squares.isfinite().logical_not().nonzero()[0])
        raise DataError(
            f"[{where}] {name} row {first + row} is not finite, expected finite numbers", column=name, row=first + row
        )
    return float(np.sqrt(largest))


def _screen_of(items: DeviceItems) -> tuple[int, float, float]:
    """The screen for these items on their device: tf32 needs tensor cores that know it, 16 bits stay what they are."""
    kind = str(items.rows.dtype).removeprefix("torch.")
    plain = kind == "float32" and not _cuda.RUNTIME.has_tf32(items.rows.device)
    return _PLAIN if plain else _SCREENS[kind]


def pads(queries: Any, items: DeviceItems, init_bound: Any, n_terms: int) -> Any:
    """float32 [B]: at least |screened score - score| for every item.

    init_bound: float64 [B], at least the sum of |sparse terms| and |bias| of an item; n_terms: how many those are
    """
    import torch

    kind = str(items.rows.dtype).removeprefix("torch.")
    _, of_query, of_item = _screen_of(items)
    D = queries.shape[1]
    wide = queries.double()
    dense = wide.square().sum(1).sqrt() * ((1 + 1e-9) * items.max_norm)
    # Rounding of the operands, then sums in any order, then the subtraction of the pad itself.
    pad = (of_query + of_item + of_query * of_item) * dense
    pad = pad + (D + 6) * _STEP / max(1 - (D + 6) * _STEP, 1e-9) * dense
    pad = pad + ((n_terms + 4) * 2.0**-24 / max(1 - (n_terms + 4) * 2.0**-24, 1e-9) + 2.0**-22) * (dense + init_bound)
    # What rounds to a subnormal, absolutely.
    pad = pad + (2.0**-24 if kind == "float16" else 2.0**-125) * (D + 4) ** 0.5 * (items.max_norm + 1)
    if D:
        pad = torch.where(wide.abs().amax(1) > _LARGEST[kind], torch.inf, pad)
    return (pad * (1 + 2.0**-22)).float()


def search(
    queries: Any, items: DeviceItems, k: int, bias: Any, init_bound: Any, history: Matrix | None,
    similarity: Matrix | None, seen: Lists | None, deny: Lists | None, allow: Lists | None,
) -> tuple[Any, Any]:  # fmt: skip
    """(scores float32 [B, k], rows int64 [B, k]) on the device; queries float32 [B, D] and bias are there already."""
    import torch

    native = _cuda.RUNTIME.native()
    _cuda.most("score_topk", "k", k, native.most_topk)
    device, B, N = queries.device, len(queries), len(items.rows)
    most = 1 if bias is not None else 0
    if history is not None and similarity is not None:
        most += int(np.diff(history.indptr).max(initial=0)) * similarity.repeats
    pad = pads(queries, items, init_bound, most)
    parts = _cuda.splits(B, N, device)
    keys = _cuda.empty((parts, B, native.topk_capacity(k)), torch.int64, device)
    counts = _cuda.empty((parts, B), torch.int32, device)
    scores = _cuda.empty((B, k), torch.float32, device)
    rows = _cuda.empty((B, k), torch.int64, device)
    lists = {
        name: _cuda.Csr(x, device)
        for name, x in (
            ("history", history), ("similarity", similarity), ("seen", seen), ("deny", deny), ("allow", allow)
        )
    }  # fmt: skip
    _cuda.call(
        "score_topk",
        device,
        screen=_screen_of(items)[0],
        queries=_cuda.address(queries),
        items=int(items.rows.data_ptr()),
        item_stride=items.rows.stride(0) if N > 1 else items.rows.shape[1],
        B=B,
        N=N,
        D=queries.shape[1],
        k=k,
        bias=_cuda.address(bias),
        **{name: x.addresses() for name, x in lists.items()},
        pad=_cuda.address(pad),
        splits=parts,
        keys=_cuda.address(keys),
        counts=_cuda.address(counts),
        scores=_cuda.address(scores),
        rows=_cuda.address(rows),
    )
    return scores, rows


def of_host(problem: "Problem", threads: int = 1) -> tuple[F32, I64]:
    """A problem in arrays of the host, answered there."""
    s = problem.scoring
    device = _cuda.RUNTIME.device()
    scores, rows = search(
        _cuda.to_device(s.queries, device),
        of_packed(s.items, device),
        problem.k,
        None if s.bias is None else _cuda.to_device(s.bias, device),
        _cuda.to_device(s.init_bound, device),
        s.history,
        s.similarity,
        problem.seen,
        problem.deny,
        problem.allow,
    )
    return scores.cpu().numpy(), rows.cpu().numpy()


def check_queries(where: str, queries: Any, items: DeviceItems, init_bound: Any) -> Any:
    """Queries as float32 [B, D], contiguous, or DataError. Waits for the device: NaN must not become an answer."""
    if queries.ndim != 2 or queries.shape[1] != items.rows.shape[1] or not queries.dtype.is_floating_point:
        kind = f"dtype {queries.dtype} and shape {tuple(queries.shape)}"
        raise DataError(f"[{where}] queries has {kind}, expected floats [any, {items.rows.shape[1]}]")
    queries = queries.detach().float().contiguous()
    _finite(where, "queries", queries, 0)
    total = queries.double().square().sum(1).sqrt() * items.max_norm + init_bound
    if total.numel() and float(total.max()) > LARGEST_SCORE:
        row = int(total.argmax())
        raise DataError(
            f"[{where}] scores of queries row {row} may reach {float(total[row]):.3g}, beyond float32; "
            f"expected |query| * |item| + |sparse| + |bias| below {LARGEST_SCORE:.0e}",
            column="queries",
            row=row,
        )
    return queries
