//! Recurrent layers: LSTM, GRU and RNN, by hand-written backpropagation through time.
//!
//! The forward node stays as it is. What it does not hand out (the gates) is computed again from its states Y for all steps at once, in a few
//! large products; only what truly follows from step to step is unrolled: the cells of an LSTM forward, and the cotangent of the state backward.
//! The cotangents of the weights are again one product each.
//!
//! [`layer`] has the common frame, [`activation`] the functions of the gates, and one file per operator its equations.

mod activation;
mod gru;
mod layer;
mod lstm;
mod rnn;

use crate::grad::rule::Rule;

pub(super) const RULES: &[Rule] = &[
    Rule::new("LSTM", lstm::lstm),
    Rule::new("GRU", gru::gru),
    Rule::new("RNN", rnn::rnn),
];
