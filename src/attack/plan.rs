//! The attacks that a user asked for.

use super::spec::{did_you_mean, list};
use super::{ATTACKS, Attack, AttackSpec, AutoAttack, Error, QueryAttack, Transfer};
use crate::threat::{Norm, parse_number};
use std::sync::Arc;
use toml::{Table, Value};

/// The attacks of one evaluation, in the order in which they were asked for; at least one, no two alike.
#[derive(Debug, Clone)]
pub struct AttackPlan {
    attacks: Vec<Planned>,
}

/// An attack of any kind, with its parameters set.
#[derive(Debug, Clone)]
pub enum Planned {
    /// One that follows gradients.
    Gradient(Arc<dyn Attack>),
    /// One that needs none.
    Query(Arc<dyn QueryAttack>),
    /// Several, each on the samples that those before it left.
    Ensemble(Arc<AutoAttack>),
    /// One that follows the gradients of another model.
    Transfer(Arc<Transfer>),
}

impl Planned {
    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Planned::Gradient(attack) => attack.name(),
            Planned::Query(attack) => attack.name(),
            Planned::Ensemble(ensemble) => ensemble.name(),
            Planned::Transfer(transfer) => transfer.name(),
        }
    }

    /// The name with every parameter that differs from its default.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Planned::Gradient(attack) => attack.label(),
            Planned::Query(attack) => attack.label(),
            Planned::Ensemble(ensemble) => ensemble.label(),
            Planned::Transfer(transfer) => transfer.label(),
        }
    }

    /// Refuses parameters that make no sense.
    ///
    /// # Errors
    /// [`Error::Value`], which says what would be right.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Planned::Gradient(attack) => attack.check(),
            Planned::Query(attack) => attack.check(),
            Planned::Transfer(transfer) => transfer.check(),
            // It has no numbers to choose.
            Planned::Ensemble(_) => Ok(()),
        }
    }

    /// Refuses norms that the attack is not made for.
    ///
    /// # Errors
    /// [`Error::Norm`], which says what to use instead.
    pub fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        match self {
            Planned::Gradient(attack) => attack.check_norm(norm),
            Planned::Query(attack) => attack.check_norm(norm),
            Planned::Transfer(transfer) => transfer.check_norm(norm),
            Planned::Ensemble(_) => {
                let mut parts = self.parts(norm).into_iter();
                parts.try_for_each(|part| part.check_norm(norm))
            }
        }
    }

    /// Gradient evaluations, or queries, of a restart; of an ensemble, added up over its attacks.
    #[must_use]
    pub fn steps(&self, norm: Norm) -> u32 {
        match self {
            Planned::Gradient(attack) => attack.steps(),
            Planned::Query(attack) => attack.queries(),
            Planned::Transfer(transfer) => transfer.attack.steps(),
            Planned::Ensemble(_) => self.sum(norm, Planned::steps),
        }
    }

    /// How often the attack is run on a sample that it has not broken yet; of an ensemble, added up over its attacks.
    #[must_use]
    pub fn restarts(&self, norm: Norm) -> u32 {
        match self {
            Planned::Gradient(attack) => attack.restarts(),
            Planned::Query(attack) => attack.restarts(),
            Planned::Transfer(transfer) => transfer.attack.restarts(),
            Planned::Ensemble(_) => self.sum(norm, Planned::restarts),
        }
    }

    fn sum(&self, norm: Norm, of: fn(&Planned, Norm) -> u32) -> u32 {
        let parts = self.parts(norm);
        let counts = parts.iter().map(|part| of(part, norm));
        counts.fold(0, u32::saturating_add)
    }

    /// The attacks that are run: those of an ensemble, or the attack itself.
    #[must_use]
    pub fn parts(&self, norm: Norm) -> Vec<Planned> {
        match self {
            Planned::Gradient(_) | Planned::Query(_) | Planned::Transfer(_) => {
                vec![self.clone()]
            }
            Planned::Ensemble(ensemble) => {
                let stages = ensemble.stages(norm).into_iter();
                stages.map(|stage| stage.attack).collect()
            }
        }
    }

    /// The attack, where it follows the gradients of the model under test.
    #[must_use]
    pub fn gradient(&self) -> Option<&Arc<dyn Attack>> {
        match self {
            Planned::Gradient(attack) => Some(attack),
            Planned::Query(_) | Planned::Ensemble(_) | Planned::Transfer(_) => None,
        }
    }

    /// The attack whose steps are taken, along gradients of the model under test or of another.
    #[must_use]
    pub fn stepping(&self) -> Option<&Arc<dyn Attack>> {
        match self {
            Planned::Gradient(attack) => Some(attack),
            Planned::Transfer(transfer) => Some(&transfer.attack),
            Planned::Query(_) | Planned::Ensemble(_) => None,
        }
    }

    /// The attack, where it follows the gradients of another model.
    #[must_use]
    pub fn transfer(&self) -> Option<&Arc<Transfer>> {
        match self {
            Planned::Transfer(transfer) => Some(transfer),
            Planned::Gradient(_) | Planned::Query(_) | Planned::Ensemble(_) => None,
        }
    }
}

