//! The LSTM.

use super::activation::{Activated, Activation, apply, apply_clipped, read};
use super::layer::{INITIAL_C, INITIAL_H, Layer, P};
use crate::grad::rule::{Cotangents, Vjp};
use crate::graph::{Attributes, Expr};

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
        cotangents.extend(layer.of_vectors(P, &parts));
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

    /// The cells after each step, where the gates do not see the cells: two operations per step.
    fn cells_without(
        &self,
        input: Expr<'g>,
        forget: Expr<'g>,
        candidate: Expr<'g>,
        initial: Expr<'g>,
    ) -> Expr<'g> {
        let layer = self.layer;
        let kept = layer.each_step(layer.else_one(forget));
        let added = layer.each_step(layer.while_running(input * candidate));
        let mut cells = initial;
        let after = kept.into_iter().zip(added).map(|(kept, added)| {
            cells = cells * kept + added;
            cells
        });
        Expr::concat(&after.collect::<Vec<_>>(), 1)
    }

    /// The cells after each step, where the gates see the cells.
    fn cells_with_peepholes(
        &self,
        gates: &[Expr<'g>],
        candidate: Expr<'g>,
        initial: Expr<'g>,
    ) -> Expr<'g> {
        let layer = self.layer;
        let [inputs, forgets, candidates] =
            [gates[0], gates[2], candidate].map(|gate| layer.each_step(gate));
        let running = layer.running();
        let mut cells = initial;
        let mut after = Vec::with_capacity(inputs.len());
        for step in 0..inputs.len() {
            let input = self.gate(self.peep(inputs[step], 0, cells));
            let forget = self.forget(input, forgets[step], cells);
            let next = forget.value * cells + input.value * candidates[step];
            cells = match &running {
                Some(running) => running[step].select(next, cells, next),
                None => next,
            };
            after.push(cells);
        }
        Expr::concat(&after, 1)
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
        let steps = |value: Expr<'g>| layer.each_step(layer.while_running(value));
        let [to_output, to_cells, to_candidate, to_input, to_forget] =
            [to_output, to_cells, to_candidate, to_input, to_forget].map(steps);
        let to_before = layer.each_step(layer.else_one(to_before));

        let from_outside = layer.cotangents_of_states();
        let kept = layer.kept();
        let recurrence = layer.recurrence().unsqueeze(&[1]);
        let (mut dh, mut dc) = (layer.last(1), layer.last(2));
        let mut found = Vec::with_capacity(to_before.len());
        for step in (0..to_before.len()).rev() {
            if let Some(cotangents) = &from_outside {
                dh = dh + cotangents[step];
            }
            dc = dc + dh * to_cells[step];
            let gates = [
                dc * to_input[step],
                dh * to_output[step],
                dc * to_forget[step],
                dc * to_candidate[step],
            ];
            let gates = Expr::concat(&gates, 3);
            let through = gates.matmul(recurrence);
            dh = match &kept {
                Some(kept) => through + dh * kept[step],
                None => through,
            };
            dc = dc * to_before[step];
            found.push(gates);
        }
        (layer.gathered(found), dh, dc)
    }
}
