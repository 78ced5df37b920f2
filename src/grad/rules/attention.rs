//! Parts of attention that are operators of their own.
//!
//! Attention itself is taken apart into products and a softmax before differentiation.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attributes, Dim, Expr, Fact};
use crate::tensor::DType;

pub(super) const RULES: &[Rule] = &[
    // y = x with pairs of entries rotated by an angle ⇒ x̄ = ȳ rotated back
    Rule::new("RotaryEmbedding", rotary_embedding),
    // y = the cache with the update written into it ⇒ the cache's cotangent is ȳ with zeros written into it, the update's is ȳ at its places
    Rule::new("TensorScatter", tensor_scatter),
];

fn rotary_embedding<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    if n.wants(1) || n.wants(2) {
        return Err("its angles depend on the differentiated value, and have to be given".into());
    }
    let operands = [Some(n.dy()), Some(n.x(1)), Some(-n.x(2)), n.optional_x(3)];
    let operands = &operands[..if n.optional_x(3).is_some() { 4 } else { 3 }];
    let turned = n.builder().repeat(n.node(), operands, vec![n.dy().fact()]);
    n.only(turned[0])
}

fn tensor_scatter<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (cache, update, dy) = (n.x(0), n.x(1), n.dy());
    let axis = n.axis(n.int("axis").unwrap_or(-2), cache.rank())?;
    let emptied = || {
        let operands = [Some(dy), Some(update.zeros_like()), n.optional_x(2)];
        let operands = &operands[..if n.optional_x(2).is_some() { 3 } else { 2 }];
        n.builder().repeat(n.node(), operands, vec![dy.fact()])[0]
    };
    let (length, written) = (
        n.fixed(cache.shape()[axis])?,
        n.fixed(update.shape()[axis])?,
    );
    let circular = n.string("mode") == Some("circular");
    let at_places = || {
        let steps: Vec<i64> = (0..written).collect();
        let mut along = vec![Dim::ONE; cache.rank()];
        along[axis] = Dim::fixed(written);
        let steps = n.builder().ints(&steps).reshape(&along);
        let mut rows = vec![Dim::ONE; cache.rank()];
        rows[0] = cache.shape()[0];
        let places = match n.optional_x(2) {
            Some(first) => first.reshape(&rows) + steps,
            None => steps,
        };
        let places = if circular {
            wrapped(places, length)
        } else {
            places
        };
        dy.gather_elements(places.expand(&update.shape()), axis)
    };
    n.each(&[&emptied, &at_places])
}

/// Indices counted around an axis.
fn wrapped(places: Expr<'_>, length: i64) -> Expr<'_> {
    let builder = places.builder();
    let length = builder.ints(&[length]);
    builder.node(
        "Mod",
        &[places, length],
        &[],
        Fact::new(DType::I64, places.shape()),
    )
}
