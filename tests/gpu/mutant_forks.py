"""Runs the tests of mutants on Triton's interpreter, each in a fork of a process that has imported torch once.

Started by mutate.py: in comes a line of JSON (file of the mutant, tests, file for the output), out the exit status.
"""

import json
import os
import sys

import interp_fix  # noqa: F401
import mutate
import numpy.testing  # noqa: F401
import pytest
import torch

import fastrec.ops  # noqa: F401

torch.set_num_threads(1)
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    mutant, tests, output = json.loads(line)
    child = os.fork()
    if child == 0:
        log = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["MUTANT_FILE"] = mutant
        mutate.limit_cpu()
        status = 70
        try:
            status = int(pytest.main(tests))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
    answers.flush()
