"""Texts to packed tokens: tokenised in parallel, sorted by length, no padding.

S sequences of T tokens together; ids int32, lengths in tokens with the special ones.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastrec.types import I32, I64, PackedTokens

#: Characters per token that are handed to the tokenizer at first. Running text has 4 to 6, ids and
#: numbers fewer; what lies behind is looked at only where these did not fill max_length.
_CHARS_PER_TOKEN = 32
#: The last token kept must end this far before the cut, so that no word that the cut split is kept.
_MARGIN = 1024
_GROWTH = 8


class Packer:
    """A fast tokenizer of the ``tokenizers`` library with truncation and without padding.

    tokenizer: ``tokenizers.Tokenizer``; its truncation and padding settings are replaced
    max_length: tokens kept of a text, special tokens included
    prompt: put in front of every text
    cut: whether long texts may be cut before tokenising (not where the tokenizer truncates on the left)
    """

    def __init__(self, tokenizer: Any, max_length: int, *, prompt: str = "", side: str = "right") -> None:
        self.max_length, self.prompt = max_length, prompt
        self._cut = side == "right"
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=max_length, direction=side)

    def tokenize(self, texts: Sequence[str]) -> list[I32]:
        """Token ids of every text, int32 [<= max_length] each, in the order of the texts.

        The tokenizer reads a text whole before it truncates: a megabyte costs a second and a hundred
        times its size. So only the first 32 * max_length characters are read. Where they do not fill
        max_length with room to spare (blanks, one endless word), eight times as many are, up to the whole
        text: the result is that of the whole text.
        """
        texts = [self.prompt + text for text in texts] if self.prompt else texts
        limit = self.max_length * _CHARS_PER_TOKEN + _MARGIN if self._cut else 1 << 62
        whole = [i for i, text in enumerate(texts) if len(text) <= limit]
        long = [i for i, text in enumerate(texts) if len(text) > limit]
        out: list[I32] = [_NONE] * len(texts)
        encodings = self._tokenizer.encode_batch_fast([texts[i] for i in whole])
        for i, encoding in zip(whole, encodings, strict=True):
            out[i] = np.array(encoding.ids, np.int32)
        for i in long:  # one by one: they are few, and each is large
            out[i] = self._tokenize_long(texts[i], limit)
        return out

    def _tokenize_long(self, text: str, limit: int) -> I32:
        while limit < len(text):
            encoding = self._tokenizer.encode(text[:limit])
            end = max((end for _, end in encoding.offsets), default=0)
            if len(encoding.ids) == self.max_length and end <= limit - _MARGIN:
                break
            limit *= _GROWTH
        else:
            encoding = self._tokenizer.encode(text)
        return np.array(encoding.ids, np.int32)


_NONE = np.empty(0, np.int32)


def batches(lengths: I64, budget: int) -> Iterator[I64]:
    """Rows of each batch: sorted by length, longest first, rows times longest at most ``budget`` tokens.

    Sorted, so that padding (where a backend needs it) is little and equal lengths lie together; longest
    first, so that memory is at its peak at the start and not after an hour. A text longer than the
    budget gets a batch of its own; one without tokens is in no batch.

    lengths: int64 [S]. Yields int64 [rows].
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[: int(np.count_nonzero(lengths))]
    at = 0
    while at < len(order):
        rows = max(1, budget // int(lengths[order[at]]))
        yield order[at : at + rows]
        at += rows


def pack(tokens: Sequence[I32]) -> PackedTokens:
    """The sequences behind one another; none may be empty."""
    cu = np.zeros(len(tokens) + 1, np.int32)
    np.cumsum([len(t) for t in tokens], out=cu[1:])
    return PackedTokens(np.concatenate([_NONE, *tokens]), cu)
