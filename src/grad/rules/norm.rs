//! Normalisations, and dropout.

use crate::grad::rule::{Cotangents, Rule, Vjp};
use crate::graph::{Attributes, Dim, Dims, Expr, Fact, Node, ValueId};
use crate::tensor::DType;

pub(super) const RULES: &[Rule] = &[
    // y = γ (x − μ) / √(σ² + ε) + β per channel, with μ and σ² given
    // ⇒ x̄ = ȳ γ/√(σ² + ε), γ̄ = Σ ȳ (x − μ)/√(σ² + ε), β̄ = Σ ȳ, μ̄ = −Σ x̄, σ̄² = −½ Σ ȳ γ (x − μ) (σ² + ε)^{−3/2}
    Rule::new("BatchNormalization", batch_normalization),
    // y = γ x̂ + β per channel, x̂ normalised over the positions of each sample and channel ⇒ x̄ = (g − mean g − x̂·mean(g·x̂))/√(σ² + ε), g = ȳγ; γ̄ = Σ ȳx̂, β̄ = Σ ȳ
    Rule::new("InstanceNormalization", instance_normalization),
    // y = γ x̂ + β, x̂ normalised over the axes from `axis` on ⇒ x̄ = (g − mean g − x̂·mean(g·x̂))/√(σ² + ε), g = ȳγ; γ̄ = Σ ȳx̂, β̄ = Σ ȳ
    Rule::new("LayerNormalization", layer_normalization),
    // y = γ x̂ + β, x̂ normalised over the channels and positions of each sample and group ⇒ x̄ = (g − mean g − x̂·mean(g·x̂))/√(σ² + ε), g = ȳγ; γ̄ = Σ ȳx̂, β̄ = Σ ȳ
    Rule::new("GroupNormalization", group_normalization),
    // y = γ x̂, x̂ = x / √(mean x² + ε) over the axes from `axis` on ⇒ x̄ = (g − x̂ mean(g x̂)) / √(…) with g = γ ȳ, γ̄ = Σ ȳ x̂
    Rule::new("RMSNormalization", rms_normalization),
    // y = x / ‖x‖ₚ ⇒ x̄ = (ȳ − s Σ ȳ y) / ‖x‖ₚ, where s = y for p = 2 and sign x for p = 1; 0 where the norm is 0
    Rule::new("LpNormalization", lp_normalization),
    // y = c / (σ + 10⁻⁹), c = x − μ ⇒ x̄ = (ȳ − mean ȳ − (c/σ) mean(ȳ c/σ)) / σ; 0 where σ is 0
    Rule::new("MeanVarianceNormalization", mean_variance_normalization),
    // y = x D^{−b}, D = k + (a/size) Σ over the window of channels of x²
    // ⇒ x̄ = ȳ D^{−b} − (2ab/size) x · (Σ over the mirrored window of ȳ x D^{−b−1})
    Rule::new("LRN", local_response_normalization),
    // y = x when nothing is trained ⇒ x̄ = ȳ
    Rule::new("Dropout", dropout),
];

/// Numbers normalised over some axes: x̂ = (x − mean) · inverse, where inverse = 1 / √(variance + ε).
struct Standard<'g> {
    axes: Vec<usize>,
    normal: Expr<'g>,
    inverse: Expr<'g>,
}

impl<'g> Standard<'g> {
    /// Half precision is normalised in single precision, as the operators themselves do it.
    fn new(x: Expr<'g>, axes: Vec<usize>, epsilon: f64) -> Self {
        let x = match x.dtype() {
            DType::F16 | DType::BF16 => x.cast(DType::F32),
            _ => x,
        };
        let centred = x - mean(x, &axes);
        let variance = mean(centred * centred, &axes);
        let inverse = (variance + epsilon).unary("Sqrt").unary("Reciprocal");
        Standard {
            axes,
            normal: centred * inverse,
            inverse,
        }
    }