impl From<Arc<dyn Attack>> for Planned {
    fn from(attack: Arc<dyn Attack>) -> Self {
        Planned::Gradient(attack)
    }
}

impl From<Arc<dyn QueryAttack>> for Planned {
    fn from(attack: Arc<dyn QueryAttack>) -> Self {
        Planned::Query(attack)
    }
}

impl AttackPlan {
    /// A plan of attacks that are already made.
    ///
    /// # Errors
    /// Where there is none, where one's parameters make no sense, or where two have the same label.
    pub fn new(attacks: impl IntoIterator<Item = impl Into<Planned>>) -> Result<Self, Error> {
        let attacks: Vec<Planned> = attacks.into_iter().map(Into::into).collect();
        if attacks.is_empty() {
            return Err(Error::Empty { known: known() });
        }
        for (position, attack) in attacks.iter().enumerate() {
            attack.check()?;
            let label = attack.label();
            if attacks.iter().take(position).any(|a| a.label() == label) {
                return Err(Error::Duplicate { label });
            }
        }
        Ok(AttackPlan { attacks })
    }

    /// Reads a list such as `fgsm,fgm,pgd:steps=40,restarts=5`.
    ///
    /// Attacks are separated by commas, each with its own parameters after a colon; an item with `=` and no colon before it belongs to
    /// the attack before it. Values are integers, decimals, fractions (`2/255`), `true`, `false` and words.
    ///
    /// # Errors
    /// Where a name, a parameter or a value is not known or not allowed; each message lists what is.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut items: Vec<(&str, Table)> = Vec::new();
        for item in text.split(',').map(str::trim).filter(|i| !i.is_empty()) {
            // The first of the two signs says what it is: values may hold colons (`source=C:\other.onnx`).
            let named = item.split_once(':');
            let named = named.filter(|(name, _)| !name.contains('='));
            let parameter = match named {
                Some((name, first)) => {
                    items.push((name.trim(), Table::new()));
                    first
                }
                None if item.contains('=') => item,
                None => {
                    items.push((item, Table::new()));
                    continue;
                }
            };
            let Some((attack, table)) = items.last_mut() else {
                return Err(Error::NoAttackBefore {
                    item: item.to_owned(),
                });
            };
            add_parameter(attack, table, parameter)?;
        }
        let attacks = items
            .into_iter()
            .map(|(name, table)| build(name, table))
            .collect::<Result<Vec<_>, _>>()?;
        AttackPlan::new(attacks)
    }

    /// The attacks that are run, those of an ensemble one by one.
    #[must_use]
    pub fn parts(&self, norm: Norm) -> Vec<Planned> {
        let attacks = self.attacks.iter();
        attacks.flat_map(|attack| attack.parts(norm)).collect()
    }

    /// The attacks, in order.
    #[must_use]
    pub fn attacks(&self) -> &[Planned] {
        &self.attacks
    }

    /// Refuses a norm that one of the attacks is not made for.
    ///
    /// # Errors
    /// [`Error::Norm`], which says what to use instead.
    pub fn check_norm(&self, norm: Norm) -> Result<(), Error> {
        self.attacks
            .iter()
            .try_for_each(|attack| attack.check_norm(norm))
    }
}

