"""Images where there is no text: amazon-beauty with pictures that carry the kind of the product.

    python benchmarks/images.py [--data ../shared/data] [--encoder minilm] [--tower FOLDER] [--users 4000] [--json FILE]

The kind is the first of some words (shampoo, lipstick, ...) in the title; the picture of an item is a pattern of its
kind, coloured and striped, under noise. Items without such a word have none, one in ten others is missing, one in
fifty is half a file. The encoder is a small CLIP with random weights that is made here (or the folder that --tower
names): what is shown is the way from files to recommendations, not what a trained CLIP would reach.

A fifth of the items that have a kind lose their text and all their events. They are ranked among themselves for the
users who chose them: NDCG@10 of popularity, text alone, image alone, and both. The last line says what missed its
target: image above popularity, both above text alone, each by two standard errors, paired by user; exit 1 then.
"""

import argparse
import importlib.metadata
import io
import json
import os
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import polars as pl

from fastrec import Recommender, metrics

KINDS = [
    *("shampoo", "conditioner", "lipstick", "gloss", "mascara", "eyeliner", "shadow", "foundation", "concealer"),
    *("powder", "blush", "polish", "perfume", "cologne", "lotion", "serum", "cleanser", "mask", "soap", "brush"),
    *("dryer", "iron", "sunscreen", "deodorant", "oil", "scrub", "toner", "razor", "gel", "spray", "cream"),
]
K = 10


def kind_of(title: str | None) -> int:
    """Place of the first word of KINDS in the title, -1 for none."""
    words = (title or "").lower().replace(",", " ").replace("-", " ").split()
    return next((KINDS.index(w.rstrip("s")) for w in words if w.rstrip("s") in KINDS), -1)


def picture(kind: int, seed: int) -> bytes:
    """A PNG of 48 x 48: two colours in stripes whose width and direction are those of the kind, and noise."""
    from PIL import Image

    own, noise = np.random.default_rng(kind), np.random.default_rng(seed + 1000)
    colours, period, angle = own.integers(0, 256, (2, 3)), own.uniform(5, 16), own.uniform(0, np.pi)
    y, x = np.mgrid[:48, :48]
    stripes = (((x * np.cos(angle) + y * np.sin(angle) + noise.uniform(0, period)) // (period / 2)) % 2).astype(int)
    image = colours[stripes] + noise.normal(0, 25, (48, 48, 3))
    out = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def small_clip(folder: Path) -> Path:
    """A CLIP of two layers with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    inner = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={**inner, "vocab_size": 100, "max_position_embeddings": 16},
        vision_config={**inner, "image_size": 48, "patch_size": 8},
        projection_dim=64,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    square = {"height": 48, "width": 48}
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=square).save_pretrained(folder)
    return folder


def words(texts: list[str]) -> Any:
    """Sums of random vectors of the words: a text encoder for a quick look."""
    out = np.zeros((len(texts), 128), np.float32)
    for row, text in zip(out, texts, strict=True):
        for word in set(text.lower().split()):
            row += np.random.default_rng(zlib.crc32(word.encode())).normal(size=128)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data")
    parser.add_argument("--encoder", default="minilm", help='of the texts; "words": random vectors of words, quick')
    parser.add_argument("--tower", type=Path, help="folder of an image model")
    parser.add_argument("--users", type=int, default=4000, help="users that are asked")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    events = pl.read_parquet(args.data / "amazon-beauty" / "interactions.parquet")
    items = pl.read_parquet(args.data / "amazon-beauty" / "items.parquet").select("item_id", "title")
    items = items.sample(fraction=1.0, shuffle=True, seed=0)  # ties go by the order of the table
    kinds = np.array([kind_of(title) for title in items["title"].to_list()])
    shown = np.flatnonzero(kinds >= 0)
    missing = rng.permutation(shown)[: len(shown) // 10]
    broken = rng.permutation(np.setdiff1d(shown, missing))[: len(shown) // 50]
    pictures: list[bytes | None] = [picture(int(k), i) if k >= 0 else None for i, k in enumerate(kinds)]
    for row in missing:
        pictures[row] = None
    for row in broken:
        pictures[row] = (pictures[row] or b"")[:100]
    hidden = rng.permutation(shown)[: len(shown) // 5]
    gone = np.zeros(len(items), bool)
    gone[hidden] = True
    cold = items["item_id"].to_numpy()[gone].tolist()
    table = items.with_columns(
        pl.Series("image", pictures, pl.Binary),
        title=pl.when(pl.Series(gone)).then(None).otherwise(pl.col("title")),
    )
    is_cold = pl.col("item_id").is_in(cold)
    train, test = events.filter(~is_cold), events.filter(is_cold)
    test = test.filter(pl.col("user_id").is_in(train["user_id"].unique().implode()))
    wanted = dict(test.group_by("user_id", maintain_order=True).agg("item_id").iter_rows())
    users = sorted(wanted)
    users = [users[i] for i in np.sort(rng.permutation(len(users))[: args.users])]
    print(
        f"{len(items):,} items, {len(shown):,} with a kind of {len(KINDS)}, {len(missing):,} pictures missing, "
        f"{len(broken):,} broken; {len(cold):,} items without text and events, {len(users):,} users",
        flush=True,
    )
    encoder: Any = words if args.encoder == "words" else args.encoder
    rows: dict[str, Any] = {}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as base:
        tower = args.tower or small_clip(Path(base))
        plan = {
            "popularity": ["popularity"],
            "text": ["popularity", "content"],
            "image": ["image"],
            "text and image": ["popularity", "content", "image"],
        }
        for name, models in plan.items():
            start = time.perf_counter()
            rec = Recommender(
                encoder=encoder if "content" in models else None,
                image_encoder=tower if "image" in models else None,
                models=models,
                progress=False,
            ).fit(train, table)
            seconds = time.perf_counter() - start
            ranked = rec.recommend(users, K, allow=cold).items
            found[name] = np.array([metrics.ndcg([r], [wanted[u]], K) for r, u in zip(ranked, users, strict=True)])
            told = sum("image of item" in note for note in rec.report.notes)
            rows[name] = {"ndcg": float(found[name].mean()), "fit_seconds": seconds, "weights": rec.weights}
            rows[name] |= {"unreadable": told}
            print(f"  {name:<16} NDCG@{K} {rows[name]['ndcg']:.4f}   fit {seconds:.0f} s   {told} broken pictures told")
    missed = []
    for better, worse in (("image", "popularity"), ("text and image", "text")):
        gain = found[better] - found[worse]
        error = float(gain.std() / np.sqrt(len(gain)))
        print(f"  {better} less {worse}: {gain.mean():+.4f}, standard error {error:.4f}")
        rows[f"{better} less {worse}"] = {"gain": float(gain.mean()), "standard_error": error}
        if gain.mean() <= 2 * error:
            missed.append(f"{better} {gain.mean():+.4f} of {worse}")
    if rows["image"]["unreadable"] != len(broken):
        missed.append(f"{rows['image']['unreadable']} of {len(broken)} broken pictures told")
    versions = {p: importlib.metadata.version(p) for p in ("fastrec-engine", "numpy", "torch", "transformers")}
    if args.json:
        args.json.write_text(json.dumps({"versions": versions, "rows": rows, "missed": missed}, indent=2) + "\n")
    print("\nmissed: " + ("; ".join(missed) or "nothing"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
