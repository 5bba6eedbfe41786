"""The rival of bench/fit: times what it is asked to.

xgboost-cpu==3.4.1 numpy (any newer works; see main.go)

    rival.py serve X Y     reads float32 rows and labels, answers lines "THREADS ROUNDS" with the seconds of a whole fit, its bins included
    rival.py network X Y   the same with torch for a network, lines "THREADS EPOCHS", the loss over all rows behind the seconds
"""

import sys
import time

import numpy as np

FEATURES = 30


def serve(rows, labels):
    import xgboost

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


def network(rows, labels):
    import torch

    y = torch.from_numpy(np.fromfile(labels, dtype=np.float32))[:, None]
    x = torch.from_numpy(np.fromfile(rows, dtype=np.float32).reshape(len(y), FEATURES))
    print("ready", torch.__version__, flush=True)
    for line in sys.stdin:
        threads, epochs = map(int, line.split())
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        start = time.perf_counter()
        scaled = (x - x.mean(0)) / x.std(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)
        )
        loss = torch.nn.BCEWithLogitsLoss()
        adam = torch.optim.Adam(net.parameters(), lr=0.001, fused=True)
        for _ in range(epochs):
            order = torch.randperm(len(y))
            for at in range(0, len(y), 256):
                some = order[at : at + 256]
                adam.zero_grad()
                loss(net(scaled[some]), y[some]).backward()
                adam.step()
        with torch.no_grad():
            last = loss(net(scaled), y).item()
        print(time.perf_counter() - start, last, flush=True)


if __name__ == "__main__":
    {"serve": serve, "network": network}[sys.argv[1]](*sys.argv[2:])
