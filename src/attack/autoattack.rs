//! `AutoAttack`: an ensemble of four attacks without parameters, each on the samples that those before it left.

use super::{Apgd, AttackSpec, Fab, Loss, Parameter, Planned, Square};
use crate::threat::Norm;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "autoattack",
    summary: "The ensemble of apgd-ce, apgd-t, fab-t and square, each on the samples that are left",
    what_it_does: "\
Runs attacks one after the other, each on the samples that no attack before it has broken, and reports them as one: a sample is broken where any of them breaks it.
`standard` is `apgd` on the cross-entropy, `apgd` toward each of 9 classes on the targeted dlr, `fab` toward each of 9 classes, and `square` with 5,000 queries; all with 100 steps from one start.
In ℓ1 the first has 5 restarts, and the second goes toward 5 classes.
`plus` is `apgd` on the cross-entropy and on dlr with 5 restarts each, `fab` toward the nearest of all classes with 5 restarts, `square`, `apgd` toward each of 9 classes, and `fab` toward each of 9 classes.
`rand` is `apgd` on the cross-entropy and on dlr, each step along the mean of 20 gradients, for models with randomness.
Every point counts, whatever `--keep` says, and `fab` lets a sample go with the first point within the smallest radius.
A model of fewer than 10 classes is run toward all but the label's. The targeted dlr needs 4 classes and dlr needs 3: with fewer, the margin takes their place, and a note says so (the authors' code stops with an error there).
A note says how many samples each attack broke.
In `samples.csv` the column `restart` counts through all of them in their order (in `standard` 0 is apgd-ce, 1 to 9 apgd-t, 10 to 18 fab-t and 19 square; in ℓ1 0 to 4, 5 to 9, 10 to 18 and 19); `steps` are gradient evaluations alone.",
    when_to_use: "\
For numbers that stand: it is what published robust accuracies are measured with, it needs no tuning, and it finds what `pgd` misses, also where gradients are hidden.",
    when_not: "\
On every commit: a sample that withstands it takes 1,900 gradient evaluations and 5,000 queries. Use `apgd` there.
A model without gradients is for `square` alone, one that gives labels without scores for `hopskipjump`.",
    parameters: &[Parameter {
        name: "version",
        default: "standard",
        accepts: "standard, plus or rand",
        help: "Which attacks the ensemble has.",
    }],
    reference: "\
Croce and Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks. ICML 2020, <https://arxiv.org/abs/2003.01690>.
The ℓ1 form: Croce and Hein: Mind the box: l1-APGD for sparse adversarial attacks on image classifiers. ICML 2021, <https://arxiv.org/abs/2103.01208>.",
    build: |table| {
        let autoattack: AutoAttack = SPEC.read(table)?;
        Ok(Planned::Ensemble(Arc::new(autoattack)))
    },
};

/// The ensemble.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoAttack {
    /// Which attacks it has.
    pub version: Version,
}

/// Which attacks the ensemble has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// The four whose numbers are published.
    #[default]
    Standard,
    /// More restarts, and dlr without targets.
    Plus,
    /// For models with randomness.
    Rand,
}

/// One attack of an ensemble.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What the authors call it.
    pub name: &'static str,
    /// The attack.
    pub attack: Planned,
}