    /// The cotangent of x from that of x̂: inverse · (g − mean g − x̂ · mean(g x̂)).
    fn vjp(&self, cotangent: Expr<'g>) -> Expr<'g> {
        let along = self.normal * mean(cotangent * self.normal, &self.axes);
        (cotangent - mean(cotangent, &self.axes) - along) * self.inverse
    }
}

fn mean<'g>(x: Expr<'g>, axes: &[usize]) -> Expr<'g> {
    x.reduce("ReduceMean", axes, true)
}

fn epsilon(n: &Vjp<'_>) -> f64 {
    n.float("epsilon").unwrap_or(1e-5).into()
}

/// The shape that lets one number per channel stretch over a value of this rank.
fn per_channel(channels: Dim, rank: usize) -> Dims {
    let mut shape = vec![Dim::ONE; rank.saturating_sub(1).max(1)];
    shape[0] = channels;
    shape
}

fn batch_normalization<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    if n.int("training_mode").unwrap_or(0) != 0 {
        return Err("it is in training mode; export the model in evaluation mode".into());
    }
    let (x, dy) = (n.x(0), n.dy());
    let own = n.x(1).shape();
    let channels = own.first().copied().unwrap_or(Dim::ONE);
    let wide = per_channel(channels, x.rank());
    let parameter = |position: usize| n.x(position).cast_like(x);
    let stretched = |value: Expr<'g>| value.reshape(&wide);
    let summed = |value: Expr<'g>| value.unbroadcast(&wide).reshape(&own);
    let inverse = (parameter(4) + epsilon(n))
        .unary("Sqrt")
        .unary("Reciprocal");
    let factor = parameter(1) * inverse;
    if let Some(centred) = centred_by_own_statistics(n) {
        // With μ and σ² those of x itself over M positions, c = x − μ: x̄ = f (ȳ − mean ȳ − c mean(ȳ c)/(σ² + ε)), f = γ/√(σ² + ε).
        let positions = n
            .builder()
            .node("Size", &[x], &[], Fact::new(DType::I64, Vec::new()));
        let per_channel = channels.extent().map_or(1.0, |count| 1.0 / count as f64);
        let positions = (positions.cast(DType::F32) * per_channel).cast_like(x);
        let (sum, along) = (summed(dy), summed(dy * centred));
        let by_position = || {
            let slope = factor * inverse * inverse * along / positions;
            let offset = factor * sum / positions;
            dy * stretched(factor) - (centred * stretched(slope) + stretched(offset))
        };
        return n.each(&[&by_position, &|| along * inverse, &|| sum]);
    }
    // Σ ȳ (x − μ)
    let along = || summed(dy * (x - stretched(parameter(3))));
    n.each(&[
        &|| dy * stretched(factor),
        &|| along() * inverse,
        &|| summed(dy),
        &|| -(summed(dy) * factor),
        &|| along() * factor * inverse * inverse * -0.5,
    ])
}

/// x − μ, where the mean and the variance that a normalisation is given are those of its operand x, computed in the graph.
fn centred_by_own_statistics<'g>(n: &Vjp<'g>) -> Option<Expr<'g>> {
    let x = n.x(0);
    let axes: Vec<i64> = (0..).take(x.rank()).filter(|&axis| axis != 1).collect();
    let centred = n.builder().with_graph(|graph| {
        let producers = graph.producers();
        let made_by = |id: ValueId, op_type: &str| {
            let node = producers[id.index()].map(|place| &graph.nodes[place])?;
            node.is(op_type).then_some(node)
        };
        let over_positions = |node: &Node| {
            let reduced = node.input(1).and_then(|id| graph.constant(id));
            reduced.and_then(|reduced| reduced.to_i64()) == Some(axes.clone())
        };
        let variance =
            made_by(n.node().input(4)?, "ReduceMean").filter(|node| over_positions(node))?;
        let square = made_by(variance.input(0)?, "Mul")?;
        let centred = square.input(0).filter(|id| square.input(1) == Some(*id))?;
        let difference = made_by(centred, "Sub").filter(|node| node.input(0) == Some(x.id()))?;
        let mean =
            made_by(difference.input(1)?, "ReduceMean").filter(|node| over_positions(node))?;
        let own = made_by(n.node().input(3)?, "Reshape")?;
        let is_own = mean.input(0) == Some(x.id()) && own.input(0) == difference.input(1);
        is_own.then_some(centred)
    });
    n.builder().expr(centred?)
}

