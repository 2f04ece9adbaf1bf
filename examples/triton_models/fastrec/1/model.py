"""A Triton Python backend: input USER (string [B]), outputs ITEM (string [B, K]) and SCORE (float32 [B, K]).

The requests that Triton hands over together are one call of the engine. The model lies in the folder
``model`` beside the version folder, or where the parameter "model" of config.pbtxt points.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

try:
    import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
except ImportError:  # outside Triton: a test, KServe
    pb_utils = None

import fastrec

K = 10


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args.get("model_config", "{}")).get("parameters", {})
        beside = Path(args.get("model_repository", Path(__file__).resolve().parents[1])) / "model"
        self.rec = fastrec.load(parameters.get("model", {}).get("string_value", str(beside)))

    def recommend(self, users: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(items as bytes [B, K], "" where there are fewer; scores float32 [B, K])."""
        found = self.rec.recommend(users, K)
        items = np.array([[b"" if i is None else str(i).encode() for i in row] for row in found.items], object)
        return items.reshape(len(users), K), found.scores

    def execute(self, requests: list[Any]) -> list[Any]:
        asked = [pb_utils.get_input_tensor_by_name(r, "USER").as_numpy().ravel() for r in requests]
        items, scores = self.recommend([u.decode() for part in asked for u in part])
        answers, at = [], 0
        for part in asked:
            rows = slice(at, at + len(part))
            at = rows.stop
            outputs = [pb_utils.Tensor("ITEM", items[rows]), pb_utils.Tensor("SCORE", scores[rows])]
            answers.append(pb_utils.InferenceResponse(output_tensors=outputs))
        return answers
