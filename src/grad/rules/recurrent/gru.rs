//! The GRU.

use super::activation::{Activated, apply_clipped, read};
use super::layer::{INITIAL_H, Layer, append};
use crate::grad::rule::{Cotangents, Vjp};
use crate::graph::{Attributes, Dim, Expr, Sweep, Swept};

/// What a GRU computes in all steps.
struct Steps<'g> {
    /// The states before each step.
    before: Expr<'g>,
    update: Activated<'g>,
    reset: Activated<'g>,
    candidate: Activated<'g>,
}

// z, r = f(a), hₜ = (1 − z) ⊙ h̃ + z ⊙ hₜ₋₁, each a = xₜ Wᵀ + hₜ₋₁ Rᵀ + b of its own, but for the candidate
//   h̃ = g(xₜ Wᵀ + b + r ⊙ q), q = hₜ₋₁ Rᵀ + b_R (`linear_before_reset`), or h̃ = g(xₜ Wᵀ + b + s Rᵀ + b_R), s = r ⊙ hₜ₋₁
//   ⇒ a̅_z = h̅ ⊙ (hₜ₋₁ − h̃) ⊙ z′, a̅_h = h̅ ⊙ (1 − z) ⊙ h̃′.
pub(super) fn gru<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let layer = Layer::of(n)?;
    let [f, g] = read(n, layer.directions(), ["Sigmoid", "Tanh"])?;
    let hidden = layer.hidden();
    let before = layer.states_before();
    let recurrence = layer.recurrence();
    let rows = |start: i64, end: i64| recurrence.slice(1, start * hidden, Dim::fixed(end * hidden));
    let mut inputs = layer.input_products();
    let mut bias = None;
    if let Some([of_inputs, of_states]) = layer.biases() {
        inputs = inputs + of_inputs;
        bias = Some(of_states);
    }
    let biased = |value: Expr<'g>, start: i64, end: i64| match bias {
        Some(bias) => value + bias.slice(3, start * hidden, Dim::fixed(end * hidden)),
        None => value,
    };
    let inputs = layer.gates(inputs, 3);
    let reset_last = n.int("linear_before_reset").unwrap_or_default() != 0;
    if reset_last {
        let states = layer.gates(biased(layer.products(before, recurrence), 0, 3), 3);
        let [update, reset] =
            [0, 1].map(|gate| apply_clipped(&f, inputs[gate] + states[gate], layer.clip));
        let candidate = apply_clipped(&g, inputs[2] + reset.value * states[2], layer.clip);
        let steps = Steps {
            before,
            update,
            reset,
            candidate,
        };
        return Ok(reset_after_product(&layer, &steps, states[2]));
    }
    let states = layer.gates(biased(layer.products(before, rows(0, 2)), 0, 2), 2);
    let [update, reset] =
        [0, 1].map(|gate| apply_clipped(&f, inputs[gate] + states[gate], layer.clip));
    let product = biased(layer.products(reset.value * before, rows(2, 3)), 2, 3);
    let candidate = apply_clipped(&g, inputs[2] + product, layer.clip);
    let steps = Steps {
        before,
        update,
        reset,
        candidate,
    };
    Ok(reset_before_product(&layer, &steps, rows(0, 2), rows(2, 3)))
}

impl<'g> Steps<'g> {
    /// The factors of h̅: into the update gate and the candidate before their functions, and into the state before.
    fn factors(&self, layer: &Layer<'_, 'g>) -> [Expr<'g>; 3] {
        let to_update = (self.before - self.candidate.value) * self.update.slope;
        let to_candidate = (1.0 - self.update.value) * self.candidate.slope;
        [
            layer.while_running(to_update),
            layer.while_running(to_candidate),
            layer.else_one(self.update.value),
        ]
    }
}

