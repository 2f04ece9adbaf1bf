"""Level amx with its tiles in software (amx_model.h): machines that have them are rare."""

import subprocess
import sys

import amx_model
import pytest

from fastrec import _native


@pytest.fixture(scope="module")
def module():
    reason = amx_model.missing(_native._C.simd_levels() if _native._C is not None else [])
    if reason:
        pytest.skip(f"the model of AMX cannot be built or run: {reason}")
    return amx_model.build()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["fuzz_topk.py --level amx --cases 500", "fuzz_encode.py --cases 200"])
def test_random_cases_at_level_amx(module, script):
    command = [sys.executable, *script.split(), "--module", str(module)]
    done = subprocess.run(command, cwd=amx_model.ROOT / "tests" / "ops", text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
