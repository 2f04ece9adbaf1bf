"""The same stages on Ray: texts encoded, users answered and catalogues searched by actors. Extra ``distributed``.

    encode.RayEncoder           an encoder for ``Recommender(encoder=...)`` whose texts a pool of actors embeds
    users.recommend_all         ``Recommender.recommend_all`` with the parts dealt out to actors
    items.ShardedCatalogue      a catalogue in shards, one an actor, with the exact top-k merged
    train.py                    ``torchrun ... -m fastrec.distributed.train``: ``sequential`` on several processes

Actors call the functions of the embedded path, and results are the same to the last bit; only the gradients of training
are added up in another order. An actor that dies is started again by Ray, and what it was about is done again.
"""

from fastrec.distributed.encode import RayEncoder
from fastrec.distributed.items import ShardedCatalogue
from fastrec.distributed.users import recommend_all

__all__ = ["RayEncoder", "recommend_all", "ShardedCatalogue"]
