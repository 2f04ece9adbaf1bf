"""The CUDA operators through their public functions: in the emulator everywhere, on a device where there is one."""

import gc

import emulator
import numpy as np
import pytest
import torch
from emulator import on_device

from fastrec import ops
from fastrec.errors import BackendUnavailable, DataError, KernelError
from fastrec.ops import _cases, _cuda, _cuda_topk

NAMES = [name for name, op in sorted(ops.CATALOGUE.items()) if "cuda" in op.backends]
CASES = [
    pytest.param(name, case, id=f"{name}-" + "-".join(f"{k}{v}" for k, v in case.items()))
    for name in NAMES
    for case in ops.CATALOGUE[name].cases
    if case.get("k", 0) <= 1024 and case.get("N", 0) <= 2000
]


def compare(name, case):
    """The results of backend "cuda" beside those of the reference."""
    args, kwargs = _cases.make(name, case)
    run = getattr(ops, name)
    got, want = (run(*args, **kwargs, backend=backend) for backend in ("cuda", "reference"))
    exact = name in ("score_topk", "mmr") or (name == "segment_mean" and not kwargs["normalize"])
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, want)), strict=True):
        assert a.dtype == b.dtype
        if exact:
            np.testing.assert_array_equal(a, b, strict=True)
        else:  # squares are added in another order; float16 may round to the other side of a tie
            np.testing.assert_allclose(a, b, rtol=1e-6 if a.dtype == np.float32 else 1e-3, atol=1e-7, strict=True)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_emulator_gives_the_reference(name, case):
    compare(name, case)


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_device_gives_the_reference(name, case):
    compare(name, case)


def problem(seed=0, B=9, N=300, D=20):
    rng = np.random.default_rng(seed)
    queries, items = (rng.standard_normal((n, D)).astype(np.float32) for n in (B, N))
    extra = {"bias": rng.standard_normal(N).astype(np.float32), "seen": _cases.lists(rng, B, N, 30)}
    extra["sparse"] = (_cases.matrix(rng, B, 12, 5), _cases.matrix(rng, 12, N, 40))
    return queries, items, extra


def check_on_device(put, k=7):
    """score_topk over arrays that ``put`` has put on a device, in three dtypes."""
    queries, items, extra = problem()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        low = torch.from_numpy(items).to(dtype)
        want = ops.score_topk(queries, low.float().numpy(), k, **extra)
        scores, rows = ops.score_topk(put(queries), put(low), k, **extra)
        assert isinstance(scores, torch.Tensor)
        # Items are read as they are, and the scores of what passes the screen follow the definition.
        np.testing.assert_array_equal(rows.cpu().numpy(), want[1])
        np.testing.assert_array_equal(scores.cpu().numpy(), want[0])


@pytest.mark.usefixtures("emulated")
def test_arrays_on_the_emulated_device_stay_there():
    check_on_device(on_device)


@pytest.mark.gpu
def test_arrays_on_a_device_stay_there(device):
    check_on_device(lambda x: torch.as_tensor(x).to(device))


@pytest.mark.usefixtures("emulated")
def test_masks_and_wide_rows():
    queries, items, _ = problem()
    wide = on_device(np.concatenate([items, np.full_like(items, np.nan)], axis=1))[:, :20]
    mask = np.arange(300) % 3 == 0
    want = ops.score_topk(queries, items, 5, allow=mask, deny=np.arange(300) % 2 == 0)
    got = ops.score_topk(on_device(queries), wide, 5, allow=on_device(mask), deny=np.arange(300) % 2 == 0)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)


@pytest.mark.usefixtures("emulated")
def test_queries_that_the_screen_cannot_hold():
    queries, items, _ = problem()
    queries[3] *= 1e6  # beyond float16
    queries[4] *= 1e-9  # subnormal there
    low = torch.from_numpy(items).half()
    want = ops.score_topk(queries, low.float().numpy(), 5)
    got = ops.score_topk(on_device(queries), on_device(low), 5)
    np.testing.assert_array_equal(got[1].numpy(), want[1])


