//! Transfer: what another attack finds on another model, judged by the model under test.

use super::plan::build;
use super::spec::{REQUIRED, plain};
use super::{Attack, AttackSpec, Error, Goal, Parameter, Pgd, Planned};
use crate::threat::Norm;
use std::path::{Path, PathBuf};
use std::{fmt::Write as _, sync::Arc};
use toml::{Table, Value};

pub(super) const SPEC: AttackSpec = AttackSpec {
    name: "transfer",
    summary: "Takes the steps of another attack on another model, and asks this one about the points",
    what_it_does: "\
Runs `attack` along the gradients of `source`, another ONNX model for the same inputs and classes, and has every point judged by the model under test: `transfer:source=other.onnx,attack=mi_fgsm,steps=20`.
Every further parameter is one of `attack`.
Steps, momentum and step sizes go by the source alone, and by it the classes that `targets` counts; the model under test is only asked which class it gives.
It is asked about every point on the way, and a sample is done with the first one that breaks it; with `--keep last` about the last point of each restart, as where examples are made first and carried over afterwards.
`--mean` and `--std` stand in front of the source too, and so does every other setting of the run: device, `--straight-through`, `--keep-softmax`, `--search-precision`.
Samples that the source gets wrong are attacked like all others.
In reports the source goes by its file name; its path and SHA-256 are in the provenance. Gradient evaluations are those of the source.",
    when_to_use: "\
For models whose own gradients say nothing or are not there (quantised, decision trees, random, labels alone), with a source that was trained for the same task; and beside `pgd` or `apgd`: where another model's gradients break more than the model's own, those mislead.
`mi_fgsm` makes examples that carry over further than those of `pgd`.",
    when_not: "\
Alone, as a measure of robustness: what does not carry over from one source may from another, so that the true robust accuracy is lower.",
    parameters: &[
        Parameter {
            name: "source",
            default: REQUIRED,
            accepts: "the path of an ONNX model, without a comma in it",
            help: "The model whose gradients are followed. In `mohs.toml`, paths count from its folder.",
        },
        Parameter {
            name: "attack",
            default: "pgd",
            accepts: "fgsm, fgm, pgd, mi_fgsm or apgd",
            help: "The attack that is run on the source; every further parameter is its own.",
        },
        Parameter {
            name: "normalize",
            default: "true",
            accepts: "true or false",
            help: "`false` leaves `--mean` and `--std` out in front of the source, where it has its own.",
        },
    ],
    reference: "\
Papernot, McDaniel and Goodfellow: Transferability in Machine Learning: from Phenomena to Black-Box Attacks using Adversarial Samples. 2016, <https://arxiv.org/abs/1605.07277>.
Momentum for it: Dong, Liao, Pang, Su, Zhu, Hu and Li: Boosting Adversarial Attacks with Momentum. CVPR 2018, <https://arxiv.org/abs/1710.06081>.",
    build: |table| {
        let transfer = Transfer::read(table)?;
        transfer.check()?;
        Ok(Planned::Transfer(Arc::new(transfer)))
    },
};

/// An attack on another model.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The model whose gradients are followed.
    pub source: PathBuf,
    /// The attack that is run on it; one that looks within a radius.
    pub attack: Arc<dyn Attack>,
    /// Whether the normalisation of the model under test stands in front of the source too.
    pub normalize: bool,
}

impl Transfer {
    /// `pgd` on another model.
    #[must_use]
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Transfer {
            source: source.into(),
            attack: Arc::new(Pgd::default()),
            normalize: true,
        }
    }

    fn read(mut table: Table) -> Result<Self, Error> {
        let source = table.remove("source").ok_or_else(|| {
            SPEC.refuse("it follows the gradients of another model; name it, as in transfer:source=other.onnx")
        })?;
        let normalize = match table.remove("normalize") {
            None => true,
            Some(Value::Boolean(normalize)) => normalize,
            Some(other) => {
                let given = plain(&other);
                return Err(
                    SPEC.refuse(format!("`normalize` cannot be {given}; give true or false"))
                );
            }
        };
        let name = table
            .remove("attack")
            .map_or_else(|| Pgd::default().name().to_owned(), |name| plain(&name));
        let attack = match build(&name, table)? {
            Planned::Gradient(attack) => attack,
            Planned::Query(_) | Planned::Ensemble(_) | Planned::Transfer(_) => {
                return Err(Self::refuse(&name));
            }
        };
        Ok(Transfer {
            source: plain(&source).into(),
            attack,
            normalize,
        })
    }

    fn refuse(attack: &str) -> Error {
        SPEC.refuse(format!(
            "`attack` cannot be {attack}: what carries over is found by climbing within a radius; give fgsm, fgm, pgd, mi_fgsm or apgd"
        ))
    }

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        SPEC.name
    }

    /// The name with the file name of the source, and every other parameter that differs from its default.
    #[must_use]
    pub fn label(&self) -> String {
        let inner = self.attack.label();
        let (attack, parameters) = inner.split_once(':').unwrap_or((&inner, ""));
        let mut label = format!("{}:source={}", SPEC.name, self.source_name());
        // Writing to a string cannot fail.
        if attack != Pgd::default().name() {
            let _ = write!(label, ",attack={attack}");
        }
        if !self.normalize {
            label.push_str(",normalize=false");
        }
        if !parameters.is_empty() {
            let _ = write!(label, ",{parameters}");
        }
        label
    }

    /// The file name of the source.
    #[must_use]
    pub fn source_name(&self) -> String {
        let name = self.source.file_name().unwrap_or(self.source.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// Refuses parameters that make no sense.
    ///
    /// # Errors
    /// [`Error::Value`], which says what would be right.
    pub fn check(&self) -> Result<(), Error> {
        if self.source.as_os_str().is_empty() {
            return Err(SPEC.refuse("`source` is empty; give the path of an ONNX model"));
        }
        if self.attack.goal() != Goal::Radius {
            return Err(Self::refuse(self.attack.name()));
        }
        self.attack.check()
    }

    /// Refuses norms that the attack on the source is not made for.
    ///
    /// # Errors
    /// [`Error::Norm`], which says what to use instead.
    pub fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        self.attack.check_norm(norm)
    }
}