/// A whole number above 0 that is written here.
const fn count(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

impl AutoAttack {
    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        SPEC.name
    }

    /// The name with the version where that is not the standard one.
    #[must_use]
    pub fn label(&self) -> String {
        SPEC.label(self)
    }

    /// The attacks, in the order in which they are run.
    #[must_use]
    pub fn stages(&self, norm: Norm) -> Vec<Stage> {
        let gradient = |name, attack: Apgd| Stage {
            name,
            attack: Planned::Gradient(Arc::new(attack)),
        };
        let apgd = |loss, restarts, eot| Apgd {
            loss,
            restarts: count(restarts),
            eot: count(eot),
            ..Apgd::default()
        };
        let toward = |targets| Apgd {
            loss: Loss::Dlr,
            targets,
            ..Apgd::default()
        };
        let fab = |name, fab: Fab| Stage {
            name,
            attack: Planned::Gradient(Arc::new(fab)),
        };
        let fab_t = fab("fab-t", Fab::default());
        let square = Stage {
            name: "square",
            attack: Planned::Query(Arc::new(Square::default())),
        };
        let cross_entropy = Loss::CrossEntropy;
        match self.version {
            Version::Standard => {
                let (restarts, targets) = match norm {
                    Norm::Linf | Norm::L2 => (1, 9),
                    // Nothing is made for ℓ0: `check_norm` refuses it.
                    Norm::L1 | Norm::L0 => (5, 5),
                };
                vec![
                    gradient("apgd-ce", apgd(cross_entropy, restarts, 1)),
                    gradient("apgd-t", toward(targets)),
                    fab_t,
                    square,
                ]
            }
            Version::Plus => vec![
                gradient("apgd-ce", apgd(cross_entropy, 5, 1)),
                gradient("apgd-dlr", apgd(Loss::Dlr, 5, 1)),
                fab(
                    "fab",
                    Fab {
                        restarts: count(5),
                        untargeted: true,
                        ..Fab::default()
                    },
                ),
                square,
                gradient("apgd-t", toward(9)),
                fab_t,
            ],
            Version::Rand => vec![
                gradient("apgd-ce", apgd(cross_entropy, 1, 20)),
                gradient("apgd-dlr", apgd(Loss::Dlr, 1, 20)),
            ],
        }
    }

    /// What is another for a model of so few classes, in a sentence.
    #[must_use]
    pub fn variant(&self, norm: Norm, classes: usize) -> Option<String> {
        let changed: Vec<String> = self
            .stages(norm)
            .iter()
            .filter_map(|stage| {
                let attack = stage.attack.gradient()?;
                let (asked, followed) = (attack.loss(), attack.loss_for(classes));
                let kind = if attack.targets() > 0 {
                    "targeted "
                } else {
                    ""
                };
                (asked != followed).then(|| {
                    format!(
                        "{} follows the {kind}{followed} instead of the {kind}{asked}",
                        stage.name
                    )
                })
            })
            .collect();
        (!changed.is_empty()).then(|| {
            format!(
                "{}: {}, which is not defined for {classes} classes",
                self.label(),
                changed.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::AttackPlan;

    fn labels(text: &str, norm: Norm) -> Vec<(&'static str, String)> {
        let plan = AttackPlan::parse(text).unwrap();
        let Planned::Ensemble(autoattack) = &plan.attacks()[0] else {
            panic!("an ensemble");
        };
        let stages = autoattack.stages(norm).into_iter();
        stages
            .map(|stage| (stage.name, stage.attack.label()))
            .collect()
    }

    #[test]
    fn the_versions_are_those_of_the_authors() {
        let standard = |first: &str, second: &str| {
            vec![
                ("apgd-ce", first.to_owned()),
                ("apgd-t", second.to_owned()),
                ("fab-t", "fab".to_owned()),
                ("square", "square".to_owned()),
            ]
        };
        for norm in [Norm::Linf, Norm::L2] {
            assert_eq!(
                labels("autoattack", norm),
                standard("apgd", "apgd:loss=dlr,targets=9")
            );
        }
        assert_eq!(
            labels("autoattack:version=standard", Norm::L1),
            standard("apgd:restarts=5", "apgd:loss=dlr,targets=5")
        );
        assert_eq!(
            labels("autoattack:version=plus", Norm::Linf),
            [
                ("apgd-ce", "apgd:restarts=5".to_owned()),
                ("apgd-dlr", "apgd:restarts=5,loss=dlr".to_owned()),
                ("fab", "fab:restarts=5,untargeted=true".to_owned()),
                ("square", "square".to_owned()),
                ("apgd-t", "apgd:loss=dlr,targets=9".to_owned()),
                ("fab-t", "fab".to_owned()),
            ]
        );
        assert_eq!(
            labels("autoattack:version=rand", Norm::L2),
            [
                ("apgd-ce", "apgd:eot=20".to_owned()),
                ("apgd-dlr", "apgd:loss=dlr,eot=20".to_owned()),
            ]
        );
    }

    #[test]
    fn the_budgets_are_those_of_the_authors() {
        for norm in Norm::ALL {
            let stages = AutoAttack::default().stages(norm);
            let steps: Vec<u32> = stages
                .iter()
                .map(|stage| stage.attack.steps(norm))
                .collect();
            assert_eq!(steps, [100, 100, 100, 5000]);
        }
    }

    #[test]
    fn few_classes_have_their_variant_and_it_is_said() {
        let standard = AutoAttack::default();
        assert_eq!(standard.variant(Norm::Linf, 4), None);
        for classes in [2, 3] {
            let note = standard.variant(Norm::Linf, classes).unwrap();
            assert!(
                note.contains("apgd-t follows the targeted margin instead of the targeted dlr"),
                "{note}"
            );
            assert!(note.contains(&format!("{classes} classes")), "{note}");
        }
        let rand = AutoAttack {
            version: Version::Rand,
        };
        assert_eq!(rand.variant(Norm::Linf, 3), None);
        let note = rand.variant(Norm::Linf, 2).unwrap();
        assert!(
            note.contains("apgd-dlr follows the margin instead of the dlr"),
            "{note}"
        );
    }

    #[test]
    fn an_unknown_version_is_refused_with_those_that_there_are() {
        let error = AttackPlan::parse("autoattack:version=quick").unwrap_err();
        let message = error.to_string();
        assert!(message.contains("standard, plus or rand"), "{message}");
    }
}
