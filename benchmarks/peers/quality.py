"""RecTools' SASRec for benchmarks/quality.py, in an environment that has it: events and users in, rankings out."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning import Trainer, seed_everything
from rectools.dataset import Dataset
from rectools.models import SASRecModel

ASKED: dict[str, Any] = json.loads(sys.argv[1])
FOLDER = Path(ASKED["folder"])


def trainer() -> Trainer:
    """The default trainer of RecTools, with another number of passes."""
    return Trainer(
        max_epochs=ASKED["epochs"], enable_progress_bar=False, devices=1, enable_model_summary=False, logger=False,
        enable_checkpointing=False, accelerator="cpu",
    )  # fmt: skip


seed_everything(0)
frame = pd.read_csv(FOLDER / "train.csv", dtype={"user_id": str, "item_id": str})
frame = frame.rename(columns={"timestamp": "datetime"}).assign(weight=1)
# Equal stamps stand in the order of the file, as everywhere in the comparison.
frame["datetime"] = pd.to_datetime(frame["datetime"], unit="s") + pd.to_timedelta(range(len(frame)), unit="us")
model = SASRecModel(
    n_blocks=2, n_heads=1, n_factors=64, session_max_len=ASKED["length"], loss="sampled_softmax", n_negatives=128,
    lr=1e-3, dropout_rate=0.2, batch_size=128, get_trainer_func=trainer,
)  # fmt: skip
dataset = Dataset.construct(frame)
model.fit(dataset)
users = pd.read_csv(FOLDER / "users.csv", dtype=str)["user_id"]
users = users[users.isin(frame["user_id"].value_counts().index)].to_list()
found = model.recommend(users, dataset, k=ASKED["k"], filter_viewed=True)
found[["user_id", "item_id", "rank"]].to_csv(FOLDER / "found.csv", index=False)
