"""The exact weighted three-field top-10 over wordnet_20k in DuckDB. Prints one JSON object."""

import json
import sys
import time

import duckdb

data, threads = sys.argv[1], int(sys.argv[2])
db = duckdb.connect()
db.execute(f"SET threads = {threads}")
vectors = ["v_lemma", "v_gloss", "v_example"]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# DuckDB has no 16-bit floats: widened here, stored as FLOAT[384].
source = pq.read_table(f"{data}/wordnet_20k.parquet", columns=["id", *vectors])
for name in vectors:
    i = source.schema.get_field_index(name)
    column = source.column(name).combine_chunks()
    flat = np.zeros((len(column), 384), dtype=np.float32)
    valid = np.array([v.is_valid for v in column]) if column.null_count else np.ones(len(column), dtype=bool)
    flat[valid] = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, 384)
    wide = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), 384, mask=pa.array(~valid))
    source = source.set_column(i, name, wide)
columns = ", ".join(f"{name}::FLOAT[384] AS {name}" for name in vectors)
db.execute(f"CREATE TABLE t AS SELECT id, {columns} FROM source")
queries = pq.read_table(f"{data}/wordnet_queries.parquet").sort_by("query_id")
rows = list(zip(*(queries.column(c).to_pylist() for c in ["q_lemma", "q_gloss", "q_example"])))
distance = "array_cosine_distance({0}, ?::FLOAT[384])"
score = " + ".join(f"{w} * {distance.format(v)}" for w, v in zip([0.5, 0.3, 0.2], vectors))
sql = f"SELECT id, {score} AS score FROM t ORDER BY score NULLS LAST, id LIMIT 10"
for warm in (True, False):
    times, ids = [], []
    for row in rows:
        start = time.perf_counter()
        answer = db.execute(sql, list(row)).fetchall()
        times.append(time.perf_counter() - start)
        ids.append([r[0] for r in answer])
times.sort()
print(json.dumps({
    "version": duckdb.__version__,
    "p50_ms": times[len(times) // 2] * 1e3,
    "p99_ms": times[len(times) * 99 // 100] * 1e3,
    "ids": ids,
}))
