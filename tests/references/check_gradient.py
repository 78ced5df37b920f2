#!/usr/bin/env python3
"""Compares a gradient graph with the reference that lies beside its model, by hand.

    mohs gradient tests/references/lenet-legacy9.onnx -o lenet.gradient.onnx
    python3 tests/references/check_gradient.py tests/references/lenet-legacy9.onnx lenet.gradient.onnx
    python3 tests/references/check_gradient.py tests/references/lenet-legacy9.onnx lenet.margin.onnx --loss margin

Differences are taken sample by sample, relative to its largest element; the exit code is 1 where one exceeds --tolerance.

Made for Python 3.11, onnxruntime 1.31.1, numpy 2.4.6.
"""

import argparse
import pathlib
import sys

import numpy as np
import onnxruntime


def run(path, x, labels, optimised):
    """Loss and gradient of each sample; one sample at a time where the graph has a fixed batch of 1."""
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    data = [value for value in session.get_inputs() if value.name != "labels"][0]
    size = 1 if data.shape[0] == 1 else len(x)
    parts = [
        session.run(["loss", "grad"], {data.name: x[first : first + size], "labels": labels[first : first + size]})
        for first in range(0, len(x), size)
    ]
    return [np.concatenate(arrays).astype(np.float64) for arrays in zip(*parts)]


def difference(found, expected):
    """The largest difference of each sample, relative to its largest expected element, or to a thousandth of the largest of all where that is more.

    A sample may have no gradient at all, or only what rounding leaves (the ratio loss of three classes where the label ranks last).
    """
    assert found.shape == expected.shape, f"shape {found.shape} where {expected.shape} is expected"
    size = np.abs(expected).reshape(len(expected), -1).max(1)
    return np.abs(found - expected).reshape(len(expected), -1).max(1) / np.maximum(size, max(1e-3 * size.max(), 1e-30))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path, help="NAME.onnx with NAME.npz beside it")
    parser.add_argument("gradient", type=pathlib.Path, help="the gradient graph to check")
    parser.add_argument("--loss", choices=["cross-entropy", "margin", "dlr"], default="cross-entropy")
    parser.add_argument("--keep-softmax", action="store_true", help="the graph was made with --keep-softmax")
    parser.add_argument("--optimised", action="store_true", help="let ONNX Runtime optimise the graph first")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()

    arrays = np.load(arguments.model.with_suffix(".npz"))
    part = "" if arguments.loss == "cross-entropy" else f"_{arguments.loss}"
    if "grad_from_logits" in arrays and not arguments.keep_softmax:
        part += "_from_logits"
    if f"grad{part}" not in arrays:
        sys.exit(f"{arguments.model.with_suffix('.npz')} has no grad{part}; it has {', '.join(arrays.files)}")
    loss, grad = run(arguments.gradient, arrays["x"], arrays["labels"], arguments.optimised)
    worst = 0.0
    for name, found in (("loss", loss), ("grad", grad)):
        each = difference(found, arrays[name + part])
        worst = max(worst, each.max())
        print(f"{name}: difference of each sample {' '.join(f'{value:.1e}' for value in each)}")
    sys.exit(0 if worst <= arguments.tolerance else 1)


if __name__ == "__main__":
    main()
