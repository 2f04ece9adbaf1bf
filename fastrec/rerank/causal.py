"""A causal language model of transformers: how likely each of many endings is after one beginning.

Shape legend: B beginnings of L tokens each, C endings of each, T tokens of the longest ending, V of the vocabulary.
"""

import inspect
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastrec.errors import ArtifactError, BackendUnavailable, ConfigError
from fastrec.modelfiles import line
from fastrec.types import F32, I64

_LOG = logging.getLogger("fastrec")
#: Where neither the model nor the tokenizer names one.
_DEFAULT_LENGTH = 1024


class CausalModel:
    """The model and the tokenizer of a folder, on a device, in float32.

    most: tokens that fit into the positions of the model; begin: the tokens that its texts begin with; blank: those of
        a text without any
    Raises ArtifactError for a folder that holds no causal model, ConfigError for one whose model looks ahead,
    BackendUnavailable for a device that is not there.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.device = _device(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model, self._tokenizer = _load(folder)
        self._model = self._model.to(self.device).eval().requires_grad_(False)
        config = self._model.config
        names = ("max_position_embeddings", "n_positions", "max_seq_len")
        positions = [getattr(config, name, None) for name in names]
        self.most = min([p for p in positions if isinstance(p, int) and p > 0] or [_DEFAULT_LENGTH], default=0)
        if self.most < 8:
            raise ConfigError(f"[rerank] {folder} has {self.most} positions, expected at least 8")
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        self.begin = [int(begin)] if isinstance(begin, int) else []
        self.blank = self.begin or self.tokenize("\n") or [int(end) if isinstance(end, int) else 0]
        takes = inspect.signature(self._model.forward).parameters
        self._few = "logits_to_keep" in takes
        self._cache = "cache" if "cache" in takes else "past_key_values"  # the older name
        self._shares = True
        self._check_causal(folder)

    def _check_causal(self, folder: Path) -> None:
        """What follows a token must not change what is said of it; BERT and its like load as causal models, too."""
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ids = torch.tensor([[0, 0], [0, 1]], device=self.device) % int(self._model.config.vocab_size)
            first, second = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0].float()
        if float((first - second).abs().max()) > 1e-5 * float(first.abs().max()):
            name = type(self._model).__name__
            raise ConfigError(f"[rerank] {folder}: {name} looks at what follows, expected a causal language model")

    def tokenize(self, text: str) -> list[int]:
        """Tokens without special ones."""
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def read(self, beginnings: Sequence[Sequence[int]], endings: Sequence[Sequence[Sequence[int]]]) -> list[F32]:
        """ln p(ending | beginning) of every ending, float32 [C_b] for each of the B beginnings, all of L tokens.

        Each beginning goes through the model once; its keys and values are repeated for its endings.
        """
        counts = np.array([len(e) for e in endings], np.int64)
        flat = [list(ending) for row in endings for ending in row]
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ids_BL = torch.tensor([list(b) for b in beginnings], device=self.device)
            ids_NT, mask_NT = self._padded(flat)
            owner_N = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(self.device)
            logs_N = self._after(ids_BL, ids_NT, mask_NT, owner_N) if self._shares else None
            if logs_N is None:
                logs_N = self.plain(ids_BL, ids_NT, mask_NT, owner_N)
            out: F32 = logs_N.float().cpu().numpy()
        if not np.isfinite(out).all():
            raise ArtifactError("[rerank] likelihoods are not finite: the weights of the model are damaged")
        return np.split(out, np.cumsum(counts)[:-1])

    def _after(self, ids_BL: Tensor, ids_NT: Tensor, mask_NT: Tensor, owner_N: Tensor) -> Tensor | None:
        """By way of the cache; None for a model whose cache cannot be shared."""
        first = self._model(input_ids=ids_BL, use_cache=True, **({"logits_to_keep": 1} if self._few else {}))
        cache: Any = next((c for n in ("cache", "past_key_values") if (c := getattr(first, n, None)) is not None), None)
        parts = (cache, *getattr(cache, "layers", ()))  # the state of a recurrent layer has no such selection
        if not all(hasattr(part, "batch_select_indices") for part in parts):
            _LOG.warning("[rerank] %s shares no beginnings: each candidate is read whole", type(self._model).__name__)
            self._shares = False
            return None
        last_BV = first.logits[:, -1].float()
        cache.batch_select_indices(owner_N)
        # Padding stands on the right of everything that is asked for, where no causal model looks.
        seen = torch.ones(len(ids_NT), ids_BL.shape[1] + ids_NT.shape[1], dtype=torch.int64, device=self.device)
        rest = self._model(input_ids=ids_NT, attention_mask=seen, use_cache=True, **{self._cache: cache}).logits
        first_N = torch.log_softmax(last_BV, dim=-1)[owner_N, ids_NT[:, 0]]
        return first_N + _summed(rest[:, :-1], ids_NT[:, 1:], mask_NT[:, 1:])

    def plain(self, ids_BL: Tensor, ids_NT: Tensor, mask_NT: Tensor, owner_N: Tensor) -> Tensor:
        """The same by whole texts: the definition."""
        whole = torch.cat((ids_BL[owner_N], ids_NT), dim=1)
        logits = self._model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits
        return _summed(logits[:, ids_BL.shape[1] - 1 : -1], ids_NT, mask_NT)

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """(ids int64 [N, T], filled up with 0; bool [N, T], false there)."""
        lengths = np.array([len(r) for r in rows], np.int64)
        mask = np.arange(lengths.max())[None] < lengths[:, None]
        ids: I64 = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate([np.array(r, np.int64) for r in rows])
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)


def _summed(logits_NTV: Tensor, ids_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """The sum of ln p over the tokens that count, [N]."""
    wanted = logits_NTV.gather(2, ids_NT[..., None])[..., 0].float()
    logs = wanted - torch.logsumexp(logits_NTV.float(), dim=-1)
    return torch.where(mask_NT, logs, 0.0).sum(dim=1)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("rerank", name, f"torch {torch.__version__} sees no CUDA device", "device='cpu'")
    return torch.device(name)


def _load(folder: Path) -> tuple[Any, Any]:
    import transformers

    their: Any = transformers
    logging_of_theirs = their.utils.logging
    level, bars = logging_of_theirs.get_verbosity(), logging_of_theirs.is_progress_bar_enabled()
    logging_of_theirs.set_verbosity(logging_of_theirs.CRITICAL)
    logging_of_theirs.disable_progress_bar()
    try:
        model, info = their.AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = their.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except MemoryError:
        raise
    except Exception as error:  # transformers and safetensors raise what they like for a damaged folder
        raise ArtifactError(f"[rerank] cannot load a causal language model from {folder}: {line(error)}") from error
    finally:
        logging_of_theirs.set_verbosity(level)
        if bars:
            logging_of_theirs.enable_progress_bar()
    # transformers fills missing weights with random numbers and only warns.
    missing = sorted(info["missing_keys"])
    if missing:
        raise ArtifactError(f"[rerank] {folder} lacks {len(missing)} weights, such as {missing[0]}")
    return model, tokenizer
