"""Cases whose ONNX graph is written node by node: operators, attributes and opsets that PyTorch's exporters never write.

Each case gives a PyTorch function and the nodes that compute the same; the last node is a Gemm to the logits.
"""

from dataclasses import dataclass
from typing import Callable

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

CASES = {}


@dataclass
class Handmade:
    """A case: `build(generator)` gives the PyTorch module and the ONNX model."""

    name: str
    build: Callable
    shape: tuple
    kind: str = "normal"
    classes: int = 5
    pinned: bool = False


class Reference(nn.Module):
    """A function of the input and of the constants of the graph, flattened, then a linear layer."""

    def __init__(self, function, constants, weight, bias):
        super().__init__()
        self.function = function
        self.names = list(constants)
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(value))
        self.register_buffer("weight", torch.from_numpy(weight))
        self.register_buffer("bias", torch.from_numpy(bias))

    def forward(self, x):
        constants = {name: getattr(self, name) for name in self.names}
        return functional.linear(torch.flatten(self.function(x, **constants), 1), self.weight, self.bias)


def handmade(name, opset, shape, nodes, function, features, constants=None, extra=None, flatten=True, kind="normal", pinned=False):
    """Registers a case: `nodes` lead from `x` to `y`; `constants` (name to shape) are drawn, `extra` (name to array) are given to the graph alone."""

    def build(generator):
        def draw(*size):
            return torch.randn(size, generator=generator).numpy()

        drawn = {key: draw(*size) for key, size in (constants or {}).items()}
        weight, bias = draw(5, features) / np.float32(np.sqrt(features)), draw(5)
        head = [helper.make_node("Flatten", ["y"], ["flat"], axis=1)] if flatten else [helper.make_node("Identity", ["y"], ["flat"])]
        head.append(helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], transB=1, name="head"))
        values = {**drawn, **(extra or {}), "head.weight": weight, "head.bias": bias}
        batch = 1 if pinned else "batch"
        graph = helper.make_graph(
            [*nodes, *head],
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 5])],
            [numpy_helper.from_array(value, key) for key, value in values.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset > 8 else 3, producer_name="mohs")
        if model.ir_version < 4:
            # Before IR version 4 an initializer had to be listed among the inputs.
            for key, value in values.items():
                kind = TensorProto.INT64 if value.dtype == np.int64 else TensorProto.FLOAT
                model.graph.input.append(helper.make_tensor_value_info(key, kind, value.shape))
        return Reference(function, drawn, weight, bias), model

    full_name = f"{name}-handmade{opset}"
    assert full_name not in CASES, full_name
    CASES[full_name] = Handmade(full_name, build, tuple(shape), kind, pinned=pinned)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), name=f"{outputs.split()[0]}.{kind}", **attributes)


def integers(*values):
    return np.array(values, dtype=np.int64)


# Sums of many

handmade(
    "variadic", 8, (2, 3, 4),
    [
        node("Tanh", "x", "t"), node("Sum", "x t a", "s"), node("Mean", "s x b t", "m"), node("Max", "m t x b", "u"), node("Min", "u a", "v"),
        node("Sum", "v", "w"), node("Mul", "w x", "y"),
    ],
    lambda x, a, b: torch.minimum(torch.maximum(torch.maximum((x + x.tanh() + a + x + b + x.tanh()) / 4, x.tanh()), torch.maximum(x, b)), a + 0 * x) * x,
    24, {"a": (3, 1), "b": (2, 3, 4)},
)  # fmt: skip
handmade(
    "variadic", 13, (2, 3, 4),
    [node("Max", "x a b", "u"), node("Min", "u x c", "v"), node("Mean", "v x", "y")],
    lambda x, a, b, c: (torch.minimum(torch.minimum(torch.maximum(torch.maximum(x, a), b), x), c) + x) / 2,
    24, {"a": (3, 1), "b": (1,), "c": (2, 1, 4)},
)  # fmt: skip

# Reductions

