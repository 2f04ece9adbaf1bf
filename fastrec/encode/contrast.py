"""The training behind ``tuning.py``, in torch: pairs of texts through one transformer, padded.

B pairs of a step, S texts, L longest of them, D dimensions
"""

import json
import logging
import math
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fastrec.encode import transformer as base
from fastrec.encode.folder import Settings
from fastrec.encode.tuning import Pairs, Tuning
from fastrec.errors import ConfigError
from fastrec.types import F32, F64, I64

log = logging.getLogger("fastrec.encode")

#: Items among which the holdout is ranked: its targets and, up to so many, drawn ones. For early stopping only.
_RANKED = 2000
#: Texts of one pass without gradients.
_READ = 128
_WARMUP, _GRADIENT_NORM, _ADDED_DROPOUT = 0.1, 1.0, 0.05
#: What a folder keeps of the one that it was made from: tokenizer and settings.
_KEPT = ("*.json", "*.txt", "*.model")


def contrastive_loss(histories: Tensor, items: Tensor, targets: Tensor, log_expected: Tensor, scale: float) -> Tensor:
    """The mean loss of B pairs; see ``tuning.py``.

    histories, items: [B, D], L2-normalised; targets: int64 [B], item rows; log_expected: [B], of their items
    """
    logits = scale * (histories @ items.T)
    own = torch.eye(len(targets), dtype=torch.bool, device=logits.device)
    logits = torch.where(own, logits, logits - log_expected)
    same = (targets[:, None] == targets[None, :]) & ~own
    return functional.cross_entropy(
        logits.masked_fill(same, -torch.inf), torch.arange(len(targets), device=logits.device)
    )


def log_expected(targets: I64, batch: int) -> F64:
    """Logarithm of how often each item is among the other pairs of a batch, on average, float64 [largest row + 1]."""
    counts = np.bincount(targets)
    with np.errstate(divide="ignore"):
        out: F64 = np.log(counts * ((batch - 1) / len(targets)))
    return out