fn instance_normalization<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, scale) = (n.x(0), n.x(1));
    let own = scale.shape();
    let channels = own.first().copied().unwrap_or(Dim::ONE);
    let wide = per_channel(channels, x.rank());
    let standard = Standard::new(x, (2..x.rank()).collect(), epsilon(n));
    let dy = n.dy().cast_like(standard.normal);
    let summed = |value: Expr<'g>| value.unbroadcast(&wide).reshape(&own);
    n.each(&[
        &|| standard.vjp(dy * scale.cast_like(dy).reshape(&wide)),
        &|| summed(dy * standard.normal),
        &|| summed(dy),
    ])
}

fn rms_normalization<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let x = match n.x(0).dtype() {
        DType::F16 | DType::BF16 => n.x(0).cast(DType::F32),
        _ => n.x(0),
    };
    let first = n.axis(n.int("axis").unwrap_or(-1), x.rank())?;
    let axes: Vec<usize> = (first..x.rank()).collect();
    let square = mean(x * x, &axes) + epsilon(n);
    let inverse = square.unary("Sqrt").unary("Reciprocal");
    let normal = x * inverse;
    let dy = n.dy().cast_like(x);
    let scaled = dy * n.x(1).cast_like(x);
    n.each(&[
        &|| (scaled - normal * mean(scaled * normal, &axes)) * inverse,
        &|| dy * normal,
    ])
}

fn lp_normalization<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, y, dy) = (n.x(0), n.y(0), n.dy());
    let axis = n.axis(n.int("axis").unwrap_or(-1), x.rank())?;
    let (norm, slope) = match n.int("p").unwrap_or(2) {
        1 => (x.reduce("ReduceL1", &[axis], true), x.unary("Sign")),
        2 => (x.reduce("ReduceL2", &[axis], true), y),
        p => return Err(format!("its norm of order {p} has no rule")),
    };
    let is_zero = norm.equal(0.0);
    let inverse = is_zero.select(
        0.0,
        is_zero.select(1.0, norm, norm).unary("Reciprocal"),
        norm,
    );
    n.only((dy - slope * (dy * y).sum(&[axis])) * inverse)
}

fn mean_variance_normalization<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, dy) = (n.x(0), n.dy());
    let axes = n.ints("axes").unwrap_or(&[0, 2, 3]).iter();
    let axes: Vec<usize> = axes
        .map(|&axis| n.axis(axis, x.rank()))
        .collect::<Result<_, _>>()?;
    let centred = x - mean(x, &axes);
    let deviation = mean(centred * centred, &axes).unary("Sqrt");
    let flat = deviation.equal(0.0);
    let inverse = flat.select(0.0, flat.select(1.0, deviation, x).unary("Reciprocal"), x);
    let normal = centred * inverse;
    let along = normal * mean(dy * normal, &axes);
    n.only((dy - mean(dy, &axes) - along) * inverse)
}

fn layer_normalization<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, scale) = (n.x(0), n.x(1));
    let first = n.axis(n.int("axis").unwrap_or(-1), x.rank())?;
    let axes: Vec<usize> = (first..x.rank()).collect();
    let standard = Standard::new(x, axes, epsilon(n));
    let normal = standard.normal;
    let mut cotangents = Vec::new();
    if let Some(dy) = n.optional_dy(0) {
        let dy = dy.cast_like(normal);
        let scale = scale.cast_like(normal);
        cotangents = n.each(&[&|| standard.vjp(dy * scale), &|| dy * normal, &|| dy])?;
    }
    // The further results: mean ⇒ x̄ += m̄ / count, inverse ⇒ x̄ −= ī · inverse² · x̂ / count
    let further = [n.optional_dy(1), n.optional_dy(2)].map(|dy| Some(dy?.cast_like(normal)));
    let slopes = [None, Some(-(normal * standard.inverse * standard.inverse))];
    if n.wants(0) {
        for (dy, slope) in further.into_iter().zip(slopes) {
            if let Some(dy) = dy {
                let extents = x.shape().into_iter().skip(first);
                let count: i64 = extents.map(|dim| n.fixed(dim)).product::<Result<_, _>>()?;
                #[expect(clippy::cast_precision_loss, reason = "no axis is that long")]
                let each = dy / count as f64;
                let part = slope.map_or_else(|| each.expand(&x.shape()), |slope| each * slope);
                cotangents.push((0, part));
            }
        }
    }
    Ok(cotangents)
}