// a̅_r = a̅_h ⊙ q ⊙ r′, q̅ = a̅_h ⊙ r, h̅ₜ₋₁ = h̅ ⊙ z + (a̅_z, a̅_r, q̅) R plus what comes in through Y.
fn reset_after_product<'g>(
    layer: &Layer<'_, 'g>,
    steps: &Steps<'g>,
    product: Expr<'g>,
) -> Cotangents<'g> {
    let [to_update, to_candidate, to_before] = steps.factors(layer);
    let to_reset = to_candidate * product * steps.reset.slope;
    let to_product = to_candidate * steps.reset.value;
    let mut sequences = vec![to_update, to_reset, to_product, to_before];
    let outside = append(&mut sequences, layer.cotangents_of_states());
    let sweep = Sweep {
        states: vec![layer.last(1)],
        sequences,
        captured: vec![layer.recurrence()],
        axis: 1,
        backward: true,
    };
    let swept = product.builder().sweep(&sweep, |step| {
        let mut dh = step.states[0];
        if let Some(outside) = outside {
            dh = dh + step.sequences[outside];
        }
        let side: Vec<_> = step.sequences[..3]
            .iter()
            .map(|factor| dh * *factor)
            .collect();
        let side = Expr::concat(&side, 2);
        Swept {
            states: vec![dh * step.sequences[3] + side.matmul(step.captured[0])],
            sequences: vec![side, dh],
        }
    });
    let (of_states, dh) = (swept.sequences[0], swept.states[0]);
    let candidate = swept.sequences[1] * to_candidate;
    let without = of_states.slice(3, 0, Dim::fixed(2 * layer.hidden()));
    let of_inputs = Expr::concat(&[without, candidate], 3);
    let mut cotangents = layer.of_inputs(of_inputs, &[(INITIAL_H, dh)]);
    cotangents.extend(layer.of_recurrence(&[(of_states, steps.before)]));
    cotangents.extend(layer.of_biases(of_inputs, of_states));
    cotangents
}

// s̅ = a̅_h R_h, a̅_r = s̅ ⊙ hₜ₋₁ ⊙ r′, h̅ₜ₋₁ = h̅ ⊙ z + s̅ ⊙ r + (a̅_z, a̅_r) R_zr plus what comes in through Y.
fn reset_before_product<'g>(
    layer: &Layer<'_, 'g>,
    steps: &Steps<'g>,
    of_gates: Expr<'g>,
    of_candidate: Expr<'g>,
) -> Cotangents<'g> {
    let [to_update, to_candidate, to_before] = steps.factors(layer);
    let to_reset = steps.before * steps.reset.slope;
    let reset = steps.reset.value;
    let mut sequences = vec![to_update, to_reset, to_candidate, to_before, reset];
    let outside = append(&mut sequences, layer.cotangents_of_states());
    let sweep = Sweep {
        states: vec![layer.last(1)],
        sequences,
        captured: vec![of_gates, of_candidate],
        axis: 1,
        backward: true,
    };
    let swept = reset.builder().sweep(&sweep, |step| {
        let mut dh = step.states[0];
        if let Some(outside) = outside {
            dh = dh + step.sequences[outside];
        }
        let [to_update, to_reset, to_candidate, to_before, reset] =
            [0, 1, 2, 3, 4].map(|at| step.sequences[at]);
        let candidate = dh * to_candidate;
        let of_reset = candidate.matmul(step.captured[1]);
        let side = Expr::concat(&[dh * to_update, of_reset * to_reset], 2);
        let before = dh * to_before + of_reset * reset + side.matmul(step.captured[0]);
        Swept {
            states: vec![before],
            sequences: vec![side, candidate],
        }
    });
    let (gates, candidates, dh) = (swept.sequences[0], swept.sequences[1], swept.states[0]);
    let all = Expr::concat(&[gates, candidates], 3);
    let mut cotangents = layer.of_inputs(all, &[(INITIAL_H, dh)]);
    let reset = reset * steps.before;
    cotangents.extend(layer.of_recurrence(&[(gates, steps.before), (candidates, reset)]));
    cotangents.extend(layer.of_biases(all, all));
    cotangents
}
