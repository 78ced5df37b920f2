//! The plain recurrent layer.

use super::activation::{apply_clipped, read};
use super::layer::{INITIAL_H, Layer};
use crate::grad::rule::{Cotangents, Vjp};

// hₜ = f(aₜ), aₜ = xₜ Wᵀ + hₜ₋₁ Rᵀ + b ⇒ a̅ₜ = h̅ₜ ⊙ f′(aₜ), h̅ₜ₋₁ = a̅ₜ R plus what comes in through Y.
pub(super) fn rnn<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let layer = Layer::of(n)?;
    let [f] = read(n, layer.directions(), ["Tanh"])?;
    let before = layer.states_before();
    let recurrence = layer.recurrence();
    let mut gates = layer.input_products() + layer.products(before, recurrence);
    if let Some([inputs, states]) = layer.biases() {
        gates = gates + (inputs + states);
    }
    let slope = layer.while_running(apply_clipped(&f, gates, layer.clip).slope);

    let slopes = layer.each_step(slope);
    let from_outside = layer.cotangents_of_states();
    let kept = layer.kept();
    let recurrence = recurrence.unsqueeze(&[1]);
    let mut dh = layer.last(1);
    let mut found = Vec::with_capacity(slopes.len());
    for (step, slope) in slopes.iter().enumerate().rev() {
        if let Some(cotangents) = &from_outside {
            dh = dh + cotangents[step];
        }
        let gates = dh * *slope;
        let through = gates.matmul(recurrence);
        dh = match &kept {
            Some(kept) => through + dh * kept[step],
            None => through,
        };
        found.push(gates);
    }

    let gates = layer.gathered(found);
    let mut cotangents = layer.of_inputs(gates, &[(INITIAL_H, dh)]);
    cotangents.extend(layer.of_recurrence(&[(gates, before)]));
    cotangents.extend(layer.of_biases(gates, gates));
    Ok(cotangents)
}
