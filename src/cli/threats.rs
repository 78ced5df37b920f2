//! What is asked of an evaluation: an evaluation for each norm, one after the other.

use super::arguments::{BatchSize, EvaluateArguments, Keep};
use super::exit::{Blame, Failure};
use crate::attack::{AttackPlan, Planned};
use crate::evaluate::{self, Config};
use crate::outcome::Norm;
use crate::threat::{Bounds, Epsilon};

/// An evaluation in one norm or in several.
pub(super) struct Threats {
    /// What is the same in all norms, with every attack; norm and radii are those of the first.
    pub(super) common: Config,
    /// The evaluation of each norm, by those attacks that are made for it.
    pub(super) each: Vec<Config>,
    /// Each norm with its radii as they were written, ascending.
    pub(super) radii: Vec<(Norm, Vec<Epsilon>)>,
    /// What was decided, in sentences.
    pub(super) notes: Vec<String>,
}

impl Threats {
    /// What the arguments ask for; opens nothing.
    pub(super) fn new(arguments: &EvaluateArguments) -> Result<Self, Failure> {
        arguments.check().or_bad_input()?;
        let attacks = AttackPlan::parse(&arguments.attack.join(",")).or_bad_input()?;
        let radii = arguments.threats();
        let config = |norm: Norm, radii: &[Epsilon], attacks: AttackPlan| Config {
            attacks,
            norm,
            epsilons: radii.iter().map(Epsilon::value).collect(),
            bounds: bounds(arguments),
            keep: match arguments.keep {
                Keep::Any => evaluate::Keep::Any,
                Keep::Last => evaluate::Keep::Last,
            },
            seed: arguments.seed,
            batch_size: match arguments.batch_size {
                BatchSize::Auto => None,
                BatchSize::Fixed(size) => Some(size.get()),
            },
            keep_softmax: arguments.model.keep_softmax,
        };
        let each = radii
            .iter()
            .map(|(norm, radii)| {
                Ok(config(
                    *norm,
                    radii,
                    made_for(&attacks, *norm, &arguments.norm)?,
                ))
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let notes = left_out(&attacks, &arguments.norm)?;
        let (norm, first) = radii.first().cloned().unwrap_or((Norm::Linf, Vec::new()));
        Ok(Threats {
            common: config(norm, &first, attacks),
            each,
            radii,
            notes,
        })
    }

    /// One evaluation, its radii as they were written.
    pub(super) fn single(config: Config, radii: Vec<Epsilon>) -> Self {
        Threats {
            radii: vec![(config.norm, radii)],
            each: vec![config.clone()],
            common: config,
            notes: Vec::new(),
        }
    }

    /// Whether there are radii to attack at, rather than a range to search alone.
    pub(super) fn has_radii(&self) -> bool {
        !self.common.epsilons.is_empty()
    }

    /// Every radius as it was written.
    pub(super) fn epsilons(&self) -> Vec<Epsilon> {
        let radii = self.radii.iter().flat_map(|(_, radii)| radii);
        radii.cloned().collect()
    }

    /// Every attack in the norms and at the radii that it will run at.
    pub(super) fn cells(&self) -> Vec<(String, Norm, f64)> {
        let attacks = |config: &Config| {
            let (norm, radii) = (config.norm, config.epsilons.clone());
            let labels: Vec<String> = config
                .attacks
                .attacks()
                .iter()
                .map(Planned::label)
                .collect();
            labels.into_iter().flat_map(move |label| {
                let cell = move |epsilon| (label.clone(), norm, epsilon);
                radii.clone().into_iter().map(cell)
            })
        };
        self.each.iter().flat_map(attacks).collect()
    }
}

/// The attacks that are made for a norm; where it is the only one, all have to be.
fn made_for(attacks: &AttackPlan, norm: Norm, norms: &[Norm]) -> Result<AttackPlan, Failure> {
    if norms.len() == 1 {
        attacks.check_norm(norm).or_bad_input()?;
    }
    let fitting = attacks.attacks().iter();
    let fitting: Vec<Planned> = fitting
        .filter(|attack| attack.check_norm(norm).is_ok())
        .cloned()
        .collect();
    if fitting.is_empty() {
        attacks.check_norm(norm).or_bad_input()?;
    }
    AttackPlan::new(fitting).or_bad_input()
}

/// Says which attacks run in some of the norms alone; an attack has to run in one.
fn left_out(attacks: &AttackPlan, norms: &[Norm]) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    for attack in attacks.attacks() {
        let (run, left): (Vec<Norm>, Vec<Norm>) = norms
            .iter()
            .partition(|&&norm| attack.check_norm(norm).is_ok());
        let (Some(first), names) = (left.first(), names(&run)) else {
            continue;
        };
        if run.is_empty() {
            attack.check_norm(*first).or_bad_input()?;
        }
        notes.push(format!(
            "{} runs in {names} alone: it is not made for {}",
            attack.label(),
            self::names(&left)
        ));
    }
    Ok(notes)
}

fn names(norms: &[Norm]) -> String {
    let names: Vec<&str> = norms.iter().map(|norm| norm.name()).collect();
    names.join(" and ")
}

/// The bounds of what is perturbed: those of the data say nothing of an inner tensor.
pub(super) fn bounds(arguments: &EvaluateArguments) -> Bounds {
    match arguments.model.wrt {
        Some(_) => Bounds::NONE,
        None => arguments.bounds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::{Arguments, Command};
    use clap::Parser;

    fn threats(line: &str) -> Result<Threats, String> {
        let line = format!("mohs evaluate model.onnx --data test.npz {line}");
        match Arguments::parse_from(line.split_whitespace()).command {
            Command::Evaluate(arguments) => {
                Threats::new(&arguments).map_err(|failure| failure.to_string())
            }
            _ => unreachable!("the line says evaluate"),
        }
    }

    #[test]
    fn each_norm_has_its_radii_and_the_attacks_made_for_it() {
        let threats =
            threats("--norm linf,l2 --epsilon l2:1/2,linf:8/255,0.01 --attack fgsm,pgd").unwrap();
        let each: Vec<_> = threats
            .each
            .iter()
            .map(|config| (config.norm, &config.epsilons[..]))
            .collect();
        assert_eq!(
            each,
            [
                (Norm::Linf, &[0.01, 8.0 / 255.0][..]),
                (Norm::L2, &[0.01, 0.5])
            ]
        );
        let cells = threats.cells();
        assert_eq!(cells.len(), 6);
        assert_eq!(cells[4], ("pgd".to_owned(), Norm::L2, 0.01));
        assert_eq!(
            threats.notes,
            ["fgsm runs in linf alone: it is not made for l2"]
        );
        assert_eq!(threats.common.attacks.attacks().len(), 2);
    }

    #[test]
    fn norms_and_radii_that_do_not_meet_are_refused() {
        let refusal = |line| threats(line).err().expect(line);
        insta::assert_snapshot!(
            [
                refusal("--norm linf,l2 --epsilon linf:0.1"),
                refusal("--epsilon l2:0.5"),
                refusal("--norm l2,l2 --epsilon 0.5"),
                refusal("--norm linf,l2 --epsilon 0.1,l2:0.10"),
                refusal("--norm l2,l1 --epsilon 0.1 --attack fgsm,pgd"),
                refusal("--norm linf,l2 --epsilon 0.1 --attack fgsm"),
                refusal("--norm linf,l2 --minimal-epsilon 0,1"),
            ].join("\n"),
            @"
            --norm has l2, and no radius of --epsilon counts in it; give one, such as l2:0.5, or take the norm out
            --epsilon has l2:0.5, and --norm is linf; add that norm to --norm, or take the radius out
            --norm has l2 twice; give each norm once
            --epsilon has `0.1` and `0.10`, which are the same radius; give each radius once
            attack `fgsm` is not made for the norm l2; use fgm, the same single step in the l2 and l1 norms
            attack `fgsm` is not made for the norm l2; use fgm, the same single step in the l2 and l1 norms
            --minimal-epsilon looks in one range, and --norm is linf,l2; give one norm, and search in the others by themselves
            "
        );
    }
}
