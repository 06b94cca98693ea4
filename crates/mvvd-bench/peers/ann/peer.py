"""Measures one peer library on one set; prints one JSON line a setting. `mvvd-bench compare` runs it.

python peer.py PEER --base B.npy --query Q.npy --truth T.npy --metric l2|cosine|ip --k 10 --core C --build-threads N
               --index-dir DIR --queries-max N [--seed S]

Each setting is asked query by query, as a caller with one query does, and as one batch on one thread; the rate that is
printed is the higher one, and both are there. Recall counts a row that is as near as the k-th true neighbour. The index is
kept in DIR, and its build time with it.
"""
import os

# Both mislead OpenBLAS about the processor where they are set.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import argparse
import json
import resource
import sys
import time

import numpy as np

PASSES = 3
PASS_SECONDS = 0.4
TIE = 1e-6
EF = (10, 12, 16, 20, 28, 40, 56, 80, 112, 160, 240, 320, 480)
NPROBE = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class Peer:
    """One library: how it builds, saves and searches. `x` is normalised already where the metric is cosine."""

    def __init__(self, metric, dims, rows, threads, seed):
        self.metric, self.dims, self.rows, self.threads, self.seed = metric, dims, rows, threads, seed
        # On unit vectors the inner product has the order of cosine.
        self.inner = metric != "l2"

    #: Bytes that the index's file spends on a number of a vector as it was given; they do not count as the index's.
    vector_bytes = 4

    def queries(self, q):
        return q

    def batch(self, q, k):
        return self.one(q, k)


class Hnswlib(Peer):
    options = {"M": 16, "ef_construction": 200}
    settings = [{"ef": ef} for ef in EF]

    def build(self, x):
        import hnswlib
        self.index = hnswlib.Index("ip" if self.inner else "l2", self.dims)
        self.index.init_index(len(x), M=self.options["M"], ef_construction=self.options["ef_construction"], random_seed=self.seed)
        self.index.add_items(x, num_threads=self.threads)

    def save(self, path):
        self.index.save_index(path)

    def load(self, path):
        import hnswlib
        self.index = hnswlib.Index("ip" if self.inner else "l2", self.dims)
        self.index.load_index(path)

    def set(self, setting):
        self.index.set_ef(setting["ef"])
        self.index.set_num_threads(1)

    def one(self, q, k):
        return self.index.knn_query(q, k=k, num_threads=1)[0]


class Hnswlib32(Hnswlib):
    options = {"M": 32, "ef_construction": 200}


class Faiss(Peer):
    def make(self):
        import faiss
        metric = faiss.METRIC_INNER_PRODUCT if self.inner else faiss.METRIC_L2
        return faiss.index_factory(self.dims, self.factory(), metric)

    def build(self, x):
        import faiss
        faiss.omp_set_num_threads(self.threads)
        self.index = self.make()
        self.configure()
        self.index.train(x)
        self.index.add(x)

    def configure(self):
        pass

    def save(self, path):
        import faiss
        faiss.write_index(self.index, path)

    def load(self, path):
        import faiss
        self.index = faiss.read_index(path)

    def one(self, q, k):
        return self.index.search(q, k)[1]

    def simd(self):
        import faiss
        return faiss.get_compile_options().strip()


class FaissHnsw(Faiss):
    options = {"M": 16, "efConstruction": 200}
    settings = [{"efSearch": ef} for ef in EF]

    def factory(self):
        return "HNSW16"

    def configure(self):
        self.index.hnsw.efConstruction = 200

    def set(self, setting):
        import faiss
        faiss.omp_set_num_threads(1)
        self.index.hnsw.efSearch = setting["efSearch"]


def lists(rows):
    """Four times the root of the rows, as a power of two."""
    return 1 << round(np.log2(4 * rows**0.5))


class FaissIvfPq(Faiss):
    """IVF, 4-bit PQ FastScan, the best `k_factor` times k scored again from the vectors."""

    settings = [{"nprobe": n, "k_factor": f} for f in (4, 10, 30) for n in NPROBE]

    def factory(self):
        per = 2 if self.dims <= 256 else 4
        self.options = {"factory": f"IVF{lists(self.rows)},PQ{self.dims // per}x4fs,RFlat"}
        return self.options["factory"]

    def set(self, setting):
        import faiss
        faiss.omp_set_num_threads(1)
        self.index.k_factor = setting["k_factor"]
        faiss.downcast_index(self.index.base_index).nprobe = setting["nprobe"]


