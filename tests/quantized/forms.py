#!/usr/bin/env python3
"""Makes small models of the other quantised forms of this folder, with the gradients of their dequantised models in float64.

    python3 tests/quantized/forms.py

`form-*.onnx` and `form-*.npz` beside this file, in the layout of make.py, whose interpreter gives the gradients of the two models in quantised
operators; those of the perceptrons are written out in PyTorch. All stay clear of halves that have to be rounded.
"""

import pathlib
import tempfile

import make
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from torch import nn
from torch.nn import functional

HERE = make.HERE
INPUT, HIDDEN, CLASSES = 16, 32, 4
RANDOM = np.random.RandomState(0)
FIRST = (RANDOM.randn(INPUT, HIDDEN) / 4).astype(np.float32)
BIAS = (RANDOM.randn(HIDDEN) / 10).astype(np.float32)
SECOND = (RANDOM.randn(HIDDEN, CLASSES) / 4).astype(np.float32)
BLOCK = 8


class Convolutions(nn.Module):
    """What ONNX Runtime's static quantiser has operators for: sums, products, concatenations, activations, pooling."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(*sizes, 3, padding=1) for sizes in [(1, 4), (1, 4), (8, 8)])
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = torch.cat([functional.leaky_relu(self.one(x), 0.1), torch.sigmoid(self.two(x))], 1)
        x = self.three(x) + x
        x = x * torch.sigmoid(x)
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Attending(nn.Module):
    """One head of attention over rows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.conv(x).mean(3).transpose(1, 2)
        x = torch.softmax(x @ x.transpose(1, 2), -1) @ x
        return self.head(torch.cat([x, x.sigmoid()], 2).mean(1))


def perceptron(nodes, initializers, opset=21):
    """x is flattened to `a`; `nodes` make `h` [n, HIDDEN] of it; then comes a float layer."""
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    nodes = [helper.make_node("Flatten", ["x"], ["a"]), *nodes, helper.make_node("Tanh", ["h"], ["t"]), helper.make_node("MatMul", ["t", "second"], ["logits"])]
    constants = [numpy_helper.from_array(SECOND, "second"), numpy_helper.from_array(BIAS, "bias"), *initializers]
    graph = helper.make_graph(nodes, "perceptron", [value("x", ["n", 1, 4, 4])], [value("logits", ["n", CLASSES])], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)], ir_version=10)


def rounded(x, scale, zero, low, high):
    """Rounded to a grid and back; scale and zero point are numbers or go with x."""
    as_tensor = lambda value: torch.as_tensor(value, dtype=x.dtype)  # noqa: E731
    return (make.Quantize.apply(x, as_tensor(scale), as_tensor(zero), low, high) - zero) * scale


def by_block(width):
    """FIRST with a scale for each block of rows: whole numbers, scales, and what they stand for."""
    blocks = FIRST.reshape(INPUT // BLOCK, BLOCK, HIDDEN)
    scales = (np.abs(blocks).max(1) / width).astype(np.float32)
    numbers = np.clip(np.round(blocks / scales[:, None]), -width, width)
    return numbers.reshape(INPUT, HIDDEN).astype(np.int64), scales, (numbers * scales[:, None].astype(np.float64)).reshape(INPUT, HIDDEN)


def weights_only():
    """Forms that round weights and nothing else: name -> model, and the layer in float64."""
    constant, node = numpy_helper.from_array, helper.make_node
    add = node("Add", ["m", "bias"], ["h"])
    product = [node("MatMul", ["a", "w"], ["m"]), add]
    layer = lambda weights: lambda a: a @ torch.from_numpy(weights) + torch.from_numpy(BIAS).double()  # noqa: E731
    numbers, scales, weights = by_block(127)
    unpack = node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=BLOCK)
    yield "form-block-int8", perceptron([unpack, *product], [constant(numbers.astype(np.int8), "q"), constant(scales, "s")]), layer(weights)
    numbers, scales, weights = by_block(7)
    packed = [helper.make_tensor("q", TensorProto.UINT4, [INPUT, HIDDEN], (numbers + 8).ravel().tolist()), constant(scales, "s")]
    packed.append(helper.make_tensor("z", TensorProto.UINT4, list(scales.shape), [8] * scales.size))
    unpack = node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0, block_size=BLOCK)
    yield "form-block-uint4", perceptron([unpack, *product], packed), layer(weights)
    floats = perceptron(product, [constant(FIRST, "w")])
    for name, bits, symmetric in [("form-nbits4", 4, False), ("form-nbits8", 8, True)]:
        quantizer = MatMulNBitsQuantizer(onnx.ModelProto.FromString(floats.SerializeToString()), block_size=16, is_symmetric=symmetric, bits=bits)
        quantizer.process()
        # What the weights are is asked of ONNX Runtime: the layer of unit vectors.
        model = quantizer.model.model
        yield name, model, None