class Trainer:
    """A model folder on its way to another one.

    titles, whole: texts of the N items as a history and as a target has them
    """

    def __init__(
        self, folder: Path, settings: Settings, tuning: Tuning, titles: Sequence[str], whole: Sequence[str], device: str
    ) -> None:
        self.folder, self.settings, self.tuning = folder, settings, tuning
        self.titles, self.whole = titles, whole
        self.device = base._device(device)
        with base._quiet() as transformers, torch.random.fork_rng(devices=[]):
            torch.manual_seed(tuning.seed)
            model = base._load(transformers, folder)
            self.packer = base._packer(transformers, folder, settings)
            if model.config.is_encoder_decoder:
                raise ConfigError(f"[tune] {folder} is an encoder-decoder, expected an encoder or a decoder")
            if tuning.method == "lora":
                model = _with_additions(model, tuning.rank)
        self.model = model.to(self.device)
        pad = getattr(model.config, "pad_token_id", None)
        self.pad = pad if isinstance(pad, int) and pad >= 0 else 0
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def run(self, learned: Pairs, held: Pairs) -> dict[str, Any]:
        """Train, and keep what was best on the holdout: what is to be reported of it."""
        t = self.tuning
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.parameters.values() if p.ndim > 1], "weight_decay": t.weight_decay},
                {"params": [p for p in self.parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=t.rate,
        )
        expected = log_expected(learned.targets, t.batch)
        best = self._measure(held)
        looks, losses = [{"step": 0, "ndcg": best}], []
        kept, kept_at, missed = self._copy(), 0, 0
        with torch.random.fork_rng(devices=[] if self.device.type == "cpu" else None):
            torch.manual_seed(t.seed)
            for step, chosen in zip(range(1, t.steps + 1), self._batches(len(learned.targets)), strict=False):
                for group in optimizer.param_groups:
                    group["lr"] = t.rate * _schedule(step / t.steps)
                loss = self._step(learned, chosen, expected, optimizer)
                if not math.isfinite(loss):
                    raise ConfigError(
                        f"[tune] the loss of step {step} is {loss} with learning_rate={t.rate}, "
                        f"temperature={t.temperature}; expected a finite one: lower the learning rate"
                    )
                losses.append(loss)
                if step % t.every and step != t.steps:
                    continue
                ndcg = self._measure(held)
                looks.append({"step": step, "ndcg": ndcg})
                log.info(
                    "[tune] step %d: loss %.3f, NDCG@10 %s on the holdout", step, np.mean(losses[-t.every :]), ndcg
                )
                # Without a holdout the last weights are as good as any.
                if ndcg is None or best is None or ndcg > best:
                    best, kept, kept_at, missed = ndcg, self._copy(), step, 0
                elif (missed := missed + 1) >= t.patience:
                    break
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(kept[name])
        return {"kept_step": kept_at, "looks": looks, "losses": [round(x, 5) for x in losses]}

    def save(self, out: Path) -> None:
        """Write the model as sentence-transformers would."""
        model = self.model.merge_and_unload() if self.tuning.method == "lora" else self.model
        for pattern in _KEPT:
            for file in self.folder.glob(pattern):
                if not file.name.endswith(".index.json"):  # of sharded weights
                    shutil.copyfile(file, out / file.name)
        with base._quiet():
            model.cpu().save_pretrained(out, safe_serialization=True)
        kinds = ("Transformer", "Pooling", "Normalize")
        modules = [
            {
                "idx": i,
                "name": str(i),
                "path": f"{i}_{kind}" if i else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ]
        _write(out / "modules.json", modules)
        pooling = {f"pooling_mode_{name}": False for name in ("cls_token", "mean_tokens", "lasttoken")}
        names = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
        pooling[f"pooling_mode_{names[self.settings.pooling]}"] = True
        _write(out / "1_Pooling" / "config.json", {"word_embedding_dimension": self.settings.dimension, **pooling})
        (out / "2_Normalize").mkdir()
        limits = {"max_seq_length": self.settings.max_length, "do_lower_case": self.settings.lower}
        _write(out / "sentence_bert_config.json", limits)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised, [S, D]; a text without tokens is the zero vector."""
        tokens = self.packer.tokenize(list(texts))
        lengths = torch.tensor([len(t) for t in tokens])
        longest = max(int(lengths.max()), 1)
        ids_SL = torch.full((len(tokens), longest), self.pad, dtype=torch.int64)
        for row, own in enumerate(tokens):
            ids_SL[row, : len(own)] = torch.tensor(np.asarray(own, np.int64))
        mask_SL = torch.arange(longest)[None, :] < lengths[:, None]
        ids_SL, mask_SL = ids_SL.to(self.device), mask_SL.to(self.device)
        with warnings.catch_warnings():  # advice to the authors of models, not to our users
            warnings.simplefilter("ignore")
            hidden_SLD = self.model(input_ids=ids_SL, attention_mask=mask_SL.long()).last_hidden_state
        if self.settings.pooling == "mean":
            weight = mask_SL[:, :, None].to(hidden_SLD.dtype)
            pooled = (hidden_SLD * weight).sum(1) / weight.sum(1).clamp(min=1)
        else:
            at = torch.zeros_like(lengths) if self.settings.pooling == "cls" else (lengths - 1).clamp(min=0)
            pooled = hidden_SLD[torch.arange(len(tokens)), at]
        return functional.normalize(pooled, dim=1)

    def _batches(self, count: int) -> Iterator[I64]:
        """Places of the pairs of one batch after the other, pass after pass, each pass in another order."""
        size, number = min(self.tuning.batch, count), 0
        while True:
            order = np.random.default_rng((self.tuning.seed, number)).permutation(count)
            for start in range(0, count - size + 1, size):
                yield order[start : start + size]
            number += 1

    def _step(self, pairs: Pairs, chosen: I64, expected: F64, optimizer: Any) -> float:
        self.model.train()
        targets = pairs.targets[chosen]
        histories = self.vectors([pairs.text(int(i), self.titles) for i in chosen])
        items = self.vectors([self.whole[i] for i in targets.tolist()])
        correction = torch.from_numpy(expected[targets]).float().to(self.device)
        rows = torch.from_numpy(targets).to(self.device)
        loss = contrastive_loss(histories, items, rows, correction, 1 / self.tuning.temperature)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), _GRADIENT_NORM)
        optimizer.step()
        return float(loss.detach())

    def _measure(self, held: Pairs) -> float | None:
        """NDCG@10 of the targets among some items that are not in the history; None without a holdout."""
        if not len(held.targets):
            return None
        told = np.flatnonzero([bool(text) for text in self.whole])
        drawn = np.random.default_rng(self.tuning.seed).permutation(told)[:_RANKED]
        among = np.union1d(drawn, held.targets)
        items = self._read([self.whole[i] for i in among.tolist()])
        histories = self._read([held.text(i, self.titles) for i in range(len(held.targets))])
        scores = histories @ items.T
        gains = np.zeros(len(scores))
        for row, target in enumerate(held.targets.tolist()):
            mine = scores[row, np.searchsorted(among, target)]
            had = np.isin(among, held.rows[held.first[row] : held.last[row]])
            rank = int((scores[row, ~had] >= mine).sum()) - 1
            gains[row] = 1 / np.log2(max(rank, 0) + 2) if rank < 10 else 0.0
        return round(float(gains.mean()), 6)

    def _read(self, texts: Sequence[str]) -> F32:
        """Vectors without gradients, float32 [S, D]."""
        self.model.eval()
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        out = np.zeros((len(texts), self.settings.dimension), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), _READ):
                rows = order[start : start + _READ]
                out[rows] = self.vectors([texts[i] for i in rows]).float().cpu().numpy()
        return out

    def _copy(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}


def _with_additions(model: Any, rank: int) -> Any:
    """The model with trainable low-rank additions to its linear layers, everything else frozen."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it notes that GPT-2 keeps its matrices the other way round
        config = peft.LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=_ADDED_DROPOUT, target_modules="all-linear", bias="none"
        )
        return peft.get_peft_model(model, config)


def _schedule(done: float) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to zero."""
    if done < _WARMUP:
        return done / _WARMUP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP)))


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
