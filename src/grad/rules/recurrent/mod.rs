//! Recurrent layers: LSTM, GRU and RNN, by hand-written backpropagation through time.
//!
//! The forward node stays as it is. What it does not hand out (the gates) is computed again from its states Y for all steps at once, in a few
//! large products. Only what truly follows from step to step is done step by step, in a `Scan`: the cells of an LSTM forward, and the cotangent
//! of the state backward. The cotangents of the weights are again one product each.
//!
//! A `Scan` is as fast as unrolled steps on ONNX Runtime's CPU device, and loads at once where a hundred unrolled steps take many seconds.
//!
//! [`layer`] has the common frame, [`activation`] the functions of the gates, and one file per operator its equations.

mod activation;
mod gru;
mod layer;
mod lstm;
mod rnn;

use crate::grad::rule::Rule;

pub(super) const RULES: &[Rule] = &[
    // Backpropagation through time, in both directions, with sequence lengths, initial states and peepholes.
    Rule::new("LSTM", lstm::lstm),
    // Backpropagation through time, with either place of the reset gate (`linear_before_reset`).
    Rule::new("GRU", gru::gru),
    // Backpropagation through time.
    Rule::new("RNN", rnn::rnn),
];
