"""Images and sounds through models of transformers, and texts through the tower that shares their space.

Shape legend: n images, sounds or texts, D dimensions.

CLIP, SigLIP and CLAP give the vectors of their common space; of other models (ViT, DINO, Wav2Vec2) it is the pooled
output, or the mean of the last hidden states over what is no padding.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastrec.encode.transformer import _device, _quiet
from fastrec.errors import ArtifactError, ConfigError
from fastrec.modelfiles import line
from fastrec.types import F32

_LOG = logging.getLogger("fastrec.encode")
#: What reads each kind of input, and the method for the common space.
_READERS = {"image": "AutoImageProcessor", "audio": "AutoFeatureExtractor"}
_FEATURES = {"image": "get_image_features", "audio": "get_audio_features"}


class Tower:
    """The model of a folder for one kind of input: "image" or "audio".

    rate: samples a second that it wants of a sound; least, most: samples, at least and at most (0: no limit)
    Raises ArtifactError for a folder that holds no such model, BackendUnavailable for a missing device.
    """

    def __init__(self, folder: Path, kind: str, device: str = "auto") -> None:
        self.kind, self.device, self._folder = kind, _device(device), folder
        with _quiet() as transformers:
            try:
                model, info = transformers.AutoModel.from_pretrained(
                    folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
                )
                self._reader = getattr(transformers, _READERS[kind]).from_pretrained(folder, local_files_only=True)
            except MemoryError:
                raise
            except Exception as error:  # transformers and safetensors raise what they like for a damaged folder
                raise ArtifactError(f"[encode] {folder} holds no {kind} model: {line(error)}") from error
            missing = sorted(k for k in info["missing_keys"] if "pooler." not in k and "masked_spec_embed" not in k)
            if missing:
                raise ArtifactError(f"[encode] {folder} lacks {len(missing)} weights, such as {missing[0]}")
            self._shared = hasattr(model, _FEATURES[kind])
            self._tokenizer: Any = None
            if self._shared and hasattr(model, "get_text_features"):
                try:
                    self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
                except Exception as error:  # such a folder serves for images alone
                    _LOG.warning("[encode] %s has no tokenizer, texts cannot be compared: %s", folder, line(error))
        self._model = model.to(self.device).eval().requires_grad_(False)
        pooled = not any("pooler." in k for k in info["missing_keys"])
        self._pooled = pooled
        self.rate = int(getattr(self._reader, "sampling_rate", 0) or 0)
        self.most = int(getattr(self._reader, "nb_max_samples", 0) or 0)
        self.least = 1
        kernels, strides = (getattr(model.config, name, None) or () for name in ("conv_kernel", "conv_stride"))
        for kernel, stride in zip(reversed(kernels), reversed(strides), strict=False):  # without padding
            self.least = (self.least - 1) * int(stride) + int(kernel)
        if kind == "audio" and not self.rate:
            raise ConfigError(f"[encode] {folder} names no sampling rate: it is no audio model")

    @property
    def reads_text(self) -> bool:
        """Whether texts have vectors in the same space."""
        return self._tokenizer is not None

    def forward(self, inputs: Sequence[Any]) -> F32:
        """Vectors of RGB images, or of samples at ``rate``, float32 [n, D]."""
        alone = self.kind == "audio" and not self._shared and not getattr(self._reader, "return_attention_mask", True)
        if alone and len(inputs) > 1:  # such a model knows no padding: what is behind a sound would change it
            return np.concatenate([self.forward([one]) for one in inputs])
        try:
            return self._forward(inputs, masked=not alone)
        except (TypeError, ValueError, RuntimeError) as error:
            name = type(self._model).__name__
            raise ConfigError(
                f"[encode] {self._folder}: {name} cannot read {self.kind} alone: {line(error)}"
            ) from error

    def _forward(self, inputs: Sequence[Any], masked: bool) -> F32:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.kind == "image":
                ready = self._reader(images=list(inputs), return_tensors="pt")
            else:
                # A longer sound would be cut at random, and two runs would differ.
                cut = [x[: self.most] if self.most else x for x in inputs]
                more = {} if self._shared else {"padding": True, "return_attention_mask": masked}
                ready = self._reader(cut, sampling_rate=self.rate, return_tensors="pt", **more)
            ready = {name: value.to(self.device) for name, value in ready.items()}
            if self._shared:
                return self._checked(getattr(self._model, _FEATURES[self.kind])(**ready))
            out = self._model(**ready)
            pooled = getattr(out, "pooler_output", None)
            if pooled is not None and self._pooled:
                return self._checked(pooled)
            hidden = out.last_hidden_state
            mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
            if "attention_mask" in ready and hasattr(self._model, "_get_feature_vector_attention_mask"):
                mask = self._model._get_feature_vector_attention_mask(hidden.shape[1], ready["attention_mask"]).bool()
            hidden = torch.where(mask[..., None], hidden, 0.0)
            return self._checked(hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1))

    def text(self, texts: Sequence[str]) -> F32:
        """Vectors of texts in the same space, float32 [n, D]."""
        config = self._model.config
        length = getattr(getattr(config, "text_config", config), "max_position_embeddings", 77)
        if config.model_type == "clap":  # as RoBERTa: positions begin behind the padding token
            length -= int(config.text_config.pad_token_id or 0) + 1
        how = {"padding": "max_length" if "siglip" in config.model_type else True}
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ready = self._tokenizer(list(texts), truncation=True, max_length=length, return_tensors="pt", **how)
            ready = {n: ready[n].to(self.device) for n in ("input_ids", "attention_mask") if n in ready}
            return self._checked(self._model.get_text_features(**ready))

    def _checked(self, out: Any) -> F32:
        found = out.pooler_output if hasattr(out, "pooler_output") else out  # older releases give the tensor itself
        vectors = np.asarray(found.float().cpu().numpy(), np.float32)
        if not np.isfinite(vectors).all():
            raise ArtifactError(f"[encode] {self._folder}: vectors are not finite, its weights are damaged")
        return vectors
