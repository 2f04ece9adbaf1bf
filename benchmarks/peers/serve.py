"""A server of benchmarks/serve.py in a process of its own: serve.py PEER PORT [MODEL or sizes]

fastrec MODEL | unbatched MODEL     this server, and the same with one request a call
one_process MODEL                   this server with the model in the process that does the HTTP
constant                            the bare framework: FastAPI that answers a constant
implicit ITEMS DIMS                 FastAPI and implicit, as its examples have it: one model.recommend a request
"""

import dataclasses
import sys
from typing import Any

PEER, PORT, REST = sys.argv[1], int(sys.argv[2]), sys.argv[3:]


def own() -> None:
    from fastrec import serve

    settings = serve.ServeSettings(batching=PEER != "unbatched")
    if PEER == "unbatched":
        settings = dataclasses.replace(settings, max_batch=1)
    serve.run(REST[0], port=PORT, settings=settings, model_process=PEER != "one_process")


def run(app: Any) -> None:
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)


def constant() -> None:
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/recommend")
    async def recommend(body: dict[str, Any]) -> dict[str, Any]:
        return {"results": [{"user_id": 1, "items": [{"item_id": i, "score": 0.5, "rank": i} for i in range(10)]}]}

    run(app)


def implicit_peer(n_items: int, dims: int) -> None:
    import numpy as np
    import scipy.sparse as sp
    from fastapi import FastAPI
    from implicit.als import AlternatingLeastSquares

    rng = np.random.default_rng(0)
    users = 20_000
    model = AlternatingLeastSquares(factors=dims)
    model.item_factors = rng.normal(size=(n_items, dims)).astype(np.float32)
    model.user_factors = rng.normal(size=(users, dims)).astype(np.float32)
    rows = np.repeat(np.arange(users), 20)
    seen = sp.csr_matrix(
        (np.ones(len(rows), np.float32), (rows, rng.integers(0, n_items, len(rows)))), (users, n_items)
    )
    app = FastAPI()

    @app.post("/recommend")
    def recommend(body: dict[str, Any]) -> dict[str, Any]:
        user = body["users"][0]
        ids, scores = model.recommend(user, seen[user], N=body["k"])
        found = [{"item_id": int(i), "score": float(s)} for i, s in zip(ids, scores, strict=True)]
        return {"results": [{"user_id": user, "items": found}]}

    run(app)


if __name__ == "__main__":
    if PEER in ("fastrec", "unbatched", "one_process"):
        own()
    elif PEER == "constant":
        constant()
    else:
        implicit_peer(int(REST[0]), int(REST[1]))
