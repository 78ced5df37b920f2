//! What all forms of attention share: y = softmax(scale · q kᵀ, masked) v, head by head.

use super::fixed;
use crate::graph::{Dim, Expr};
use crate::tensor::DType;

/// `[n, length, heads · size]` as `[n, heads, length, size]`.
pub(super) fn split(x: Expr<'_>, heads: i64) -> Result<Expr<'_>, String> {
    let [batch, length, width] = x.shape()[..] else {
        return Err(format!("an operand has {} axes instead of 3", x.rank()));
    };
    let width = fixed(width)?;
    if width % heads != 0 {
        return Err(format!("its width {width} is no multiple of {heads} heads"));
    }
    let apart = x.reshape(&[batch, length, Dim::fixed(heads), Dim::fixed(width / heads)]);
    Ok(apart.transpose(&[0, 2, 1, 3]))
}

/// `[n, heads, length, size]` as `[n, length, heads · size]`.
pub(super) fn merge(x: Expr<'_>) -> Result<Expr<'_>, String> {
    let [batch, heads, length, size] = x.shape()[..] else {
        return Err(format!("an operand has {} axes instead of 4", x.rank()));
    };
    let width = Dim::fixed(fixed(heads)? * fixed(size)?);
    Ok(x.transpose(&[0, 2, 1, 3]).reshape(&[batch, length, width]))
}

/// What is done to the scores before the softmax.
#[derive(Clone, Copy)]
pub(super) enum Mask<'g> {
    /// Numbers are added.
    Added(Expr<'g>),
    /// Only the places that hold are looked at.
    Kept(Expr<'g>),
}

/// The numbers that go with attention.
pub(super) struct Attention<'g> {
    pub(super) scale: f64,
    /// The bound that scores are brought under by a tanh; 0 for none.
    pub(super) softcap: f64,
    pub(super) masks: Vec<Mask<'g>>,
    /// What a query gives that may look at no key at all.
    pub(super) without_keys: WithoutKeys,
}

/// What a query gives that may look at no key at all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WithoutKeys {
    /// Zeros, as the standard has it.
    Zeros,
    /// The mean of all values; or there is no such query.
    Mean,
}

impl<'g> Attention<'g> {
    /// Of queries `[n, heads, s, d]`, keys `[n, groups, t, d]` and values `[n, groups, t, e]`, each group for several heads.
    pub(super) fn apply(
        &self,
        q: Expr<'g>,
        k: Expr<'g>,
        v: Expr<'g>,
    ) -> Result<Attended<'g>, String> {
        let heads = fixed(q.shape()[1])?;
        let (k, v) = (for_heads(k, heads)?, for_heads(v, heads)?);
        let products = (q * self.scale).matmul(k.transpose_last());
        let mut capped = products;
        if self.softcap > 0.0 {
            capped = (products / self.softcap).unary("Tanh") * self.softcap;
        }
        let mut masked = capped;
        for mask in &self.masks {
            masked = match mask {
                Mask::Added(numbers) => masked + numbers.cast_like(masked),
                Mask::Kept(places) => places.select(masked, lowest(masked.dtype()), masked),
            };
        }
        let mut weights = masked.softmax(3);
        if self.without_keys == WithoutKeys::Zeros {
            weights = self.without_hidden_queries(weights);
        }
        Ok(Attended {
            values: weights.matmul(v),
            scores: [products, capped, masked, weights],
        })
    }

    /// The weights with zeros for queries that may look at no key.
    fn without_hidden_queries(&self, weights: Expr<'g>) -> Expr<'g> {
        let kept = self.masks.iter().filter_map(|mask| match mask {
            Mask::Kept(places) => Some(*places),
            Mask::Added(_) => None,
        });
        let Some(places) = kept.reduce(Expr::and) else {
            return weights;
        };
        let any = places.cast(DType::F32);
        let any = any.reduce("ReduceMax", &[places.rank() - 1], true);
        weights.where_(any.gt(0.5))
    }
}

/// What attention gives.
pub(super) struct Attended<'g> {
    /// `[n, heads, s, e]`.
    pub(super) values: Expr<'g>,
    /// The scores `[n, heads, s, t]` on the way, in the order in which the standard counts them: the products of queries and keys, those under
    /// the cap, those with the masks, the weights.
    pub(super) scores: [Expr<'g>; 4],
}

/// The lowest number of a type, which a softmax takes for nothing.
fn lowest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => half::f16::MIN.to_f64(),
        DType::F64 => f64::MIN,
        _ => f32::MIN.into(),
    }
}

/// Each group of keys or values once for every head that uses it.
fn for_heads(x: Expr<'_>, heads: i64) -> Result<Expr<'_>, String> {
    let [batch, groups, length, size] = x.shape()[..] else {
        return Err(format!("an operand has {} axes instead of 4", x.rank()));
    };
    let groups_count = fixed(groups)?.max(1);
    if groups_count == heads {
        return Ok(x);
    }
    if heads % groups_count != 0 {
        return Err(format!(
            "its {heads} heads do not share {groups_count} groups evenly"
        ));
    }
    let times = Dim::fixed(heads / groups_count);
    let repeated = x
        .unsqueeze(&[2])
        .expand(&[batch, groups, times, length, size]);
    Ok(repeated.reshape(&[batch, Dim::fixed(heads), length, size]))
}
