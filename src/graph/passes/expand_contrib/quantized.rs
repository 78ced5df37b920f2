//! Quantised operators in floats: integers are kept as whole floats, rounded and clipped, so that a gradient can pass.

use super::Fused;
use crate::graph::{Attribute, Attributes, Builder, Dim, Expr, Fact, Node};
use crate::onnx::proto::NodeProto;
use crate::tensor::DType;

type Results<'g> = Result<Vec<Option<Expr<'g>>>, String>;

/// Operators that take whole floats as well as integers, and whose result is of the type of their operands.
const INDIFFERENT: &[&str] = &[
    "Clip",
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Max",
    "MaxPool",
    "Min",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// The numbers of an integer type.
fn range(dtype: DType) -> Result<(f64, f64), String> {
    Ok(match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        other => return Err(format!("it quantises to {other}, which is not covered")),
    })
}

/// A scale or a zero point in single precision, along an axis of what has this rank.
pub(super) fn along(value: Expr<'_>, axis: usize, rank: usize) -> Result<Expr<'_>, String> {
    let value = value.cast(DType::F32);
    match value.shape().as_slice() {
        [] => Ok(value),
        [Dim::ONE] => Ok(value.reshape(&[])),
        [extent] if axis < rank => {
            let mut shape = vec![Dim::ONE; rank];
            shape[axis] = *extent;
            Ok(value.reshape(&shape))
        }
        _ => Err("its scale is neither one number nor one for each index of an axis".into()),
    }
}

/// A number for each block of an axis as one for each index, stretched to a shape.
fn by_block<'g>(
    value: Expr<'g>,
    axis: usize,
    block: i64,
    shape: &[Dim],
) -> Result<Expr<'g>, String> {
    let mut stretched = value.shape();
    if stretched.len() != shape.len() || axis >= shape.len() {
        return Err("its scales by block are not of the rank of what they scale".into());
    }
    let mut flat = stretched.clone();
    stretched.insert(axis + 1, Dim::fixed(block));
    flat[axis] = flat[axis].times(block);
    let value = value.cast(DType::F32).unsqueeze(&[axis + 1]);
    let value = value.expand(&stretched).reshape(&flat);
    Ok(value.slice(axis, 0, shape[axis]))
}

/// A scale and a zero point.
#[derive(Clone, Copy)]
pub(super) struct Grid<'g> {
    pub(super) scale: Expr<'g>,
    pub(super) zero: Option<Expr<'g>>,
    pub(super) axis: usize,
    /// How many neighbours along the axis share a scale, where that is not all or one.
    pub(super) block: Option<i64>,
}

impl<'g> Grid<'g> {
    /// From two neighbouring operands.
    pub(super) fn at(n: &Fused<'g>, scale: usize, axis: usize) -> Result<Self, String> {
        Ok(Grid {
            scale: n.x(scale)?,
            zero: n.optional(scale + 1),
            axis,
            block: n.int("block_size").filter(|&block| block > 0),
        })
    }

