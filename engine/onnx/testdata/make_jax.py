"""What JAX's functions and Flax's modules are, written by jax2onnx, what they give, and their gradients.

jax2onnx==0.17.1 jax==0.10.2 flax==0.12.8 onnx==1.23.2 onnxruntime==1.32.0

    make_jax.py jax.json.gz
"""

import logging
import sys
import warnings

warnings.filterwarnings("ignore")
import jax
import numpy as np
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax2onnx import to_onnx

from exporters import Archive

logging.disable(logging.WARNING)
rng = np.random.default_rng(0)
rngs = nnx.Rngs(0)
archive = Archive()


def f(*shape):
    return rng.normal(size=shape).astype(np.float32)


def case(name, function, x, varies=True, opset=21):
    """varies: the number of rows does, and no row touches another."""
    library = [np.asarray(v) for v in jax.tree.leaves(function(x))]
    model = to_onnx(function, [("B", *x.shape[1:]) if varies else x.shape], opset=opset)
    gradients = []
    if varies and library[0].dtype == np.float32 and library[0].ndim > 0:
        first = lambda x: jax.tree.leaves(function(x))[0].reshape(len(x), -1)[:, 0].sum()
        gradients.append((0, 0, model.graph.input[0].name, np.asarray(jax.grad(first)(x))))
    archive.add(f"{name} {opset}", model, [x], library, gradients)


class Mlp(nnx.Module):
    def __init__(self):
        self.a, self.n, self.b = nnx.Linear(6, 8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return nnx.softmax(self.b(nnx.gelu(self.n(self.a(x)))))


class Convolutions(nnx.Module):
    def __init__(self):
        self.c = nnx.Conv(3, 6, (3,), feature_group_count=3, padding="CAUSAL", rngs=rngs)
        self.t = nnx.ConvTranspose(6, 2, (3,), strides=2, rngs=rngs)
        self.g, self.r = nnx.GroupNorm(2, num_groups=2, rngs=rngs), nnx.RMSNorm(2, rngs=rngs)

    def __call__(self, x):
        return self.r(self.g(self.t(self.c(x))))


class Attention(nnx.Module):
    def __init__(self):
        self.a = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)

    def __call__(self, x):
        return self.a(x)


x = f(3, 6)
for opset in (21, 23):
    case("mlp", Mlp(), x, opset=opset)
    case("convolutions", Convolutions(), f(2, 8, 3), opset=opset)
    case("attention", Attention(), f(2, 5, 8), opset=opset)
for name, function in {
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "celu": jax.nn.celu,
    "mish": jax.nn.mish,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "hard_swish": jax.nn.hard_swish,
    "glu": lambda x: jax.nn.glu(x, 1),
    "log_softmax": lambda x: jax.nn.log_softmax(x, 1),
    "logsumexp": lambda x: jax.nn.logsumexp(x, 1),
    "expm1": jnp.expm1,
    "arctan2": lambda x: jnp.arctan2(x, x + 1),
    "logaddexp": lambda x: jnp.logaddexp(x, x * 2),
    "sort": lambda x: jnp.sort(x, 1),
    "top_k": lambda x: lax.top_k(x, 3),
    "moments": lambda x: (x.std(1), x.var(1), x.prod(1)),
    "take_along_axis": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1),
    "roll": lambda x: jnp.roll(x, 2, 1),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2)), mode="reflect"),
    "fori_loop": lambda x: lax.fori_loop(0, 4, lambda i, y: jnp.tanh(y + i * 0.1), x),
    "while_loop": lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 1.5), (0, x))[1],
    "switch": lambda x: lax.switch(1, [lambda x: x, lambda x: x * 3], x),
    "vmap": lambda x: jax.vmap(lambda r: r * r.sum())(x),
}.items():
    case(name, function, x, varies=name != "while_loop")
for name, function in {
    "scan": lambda x: lax.scan(lambda c, a: (jnp.tanh(c + a), c * 2), jnp.zeros(6), x),
    "cond": lambda x: lax.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, x),
    "cholesky": lambda x: jnp.linalg.cholesky(x @ x.T + jnp.eye(3)),
    "det": lambda x: jnp.linalg.det(x[:, :3]),
    "segment_sum": lambda x: jax.ops.segment_sum(x, jnp.array([0, 1, 0]), 2),
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (0, 2), (3, 3)),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice(x, x[:, :2] * 2, (0, 3)),
}.items():
    case(name, function, x, varies=False)
archive.write(sys.argv[1])
