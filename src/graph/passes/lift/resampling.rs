//! `Upsample` and the older forms of `Resize`.

use super::forms::take;
use super::{LiftError, Scope};
use crate::graph::{Attribute, Attributes};
use crate::onnx::proto::NodeProto;
use crate::tensor::Tensor;
use ndarray::{Array1, arr0};

/// The scales were an attribute before opset 9; from opset 10 on this is `Resize`.
pub(super) fn upsample(scope: &mut Scope<'_>, mut node: NodeProto) -> Result<(), LiftError> {
    if scope.opset < 9 {
        let Some(scales) =
            take(&mut node, "scales").filter(|scales| scales.ref_attr_name.is_none())
        else {
            return Err(scope.refuse(&node, "its scales are no numbers"));
        };
        let scales = Tensor::F32(Array1::from(scales.floats).into_dyn());
        let scales = scope.constant(&node, "scales", &scales);
        node.input.truncate(1);
        node.input.push(scales);
    }
    resize_10(scope, node);
    Ok(())
}

/// Output position i of `Upsample` and of opset 10's `Resize` is input position i / scale, as `asymmetric` says since.
/// `nearest` rounds that down where an axis grows, and up where it shrinks.
pub(super) fn resize_10(scope: &mut Scope<'_>, mut node: NodeProto) {
    node.op_type = Some("Resize".into());
    let nearest = node.string("mode").is_none_or(|mode| mode == "nearest");
    let asymmetric = Attribute::String("asymmetric").to_proto("coordinate_transformation_mode");
    node.attribute.push(asymmetric);
    let (x, scales) = match node.input.as_slice() {
        [x, scales, ..] => (x.clone(), scales.clone()),
        _ => {
            scope.nodes.push(node);
            return;
        }
    };
    let list = scope.known.list(&scales);
    let grows = list.is_some_and(|list| list.iter().all(|&scale| scale >= 1.0));
    let shrinks = list.is_some_and(|list| list.iter().all(|&scale| scale <= 1.0));
    let rounding = |mode| Attribute::String(mode).to_proto("nearest_mode");
    node.input = vec![x.clone(), String::new(), scales.clone()];
    if !nearest {
        scope.nodes.push(node);
        return;
    }
    if grows || shrinks {
        node.attribute
            .push(rounding(if grows { "floor" } else { "ceil" }));
        scope.nodes.push(node);
        return;
    }
    // Some axes grow and others shrink, or the scales are computed: each way on its own.
    let one = scope.constant(&node, "one", &Tensor::F32(arr0(1.0).into_dyn()));
    let up = scope.add(&node, "Max", &[&scales, &one], Vec::new());
    let down = scope.add(&node, "Min", &[&scales, &one], Vec::new());
    let mut attributes = node.attribute.clone();
    attributes.push(rounding("floor"));
    let grown = scope.add(&node, "Resize", &[&x, "", &up], attributes);
    node.input = vec![grown, String::new(), down];
    node.attribute.push(rounding("ceil"));
    scope.nodes.push(node);
}

/// Before opset 13 an operand that was not wanted was empty instead of left out.
pub(super) fn resize_11(scope: &mut Scope<'_>, mut node: NodeProto) {
    let known = &scope.known;
    for operand in node.input.iter_mut().skip(1) {
        if known
            .shape(operand)
            .is_some_and(|shape| shape.contains(&Some(0)))
        {
            operand.clear();
        }
    }
    scope.nodes.push(node);
}
