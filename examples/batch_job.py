"""Recommendations for all users, in parts that fit into memory: python examples/batch_job.py MODEL OUT.parquet [K]"""

import sys

import pyarrow.parquet as pq

import fastrec

PART = 10_000


def main(model: str, out: str, k: int = 10) -> None:
    rec = fastrec.load(model)
    users = rec.user_ids
    writer = None
    try:
        for start in range(0, len(users), PART):
            table = rec.recommend(users[start : start + PART], k).to_arrow()
            writer = writer or pq.ParquetWriter(out, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10)
