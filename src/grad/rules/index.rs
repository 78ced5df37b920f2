//! Operators that move elements about by indices: gathering, and scattering as its adjoint.
//!
//! Where indices repeat, cotangents add up.
//! In half precision they are added in single precision, for which every device has the kernel.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attribute, Attributes, Dim, Dims, Expr, Fact};
use crate::tensor::DType;

pub(super) const RULES: &[Rule] = &[
    Rule::new("Gather", gather),
    // y[i] = x[… index[i] …] ⇒ x̄ = Σ over the i that read an entry of ȳ[i].
    Rule::new("GatherElements", |n| {
        let axis = n.axis(n.int("axis").unwrap_or_default(), n.shape().len())?;
        n.only(n.x(0).zeros_like().scatter_add(n.x(1), n.dy(), axis))
    }),
    Rule::new("GatherND", gather_nd),
    Rule::new("ScatterElements", scatter_elements),
    Rule::new("ScatterND", scatter_nd),
    Rule::new("Compress", compress),
    Rule::new("TopK", top_k),
];

// y = x at the indices along an axis ⇒ x̄ = Σ over the places of y that read an entry.
fn gather<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let shape = n.shape();
    let axis = n.axis(n.int("axis").unwrap_or_default(), shape.len())?;
    let count = product(&n.x(1).shape())?;
    let mut along = shape.clone();
    along[axis] = count;
    let dy = n.dy().reshape(&along);
    if let (Some(extent), Some(indices)) = (
        shape[axis].extent(),
        n.constant(1).and_then(|indices| indices.to_i64()),
    ) {
        let wrap = |index: i64| if index < 0 { index + extent } else { index };
        let indices: Vec<i64> = indices.into_iter().map(wrap).collect();
        if let Some(dx) = put_back(dy, &indices, axis, extent) {
            return n.only(dx);
        }
    }
    let zeros = n.x(0).zeros_like();
    let indices = n.x(1).cast(DType::I64);
    if axis == 0 {
        let rows = indices.reshape(&[count, Dim::ONE]);
        return n.only(scatter_nd_add(zeros, rows, dy));
    }
    let mut flat = vec![Dim::ONE; shape.len()];
    flat[axis] = count;
    n.only(zeros.scatter_add(indices.reshape(&flat).expand(&along), dy, axis))
}

/// Entry i of an axis of `dy` at place `indices[i]` of an axis of `extent` entries, zeros elsewhere; `None` where an index repeats.
///
/// Needs no addition, so it is exact in every type and the same in every run on every device.
fn put_back<'g>(dy: Expr<'g>, indices: &[i64], axis: usize, extent: i64) -> Option<Expr<'g>> {
    let rank = dy.rank();
    let mut places = vec![None; usize::try_from(extent).ok()?];
    for (position, &index) in (0i64..).zip(indices) {
        let place = places.get_mut(usize::try_from(index).ok()?)?;
        if place.replace(position).is_some() {
            return None;
        }
    }
    let along = |value: i64| {
        (0..rank)
            .map(|other| if other == axis { value } else { 0 })
            .collect::<Vec<_>>()
    };
    if let (Some(&first), Some(&last)) = (indices.first(), indices.last())
        && indices.windows(2).all(|pair| pair[1] == pair[0] + 1)
    {
        return Some(dy.pad(&along(first), &along(extent - 1 - last)));
    }
    // A row of zeros behind the others serves all the places that nothing read.
    let zeros = i64::try_from(indices.len()).ok()?;
    let complete = places.iter().all(Option::is_some);
    let source = if complete {
        dy
    } else {
        dy.pad(&along(0), &along(1))
    };
    let from: Vec<i64> = places
        .into_iter()
        .map(|place| place.unwrap_or(zeros))
        .collect();
    Some(source.gather(dy.builder().ints(&from), axis))
}

/// The number of elements of a shape.
pub(super) fn product(shape: &[Dim]) -> Result<Dim, String> {
    let (mut product, mut following) = (1, None);
    for dim in shape {
        match (dim.extent(), following) {
            (Some(extent), _) => product *= extent,
            (None, None) => following = Some(*dim),
            (None, Some(_)) => return Err("two axes of its indices follow the batch".into()),
        }
    }
    Ok(following.map_or(Dim::fixed(product), |dim| dim.times(product)))
}

/// `updates` added to the slices of `data` at `indices` (`ScatterND`).
pub(super) fn scatter_nd_add<'g>(data: Expr<'g>, indices: Expr<'g>, updates: Expr<'g>) -> Expr<'g> {
    let dtype = data.dtype();
    if matches!(dtype, DType::F16 | DType::BF16) {
        let [data, updates] = [data, updates].map(|part| part.cast(DType::F32));
        return scatter_nd_add(data, indices, updates).cast(dtype);
    }
    let attributes = [("reduction", Attribute::String("add"))];
    data.builder().node(
        "ScatterND",
        &[data, indices, updates],
        &attributes,
        data.fact(),
    )
}

