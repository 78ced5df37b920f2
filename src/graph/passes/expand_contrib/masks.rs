//! Which keys a query looks at.

use super::fixed;
use super::heads::Mask;
use crate::graph::{Builder, Dim, Expr};
use crate::tensor::{DType, Tensor};

/// Query i looks at the keys up to i + `offset`, and no further back than `window` of them: booleans `[queries, keys]`.
pub(super) fn causal(
    builder: &Builder,
    (queries, keys): (Dim, Dim),
    offset: i64,
    window: Option<i64>,
) -> Result<Mask<'_>, String> {
    let (queries, keys) = (fixed(queries)?, fixed(keys)?);
    let looks_at = |query: i64, key: i64| {
        let last = query + offset;
        key <= last && window.is_none_or(|window| key > last - window)
    };
    let places: Vec<bool> = (0..queries)
        .flat_map(|query| (0..keys).map(move |key| looks_at(query, key)))
        .collect();
    let shape = [queries, keys].map(|extent| usize::try_from(extent).unwrap_or_default());
    let places = Tensor::new(&shape, places).ok_or("it has no queries")?;
    Ok(Mask::Kept(builder.constant(&places)))
}

/// The first keys of each sample, as many as `lengths` `[n]` says: booleans `[n, 1, 1, keys]`.
pub(super) fn first(lengths: Expr<'_>, keys: Dim) -> Result<Expr<'_>, String> {
    let places: Vec<i64> = (0..fixed(keys)?).collect();
    let places = lengths.builder().ints(&places);
    let lengths = lengths.cast(DType::I64);
    Ok(places.lt(lengths.unsqueeze(&[1, 2, 3])))
}

/// A number added wherever `places` does not hold.
pub(super) fn filled<'g>(places: Expr<'g>, value: f64, typed: Expr<'g>) -> Mask<'g> {
    Mask::Added(places.select(0.0, value, typed))
}

/// The mask of keys that ONNX Runtime's own operators take, as booleans: ones `[n, keys]` or `[n, queries, keys]`, or lengths `[n]`.
pub(super) fn keys(mask: Expr<'_>, batch: Dim, keys: Dim) -> Result<Expr<'_>, String> {
    let holds = || mask.gt(mask.builder().scalar(mask.dtype(), 0.0));
    match mask.rank() {
        1 if mask.shape()[0] == batch => first(mask, keys),
        2 => Ok(holds().unsqueeze(&[1, 2])),
        3 => Ok(holds().unsqueeze(&[1])),
        _ => Err("its mask has a form that is not covered".into()),
    }
}
