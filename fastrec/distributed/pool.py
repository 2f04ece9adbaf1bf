"""Actors that outlive their processes: Ray, asked for once, and a pool that deals out tasks."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastrec import config
from fastrec.errors import BackendUnavailable, ConfigError

#: Bytes of shared memory of a Ray that is started here: texts, vectors and queries pass through it, no model does.
_STORE = 500 << 20
#: How often a task is given again to an actor that died.
_TRIES = 5
#: Seconds to wait for room for the actors.
_PATIENCE = 30.0


def ray(call: str) -> Any:
    """The module, connected: to the cluster that RAY_ADDRESS names, else to one that is started on this machine.

    Raises BackendUnavailable where Ray is not installed.
    """
    try:
        import ray as module
    except ImportError as error:
        remedy = "pip install 'fastrec-engine[distributed]'"
        raise BackendUnavailable(call, "ray", f"Ray cannot be imported ({error})", remedy) from error
    if not module.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            module.init(log_to_driver=False, configure_logging=False)
        else:
            module.init(
                num_cpus=config.threads(),
                object_store_memory=_STORE,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
            )
    return module


class Pool:
    """``workers`` actors of one class; the arguments must be enough to make one anew on another machine.

    A task is given again to an actor that died over it, a few times: tasks must bear that.
    """

    def __init__(self, call: str, workers: int, actor: type, *arguments: Any, gpus: float = 0) -> None:
        self._ray, self._call = ray(call), call
        # The threads of all share the machine as those of one process would.
        threads = str(max(1, config.threads() // workers))

        class Started(actor):  # type: ignore[misc]
            def __init__(self, *arguments: Any) -> None:
                os.environ["FASTREC_THREADS"] = threads
                super().__init__(*arguments)

        bundle: dict[str, float] = {"GPU": gpus} if gpus else {"CPU": 1}
        self._room = self._reserve(workers, bundle)
        made = self._ray.remote(
            num_cpus=bundle.get("CPU", 0),
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=_TRIES,
            scheduling_strategy=self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(self._room),
        )(Started)
        self.actors = [made.remote(*arguments) for _ in range(workers)]

    def _reserve(self, workers: int, bundle: dict[str, float]) -> Any:
        """Room for so many actors; ConfigError where there is none: Ray would wait for it for ever."""
        ((name, each),) = bundle.items()
        whole = int(self._ray.cluster_resources().get(name, 0) / each)
        if workers <= whole:
            room = self._ray.util.placement_group([bundle] * workers, strategy="SPREAD")
            if room.wait(_PATIENCE):
                return room
            self._ray.util.remove_placement_group(room)
        held = ", and others hold some of it: close what has actors" if workers <= whole else ""
        raise ConfigError(
            f"[{self._call}] workers={workers}, but the cluster has room for {whole}{held}; expected at most that many"
        )

    def map(self, method: str, tasks: Iterable[Any], done: Callable[[int], Any] = lambda n: None) -> list[Any]:
        """The results of all tasks in their order; ``done`` hears the number of each. Every actor has two at a time."""
        results: dict[int, Any] = {}
        waiting: dict[Any, tuple[int, Any]] = {}
        numbered: Iterator[tuple[int, Any]] = iter(enumerate(tasks))

        def give(actor: Any) -> None:
            for number, task in numbered:
                waiting[getattr(actor, method).remote(task)] = (number, actor)
                return

        for _ in range(2):  # the next task waits at the actor: no round trip between two
            for actor in self.actors:
                give(actor)
        while waiting:
            ready, _ = self._ray.wait(list(waiting), num_returns=1)
            number, actor = waiting.pop(ready[0])
            results[number] = self._get(ready[0])
            give(actor)
            done(number)
        return [results[number] for number in sorted(results)]

    def each(self, method: str, tasks: Iterable[Any]) -> list[Any]:
        """The results of one task for every actor, in the order of the actors."""
        refs = [getattr(actor, method).remote(task) for actor, task in zip(self.actors, tasks, strict=True)]
        return [self._get(ref) for ref in refs]

    def _get(self, ref: Any) -> Any:
        """A result; what the task raised is raised here."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except errors.RayActorError as error:
            reason = f"an actor died {_TRIES + 1} times over one task ({str(error).splitlines()[0]})"
            remedy = "look for memory that ran out in the logs of Ray; use fewer workers or smaller parts"
            raise BackendUnavailable(self._call, "ray", reason, remedy) from error

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            self._ray.kill(actor)
        self._ray.util.remove_placement_group(self._room)
        self.actors = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
