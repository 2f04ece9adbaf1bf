import time

import numpy as np
import pytest

from fastrec.encode.packing import Packer, batches, pack


@pytest.fixture
def tokenizer(tiny):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(tiny / "tokenizer.json"))


def whole(tokenizer, text, max_length):
    """Reference: the text in one piece, cut afterwards."""
    tokenizer.no_truncation()
    ids = tokenizer.encode(text).ids
    return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


@pytest.mark.parametrize(
    "text",
    [
        "red toy " * 130_000,
        " " * 600_000 + "heat",
        "a" * 500_000 + " heat",  # one unknown token, then a word behind every cut
        ("x" * 150 + " ") * 4000,
        "b",
        "",
    ],
    ids=["words", "blanks", "endless-word", "long-words", "letter", "empty"],
)
def test_cutting_first_changes_nothing(tokenizer, text):
    expected = whole(tokenizer, text, 16)
    assert Packer(tokenizer, 16).tokenize(["toy", text])[1].tolist() == expected


def test_a_megabyte_costs_what_its_head_costs(tokenizer):
    packer = Packer(tokenizer, 64)
    text = "the red toy story, " * 55_000
    packer.tokenize([text])
    begun = time.perf_counter()
    for _ in range(10):
        packer.tokenize([text])
    assert time.perf_counter() - begun < 0.5


def test_truncation_on_the_left_reads_the_end(tokenizer):
    ids = Packer(tokenizer, 4, side="left").tokenize(["the " * 5000 + "red toy"])[0]
    assert [tokenizer.id_to_token(i) for i in ids[1:-1]] == ["red", "toy"]


def test_the_prompt_is_part_of_every_text(tokenizer):
    got = Packer(tokenizer, 16, prompt="red ").tokenize(["toy"])[0]
    assert got.tolist() == Packer(tokenizer, 16).tokenize(["red toy"])[0].tolist()


@pytest.mark.parametrize("budget", [1, 7, 64, 10_000])
@pytest.mark.parametrize("n", [0, 1, 63, 257])
def test_batches_hold_every_row_once_and_keep_the_budget(n, budget):
    lengths = np.random.default_rng(n).integers(0, 20, n)
    got = list(batches(lengths, budget))
    rows = np.concatenate([*got, np.empty(0, np.int64)])
    assert sorted(rows) == np.flatnonzero(lengths).tolist()
    assert (np.diff(lengths[rows]) <= 0).all()
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= budget for b in got)


def test_pack():
    packed = pack([np.array([1, 2], np.int32), np.array([3], np.int32)])
    assert packed.ids.tolist() == [1, 2, 3]
    assert packed.cu_seqlens.tolist() == [0, 2, 3]
    assert len(pack([]).ids) == 0
