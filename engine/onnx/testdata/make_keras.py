"""What Keras's layers and TensorFlow's operators are, written by tf2onnx, and what they give.

tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.32.0 scipy

    make_keras.py keras.json.gz

Left out is what tf2onnx cannot write (Gelu's Erfc, Bucketize, hashes, regular expressions, lookups of integers), which it leaves in the
file as operators that ONNX does not have.
"""

import logging
import os
import sys

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers as L

from exporters import Archive

logging.disable(logging.WARNING)
rng = np.random.default_rng(0)
keras.utils.set_random_seed(0)
archive = Archive()


def f(*shape):
    return rng.normal(size=shape).astype(np.float32)


def shake(model):
    """Weights that are no zeros and ones, as a trained model's are."""
    for w in model.weights:
        v = w.numpy()
        if v.dtype.kind == "f":
            n = rng.normal(size=v.shape) * 0.3
            w.assign((np.abs(n) + 0.5 if "variance" in w.path else n + ("gamma" in w.path)).astype(v.dtype))


def case(name, function, *arrays, opset=13, exact=True):
    call = function
    if isinstance(function, keras.Model):
        shake(function)
        call = lambda *a: function(a[0] if len(a) == 1 else list(a), training=False)
    types = [tf.string if a.dtype.kind == "O" else tf.as_dtype(a.dtype) for a in arrays]
    signature = [tf.TensorSpec([None, *a.shape[1:]], t, name=f"x{i}") for i, (a, t) in enumerate(zip(arrays, types))]
    x = [tf.constant(a) for a in arrays]
    gradients = []
    with tf.GradientTape() as tape:
        tape.watch([v for v in x if v.dtype == tf.float32])
        out = tf.nest.flatten(call(*x))
        first = tf.reduce_sum(tf.reshape(out[0], [len(arrays[0]), -1])[:, 0]) if isinstance(function, keras.Model) else None
    if first is not None and len(x) == 1 and types[0] == tf.float32 and out[0].dtype == tf.float32:
        g = tape.gradient(first, x[0])
        if g is not None:
            gradients.append((0, 0, "x0", tf.convert_to_tensor(g).numpy()))
    library = [t.numpy() for t in out]
    library = [np.vectorize(bytes.decode, otypes=[object])(v) if v.dtype.kind == "O" else v for v in library]
    model, _ = tf2onnx.convert.from_function(tf.function(call, input_signature=signature), input_signature=signature, opset=opset)
    archive.add(f"{name} {opset}", model, dict(zip([i.name for i in model.graph.input], arrays)), library, gradients, exact)


def net(*layers):
    return keras.Sequential(list(layers))


def convolutions():
    for pad in ("same", "valid", "causal"):
        for stride, dilation in ((1, 1), (2, 1), (1, 2)):
            kw = dict(strides=stride, dilation_rate=dilation, padding=pad)
            case(f"Conv1D {pad} {stride}{dilation}", net(L.Input((11, 4)), L.Conv1D(6, 3, activation="relu", **kw)), f(3, 11, 4))
            if pad == "causal":
                continue
            image = L.Input((11, 10, 4))
            case(f"Conv2D {pad} {stride}{dilation}", net(image, L.Conv2D(6, 3, **kw)), f(3, 11, 10, 4))
            case(f"Conv3D {pad} {stride}{dilation}", net(L.Input((7, 6, 5, 2)), L.Conv3D(3, 3, **kw)), f(2, 7, 6, 5, 2))
            case(f"DepthwiseConv2D {pad} {stride}{dilation}", net(image, L.DepthwiseConv2D(3, depth_multiplier=2, **kw)), f(3, 11, 10, 4))
            case(f"SeparableConv2D {pad} {stride}{dilation}", net(image, L.SeparableConv2D(5, 3, **kw)), f(3, 11, 10, 4))
            if dilation == 1:
                kw = dict(strides=stride, padding=pad)
                case(f"Conv2DTranspose {pad} {stride}", net(L.Input((5, 6, 4)), L.Conv2DTranspose(3, 3, **kw)), f(3, 5, 6, 4))
                case(f"Conv3DTranspose {pad} {stride}", net(L.Input((3, 4, 3, 2)), L.Conv3DTranspose(3, 3, **kw)), f(2, 3, 4, 3, 2))
    for pad in ("same", "valid"):
        case(f"MaxPooling2D {pad}", net(L.Input((9, 10, 4)), L.MaxPooling2D(3, strides=2, padding=pad)), f(3, 9, 10, 4))
        case(f"AveragePooling2D {pad}", net(L.Input((9, 10, 4)), L.AveragePooling2D(3, strides=2, padding=pad)), f(3, 9, 10, 4))
    case("UpSampling2D nearest", net(L.Input((5, 4, 3)), L.UpSampling2D((2, 3))), f(3, 5, 4, 3))
    case("UpSampling2D bilinear", net(L.Input((5, 4, 3)), L.UpSampling2D((2, 3), interpolation="bilinear")), f(3, 5, 4, 3))
    case("UpSampling2D bicubic", net(L.Input((5, 4, 3)), L.UpSampling2D((2, 3), interpolation="bicubic")), f(3, 5, 4, 3), exact=False)
    case("BatchNormalization", net(L.Input((6, 5, 4)), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(2)), f(3, 6, 5, 4))


