"""Recommendations for all users, in bounded memory: python examples/batch_job.py MODEL OUT [K]

OUT is a folder of parquet parts, which the same call completes after a kill, or a file that ends in .parquet.
"""

import sys

import fastrec


def main(model: str, out: str, k: int = 10) -> None:
    print(fastrec.load(model).recommend_all(out, k))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10)