/// A list of attacks as [`AttackPlan::parse`](super::AttackPlan::parse) reads it, in which the paths of sources count from `folder`.
#[must_use]
pub(crate) fn with_sources_in(folder: &Path, attacks: &str) -> String {
    let items = attacks.split(',').map(|item| {
        let start = item.find("source=").map(|at| at + "source=".len());
        let at = start.filter(|&at| {
            let before = item[..at].trim().trim_end_matches("source=");
            before.is_empty() || before.ends_with(':')
        });
        at.map_or_else(
            || item.to_owned(),
            |at| {
                let (key, path) = item.split_at(at);
                format!("{key}{}", folder.join(path.trim()).display())
            },
        )
    });
    let items: Vec<String> = items.collect();
    items.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::AttackPlan;

    fn transfer(text: &str) -> Arc<Transfer> {
        match AttackPlan::parse(text).unwrap().attacks() {
            [Planned::Transfer(transfer)] => Arc::clone(transfer),
            other => panic!("{other:?}"),
        }
    }

    fn message(text: &str) -> String {
        AttackPlan::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn further_parameters_are_those_of_the_attack_on_the_source() {
        let found =
            transfer("transfer:source=nets/other.onnx,attack=apgd,steps=20,targets=3,loss=margin");
        assert_eq!(found.source, Path::new("nets/other.onnx"));
        assert_eq!((found.attack.name(), found.attack.steps()), ("apgd", 20));
        assert_eq!((found.attack.targets(), found.attack.restarts()), (3, 3));
        let plain = transfer("transfer:source=other.onnx");
        assert_eq!((plain.attack.name(), plain.attack.steps()), ("pgd", 40));
        assert!(plain.normalize);
    }

    #[test]
    fn labels_name_the_file_of_the_source_and_read_back() {
        for (text, label) in [
            (
                "transfer:source=a/b.onnx,attack=pgd",
                "transfer:source=b.onnx",
            ),
            (
                "transfer:steps=20,source=b.onnx,attack=mi_fgsm,decay=0.9,normalize=false",
                "transfer:source=b.onnx,attack=mi_fgsm,normalize=false,steps=20,decay=0.9",
            ),
        ] {
            assert_eq!(transfer(text).label(), label);
            assert_eq!(transfer(label).label(), label);
        }
    }

    #[test]
    fn a_path_may_be_a_number_or_have_a_drive_in_it() {
        assert_eq!(transfer("transfer:source=17").source, Path::new("17"));
        for text in [
            r"transfer:source=C:\other.onnx,steps=3",
            r"transfer:steps=3,source=C:\other.onnx",
        ] {
            assert_eq!(transfer(text).source, Path::new(r"C:\other.onnx"), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (text, expected) in [
            (
                "transfer",
                "attack `transfer`: it follows the gradients of another model; name it, as in transfer:source=other.onnx",
            ),
            (
                "transfer:source=b.onnx,attack=square",
                "attack `transfer`: `attack` cannot be square: what carries over is found by climbing within a radius; give fgsm, fgm, pgd, mi_fgsm or apgd",
            ),
            (
                "transfer:source=b.onnx,attack=cw",
                "attack `transfer`: `attack` cannot be cw: what carries over is found by climbing within a radius; give fgsm, fgm, pgd, mi_fgsm or apgd",
            ),
            (
                "transfer:source=b.onnx,normalize=3",
                "attack `transfer`: `normalize` cannot be 3; give true or false",
            ),
            (
                "transfer:source=b.onnx,attack=fgsm,steps=3",
                "attack `fgsm` has no parameter `steps`; it has loss and targets",
            ),
        ] {
            assert_eq!(message(text), expected);
        }
        assert!(message("transfer:source=b.onnx,attack=pdg").contains("did you mean `pgd`?"));
    }

    #[test]
    fn it_is_made_for_the_norms_of_the_attack_on_the_source() {
        let plan = AttackPlan::parse("transfer:source=b.onnx,attack=fgsm").unwrap();
        assert!(plan.check_norm(Norm::Linf).is_ok());
        assert!(plan.check_norm(Norm::L2).is_err());
    }

    #[test]
    fn paths_in_a_list_count_from_a_folder() {
        let inside = |text| with_sources_in(Path::new("nets"), text);
        assert_eq!(inside("pgd:steps=3,fgsm"), "pgd:steps=3,fgsm");
        assert_eq!(
            inside("pgd, transfer:source=b.onnx,steps=3"),
            format!(
                "pgd, transfer:source={},steps=3",
                Path::new("nets").join("b.onnx").display()
            )
        );
        assert_eq!(
            inside("transfer:attack=pgd,source=b.onnx"),
            format!(
                "transfer:attack=pgd,source={}",
                Path::new("nets").join("b.onnx").display()
            )
        );
        let absolute = std::env::temp_dir().join("b.onnx").display().to_string();
        let text = format!("transfer:source={absolute}");
        assert_eq!(inside(&text), text);
    }
}
