#!/usr/bin/env python3
"""Makes the half-precision and quantised classifiers of this folder, with PyTorch's gradients for them.

    python3 tests/quantized/make.py

writes `*.onnx` and, for each, `*.npz` beside itself: `x` float32 [n, 1, 8, 8], `y` int64 [n], `grad` float32 [n, 1, 8, 8], the gradient of the
cross-entropy by x. For half precision that is the gradient of a float32 model with the same half-precision weights, at the same
half-precision samples; for a quantised model that of the dequantised one, by an interpreter of its file in which rounding passes the gradient on, and saturation stops it.
The quantised models' samples are chosen so that nothing that has to be rounded is near a half, where the last bit of a sum
in float32 would decide about a whole step, and with it about the gradient.

Made with Python 3.11, torch 2.15.0, scikit-learn 1.9.1, numpy 2.4.6, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.31.1, onnxconverter-common.
"""

import pathlib
import tempfile
import warnings

import numpy as np
import onnx
import onnxconverter_common
import torch
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization import QuantFormat, QuantType
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
SAMPLES = 8
# How far from a half a value has to be that is rounded, in steps: some times what float32 gets wrong.
CLEAR = 3e-4


class Classifier(nn.Module):
    """Two convolutions and a linear layer; [n, 1, 8, 8] in [0, 1] to logits [n, 10]."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
        )
        self.classifier = nn.Linear(8 * 2 * 2, 10)

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class Rounding(nn.Module):
    """An MLP with a rounded layer and a layer of signs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 24), nn.Linear(24, 24), nn.Linear(24, 10)])

    def forward(self, x):
        first, second, third = self.layers
        x = StraightRound.apply(4 * first(torch.flatten(x, 1))) / 4
        return third(StraightSign.apply(second(x)))


class StraightRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent

    @staticmethod
    def symbolic(g, x):
        return g.op("Round", x)


class StraightSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * (x.abs() <= 1)

    @staticmethod
    def symbolic(g, x):
        return g.op("Sign", x)


def digits():
    data = load_digits()
    order = np.random.RandomState(7).permutation(len(data.target))
    return torch.from_numpy(data.images[order] / 16).float().unsqueeze(1), torch.from_numpy(data.target[order])


def train(model, x, y, epochs=25):
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


def widened(logits):
    return logits.float() if logits.dtype == torch.float16 else logits


def gradient(model, x, y):
    x = x.clone().requires_grad_(True)
    functional.cross_entropy(widened(model(x)), y, reduction="sum").backward()
    return x.grad


def save(name, x, y, grad):
    np.savez_compressed(HERE / f"{name}.npz", x=x.numpy().astype(np.float32), y=y.numpy(), grad=grad.numpy().astype(np.float32))


