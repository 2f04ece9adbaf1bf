"""benchmarks/gpu.py starts: it verifies on the emulator, and without a device it says why it measures nothing."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastrec.ops import _cuda

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.usefixtures("emulated_module")
def test_on_the_emulator_it_verifies_and_measures_nothing():
    out = subprocess.run([sys.executable, PROGRAM, "--emulate"], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    # scripts/check-gpu runs this too, with Triton installed.
    assert len(rows) == (4 if importlib.util.find_spec("triton") is None else 7)
    assert all(row["verified"] and "ms" not in row for row in rows)


def test_without_a_device_it_says_why():
    gap = _cuda.missing()
    if gap is None:
        pytest.skip("there is a device")
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True)
    assert done.returncode == 77 and done.stdout == f"skipped: {gap[0]}; {gap[1]}\n"
