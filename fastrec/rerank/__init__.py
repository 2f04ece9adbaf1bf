"""The last stage, off by default: a causal language model reads the titles of the best candidates after the history."""

from fastrec.rerank.reader import Cost, Reader, Rerank, as_rerank, bonus, check_fingerprint, history_text, reordered

__all__ = ["as_rerank", "bonus", "check_fingerprint", "Cost", "history_text", "Reader", "reordered", "Rerank"]