def unit_response(model, operator):
    """The matrix that the first node of a kind multiplies by, by running it alone on unit vectors."""
    node = next(node for node in model.graph.node if node.op_type == operator)
    constants = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)  # noqa: E731
    graph = helper.make_graph([node], "one", [value(node.input[0])], [value(node.output[0])], constants)
    width = next(attribute.i for attribute in node.attribute if attribute.name == "K")
    single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=10)
    session = onnxruntime.InferenceSession(single.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {node.input[0]: np.eye(width, dtype=np.float32)})[0].astype(np.float64)


def forward_of(layer, second=SECOND):
    return lambda x: torch.tanh(layer(x.flatten(1))) @ torch.from_numpy(second).double()


def keep(name, model, forward, samples):
    """Writes a model, and the gradient of `forward` at the first samples that stay clear of halves."""
    onnx.save(model, HERE / f"{name}.onnx")
    labels = torch.arange(len(samples)) % CLASSES
    chosen = [row for row in range(len(samples)) if clear_of_halves(forward, samples[row : row + 1])][: make.SAMPLES]
    samples, labels = samples[chosen], labels[chosen]
    parts = [make.gradient(forward, samples[row : row + 1].double(), labels[row : row + 1]) for row in range(len(chosen))]
    assert len(chosen) == make.SAMPLES, name
    make.save(name, samples, labels, torch.cat(parts))
    session = onnxruntime.InferenceSession(str(HERE / f"{name}.onnx"), providers=["CPUExecutionProvider"])
    run = np.concatenate([session.run(None, {"x": samples[row : row + 1].numpy()})[0] for row in range(len(chosen))])
    print(name, [node.op_type for node in model.graph.node], "off by", np.abs(run - np.concatenate([forward(row.double()).detach().numpy() for row in samples.split(1)])).max())


def clear_of_halves(forward, row):
    nearest = [1.0]
    given, make.Quantize.watch = make.Quantize.watch, lambda steps: nearest.append(float((steps - steps.floor() - 0.5).abs().min()))
    with torch.no_grad():
        forward(row.double())
    make.Quantize.watch = given
    return min(nearest) >= make.CLEAR


def activations():
    """Forms that round what flows: name -> model, and the layer in float64."""
    constant, node = numpy_helper.from_array, helper.make_node
    numbers, scales, _ = by_block(127)
    scale = scales.max(0)
    weights = np.clip(np.round(FIRST / scale), -127, 127).astype(np.int8)
    packed = [constant(weights, "q"), constant(scale, "s")]
    dequantized = torch.from_numpy(weights * scale.astype(np.float64))
    bias = torch.from_numpy(BIAS).double()

    def dynamic(a):
        low, high = a.detach().min().clamp(max=0), a.detach().max().clamp(min=0)
        step = (high - low) / 255
        return rounded(a, step, torch.round(-low / step).clamp(0, 255), 0, 255) @ dequantized + bias

    fused = node("DynamicQuantizeMatMul", ["a", "q", "s", "", "bias"], ["h"], domain="com.microsoft")
    yield "form-dynamic-matmul", perceptron([fused], packed), dynamic
    grid = [constant(np.float32(1 / 255), "step"), constant(np.uint8(3), "zero")]
    quantize = node("QuantizeLinear", ["a", "step", "zero"], ["u"])
    fused = node("MatMulIntegerToFloat", ["u", "q", "step", "s", "zero", "", "bias"], ["h"], domain="com.microsoft")
    step = float(np.float32(1 / 255))
    yield "form-integer-to-float", perceptron([quantize, fused], [*packed, *grid]), lambda a: rounded(a, step, 3, 0, 255) @ dequantized + bias
    # A scale for each four of an input's elements; the brightest are beyond it.
    steps = np.float32([[0.002, 0.0031, 0.0043, 0.0037]])
    blocks = [constant(steps, "steps"), constant(np.zeros((1, 4), np.uint8), "zeros"), constant(FIRST, "w")]
    pair = [node(kind, [given, "steps", "zeros"], [made], axis=1, block_size=4) for kind, given, made in [("QuantizeLinear", "b", "u"), ("DequantizeLinear", "u", "d")]]
    one_row = [node("Reshape", ["a", "shape"], ["b"]), *pair, node("MatMul", ["d", "w"], ["m"]), node("Add", ["m", "bias"], ["h"])]
    along = torch.from_numpy(steps.astype(np.float64).repeat(4))
    layer = lambda a: rounded(a, along, 0, 0, 255) @ torch.from_numpy(FIRST).double() + bias  # noqa: E731
    yield "form-block-activations", perceptron(one_row, [*blocks, constant(np.int64([1, INPUT]), "shape")]), layer
    inner = lambda name, kind: helper.make_graph(  # noqa: E731
        [node("QuantizeLinear", ["n", "coarse", "middle"], [f"{name}.u"]), node("DequantizeLinear", [f"{name}.u", "coarse", "middle"], [f"{name}.d"]), node(kind, [f"{name}.d"], [f"{name}.y"])],
        name, [], [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)],
    )
    choice = [
        node("MatMul", ["a", "w"], ["m"]), node("Add", ["m", "bias"], ["n"]), node("ReduceMean", ["a"], ["mean"], keepdims=0), node("Greater", ["mean", "half"], ["bright"]),
        node("If", ["bright"], ["h"], then_branch=inner("then", "Sigmoid"), else_branch=inner("else", "Sin")),
    ]
    coarse = [constant(FIRST, "w"), constant(np.float32(0.01), "coarse"), constant(np.uint8(128), "middle"), constant(np.float32(0.3), "half")]

    def branches(a):
        value = rounded(a @ torch.from_numpy(FIRST).double() + bias, float(np.float32(0.01)), 128, 0, 255)
        return torch.sigmoid(value) if a.mean() > 0.3 else torch.sin(value)

    yield "form-branches", perceptron(choice, coarse), branches


