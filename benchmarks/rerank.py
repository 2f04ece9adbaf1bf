"""The last stage on ml-100k: what it does to the ranking, and what it costs.

    python benchmarks/rerank.py [--steps 600] [--model FOLDER] [--kinds untrained,trained] [--candidates 20]
        [--models fast] [--users 943] [--json FILE]

Leave one out. A small GPT-2 (4 layers of 128, its own byte-level BPE) is trained on behaviour as text: the titles of
every history, oldest first, without the last two events of each user, so that neither the holdout of ``fit`` nor the
test has been read. ``fit`` learns its weight. Beside it the same model untrained. With --model that one is taken.

The NDCG is that of the best candidates in their old and new order, over all users, paired; a user whose hidden item is
not among them counts 0 in both. Costs are of one recommend of 200 users: milliseconds, tokens of histories (once a
user, thanks to the shared beginning) and of titles; and the same by whole texts.

The last line says what missed its target; exit 1 then.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from fastrec import Recommender, Rerank, datasets, load, metrics, split
from fastrec.inside import state_of, with_state
from fastrec.rerank import Cost, history_text
from fastrec.reranking import Reranker

#: Users of whom the cost is taken.
_TIMED = 200


def train(folder: Path, texts: list[str], steps: int, seed: int = 0) -> dict[str, Any]:
    """A small GPT-2 in ``folder``, trained on the texts; what it took."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=4000, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<end>", eos_token="<end>")
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=128, n_layer=4, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=0
    )
    model: Any = transformers.GPT2LMHeadModel(config)
    lines = [[tokenizer(line + "\n", add_special_tokens=False)["input_ids"] for line in t.splitlines()] for t in texts]
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    start, loss, batch, width = time.perf_counter(), torch.zeros(()), 16, 128
    model.train()
    for step in range(steps):
        ids = np.zeros((batch, width), np.int64)
        labels = np.full((batch, width), -100)
        for row in range(batch):
            history = lines[int(rng.integers(len(lines)))]
            # It reads a history from anywhere on, as it will: the newest titles behind the first token.
            at = int(rng.integers(max(len(history) - 4, 1)))
            tokens = [0, *(token for line in history[at : at + 16] for token in line)][:width]
            ids[row, : len(tokens)], labels[row, : len(tokens)] = tokens, tokens
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (1 - step / steps)
        loss = model(input_ids=torch.from_numpy(ids), labels=torch.from_numpy(labels)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"steps": steps, "seconds": time.perf_counter() - start, "loss": float(loss)}


