"""Frames, errors on their way between processes, and logging as the front does."""

import io
import logging
import pickle
import subprocess
import sys

import pyarrow as pa
import pytest

from fastrec import errors
from fastrec.serve import process
from fastrec.serve.calls import Call


def test_frames_are_read_as_they_were_written():
    messages = [None, Call("rank", ["u1"], 3, {}, True, ["i1"]), (7, b"x" * 100_000), []]
    file = io.BytesIO(b"".join(process.frame(m) for m in messages))
    assert [process.read(file) for _ in messages] == messages
    with pytest.raises(EOFError):
        process.read(file)


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError("[recommend] k=0"),
        errors.DataError("[update] price: no", column="price", row=3),
        errors.NotFittedError("[recommend] no model"),
        errors.UnknownIdError("rank", "item", ["i1", 7]),
        errors.ArtifactError("[load] damaged"),
        errors.BackendUnavailable("topk", "cuda", "no GPU", "get one"),
        MemoryError("no room"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_every_error_arrives_as_it_was(error):
    for came in (process.sendable(error), pickle.loads(pickle.dumps(error))):
        assert type(came) is type(error)
        assert str(came) == str(error)
        assert vars(came) == vars(error)


def test_an_error_that_cannot_be_sent_is_told_by_its_name():
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} {b}")

    def fail():
        raise Odd(1, 2)

    came = process.outcome(fail)
    assert type(came) is RuntimeError and str(came) == "Odd: 1 2"


def test_a_bug_brings_its_traceback_and_a_refusal_does_not():
    def fail(error):
        raise error

    assert "in fail" in pickle.loads(pickle.dumps(process.outcome(fail, ValueError("x")))).__notes__[0]
    assert not hasattr(process.outcome(fail, errors.ConfigError("[x] y")), "__notes__")
    assert process.outcome(int, "7") == 7


def test_levels_of_logging_go_to_the_other_process():
    code = (
        "import logging, sys\n"
        "from fastrec.serve.process import log_as, log_levels\n"
        "assert log_levels() == {}\n"
        "log_as({})\n"
        "log_as({'': logging.INFO, 'quiet': logging.ERROR})\n"
        "assert log_levels()[''] == logging.INFO and log_levels()['quiet'] == logging.ERROR\n"
        "logging.getLogger('loud').info('heard')\n"
        "logging.getLogger('quiet').warning('not heard')\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == "heard\n"
    assert logging.getLogger().handlers, "pytest's own"
    assert "" in process.log_levels()


def test_errors_of_other_packages_bring_their_names_alone():
    def fail():
        raise pa.ArrowInvalid("no such type")  # the front may lack, or have to import for seconds, what it is made of

    came = process.outcome(fail)
    assert type(came) is RuntimeError and str(came) == "ArrowInvalid: no such type" and "in fail" in came.__notes__[0]


def test_half_a_frame_is_the_end():
    whole = process.frame("x" * 100)
    for size in (0, 3, process.HEAD.size, len(whole) - 1):
        with pytest.raises(EOFError):
            process.read(io.BytesIO(whole[:size]))
