"""Makes entropy.json: the ranges that onnxruntime's entropy calibrater finds in values that
TestEntropyOracle draws in the same way, 4,096 bins from end to end and 256 levels (510 where the
values are of one sign: as many on that side as 8 bits have). Its own defaults, 128 bins and as
many levels, leave one candidate: all of the values.

Beside them, by bin, the divergence as TensorRT's authors describe it (S. Migacz, 8-bit inference with
TensorRT, GTC 2017): of |values| in 2,048 bins without the zeros, what is beyond a range in its last
bin, from its form in so many levels, by SciPy. onnxruntime leaves the bins behind the last whole level out
of that form, so that only ranges of a multiple of its levels compete; this does not.

onnxruntime 1.32.0, numpy 2.4, scipy 1.17

    python make_entropy.py > entropy.json
"""

import contextlib
import io
import json
import statistics

import numpy as np
from scipy.stats import entropy
from onnxruntime.quantization.calibrate import HistogramCollector

COUNT = 300_000
SHARES = (np.arange(COUNT) + 0.5) / COUNT


def logistic():
    return np.log(SHARES / (1 - SHARES))


def laplace():
    return np.where(SHARES < 0.5, np.log(2 * SHARES), -np.log(2 - 2 * SHARES))


def normal():
    inverse = statistics.NormalDist().inv_cdf
    return np.array([inverse(p) for p in SHARES])


VALUES = {
    "normal": normal(),
    "laplace": laplace(),
    "logistic": logistic(),
    "exponential": -np.log(1 - SHARES),
    "rectified": np.maximum(laplace(), 0),
    "uniform": 2 * SHARES - 1,
    "apart": -1.5 - 1.3 * SHARES,
}


BINS = 2048


def histogram(values):
    sizes = np.abs(values.astype(np.float64))
    top = sizes.max()
    return np.bincount(np.minimum((sizes[values != 0] / top * BINS).astype(int), BINS - 1), minlength=BINS).astype(float)


def divergence(bins, size, levels):
    p = bins[:size].copy()
    p[-1] += bins[size:].sum()
    q = np.zeros(size)
    for level in range(levels):
        part = slice(level * size // levels, (level + 1) * size // levels)
        some = bins[:size][part] > 0
        if some.any():
            q[part] = np.where(some, bins[:size][part].sum() / some.sum(), 0)
    return entropy(p, q)


def main():
    found = []
    for name, values in VALUES.items():
        values = values.astype(np.float32)
        levels = 256 if values.min() < 0 < values.max() else 510
        collector = HistogramCollector("entropy", False, 4096, levels, 99.99, "same")
        with contextlib.redirect_stdout(io.StringIO()):
            collector.collect({"v": [values]})
            low, high = collector.compute_entropy()["v"][:2]
        bins, half = histogram(values), levels // 2 if levels == 256 else 255
        by_bin = {str(size): divergence(bins, size, half) for size in (half, 600, 1000, 1411, 1777, 2000, 2047, 2048)}
        found.append({"name": name, "divergence": {k: v for k, v in by_bin.items() if np.isfinite(v)}, "low": float(min(low, 0)), "high": float(max(high, 0)), "least": float(values.min()), "most": float(values.max())})
    print(json.dumps(found, indent=1))


main()
