//! Plain training.

use super::{Method, MethodSpec, Needs, Stats, right, total_loss};
use crate::model::training::Trainable;
use crate::train::engine::{Batch, Engine, Feed};
use crate::train::pass::PassSpec;
use crate::train::start::Noise;
use crate::train::{Error, Setting};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const SPEC: MethodSpec = MethodSpec {
    kind: "method",
    name: "standard",
    summary: "Plain training on the samples as they are",
    what_it_does: "One descent step on the mean cross-entropy of each batch. One pass per weight step.",
    parameters: &[],
    reference: "",
    build: |table| Ok(Arc::new(SPEC.read::<Standard>(table)?)),
};

/// Plain training.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Standard {}

impl Method for Standard {
    fn label(&self) -> String {
        SPEC.label(self)
    }

    fn perturbs(&self) -> bool {
        false
    }

    fn needs(&self, _: &Setting, _: &Trainable) -> Result<Needs, Error> {
        Ok(Needs {
            noise: Noise::None,
            passes: vec![PassSpec::step()],
        })
    }

    fn step(&self, engine: &mut Engine, batch: &Batch) -> Result<Stats, Error> {
        let ran = engine.run(0, batch, Feed::default())?;
        Ok(Stats {
            loss: total_loss(&ran)?,
            clean: Some(right(&ran, batch)?),
            robust: None,
        })
    }
}
