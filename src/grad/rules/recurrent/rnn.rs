//! The plain recurrent layer.

use super::activation::{apply_clipped, read};
use super::layer::{INITIAL_H, Layer, append};
use crate::grad::rule::{Cotangents, Vjp};
use crate::graph::{Sweep, Swept};

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

    let mut sequences = vec![slope];
    let outside = append(&mut sequences, layer.cotangents_of_states());
    let kept = append(&mut sequences, layer.kept());
    let sweep = Sweep {
        states: vec![layer.last(1)],
        sequences,
        captured: vec![recurrence],
        axis: 1,
        backward: true,
    };
    let swept = n.builder().sweep(&sweep, |step| {
        let mut dh = step.states[0];
        if let Some(outside) = outside {
            dh = dh + step.sequences[outside];
        }
        let gates = dh * step.sequences[0];
        let through = gates.matmul(step.captured[0]);
        let before = match kept {
            Some(kept) => through + dh * step.sequences[kept],
            None => through,
        };
        Swept {
            states: vec![before],
            sequences: vec![gates],
        }
    });
    let (gates, dh) = (swept.sequences[0], swept.states[0]);

    let mut cotangents = layer.of_inputs(gates, &[(INITIAL_H, dh)]);
    cotangents.extend(layer.of_recurrence(&[(gates, before)]));
    cotangents.extend(layer.of_biases(gates, gates));
    Ok(cotangents)
}