handmade(
    "reduce_every_kind", 11, (3, 4, 2),
    [
        node("ReduceSumSquare", "x", "a", axes=[-1], keepdims=0), node("ReduceL1", "x", "b", axes=[1, 3], keepdims=0),
        node("ReduceL2", "x", "c", axes=[-2], keepdims=1), node("ReduceLogSumExp", "x", "f", axes=[1, 2, 3]),
        node("Flatten", "a", "a2"), node("Flatten", "c", "c2"), node("Flatten", "f", "f2"),
        node("Concat", "a2 b c2 f2", "y", axis=-1),
    ],
    lambda x: torch.cat([(x * x).sum(3).flatten(1), x.abs().sum((1, 3)), x.norm(dim=2).flatten(1), x.logsumexp((1, 2, 3)).unsqueeze(1)], 1),
    12 + 4 + 6 + 1, flatten=False,
)  # fmt: skip
handmade(
    "reduce_every_kind", 18, (3, 4, 2),
    [
        node("ReduceSumSquare", "x last", "a", keepdims=0), node("ReduceL1", "x outer", "b", keepdims=0), node("ReduceL2", "x inner", "c"),
        node("ReduceLogSumExp", "x all", "f"), node("ReduceSum", "x none", "g", noop_with_empty_axes=1), node("ReduceProd", "x inner", "h", keepdims=0),
        node("Flatten", "a", "a2"), node("Flatten", "c", "c2"), node("Flatten", "f", "f2"), node("Flatten", "g", "g2"), node("Flatten", "h", "h2"),
        node("Concat", "a2 b c2 f2 g2 h2", "y", axis=1),
    ],
    lambda x: torch.cat(
        [(x * x).sum(3).flatten(1), x.abs().sum((1, 3)), x.norm(dim=2).flatten(1), x.logsumexp((1, 2, 3)).unsqueeze(1), x.flatten(1), x.prod(2).flatten(1)], 1
    ),
    12 + 4 + 6 + 1 + 24 + 6,
    extra={"last": integers(-1), "outer": integers(1, 3), "inner": integers(-2), "all": integers(1, -2, 3), "none": integers()}, flatten=False,
)  # fmt: skip

# Normalisation and activations

handmade(
    "local_response_norm", 9, (6, 3, 3), [node("LRN", "x", "y", size=3, alpha=0.5, beta=0.7, bias=1.3)],
    lambda x: functional.local_response_norm(x, 3, alpha=0.5, beta=0.7, k=1.3), 54,
)  # fmt: skip
handmade(
    "batch_norm_spatial", 7, (3, 4), [node("BatchNormalization", "x scale shift mean variance", "y", epsilon=1e-3, momentum=0.9, spatial=1)],
    lambda x, scale, shift, mean: functional.batch_norm(x, mean, torch.tensor([0.5, 1.5, 2.0]).to(x), scale, shift, eps=1e-3), 12,
    {"scale": (3,), "shift": (3,), "mean": (3,)}, {"variance": np.array([0.5, 1.5, 2.0], np.float32)},
)  # fmt: skip
handmade(
    "gelu", 20, (6,), [node("Gelu", "x", "a"), node("Gelu", "x", "b", approximate="tanh"), node("Concat", "a b", "y", axis=1)],
    lambda x: torch.cat([functional.gelu(x), functional.gelu(x, approximate="tanh")], 1), 12,
)  # fmt: skip
handmade(
    "softsign_softplus_mish", 18, (6,),
    [node("Softsign", "x", "a"), node("Softplus", "x", "b"), node("Mish", "x", "c"), node("Concat", "a b c", "y", axis=1)],
    lambda x: torch.cat([functional.softsign(x), functional.softplus(x), functional.mish(x)], 1), 18,
)  # fmt: skip
handmade(
    "softsign", 7, (6,), [node("Softsign", "x", "a"), node("Softplus", "a", "y")], lambda x: functional.softplus(functional.softsign(x)), 6,
)  # fmt: skip
handmade(
    "activations_with_attributes", 16, (6,),
    [
        node("HardSigmoid", "x", "a", alpha=0.3, beta=0.4), node("Elu", "x", "b", alpha=0.5), node("Selu", "x", "c", alpha=1.2, gamma=1.1),
        node("LeakyRelu", "x", "d"), node("Celu", "x", "e", alpha=1.7), node("PRelu", "x slope", "f"), node("HardSwish", "x", "g"),
        node("Concat", "a b c d e f g", "y", axis=1),
    ],
    lambda x, slope: torch.cat(
        [
            torch.clamp(0.3 * x + 0.4, 0, 1), functional.elu(x, 0.5), 1.1 * torch.where(x > 0, x, 1.2 * torch.expm1(x)),
            functional.leaky_relu(x, 0.01), functional.celu(x, 1.7), torch.where(x < 0, slope * x, x), functional.hardswish(x),
        ], 1
    ),
    42, {"slope": (6,)},
)  # fmt: skip
handmade(
    "prelu_per_channel", 9, (3, 4, 2), [node("PRelu", "x slope", "y")],
    lambda x, slope: torch.where(x < 0, slope * x, x), 24, {"slope": (3, 1, 1)},
)  # fmt: skip
handmade(
    "clip_attributes", 7, (6,), [node("Clip", "x", "a", min=-0.5, max=0.7), node("Clip", "x", "b", max=0.2), node("Sub", "a b", "y")],
    lambda x: torch.clamp(x, -0.5, 0.7) - torch.clamp(x, max=0.2), 6,
)  # fmt: skip
handmade(
    "clip_without_minimum", 13, (6,), [helper.make_node("Clip", ["x", "", "top"], ["a"]), helper.make_node("Clip", ["x"], ["b"]), node("Add", "a b", "y")],
    lambda x: torch.clamp(x, max=0.3) + x, 6, extra={"top": np.float32(0.3).reshape(())},
)  # fmt: skip

