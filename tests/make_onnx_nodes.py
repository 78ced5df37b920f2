"""Writes tests/onnx_nodes.tsv: the backend node tests of the package `onnx` as cases for the gradient checks, one a line.

    python tests/make_onnx_nodes.py > tests/onnx_nodes.tsv

Only the form of each test is kept: the floats are drawn anew. The fields are name, operator, opset, which results have a name, attributes, inputs.
Left out are tests without float inputs, of half precision, of several nodes, with subgraphs, with sequences, or with large integer inputs.
Needs the package `onnx` (made with 1.23.2).
"""

import warnings

import numpy
from onnx import AttributeProto, defs, helper

warnings.simplefilter("ignore")
from onnx.backend.test.loader import load_model_tests  # noqa: E402

NEWEST = 24
# Floats that steer an operator, by position: they keep their values.
STEERING = {
    "Dropout": [1],
    "MelWeightMatrix": [0, 1, 2, 3, 4],
    "NonMaxSuppression": [0, 1, 2, 3, 4],
    "OneHot": [0, 1],
    "Range": [0, 1, 2],
    "Resize": [1, 2],
    "RoiAlign": [1],
    "MaxRoiPool": [1],
    "RotaryEmbedding": [1, 2],
    "Upsample": [1],
}
# Operators that are flat where the package draws their floats: there single precision has no differences to see.
SATURATING = ["GRU", "LSTM", "RNN"]


def attribute(proto):
    """`name:kind=value`, with the kind's letter in capitals for a list."""
    value = helper.get_attribute_value(proto)
    kinds = {
        AttributeProto.INT: "i",
        AttributeProto.FLOAT: "f",
        AttributeProto.INTS: "I",
        AttributeProto.FLOATS: "F",
        AttributeProto.STRING: "s",
    }
    kind = kinds[proto.type]
    if kind == "s":
        value = value.decode().replace(" ", "")
    elif kind in "IF":
        value = ",".join(str(entry) for entry in value)
    return f"{proto.name}:{kind}={value}"


def operand(array, steering, saturating):
    """`shape:low..high` for floats to be drawn, `shape:type=values` for what keeps its values."""
    shape = ",".join(str(extent) for extent in array.shape)
    if array.dtype in (numpy.float32, numpy.float64):
        if steering:
            return f"{shape}:float=" + ",".join(str(float(value)) for value in array.ravel())
        finite = array[numpy.isfinite(array)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
        if saturating:
            low, high = -1.0, 1.0
        return f"{shape}:{round(low, 4)}..{round(high if high > low else low + 1.0, 4)}"
    kind = array.dtype.name
    if kind not in ("int32", "int64", "bool", "uint8") or array.size > 128:
        raise KeyError(kind)
    return f"{shape}:{kind}=" + ",".join(str(int(value)) for value in array.ravel())


def case(test):
    graph, imports = test.model.graph, test.model.opset_import
    if any(not info.type.HasField("tensor_type") for info in (*graph.input, *graph.output)):
        return None
    if len(graph.node) != 1 or len(imports) != 1 or graph.initializer or test.name.endswith("_expanded"):
        return None
    node, opset = graph.node[0], imports[0].version
    if node.domain not in ("", "ai.onnx") or opset < 7:
        return None
    # Tests of the newest opset hold for the one before where the operator is in it: the later changes only add types.
    opset = min(opset, NEWEST)
    if not defs.has(node.op_type) or defs.get_schema(node.op_type).since_version > NEWEST + 1:
        return None
    try:
        defs.get_schema(node.op_type, opset)
    except defs.SchemaError:
        return None
    given = dict(zip([info.name for info in graph.input], test.data_sets[0][0], strict=True))
    try:
        steering = STEERING.get(node.op_type, [])
        arrays = [given.get(name) if name else None for name in node.input]
        drawn = [
            array is not None and array.dtype in (numpy.float32, numpy.float64) and position not in steering
            for position, array in enumerate(arrays)
        ]
        saturating = node.op_type in SATURATING
        pairs = zip(arrays, drawn, strict=True)
        inputs = ["-" if array is None else operand(array, not float_, saturating) for array, float_ in pairs]
        attributes = [attribute(proto) for proto in node.attribute]
    except (KeyError, AttributeError):
        return None
    sizes = [array.size for array, float_ in zip(arrays, drawn, strict=True) if float_]
    if not sum(sizes) or sum(sizes) > 20000:
        return None
    outputs = "".join("1" if name else "0" for name in node.output)
    return "\t".join([test.name, node.op_type, str(opset), outputs, " ".join(attributes), " ".join(inputs)])


cases = [case(test) for test in load_model_tests(kind="node")]
print("\n".join(sorted({found for found in cases if found})))
