"""Progress of long work: a bar on a terminal, log lines elsewhere, nothing where it is off."""

import logging
import sys
import time
from types import TracebackType
from typing import Any

_LOG_SECONDS = 10.0


class Progress:
    """Counts what is done: ``with Progress("encode", total, show) as progress: progress.add(n)``.

    unit: what is counted, in the singular
    """

    def __init__(
        self, what: str, total: int, show: bool, *, unit: str = "text", logger: str = "fastrec.encode"
    ) -> None:
        self._what, self._total, self._show, self._unit = what, total, show, unit
        self._done = self._before = 0
        self._log = logging.getLogger(logger)
        self._bar: Any = None
        self._begun = self._said = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._show and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, initial=self._done, desc=self._what, unit=self._unit, unit_scale=True)
        return self

    def skip(self, n: int) -> None:
        """So many were done by an earlier run, before this one begins: they say nothing of the rate."""
        self._done = self._before = n

    def add(self, n: int) -> None:
        self._done += n
        if self._bar is not None:
            self._bar.update(n)
        elif self._show and (self._done == self._total or time.monotonic() - self._said >= _LOG_SECONDS):
            self._said = time.monotonic()
            rate = (self._done - self._before) / max(self._said - self._begun, 1e-9)
            said = (self._what, self._done, self._total, self._unit, rate)
            self._log.info("[%s] %d of %d %ss, %.0f a second", *said)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