# Softmax before opset 13: the axes from `axis` on are one.

handmade(
    "softmax_coerced", 7, (3, 4), [node("Softmax", "x", "s"), node("Mul", "s x", "y")],
    lambda x: functional.softmax(x.flatten(1), 1).view_as(x) * x, 12,
)  # fmt: skip
handmade(
    "log_softmax_coerced", 11, (3, 4, 2), [node("LogSoftmax", "x", "s", axis=-2), node("Mul", "s x", "y")],
    lambda x: functional.log_softmax(x.flatten(2), 2).view_as(x) * x, 24,
)  # fmt: skip
handmade("softmax_default_axis", 13, (3, 4), [node("Softmax", "x", "s"), node("Mul", "s x", "y")], lambda x: functional.softmax(x, -1) * x, 12)

# Convolutions and pooling with auto_pad and asymmetric pads

handmade(
    "conv_same_upper", 9, (2, 8, 7), [node("Conv", "x w b", "y", auto_pad="SAME_UPPER", strides=[2, 2])],
    lambda x, w, b: functional.conv2d(functional.pad(x, (1, 1, 0, 1)), w, b, stride=2), 3 * 16, {"w": (3, 2, 3, 3), "b": (3,)},
)  # fmt: skip
handmade(
    "conv_same_lower", 11, (2, 8, 7), [node("Conv", "x w", "y", auto_pad="SAME_LOWER", kernel_shape=[2, 3], strides=[1, 2])],
    lambda x, w: functional.conv2d(functional.pad(x, (1, 1, 1, 0)), w, stride=(1, 2)), 3 * 32, {"w": (3, 2, 2, 3)},
)  # fmt: skip
handmade(
    "conv_valid", 13, (2, 8, 7), [node("Conv", "x w", "y", auto_pad="VALID", group=2, dilations=[2, 1])],
    lambda x, w: functional.conv2d(x, w, groups=2, dilation=(2, 1)), 4 * 4 * 5, {"w": (4, 1, 3, 3)},
)  # fmt: skip
handmade(
    "conv_asymmetric_pads", 13, (2, 9, 8), [node("Conv", "x w b", "y", pads=[0, 2, 3, 1], strides=[3, 2])],
    # Rows: 9 + 3 − 2 leaves 1 over; the pads at the end are larger than at the start.
    lambda x, w, b: functional.conv2d(functional.pad(x, (2, 1, 0, 3)), w, b, stride=(3, 2)), 3 * 4 * 5, {"w": (3, 2, 2, 3), "b": (3,)},
)  # fmt: skip
handmade(
    "conv_transpose_same_upper", 11, (2, 4, 5), [node("ConvTranspose", "x w b", "y", auto_pad="SAME_UPPER", strides=[2, 2])],
    lambda x, w, b: functional.conv_transpose2d(x, w, b, stride=2)[:, :, :8, :10], 3 * 80, {"w": (2, 3, 3, 3), "b": (3,)},
)  # fmt: skip
handmade(
    "conv_transpose_output_shape", 11, (2, 4, 5), [node("ConvTranspose", "x w", "y", output_shape=[8, 9], strides=[2, 2])],
    # In all 1 row and 2 columns too many: the odd one is taken at the start (unless SAME_UPPER), the others from both sides.
    lambda x, w: functional.conv_transpose2d(x, w, stride=2)[:, :, 1:9, 1:10], 3 * 72, {"w": (2, 3, 3, 3)},
)  # fmt: skip
handmade(
    "conv_transpose_asymmetric_pads", 13, (2, 4, 5), [node("ConvTranspose", "x w", "y", pads=[0, 1, 2, 0], strides=[2, 3])],
    lambda x, w: functional.conv_transpose2d(x, w, stride=(2, 3))[:, :, :7, 1:], 3 * 7 * 14, {"w": (2, 3, 3, 3)},
)  # fmt: skip
handmade(
    "max_pool_same_upper", 12, (2, 8, 7), [node("MaxPool", "x", "y", kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER")],
    lambda x: functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=-torch.inf), (3, 2), 2), 2 * 16,
)  # fmt: skip
handmade(
    "max_pool_asymmetric_pads", 8, (2, 6, 7), [node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 1], pads=[1, 0, 2, 1])],
    lambda x: functional.max_pool2d(functional.pad(x, (0, 1, 1, 2), value=-torch.inf), 3, (2, 1)), 2 * 4 * 6,
)  # fmt: skip
handmade(
    "average_pool_same_lower", 11, (2, 8, 7), [node("AveragePool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")],
    lambda x: functional.avg_pool2d(functional.pad(x, (1, 1, 1, 0)), 3, 2)
    / functional.avg_pool2d(functional.pad(torch.ones_like(x), (1, 1, 1, 0)), 3, 2), 2 * 16,
)  # fmt: skip
handmade(
    "average_pool_asymmetric_pads", 7, (2, 6, 7), [node("AveragePool", "x", "y", kernel_shape=[2, 3], pads=[1, 0, 0, 2], count_include_pad=1)],
    lambda x: functional.avg_pool2d(functional.pad(x, (0, 2, 1, 0)), (2, 3), 1), 2 * 6 * 7,
)  # fmt: skip
handmade(
    "global_pools", 7, (3, 4, 2, 3), [node("GlobalAveragePool", "x", "a"), node("GlobalMaxPool", "x", "b"), node("Concat", "a b", "y", axis=1)],
    lambda x: torch.cat([x.mean((2, 3, 4)), x.amax((2, 3, 4))], 1), 6,
)  # fmt: skip

