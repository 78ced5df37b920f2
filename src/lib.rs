//! Mohs, the scratch test for exported models: exact-gradient adversarial robustness of ONNX files.
//!
//! The binary `mohs` is [`cli::main`] and nothing else; whatever it does, a program can do too.
//!
//! # A tour
//!
//! [`model::Model::open`] reads an ONNX file and runs it, so that every shape is known.
//! [`data::Dataset`] is a file of labelled samples, read as a stream and fitted to the model.
//! [`attack::AttackPlan`] is a list of attacks with their parameters.
//! [`evaluate::evaluate`] attacks every sample; what it finds goes to an [`evaluate::Observer`] and into the rows of a summary, which
//! [`report`] renders.
//! [`runtime::initialize`] comes before all of it: it finds ONNX Runtime on this machine, or fetches it.
//!
//! ```no_run
//! use mohs::attack::AttackPlan;
//! use mohs::data::{Dataset, Options, Source};
//! use mohs::evaluate::{Config, evaluate};
//! use mohs::model::{Model, ModelOptions};
//! use mohs::runtime::{LibraryOptions, initialize};
//!
//! initialize(&LibraryOptions::default())?;
//! let model = Model::open("model.onnx".as_ref(), &ModelOptions::default())?;
//! let options = Options { input_shape: Some(model.sample_shape().to_vec()), ..Options::default() };
//! let data = Dataset::open(&Source::new("test.npz"))?.prepared(&options)?;
//!
//! let config = Config::new(AttackPlan::parse("fgsm,pgd:steps=40")?, vec![2.0 / 255.0, 8.0 / 255.0]);
//! let report = evaluate(&model, &data, &config, None, &mut ())?;
//! for row in &report.summary {
//!     println!("{} at {}: {:.3}", row.attack, row.epsilon, row.robust_accuracy);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/evaluate.rs` is the same with every sample looked at.
//! For the gradient alone: [`model::Model::gradient`] gives a graph that is itself a model, and [`onnx::write`] writes it.
//! For an attack of one's own: implement [`attack::Attack`] and give it to [`attack::AttackPlan::new`].
//!
//! # The floors
//!
//! A module may use only those above it in this list (`ARCHITECTURE.md` has the table):
//!
//! - values: [`tensor`], [`rng`], [`loss`], [`threat`], [`outcome`]
//! - edges of the world and pure algorithms: [`onnx`], [`data`], [`attack`], [`gate`], [`report`]
//! - the graph: [`graph`]
//! - derivatives and execution: [`grad`], [`runtime`]
//! - the model under test: [`model`]
//! - the jobs: [`evaluate`], [`train`]
//! - the command: [`cli`]

pub mod attack;
pub mod cli;
pub mod data;
pub mod evaluate;
pub mod gate;
pub mod grad;
pub mod graph;
pub mod loss;
pub mod model;
pub mod onnx;
pub mod outcome;
pub mod report;
pub mod rng;
pub mod runtime;
pub mod tensor;
pub mod threat;
pub mod train;
