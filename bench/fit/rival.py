"""The rival of bench/fit: times what it is asked to.

xgboost-cpu==3.4.1 numpy (any newer works; see main.go)

    rival.py serve X Y     reads float32 rows and labels, answers lines "THREADS ROUNDS" with the seconds of a whole fit, its bins included
"""

import sys
import time

import numpy as np
import xgboost

FEATURES = 30


def serve(rows, labels):
    y = np.fromfile(labels, dtype=np.float32)
    x = np.fromfile(rows, dtype=np.float32).reshape(len(y), FEATURES)
    print("ready", xgboost.__version__, flush=True)
    for line in sys.stdin:
        threads, rounds = map(int, line.split())
        params = {
            "objective": "binary:logistic", "eta": 0.1, "max_depth": 6, "lambda": 1, "min_child_weight": 1, "tree_method": "hist",
            "max_bin": 255, "nthread": threads,
        }
        start = time.perf_counter()
        data = xgboost.QuantileDMatrix(x, y, max_bin=255, nthread=threads)
        xgboost.train(params, data, rounds)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[2:])
