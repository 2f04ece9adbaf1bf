"""Retrieval: Features and Queries -> Candidates."""

from fastrec.retrieve.exact import scores, search

__all__ = ["scores", "search"]
