"""Recommendations for all users by actors: each writes parts of the folder of ``fastrec.batch``."""

import os
from pathlib import Path
from typing import Any

from fastrec import batch, config
from fastrec.answer import Rules
from fastrec.distributed.pool import Pool
from fastrec.inside import settings_of, state_of
from fastrec.persist import fingerprint
from fastrec.progress import Progress
from fastrec.recommender import load


class _Worker:
    """Holds the model, mapped from its folder: the actors of a machine share one copy."""

    def __init__(self, model: str, out: str, rules: Rules, at: Any, users_per_part: int) -> None:
        rec = load(model)
        self._job = batch.Job.of(state_of(rec, batch.CALL), rules, settings_of(rec).backend, at, users_per_part)
        self._out = Path(out)

    def write(self, task: tuple[int, dict[str, Any]]) -> int:
        """Write a part, unless it was written by an actor that died before it could say so."""
        number, wanted = task
        rows = self._job.part(number)
        path = self._out / batch.part_name(number)
        if not path.exists():
            batch.write_file(self._job, path, rows, wanted)
        return len(rows)


def recommend_all(
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    k: int = 10,
    *,
    workers: int = 2,
    users_per_part: int = batch.USERS_PER_PART,
    at: Any = None,
    progress: bool = True,
    **rules: Any,
) -> dict[str, int]:
    """The k best items for every user of a saved model, by actors; returns counts.

    model, folder: on a file system that all machines see
    workers: actors
    rules: other keywords of ``Recommender.recommend_all``
    The files are the same bytes as those of ``Recommender.recommend_all``, and each of the two goes on with what the
    other began. Raises as that does, and BackendUnavailable without Ray.
    """
    config.check_k(batch.CALL, workers, name="workers")
    model, path = os.path.abspath(model), Path(os.path.abspath(batch.checked_path(folder)))
    asked = batch.rules(k, **rules)
    # The actors load the model while this process looks what there is to do.
    with batch.disk(path), Pool(batch.CALL, workers, _Worker, model, str(path), asked, at, users_per_part) as pool:
        rec = load(model)
        state, settings = state_of(rec, batch.CALL), settings_of(rec)
        job = batch.Job.of(state, asked, settings.backend, at, users_per_part)
        wanted = batch.manifest(job, fingerprint(state, settings))
        with batch.claimed(path, wanted) as missing:
            bar = Progress(batch.CALL, len(job.users), progress, unit="user", logger="fastrec")
            bar.skip(len(job.users) - sum(len(job.part(number)) for number in missing))
            with bar:
                pool.map("write", [(n, wanted) for n in missing], lambda i: bar.add(len(job.part(missing[i]))))
            batch.finish(path, wanted)
    return {"users": len(job.users), "parts": job.n_parts, "written": len(missing)}
