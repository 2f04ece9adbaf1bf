"""RecTools' SASRec for benchmarks/train.py, in an environment that has it: times some steps, prints a line of JSON."""

import json
import sys
import time
from typing import Any

import pandas as pd
from pytorch_lightning import Callback, Trainer
from rectools.dataset import Dataset
from rectools.models import SASRecModel

ASKED: dict[str, Any] = json.loads(sys.argv[1])
ENDS: list[float] = []


class Clock(Callback):
    """Seconds between the ends of steps: with what the loader does for them."""

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        ENDS.append(time.perf_counter())  # RecTools works on a copy of the trainer


def trainer() -> Trainer:
    """The default trainer of RecTools, ended after a few steps."""
    return Trainer(
        max_epochs=1, limit_train_batches=ASKED["steps"] + ASKED["warm"], enable_progress_bar=False, devices=1,
        enable_model_summary=False, logger=False, enable_checkpointing=False, accelerator="cpu", callbacks=[Clock()],
    )  # fmt: skip


frame = pd.read_csv(ASKED["data"])
frame = frame.rename(columns={"timestamp": "datetime"}).assign(weight=1)[["user_id", "item_id", "datetime", "weight"]]
frame["datetime"] = pd.to_datetime(frame["datetime"], unit="s")
model = SASRecModel(
    n_blocks=ASKED["layers"], n_heads=ASKED["heads"], n_factors=ASKED["width"], session_max_len=ASKED["length"],
    loss=ASKED["loss"], n_negatives=256, batch_size=ASKED["batch"], get_trainer_func=trainer,
)  # fmt: skip
model.fit(Dataset.construct(frame))
counts = frame.groupby("user_id").size()
counts = counts[counts >= 2]
steps = -(-len(counts) // ASKED["batch"])
mean = (ENDS[-1] - ENDS[ASKED["warm"] - 1]) / (len(ENDS) - ASKED["warm"])
events = int((counts - 1).clip(upper=ASKED["length"]).sum())
print(json.dumps({"step_s": mean, "epoch_s": mean * steps, "events": events, "steps": steps}))