def best_of(rec: Recommender, users: list[Any], wanted: list[list[Any]], k: int) -> tuple[Any, float]:
    """(NDCG@k of every user, seconds)."""
    start = time.perf_counter()
    found = rec.recommend(users, k)
    seconds = time.perf_counter() - start
    return np.array([metrics.ndcg([row], [w], k) for row, w in zip(found.items, wanted, strict=True)]), seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--users", type=int, default=943)
    parser.add_argument("--models", default="fast", help="a preset, or names with + between")
    parser.add_argument("--kinds", default="untrained,trained", help="of the small GPT-2")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    public = datasets.load("ml-100k")
    train_events, test = split.leave_one_out(public.interactions)
    past, _ = split.leave_one_out(train_events)
    title = dict(public.items.select("item_id", "title").iter_rows())
    by_user = past.sort("timestamp", maintain_order=True).group_by("user_id", maintain_order=True).agg("item_id")
    texts = [history_text([title[i] for i in ids]) for ids in by_user["item_id"].to_list()]
    users = test["user_id"].to_list()[: args.users]
    wanted = [[i] for i in test["item_id"].to_list()[: args.users]]
    missed: list[str] = []
    rows: list[dict[str, Any]] = []
    items = public.items.select("item_id", "title")
    with tempfile.TemporaryDirectory() as base:
        plan = [("untrained", None, 0), ("trained", None, args.steps)]
        plan = [("as given", args.model, 0)] if args.model else [p for p in plan if p[0] in args.kinds.split(",")]
        for name, folder, steps in plan:
            about: dict[str, Any] = {}
            if folder is None:
                folder = Path(base) / name
                about = train(folder, texts, steps)
            settings = Rerank(str(folder), candidates=args.candidates, device="cpu")
            start = time.perf_counter()
            models = args.models.split("+") if "+" in args.models else args.models
            rec = Recommender(encoder=None, models=models, rerank=settings, progress=False).fit(train_events, items)
            fitted = time.perf_counter() - start
            last = state_of(rec, "bench").rerank
            assert last is not None
            note = next(n for n in rec.report.notes if n.startswith("rerank"))
            rec.save(Path(base) / f"{name}.model")
            before, _ = best_of(load(Path(base) / f"{name}.model", rerank=False), users, wanted, args.candidates)
            after, _ = best_of(rec, users, wanted, args.candidates)
            # The cost is that of reading, whether it counts for anything or not.
            state = state_of(rec, "bench")
            reading = with_state(rec, dataclasses.replace(state, rerank=Reranker(last.reader, max(last.weight, 1e-6))))
            costs: dict[bool, list[float]] = {True: [], False: []}
            last.reader.cost = Cost()
            for shared in (True, False):
                last.reader._load()._shares = shared
                begun = time.perf_counter(), time.process_time()
                reading.recommend(users[:_TIMED], args.candidates)
                costs[shared] = [time.perf_counter() - begun[0], time.process_time() - begun[1]]
                if shared:
                    cost = dataclasses.replace(last.reader.cost)
            last.reader._load()._shares = True
            gain = after - before
            error = float(gain.std() / np.sqrt(len(gain)))
            row = {
                "model": name, **about, "weight": last.weight, "note": note, "users": len(users),
                "ndcg_before": float(before.mean()), "ndcg_after": float(after.mean()), "gain": float(gain.mean()),
                "gain_standard_error": error, "fit_seconds": fitted,
                "ms_per_user": 1000 * costs[True][0] / len(users[:_TIMED]),
                "cpu_ms_per_user": 1000 * costs[True][1] / len(users[:_TIMED]),
                "cpu_ms_per_user_whole_texts": 1000 * costs[False][1] / len(users[:_TIMED]),
                "history_tokens_per_user": cost.history_tokens / max(cost.users, 1),
                "title_tokens_per_user": cost.title_tokens / max(cost.users, 1),
                "tokens_without_sharing": (cost.history_tokens * args.candidates + cost.title_tokens)
                / max(cost.users, 1),
            }  # fmt: skip
            rows.append(row)
            print(f"\n{name}: {note}")
            print(
                f"  NDCG@{args.candidates} {row['ndcg_before']:.4f} -> {row['ndcg_after']:.4f} (gain "
                f"{row['gain']:+.4f}, standard error {error:.4f}), weight {last.weight:.3g}"
            )
            print(
                f"  a user: {row['ms_per_user']:.1f} ms ({row['cpu_ms_per_user']:.1f} of CPU), "
                f"{row['history_tokens_per_user']:.0f} tokens of history once and {row['title_tokens_per_user']:.0f} "
                f"of titles; by whole texts {row['cpu_ms_per_user_whole_texts']:.1f} ms of CPU, "
                f"{row['tokens_without_sharing']:.0f} tokens",
                flush=True,
            )
            if row["gain"] < 0:
                missed.append(f"{name}: NDCG@{args.candidates} {row['gain']:+.4f}")
    versions = {p: importlib.metadata.version(p) for p in ("fastrec-engine", "numpy", "torch", "transformers")}
    if args.json:
        found = {"versions": versions, "candidates": args.candidates, "rows": rows, "missed": missed}
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    print("\nmissed: " + ("; ".join(missed) or "nothing"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
