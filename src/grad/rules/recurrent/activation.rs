//! The functions of the gates and their slopes.
//!
//! They are those that ONNX Runtime runs, with its defaults where a parameter is not given.

use crate::grad::rule::Vjp;
use crate::graph::{Attributes, Dim, Expr};

/// One function with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Activation {
    function: Function,
    alpha: f64,
    beta: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Affine,
    Elu,
    HardSigmoid,
    LeakyRelu,
    Relu,
    ScaledTanh,
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu,
}

impl Function {
    /// The function of a name, which is read in any case, with the number of its parameters and ONNX Runtime's defaults for them.
    fn find(name: &str) -> Option<(Self, usize, f64, f64)> {
        Some(match name.to_ascii_lowercase().as_str() {
            "affine" => (Function::Affine, 2, 0.0, 0.0),
            "elu" => (Function::Elu, 1, 1.0, 0.0),
            "hardsigmoid" => (Function::HardSigmoid, 2, f64::from(0.2f32), 0.5),
            "leakyrelu" => (Function::LeakyRelu, 1, f64::from(0.01f32), 0.0),
            "relu" => (Function::Relu, 0, 0.0, 0.0),
            "scaledtanh" => (Function::ScaledTanh, 2, 0.0, 0.0),
            "sigmoid" => (Function::Sigmoid, 0, 0.0, 0.0),
            "softplus" => (Function::Softplus, 0, 0.0, 0.0),
            "softsign" => (Function::Softsign, 0, 0.0, 0.0),
            "tanh" => (Function::Tanh, 0, 0.0, 0.0),
            "thresholdedrelu" => (Function::ThresholdedRelu, 1, 0.0, 0.0),
            _ => return None,
        })
    }
}

/// The functions of a layer, one list per place (`f`, `g`, `h` in the operators' pages), in each an entry per direction.
///
/// Parameters are given to those functions that have some, in the order of the functions.
///
/// # Errors
/// Where a function is not known, or there are not as many as the layer needs.
pub(super) fn read<const PLACES: usize>(
    n: &Vjp<'_>,
    directions: usize,
    defaults: [&str; PLACES],
) -> Result<[Vec<Activation>; PLACES], String> {
    let given: Vec<String> = n.attribute("activations").map_or_else(Vec::new, |list| {
        list.strings
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    });
    let names: Vec<String> = if given.is_empty() {
        (0..directions)
            .flat_map(|_| defaults.map(str::to_owned))
            .collect()
    } else {
        given
    };
    if names.len() != directions * PLACES {
        return Err(format!(
            "it has {} activations, and needs {}",
            names.len(),
            directions * PLACES
        ));
    }
    let mut alphas = n.floats("activation_alpha").unwrap_or_default().iter();
    let mut betas = n.floats("activation_beta").unwrap_or_default().iter();
    let mut places = std::array::from_fn(|_| Vec::with_capacity(directions));
    for (position, name) in names.iter().enumerate() {
        let (function, parameters, mut alpha, mut beta) =
            Function::find(name).ok_or_else(|| format!("its activation `{name}` is not known"))?;
        if let Some(&given) = (parameters > 0).then(|| alphas.next()).flatten() {
            alpha = given.into();
        }
        if let Some(&given) = (parameters > 1).then(|| betas.next()).flatten() {
            beta = given.into();
        }
        places[position % PLACES].push(Activation {
            function,
            alpha,
            beta,
        });
    }
    Ok(places)
}

/// A gate, or another value that a function was applied to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Activated<'g> {
    /// The function's value.
    pub(super) value: Expr<'g>,
    /// Its derivative there.
    pub(super) slope: Expr<'g>,
}

/// Applies a function per direction (the first axis of `x`).
pub(super) fn apply<'g>(functions: &[Activation], x: Expr<'g>) -> Activated<'g> {
    match functions {
        [first, rest @ ..] if rest.iter().any(|other| other != first) => {
            let parts: Vec<Activated<'g>> = (0i64..)
                .zip(functions)
                .map(|(direction, function)| {
                    function.apply(x.slice(0, direction, Dim::fixed(direction + 1)))
                })
                .collect();
            let all = |part: fn(&Activated<'g>) -> Expr<'g>| {
                Expr::concat(&parts.iter().map(part).collect::<Vec<_>>(), 0)
            };
            Activated {
                value: all(|part| part.value),
                slope: all(|part| part.slope),
            }
        }
        [first, ..] => first.apply(x),
        [] => Activated { value: x, slope: x },
    }
}

/// Applies a function per direction to `x` clipped to [−bound, bound]; the slope is 0 at and beyond the bounds, as PyTorch's `clamp`.
pub(super) fn apply_clipped<'g>(
    functions: &[Activation],
    x: Expr<'g>,
    bound: Option<f64>,
) -> Activated<'g> {
    let Some(bound) = bound else {
        return apply(functions, x);
    };
    let activated = apply(functions, x.max(-bound).min(bound));
    Activated {
        slope: activated.slope.where_(x.unary("Abs").lt(bound)),
        ..activated
    }
}

impl Activation {
    /// The function and its slope; at kinks the slope is that of the rule for the operator of the same name.
    fn apply<'g>(self, x: Expr<'g>) -> Activated<'g> {
        let (alpha, beta) = (self.alpha, self.beta);
        let step = |condition: Expr<'g>| condition.cast_like(x);
        let (value, slope) = match self.function {
            // y = αx + β
            Function::Affine => (
                x * alpha + beta,
                x.builder().full(x.dtype(), &x.shape(), alpha),
            ),
            // y = x or α(eˣ − 1); the exponential is taken of min(x, 0), which cannot overflow.
            Function::Elu => {
                let exponential = x.min(0.0).unary("Exp");
                let positive = x.gt(0.0);
                (
                    positive.select(x, (exponential - 1.0) * alpha, x),
                    positive.select(1.0, exponential * alpha, x),
                )
            }
            // y = min(max(αx + β, 0), 1)
            Function::HardSigmoid => {
                let y = (x * alpha + beta).max(0.0).min(1.0);
                (y, step(y.gt(0.0).and(y.lt(1.0))) * alpha)
            }
            // y = x or αx
            Function::LeakyRelu => {
                let positive = x.gt(0.0);
                (
                    positive.select(x, x * alpha, x),
                    positive.select(1.0, x.builder().scalar(x.dtype(), alpha), x),
                )
            }
            // y = max(x, 0)
            Function::Relu => (x.unary("Relu"), step(x.gt(0.0))),
            // y = α tanh βx
            Function::ScaledTanh => {
                let tanh = (x * beta).unary("Tanh");
                (tanh * alpha, (1.0 - tanh * tanh) * (alpha * beta))
            }
            // y = σ(x)
            Function::Sigmoid => {
                let y = x.unary("Sigmoid");
                (y, (1.0 - y) * y)
            }
            // y = ln(1 + eˣ)
            Function::Softplus => (x.unary("Softplus"), x.unary("Sigmoid")),
            // y = x/(1 + |x|)
            Function::Softsign => {
                let scale = 1.0 + x.unary("Abs");
                (x / scale, 1.0 / scale / scale)
            }
            // y = tanh x
            Function::Tanh => {
                let y = x.unary("Tanh");
                (y, 1.0 - y * y)
            }
            // y = x·[x > α]
            Function::ThresholdedRelu => {
                let above = x.gt(alpha);
                (x.where_(above), step(above))
            }
        };
        Activated { value, slope }
    }
}
