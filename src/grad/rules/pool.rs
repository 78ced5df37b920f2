//! Pools over windows and over all positions.

use super::index;
use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::grad::window::Window;
use crate::graph::{Attributes, Dim, Expr, Fact};
use crate::tensor::{DType, Tensor};
use ndarray::{ArrayD, Dimension, IxDyn};

pub(super) const RULES: &[Rule] = &[
    // y_p = max over t of x_{p,t} ⇒ x̄ += ȳ_p at the first maximum of each window in row-major order, as PyTorch.
    Rule::new("MaxPool", max_pool),
    // y_p = Σ_t x_{p,t} / count_p ⇒ x̄_{p,t} += ȳ_p / count_p
    Rule::new("AveragePool", average_pool),
    // y_p = (Σ_t |x_{p,t}|^q)^{1/q} ⇒ x̄_{p,t} += |x|^{q−1} sign(x) · ȳ_p y_p^{1−q}; 0 where y_p = 0, as PyTorch's norm.
    Rule::new("LpPool", lp_pool),
    // y = max x ⇒ x̄ = ȳ at the first maximum, as PyTorch's adaptive pool.
    Rule::new("GlobalMaxPool", |n| {
        let flat = Flat::of(n)?;
        let positions: Vec<i64> = (0..flat.positions).collect();
        let first = flat.x.arg_max(2).equal(n.builder().ints(&positions));
        n.only(flat.dy.where_(first).reshape_like(n.x(0)))
    }),
    // y = mean x ⇒ x̄ = ȳ / count
    Rule::new("GlobalAveragePool", |n| {
        let flat = Flat::of(n)?;
        #[expect(clippy::cast_precision_loss, reason = "no axis is that long")]
        let count = flat.positions as f64;
        n.only((n.dy() / count).expand(&n.shape()))
    }),
    // y = (Σ |x|^q)^{1/q} ⇒ x̄ = |x|^{q−1} sign(x) · ȳ y^{1−q}; 0 where y = 0.
    Rule::new("GlobalLpPool", |n| {
        let power = power(n)?;
        n.only(slope(n.x(0), power) * share(n.dy(), n.y(0), power))
    }),
    // y = x at its indices, 0 elsewhere ⇒ x̄ = ȳ at the indices; where several entries go to one place, to the one that stands there.
    // PyTorch gives it to all of them, which is not the gradient of what is computed.
    Rule::new("MaxUnpool", max_unpool),
];

/// The operands of a global pool with all positions in one axis: x as `[n, c, positions]`, ȳ as `[n, c, 1]`.
struct Flat<'g> {
    x: Expr<'g>,
    dy: Expr<'g>,
    positions: i64,
}

impl<'g> Flat<'g> {
    fn of(n: &Vjp<'g>) -> Result<Self, String> {
        let shape = n.shape();
        let (lead, spatial) = split(&shape)?;
        let positions = product(n, spatial)?;
        let with = |last: i64| [lead[0], lead[1], Dim::fixed(last)];
        Ok(Flat {
            x: n.x(0).reshape(&with(positions)),
            dy: n.dy().reshape(&with(1)),
            positions,
        })
    }
}

/// A shape as samples and channels, and the spatial rest.
fn split(shape: &[Dim]) -> Result<(&[Dim; 2], &[Dim]), String> {
    shape
        .split_first_chunk()
        .ok_or_else(|| "its input has no axes for samples and channels".to_owned())
}

/// The product of extents that have to be fixed.
fn product(n: &Vjp<'_>, extents: &[Dim]) -> Result<i64, String> {
    extents.iter().map(|&dim| n.fixed(dim)).product()
}

fn max_unpool<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, y, dy) = (n.x(0), n.y(0), n.dy());
    // Indices count over the whole tensor, samples and channels included.
    let (from, to) = (index::product(&x.shape())?, index::product(&y.shape())?);
    let indices = n.x(1).reshape(&[from]);
    let entries = index::range(n, from);
    let nobody = n.builder().full(DType::I64, &[to], -1.0);
    let fact = nobody.fact();
    let last = n
        .builder()
        .node("ScatterElements", &[nobody, indices, entries], &[], fact);
    let stands = last.gather(indices, 0).equal(entries);
    let dx = dy.reshape(&[to]).gather(indices, 0).where_(stands);
    n.only(dx.reshape_like(x))
}

fn max_pool<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let Some(dy) = n.optional_dy(0) else {
        return Ok(Vec::new());
    };
    let (x, y) = (n.x(0), n.y(0));
    let window = pool_window(n)?;
    if let Some(axis) = window
        .0
        .iter()
        .find(|axis| axis.coverage(false).contains(&0))
    {
        return Err(format!(
            "a window lies wholly in its padding (extent {}, kernel {}, dilation {}): it has no maximum",
            axis.input, axis.kernel, axis.dilation
        ));
    }
    let row_major = n.int("storage_order").unwrap_or(0) == 0;
    let indices = match n.outputs.get(1).copied().flatten().filter(|_| row_major) {
        Some(indices) => indices,
        None => {
            let mut node = n.node().clone();
            let attributes = &mut node.proto.attribute;
            attributes.retain(|attribute| attribute.name.as_deref() != Some("storage_order"));
            let facts = vec![y.fact(), Fact::new(DType::I64, y.shape())];
            n.builder().repeat(&node, &[Some(x)], facts)[1]
        }
    };
    // Indices count over the whole tensor, samples and channels included.
    let whole = |shape: &[Dim]| -> Result<[Dim; 1], String> {
        let (lead, spatial) = split(shape)?;
        Ok([lead[0].times(n.fixed(lead[1])? * product(n, spatial)?)])
    };
    let (inputs, outputs) = (whole(&x.shape())?, whole(&y.shape())?);
    let zeros = n.builder().full(dy.dtype(), &inputs, 0.0);
    let sum = zeros.scatter_add(indices.reshape(&outputs), dy.reshape(&outputs), 0);
    n.only(sum.reshape_like(x))
}

