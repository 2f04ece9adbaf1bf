"""Items without events: of them only texts and knowledge speak, and these weigh among themselves as was learned for it.

    v_m(item) in the fused space = factor_m * v_m(item) for an item without events

The holdout teaches the weights on items with events. An item without any lies outside of it: for the others it is a
zero, and the proportions of those that see it are of no weight elsewhere. A factor on its vectors leaves one space and
one search. Queries are made of the vectors without it: an item that has been chosen is known.
"""

from dataclasses import dataclass

import numpy as np

from fastrec.types import F32, I64, Bool, DenseSource


@dataclass(frozen=True, eq=False)
class Cold:
    """rows: bool [N], items without events; factors: of the sources that see them, by name."""

    rows: Bool
    factors: dict[str, float]

    def scaled(self, source: DenseSource, items: I64 | None = None) -> F32:
        """The vectors of these items, or of all, as they stand in the fused space, float32 [n, D]."""
        vectors = source.vectors if items is None else source.vectors[items]
        factor = np.float32(self.factors.get(source.name, 1.0))
        if factor == 1:
            return vectors
        rows = self.rows if items is None else self.rows[items]
        return np.where(rows[:, None], vectors * factor, vectors)


def settled(
    weights: dict[str, float], asked: dict[str, float], rows: Bool, least: float
) -> tuple[dict[str, float], Cold | None]:
    """(weights in which nothing that is asked for is 0, the factors that bring them to the proportions ``asked``).

    asked: weights among the sources that see the items without events; together they count as much as they do for the
        others, or ``least`` times the largest weight, whichever is more
    """
    asked = {name: weight for name, weight in asked.items() if name in weights}
    total = float(np.linalg.norm(list(asked.values()))) if asked else 0.0
    if not rows.any() or not total or not any(weights.values()):
        return weights, None
    floor = least * max(weights.values())
    level = max(float(np.linalg.norm([weights[name] for name in asked])), floor)
    raised = {name: max(w, floor) if asked.get(name) else w for name, w in weights.items()}
    factors = {name: w * level / total / raised[name] for name, w in asked.items() if raised[name]}
    return raised, Cold(rows, factors)