/// Reads `key=value` into `table`.
fn add_parameter(attack: &str, table: &mut Table, item: &str) -> Result<(), Error> {
    let (key, value) = item
        .split_once('=')
        .map(|(key, value)| (key.trim(), value.trim()))
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
        .ok_or_else(|| Error::Malformed {
            attack: attack.to_owned(),
            item: item.to_owned(),
        })?;
    match table.insert(key.to_owned(), read_value(value)) {
        None => Ok(()),
        Some(_) => Err(Error::Repeated {
            attack: attack.to_owned(),
            parameter: key.to_owned(),
        }),
    }
}

/// The value that a word stands for: an integer, a boolean, a number, or the word itself.
#[expect(
    clippy::same_functions_in_if_condition,
    reason = "each parses another type"
)]
pub(crate) fn read_value(word: &str) -> Value {
    if let Ok(integer) = word.parse() {
        Value::Integer(integer)
    } else if let Ok(boolean) = word.parse() {
        Value::Boolean(boolean)
    } else if let Ok(number) = parse_number(word) {
        Value::Float(number)
    } else {
        Value::String(word.to_owned())
    }
}

/// The attack of that name with these parameters.
pub(super) fn build(name: &str, table: Table) -> Result<Planned, Error> {
    (find(name)?.build)(table)
}

fn find(name: &str) -> Result<&'static AttackSpec, Error> {
    ATTACKS
        .iter()
        .find(|spec| spec.name == name)
        .ok_or_else(|| Error::UnknownAttack {
            name: name.to_owned(),
            hint: did_you_mean(name, ATTACKS.iter().map(|spec| spec.name)),
            known: known(),
        })
}

