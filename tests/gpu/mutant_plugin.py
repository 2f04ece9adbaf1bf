"""Puts the file named by MUTANT_FILE in the place of the Triton kernels of that name; loaded by mutate.py only."""

import importlib.util
import os
import sys
from pathlib import Path

if os.environ.get("TRITON_INTERPRET") == "1":
    import interp_fix  # noqa: F401

import fastrec.kernels

path = Path(os.environ["MUTANT_FILE"])
spec = importlib.util.spec_from_file_location(f"fastrec.kernels.{path.stem}", path)
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
setattr(fastrec.kernels, path.stem, module)