@pytest.mark.usefixtures("emulated")
def test_without_tf32_the_screen_is_float32(monkeypatch):
    """On a device before compute capability 8.0: the plain screen, a smaller pad, the same answer."""
    queries, items, extra = problem()
    want = ops.score_topk(queries, items, 7, **extra)
    device = _cuda_topk.of_tensor("test", torch.from_numpy(items))
    pads, screens = [], []
    call = _cuda.call

    def recorded(op, device, **arguments):
        screens.append(arguments["screen"])
        call(op, device, **arguments)

    monkeypatch.setattr(_cuda, "call", recorded)
    for has in (True, False):
        monkeypatch.setattr(_cuda.RUNTIME, "has_tf32", lambda device, has=has: has)
        pads.append(_cuda_topk.pads(torch.from_numpy(queries), device, torch.zeros(9), 0))
        got = ops.score_topk(on_device(queries), on_device(items), 7, **extra)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a.numpy(), b)
    assert screens == [1, 0] and (pads[1] < pads[0] / 50).all()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_pad_bounds_what_the_screen_may_be_wrong_by(dtype):
    rng = np.random.default_rng(5)
    queries = torch.from_numpy(rng.standard_normal((50, 33)) * 10.0 ** rng.uniform(-6, 3, (50, 1))).float()
    items = torch.from_numpy(rng.standard_normal((400, 33)) * 10.0 ** rng.uniform(-4, 2, (400, 1))).to(dtype)
    device = _cuda_topk.of_tensor("test", items)
    pad = _cuda_topk.pads(queries, device, torch.zeros(50), 0)
    if dtype == torch.float32:  # as csrc/mma_tile.cuh rounds to tf32
        rounded = [((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32) for x in (queries, items)]
    else:
        rounded = [queries.to(dtype).float(), items.float()]
    error = (rounded[0] @ rounded[1].T - queries.double() @ items.double().T).abs().amax(1)
    assert (error <= pad).all()
    # A bound that bounds everything would make the walk a full search. (float16 has subnormals to pay for.)
    rough = {torch.float32: 2.0**-9, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-7}[dtype]
    length = queries.double().norm(dim=1) * items.double().norm(dim=1).max()
    assert (pad <= rough * length + 1e-3).all()


@pytest.mark.usefixtures("emulated")
def test_bad_input_on_the_device():
    queries, items, _ = problem()
    for name, bad in (("queries", queries.copy()), ("items", items.copy())):
        bad[2, 3] = np.nan
        args = {"queries": queries, "items": items} | {name: bad}
        with pytest.raises(DataError, match=rf"\[score_topk\] {name} row 2 is not finite"):
            ops.score_topk(on_device(args["queries"]), on_device(args["items"]), 3)
    with pytest.raises(DataError, match=r"queries has dtype torch.float32 and shape \(9, 19\), expected floats"):
        ops.score_topk(on_device(queries[:, :19]), on_device(items), 3)
    with pytest.raises(DataError, match=r"items has dtype torch.int64"):
        ops.score_topk(on_device(queries), on_device(items.astype(np.int64)), 3)
    with pytest.raises(DataError, match="may reach"):
        ops.score_topk(on_device(queries * 1e37), on_device(items * 100), 3)


@pytest.mark.usefixtures("emulated")
def test_items_are_looked_at_once_and_again_when_they_change():
    queries, items, _ = problem()
    q, i = on_device(queries), on_device(items)
    ops.score_topk(q, i, 3)
    known = _cuda_topk._tensors[id(i)]
    ops.score_topk(q, i, 3)
    assert _cuda_topk._tensors[id(i)] is known
    i[0] = 1000 * q[0]
    assert ops.score_topk(q, i, 3)[1][0, 0] == 0
    key = id(i)
    del i, known
    gc.collect()
    assert key not in _cuda_topk._tensors


@pytest.mark.usefixtures("emulated")
def test_other_libraries_come_in_and_go_out_by_dlpack(monkeypatch):
    class Array:
        """What CuPy offers: no tensor, no numpy array, memory of the device by DLPack."""

        def __init__(self, x):
            self.x = x

        def __dlpack__(self, **kwargs):
            return self.x.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self.x.__dlpack_device__()

        def __array_namespace__(self):
            return np

    monkeypatch.setattr(emulator.Emulated, "is_on", lambda self, x: True)
    given, call = {}, _cuda.call

    def recorded(op, device, **arguments):
        given.update(arguments)
        call(op, device, **arguments)

    monkeypatch.setattr(_cuda, "call", recorded)
    queries, items, _ = problem()
    want = ops.score_topk(torch.from_numpy(queries), torch.from_numpy(items), 5)
    for wrap in (Array, lambda x: Array(torch.from_numpy(x))):  # numpy's DLPack, and torch's
        got = ops.score_topk(wrap(queries), wrap(items), 5)
        assert isinstance(got[0], np.ndarray) and isinstance(got[1], np.ndarray)
        np.testing.assert_array_equal(got[1], want[1].numpy())
        # The kernel was given the memory of the caller: no copy was made on the way.
        assert (given["queries"], given["items"]) == (queries.ctypes.data, items.ctypes.data)
    features = ops.segment_mean(Array(items), _cases.matrix(np.random.default_rng(0), 4, 300, 5))
    assert isinstance(features, np.ndarray)


@pytest.mark.usefixtures("emulated")
def test_features_stay_on_the_device():
    rng = np.random.default_rng(3)
    values, segments = rng.standard_normal((40, 9)).astype(np.float32), _cases.matrix(rng, 6, 40, 9)
    mean = ops.segment_mean(on_device(values), segments)
    np.testing.assert_allclose(mean.numpy(), ops.segment_mean(values, segments), rtol=1e-6, atol=1e-7)
    parts = [(values, np.arange(7), rng.standard_normal(7)), (values[:7], None, None)]
    fused = ops.fuse_features([(on_device(v), r, s) for v, r, s in parts], normalize=True)
    np.testing.assert_allclose(fused.numpy(), ops.fuse_features(parts, normalize=True), rtol=1e-6, atol=1e-7)
    values[5, 2] = np.inf
    with pytest.raises(DataError, match="values 0 row 5 is not finite"):
        ops.fuse_features([(on_device(values), np.arange(7), None)])
    with pytest.raises(DataError, match="values row 5 is not finite"):
        ops.segment_mean(on_device(values), (np.array([0, 1]), np.array([5]), np.array([1.0])))


@pytest.mark.usefixtures("emulated")
def test_limits_of_the_kernels(caplog):
    queries, items, _ = problem()
    with pytest.raises(BackendUnavailable, match="k=1025, the kernel takes at most 1024"):
        ops.score_topk(queries, items, 1025, backend="cuda")
    wide = np.zeros((1, 6001), np.float32)
    with pytest.raises(BackendUnavailable, match="dimensions=6001, the kernel takes at most 6000"):
        ops.fuse_features([(wide, None, None)], backend="cuda")
    with pytest.raises(BackendUnavailable, match="dimensions=6001"):
        ops.segment_mean(wide, (np.array([0]), np.array([], int), np.array([])), backend="cuda")
    with pytest.raises(BackendUnavailable, match="parts=17"):
        ops.fuse_features([(wide[:, :1], None, None)] * 17, backend="cuda")
    pool = np.zeros((1, 1025), int)
    with pytest.raises(BackendUnavailable, match="pool=1025"):
        ops.mmr(wide, pool, pool.astype(float), 1, diversity=0.5, backend="cuda")


@pytest.mark.usefixtures("emulated")
def test_a_launch_that_fails_is_an_error(monkeypatch):
    queries, items, _ = problem()
    monkeypatch.setattr(_cuda, "splits", lambda *args: 0)
    with pytest.raises(KernelError, match=r"\[score_topk\] the CUDA kernel was not launched: invalid"):
        ops.score_topk(queries, items, 3, backend="cuda")


def test_without_a_device_the_backend_says_why_and_what_helps():
    gap = _cuda.missing()
    if gap is None:
        pytest.skip("there is a device")
    queries, items, _ = problem()
    with pytest.raises(BackendUnavailable, match=r"\[score_topk\] backend 'cuda' is unavailable: .*Remedy: ") as caught:
        ops.score_topk(queries, items, 3, backend="cuda")
    assert (caught.value.reason, caught.value.remedy) == gap


def test_auto_falls_back_and_says_so_once(caplog, monkeypatch):
    class Broken(_cuda.Runtime):
        def native_gap(self):
            return ("the driver is gone", "bring it back")

        def is_on(self, x):
            return True

    monkeypatch.setattr(_cuda, "RUNTIME", Broken())
    monkeypatch.setattr(ops.CATALOGUE["score_topk"], "_told", set())
    queries, items, _ = problem()
    for _ in range(2):
        ops.score_topk(torch.from_numpy(queries), torch.from_numpy(items), 3)
    told = [r.message for r in caplog.records if "the driver is gone" in r.message]
    assert told == ["[score_topk] backend 'cuda' is unavailable (the driver is gone); falling back"]


def test_doctor_shows_every_gap():
    from fastrec.doctor import table

    text = table()
    for name in NAMES:
        (line,) = [x for x in text.splitlines() if x.split()[:2] == [name, "cuda"]]
        assert ("missing: " in line) == (_cuda.missing() is not None)