// y = x at the index vectors ⇒ x̄ = Σ over the places of y that read a slice.
fn gather_nd<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let shape = n.shape();
    let batch_dims = n.axis(n.int("batch_dims").unwrap_or_default(), shape.len())?;
    let indices = n.x(1);
    if batch_dims == 0 {
        return n.only(scatter_nd_add(n.x(0).zeros_like(), indices, n.dy()));
    }
    // The axes that are gathered in step become one, whose index stands in front of each index vector.
    let steps = product(&shape[..batch_dims])?;
    let merged = |shape: &[Dim]| {
        let mut merged = vec![steps];
        merged.extend_from_slice(&shape[batch_dims..]);
        merged
    };
    let indices = indices.reshape(&merged(&indices.shape()));
    let mut one_each = indices.shape();
    let last = one_each.len() - 1;
    one_each[last] = Dim::ONE;
    let mut column = vec![Dim::ONE; one_each.len()];
    column[0] = steps;
    let step = range(n, steps).reshape(&column).expand(&one_each);
    let indices = Expr::concat(&[step, indices], last);
    let zeros = n.builder().full(n.dy().dtype(), &merged(&shape), 0.0);
    let updates = n.dy().reshape(&merged(&n.dy().shape()));
    n.only(scatter_nd_add(zeros, indices, updates).reshape(&shape))
}

/// 0, 1, …, count − 1.
pub(super) fn range<'g>(n: &Vjp<'g>, count: Dim) -> Expr<'g> {
    let scalar = |value: f64| n.builder().scalar(DType::I64, value);
    let limit = n.builder().extents(&[count]).squeeze(&[0]);
    let fact = Fact::new(DType::I64, vec![count]);
    n.builder()
        .node("Range", &[scalar(0.0), limit, scalar(1.0)], &[], fact)
}

/// Whether a scatter adds (`true`) or replaces; other reductions are refused.
fn adds(n: &Vjp<'_>) -> Result<bool, String> {
    match n.string("reduction").unwrap_or("none") {
        "none" => Ok(false),
        "add" => Ok(true),
        other => Err(format!(
            "its reduction `{other}` is not supported, only `none` and `add`"
        )),
    }
}

// y = x with u put in at the indices ⇒ x̄ = ȳ with zeros put in (or ȳ, where u was added), ū = ȳ at the indices.
fn scatter_elements<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let axis = n.axis(n.int("axis").unwrap_or_default(), n.shape().len())?;
    let adds = adds(n)?;
    let emptied = || {
        let attributes = [(
            "axis",
            Attribute::Int(i64::try_from(axis).unwrap_or_default()),
        )];
        let operands = [n.dy(), n.x(1), n.x(2).zeros_like()];
        n.builder()
            .node("ScatterElements", &operands, &attributes, n.dy().fact())
    };
    n.each(&[
        &|| if adds { n.dy() } else { emptied() },
        &|| n.dy(),
        &|| n.dy().gather_elements(n.x(1), axis),
    ])
}

// The same for whole slices.
fn scatter_nd<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let adds = adds(n)?;
    let emptied = || {
        let operands = [n.dy(), n.x(1), n.x(2).zeros_like()];
        n.builder().node("ScatterND", &operands, &[], n.dy().fact())
    };
    let at_indices = || {
        let fact = Fact::new(n.dy().dtype(), n.x(2).shape());
        n.builder().node("GatherND", &[n.dy(), n.x(1)], &[], fact)
    };
    n.each(&[
        &|| if adds { n.dy() } else { emptied() },
        &|| n.dy(),
        &at_indices,
    ])
}

// y = the entries of x whose condition holds ⇒ ȳ back at their places; the condition has to be constant, or the shape of y is not.
fn compress<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let condition = n.constant_ints(1)?.unwrap_or_default();
    let shape = n.shape();
    let (axis, flat): (usize, Dims) = match n.int("axis") {
        Some(axis) => (n.axis(axis, shape.len())?, shape.clone()),
        None => (0, vec![product(&shape)?]),
    };
    let taken = (0i64..).zip(condition).filter(|(_, holds)| *holds != 0);
    let taken: Vec<i64> = taken.map(|(index, _)| index).collect();
    let dx = put_back(n.dy(), &taken, axis, n.fixed(flat[axis])?);
    let dx = dx.ok_or("its condition is longer than the axis")?;
    n.only(dx.reshape(&shape))
}

// y = the k largest (or smallest) entries of x ⇒ ȳ back at their places; among equal entries the one that the forward pass chose has it.
fn top_k<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let axis = n.axis(n.int("axis").unwrap_or(-1), n.shape().len())?;
    let indices = n.node().output(1).map(|_| n.y(1));
    let indices = indices.ok_or("its second result, the indices, has no name")?;
    // No place is taken twice: nothing has to be added.
    let attributes = [(
        "axis",
        Attribute::Int(i64::try_from(axis).unwrap_or_default()),
    )];
    let operands = [n.x(0).zeros_like(), indices, n.dy()];
    n.only(
        n.builder()
            .node("ScatterElements", &operands, &attributes, n.x(0).fact()),
    )
}
