"""What a Recommender does after fitting: it keeps up with events and items, forgets, is saved, and writes files."""

import os
from typing import Any

from fastrec import batch
from fastrec.errors import NotFittedError
from fastrec.live import Live
from fastrec.persist import write_state
from fastrec.state import Settings, State
from fastrec.store import EventStore


class Keeping:
    """The half of ``Recommender`` that changes a fitted model."""

    _settings: Settings
    _encoder: Any
    _media: dict[str, Any]
    _store: EventStore | None
    _live: Live | None
    _progress: bool

    def update(self, interactions: Any) -> dict[str, int]:
        """New events count from the next call on, without any training; returns counts.

        interactions: {column: value} of one event, a list of such dicts, or a table with the columns of ``fit``. An
            event without a timestamp happened now

        Histories, what was seen, profiles and popularity move at once; a new user is recommended to after one event.
        With a store the events are durable on return. Readers see a user before an event or after it, never between,
        and are not blocked. Events of items that the model does not know are counted as ``unknown_items`` and not
        applied; they stand in the log, and ``refit`` takes them where the item is known by then. Raises DataError for
        what cannot be understood; then nothing has changed.
        """
        return self._living("update").update(interactions)

    def add_items(self, items: Any) -> dict[str, int]:
        """New items are recommendable from the next call on; returns counts.

        items: a table with the columns of ``fit``; items that the model knows are passed over and counted. They are
        embedded by the encoder of the model and take part in every source, see ``fastrec.cold``.
        """
        return self._living("add_items").add_items(items)

    def remove_items(self, ids: Any) -> dict[str, int]:
        """These items are never recommended again, unless ``add_items`` brings them back; returns counts.

        ids: one item id or a sequence of them; unknown ones are counted
        """
        return self._living("remove_items").remove_items(ids)

    def erase_users(self, ids: Any) -> dict[str, int]:
        """Forget users: their events, profiles and share in the popularity are gone, from the log's disk too.

        ids: one user id or a sequence of them; unknown ones are passed over. Returns counts.
        A folder that ``save`` wrote before forgets with the next ``save``, and the list of ids that this process holds
        of it with the next ``load``. What training has learned from many users stays until the next ``fit``; see
        ``fastrec.privacy`` for how little that is about one of them.
        """
        return self._living("erase_users").erase_users(ids)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder: atomic, checksummed, no pickle; an older model there is replaced.

        With FASTREC_KEY set it is encrypted. A callable encoder cannot be written: hand it to ``load`` again.
        """
        write_state(folder, self._fitted("save"), self._settings, self._encoder, self._media)

    def recommend_all(
        self,
        folder: str | os.PathLike[str],
        k: int = 10,
        *,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        where: Any = None,
        boost: Any = None,
        diversity: float = 0.0,
        at: Any = None,
        users_per_part: int = batch.USERS_PER_PART,
    ) -> dict[str, int]:
        """The k best items for every user, written to parquet files in bounded memory; returns counts.

        folder: of the parts, see ``fastrec.batch``. A call that was cut off, even by kill -9, goes on where it was when
            it is made again with the same model and arguments; the files are the same bytes then. A name that ends in
            .parquet and is no folder is written as one file, which is there whole or not at all
        users_per_part: users of a file of the folder
        Other keywords as in ``recommend``. Users stand in the order of ``user_ids``, by columns user_id, item_id, score
        and rank (from 1). Raises ConfigError where the folder was begun with another model or other arguments, holds
        other things or is being written by another process, ArtifactError where the disk refuses.
        """
        asked = batch.rules(
            k, filter_seen=filter_seen, allow=allow, deny=deny, where=where, boost=boost, diversity=diversity
        )
        state = self._fitted(batch.CALL)
        return batch.run(
            state, self._settings, folder, asked, at=at, users_per_part=users_per_part, show=self._progress
        )

    def _fitted(self, call: str) -> State:
        return self._living(call).current()

    def _living(self, call: str) -> Live:
        if self._live is None:
            raise NotFittedError(
                f"[{call}] the recommender has no model yet; call fit(interactions, items) or load first"
            )
        return self._live
