//! Writes the tiny models that devices are tried with, as bytes of the ONNX protobuf format.
//!
//! The runtime sits beside the graph modules and needs none of their generality: a handful of fields, written one after another.
//! Field numbers: the messages of `onnx.proto`.

/// `ModelProto.ir_version` of the models written here: what opset 18 came with.
const IR_VERSION: u64 = 8;
/// The opset of the models written here.
const OPSET: u64 = 18;
/// `TensorProto.DataType.FLOAT`.
pub(super) const FLOAT: u64 = 1;

/// An axis of a declared shape.
#[derive(Clone, Copy)]
pub(super) enum Axis {
    Fixed(u64),
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the device probe has fixed shapes")
    )]
    Named(&'static str),
}

/// A declared input or output: name, element type and shape.
pub(super) type Declared<'a> = (&'a str, u64, &'a [Axis]);

/// A node: operator, inputs and outputs.
pub(super) type Node<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// The bytes of a model.
pub(super) fn model(
    inputs: &[Declared<'_>],
    nodes: &[Node<'_>],
    outputs: &[Declared<'_>],
) -> Vec<u8> {
    let mut graph = Message::default();
    for (operator, inputs, outputs) in nodes {
        let mut node = Message::default();
        for name in *inputs {
            node.text(1, name);
        }
        for name in *outputs {
            node.text(2, name);
        }
        node.text(4, operator);
        graph.message(1, &node);
    }
    graph.text(2, "tiny");
    for declared in inputs {
        graph.message(11, &value_info(declared));
    }
    for declared in outputs {
        graph.message(12, &value_info(declared));
    }
    let mut opset = Message::default();
    opset.text(1, "");
    opset.number(2, OPSET);
    let mut model = Message::default();
    model.number(1, IR_VERSION);
    model.message(7, &graph);
    model.message(8, &opset);
    model.0
}

fn value_info((name, element_type, axes): &Declared<'_>) -> Message {
    let mut shape = Message::default();
    for axis in *axes {
        let mut dimension = Message::default();
        match axis {
            Axis::Fixed(extent) => dimension.number(1, *extent),
            Axis::Named(name) => dimension.text(2, name),
        }
        shape.message(1, &dimension);
    }
    let mut tensor = Message::default();
    tensor.number(1, *element_type);
    tensor.message(2, &shape);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut info = Message::default();
    info.text(1, name);
    info.message(2, &kind);
    info
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }
}
