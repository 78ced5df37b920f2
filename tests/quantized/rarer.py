#!/usr/bin/env python3
"""Makes small models of quantised forms that are rarely met, in the layout of forms.py: a choice between two operands, a softmax of an old opset, weights of
two bits, and an operator on quantised numbers that mohs has no floats for.

    python3 tests/quantized/rarer.py
"""

import forms
import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

constant, node = numpy_helper.from_array, helper.make_node
FIRST, BIAS = torch.from_numpy(forms.FIRST).double(), torch.from_numpy(forms.BIAS).double()


def quantized(of, to, step, zero):
    return node("QuantizeLinear", [of, step, zero], [to])


def grids(**steps):
    """A scale and a zero point for each name."""
    made = []
    for name, (step, zero) in steps.items():
        made += [constant(np.float32(step), name), constant(np.uint8(zero), f"{name}.zero")]
    return made


def affine(result="m"):
    return [node("MatMul", ["a", "w"], ["ab"]), node("Add", ["ab", "bias"], [result])]


def where():
    """Each of the upper half of the units from one grid, the others from another."""
    upper = np.arange(forms.HIDDEN) >= forms.HIDDEN // 2
    operands = ["upper", "p", "fine", "fine.zero", "q", "coarse", "coarse.zero", "out", "out.zero"]
    nodes = [
        *affine(), quantized("m", "p", "fine", "fine.zero"), quantized("m", "q", "coarse", "coarse.zero"),
        node("QLinearWhere", operands, ["r"], domain="com.microsoft"), node("DequantizeLinear", ["r", "out", "out.zero"], ["h"]),
    ]
    steps = {"fine": (0.011, 120), "coarse": (0.019, 131), "out": (0.017, 128)}
    of = lambda name: (float(np.float32(steps[name][0])), steps[name][1], 0, 255)  # noqa: E731

    def layer(a):
        m = a @ FIRST + BIAS
        chosen = torch.where(torch.from_numpy(upper), forms.rounded(m, *of("fine")), forms.rounded(m, *of("coarse")))
        return forms.rounded(chosen, *of("out"))

    return forms.perceptron(nodes, [constant(forms.FIRST, "w"), constant(upper[None], "upper"), *grids(**steps)]), layer


def softmax():
    """Before opset 13: over all axes from the second on."""
    nodes = [
        *affine(), quantized("m", "u", "fine", "fine.zero"), node("Reshape", ["u", "shape"], ["v"]),
        node("QLinearSoftmax", ["v", "fine", "fine.zero", "out", "out.zero"], ["s"], domain="com.microsoft", axis=1, opset=12),
        node("DequantizeLinear", ["s", "out", "out.zero"], ["d"]), node("Flatten", ["d"], ["f"]), node("Mul", ["f", "ten"], ["h"]),
    ]
    steps = {"fine": (0.03, 120), "out": (1 / 256, 0)}

    def layer(a):
        m = forms.rounded(a @ FIRST + BIAS, float(np.float32(0.03)), 120, 0, 255)
        return 10 * forms.rounded(functional.softmax(m, 1), 1 / 256, 0, 0, 255)

    shape = constant(np.int64([-1, 4, forms.HIDDEN // 4]), "shape")
    return forms.perceptron(nodes, [constant(forms.FIRST, "w"), shape, constant(np.float32(10), "ten"), *grids(**steps)]), layer


def uncovered():
    """A maximum over quantised numbers, beside a way in floats."""
    nodes = [
        quantized("x", "u", "fine", "fine.zero"), node("Transpose", ["u"], ["v"], perm=[0, 2, 3, 1]),
        node("NhwcMaxPool", ["v"], ["p"], domain="com.microsoft", kernel_shape=[2, 2], strides=[2, 2]), node("DequantizeLinear", ["p", "fine", "fine.zero"], ["d"]),
        node("Flatten", ["d"], ["e"]), node("MatMul", ["e", "small"], ["g"]), *affine(), node("Add", ["m", "g"], ["h"]),
    ]
    small = constant(forms.FIRST[:4] * 2, "small")
    return forms.perceptron(nodes, [constant(forms.FIRST, "w"), small, *grids(fine=(1 / 255, 0))])


def two_bits():
    """Weights of two bits, four in a byte, with a scale for each block of 16."""
    scale = (np.abs(forms.FIRST).max(0) / 2).astype(np.float32)
    numbers = np.clip(np.round(forms.FIRST / scale) + 2, 0, 3).astype(np.uint8).T
    packed = sum(numbers[:, part::4] << (2 * part) for part in range(4)).astype(np.uint8).reshape(forms.HIDDEN, 1, 4)
    product = node("MatMulNBits", ["a", "q", "s"], ["m"], domain="com.microsoft", K=forms.INPUT, N=forms.HIDDEN, bits=2, block_size=16)
    weights = torch.from_numpy((numbers.astype(np.float64) - 2).T * scale.astype(np.float64))
    constants = [constant(packed, "q"), constant(scale[:, None], "s")]
    return forms.perceptron([product, node("Add", ["m", "bias"], ["h"])], constants), lambda a: a @ weights + BIAS


def main():
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(2)
    samples = torch.rand(6000, 1, 4, 4, generator=random)
    for name, form in [("form-where", where), ("form-softmax-old", softmax), ("form-nbits2", two_bits)]:
        model, layer = form()
        forms.keep(name, model, forms.forward_of(layer), samples)
    onnx.save(uncovered(), forms.HERE / "form-uncovered.onnx")


if __name__ == "__main__":
    main()
