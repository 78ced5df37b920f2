#!/usr/bin/env python3
"""Makes the forest of this folder: decision trees on 8×8 digits, as skl2onnx writes them (outputs `label` and `probabilities`).

    python3 tests/trees/make.py

Made with Python 3.11, scikit-learn 1.9.1, skl2onnx 1.20.0. The samples are those of `models/digits-test.npz`, which it is not trained on.
"""

import pathlib

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

HERE = pathlib.Path(__file__).resolve().parent


def main():
    test = np.load(HERE.parents[1] / "models/digits-test.npz")["x"].reshape(-1, 64)
    digits = load_digits()
    pixels = np.round(digits.data * 255 / 16).astype(np.uint8)
    held_out = {row.tobytes() for row in test}
    training = np.array([row.tobytes() not in held_out for row in pixels])
    x = (pixels[training] / 255).astype(np.float32)
    forest = RandomForestClassifier(9, max_depth=7, random_state=0).fit(x, digits.target[training])
    model = to_onnx(forest, x[:1], options={"zipmap": False})
    (HERE / "forest.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