class Usearch(Peer):
    dtype = "f32"
    options = {"connectivity": 16, "expansion_add": 200, "dtype": "f32"}
    settings = [{"expansion_search": ef} for ef in EF]

    def make(self):
        from usearch.index import Index
        metric = {"l2": "l2sq", "cosine": "cos", "ip": "ip"}[self.metric]
        return Index(ndim=self.dims, metric=metric, dtype=self.dtype, connectivity=16, expansion_add=200)

    def build(self, x):
        self.index = self.make()
        self.index.add(np.arange(len(x)), self.encode(x), threads=self.threads)

    def encode(self, x):
        return x

    def queries(self, q):
        return self.encode(q)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        self.index = self.make()
        self.index.load(path)

    def set(self, setting):
        self.index.expansion_search = setting["expansion_search"]

    def one(self, q, k):
        found = self.index.search(q[0] if len(q) == 1 else q, k, threads=1).keys
        return found.reshape(len(q), -1)


class UsearchI8(Usearch):
    """Bytes instead of floats, without scoring again. Under l2 one scale for all values, as its caller would choose it."""

    dtype = "i8"
    vector_bytes = 0
    options = {"connectivity": 16, "expansion_add": 200, "dtype": "i8"}

    def encode(self, x):
        if self.metric == "cosine":
            return x
        if not hasattr(self, "scale"):
            self.scale = 127 / np.abs(self.reference).max()
        return np.clip(np.rint(x * self.scale), -127, 127).astype(np.int8)


class Symqg(Peer):
    """SymphonyQG: a graph with 1-bit codes of the neighbours beside each row."""

    degree = 32
    options = {"degree": 32, "ef_construction": 200}
    settings = [{"ef": ef} for ef in EF]

    def build(self, x):
        from rabitqlib import SymqgIndex
        self.index = SymqgIndex(self.dims, self.degree, metric="ip" if self.inner else "l2")
        self.index.build(x, ef_construction=200, num_threads=self.threads)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        from rabitqlib import SymqgIndex
        self.index = SymqgIndex.load(path)

    def set(self, setting):
        self.ef = setting["ef"]

    def one(self, q, k):
        return self.index.search(q, k, self.ef, num_threads=1)[0]

    def batch(self, q, k):
        return self.index.search_batch(q, k, self.ef, num_threads=1)[0]


class Symqg64(Symqg):
    degree = 64
    options = {"degree": 64, "ef_construction": 200}


class RabitqIvf(Peer):
    """IVF with RaBitQ codes of `bits`; no scoring again, the codes are all there is."""

    bits = 7
    vector_bytes = 0
    settings = [{"nprobe": n} for n in NPROBE]

    def build(self, x):
        from rabitqlib import FinalAssignmentMode, IvfIndex, QGKMeans, RaBitQKMeans
        n = lists(self.rows)
        self.options = {"lists": n, "bits": self.bits}
        means = (QGKMeans if n > 2048 else RaBitQKMeans)(
            self.dims, n, num_threads=self.threads, final_assignment=FinalAssignmentMode.Exact, seed=self.seed
        )
        means.train(x)
        self.index = IvfIndex(self.dims, len(x), n, self.bits, metric="ip" if self.inner else "l2")
        self.index.build(x, means.centroids, means.assignments, num_threads=self.threads)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        from rabitqlib import IvfIndex
        self.index = IvfIndex.load(path)
        self.options = {"lists": lists(self.rows), "bits": self.bits}

    def set(self, setting):
        self.nprobe = setting["nprobe"]

    def one(self, q, k):
        return self.index.search(q, k, self.nprobe, num_threads=1)[0]


PEERS = {
    "hnswlib": Hnswlib,
    "hnswlib-m32": Hnswlib32,
    "faiss-hnsw": FaissHnsw,
    "faiss-ivfpq": FaissIvfPq,
    "usearch-f32": Usearch,
    "usearch-i8": UsearchI8,
    "rabitq-symqg": Symqg,
    "rabitq-symqg64": Symqg64,
    "rabitq-ivf": RabitqIvf,
}