def sequences():
    for cell in ("LSTM", "GRU", "SimpleRNN"):
        C = getattr(L, cell)
        for opset in (9, 18):
            case(cell, net(L.Input((6, 4)), C(5, return_sequences=True), C(3)), f(3, 6, 4), opset=opset)
        case(f"{cell} of any length", net(L.Input((None, 4)), C(5)), f(3, 6, 4))
        case(f"{cell} backwards", net(L.Input((6, 4)), C(5, go_backwards=True)), f(3, 6, 4))
        case(f"{cell} relu", net(L.Input((6, 4)), C(5, activation="relu")), f(3, 6, 4))
        case(f"{cell} both ways", net(L.Input((6, 4)), L.Bidirectional(C(5, return_sequences=True)), L.Bidirectional(C(3), merge_mode="sum")), f(3, 6, 4))
        x, y = L.Input((6, 4)), L.Input((3, 4))
        states = C(5, return_state=True)(x)[1:]
        case(f"{cell} states", keras.Model([x, y], C(5, return_sequences=True)(y, initial_state=states)), f(3, 6, 4), f(3, 3, 4))
        ids = (rng.integers(1, 9, (3, 6)) * (np.arange(6)[None] < np.array([[6], [3], [1]]))).astype(np.int32)
        case(f"{cell} of a masked Embedding", net(L.Input((6,), dtype="int32"), L.Embedding(10, 4, mask_zero=True), C(5)), ids)
        gaps = np.where(rng.random((3, 5, 1)) < 0.4, 0, f(3, 5, 3)).astype(np.float32)
        case(f"{cell} masked", net(L.Input((5, 3)), L.Masking(0.0), C(4)), gaps)
    case("GRU reset before", net(L.Input((6, 4)), L.GRU(5, reset_after=False)), f(3, 6, 4))
    case("ConvLSTM2D", net(L.Input((4, 6, 6, 2)), L.ConvLSTM2D(3, 3)), f(2, 4, 6, 6, 2))
    case("TimeDistributed", net(L.Input((4, 6, 6, 2)), L.TimeDistributed(L.Conv2D(3, 3)), L.TimeDistributed(L.Flatten()), L.LSTM(3)), f(3, 4, 6, 6, 2))


