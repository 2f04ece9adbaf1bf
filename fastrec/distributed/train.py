"""Fit a model on several processes that share the training of ``sequential``.

    torchrun --nproc-per-node 2 -m fastrec.distributed.train EVENTS --out MODEL [--models sequential] [--backend gloo]

Every process reads all events and fits all models (what is not ``sequential`` is done by each for itself); the steps of
``sequential`` are shared as ``fastrec.models._team`` says, so that ``batch_tokens`` is the batch of all processes
together. The first process saves. With --backend nccl the processes of a machine take one GPU each.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from fastrec import config
from fastrec.errors import ConfigError, DataError, FastRecError
from fastrec.recommender import Recommender


def main(argv: list[str] | None = None) -> int:
    """One process of a fit; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fastrec.distributed.train", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("events", help="parquet, csv, tsv or jsonl file, folder or glob, which every process can read")
    parser.add_argument("--items", help="item texts and columns, the same kinds of file")
    parser.add_argument("--models", default="sequential", help="names with commas between, or a JSON list of settings")
    parser.add_argument("--encoder", default="none", help='model name or folder, or "none"')
    parser.add_argument("--goal", choices=("next", "period"), default="next")
    parser.add_argument("--backend", choices=("gloo", "nccl"), default="gloo", help="of torch.distributed")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    args = parser.parse_args(argv)
    if "RANK" not in os.environ:
        print("fastrec: [train] RANK is not set; start it with torchrun", file=sys.stderr)
        return 2
    import torch
    from torch import distributed

    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    os.environ["FASTREC_THREADS"] = str(max(1, config.threads() // local))
    if args.backend == "nccl":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group(args.backend)
    first = distributed.get_rank() == 0
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        models = json.loads(args.models) if args.models.lstrip().startswith("[") else args.models.split(",")
        rec = Recommender(encoder=None if args.encoder == "none" else args.encoder, models=models, progress=first)
        rec.fit(args.events, args.items, goal=args.goal)
        if first:
            rec.save(args.out)
        distributed.barrier()
    except (ConfigError, DataError, ValueError) as error:
        print(f"fastrec: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (FastRecError, OSError) as error:
        print(f"fastrec: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    finally:
        distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
