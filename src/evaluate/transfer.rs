//! Transfer: the engine runs an attack on another model, the source, and the model under test judges what it finds.
//!
//! The source is opened and differentiated before anything runs, as the model under test is.

use super::engine::{self, Bench, Foreign, Job, Ran};
use super::{CleanVerdicts, Config, Error, Gradients, judge_clean};
use crate::attack::{AttackPlan, Planned, Transfer};
use crate::data::{Dataset, reshapes};
use crate::model::{self, Model};
use crate::outcome::FileRecord;
use std::sync::Arc;

/// The sources of an evaluation, opened.
#[derive(Debug)]
pub(super) struct Sources {
    opened: Vec<(Arc<Transfer>, Model)>,
}

impl Sources {
    /// Opens the source of every attack that has one, and refuses those that do not go with the model.
    pub(super) fn open(model: &Model, data: &Dataset, plan: &AttackPlan) -> Result<Self, Error> {
        let attacks = plan.attacks().iter().filter_map(Planned::transfer);
        let opened = attacks.map(|attack| {
            let source = open(model, data, attack)?;
            Ok((Arc::clone(attack), source))
        });
        Ok(Sources {
            opened: opened.collect::<Result<_, Error>>()?,
        })
    }

    /// The files, by content.
    pub(super) fn records(&self) -> Vec<FileRecord> {
        let files = self.opened.iter().map(|(_, source)| FileRecord {
            path: source.path().display().to_string(),
            sha256: source.sha256().to_owned(),
        });
        files.collect()
    }

    /// What was decided about the sources on the way, in sentences.
    pub(super) fn notes(&self, model: &Model) -> Vec<String> {
        let notes = self.opened.iter().flat_map(|(attack, source)| {
            let name = attack.source_name();
            let is_same = source.sha256() == model.sha256();
            let same = is_same.then(|| {
                "it is the model under test itself, so that nothing is carried over".to_owned()
            });
            let notes = source.notes().iter().cloned().chain(same);
            notes.map(move |note| format!("source {name}: {note}"))
        });
        notes.collect()
    }

    /// Derives what every attack follows.
    pub(super) fn differentiate(&self, config: &Config) -> Result<Vec<Followed<'_>>, Error> {
        let followed = self.opened.iter().map(|(attack, source)| {
            let mut gradients = Gradients::new(source, None, config);
            let derived = gradients.get(attack.attack.as_ref());
            derived.map_err(|error| match error {
                // Which attacks the source could be attacked with is not what was asked.
                Error::NoGradient { source, .. } => no_gradient(attack, source),
                error => at_source(attack, error),
            })?;
            Ok(Followed {
                label: attack.label(),
                attack,
                source,
                gradients,
            })
        });
        followed.collect()
    }
}

/// The one that belongs to an attack.
pub(super) fn find<'f, 'a>(
    followed: &'f mut [Followed<'a>],
    attack: &Transfer,
) -> Result<&'f mut Followed<'a>, Error> {
    let label = attack.label();
    let found = followed.iter_mut().find(|one| one.label == label);
    found.ok_or_else(|| Error::Config(format!("the source of {label} was not opened")))
}

/// A source with the gradients that its attack follows.
pub(super) struct Followed<'a> {
    label: String,
    attack: &'a Arc<Transfer>,
    source: &'a Model,
    gradients: Gradients<'a>,
}

impl Followed<'_> {
    /// Runs the attack over all samples.
    pub(super) fn run(
        &mut self,
        job: &Job<'_, Transfer>,
        bench: &mut Bench<'_>,
    ) -> Result<Ran, Error> {
        let attack = Arc::clone(&self.attack.attack);
        let ranked = match attack.targets() {
            0 => None,
            targets => Some(self.ranked(job, targets)?),
        };
        let gradient = self.gradients.get(attack.as_ref())?;
        let job = Job {
            clean: ranked.as_ref().unwrap_or(job.clean),
            foreign: Some(Foreign {
                model: self.source,
                label: &self.label,
            }),
            ..job.of(attack.as_ref())
        };
        engine::run(&job, gradient, bench)
    }

    /// The clean verdicts of the model under test, with the classes that the source would say next.
    fn ranked(&self, job: &Job<'_, Transfer>, targets: u32) -> Result<CleanVerdicts, Error> {
        let targets = usize::try_from(targets).unwrap_or(usize::MAX);
        let mut judge = self.source.judge()?;
        let bounds = job.config.bounds;
        let ranked = judge_clean(&mut judge, self.source, job.data, bounds, targets);
        let (ranked, _) = ranked.map_err(|error| at_source(self.attack, error))?;
        Ok(CleanVerdicts {
            verdicts: job.clean.verdicts.clone(),
            ..ranked
        })
    }
}

/// Opens the source of an attack; it has to take the same samples and tell the same classes apart.
fn open(model: &Model, data: &Dataset, attack: &Transfer) -> Result<Model, Error> {
    let refuse = |reason: String| {
        let name = attack.source.display();
        Error::Config(format!("the source {name} {reason}"))
    };
    if model.is_cut() {
        return Err(Error::Config(format!(
            "{} is found on another model, and an inner tensor belongs to one model alone; leave --wrt or the attack out",
            attack.label()
        )));
    }
    let source = model
        .open_beside(&attack.source, attack.normalize)
        .map_err(|error| at_source(attack, Error::Model(error)))?;
    if let Some(others) = source.other_inputs() {
        return Err(refuse(format!(
            "has further inputs ({others}), and the data set has nothing for them"
        )));
    }
    let (own, its) = (model.data_shape(), source.data_shape());
    if !reshapes(own, its) {
        return Err(refuse(format!(
            "takes samples of shape {its:?} and the model {own:?}; give a source for the same samples"
        )));
    }
    let Some(classes) = source.classes() else {
        return Err(refuse(format!(
            "gives labels alone in its output `{}`, and nothing there has a gradient; give a source with scores",
            source.output()
        )));
    };
    match model.classes() {
        Some(own) if own != classes => {
            return Err(refuse(format!(
                "tells {classes} classes apart and the model {own}; give a source for the same classes"
            )));
        }
        Some(_) => {}
        // A model that gives labels alone does not tell how many there are.
        None => {
            let classes = u32::try_from(classes).unwrap_or(u32::MAX);
            let bounds = (f32::NEG_INFINITY, f32::INFINITY);
            data.validate(Some(classes), bounds)
                .map_err(|error| at_source(attack, Error::Data(error)))?;
        }
    }
    Ok(source)
}

/// An error with the source that it belongs to.
fn at_source(attack: &Transfer, error: Error) -> Error {
    Error::Source {
        path: attack.source.clone(),
        source: Box::new(error),
    }
}

fn no_gradient(attack: &Transfer, error: model::Error) -> Error {
    Error::NoSourceGradient {
        path: attack.source.clone(),
        source: error,
    }
}