handmade(
    "kinks_global_max_pool", 9, (3, 4, 4), [node("GlobalMaxPool", "x", "y")],
    lambda x: functional.adaptive_max_pool2d(x, 1), 3, kind="integers",
)  # fmt: skip
handmade(
    "kinks_max_min", 12, (3, 4), [node("Max", "x a x", "m"), node("Min", "m x b", "y")],
    # PyTorch has no maximum of three: taken from left to right, two by two.
    lambda x: torch.minimum(torch.minimum(torch.maximum(torch.maximum(x, torch.ones_like(x)), x), x), 0 * x - 1), 12,
    extra={"a": np.float32([1.0]), "b": np.float32([-1.0])}, kind="integers",
)  # fmt: skip

# Matrix products

handmade(
    "gemm_attributes", 7, (6,), [node("Gemm", "x w c", "y", alpha=0.5, beta=2.0)],
    lambda x, w, c: 0.5 * x @ w + 2 * c, 4, {"w": (6, 4), "c": (4,)},
)  # fmt: skip
handmade(
    "gemm_transposed", 13, (6,), [node("Transpose", "x", "t"), node("Gemm", "t w", "y", transA=1, transB=1, alpha=-1.5)],
    lambda x, w: -1.5 * x @ w.T, 4, {"w": (4, 6)},
)  # fmt: skip
handmade(
    "gemm_input_as_addend", 11, (4,), [node("Tanh", "x", "t"), node("Gemm", "t w x", "y", transB=1, beta=0.7)],
    lambda x, w: torch.tanh(x) @ w.T + 0.7 * x, 4, {"w": (4, 4)},
)  # fmt: skip
handmade(
    "matmul_constant_left", 9, (3, 4), [node("MatMul", "a x", "y")], lambda x, a: a @ x, 20, {"a": (5, 3)},
)  # fmt: skip

# Moving elements, in the old forms

