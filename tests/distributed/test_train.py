"""Two processes over gloo train what one trains."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import fastrec
from fastrec.distributed import train
from fastrec.models import _team

#: Sums in another order give other last bits (6e-8 after the four steps of the test), which further steps may grow.
TOLERANCE = 1e-5
SETTINGS = {"name": "sequential", "epochs": 4, "stop": 4, "width": 16, "layers": 1, "batch_tokens": 12000, "seed": 5}


def test_two_processes_train_what_one_does(tmp_path):
    rng = np.random.default_rng(1)
    n = 1400
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(n), 9),
            "item_id": ((np.arange(n)[:, None] % 7) + 7 * rng.integers(0, 12, (n, 9))).ravel(),
            "timestamp": np.arange(9 * n),
        }
    )
    frame.write_parquet(tmp_path / "e.parquet")
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "fastrec.distributed.train", str(tmp_path / "e.parquet"), "--out", str(tmp_path / "two")]
    done = subprocess.run([*command, "--models", json.dumps([SETTINGS])], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes share its steps" in done.stderr
    two = fastrec.load(tmp_path / "two")
    one = fastrec.Recommender(encoder=None, models=[SETTINGS]).fit(tmp_path / "e.parquet")
    other = fastrec.Recommender(encoder=None, models=[{**SETTINGS, "seed": 6}]).fit(tmp_path / "e.parquet")
    got, want, foreign = (r._live.state.sources[0] for r in (two, one, other))
    assert np.abs(got.vectors - want.vectors).max() < TOLERANCE
    assert np.abs(foreign.vectors - want.vectors).max() > 100 * TOLERANCE
    for name, value in want.parameters.items():
        np.testing.assert_allclose(got.parameters[name], value, atol=10 * TOLERANCE, err_msg=name)


def test_alone_nothing_is_shared():
    alone = _team.Team.here()
    assert (alone.rank, alone.size, list(alone.mine(3))) == (0, 1, [0, 1, 2])
    assert [list(_team.Team(r, 3).mine(7)) for r in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]


def test_it_is_started_by_torchrun(capsys):
    if "RANK" in os.environ:
        pytest.skip("this process is one of torchrun's")
    assert train.main(["e.parquet", "--out", "m"]) == 2
    assert "start it with torchrun" in capsys.readouterr().err