    /// The scale or the zero point, to go with a shape.
    fn along(self, value: Expr<'g>, shape: &[Dim]) -> Result<Expr<'g>, String> {
        match self.block {
            Some(block) => by_block(value, self.axis, block, shape),
            None => along(value, self.axis, shape.len()),
        }
    }

    /// (q − zero) · scale.
    pub(super) fn dequantize(self, q: Expr<'g>) -> Result<Expr<'g>, String> {
        let shape = q.shape();
        let scale = self.along(self.scale, &shape)?;
        let q = q.cast(DType::F32);
        let q = match self.zero {
            Some(zero) => q - self.along(zero, &shape)?,
            None => q,
        };
        Ok(q * scale)
    }

    /// round(clip(x / scale)) + zero, in the numbers of a type.
    ///
    /// Clipped is what would round to a number beyond the range, and no more: a gradient passes wherever the rounded value is in the
    /// range, the ends included.
    fn quantize(self, x: Expr<'g>, dtype: DType) -> Result<Expr<'g>, String> {
        let (low, high) = range(dtype)?;
        // Just short of a half, so that rounding does not leave the range; as near as float32 can be there.
        let almost_half = if high - low > 255.0 {
            0.5 - 2f64.powi(-7)
        } else {
            0.5 - 2f64.powi(-14)
        };
        let shape = x.shape();
        let x = x.cast(DType::F32);
        let (low, high) = (low - almost_half, high + almost_half);
        let scaled = x / self.along(self.scale, &shape)?;
        let Some(zero) = self.zero else {
            return Ok(scaled.max(low).min(high).unary("Round"));
        };
        let zero = self.along(zero, &shape)?;
        let end = |bound| zero.builder().scalar(DType::F32, bound) - zero;
        Ok(scaled.max(end(low)).min(end(high)).unary("Round") + zero)
    }

    /// To the type of the zero point; unsigned bytes without one.
    pub(super) fn quantize_like_zero(self, x: Expr<'g>) -> Result<Expr<'g>, String> {
        self.quantize(x, self.zero.map_or(DType::U8, Expr::dtype))
    }
}

/// The attribute `axis`, counted from the front.
pub(super) fn axis_or(n: &Fused<'_>, default: i64, rank: usize) -> Result<usize, String> {
    let axis = n.int("axis").unwrap_or(default);
    let counted = if axis < 0 {
        axis + i64::try_from(rank).unwrap_or_default()
    } else {
        axis
    };
    let found = usize::try_from(counted).ok();
    found
        .filter(|&axis| axis < rank.max(2))
        .ok_or_else(|| format!("its axis {axis} is none of its operand's"))
}

/// y = clip(round(x / scale) + zero).
pub(super) fn quantize<'g>(n: &Fused<'g>) -> Results<'g> {
    let x = n.x(0)?;
    let grid = Grid::at(n, 1, axis_or(n, 1, x.rank())?)?;
    let asked = n.int("output_dtype").filter(|&number| number != 0);
    let dtype = match (grid.zero, asked) {
        (Some(zero), _) => zero.dtype(),
        (None, None) => DType::U8,
        (None, Some(number)) => i32::try_from(number)
            .ok()
            .and_then(DType::from_onnx)
            .ok_or("it quantises to a type that is not covered")?,
    };
    Ok(vec![Some(grid.quantize(x, dtype)?)])
}

/// y = (q − zero) · scale.
pub(super) fn dequantize<'g>(n: &Fused<'g>) -> Results<'g> {
    let q = n.x(0)?;
    let grid = Grid::at(n, 1, axis_or(n, 1, q.rank())?)?;
    Ok(vec![Some(grid.dequantize(q)?.cast(grid.scale.dtype()))])
}

/// Scale and zero point are those that the operator itself finds, taken as they are; its first result is computed anew.
pub(super) fn dynamic<'g>(n: &Fused<'g>) -> Results<'g> {
    let x = n.x(0)?;
    let scalar = |dtype| Fact::new(dtype, Vec::new());
    let facts = vec![
        Fact::new(DType::U8, x.shape()),
        scalar(DType::F32),
        scalar(DType::U8),
    ];
    let found = n.builder.repeat(&n.node, &[Some(x)], facts);
    let (scale, zero) = (found[1], found[2]);
    let grid = Grid {
        scale,
        zero: Some(zero),
        axis: 0,
        block: None,
    };
    Ok(vec![
        Some(grid.quantize_like_zero(x)?),
        Some(scale),
        Some(zero),
    ])
}

/// An operator of floats with this node's attributes.
fn float<'g>(n: &Fused<'g>, op_type: &str, operands: &[Expr<'g>]) -> Result<Expr<'g>, String> {
    n.unset(&["channels_last"])?;
    let output = n.node.output(0).ok_or("its result is not in use")?;
    let fact = n.builder.with_graph(|graph| graph.fact(output).cloned());
    let shape = fact
        .ok_or("the shape of its result depends on the data")?
        .shape;
    let mut node = n.node.clone();
    node.proto.op_type = Some(op_type.into());
    node.proto.domain = None;
    node.proto
        .attribute
        .retain(|attribute| attribute.name.as_deref() != Some("channels_last"));
    let operands: Vec<_> = operands.iter().copied().map(Some).collect();
    Ok(n.builder
        .repeat(&node, &operands, vec![Fact::new(DType::F32, shape)])[0])
}

/// q − zero, along an axis.
fn shifted<'g>(n: &Fused<'g>, at: usize, zero: usize, axis: usize) -> Result<Expr<'g>, String> {
    let q = n.x(at)?.cast(DType::F32);
    Ok(match n.optional(zero) {
        Some(zero) => q - along(zero, axis, q.rank())?,
        None => q,
    })
}

