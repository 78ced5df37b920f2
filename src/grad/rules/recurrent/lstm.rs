//! The LSTM.

use super::activation::{Activated, Activation, apply, apply_clipped, read};
use super::layer::{INITIAL_C, INITIAL_H, Layer, P, append, summed};
use crate::grad::rule::{Cotangents, Vjp};
use crate::graph::{Attributes, Expr, Sweep, Swept};

/// What an LSTM computes in all steps.
struct Cells<'g> {
    input: Activated<'g>,
    output: Activated<'g>,
    forget: Activated<'g>,
    candidate: Activated<'g>,
    /// The cells before each step.
    before: Expr<'g>,
    /// The cells after each step.
    after: Expr<'g>,
    /// h(cells after).
    shown: Activated<'g>,
}

/// The equations of a layer, without its operands.
struct Equations<'a, 'g> {
    layer: &'a Layer<'a, 'g>,
    f: Vec<Activation>,
    g: Vec<Activation>,
    h: Vec<Activation>,
    /// The peepholes of the input, output and forget gate.
    peepholes: Option<[Expr<'g>; 3]>,
    /// Whether the forget gate is 1 − the input gate.
    coupled: bool,
}

// i, f = f(a + p ⊙ cₜ₋₁), g̃ = g(a), cₜ = f ⊙ cₜ₋₁ + i ⊙ g̃, o = f(a + p ⊙ cₜ), hₜ = o ⊙ h(cₜ), each a = xₜ Wᵀ + hₜ₋₁ Rᵀ + b of its own
//   ⇒ a̅ₒ = h̅ ⊙ h(c) ⊙ o′, c̅ₜ += h̅ ⊙ o ⊙ h′(c) + a̅ₒ ⊙ pₒ, a̅ᵢ = c̅ ⊙ g̃ ⊙ i′, a̅_f = c̅ ⊙ cₜ₋₁ ⊙ f′, a̅_g = c̅ ⊙ i ⊙ g̃′,
//     c̅ₜ₋₁ = c̅ ⊙ f + a̅ᵢ ⊙ pᵢ + a̅_f ⊙ p_f, h̅ₜ₋₁ = (a̅ᵢ, a̅ₒ, a̅_f, a̅_g) R plus what comes in through Y.
// All factors of h̅ and c̅ are known beforehand, for all steps at once.
pub(super) fn lstm<'g>(n: &Vjp<'g>) -> Result<Cotangents<'g>, String> {
    let layer = Layer::of(n)?;
    let [f, g, h] = read(n, layer.directions(), ["Sigmoid", "Tanh", "Tanh"])?;
    let peepholes = n.optional_x(P).map(|peepholes| {
        let parts = layer.vectors(peepholes, 3);
        [parts[0], parts[1], parts[2]]
    });
    let equations = Equations {
        layer: &layer,
        f,
        g,
        h,
        peepholes,
        coupled: n.int("input_forget").unwrap_or_default() != 0,
    };
    let before = layer.states_before();
    let mut gates = layer.input_products() + layer.products(before, layer.recurrence());
    if let Some([inputs, states]) = layer.biases() {
        gates = gates + (inputs + states);
    }
    let cells = equations.cells(&layer.gates(gates, 4));
    let (gates, dh, dc) = equations.backward(&cells);

    let mut cotangents = layer.of_inputs(gates, &[(INITIAL_H, dh), (INITIAL_C, dc)]);
    cotangents.extend(layer.of_recurrence(&[(gates, before)]));
    cotangents.extend(layer.of_biases(gates, gates));
    if n.wants(P) {
        let gates = layer.gates(gates, 4);
        let parts = [
            gates[0] * cells.before,
            gates[1] * cells.after,
            gates[2] * cells.before,
        ];
        cotangents.push((P, summed(&parts)));
    }
    Ok(cotangents)
}

