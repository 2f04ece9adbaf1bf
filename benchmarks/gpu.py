"""The GPU operators on a GPU: verified first, then timed beside torch, and FAISS and flash-attn where installed.

    python benchmarks/gpu.py [--quick]

One line of JSON a row. Without a GPU it says why and ends with 77. `--emulate` runs the program on the emulator of
tests/gpu and Triton's interpreter, to know that it starts; the numbers of that mean nothing and are not printed.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from fastrec import ops
from fastrec.ops import _cuda
from fastrec.retrieve import faiss_gpu

ROOT = Path(__file__).resolve().parents[1]


def timed(run, device, rounds):
    """Milliseconds of a call: the 20th, 50th and 80th percentile."""
    import torch

    took = []
    for _ in range(rounds + 2):
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append((time.perf_counter() - begin) * 1e3)
    return [round(float(x), 4) for x in np.percentile(took[2:], (20, 50, 80))]


def topk(B, N, D, k, kind, put):
    """(name, our call, {peer: call}), verified against the CPU."""
    import torch

    rng = np.random.default_rng(0)
    queries, items = (rng.standard_normal((n, D)).astype(np.float32) for n in (B, N))
    q, i = put(torch.from_numpy(queries)), put(torch.from_numpy(items).to(getattr(torch, kind)))
    few = min(B, 4)
    want = ops.score_topk(queries[:few], i[:].float().cpu().numpy(), k)
    got = ops.score_topk(q, i, k)
    np.testing.assert_array_equal(np.asarray(got[1].cpu())[:few], want[1])
    peers = {"torch": lambda: torch.topk(q.to(i.dtype) @ i.T, min(k, N), dim=1)}
    if kind == "float32" and faiss_gpu.missing() is None:
        import faiss

        index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), D)
        index.add(items)
        peers["faiss"] = lambda: faiss_gpu.search(index, queries, k)
    return f"score_topk B={B} N={N} D={D} k={k} {kind}", lambda: ops.score_topk(q, i, k), peers


def segments(B, N, D, put):
    import torch

    rng = np.random.default_rng(0)
    values = rng.standard_normal((N, D)).astype(np.float32)
    indptr = np.arange(B + 1) * 20
    lists = (indptr, rng.integers(0, N, 20 * B).astype(np.int32), rng.random(20 * B).astype(np.float32))
    v = put(torch.from_numpy(values))
    np.testing.assert_allclose(ops.segment_mean(v, lists).cpu(), ops.segment_mean(values, lists), rtol=1e-5, atol=1e-6)
    rows, offsets, weights = (put(torch.from_numpy(x)) for x in (lists[1].astype(np.int64), indptr[:-1], lists[2]))

    def bag():
        return torch.nn.functional.embedding_bag(rows, v, offsets, mode="sum", per_sample_weights=weights)

    return f"segment_mean B={B} N={N} D={D}", lambda: ops.segment_mean(v, lists), {"torch": bag}


def attention(lengths, H, d, kind, put):
    """Causal attention over packed sequences; torch's own runs over the same sequences padded."""
    import torch

    dtype, cu = getattr(torch, kind), np.concatenate([[0], np.cumsum(lengths)])
    generator = torch.Generator().manual_seed(0)
    host = [torch.randn(cu[-1], H, d, generator=generator).to(dtype) for _ in range(3)]
    q, k, v = (put(x) for x in host)
    first = int(lengths[0])
    want = ops.attention_varlen(*(x[:first].float().numpy() for x in host), cu[:2], causal=True, backend="reference")
    got = ops.attention_varlen(q, k, v, cu, causal=True)
    within = 1e-5 if kind == "float32" else 2e-2  # the tolerance of tests/gpu/test_triton_kernels.py
    np.testing.assert_allclose(got[:first].float().cpu(), want, rtol=within, atol=within)

    def padded():
        batch = [torch.nn.utils.rnn.pad_sequence(x.split(list(map(int, lengths))), True) for x in (q, k, v)]
        return torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in batch), is_causal=True)

    peers = {"torch, padded": padded}
    if kind != "float32" and q.device.type == "cuda" and importlib.util.find_spec("flash_attn"):
        from flash_attn import flash_attn_varlen_func

        bounds, longest = put(torch.from_numpy(cu.astype(np.int32))), int(max(lengths))
        sizes = (bounds, bounds, longest, longest)
        peers["flash-attn"] = lambda: flash_attn_varlen_func(q, k, v, *sizes, causal=True)
    title = f"attention_varlen sequences={len(lengths)} tokens={cu[-1]} H={H} d={d} {kind}"
    return title, lambda: ops.attention_varlen(q, k, v, cu, causal=True), peers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--emulate", action="store_true", help="on the emulator: shows that the program starts")
    args = parser.parse_args()
    if args.emulate:
        sys.path.insert(0, str(ROOT / "tests" / "gpu"))
        import emulator

        if importlib.util.find_spec("triton") is not None:
            os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is imported
            import interp_fix  # noqa: F401
        _cuda.RUNTIME = emulator.Emulated(emulator.load())
    gap = _cuda.missing()
    if gap is not None:
        print(f"skipped: {gap[0]}; {gap[1]}")
        return 77
    import torch

    device = _cuda.RUNTIME.device()
    put = emulator.on_device if args.emulate else lambda x: x.to(device)
    small = args.quick or args.emulate
    sizes = [(3, 500, 16, 10)] if small else [(b, n, 128, 100) for b in (1, 64, 1024) for n in (10**5, 10**6)]
    problems = [lambda s=s, d=d: topk(*s, d, put) for s in sizes for d in ("float32", "float16", "bfloat16")]
    problems.append(lambda: segments(*((5, 40, 8) if small else (100_000, 10**6, 128)), put))
    if importlib.util.find_spec("triton") is not None:
        lengths = np.random.default_rng(0).integers(1, 20 if small else 512, 3 if small else 256)
        shape = (2, 16) if small else (12, 64)
        problems += [lambda t=t: attention(lengths, *shape, t, put) for t in ("float32", "float16", "bfloat16")]
    else:
        print("attention_varlen left out: triton is not installed", file=sys.stderr)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "emulator"
    for problem in problems:
        title, own, peers = problem()
        row = {"case": title, "device": name, "torch": torch.__version__, "verified": True}
        if device.type == "cuda":
            row["ms"] = timed(own, device, 20)
            row |= {peer: timed(call, device, 20) for peer, call in peers.items()}
        else:
            own()
            [call() for call in peers.values()]
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
