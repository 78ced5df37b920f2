"""Handmade cases of If, Loop and Scan: what no exporter writes, but other tools do."""

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

from handmade import handmade, integers, node


def value(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def body(nodes, inputs, outputs, constants=None):
    """A body; inputs and outputs as names, with `:int` or `:bool` behind those that are no floats."""
    kinds = {"int": TensorProto.INT64, "bool": TensorProto.BOOL}

    def declared(names):
        for name in names.split():
            name, _, kind = name.partition(":")
            yield value(name, kinds[kind], []) if kind else value(name)

    arrays = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    return helper.make_graph(nodes, "body", list(declared(inputs)), list(declared(outputs)), arrays)


def scalar(number, kind=np.int64):
    return np.array(number, dtype=kind)


# If: the shape tells the branch, which takes values from outside, one of them the input itself.

handmade(
    "if_by_shape", 13, (6, 3),
    [
        node("Shape", "x", "shape"), node("Gather", "shape one", "steps", axis=0), node("Greater", "steps four", "long"), node("Tanh", "x", "t"),
        helper.make_node(
            "If", ["long"], ["y"], name="choice",
            then_branch=body([node("Mul", "t x", "p"), node("Add", "p a", "then")], "", "then"),
            else_branch=body([node("Neg", "x", "else")], "", "else"),
        ),
    ],
    lambda x, a: x.tanh() * x + a,
    18, {"a": (3,)}, {"one": scalar(1), "four": scalar(4)},
)  # fmt: skip

# If: the data tell the branch. The branches take the input itself, values that depend on it, weights and constants from outside, and hand some of
# them through; one has another If inside. The untaken branch is never run with its kinks: a logarithm of what may be negative.


def by_data(x, a):
    positive = x.sum(dim=(1, 2), keepdim=True) > 0
    large = x.abs().amax(dim=(1, 2), keepdim=True) > 1.5
    inside = torch.where(large, x.tanh() * a, x * x)
    return torch.where(positive, torch.log(x * x + 2) + x.tanh(), inside) + torch.where(positive, x, x.tanh())


handmade(
    "if_by_data", 13, (2, 3),
    [
        node("ReduceSum", "x", "sum", keepdims=0), node("Greater", "sum none", "positive"), node("Tanh", "x", "t"), node("Abs", "x", "size"),
        node("ReduceMax", "size", "largest", keepdims=0),
        helper.make_node(
            "If", ["positive"], ["z", "w"], name="choice",
            then_branch=body(
                [
                    node("Mul", "x x", "square"), node("Add", "square two", "more"), node("Log", "more", "log"), node("Add", "log t", "then"),
                    node("Identity", "x", "then_w"),
                ],
                "", "then then_w",
            ),
            else_branch=body(
                [
                    node("Greater", "largest bound", "large"),
                    helper.make_node(
                        "If", ["large"], ["else"], name="inner",
                        then_branch=body([node("Mul", "t a", "inner_then")], "", "inner_then"),
                        else_branch=body([node("Mul", "x x", "inner_else")], "", "inner_else"),
                    ),
                    node("Identity", "t", "else_w"),
                ],
                "", "else else_w", {"bound": scalar(1.5, np.float32)},
            ),
        ),
        node("Add", "z w", "y"),
    ],
    by_data, 6, {"a": (3,)}, {"none": scalar(0, np.float32), "two": scalar(2, np.float32)}, pinned=True,
)  # fmt: skip

# Loop: states, stacked results, and a value from outside that depends on the input.


def iterate(x, a, times):
    state, stacked = x, []
    for step in range(times):
        state = torch.tanh(state * a + 0.1 * step * torch.sigmoid(x))
        stacked.append(state * x)
    return torch.stack(stacked).sum(0) + state


LOOP = [
    node("Sigmoid", "x", "s"),
    helper.make_node(
        "Loop", ["times", "", "x"], ["last", "stacked"], name="loop",
        body=body(
            [
                node("Mul", "state a", "scaled"), node("Cast", "step", "number", to=1), node("Mul", "number tenth", "share"),
                node("Mul", "share s", "more"), node("Add", "scaled more", "sum"), node("Tanh", "sum", "next"), node("Mul", "next x", "entry"),
                node("Identity", "condition", "going_on"),
            ],
            "step:int condition:bool state", "going_on:bool next entry", {"tenth": scalar(0.1, np.float32)},
        ),
    ),
    node("ReduceSum", "stacked zero", "total", keepdims=0), node("Add", "total last", "y"),
]  # fmt: skip
handmade("loop", 13, (4,), LOOP, lambda x, a: iterate(x, a, 5), 4, {"a": (4,)}, {"times": scalar(5), "zero": integers(0)})
handmade("loop_once", 16, (4,), LOOP, lambda x, a: iterate(x, a, 1), 4, {"a": (4,)}, {"times": scalar(1), "zero": integers(0)})

# Loop without a trip count: a number that is carried along ends it. An If inside goes by the iteration.


def until(x, a):
    state, number, step = x, 1, 0
    while number < 50:
        state = state * a if step == 2 else torch.tanh(state) + x
        number, step = 3 * number, step + 1
    return state


handmade(
    "loop_while", 17, (4,),
    [
        helper.make_node(
            "Loop", ["", "start", "x", "one"], ["y", "number"], name="loop",
            body=body(
                [
                    node("Equal", "step two", "third"),
                    helper.make_node(
                        "If", ["third"], ["next"], name="choice",
                        then_branch=body([node("Mul", "state a", "then")], "", "then"),
                        else_branch=body([node("Tanh", "state", "t"), node("Add", "t x", "else")], "", "else"),
                    ),
                    node("Mul", "count three", "next_count"), node("Less", "next_count fifty", "going_on"),
                ],
                "step:int condition:bool state count:int", "going_on:bool next next_count:int", {"two": scalar(2), "three": scalar(3), "fifty": scalar(50)},
            ),
        ),
    ],
    until, 4, {"a": (4,)}, {"start": scalar(True, bool), "one": scalar(1)},
)  # fmt: skip

# Scan: two sequences, one of them backwards and along another axis, results in both directions.


def scan(x, a):
    state, ahead, behind = x[:, 0] * 0, [], []
    for step in range(x.shape[1]):
        state = torch.tanh(state + x[:, step] * a[:, x.shape[1] - 1 - step])
        ahead.append(state * state)
        behind.insert(0, state + a[:, step * 0])
    return torch.stack(ahead, 1) + torch.stack(behind, 1) + state[:, None]


handmade(
    "scan", 13, (5, 3),
    [
        node("ReduceSum", "x middle", "reduced", keepdims=0), node("Sub", "reduced reduced", "zeros"), node("Slice", "a zero one one", "column"),
        node("Squeeze", "column one", "first"),
        helper.make_node(
            "Scan", ["zeros", "x", "a"], ["last", "ahead", "behind"], name="scan", num_scan_inputs=2, scan_input_axes=[1, -1],
            scan_input_directions=[0, 1], scan_output_axes=[1, -2], scan_output_directions=[0, 1],
            body=body(
                [
                    node("Mul", "step weight", "product"), node("Add", "state product", "sum"), node("Tanh", "sum", "next"),
                    node("Mul", "next next", "square"), node("Add", "next first", "moved"),
                ],
                "state step weight", "next square moved",
            ),
        ),
        node("Unsqueeze", "last middle", "column_of_last"), node("Add", "ahead behind", "both"), node("Add", "both column_of_last", "y"),
    ],
    scan, 15, {"a": (3, 5)}, {"middle": integers(1), "zero": integers(0), "one": integers(1)},
)  # fmt: skip
