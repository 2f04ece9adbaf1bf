"""FastRec inside Flask: MODEL=folder gunicorn --preload --workers 4 examples.flask_app:app

With --preload the model is read once; the forked workers share its memory.
"""

import os

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

import fastrec

rec = fastrec.load(os.environ["MODEL"])
app = Flask(__name__)


@app.get("/recommend/<user>")
def recommend(user: str) -> ResponseReturnValue:
    try:
        k = request.args.get("k", 10, type=int)
        found = rec.recommend(user, k, on_unknown="raise")
    except fastrec.UnknownIdError as error:
        return jsonify(error=str(error)), 404
    except fastrec.ConfigError as error:
        return jsonify(error=str(error)), 400
    return jsonify(found.to_dicts())
