"""FastRec as a Ray Serve deployment: MODEL=folder serve run examples.ray_serve_app:app

Each replica is a process with the mapped arrays of the model in common with the others of its machine. Over HTTP it is
the whole server (routes, micro-batching, keys); other deployments call ``recommend`` by handle, where requests of a
moment are one call of the engine too.
"""

import functools
import os
from typing import Any

from ray import serve

import fastrec
import fastrec.serve


@functools.cache
def model() -> fastrec.Recommender:
    """Loaded in each replica, once: a model does not travel between processes."""
    return fastrec.load(os.environ["MODEL"])


def build() -> Any:
    """The ASGI app of a replica. Ray's proxy stands before it, so that clients are not on loopback any more."""
    return fastrec.serve.app(model(), fastrec.serve.ServeSettings.from_env(anonymous=True))


@serve.deployment(num_replicas=int(os.environ.get("REPLICAS", "1")), max_ongoing_requests=1000)
@serve.ingress(build)
class FastRec:
    @serve.batch(max_batch_size=256, batch_wait_timeout_s=0.002)
    async def recommend(self, users: list[Any]) -> list[list[Any]]:
        """One user a call, the 10 best items; Ray hands over those of one moment together."""
        return [list(row) for row in model().recommend(users, 10).items]


app = FastRec.bind()
