"""The likelihood of titles after a history: by way of the shared beginning, and by its definition."""

import json

import numpy as np
import pytest
from readers import save_model
from safetensors.numpy import load_file, save_file

from fastrec import ArtifactError, BackendUnavailable, ConfigError, Rerank
from fastrec.rerank import Reader, as_rerank, bonus, history_text, reordered
from fastrec.types import Candidates

TITLES = ["red apple", "Steel Hammer (1999)", "a", "red apple fruit number7", "Größe", "steel"]
KINDS = ["gpt2", "llama", "mistral", "qwen3", "gpt_neox", "opt", "bloom", "mamba"]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A function that saves a random model of a kind, once."""
    made = {}

    def make(kind, **sizes):
        key = (kind, *sizes.items())
        if key not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[key] = save_model(folder, TITLES * 3, kind, **sizes)
        return made[key]

    return make


def alone(folder, text, ending):
    """ln p of every token of the ending after the text, in float64, by transformers alone."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    start = [tokenizer.bos_token_id]
    for line in text.splitlines(keepends=True):
        start += tokenizer(line, add_special_tokens=False)["input_ids"]
    end = tokenizer(ending, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([start + end])).logits[0].double()
    logs = torch.log_softmax(logits, dim=-1)
    return np.array([float(logs[len(start) + i - 1, token]) for i, token in enumerate(end)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [True, False])
def test_likelihoods_are_those_of_transformers(make, kind, shared):
    folder = make(kind)
    reader = Reader(Rerank(str(folder), device="cpu"))
    if not shared:
        reader._load()._shares = False
    histories = [TITLES[:2], TITLES[2:], [TITLES[0]], [TITLES[0]]]
    candidates = [TITLES[3:], TITLES[:4], TITLES[::-1], TITLES[1:2]]
    found = reader.likelihoods(histories, candidates)
    assert reader._load()._shares == (shared and kind != "mamba")  # whose state cannot be repeated
    for history, titles, logs in zip(histories, candidates, found, strict=True):
        want = [alone(folder, history_text(history), f"{t}\n").sum() for t in titles]
        np.testing.assert_allclose(logs, want, rtol=1e-5, atol=1e-4)


def test_the_shared_beginning_is_read_once(make):
    reader = Reader(Rerank(str(make("gpt2")), device="cpu"))
    shapes = []
    model = reader._load()._model
    forward = model.forward

    def counted(*args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    model.forward = counted
    reader.likelihoods([TITLES[:3]], [TITLES])
    length = len(reader._context(TITLES[:3], 100))
    longest = max(len(reader._ids(f"{t}\n")) for t in TITLES)
    assert shapes == [(1, length), (len(TITLES), longest)]
    assert (reader.cost.users, reader.cost.history_tokens) == (1, length)
    assert reader.cost.title_tokens == sum(len(reader._ids(f"{t}\n")) for t in TITLES)


def test_a_batch_changes_nothing(make):
    histories = [TITLES[: 1 + u % 4] for u in range(9)]
    candidates = [TITLES[u % 3 :] for u in range(9)]
    reader = Reader(Rerank(str(make("gpt2")), device="cpu"))
    together = reader.likelihoods(histories, candidates)
    for h, c, logs in zip(histories, candidates, together, strict=True):
        np.testing.assert_allclose(reader.likelihoods([h], [c])[0], logs, atol=1e-4)


def test_mean_and_lift(make):
    folder = str(make("gpt2"))
    total, mean, lift = (
        Reader(Rerank(folder, likelihood=kind)).likelihoods([TITLES[:2]], [TITLES])[0]
        for kind in ("total", "mean", "lift")
    )
    parts = [alone(folder, history_text(TITLES[:2]), f"{t}\n") for t in TITLES]
    np.testing.assert_allclose(mean, [p.mean() for p in parts], atol=1e-4)
    untold = [alone(folder, "", f"{t}\n").sum() for t in TITLES]
    np.testing.assert_allclose(lift, total - untold, atol=1e-4)


def test_titles_that_are_empty_and_histories_that_are_long(make):
    reader = Reader(Rerank(str(make("gpt2", positions=40))))
    found = reader.likelihoods([["a"] * 500, [], ["", "a"]], [["a", "", " "], ["a"], []])
    assert np.isfinite(found[0]).tolist() == [True, False, False]
    assert np.isfinite(found[1]).all() and len(found[2]) == 0
    context = reader._context([f"title {i}" for i in range(50)], 30)
    text = reader._load()._tokenizer.decode(context)
    assert len(context) <= 30 and text.startswith("<end>title") and text.endswith("title 49\n")  # whole titles, newest
    assert len(reader.likelihoods([["x" * 900]], [["y" * 900]])[0]) == 1


@pytest.mark.parametrize("likelihood", ["total", "mean", "lift"])
def test_titles_without_a_token(make, tmp_path, likelihood):
    import shutil

    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    # Words of single letters; what is none of them, white space too, leaves no token, and there is none to begin with.
    letters = Tokenizer(models.BPE({letter: i for i, letter in enumerate("abcd")}, []))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = shutil.copytree(make("gpt2"), tmp_path / "m")
    for file in folder.glob("token*"):
        file.unlink()
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters).save_pretrained(folder)
    reader = Reader(Rerank(str(folder), likelihood=likelihood))
    some, none, nothing = reader.likelihoods([["ab", "c"], ["!"], ["a"]], [["ab", "?", "d"], ["c", "a"], ["?", "!"]])
    assert np.isfinite(some).tolist() == [True, False, True]
    assert np.isfinite(none).all() and np.isnan(nothing).all()
    np.testing.assert_allclose(some[::2], reader.likelihoods([["ab", "c"]], [["ab", "d"]])[0], atol=1e-5)


def test_a_model_that_looks_ahead_is_refused(make):
    with pytest.raises(ConfigError, match="BertLMHeadModel looks at what follows, expected a causal language model"):
        Reader(Rerank(str(make("bert")))).likelihoods([["a"]], [["b"]])


def test_the_bonus_and_the_new_order():
    added = bonus(np.array([-3.0, np.nan, -1.0], np.float32), 0.5)
    np.testing.assert_allclose(added, [0.0, 0.5, 1.0])
    assert (bonus(np.array([np.nan, np.nan], np.float32), 2.0) == 0).all()
    assert (bonus(np.array([-3.0, -1.0], np.float32), 0.0) == 0).all()
    rows, scores = np.array([[5, 6, 7, 8, -1]]), np.array([[3.0, 2.5, 2.0, 1.0, -np.inf]], np.float32)
    found, gains = reordered(Candidates(rows, scores), np.array([[0, 0, 1.5, 0, 0]], np.float32))
    assert found.rows.tolist() == [[7, 5, 6, 8, -1]] and gains.tolist() == [[1.5, 0, 0, 0, 0]]
    assert found.scores[0, :4].tolist() == [3.5, 3.0, 2.5, 1.0]


def test_the_fingerprint_follows_the_files(make, tmp_path):
    import shutil

    folder = shutil.copytree(make("gpt2"), tmp_path / "copy")
    first = Reader(Rerank(str(folder))).fingerprint
    assert Reader(Rerank(str(folder))).fingerprint == first and len(first) == 32
    weights = load_file(folder / "model.safetensors")
    weights[next(iter(weights))][0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert Reader(Rerank(str(folder))).fingerprint != first


def test_damaged_folders(make, tmp_path):
    import shutil

    folder = shutil.copytree(make("gpt2"), tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    lost = {k: v for k, v in weights.items() if "h.1.mlp" not in k}
    save_file(lost, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"lacks \d weights, such as transformer.h.1.mlp"):
        Reader(Rerank(str(folder))).likelihoods([["a"]], [["b"]])
    bad = {k: np.full_like(v, np.nan) if "ln_f" in k else v for k, v in weights.items()}
    save_file(bad, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match="not finite"):
        Reader(Rerank(str(folder))).likelihoods([["a"]], [["b"]])
    (folder / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(ArtifactError, match="cannot load a causal language model"):
        Reader(Rerank(str(folder))).likelihoods([["a"]], [["b"]])


def test_a_model_that_cannot_be_had():
    with pytest.raises(BackendUnavailable, match=r"\[rerank\].*nobody/nothing"):
        Reader(Rerank("nobody/nothing")).likelihoods([["a"]], [["b"]])


@pytest.mark.parametrize(
    "settings",
    [
        {"model": 3}, {"model": "./nothing-here"}, {"candidates": 1}, {"history": 0}, {"weight": -1},
        {"weight": "much"},
        {"weight": float("inf")}, {"characters": True}, {"likelihood": "best"}, {"sample": 1.5}, {"device": "tpu"},
        {"prompt": None},
    ],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=f"rerank.*{next(iter(settings))}.*expected"):
        Rerank(**{"model": "gpt2", **settings})


def test_what_counts_as_a_setting(tmp_path):
    assert as_rerank(None) is None and as_rerank("gpt2") == Rerank("gpt2")
    assert as_rerank(tmp_path) == Rerank(str(tmp_path))
    assert as_rerank({"model": "gpt2", "candidates": 5}) == Rerank("gpt2", candidates=5)
    with pytest.raises(ConfigError, match=r"rerank=3, expected a model id"):
        as_rerank(3)