def export(model, x, path, dynamo=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(model, (x,), dynamo=True, input_names=["x"], output_names=["logits"],
                                        dynamic_shapes={"x": {0: torch.export.Dim("n")}}, verbose=False)
            proto = program.model_proto
            for node in proto.graph.node:
                del node.metadata_props[:]
                node.doc_string = ""
            onnx.save(proto, path)
        else:
            torch.onnx.export(model, (x,), path, dynamo=False, opset_version=17, input_names=["x"], output_names=["logits"],
                              dynamic_axes={"x": {0: "n"}, "logits": {0: "n"}})


class Quantize(torch.autograd.Function):
    """Rounding and saturation, in float; the gradient passes where nothing is saturated. `watch` is shown what is rounded."""

    watch = staticmethod(lambda steps: None)

    @staticmethod
    def forward(ctx, x, scale, zero, low, high):
        Quantize.watch(x.double() / scale.double())
        unbounded = torch.round(x / scale) + zero
        ctx.save_for_backward((unbounded >= low) & (unbounded <= high), scale)
        return unbounded.clamp(low, high)

    @staticmethod
    def backward(ctx, cotangent):
        inside, scale = ctx.saved_tensors
        return cotangent * inside / scale, None, None, None, None


def interpret(proto, x):
    """The logits of a quantised model; integers are kept as floats."""
    ranges = {onnx.TensorProto.UINT8: (0, 255), onnx.TensorProto.INT8: (-128, 127)}
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    values = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()).to(x.dtype) for tensor in proto.graph.initializer}
    values[proto.graph.input[0].name] = x

    def along(value, rank, axis):
        return value.reshape([-1 if a == axis else 1 for a in range(rank)]) if value.numel() > 1 else value.reshape([])

    def quantize(x, scale, zero):
        return Quantize.apply(x, values[scale].reshape([]), values[zero].reshape([]), *ranges[kinds[zero]])

    def dequantize(q, scale, zero, axis=0):
        return (values[q] - along(values[zero], values[q].dim(), axis)) * along(values[scale], values[q].dim(), axis)

    def conv(x, w, bias, node):
        pads = node.get("pads", [0, 0, 0, 0])
        return functional.conv2d(x, w, bias, stride=node.get("strides", [1, 1]), padding=tuple(pads[:2]))

    for node in proto.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        i, kind = list(node.input), node.op_type
        get = lambda position: values[i[position]] if position < len(i) and i[position] else None
        if kind == "QuantizeLinear":
            result = quantize(values[i[0]], i[1], i[2])
        elif kind == "DequantizeLinear":
            if len(i) < 3:
                result = values[i[0]] * along(values[i[1]], values[i[0]].dim(), attributes.get("axis", 1))
            else:
                result = dequantize(i[0], i[1], i[2], attributes.get("axis", 1))
        elif kind == "DynamicQuantizeLinear":
            # The scale moves with the data, but is taken as it is.
            values_of = get(0).detach()
            low, high = values_of.min().clamp(max=0), values_of.max().clamp(min=0)
            scale = (high - low) / 255
            zero = torch.round(-low / scale).clamp(0, 255)
            values[node.output[1]], values[node.output[2]] = scale, zero
            result = Quantize.apply(get(0), scale, zero, 0, 255)
        elif kind == "ConvInteger":
            result = conv(get(0) - get(2).reshape([]), get(1) - along(get(3), 4, 0), None, attributes)
        elif kind == "MatMulInteger":
            result = (get(0) - get(2).reshape([])) @ (get(1) - get(3))
        elif kind == "QLinearConv":
            bias = values[i[8]] * values[i[1]].reshape([]) * values[i[4]].reshape([-1])
            result = quantize(conv(dequantize(*i[:3]), dequantize(*i[3:6]), bias, attributes), i[6], i[7])
        elif kind == "QGemm":
            weights = dequantize(*i[3:6])
            result = dequantize(*i[:3]) @ (weights.T if attributes.get("transB") else weights)
            result = quantize(result + values[i[6]] * values[i[1]].reshape([]) * values[i[4]].reshape([-1]), i[7], i[8])
        elif kind == "QLinearMatMul":
            result = quantize(dequantize(*i[:3]) @ dequantize(*i[3:6]), i[6], i[7])
        elif kind in ("QLinearAdd", "QLinearMul"):
            a, b = dequantize(*i[:3]), dequantize(*i[3:6])
            result = quantize(a + b if kind == "QLinearAdd" else a * b, i[6], i[7])
        elif kind == "QLinearConcat":
            parts = [dequantize(*i[first : first + 3]) for first in range(2, len(i), 3)]
            result = quantize(torch.cat(parts, attributes["axis"]), i[0], i[1])
        elif kind == "QLinearSoftmax":
            result = quantize(dequantize(*i[:3]).softmax(attributes["axis"]), i[3], i[4])
        elif kind == "QLinearLeakyRelu":
            result = quantize(functional.leaky_relu(dequantize(*i[:3]), attributes["alpha"]), i[3], i[4])
        elif kind == "QLinearSigmoid":
            result = quantize(dequantize(*i[:3]).sigmoid(), i[3], i[4])
        elif kind == "QLinearGlobalAveragePool":
            result = quantize(dequantize(*i[:3]).mean((2, 3), keepdim=True), i[3], i[4])
        elif kind == "QLinearAveragePool":
            result = quantize(functional.avg_pool2d(dequantize(*i[:3]), attributes["kernel_shape"], attributes["strides"]), i[3], i[4])
        elif kind == "Conv":
            result = conv(get(0), get(1), get(2), attributes)
        elif kind == "AveragePool":
            result = functional.avg_pool2d(get(0), attributes["kernel_shape"], attributes["strides"])
        elif kind == "MaxPool":
            result = functional.max_pool2d(get(0), attributes["kernel_shape"], attributes["strides"])
        elif kind == "Gemm":
            result = get(0) @ (get(1).T if attributes.get("transB") else get(1)) + get(2)
        elif kind == "MatMul":
            result = get(0) @ get(1)
        elif kind == "Relu":
            result = get(0).relu()
        elif kind in ("Add", "Mul"):
            result = get(0) + get(1) if kind == "Add" else get(0) * get(1)
        elif kind == "Flatten":
            result = get(0).flatten(1)
        elif kind == "Reshape":
            result = get(0).reshape([int(extent) if extent else get(0).shape[0] for extent in get(1)])
        elif kind == "Transpose":
            result = get(0).permute(attributes["perm"])
        elif kind == "ReduceMean":
            axes = attributes["axes"] if "axes" in attributes else [int(axis) for axis in get(1)]
            result = get(0).mean(axes, keepdim=bool(attributes.get("keepdims", 1)))
        elif kind in ("Cast", "Identity"):
            result = get(0)
        else:
            raise NotImplementedError(kind)
        values[node.output[0]] = result
        if node.output[0] not in kinds and kind not in ("QuantizeLinear",):
            kinds[node.output[0]] = onnx.TensorProto.FLOAT
    return values[proto.graph.output[0].name]


class Calibration(quantization.CalibrationDataReader):
    def __init__(self, x):
        self.rows = iter([{"x": x[position:position + 32].numpy()} for position in range(0, len(x), 32)])

    def get_next(self):
        return next(self.rows, None)


