"""FastRec inside a FastAPI application: MODEL=folder uvicorn examples.fastapi_app:app"""

import os

from fastapi import FastAPI

import fastrec
import fastrec.serve

rec = fastrec.load(os.environ["MODEL"])
app = FastAPI()
app.mount("/rec", fastrec.serve.app(rec))  # /rec/recommend, /rec/similar, ..., and the inspector at /rec/


@app.get("/hello/{user}")
def hello(user: str) -> dict[str, list[str]]:
    """The Recommender itself may be called from every thread."""
    return {"for you": [str(item) for item in rec.recommend(user, 3)]}
