//! The GRU.

use super::activation::{Activated, apply_clipped, read};
use super::layer::{INITIAL_H, Layer};
use crate::grad::rule::{Cotangents, Vjp};
use crate::graph::{Attributes, Dim, Expr};

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
    let [to_updates, to_resets, to_products, to_befores] =
        [to_update, to_reset, to_product, to_before].map(|factor| layer.each_step(factor));

    let from_outside = layer.cotangents_of_states();
    let recurrence = layer.recurrence().unsqueeze(&[1]);
    let mut dh = layer.last(1);
    let (mut states, mut gates) = (Vec::new(), Vec::new());
    for step in (0..to_befores.len()).rev() {
        if let Some(cotangents) = &from_outside {
            dh = dh + cotangents[step];
        }
        states.push(dh);
        let factors = [to_updates[step], to_resets[step], to_products[step]];
        let side = Expr::concat(&factors.map(|factor| dh * factor), 3);
        gates.push(side);
        dh = dh * to_befores[step] + side.matmul(recurrence);
    }

    let of_states = layer.gathered(gates);
    let candidate = layer.gathered(states) * to_candidate;
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
    let [to_updates, to_resets, to_candidates, to_befores, resets] = [
        to_update,
        to_reset,
        to_candidate,
        to_before,
        steps.reset.value,
    ]
    .map(|factor| layer.each_step(factor));

    let from_outside = layer.cotangents_of_states();
    let [of_gates, of_candidate] = [of_gates, of_candidate].map(|rows| rows.unsqueeze(&[1]));
    let mut dh = layer.last(1);
    let (mut gates, mut candidates) = (Vec::new(), Vec::new());
    for step in (0..to_befores.len()).rev() {
        if let Some(cotangents) = &from_outside {
            dh = dh + cotangents[step];
        }
        let candidate = dh * to_candidates[step];
        let reset = candidate.matmul(of_candidate);
        let side = Expr::concat(&[dh * to_updates[step], reset * to_resets[step]], 3);
        dh = dh * to_befores[step] + reset * resets[step] + side.matmul(of_gates);
        gates.push(side);
        candidates.push(candidate);
    }

    let (gates, candidates) = (layer.gathered(gates), layer.gathered(candidates));
    let all = Expr::concat(&[gates, candidates], 3);
    let mut cotangents = layer.of_inputs(all, &[(INITIAL_H, dh)]);
    let reset = steps.reset.value * steps.before;
    cotangents.extend(layer.of_recurrence(&[(gates, steps.before), (candidates, reset)]));
    cotangents.extend(layer.of_biases(all, all));
    cotangents
}
