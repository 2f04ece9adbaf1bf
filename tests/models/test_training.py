"""The loss of Sequential against its definition, its negatives, and a training that is killed and goes on."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from fastrec import ArtifactError, Sequential
from fastrec.models import _checkpoint
from fastrec.models._loss import sampled_softmax
from fastrec.models._network import Dropout
from fastrec.models._sequences import Negatives
from fastrec.types import Interactions

SETTINGS = Sequential(width=16, length=12, epochs=8, batch_tokens=256, learning_rate=0.02, dropout=0.2, patience=99)


def data():
    rng = np.random.default_rng(5)
    lengths = rng.integers(3, 15, 220)
    items = np.concatenate([(rng.integers(30) + np.arange(n)) % 30 for n in lengths]).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Interactions(indptr, items, np.arange(len(items), dtype=float), np.ones(len(items), np.float32), 30)


def definition(states, items, targets, drawn, log_expected, temperature):
    rows = -(-len(states) // len(drawn))
    total = 0.0
    for t, (state, target) in enumerate(zip(states, targets, strict=True)):
        s = items @ state / temperature
        others = [s[j] - log_expected[j] for j in drawn[t // rows] if j != target]
        total = total + torch.logsumexp(torch.stack([s[target], *others]), 0) - s[target]
    return total


@pytest.mark.parametrize(("T", "sets"), [(1, 1), (7, 1), (7, 3), (4, 3)])
def test_sampled_softmax_and_its_gradients(T, sets):
    torch.manual_seed(T + sets)
    states, items = torch.randn(T, 5, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    targets, drawn = torch.randint(0, 9, (T,)), torch.randint(0, 9, (sets, 6))
    log_expected = torch.randn(9, dtype=torch.float64)
    gradients = []
    for loss in (sampled_softmax, definition):
        arrays = [a.clone().requires_grad_() for a in (states, items)]
        value = loss(*arrays, targets, drawn, log_expected, 0.3)
        gradients.append((float(value.detach()), *torch.autograd.grad(3 * value, arrays)))
    (one, *ours), (other, *theirs) = gradients
    assert one == pytest.approx(other)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_all_items_as_negatives_give_the_full_softmax():
    torch.manual_seed(0)
    states, items, targets = torch.randn(6, 4), torch.randn(8, 4), torch.randint(0, 8, (6,))
    got = sampled_softmax(states, items, targets, torch.arange(8)[None], torch.zeros(8), 0.5)
    want = torch.nn.functional.cross_entropy(states @ items.T / 0.5, targets, reduction="sum")
    torch.testing.assert_close(got, want)


def test_negatives_come_as_often_as_expected():
    items = np.repeat([0, 1, 3], [100, 25, 4])
    negatives = Negatives(items, 5, 0.5, 16)
    drawn = negatives.draw(np.random.default_rng(0), 2000)
    assert drawn.shape == (2000, 16)
    counts = np.bincount(drawn.ravel(), minlength=5) / 2000
    assert counts[2] == counts[4] == 0
    np.testing.assert_allclose(counts[[0, 1, 3]], 16 * np.array([10, 5, 2]) / 17, rtol=0.02)
    np.testing.assert_allclose(np.exp(negatives.log_expected), [160 / 17, 80 / 17, 0, 32 / 17, 0], rtol=1e-5)


def test_dropout():
    x = torch.ones(400, 50)
    out = Dropout(0.25, 1, 2)(x)
    assert out.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert float(out.mean()) == pytest.approx(1, abs=0.03)
    assert torch.equal(out, Dropout(0.25, 1, 2)(x)) and not torch.equal(out, Dropout(0.25, 1, 3)(x))
    assert Dropout(0.0, 1)(x) is x


# ---- checkpoints


def same(one, other):
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert one.epochs == other.epochs and one.parameters.keys() == other.parameters.keys()
    for name, array in one.parameters.items():
        np.testing.assert_array_equal(array, other.parameters[name])


def test_a_training_killed_by_a_signal_ends_as_if_nothing_had_been(tmp_path):
    whole = SETTINGS.fit(data(), None, "next")
    # The child trains what this process does, and is killed behind the third pass.
    code = f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import test_training as t
        from fastrec.models import _training
        step, epochs = _training._Run.one_epoch, []
        def slow(run):
            if run.epoch == 3:
                print("there", flush=True)
                time.sleep(600)
            step(run)
        _training._Run.one_epoch = slow
        t.dataclasses.replace(t.SETTINGS, checkpoint={str(tmp_path)!r}).fit(t.data(), None, "next")
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "there\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    settings = dataclasses.replace(SETTINGS, checkpoint=str(tmp_path))
    (file,) = tmp_path.glob("*.safetensors")
    assert _checkpoint.read(file)[1]["epoch"] == 3
    same(settings.fit(data(), None, "next"), whole)
    start = time.perf_counter()
    same(settings.fit(data(), None, "next"), whole)  # all there already
    assert time.perf_counter() - start < 60


def test_a_checkpoint_is_for_its_settings_and_data_alone(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=2, checkpoint=str(tmp_path))
    settings.fit(data(), None, "next")
    dataclasses.replace(settings, seed=1).fit(data(), None, "next")
    settings.fit(data(), None, "period")
    half = data().take(np.arange(110))
    same(settings.fit(half, None, "next"), dataclasses.replace(settings, checkpoint=None).fit(half, None, "next"))
    assert len(list(tmp_path.iterdir())) == 4


def test_a_damaged_checkpoint_is_named(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=2, checkpoint=str(tmp_path))
    settings.fit(data(), None, "next")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"is no checkpoint .*delete it to begin again"):
        settings.fit(data(), None, "next")