fn average_pool<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let window = pool_window(n)?;
    // What ONNX Runtime divides by: the taps inside the input, or, with count_include_pad, those inside the padded input,
    // which a last window at ceil_mode may reach beyond.
    let padded = n.int("count_include_pad").unwrap_or(0) != 0;
    let axes = window.0.iter().map(|axis| axis.coverage(padded));
    let counts: Vec<Vec<i64>> = axes.collect();
    let first = counts.iter().map(|axis| axis.first().copied().unwrap_or(1));
    if counts
        .iter()
        .all(|axis| axis.windows(2).all(|pair| pair[0] == pair[1]))
    {
        let each = 1.0 / number(first.product());
        return n.only(spread(n, n.dy(), &window, each)?);
    }
    let mut places = vec![Dim::ONE; 2];
    places.extend(&n.y(0).shape()[2..]);
    let counts = filled(n, &extents(n, &places)?, &|place| {
        let axes = counts.iter().zip(place.iter().skip(2));
        number(axes.map(|(axis, &place)| axis[place].max(1)).product())
    });
    n.only(spread(n, n.dy() / counts.cast_like(n.dy()), &window, 1.0)?)
}

/// A count as a float.
#[expect(clippy::cast_precision_loss, reason = "no window is that large")]
fn number(count: i64) -> f32 {
    count as f32
}

fn lp_pool<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let power = power(n)?;
    let window = pool_window(n)?;
    let shares = spread(n, share(n.dy(), n.y(0), power), &window, 1.0)?;
    n.only(slope(n.x(0), power) * shares)
}

/// The exponent of a norm.
fn power(n: &Vjp<'_>) -> Result<f64, String> {
    match n.int("p").unwrap_or(2) {
        #[expect(clippy::cast_precision_loss, reason = "no exponent is that large")]
        power if power >= 1 => Ok(power as f64),
        power => Err(format!(
            "its exponent p is {power}, and has to be 1 or more"
        )),
    }
}

/// |x|^{q−1} sign(x): q times less than the slope of |x|^q.
fn slope(x: Expr<'_>, power: f64) -> Expr<'_> {
    if power == 2.0 {
        x
    } else if power == 1.0 {
        x.unary("Sign")
    } else {
        x.unary("Abs").binary("Pow", power - 1.0) * x.unary("Sign")
    }
}

/// ȳ y^{1−q}, 0 where y = 0.
fn share<'g>(dy: Expr<'g>, y: Expr<'g>, power: f64) -> Expr<'g> {
    if power == 1.0 {
        return dy;
    }
    let divisor = if power == 2.0 {
        y
    } else {
        y.binary("Pow", power - 1.0)
    };
    (dy / y.gt(0.0).select(divisor, 1.0, y)).where_(y.gt(0.0))
}

/// The window of a pool.
fn pool_window(n: &Vjp<'_>) -> Result<Window, String> {
    let kernel = n.ints("kernel_shape").unwrap_or_default();
    let window = Window::new(n, kernel, &n.shape(), &n.y(0).shape())?;
    match n.string("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" => window.with_pads(n),
        "VALID" => Ok(window),
        side => Ok(window.with_total(side == "SAME_LOWER", |axis| {
            // ONNX Runtime pads so that a window without dilation would give ⌈extent / stride⌉ places.
            let places = (axis.input + axis.stride - 1) / axis.stride;
            (places - 1) * axis.stride + axis.kernel - axis.input
        })),
    }
}

/// Adds `factor` times the number of each place to every position that its window covers: a convolution, transposed or not, channel by channel.
fn spread<'g>(
    n: &Vjp<'g>,
    places: Expr<'g>,
    window: &Window,
    factor: f32,
) -> Result<Expr<'g>, String> {
    let channels = places.shape()[1];
    // A pool over everything may be written with a kernel that is far larger than its input.
    let window = window.clone().clipped();
    let mut weights = vec![channels, Dim::ONE];
    weights.extend(window.0.iter().map(|axis| Dim::fixed(axis.kernel)));
    let weights = filled(n, &extents(n, &weights)?, &|_| factor).cast_like(places);
    let groups = n.fixed(channels)?;
    // Measured on CPUs: with stride 1, the convolution is 5 times faster. Weights that are all alike are their own mirror image.
    Ok(if window.0.iter().all(|axis| axis.stride == 1) {
        window.scatter_by_conv(places, weights, groups, &n.shape())
    } else {
        window.scatter(places, weights, groups, &n.shape())
    })
}

/// The numbers of a shape that has to be fixed.
fn extents(n: &Vjp<'_>, shape: &[Dim]) -> Result<Vec<usize>, String> {
    let extent = |&dim: &Dim| {
        let extent = n.fixed(dim)?;
        usize::try_from(extent).map_err(|_| format!("its extent {extent} is negative"))
    };
    shape.iter().map(extent).collect()
}

/// A constant with a number for each place.
fn filled<'g>(n: &Vjp<'g>, shape: &[usize], number: &dyn Fn(&[usize]) -> f32) -> Expr<'g> {
    let array = ArrayD::from_shape_fn(IxDyn(shape), |place| number(place.slice()));
    n.builder().constant(&Tensor::F32(array))
}