/// `conv(x − x_zero, w − w_zero)`.
pub(super) fn conv_integer<'g>(n: &Fused<'g>) -> Results<'g> {
    let operands = [shifted(n, 0, 2, 0)?, shifted(n, 1, 3, 0)?];
    Ok(vec![Some(float(n, "Conv", &operands)?)])
}

/// `(a − a_zero) (b − b_zero)`, with a zero point for each row of a, or for each column of b.
pub(super) fn matmul_integer<'g>(n: &Fused<'g>) -> Results<'g> {
    let row = n.x(0)?.rank().saturating_sub(2);
    let column = n.x(1)?.rank().saturating_sub(1);
    let operands = [shifted(n, 0, 2, row)?, shifted(n, 1, 3, column)?];
    Ok(vec![Some(float(n, "MatMul", &operands)?)])
}

/// conv of the dequantised operands, quantised; the bias is in units of both scales together.
pub(super) fn conv<'g>(n: &Fused<'g>) -> Results<'g> {
    let x = Grid::at(n, 1, 0)?.dequantize(n.x(0)?)?;
    let w = Grid::at(n, 4, 0)?.dequantize(n.x(3)?)?;
    let mut operands = vec![x, w];
    if let Some(bias) = n.optional(8) {
        let scale = along(n.x(1)?, 0, 1)? * along(n.x(4)?, 0, 1)?;
        operands.push(bias.cast(DType::F32) * scale);
    }
    let y = float(n, "Conv", &operands)?;
    Ok(vec![Some(Grid::at(n, 6, 0)?.quantize_like_zero(y)?)])
}

/// The product of the dequantised operands, quantised.
pub(super) fn matmul<'g>(n: &Fused<'g>) -> Results<'g> {
    let (a, b) = (n.x(0)?, n.x(3)?);
    let a = Grid::at(n, 1, a.rank().saturating_sub(2))?.dequantize(a)?;
    let b = Grid::at(n, 4, b.rank().saturating_sub(1))?.dequantize(b)?;
    let y = float(n, "MatMul", &[a, b])?;
    Ok(vec![Some(Grid::at(n, 6, 0)?.quantize_like_zero(y)?)])
}

/// α A′ B′ + C of the dequantised operands, quantised where an output scale is given; C is in units of α and both scales together.
pub(super) fn gemm<'g>(n: &Fused<'g>) -> Results<'g> {
    let (a, b) = (n.x(0)?, n.x(3)?);
    let column = if n.is_set("transB") { 0 } else { 1 };
    let a = Grid::at(n, 1, 0)?.dequantize(a)?;
    let b = Grid::at(n, 4, column)?.dequantize(b)?;
    let mut y = float(n, "Gemm", &[a, b])?;
    if let Some(bias) = n.optional(6) {
        let alpha = f64::from(n.float("alpha").unwrap_or(1.0));
        let scale = along(n.x(1)?, 0, 1)? * along(n.x(4)?, 0, 1)?;
        y = y + bias.cast(DType::F32) * (scale * alpha);
    }
    if n.optional(7).is_none() {
        return Ok(vec![Some(y)]);
    }
    Ok(vec![Some(Grid::at(n, 7, 0)?.quantize_like_zero(y)?)])
}

/// The sum of the dequantised operands, quantised.
pub(super) fn add<'g>(n: &Fused<'g>) -> Results<'g> {
    pairwise(n, |a, b| a + b)
}

/// The product, element by element, of the dequantised operands, quantised.
pub(super) fn mul<'g>(n: &Fused<'g>) -> Results<'g> {
    pairwise(n, |a, b| a * b)
}

