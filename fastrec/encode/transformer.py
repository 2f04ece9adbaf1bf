"""A language model: packed tokens in, one vector per sequence out.

    S sequences, T tokens, L longest sequence of a batch, D dimensions

``Transformer.forward`` is the seam for faster backends: it takes packed tokens. On a CPU the BERT family runs in C++
(``native.py``; on CUDA, and where the native module is missing, in torch: ``bert.py``) and decoders in torch
(``decoder.py``), both packed; other models are padded for transformers. Whatever the weights were saved in, everything
is float32, but for the linear layers where the settings say so.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastrec import _native, ops
from fastrec.encode import families
from fastrec.encode.bert import PackedBert
from fastrec.encode.decoder import TYPES as DECODERS
from fastrec.encode.decoder import PackedDecoder
from fastrec.encode.folder import Settings
from fastrec.encode.native import NativeEncoder
from fastrec.encode.packing import Packer, pack
from fastrec.errors import ArtifactError, BackendUnavailable, ConfigError
from fastrec.types import F32, PackedTokens

_LOG = logging.getLogger("fastrec.encode")


class Transformer:
    """The model of a folder, on a device, with its pooling.

    Raises ArtifactError for a damaged folder, ConfigError for a model without a fast tokenizer,
    BackendUnavailable for a device that is not there. Thread-safe: a lock lets one call compute at a time,
    which is also fastest, since torch spreads each over all of its threads.
    """

    def __init__(self, folder: Path, settings: Settings, device: str = "auto", packed: bool = True) -> None:
        self.settings, self.device = settings, _device(device)
        self._lock = threading.Lock()
        with _quiet() as transformers:
            model = _load(transformers, folder)
            self.packer = _packer(transformers, folder, settings)
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self._model = model.eval().requires_grad_(False)
        self.native: NativeEncoder | None = None
        self.packed: PackedBert | PackedDecoder | None = None
        reason: str | None = "packing is off" if not packed else None
        if packed:
            reason = families.reason_against(model)
            if reason is None:
                weights = families.read(model)
                if self.device.type == "cpu" and _native.missing_cpu() is None:
                    how = (settings.precision, settings.pooling, settings.normalize)
                    self.native = NativeEncoder(weights, *how)
                else:
                    self.packed = PackedBert(weights, self.device)
                self._model = None
            elif model.config.model_type in DECODERS:
                reason = PackedDecoder.reason_against(model)
                self.packed = PackedDecoder(model.to(self.device)) if reason is None else None
            if reason is not None:
                _tell(f"[encode] {folder} runs through transformers as it is, with padding ({reason})")
        if self._model is not None:
            self._model = self._model.to(self.device)

    def forward(self, tokens: PackedTokens) -> F32:
        """Pooled vectors, float32 [S, D], normalised where the folder says so."""
        if self.native is not None:
            out = self.native.forward(tokens)
        else:
            with self._lock, torch.inference_mode():
                hidden_TD = self.packed.forward(tokens) if self.packed else self._padded(tokens)
                how: Any = {"pooling": self.settings.pooling, "normalize": self.settings.normalize}
                pooled = ops.pool_normalize(hidden_TD, tokens.cu_seqlens, **how)
                out = np.asarray(pooled.cpu().numpy(), np.float32)
        if not np.isfinite(out).all():
            raise ArtifactError("[encode] the vectors are not finite: the weights of the model are damaged")
        return out

    def confirm(self, mean: float, least: float) -> bool:
        """Whether the precision keeps these cosines to float32, in the mean and at least, on some plain sentences."""
        if self.native is None:
            return True
        tokens = pack(self.packer.tokenize(_PLAIN))
        low, full = self.native.forward(tokens), self.native.again("fp32").forward(tokens)
        low, full = low.astype(np.float64), full.astype(np.float64)
        cosines = (low * full).sum(1) / np.maximum(np.linalg.norm(low, axis=1) * np.linalg.norm(full, axis=1), 1e-30)
        if cosines.mean() >= mean and cosines.min() >= least:
            return True
        kept = f"{self.settings.precision} keeps a cosine of {cosines.mean():.6f}, at least {cosines.min():.6f},"
        _tell(f"[encode] {kept} with this model, and is not used")
        return False

    def change(self, settings: Settings) -> None:
        """Go on with settings of another precision."""
        if self.native is not None:
            self.native = self.native.again(settings.precision)
        self.settings = settings

    def _padded(self, tokens: PackedTokens) -> torch.Tensor:
        """Hidden states [T, D] by way of a padded batch [S, L]."""
        lengths = np.diff(tokens.cu_seqlens)
        mask_SL = torch.from_numpy(np.arange(lengths.max())[None, :] < lengths[:, None])
        ids_SL = torch.full(mask_SL.shape, self.model_pad, dtype=torch.int64)
        ids_SL[mask_SL] = torch.from_numpy(tokens.ids.astype(np.int64))
        mask_SL = mask_SL.to(self.device)
        with warnings.catch_warnings():  # advice to the authors of models, not to our users
            warnings.simplefilter("ignore")
            out = self._model(input_ids=ids_SL.to(self.device), attention_mask=mask_SL.long())
        hidden: torch.Tensor = out.last_hidden_state[mask_SL]
        return hidden

    @property
    def model_pad(self) -> int:
        """Id that fills up a padded batch; RoBERTa counts positions by it."""
        pad = getattr(self._model.config, "pad_token_id", None)
        return pad if isinstance(pad, int) and pad >= 0 else 0


_told: set[str] = set()
#: What integers are tried on.
_PLAIN = [
    "Moisturising shampoo with argan oil, 12 oz., pack of 2",
    "Toy Story (1995). Genres: Animation, Children's, Comedy.",
    "a",
    "The film follows two rivals who are lost on their way and must find home together before the family moves.",
    "USB-C cable 3.1, 2 m, black",
]


def _tell(message: str) -> None:
    if message not in _told:
        _told.add(message)
        _LOG.warning(message)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        index = int(name.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            reason = f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA device(s)"
            raise BackendUnavailable("encode", name, reason, "device='cpu', or a CUDA build of torch")
    return torch.device(name)


def _load(transformers: Any, folder: Path) -> Any:
    try:
        model, info = transformers.AutoModel.from_pretrained(
            folder,
            use_safetensors=True,  # never a pickle
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except MemoryError:
        raise
    except Exception as error:  # transformers and safetensors raise what they like for a damaged folder
        raise ArtifactError(f"[encode] cannot load the model in {folder}: {_line(error)}") from error
    # transformers fills missing weights with random numbers and only warns. The pooler is not used here.
    missing = sorted(k for k in info["missing_keys"] if not k.startswith("pooler."))
    if missing:
        raise ArtifactError(f"[encode] {folder} lacks {len(missing)} weights, such as {missing[0]}")
    return model


def _packer(transformers: Any, folder: Path, settings: Settings) -> Packer:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise ArtifactError(f"[encode] cannot load the tokenizer in {folder}: {_line(error)}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(f"[encode] {folder} has a {type(tokenizer).__name__}, expected a fast tokenizer")
    if settings.lower:
        from tokenizers.normalizers import Lowercase, Sequence

        backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])
    special = backend.num_special_tokens_to_add(False)
    if settings.max_length <= special:
        raise ConfigError(f"[encode] max_length={settings.max_length}, expected more than {special}")
    side = getattr(tokenizer, "truncation_side", "right")
    return Packer(backend, settings.max_length, prompt=settings.prompt, side=side)


@contextmanager
def _quiet() -> Iterator[Any]:
    """transformers, without its warnings, log lines and progress bars while it loads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        logging: Any = transformers.utils.logging
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        try:
            yield transformers
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