def static(name, module, samples, kind, calibration):
    """A module in quantised operators, by ONNX Runtime's quantiser."""
    with tempfile.TemporaryDirectory() as folder:
        floats, prepared = pathlib.Path(folder) / "float.onnx", pathlib.Path(folder) / "prepared.onnx"
        make.export(module.eval(), samples[:2], floats)
        quantization.quant_pre_process(floats, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared, HERE / f"{name}.onnx", make.Calibration(calibration), quant_format=quantization.QuantFormat.QOperator, activation_type=kind, weight_type=quantization.QuantType.QInt8
        )
    model = onnx.load(HERE / f"{name}.onnx")
    keep(name, model, lambda x: make.interpret(model, x), samples)


def brain(samples):
    """A perceptron in bfloat16 between casts, at samples that bfloat16 holds; the reference has the same weights in float64."""
    weights = [torch.from_numpy(array).bfloat16() for array in (FIRST, BIAS, SECOND)]
    packed = [
        helper.make_tensor(name, TensorProto.BFLOAT16, list(tensor.shape), tensor.view(torch.int16).numpy().tobytes(), raw=True)
        for name, tensor in zip(("first", "bias", "second"), weights)
    ]
    node = helper.make_node
    nodes = [
        node("Flatten", ["x"], ["flat"]), node("Cast", ["flat"], ["a"], to=TensorProto.BFLOAT16), node("MatMul", ["a", "first"], ["m"]), node("Add", ["m", "bias"], ["h"]),
        node("Tanh", ["h"], ["t"]), node("MatMul", ["t", "second"], ["l"]), node("Cast", ["l"], ["logits"], to=TensorProto.FLOAT),
    ]
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph(nodes, "brain", [value("x", ["n", 1, 4, 4])], [value("logits", ["n", CLASSES])], packed)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), HERE / "form-bfloat16.onnx")
    first, bias, second = (tensor.double() for tensor in weights)
    samples = (samples[: make.SAMPLES] * 64).round() / 64
    labels = torch.arange(len(samples)) % CLASSES
    make.save("form-bfloat16", samples, labels, make.gradient(lambda x: torch.tanh(x.flatten(1) @ first + bias) @ second, samples.double(), labels))


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(1)
    small = torch.rand(400, 1, 4, 4, generator=random) * torch.linspace(0.3, 1, 400).reshape(-1, 1, 1, 1).roll(7)
    small = small[torch.randperm(400, generator=random)]
    for name, model, layer in [*weights_only(), *activations()]:
        forward = None if layer is None else forward_of(layer)
        if forward is None:
            response = torch.from_numpy(unit_response(model, "MatMulNBits"))
            second = next(node for node in reversed(model.graph.node) if node.op_type in ("MatMul", "MatMulNBits"))
            last = SECOND.astype(np.float64)
            if second.op_type == "MatMulNBits":
                last = unit_response(onnx_of(second, model), "MatMulNBits")
            forward = lambda x, response=response, last=last: torch.tanh(x.flatten(1) @ response + torch.from_numpy(BIAS).double()) @ torch.from_numpy(last)  # noqa: E731
        keep(name, model, forward, small)
    brain(small)
    x = torch.rand(3000, 1, 6, 6, generator=random)
    static("form-operators", Convolutions(), x, quantization.QuantType.QUInt8, 0.95 * x[:64])
    static("form-attention", Attending(), x, quantization.QuantType.QInt8, 0.95 * x[:64])


def onnx_of(node, model):
    """A model of one node alone, with the constants of another."""
    graph = helper.make_graph([node], "one", [], [], list(model.graph.initializer))
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=10)


if __name__ == "__main__":
    main()