def others():
    for name in "elu selu silu mish softplus softsign hard_sigmoid leaky_relu log_softmax sparsemax".split():
        case(name, net(L.Input((7,)), L.Dense(5, activation=name)), f(3, 7))
    x, y = L.Input((6, 8)), L.Input((5, 8))
    case("MultiHeadAttention", keras.Model([x, y], L.MultiHeadAttention(2, 4, value_dim=3)(x, y)), f(3, 6, 8), f(3, 5, 8))
    case("MultiHeadAttention causal", keras.Model(x, L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)), f(3, 6, 8), opset=18)
    case("GroupQueryAttention", keras.Model(x, L.GroupQueryAttention(4, 4, 2)(x, x)), f(3, 6, 8))
    case("AdditiveAttention", keras.Model([x, y], L.AdditiveAttention()([x, y])), f(3, 6, 8), f(3, 5, 8))
    case("LayerNormalization", net(L.Input((6, 8)), L.LayerNormalization(), L.RMSNormalization(), L.GroupNormalization(4), L.UnitNormalization()), f(3, 6, 8))
    case("EinsumDense", net(L.Input((6, 4)), L.EinsumDense("abc,cde->abde", output_shape=(None, 3, 5), bias_axes="de")), f(3, 6, 4))
    case("CategoryEncoding", net(L.Input((3,), dtype="int64"), L.CategoryEncoding(5, output_mode="count")), rng.integers(0, 5, (3, 3)))
    case("Dot", (lambda a, b: keras.Model([a, b], L.Dot(axes=(1, 1), normalize=True)([a, b])))(L.Input((6, 4)), L.Input((6, 4))), f(3, 6, 4), f(3, 6, 4))


def loop(a):
    ta, h = tf.TensorArray(tf.float32, tf.shape(a)[0]), tf.zeros([6])
    for i in tf.range(tf.shape(a)[0]):
        h = tf.tanh(h + a[i])
        ta = ta.write(i, h)
    return ta.stack(), h


def leave(a):
    s = tf.zeros([])
    for _ in tf.range(10):
        s += tf.reduce_sum(a[0])
        if tf.abs(s) > 5.0:
            break
    return s


def operators():
    x, ids = f(4, 6), rng.integers(0, 9, (4, 6)).astype(np.int32)
    # Operator set 9 has no GatherND: loops within a loop, whose turns are vectors of one element.
    for opset in (9, 11):
        case("gather_nd", lambda a, i: tf.gather_nd(a, i[:, :2] % 4), x, ids, opset=opset)
        case("gather_nd of rows", lambda a, i: tf.gather_nd(a, i[:, :1] % 4, batch_dims=1), x, ids, opset=opset)
    case("foldl", lambda a: tf.foldl(lambda c, r: c * 0.5 + r, a), x)
    case("map_fn", lambda a: tf.map_fn(lambda r: r * tf.reduce_sum(r), a), x)
    case("cond", lambda a: tf.cond(tf.reduce_sum(a) > 0, lambda: a * 2, lambda: a - 1), x)
    case("TensorArray", loop, x)
    case("break", leave, x)
    case("segment_sum", lambda a: tf.math.segment_sum(a, [0, 0, 1, 3]), x)
    case("unsorted_segment_max", lambda a: tf.math.unsorted_segment_max(a, [2, 0, 1, 3], 4), x)
    case("boolean_mask", lambda a: tf.boolean_mask(a, a[:, 0] > 0), x)
    case("unique", lambda a: tf.unique(tf.reshape(a, [-1])), ids)
    case("linalg", lambda a: (tf.linalg.band_part(a, 1, 0), tf.linalg.diag_part(a, k=1), tf.linalg.set_diag(a, a[:, 1] * 0)), f(2, 4, 4))
    case("stft", lambda a: tf.abs(tf.signal.stft(a, 16, 8)), f(2, 64))
    case("crop_and_resize", lambda a: tf.image.crop_and_resize(a, [[0.0, 0.0, 0.5, 0.5], [0.1, 0.2, 0.9, 1.2]], [0, 1], [4, 5], extrapolation_value=2.0), f(2, 8, 9, 3))
    corners = rng.random((12, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 0.4], 1)
    case("non_max_suppression", lambda b: tf.image.non_max_suppression(b, b[:, 0], 5, 0.3), boxes)
    case("ragged", lambda a: tf.RaggedTensor.from_row_lengths(tf.reshape(a, [-1]), [3, 5, 16]).to_tensor(), x)
    case("resize by corners", lambda a: tf.compat.v1.image.resize_bilinear(a, [10, 12], align_corners=True), f(2, 5, 6, 3))
    case("max_pool_with_argmax", lambda a: tf.nn.max_pool_with_argmax(a, 2, 2, "VALID"), f(2, 6, 6, 3))


operators()
others()
sequences()
convolutions()
archive.write(sys.argv[1])