fn known() -> String {
    list(ATTACKS.iter().map(|spec| spec.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Loss;

    fn labels(text: &str) -> Vec<String> {
        let plan = AttackPlan::parse(text).unwrap();
        plan.attacks().iter().map(|attack| attack.label()).collect()
    }

    fn message(text: &str) -> String {
        AttackPlan::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn items_with_an_equals_sign_belong_to_the_attack_before_them() {
        assert_eq!(
            labels("fgsm, fgm,pgd:steps=20,restarts=5,fgm:loss=margin"),
            ["fgsm", "fgm", "pgd:steps=20,restarts=5", "fgm:loss=margin"]
        );
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let plan =
            AttackPlan::parse("pgd:steps=7,step_size=2/255,random_start=false,loss=dlr").unwrap();
        let pgd = plan.attacks()[0].gradient().unwrap();
        assert_eq!(pgd.steps(), 7);
        assert_eq!(pgd.step_size(1.0), 2.0 / 255.0);
        assert!(!pgd.random_start());
        assert_eq!(pgd.loss(), Loss::Dlr);
    }

    #[test]
    fn defaults_are_left_out_of_labels_and_labels_read_back() {
        for (text, label) in [
            (
                "pgd:steps=40,restarts=1,random_start=true,loss=cross-entropy",
                "pgd",
            ),
            (
                "pgd:restarts=2,step_size=2/255,steps=3",
                "pgd:steps=3,step_size=0.00784313725490196,restarts=2",
            ),
            ("pgd:step_size=1", "pgd:step_size=1"),
            ("pgd:step_size=1e-9", "pgd:step_size=0.000000001"),
        ] {
            assert_eq!(labels(text), [label]);
            assert_eq!(labels(label), [label]);
        }
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_list_of_what_is() {
        let known = known();
        assert!(known.starts_with("fgsm, fgm, pgd"), "{known}");
        for (text, expected) in [
            ("pdg", "there is no attack `pdg` (did you mean `pgd`?)"),
            ("circle", "there is no attack `circle`"),
            ("", "no attack is named"),
        ] {
            assert_eq!(
                message(text),
                format!("{expected}; the attacks are {known}")
            );
        }
        for (text, expected) in [
            (
                "pgd:step=4",
                "attack `pgd` has no parameter `step` (did you mean `steps`?); it has steps, step_size, restarts, random_start, loss, targets and eot",
            ),
            (
                "fgsm:steps=4",
                "attack `fgsm` has no parameter `steps`; it has loss and targets",
            ),
        ] {
            assert_eq!(message(text), expected);
        }
    }

    #[test]
    fn malformed_lists_are_refused() {
        for (text, expected) in [
            (
                "steps=4",
                "`steps=4` is a parameter, but no attack stands before it; write the attack first, as in pgd:steps=40",
            ),
            (
                "pgd:40",
                "attack `pgd`: `40` is no parameter; write key=value, as in pgd:steps=40",
            ),
            (
                "pgd:",
                "attack `pgd`: `` is no parameter; write key=value, as in pgd:steps=40",
            ),
            (
                "pgd:steps=",
                "attack `pgd`: `steps=` is no parameter; write key=value, as in pgd:steps=40",
            ),
            (
                "pgd:steps=4,steps=5",
                "attack `pgd`: `steps` is given twice",
            ),
            (
                "pgd,fgsm,pgd:steps=40",
                "attack `pgd` is listed twice; list it once, or give the second one other parameters",
            ),
        ] {
            assert_eq!(message(text), expected);
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_those_that_can() {
        for (text, expected) in [
            (
                "steps=0",
                "`steps` cannot be 0; give a whole number from 1 to 4294967295",
            ),
            (
                "steps=-1",
                "`steps` cannot be -1; give a whole number from 1 to 4294967295",
            ),
            (
                "loss=dlr,steps=2.5",
                "`steps` cannot be 2.5; give a whole number from 1 to 4294967295",
            ),
            (
                "steps=many",
                "`steps` cannot be many; give a whole number from 1 to 4294967295",
            ),
            (
                "restarts=9999999999",
                "`restarts` cannot be 9999999999; give a whole number from 1 to 4294967295",
            ),
            (
                "step_size=0",
                "`step_size` cannot be 0; give a number above 0, as a decimal or a fraction such as 2/255",
            ),
            (
                "step_size=nan",
                "`step_size` cannot be NaN; give a number above 0, as a decimal or a fraction such as 2/255",
            ),
            (
                "step_size=1/0",
                "`step_size` cannot be 1/0; give a number above 0, as a decimal or a fraction such as 2/255",
            ),
            (
                "random_start=1",
                "`random_start` cannot be 1; give true or false",
            ),
            (
                "loss=hinge",
                "`loss` cannot be hinge; give cross-entropy, margin or dlr",
            ),
            (
                "restarts=2,random_start=false",
                "restarts=2 with random_start=false would run the same attack again and again; allow the random start, or drop the restarts",
            ),
        ] {
            assert_eq!(
                message(&format!("pgd:{text}")),
                format!("attack `pgd`: {expected}")
            );
        }
    }

    /// Configuration files have no fractions of their own.
    #[test]
    fn tables_hold_fractions_as_text() {
        let table: Table = "step_size = '2/255'\nsteps = 3".parse().unwrap();
        let pgd = (find("pgd").unwrap().build)(table).unwrap();
        assert_eq!(pgd.gradient().unwrap().step_size(1.0), 2.0 / 255.0);
    }

    #[test]
    fn fgsm_sends_other_norms_to_fgm() {
        let plan = AttackPlan::parse("fgm,pgd,fgsm").unwrap();
        assert_eq!(plan.check_norm(Norm::Linf), Ok(()));
        let message = plan.check_norm(Norm::L2).unwrap_err().to_string();
        assert_eq!(
            message,
            "attack `fgsm` is not made for the norm l2; use fgm, the same single step in the l2 and l1 norms"
        );
    }
}
