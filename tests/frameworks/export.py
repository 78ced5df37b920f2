#!/usr/bin/env python3
"""Makes the classifiers of this folder as users of scikit-learn and Keras get them, with float64 references for their gradients.

    python3 tests/frameworks/export.py [NAME ...]

writes `*.onnx` and, for each, `*.npz` beside itself: `x` [n, …] in [0, 1] (float32, the digits of scikit-learn that the model was not trained on),
`y` int64 [n], `scores` float64 [n, classes], what the framework itself predicts, `grad` float64 [n, …], the gradient of the cross-entropy by x,
and for models that are linear `w` float64 [classes, d] and `b` float64 [classes].

The gradients are closed forms in numpy, in float64, of the weights as the frameworks hold them; for Keras, TensorFlow's own in float64.

Made with Python 3.11, scikit-learn 1.9.1, skl2onnx 1.20.0, tensorflow-cpu 2.21.0, keras 3.15.1, tf2onnx 1.17.0, numpy 2.4.6, onnx 1.23.2.
"""

import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
from sklearn.decomposition import PCA
from sklearn.svm import LinearSVC

HERE = pathlib.Path(__file__).resolve().parent
# The models that are written; all of them, where none is named.
WANTED = sys.argv[1:]
SAMPLES = 64


def digits():
    data = load_digits()
    order = np.random.RandomState(7).permutation(len(data.target))
    return (data.images[order] / 16).reshape(len(order), 64).astype(np.float32), data.target[order]


def softmax_gradient(logits, y):
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return p


def is_wanted(name):
    return not WANTED or name in WANTED


def save(name, x, y, scores, grad=None, **more):
    if not is_wanted(name):
        return
    if grad is not None:
        more["grad"] = grad
    np.savez_compressed(HERE / f"{name}.npz", x=x, y=y.astype(np.int64), scores=np.asarray(scores, np.float64), **more)


def write(name, pipeline, kind=FloatTensorType, width=64, **options):
    proto = to_onnx(pipeline, initial_types=[("X", kind([None, width]))], options=options or None)
    if is_wanted(name):
        (HERE / f"{name}.onnx").write_bytes(proto.SerializeToString())
    return [node.op_type for node in proto.graph.node]


def linear(estimator):
    """Weights and biases of a linear classifier as logits of its classes."""
    w, b = estimator.coef_.astype(np.float64), estimator.intercept_.astype(np.float64)
    if len(w) == 1:
        # Binary: the logit of the second class against the first.
        w, b = np.concatenate([np.zeros_like(w), w]), np.concatenate([[0.0], b])
    return w, b


def two_scores(z):
    """What mohs makes of one number for two classes."""
    return np.stack([-z / 2, z / 2], axis=1)


def sklearn_models(x, y, test_x, test_y):
    wide = test_x.astype(np.float64)
    # As it comes: ZipMap behind the probabilities.
    model = LogisticRegression(max_iter=500).fit(x, y)
    w, b = linear(model)
    print(write("logistic", model))
    save("logistic", test_x, test_y, model.predict_proba(test_x), softmax_gradient(wide @ w.T + b, test_y) @ w, w=w, b=b)
    # Two classes, and probabilities as a tensor.
    binary = lambda x, y: (x[y < 2], y[y < 2])
    model = LogisticRegression(max_iter=500).fit(*binary(x, y))
    w, b = linear(model)
    two_x, two_y = binary(test_x, test_y)
    print(write("logistic-binary", model, zipmap=False))
    grad = softmax_gradient(two_x.astype(np.float64) @ w.T + b, two_y) @ w
    save("logistic-binary", two_x, two_y, model.predict_proba(two_x), grad, w=w, b=b)
    # A pipeline of scalers, in double precision.
    model = make_pipeline(StandardScaler(), MinMaxScaler(), LogisticRegression(max_iter=500)).fit(x.astype(np.float64), y)
    standard, ranged, last = (step for _, step in model.steps)
    w, b = linear(last)
    slope = 1 / np.where(standard.scale_ == 0, 1, standard.scale_) * ranged.scale_
    logits = ranged.transform(standard.transform(wide)) @ w.T + b
    print(write("scaled-double", model, DoubleTensorType))
    save("scaled-double", wide, test_y, model.predict_proba(wide), softmax_gradient(logits, test_y) @ w * slope)
    # The MLP behind a normalizer.
    model = make_pipeline(Normalizer(), MLPClassifier((32,), max_iter=300, random_state=0)).fit(x, y)
    mlp = model.steps[1][1]
    (w1, w2), (b1, b2) = ([part.astype(np.float64) for part in parts] for parts in (mlp.coefs_, mlp.intercepts_))
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = wide / length
    hidden = unit @ w1 + b1
    inner = (softmax_gradient(np.maximum(hidden, 0) @ w2 + b2, test_y) @ w2.T * (hidden > 0)) @ w1.T
    grad = (inner - unit * (unit * inner).sum(1, keepdims=True)) / length
    print(write("mlp-normalized", model))
    save("mlp-normalized", test_x, test_y, model.predict_proba(test_x), grad)
    # Principal components first.
    model = make_pipeline(StandardScaler(), PCA(16), LogisticRegression(max_iter=500)).fit(x, y)
    scaler, pca, last = (step for _, step in model.steps)
    w, b = linear(last)
    projection = pca.components_.astype(np.float64)
    slope = 1 / scaler.scale_.astype(np.float64)
    logits = ((wide - scaler.mean_) * slope - pca.mean_) @ projection.T @ w.T + b
    print(write("components", model))
    grad = softmax_gradient(logits, test_y) @ w @ projection * slope
    save("components", test_x, test_y, model.predict_proba(test_x), grad)
    # Margins of linear machines, which are no probabilities.
    model = LinearSVC(max_iter=5000, random_state=0).fit(x, y)
    w, b = linear(model)
    print(write("linear-svc", model))
    save("linear-svc", test_x, test_y, model.decision_function(test_x), softmax_gradient(wide @ w.T + b, test_y) @ w, w=w, b=b)
    # One against the rest: sigmoids that are divided by their sum.
    model = SGDClassifier(loss="log_loss", random_state=0).fit(x, y)
    w, b = linear(model)
    print(write("sgd-log", model))
    sigmoid = 1 / (1 + np.exp(-(wide @ w.T + b)))
    # p_y = s_y / sum s, and d s / d z = s (1 - s).
    onehot = np.eye(10)[test_y]
    by_logit = (sigmoid / sigmoid.sum(1, keepdims=True) - onehot) * (1 - sigmoid)
    save("sgd-log", test_x, test_y, model.predict_proba(test_x), by_logit @ w)
    # Labels that are text, and an output for each class.
    names = np.array([f"digit {digit}" for digit in range(10)])
    model = LogisticRegression(max_iter=500).fit(x, names[y])
    w, b = linear(model)
    print(write("columns", model, zipmap="columns"))
    save("columns", test_x, test_y, model.predict_proba(test_x), softmax_gradient(wide @ w.T + b, test_y) @ w, w=w, b=b)
    # One number for two classes.
    model = LinearSVC(max_iter=5000, random_state=0).fit(*binary(x, y))
    w, b = linear(model)
    print(write("linear-svc-binary", model))
    logits = two_x.astype(np.float64) @ w.T + b
    save("linear-svc-binary", two_x, two_y, two_scores(model.decision_function(two_x)), softmax_gradient(logits, two_y) @ w, w=w, b=b)
    # Trees, which have no gradient.
    model = RandomForestClassifier(6, max_depth=5, random_state=0).fit(x, y)
    print(write("forest", model))
    save("forest", test_x, test_y, model.predict_proba(test_x))


