//! What a file declares of the types and shapes of its values, and what follows from that at once.
//!
//! This serves only to choose the simpler of two forms that compute the same: a value about which nothing is known costs a few nodes more.

use crate::graph::Attributes;
use crate::onnx::proto::{
    DimensionValue, GraphProto, NodeProto, TensorProto, TypeValue, ValueInfoProto,
};
use crate::onnx::to_tensor;
use crate::tensor::DType;
use std::collections::HashMap;

/// Extents, `None` where one is not declared as a number.
pub(super) type Extents = Vec<Option<i64>>;

/// The values of one graph and of those around it.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    outer: Option<&'a Known<'a>>,
    dtypes: HashMap<String, i32>,
    shapes: HashMap<String, Extents>,
    /// Initializers that can be the operands of shape arithmetic.
    lists: HashMap<String, Vec<f64>>,
}

impl<'a> Known<'a> {
    /// What a graph declares, inside another one.
    pub(super) fn inside(outer: &'a Known<'a>, graph: &GraphProto) -> Self {
        let mut known = Known {
            outer: Some(outer),
            ..Known::default()
        };
        for info in graph
            .input
            .iter()
            .chain(&graph.value_info)
            .chain(&graph.output)
        {
            known.add_info(info);
        }
        for tensor in &graph.initializer {
            known.add_tensor(tensor.name.as_deref().unwrap_or_default(), tensor);
        }
        known
    }

    fn add_info(&mut self, info: &ValueInfoProto) {
        let name = info.name.clone().unwrap_or_default();
        let Some(TypeValue::TensorType(tensor)) = info
            .r#type
            .as_ref()
            .and_then(|r#type| r#type.value.as_ref())
        else {
            return;
        };
        if let Some(number) = tensor.elem_type.filter(|&number| number != 0) {
            self.dtypes.insert(name.clone(), number);
        }
        if let Some(shape) = &tensor.shape {
            let extents = shape.dim.iter().map(|dim| match dim.value {
                Some(DimensionValue::DimValue(extent)) => Some(extent),
                _ => None,
            });
            self.shapes.insert(name, extents.collect());
        }
    }

    /// Adds an initializer.
    pub(super) fn add_tensor(&mut self, name: &str, tensor: &TensorProto) {
        self.dtypes
            .insert(name.into(), tensor.data_type.unwrap_or_default());
        self.shapes
            .insert(name.into(), tensor.dims.iter().copied().map(Some).collect());
        // Shapes, axes and scales are short; weights are not worth a copy.
        let count = tensor
            .dims
            .iter()
            .try_fold(1i64, |count, &extent| count.checked_mul(extent));
        if count.is_some_and(|count| count <= 16)
            && let Ok(tensor) = to_tensor(tensor)
        {
            self.lists.insert(name.into(), tensor.to_f64());
        }
    }

    /// The type of a value's elements.
    pub(super) fn dtype(&self, name: &str) -> Option<DType> {
        self.dtype_number(name).and_then(DType::from_onnx)
    }

    fn dtype_number(&self, name: &str) -> Option<i32> {
        let outer = || self.outer.and_then(|outer| outer.dtype_number(name));
        self.dtypes.get(name).copied().or_else(outer)
    }

    /// The extents of a value.
    pub(super) fn shape(&self, name: &str) -> Option<&Extents> {
        let outer = || self.outer.and_then(|outer| outer.shape(name));
        self.shapes.get(name).or_else(outer)
    }

    /// The elements of a short initializer.
    pub(super) fn list(&self, name: &str) -> Option<&[f64]> {
        let outer = || self.outer.and_then(|outer| outer.list(name));
        self.lists.get(name).map(Vec::as_slice).or_else(outer)
    }

    /// Takes note of what the results of a standard operator are, where its operands show it.
    pub(super) fn infer(&mut self, node: &NodeProto) {
        let Some(output) = node.output.first().filter(|name| !name.is_empty()) else {
            return;
        };
        let first = node.input.first().map(String::as_str).unwrap_or_default();
        if self.shape(output).is_none()
            && let Some(shape) = self.infer_shape(node, first)
        {
            self.shapes.insert(output.clone(), shape);
        }
        let dtype = match super::op_type(node) {
            "Cast" => node.int("to").and_then(|number| number.try_into().ok()),
            operator if KEEPS_TYPE.contains(&operator) || KEEPS_SHAPE.contains(&operator) => {
                self.dtype_number(first)
            }
            _ => None,
        };
        if let Some(number) = dtype.filter(|_| self.dtype_number(output).is_none()) {
            self.dtypes.insert(output.clone(), number);
        }
    }

    fn infer_shape(&self, node: &NodeProto, first: &str) -> Option<Extents> {
        let rank = |name: &str| self.shape(name).map(Vec::len);
        let unknown = |rank: usize| Some(vec![None; rank]);
        match super::op_type(node) {
            "Cast" => self.shape(first).cloned(),
            operator if KEEPS_SHAPE.contains(&operator) => self.shape(first).cloned(),
            "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" | "LpPool" | "Pad" | "Slice"
            | "Concat" | "Upsample" | "Resize" | "Transpose" => unknown(rank(first)?),
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                let shape = self.shape(first)?.iter().enumerate();
                Some(
                    shape
                        .map(|(axis, &extent)| if axis < 2 { extent } else { Some(1) })
                        .collect(),
                )
            }
            "Gemm" | "Flatten" => unknown(2),
            "Reshape" => unknown(self.list(node.input.get(1)?)?.len()),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Sum" | "Mean" | "Max" | "Min" => {
                let ranks: Option<Vec<usize>> = node.input.iter().map(|name| rank(name)).collect();
                unknown(ranks?.into_iter().max()?)
            }
            "MatMul" => {
                let (a, b) = (rank(first)?, rank(node.input.get(1)?)?);
                if a < 2 || b < 2 {
                    None
                } else {
                    unknown(a.max(b))
                }
            }
            _ => None,
        }
    }
}

/// Operators with one result that has the type and the shape of the first operand.
const KEEPS_SHAPE: &[&str] = &[
    "Abs",
    "BatchNormalization",
    "Celu",
    "Ceil",
    "Clip",
    "CumSum",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
    "ThresholdedRelu",
];

/// Operators whose result has the type of the first operand, if not its shape.
const KEEPS_TYPE: &[&str] = &[
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "Div",
    "Expand",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mul",
    "PRelu",
    "Pad",
    "Pow",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Upsample",
];
