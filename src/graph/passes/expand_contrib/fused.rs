//! Convolutions and products with an activation, a transposition or a factor fused into them.

use super::Fused;
use crate::graph::{Attribute, Attributes, Expr, Node};

type Results<'g> = Result<Vec<Option<Expr<'g>>>, String>;

/// The activation, with the parameters in the order of its own attributes.
fn activate<'g>(x: Expr<'g>, name: &str, parameters: &[f32]) -> Result<Expr<'g>, String> {
    let parameter = |position: usize, default: f32| {
        f64::from(parameters.get(position).copied().unwrap_or(default))
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "they come from single precision"
    )]
    let attribute =
        |position: usize, default: f32| Attribute::Float(parameter(position, default) as f32);
    let with =
        |attributes: &[(&str, Attribute)]| x.builder().node(name, &[x], attributes, x.fact());
    Ok(match name {
        "" => x,
        "Relu" | "Tanh" | "Sigmoid" | "HardSwish" | "Softplus" | "Softsign" => x.unary(name),
        "LeakyRelu" => with(&[("alpha", attribute(0, 0.01))]),
        "Elu" => with(&[("alpha", attribute(0, 1.0))]),
        "HardSigmoid" => with(&[("alpha", attribute(0, 0.2)), ("beta", attribute(1, 0.5))]),
        "Clip" => x.max(parameter(0, f32::MIN)).min(parameter(1, f32::MAX)),
        other => return Err(format!("its activation {other} is not covered")),
    })
}

/// The node as the standard operator, without the attributes that are not that operator's.
fn plain(n: &Fused<'_>, op_type: &str) -> Node {
    let mut node = n.node.clone();
    node.proto.op_type = Some(op_type.into());
    node.proto.domain = None;
    node.proto.attribute.retain(|attribute| {
        !attribute
            .name
            .as_deref()
            .unwrap_or_default()
            .starts_with("activation")
    });
    node
}

fn result_fact(n: &Fused<'_>) -> Result<crate::graph::Fact, String> {
    let output = n.node.output(0).ok_or("its result is not in use")?;
    let fact = n.builder.with_graph(|graph| graph.fact(output).cloned());
    let fact = fact.ok_or("the shape of its result depends on the data")?;
    Ok(crate::graph::Fact::new(fact.dtype, fact.shape))
}

/// y = activation(conv(x, w, b) + z).
pub(super) fn conv<'g>(n: &Fused<'g>) -> Results<'g> {
    let operands: Vec<_> = (0..3).map(|position| n.optional(position)).collect();
    let operands = if operands[2].is_some() {
        &operands[..]
    } else {
        &operands[..2]
    };
    let y = n
        .builder
        .repeat(&plain(n, "Conv"), operands, vec![result_fact(n)?])[0];
    let y = n.optional(3).map_or(y, |z| y + z);
    let parameters = n.floats("activation_params").unwrap_or_default();
    Ok(vec![Some(activate(
        y,
        n.string("activation").unwrap_or_default(),
        parameters,
    )?)])
}

/// y = activation(α A B + β C).
pub(super) fn gemm<'g>(n: &Fused<'g>) -> Results<'g> {
    let operands: Vec<_> = (0..3).map(|position| n.optional(position)).collect();
    let operands = if operands[2].is_some() {
        &operands[..]
    } else {
        &operands[..2]
    };
    let y = n
        .builder
        .repeat(&plain(n, "Gemm"), operands, vec![result_fact(n)?])[0];
    let names = ["activation_alpha", "activation_beta", "activation_gamma"];
    let parameters: Vec<f32> = names.iter().map_while(|name| n.float(name)).collect();
    Ok(vec![Some(activate(
        y,
        n.string("activation").unwrap_or_default(),
        &parameters,
    )?)])
}

/// y = α A′ B′, with the last two axes exchanged, or the rows in front of the batch axes.
pub(super) fn matmul<'g>(n: &Fused<'g>) -> Results<'g> {
    let operand = |position: usize, transposed: &str, rows_in_front: &str| {
        let value = n.x(position)?;
        let rank = value.rank();
        let (transposed, rows_in_front) = (n.is_set(transposed), n.is_set(rows_in_front));
        if rank < 2 {
            return Err("an operand has no rows and columns".to_owned());
        }
        let mut order: Vec<usize> = (0..rank).collect();
        if rows_in_front {
            order.remove(0);
            order.insert(rank - 2, 0);
        }
        if transposed {
            order.swap(rank - 2, rank - 1);
        }
        Ok(value.transpose(&order))
    };
    let a = operand(0, "transA", "transBatchA")?;
    let b = operand(1, "transB", "transBatchB")?;
    let alpha = f64::from(n.float("alpha").unwrap_or(1.0));
    let y = a.matmul(b);
    Ok(vec![Some(if alpha == 1.0 { y } else { y * alpha })])
}