def keras_models(x, y, test_x, test_y):
    import keras
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(0)

    def finish(name, model, x, test_x, y=y, test_y=test_y):
        if not is_wanted(name):
            return
        two = model.output_shape[1] == 1
        model.compile("adam", "binary_crossentropy" if two else "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=25, batch_size=64, verbose=0)
        signature = [tf.TensorSpec([None, *x.shape[1:]], tf.float32, name="input")]
        # Keras 3 and tf2onnx: by way of a function.
        function = tf.function(lambda input: model(input, training=False), input_signature=signature)
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=15)
        del proto.metadata_props[:]
        proto.doc_string = ""
        onnx.save(proto, HERE / f"{name}.onnx")
        keras.backend.set_floatx("float64")
        double = keras.models.clone_model(model, clone_function=lambda layer: layer.__class__.from_config({**layer.get_config(), "dtype": "float64"}))
        double.set_weights([weight.astype(np.float64) for weight in model.get_weights()])
        wide = tf.constant(test_x.astype(np.float64))
        with tf.GradientTape() as tape:
            tape.watch(wide)
            scores = double(wide, training=False)
            scores = tf.concat([1 - scores, scores], 1) if two else scores
            loss = -tf.reduce_sum(tf.math.log(tf.gather(scores, test_y, batch_dims=1)))
        scores = scores.numpy()
        shown = two_scores(np.log(scores[:, 1] / scores[:, 0])) if two else scores
        save(name, test_x, test_y, shown, tape.gradient(loss, wide).numpy())
        keras.backend.set_floatx("float32")
        print(name, [node.op_type for node in proto.graph.node], [i.name for i in proto.graph.input], [o.name for o in proto.graph.output],
              (scores.argmax(1) == test_y).mean())

    layers = keras.layers
    image = lambda x: x.reshape(-1, 8, 8, 1)
    cnn = keras.Sequential([
        keras.Input((8, 8, 1)), layers.Conv2D(8, 3, strides=2, padding="same"), layers.BatchNormalization(), layers.ReLU(),
        layers.DepthwiseConv2D(3, padding="same", activation="relu"), layers.MaxPooling2D(2), layers.Flatten(),
        layers.Dropout(0.1), layers.Dense(10, activation="softmax"),
    ])
    finish("keras-cnn", cnn, image(x), image(test_x))
    mlp = keras.Sequential([keras.Input((64,)), layers.Dense(32, activation="elu"), layers.Dense(10, activation="softmax")])
    finish("keras-mlp", mlp, x, test_x)
    regression = keras.Sequential([keras.Input((64,)), layers.Dense(10, activation="softmax")])
    finish("keras-logistic", regression, x, test_x)
    # One probability for two classes.
    binary = keras.Sequential([keras.Input((64,)), layers.Dense(16, activation="tanh"), layers.Dense(1, activation="sigmoid")])
    finish("keras-binary", binary, x[y < 2], test_x[test_y < 2], y[y < 2], test_y[test_y < 2])


def main():
    x, y = digits()
    data = (x[:1200], y[:1200], x[-SAMPLES:], y[-SAMPLES:])
    sklearn_models(*data)
    keras_models(*data)


if __name__ == "__main__":
    main()
