"""Progress of long work: a bar on a terminal, log lines elsewhere, nothing where it is off."""

import logging
import sys
import time
from types import TracebackType
from typing import Any

_LOG = logging.getLogger("fastrec.encode")
_LOG_SECONDS = 10.0


class Progress:
    """Counts texts: ``with Progress("encode", total, show) as progress: progress.add(n)``."""

    def __init__(self, what: str, total: int, show: bool) -> None:
        self._what, self._total, self._show = what, total, show
        self._done = 0
        self._bar: Any = None
        self._begun = self._said = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._show and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc=self._what, unit="text", unit_scale=True)
        return self

    def add(self, n: int) -> None:
        self._done += n
        if self._bar is not None:
            self._bar.update(n)
        elif self._show and (self._done == self._total or time.monotonic() - self._said >= _LOG_SECONDS):
            self._said = time.monotonic()
            rate = self._done / max(self._said - self._begun, 1e-9)
            _LOG.info("[%s] %d of %d texts, %.0f a second", self._what, self._done, self._total, rate)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
