"""What an operator is: a name, its readable reference, its backends, its test cases and its tolerance.

``fastrec doctor``, the tests and the benchmarks all read this table; nothing about a backend is
written anywhere else.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastrec.errors import BackendUnavailable, ConfigError

log = logging.getLogger("fastrec")

#: name -> Op, filled as the modules of ``fastrec.ops`` are imported
REGISTRY: dict[str, "Op"] = {}


@dataclass(frozen=True)
class Backend:
    """One implementation: ``run`` takes exactly what the reference takes.

    missing: returns None where the backend can run, else (reason, remedy)
    """

    run: Callable[..., Any]
    device: str
    missing: Callable[[], tuple[str, str] | None]


@dataclass
class Op:
    """An operator and everything known about it.

    backends: in order of preference; "auto" takes the first that can run on the device
    cases: keyword sets for the function that makes inputs of this op in the tests and benchmarks
    rtol: relative tolerance of float32 results against the reference, which computes in float64
    exact: whether every backend gives the bits of the reference; else ``rtol`` of the largest value
    """

    name: str
    reference: Callable[..., Any]
    backends: dict[str, Backend]
    cases: list[dict[str, Any]] = field(default_factory=list)
    rtol: float = 1e-5
    exact: bool = True

    def __post_init__(self) -> None:
        self._told: set[str] = set()
        REGISTRY[self.name] = self

    def choose(self, backend: str, device: str = "cpu") -> Callable[..., Any]:
        """The function to run: a named backend runs or raises; "auto" may fall back and says so once.

        Raises ConfigError for a name that is no backend, BackendUnavailable for one that cannot run.
        """
        if backend == "reference":
            return self.reference
        if backend != "auto":
            if backend not in self.backends:
                names = ["auto", *self.backends, "reference"]
                raise ConfigError(f"[{self.name}] backend is {backend!r}, expected one of {names}")
            gap = self.backends[backend].missing()
            if gap is not None:
                raise BackendUnavailable(self.name, backend, *gap)
            return self.backends[backend].run
        for name, candidate in self.backends.items():
            if candidate.device != device:
                continue
            gap = candidate.missing()
            if gap is None:
                return candidate.run
            self.tell(f"[{self.name}] backend {name!r} is unavailable ({gap[0]}); falling back")
        self.tell(f"[{self.name}] no backend for device {device!r} can run; using the slow reference")
        return self.reference

    def tell(self, message: str) -> None:
        """Log a warning, once."""
        if message not in self._told:
            self._told.add(message)
            log.warning(message)
