"""implicit for benchmarks/live.py, in a process of its own: live.py ITEMS FACTORS

A line "N" on stdin is answered with the seconds of N calls that take a new event of a user into account and give a
list: ``recommend(..., recalculate_user=True)``, which solves for the user's factors from the grown history.
"""

import json
import sys
import time
import warnings

import numpy as np
import scipy.sparse as sp

warnings.simplefilter("ignore")


def main() -> None:
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    n_items, factors = map(int, sys.argv[1:])
    rng = np.random.default_rng(0)
    model = AlternatingLeastSquares(factors, 10.0, 1.0, num_threads=1)
    model.item_factors = rng.standard_normal((n_items, factors), np.float32) / np.float32(factors**0.5)
    model.user_factors = np.zeros((1, factors), np.float32)
    with threadpool_limits(1, "blas"):  # implicit asks for it
        for line in sys.stdin:
            seconds = []
            for _ in range(int(line)):
                history = rng.choice(n_items, 27, replace=False).astype(np.int32)
                begun = time.perf_counter()
                row = sp.csr_matrix((np.ones(27, np.float32), history, [0, 27]), (1, n_items))
                model.recommend(0, row, N=10, recalculate_user=True)
                seconds.append(time.perf_counter() - begun)
            print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