impl<'g> Equations<'_, 'g> {
    /// The peephole of the gate at a position (input, output, forget) times the cells, added to the gate.
    fn peep(&self, gate: Expr<'g>, position: usize, cells: Expr<'g>) -> Expr<'g> {
        match &self.peepholes {
            Some(peepholes) => gate + peepholes[position] * cells,
            None => gate,
        }
    }

    /// A gate from its value before the function.
    fn gate(&self, before: Expr<'g>) -> Activated<'g> {
        apply_clipped(&self.f, before, self.layer.clip)
    }

    /// The forget gate, beside the input gate.
    fn forget(&self, input: Activated<'g>, gate: Expr<'g>, cells: Expr<'g>) -> Activated<'g> {
        if self.coupled {
            return Activated {
                value: 1.0 - input.value,
                slope: input.slope,
            };
        }
        self.gate(self.peep(gate, 2, cells))
    }

    /// Everything in all steps, from the gates (input, output, forget, candidate) before peepholes and functions.
    fn cells(&self, gates: &[Expr<'g>]) -> Cells<'g> {
        let layer = self.layer;
        let candidate = apply_clipped(&self.g, gates[3], layer.clip);
        let initial = layer.initial(INITIAL_C).unwrap_or_else(|| layer.zeros());
        let after = if self.peepholes.is_some() {
            self.cells_with_peepholes(gates, candidate.value, initial)
        } else {
            let input = self.gate(gates[0]);
            let forget = self.forget(input, gates[2], initial);
            self.cells_without(input.value, forget.value, candidate.value, initial)
        };
        let before = layer.delayed(after, initial);
        let input = self.gate(self.peep(gates[0], 0, before));
        Cells {
            input,
            output: self.gate(self.peep(gates[1], 1, after)),
            forget: self.forget(input, gates[2], before),
            candidate,
            before,
            after,
            shown: apply(&self.h, after),
        }
    }

    /// The cells after each step, where the gates do not see the cells.
    fn cells_without(
        &self,
        input: Expr<'g>,
        forget: Expr<'g>,
        candidate: Expr<'g>,
        initial: Expr<'g>,
    ) -> Expr<'g> {
        let layer = self.layer;
        let sweep = Sweep {
            states: vec![initial],
            sequences: vec![
                layer.else_one(forget),
                layer.while_running(input * candidate),
            ],
            captured: Vec::new(),
            axis: 1,
            backward: false,
        };
        let swept = initial.builder().sweep(&sweep, |step| {
            let cells = step.states[0] * step.sequences[0] + step.sequences[1];
            Swept {
                states: vec![cells],
                sequences: vec![cells],
            }
        });
        swept.sequences[0]
    }

    /// The cells after each step, where the gates see the cells.
    fn cells_with_peepholes(
        &self,
        gates: &[Expr<'g>],
        candidate: Expr<'g>,
        initial: Expr<'g>,
    ) -> Expr<'g> {
        let layer = self.layer;
        let mut sequences = vec![gates[0], gates[2], candidate];
        let running = append(&mut sequences, layer.running());
        let peepholes = self.peepholes.iter().flatten();
        let sweep = Sweep {
            states: vec![initial],
            sequences,
            captured: peepholes.map(|peephole| peephole.squeeze(&[1])).collect(),
            axis: 1,
            backward: false,
        };
        let swept = initial.builder().sweep(&sweep, |step| {
            let before = step.states[0];
            let peep = |gate: usize, peephole: usize| {
                step.sequences[gate] + step.captured[peephole] * before
            };
            let input = apply_clipped(&self.f, peep(0, 0), layer.clip).value;
            let forget = match self.coupled {
                true => 1.0 - input,
                false => apply_clipped(&self.f, peep(1, 2), layer.clip).value,
            };
            let next = forget * before + input * step.sequences[2];
            let cells = match running {
                Some(running) => step.sequences[running].select(next, before, next),
                None => next,
            };
            Swept {
                states: vec![cells],
                sequences: vec![cells],
            }
        });
        swept.sequences[0]
    }

    /// From the last step to the first: the cotangents of the gates before their functions, of the initial states and of the initial cells.
    fn backward(&self, cells: &Cells<'g>) -> (Expr<'g>, Expr<'g>, Expr<'g>) {
        let layer = self.layer;
        let Cells {
            input,
            output,
            forget,
            candidate,
            ..
        } = cells;
        // The factors of h̅: into the output gate, and into the cells.
        let to_output = cells.shown.value * output.slope;
        let mut to_cells = output.value * cells.shown.slope;
        // The factors of c̅: into the other gates, and into the cells before.
        let to_candidate = input.value * candidate.slope;
        let (to_input, to_forget) = if self.coupled {
            let to_input = (candidate.value - cells.before) * input.slope;
            (to_input, to_input.zeros_like())
        } else {
            (candidate.value * input.slope, cells.before * forget.slope)
        };
        let mut to_before = forget.value;
        if let Some([of_input, of_output, of_forget]) = self.peepholes {
            to_cells = to_cells + to_output * of_output;
            to_before = to_before + to_input * of_input + to_forget * of_forget;
        }
        let factors = [to_input, to_output, to_forget, to_candidate, to_cells];
        let mut sequences = factors.map(|factor| layer.while_running(factor)).to_vec();
        sequences.push(layer.else_one(to_before));
        let outside = append(&mut sequences, layer.cotangents_of_states());
        let kept = append(&mut sequences, layer.kept());
        let sweep = Sweep {
            states: vec![layer.last(1), layer.last(2)],
            sequences,
            captured: vec![layer.recurrence()],
            axis: 1,
            backward: true,
        };
        let swept = to_before.builder().sweep(&sweep, |step| {
            let (mut dh, dc) = (step.states[0], step.states[1]);
            if let Some(outside) = outside {
                dh = dh + step.sequences[outside];
            }
            let [
                to_input,
                to_output,
                to_forget,
                to_candidate,
                to_cells,
                to_before,
            ] = [0, 1, 2, 3, 4, 5].map(|at| step.sequences[at]);
            let dc = dc + dh * to_cells;
            let gates = [
                dc * to_input,
                dh * to_output,
                dc * to_forget,
                dc * to_candidate,
            ];
            let gates = Expr::concat(&gates, 2);
            let through = gates.matmul(step.captured[0]);
            let before = match kept {
                Some(kept) => through + dh * step.sequences[kept],
                None => through,
            };
            Swept {
                states: vec![before, dc * to_before],
                sequences: vec![gates],
            }
        });
        (swept.sequences[0], swept.states[0], swept.states[1])
    }
}
