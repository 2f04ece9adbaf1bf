"""The Triton kernels compiled for a GPU that is not here, through their own wrappers, on tensors without memory.

python tests/gpu/triton_aot.py PART PARTS 80,90 [--full]      # last line: JSON, one object for each kernel and variant
"""

import contextlib
import hashlib
import inspect
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import ptxas_budget
import torch
import triton
from aot_hook import aot
from fastrec.kernels import (
    add_layer_norm,
    attention_backward,
    attention_varlen,
    bias_gelu,
    pool_normalize,
    sampled_softmax,
)
from triton import knobs

HERE = Path(__file__).resolve().parent
KEPT = HERE.parents[1] / "build" / "aot"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
NAMES = {F32: "f32", F16: "f16", BF16: "bf16"}


def meta(*shape, dtype=F32):
    return torch.empty(*shape, dtype=dtype, device="meta")


def attention(dtype, head_size, causal, extra="", backward=False):
    q, k = meta(300, 4, head_size, dtype=dtype), meta(300, 2, head_size, dtype=dtype)
    cu = meta(5, dtype=torch.int32)
    relative = meta(4, 201) if extra == "relative" else None
    rotary = (meta(300, head_size // 2), meta(300, head_size // 2)) if extra == "rotary" else None
    how = {"causal": causal, "relative": relative}
    if not backward:
        attention_varlen.forward(q, k, k, cu, 100, rotary=rotary, **how)
    else:
        attention_backward.backward(q, k, k, q, q, meta(4, 300), cu, 100, scale=None, **how)


def norm(dtype, columns, more):
    x, row = meta(300, columns, dtype=dtype), meta(columns)
    add_layer_norm.add_layer_norm(x, row, row, row if more else None, x if more else None, 1e-5)


def gelu(dtype, kind):
    bias_gelu.bias_gelu(meta(300, 1536, dtype=dtype), meta(1536), kind)


def swiglu(dtype):
    ab = meta(300, 512, dtype=dtype).requires_grad_()
    torch.autograd.grad(bias_gelu.swiglu(ab), ab, meta(300, 256, dtype=dtype))


def pool(dtype, columns, pooling):
    pool_normalize.pool_normalize(meta(300, columns, dtype=dtype), meta(5, dtype=torch.int32), pooling, True)


def loss(dtype, columns):
    x, ids = meta(300, columns, dtype=dtype), meta(300, dtype=torch.int64)
    others = meta(2, 128, columns, dtype=dtype)
    sampled_softmax.sampled_softmax(x, x, others, ids, meta(2, 128, dtype=torch.int64), meta(2, 128), 14.0)


def variants(full):
    """(what calls it, name, function without arguments): what covers kernels, types, head sizes and options, or all."""
    for dtype, name in NAMES.items():
        for d in (32, 64, 96, 128):
            for causal in (False, True):
                if full or causal == (d in (64, 128)):
                    yield attention, f"{name} {d} causal={causal}", lambda t=dtype, d=d, c=causal: attention(t, d, c)
            if full or dtype != F16:
                yield attention, f"{name} {d} backward", lambda t=dtype, d=d: attention(t, d, True, backward=True)
        yield norm, f"{name} 384", lambda t=dtype: norm(t, 384, True)
        yield gelu, f"{name} erf", lambda t=dtype: gelu(t, "erf")
        yield pool, f"{name} mean 384", lambda t=dtype: pool(t, 384, 0)
        yield swiglu, f"{name} glu", lambda t=dtype: swiglu(t)
        for d in (64, 128, 256):
            if full or d == 64 or dtype != F16:
                yield loss, f"{name} {d}", lambda t=dtype, d=d: loss(t, d)
    back = {"extra": "relative", "backward": True}
    for dtype in NAMES if full else (F32, BF16):
        name = NAMES[dtype]
        for d in (32, 64, 96, 128) if full else (64,):
            yield attention, f"{name} {d} relative", lambda t=dtype, d=d: attention(t, d, False, "relative")
            yield attention, f"{name} {d} backward relative", lambda t=dtype, d=d: attention(t, d, False, **back)
        for d in (32, 64, 96, 128) if full else (64, 128):
            yield attention, f"{name} {d} rotary", lambda t=dtype, d=d: attention(t, d, True, "rotary")
    yield norm, "bf16 4096 plain", lambda: norm(BF16, 4096, False)
    yield gelu, "bf16 tanh", lambda: gelu(BF16, "tanh")
    yield pool, "bf16 last 1024", lambda: pool(BF16, 1024, 2)


def compiled(arch, variant, run):
    """One row for each kernel that a call launches."""
    log = io.StringIO()
    with aot(arch) as launches, contextlib.redirect_stdout(log):
        run()
    # ptxas as Triton calls it, with the flags that a user's kernel gets.
    rows = {row["name"]: row for row in ptxas_budget.parse(log.getvalue())}
    assert len(rows) == len(launches) > 0, (variant, arch)
    for launch in launches:
        row, metadata, ptx = rows[launch.name], launch.compiled.metadata, launch.compiled.asm["ptx"]
        row |= {"variant": variant, "dynamic_smem": metadata.shared, "threads": 32 * metadata.num_warps}
        row["static_smem"] = 0  # Triton's shared memory is all dynamic; ptxas counts what the PTX declares
        row["arch"] = arch
        if launch.name.startswith(("_attention", "_sampled")):
            # 16-bit inputs must reach the tensor cores, and float32 must not be cut to tf32.
            if variant.startswith("f32"):
                assert "tf32" not in ptx, (variant, launch.name)
            else:
                assert any(x in ptx for x in ("mma.sync", "wgmma.mma_async", "tcgen05.mma")), (variant, launch.name)
    return list(rows.values())


#: Sources of the kernels that a function above calls.
SOURCES = {attention: "attention_*", norm: "add_layer_norm", gelu: "bias_gelu", swiglu: "bias_gelu"}
SOURCES |= {pool: "pool_normalize", loss: "sampled_softmax"}


def key(arch, caller, variant):
    """A name for all that decides what is compiled: a second run compiles what has changed, a fresh clone all of it."""
    said = (arch, variant, triton.__version__, sys.version, inspect.getsource(caller))
    state = hashlib.sha256(repr(said).encode())
    for path in (*sorted((HERE.parents[1] / "kernels").glob(SOURCES[caller] + ".py")), HERE / "aot_hook.py"):
        state.update(path.read_bytes())
    return state.hexdigest()[:24]


def main(part, parts, archs, full):
    knobs.nvidia.dump_ptxas_log = True
    knobs.compilation.always_compile = True  # a cached kernel has no log
    jobs = [(arch, *v) for v in variants(full) for arch in archs]
    rows = []
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        knobs.cache.dir = cache
        for job in jobs[part::parts]:
            path = KEPT / f"{key(*job[:3])}.json"
            if not path.exists():
                part_path = path.with_suffix(f".{os.getpid()}.part")
                part_path.write_text(json.dumps(compiled(job[0], *job[2:])))
                part_path.rename(path)
            rows += json.loads(path.read_text())
    print(json.dumps(rows))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [int(a) for a in sys.argv[3].split(",")], "--full" in sys.argv)