fn pairwise<'g>(n: &Fused<'g>, apply: fn(Expr<'g>, Expr<'g>) -> Expr<'g>) -> Results<'g> {
    let a = Grid::at(n, 1, 0)?.dequantize(n.x(0)?)?;
    let b = Grid::at(n, 4, 0)?.dequantize(n.x(3)?)?;
    let y = apply(a, b);
    Ok(vec![Some(Grid::at(n, 6, 0)?.quantize_like_zero(y)?)])
}

/// An operator of one quantised operand.
fn through<'g>(n: &Fused<'g>, op_type: &str) -> Results<'g> {
    let x = Grid::at(n, 1, 0)?.dequantize(n.x(0)?)?;
    let y = float(n, op_type, &[x])?;
    Ok(vec![Some(Grid::at(n, 3, 0)?.quantize_like_zero(y)?)])
}

pub(super) fn average_pool<'g>(n: &Fused<'g>) -> Results<'g> {
    through(n, "AveragePool")
}

pub(super) fn global_average_pool<'g>(n: &Fused<'g>) -> Results<'g> {
    through(n, "GlobalAveragePool")
}

pub(super) fn leaky_relu<'g>(n: &Fused<'g>) -> Results<'g> {
    through(n, "LeakyRelu")
}

pub(super) fn sigmoid<'g>(n: &Fused<'g>) -> Results<'g> {
    through(n, "Sigmoid")
}

/// Adjusts a node between quantised operators to operands that are whole floats now; `declared` has the types of the file.
pub(super) fn follow(builder: &Builder, node: &mut Node, declared: &[Option<DType>]) {
    let integer = |id: crate::graph::ValueId| {
        let dtype = declared.get(id.index()).copied().flatten();
        dtype.filter(|dtype| !dtype.is_float())
    };
    let floats = |id: crate::graph::ValueId| {
        let now = builder.expr(id).map(Expr::dtype);
        integer(id).filter(|_| now.is_some_and(DType::is_float))
    };
    let Some(dtype) = node.inputs.iter().flatten().find_map(|id| floats(*id)) else {
        return;
    };
    if node.is("Cast") {
        return;
    }
    let indifferent = node.domain().is_empty() && INDIFFERENT.contains(&node.op_type());
    let to = if indifferent { DType::F32 } else { dtype };
    for input in node.inputs.iter_mut().flatten() {
        if integer(*input) == Some(dtype)
            && let Some(operand) = builder.expr(*input)
        {
            *input = operand.cast(to).id();
        }
    }
    if indifferent {
        for output in node.outputs.iter().flatten() {
            if integer(*output) == Some(dtype)
                && let Some(result) = builder.expr(*output)
            {
                let fact = Fact::new(DType::F32, result.shape());
                builder.with_graph_mut(|graph| graph.value_mut(*output).fact = Some(fact));
            }
        }
    }
}

/// Gives outputs that the file has as integers their type back, under their names.
pub(super) fn restore(builder: &Builder, declared: &[Option<DType>]) {
    let outputs: Vec<_> =
        builder.with_graph(|graph| graph.outputs.iter().map(|(id, _)| *id).collect());
    for (position, id) in outputs.into_iter().enumerate() {
        let dtype = declared.get(id.index()).copied().flatten();
        let now = builder.with_graph(|graph| graph.fact(id).cloned());
        let (Some(dtype), Some(fact)) = (dtype, now) else {
            continue;
        };
        if dtype == fact.dtype {
            continue;
        }
        builder.with_graph_mut(|graph| {
            let name = graph.name(id).to_owned();
            let inner = graph.fresh_name(&format!("{name}.float"));
            if !graph.rename(id, &inner) {
                return;
            }
            let Some(restored) = graph.add_named(&name) else {
                return;
            };
            graph.value_mut(restored).fact = Some(Fact::new(dtype, fact.shape));
            graph.outputs[position].0 = restored;
            let proto = NodeProto {
                name: Some(graph.fresh_name("expand/Cast")),
                op_type: Some("Cast".into()),
                attribute: vec![Attribute::Int(dtype.to_onnx().into()).to_proto("to")],
                ..NodeProto::default()
            };
            graph.nodes.push(Node {
                proto,
                inputs: vec![Some(id)],
                outputs: vec![Some(restored)],
            });
        });
    }
}