handmade(
    "shapes_with_attributes", 7, (4, 1, 3),
    [
        node("Squeeze", "x", "a", axes=[2]), node("Unsqueeze", "a", "b", axes=[1, 4]), node("Split", "b", "c d", axis=2, split=[1, 3]),
        node("Pad", "d", "e", mode="constant", pads=[0, 0, 0, 1, 0, 0, 0, -1, 1, 0], value=0.3), node("Slice", "a", "f", axes=[1, 2], starts=[1, -2], ends=[3, 9]),
        node("Flatten", "c", "c2"), node("Flatten", "e", "e2"), node("Flatten", "f", "f2"), node("Concat", "c2 e2 f2", "y", axis=1),
    ],
    lambda x: torch.cat([x[:, :1].flatten(1), functional.pad(x[:, 1:3, 0], (1, 1), value=0.3).flatten(1), x[:, 1:3, 0, 1:].flatten(1)], 1), 3 + 10 + 4,
)  # fmt: skip
handmade(
    "slice_backwards", 13, (5, 6), [node("Slice", "x starts ends axes steps", "y")], lambda x: x.flip(1)[:, 1:4].flip(2)[:, :, ::2], 9,
    extra={"starts": integers(-2, 99), "ends": integers(0, -99), "axes": integers(1, -1), "steps": integers(-1, -2)},
)  # fmt: skip
handmade(
    "gather_negative_indices", 13, (5, 4), [node("Gather", "x indices", "y", axis=-2)], lambda x: x[:, [[4, 0], [3, 4]]], 16,
    extra={"indices": np.array([[-1, 0], [3, -1]], np.int64)},
)  # fmt: skip
handmade(
    "reshape_zero_and_minus_one", 14, (2, 3, 4), [node("Tanh", "x", "t"), node("Reshape", "t shape", "r"), node("Transpose", "r", "y", perm=[0, 2, 1])],
    lambda x: torch.tanh(x).reshape(-1, 2, 12).transpose(1, 2), 24, extra={"shape": integers(0, 0, -1)},
)  # fmt: skip
handmade(
    "flatten_axes", 13, (2, 3, 4), [node("Flatten", "x", "a", axis=-2), node("Tanh", "a", "b"), node("Reshape", "b shape", "y")],
    lambda x: torch.tanh(x), 24, extra={"shape": integers(-1, 24)}, flatten=False,
)  # fmt: skip
handmade(
    "expand_both_ways", 13, (1, 3, 1), [node("Expand", "x shape", "e"), node("Tile", "e repeats", "t"), node("Tanh", "t", "u"), node("Mul", "u x", "y")],
    lambda x: torch.tanh(x.expand(-1, 2, 3, 4).repeat(1, 2, 1, 2)) * x, 4 * 3 * 8,
    extra={"shape": integers(1, 2, 1, 4), "repeats": integers(1, 2, 1, 2)},
)  # fmt: skip
handmade(
    "split_equal_parts", 18, (6, 2), [node("Split", "x", "a b c", axis=1, num_outputs=3), node("Mul", "a c", "d"), node("Add", "d b", "y")],
    lambda x: x[:, :2] * x[:, 4:] + x[:, 2:4], 4,
)  # fmt: skip
handmade(
    "split_uneven_parts", 18, (5, 2), [node("Split", "x", "a b", axis=1, num_outputs=2), node("Concat", "b a", "c", axis=1), node("Mul", "c x", "y")],
    lambda x: torch.cat([x[:, 3:], x[:, :3]], 1) * x, 10,
)  # fmt: skip
handmade(
    "dropout_with_mask", 7, (6,), [node("Dropout", "x", "a mask", ratio=0.4), node("Tanh", "a", "y")], lambda x: torch.tanh(x), 6,
)  # fmt: skip
handmade(
    "constant_of_shape_arithmetic", 13, (3, 4),
    [
        node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0), node("Concat", "n rest", "shape", axis=0), node("ConstantOfShape", "shape", "ones",
             value=numpy_helper.from_array(np.array([1.5], np.float32))),
        node("Mul", "x ones", "a"), node("Reshape", "a target", "b"), node("Tanh", "b", "y"),
    ],
    lambda x: torch.tanh(1.5 * x.flatten(1)), 12,
    extra={"zero": integers(0), "rest": integers(3, 4), "target": integers(0, -1)}, flatten=False,
)  # fmt: skip