fn group_normalization<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, scale) = (n.x(0), n.x(1));
    let shape = x.shape();
    let [samples, channels, spatial @ ..] = shape.as_slice() else {
        return Err("its input has no axes for samples and channels".into());
    };
    let groups = n.int("num_groups").unwrap_or(1).max(1);
    let channels = n.fixed(*channels)?;
    let positions: i64 = spatial
        .iter()
        .map(|&dim| n.fixed(dim))
        .product::<Result<_, _>>()?;
    let grouped = [
        *samples,
        Dim::fixed(groups),
        Dim::fixed(channels / groups),
        Dim::fixed(positions),
    ];
    // One number per channel from opset 21 on, one per group before.
    let each = if scale.shape() == [Dim::fixed(channels)] {
        channels / groups
    } else {
        1
    };
    let wide = [Dim::fixed(groups), Dim::fixed(each), Dim::ONE];
    let standard = Standard::new(x.reshape(&grouped), vec![2, 3], epsilon(n));
    let dy = n.dy().cast_like(standard.normal).reshape(&grouped);
    let summed = |value: Expr<'g>| value.unbroadcast(&wide).reshape_like(scale);
    n.each(&[
        &|| {
            let scale = scale.cast_like(dy).reshape(&wide);
            standard.vjp(dy * scale).reshape_like(x)
        },
        &|| summed(dy * standard.normal),
        &|| summed(dy),
    ])
}

fn local_response_normalization<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let (x, dy) = (n.x(0), n.dy());
    let size = n.int("size").unwrap_or(1).max(1);
    let alpha = f64::from(n.float("alpha").unwrap_or(1e-4));
    let beta = f64::from(n.float("beta").unwrap_or(0.75));
    let bias = f64::from(n.float("bias").unwrap_or(1.0));
    let channels = x.shape().get(1).copied().unwrap_or(Dim::ONE);
    // The sum over `front` channels before, the channel itself, and the rest of `size` behind.
    let windows = |value: Expr<'g>, front: i64| {
        let mut pads = [vec![0; x.rank()], vec![0; x.rank()]];
        (pads[0][1], pads[1][1]) = (front, size - 1 - front);
        let padded = value.pad(&pads[0], &pads[1]);
        let parts: Vec<_> = (0..size)
            .map(|start| padded.slice(1, start, channels.plus(Dim::fixed(start))))
            .collect();
        if parts.len() == 1 {
            padded
        } else {
            n.builder().node("Sum", &parts, &[], value.fact())
        }
    };
    let front = (size - 1) / 2;
    #[expect(clippy::cast_precision_loss, reason = "no window is that large")]
    let strength = alpha / size as f64;
    let divisor = windows(x * x, front) * strength + bias;
    let direct = dy * divisor.binary("Pow", -beta);
    let shared = windows(direct * x / divisor, size - 1 - front);
    n.only(direct - x * shared * (2.0 * beta * strength))
}

fn dropout<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let Some(dy) = n.optional_dy(0) else {
        return Ok(Vec::new());
    };
    let constant = |position: usize| n.constant(position).map(|tensor| tensor.to_f64());
    let is_off = |position: usize| {
        n.optional_x(position)
            .is_none_or(|_| constant(position).is_some_and(|values| values == [0.0]))
    };
    let never_drops = n.optional_x(1).is_some() && is_off(1);
    if is_off(2) || never_drops {
        return n.only(dy);
    }
    Err(match constant(2) {
        Some(_) => "it is in training mode; export the model in evaluation mode".into(),
        None => "whether it is in training mode is computed from the data".into(),
    })
}