def quantized(float_file, calibration):
    """Every way in which ONNX Runtime quantises."""
    static = lambda name, **options: quantization.quantize_static(
        float_file, HERE / f"{name}.onnx", Calibration(calibration), **options)
    # Samples brighter than those of the calibration saturate.
    with tempfile.TemporaryDirectory() as folder:
        prepared = pathlib.Path(folder) / "prepared.onnx"
        quantization.quant_pre_process(float_file, prepared, skip_symbolic_shape=True)
        float_file = prepared
        static("qdq", quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        static("qdq-per-channel", quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, per_channel=True)
        for name in ["qdq", "qdq-per-channel"]:
            with_own_scale_after_pooling(HERE / f"{name}.onnx")
        static("qoperator", quant_format=QuantFormat.QOperator, activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8)
        quantization.quantize_dynamic(float_file, HERE / "dynamic.onnx", weight_type=QuantType.QUInt8)


def with_own_scale_after_pooling(path):
    """Gives what average pooling returns a scale of its own.

    With the scale of what goes in, means of four integers are on a half one time in four, and there the order of summation decides about a whole step.
    """
    proto = onnx.load(path)
    pooled = {output for node in proto.graph.node if node.op_type in ("AveragePool", "GlobalAveragePool") for output in node.output}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in pooled:
            (back,) = [other for other in proto.graph.node if node.output[0] in other.input]
            scale = numpy_helper.to_array(constants[node.input[1]])
            own = f"{node.input[0]}_own_scale"
            proto.graph.initializer.append(numpy_helper.from_array((scale * 1.037).astype(np.float32), own))
            node.input[1] = back.input[1] = own
    onnx.save(proto, path)


def undecided(proto, x):
    """How near each sample comes to a half that has to be rounded, in steps: there the last bit decides between two gradients."""
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float64)

    def watch(steps):
        steps = steps.flatten(1)
        torch.minimum(nearest, (steps - steps.floor() - 0.5).abs().amin(1), out=nearest)

    given, Quantize.watch = Quantize.watch, watch
    with torch.no_grad():
        interpret(proto, x)
    Quantize.watch = given
    return nearest


def quantized_references(x, y):
    """The references of every quantised model, each at the first samples of x that stay clear of halves, a little paler than they are."""
    paleness = 1 - 0.1 * torch.from_numpy(np.random.RandomState(3).rand(20, len(x), 1, 1, 1)).float()
    candidates, answers = (x * paleness).flatten(0, 1), y.repeat(20)
    for name in ["qdq", "qdq-per-channel", "qoperator", "dynamic"]:
        proto = onnx.load(HERE / f"{name}.onnx")
        # The scale of dynamic quantisation is that of the whole batch, so the samples come one by one.
        one_by_one = name == "dynamic"
        size = 1 if one_by_one else len(x)
        chosen = []
        for block in torch.arange(len(candidates)).split(size):
            if len(chosen) < SAMPLES:
                chosen += block[undecided(proto, candidates[block]) >= CLEAR].tolist()
        chosen = chosen[:SAMPLES]
        if len(chosen) < SAMPLES:
            raise ValueError(f"{name}: only {len(chosen)} samples stay clear of halves")
        samples, labels = candidates[chosen], answers[chosen]
        blocks = [[row] for row in range(SAMPLES)] if one_by_one else [list(range(SAMPLES))]
        save(name, samples, labels, torch.cat([gradient(lambda x: interpret(proto, x), samples[rows].double(), labels[rows]) for rows in blocks]))
        accuracy = (interpret(proto, samples.double()).argmax(1) == labels).float().mean().item()
        print(name, [node.op_type for node in proto.graph.node], accuracy)


def halves(model, float_file, x, y):
    half = model.half()
    x = x.half()
    single = Classifier()
    single.load_state_dict({name: weight.float() for name, weight in half.state_dict().items()})
    grad = gradient(single, x.float(), y)
    export(half, x, HERE / "half-legacy.onnx")
    export(half, x, HERE / "half-dynamo.onnx", dynamo=True)
    converted = onnxconverter_common.convert_float_to_float16(onnx.load(float_file))
    onnx.save(converted, HERE / "half-converted.onnx")
    for name in ["half-legacy", "half-dynamo", "half-converted"]:
        save(name, x.float(), y, grad)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, y = digits()
    samples, labels = x[-SAMPLES:], y[-SAMPLES:]
    model = train(Classifier(), x[:1200], y[:1200])
    print("accuracy", (model(x[1200:]).argmax(1) == y[1200:]).float().mean().item())
    with tempfile.TemporaryDirectory() as folder:
        float_file = pathlib.Path(folder) / "float.onnx"
        export(model, samples, float_file)
        # Calibrated on pale samples, so that the test saturates.
        quantized(float_file, 0.8 * x[:256])
        quantized_references(x[1200:], y[1200:])
        halves(model, float_file, samples, labels)
    rounding = train(Rounding(), x[:1200], y[:1200])
    print("accuracy", (rounding(x[1200:]).argmax(1) == y[1200:]).float().mean().item())
    export(rounding, samples, HERE / "rounding.onnx")
    save("rounding", samples, labels, gradient(rounding.double(), samples.double(), labels))


if __name__ == "__main__":
    main()