def recall(x, q, truth, found, metric):
    """The share of the true neighbours that was found, rows as near as the last of them included."""
    hits = 0
    for query, true, rows in zip(q, truth, found):
        rows = np.unique(rows[(rows >= 0) & (rows < len(x))].astype(np.int64))
        near = x[np.concatenate([true[-1:], rows])].astype(np.float64)
        d = ((near - query) ** 2).sum(1) ** 0.5 if metric == "l2" else -(near @ query.astype(np.float64))
        if metric == "cosine":
            d += 1
        hits += min(int((d[1:] <= d[0] + TIE * abs(d[0])).sum()), len(true))
    return hits / truth.size


def rate(run, count):
    """Calls of `run` until the pass is over; queries a second and seconds of each call. The best of the passes."""
    best = (0.0, [])
    for _ in range(PASSES):
        times, start = [], time.perf_counter()
        while time.perf_counter() - start < PASS_SECONDS:
            times += run()
        best = max(best, (count * len(times) / (time.perf_counter() - start), times), key=lambda pass_: pass_[0])
    return best


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("peer", choices=PEERS)
    for name in ("base", "query", "truth", "index-dir"):
        args.add_argument("--" + name, required=True)
    args.add_argument("--metric", choices=("l2", "cosine", "ip"), required=True)
    args.add_argument("--k", type=int, default=10)
    args.add_argument("--core", type=int)
    args.add_argument("--build-threads", type=int, default=os.cpu_count())
    args.add_argument("--queries-max", type=int, default=1000)
    args.add_argument("--recall-least", type=float, default=0.8, help="do not time a setting that finds less")
    args.add_argument("--recall-enough", type=float, default=0.998, help="stop a sweep after a setting as good as this")
    args.add_argument("--seed", type=int, default=42)
    args = args.parse_args()

    x, q = np.load(args.base), np.load(args.query)[: args.queries_max]
    truth = np.load(args.truth)[: len(q), : args.k]
    x, q = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(q, np.float32)
    if args.metric == "cosine":
        x, q = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, q))
    peer = PEERS[args.peer](args.metric, x.shape[1], len(x), args.build_threads, args.seed)
    peer.reference = x
    if isinstance(peer, Faiss):
        peer.factory()
    os.makedirs(args.index_dir, exist_ok=True)
    path = os.path.join(args.index_dir, args.peer)
    if os.path.exists(path + ".json"):
        with open(path + ".json") as file:
            build_seconds = json.load(file)["build_seconds"]
        peer.load(path)
    else:
        start = time.perf_counter()
        peer.build(x)
        build_seconds = time.perf_counter() - start
        peer.save(path)
        with open(path + ".json", "w") as file:
            json.dump({"build_seconds": build_seconds}, file)
    index_bytes = os.path.getsize(path)
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})

    asked = peer.queries(q)
    rows = [asked[i : i + 1] for i in range(len(asked))]
    done = {}
    for setting in peer.settings:
        group = setting.get("k_factor")
        if done.get(group):
            continue
        try:
            peer.set(setting)
            found = np.concatenate([np.asarray(peer.one(row, args.k)).reshape(1, -1) for row in rows])
        except Exception as error:  # A setting that the library refuses is one point less, not the end.
            print(f"{args.peer} {setting}: {error}", file=sys.stderr)
            continue

        got = recall(x, q, truth, found, args.metric)
        if got < args.recall_least:
            continue

        def one_by_one():
            times = []
            for row in rows:
                start = time.perf_counter()
                peer.one(row, args.k)
                times.append(time.perf_counter() - start)
            return times

        def at_once():
            start = time.perf_counter()
            peer.batch(asked, args.k)
            return [time.perf_counter() - start]

        single, times = rate(one_by_one, 1)
        batch, _ = rate(at_once, len(rows))
        times.sort()
        print(json.dumps({
            "engine": "peer", "index": args.peer, "options": {k: str(v) for k, v in peer.options.items()},
            "search": {k: str(v) for k, v in setting.items()}, "base": args.base, "rows": len(x), "dims": x.shape[1],
            "metric": args.metric, "k": args.k, "queries": len(q), "seed": args.seed, "filter_selectivity": None,
            "build_threads": args.build_threads, "build_seconds": build_seconds, "index_bytes": index_bytes - peer.vector_bytes * x.size,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "threads": 1, "recall": got,
            "queries_per_second": max(single, batch), "single_per_second": single, "batch_per_second": batch,
            "p50_ms": times[len(times) // 2] * 1e3, "p99_ms": times[len(times) * 99 // 100] * 1e3,
        }), flush=True)
        done[group] = got >= args.recall_enough


if __name__ == "__main__":
    main()
