//! What an evaluation notices about itself.
//!
//! Pure arithmetic over counts and rows, but for two small runs: [`control`], an attack that has to succeed, and [`probe`], the same
//! samples judged once more.
//! A robust accuracy is only ever as good as the attack behind it; what is found here says where the attack was none (Carlini et al., On
//! Evaluating Adversarial Robustness, 2019, has the list that this one goes by).

pub(super) mod control;
pub(super) mod probe;

use crate::attack::{Attack, Goal};
use crate::outcome::{Diagnostic, DiagnosticKind, Norm, SummaryRow, WORST_CASE};

/// Where so large a share of the samples is in doubt, the number is.
const GRAVE: f64 = 0.01;

/// Where the loss of so large a share of the samples did not rise, the attack went the wrong way.
const FLAT: f64 = 0.05;

/// Where so large a share of the samples was broken in the last steps, many more would have been later.
const LATE: f64 = 0.05;

/// Where the last restart alone broke so large a share of the samples, the next ones would break many more.
const GAINING: f64 = 0.05;

/// Fewer samples say nothing.
const FEW: u64 = 2;

/// What was counted of one attack at one ε, in samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Robust, though a gradient was zero in every element.
    pub(super) dead: u64,
    /// Given up, a gradient being NaN or infinite.
    pub(super) not_finite: u64,
    /// Robust, and the loss not above that of the clean sample.
    pub(super) flat: u64,
    /// Broken in the last tenth of all steps and restarts.
    pub(super) late: u64,
    /// Broken in the last of several restarts, and in none before it.
    pub(super) last: u64,
}

/// One attack of an evaluation, as far as diagnostics need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial<'a> {
    /// What it is called in the rows: the attack's own label, or that of its ensemble.
    pub(super) label: &'a str,
    pub(super) attack: &'a dyn Attack,
    /// Whether its gradients are those of another model.
    pub(super) foreign: bool,
    pub(super) norm: Norm,
    pub(super) epsilons: &'a [f64],
    /// One for each ε.
    pub(super) tallies: &'a [Tally],
    /// All samples, those that are wrong clean too.
    pub(super) samples: u64,
    /// Whether gradients pass through rounding already.
    pub(super) straight_through: bool,
}

impl Trial<'_> {
    /// What the counts and the attack's parameters say.
    pub(super) fn diagnose(&self) -> Vec<Diagnostic> {
        let gaining = self.gaining();
        let said = gaining.as_ref().is_some_and(|found| found.untrustworthy);
        let found = [
            self.dead(),
            self.not_finite(),
            self.flat(),
            self.short(),
            gaining,
            self.late().filter(|_| !said),
        ];
        found.into_iter().flatten().collect()
    }

    fn dead(&self) -> Option<Diagnostic> {
        let (share, epsilons, untrustworthy) = self.worst(|tally| tally.dead, GRAVE)?;
        let rounding = if self.straight_through {
            ""
        } else {
            ", and --straight-through where the model rounds or quantises"
        };
        Some(self.found(
            DiagnosticKind::ZeroGradients,
            (share, epsilons, untrustworthy),
            format!(
                "{} % of the samples count as robust although their gradient was zero in every element: where the loss has run flat no \
                 step is made",
                percent(share)
            ),
            format!("try loss=margin{rounding}"),
        ))
    }

    fn not_finite(&self) -> Option<Diagnostic> {
        let found = self.worst(|tally| tally.not_finite, GRAVE)?;
        let finding = format!(
            "{} % of the samples had a gradient that is NaN or infinite, and the attack was given up there",
            percent(found.0)
        );
        let advice = "look for a logarithm, a root or a division at 0 in the model".to_owned();
        Some(self.found(DiagnosticKind::NonFiniteGradients, found, finding, advice))
    }

    fn flat(&self) -> Option<Diagnostic> {
        let found = self.worst(|tally| tally.flat, FLAT)?;
        // What another model's gradients do to the loss here is what the attack asks.
        if self.foreign || found.0 < GRAVE {
            return None;
        }
        let finding = format!(
            "{} % of the samples count as robust although the loss at the end of the attack is not above the loss of the clean sample",
            percent(found.0)
        );
        let advice = if self.attack.steps() == 1 {
            "one step went too far: use pgd"
        } else {
            "take more and smaller steps, or another loss; where that changes nothing, gradients lead nowhere in this model"
        };
        Some(self.found(DiagnosticKind::FlatLoss, found, finding, advice.to_owned()))
    }

    /// An attack that has come to its end finds nothing in its last steps.
    fn late(&self) -> Option<Diagnostic> {
        let found = self.worst(|tally| tally.late, LATE)?;
        let most = self.tallies.iter().map(|tally| tally.late).max()?;
        // A few late finds are usual: boundaries are everywhere.
        if found.0 < LATE || most < FEW {
            return None;
        }
        let finding = format!(
            "{} % of the samples were broken in the last tenth of the steps and restarts: the attack had not come to its end",
            percent(found.0)
        );
        let advice = "take twice the steps or restarts, until the robust accuracy stays".to_owned();
        Some(self.found(DiagnosticKind::NotConverged, found, finding, advice))
    }

    /// A sample is broken in each restart with a chance of its own: what the last one has found is the best guess at what the next one would.
    fn gaining(&self) -> Option<Diagnostic> {
        let found = self.worst(|tally| tally.last, GAINING)?;
        let most = self.tallies.iter().map(|tally| tally.last).max()?;
        // Below one in a hundred another restart changes nothing that is looked at.
        if found.0 < GRAVE || most < FEW {
            return None;
        }
        let restarts = self.attack.restarts();
        let finding = format!(
            "the last of {restarts} restarts broke {} % of the samples, which those before it had not: more restarts would break more",
            percent(found.0)
        );
        let advice =
            "take twice the restarts, until the robust accuracy stays, or apgd, which needs fewer"
                .to_owned();
        Some(self.found(DiagnosticKind::NotConverged, found, finding, advice))
    }

    /// Whether all steps together are shorter than the radius.
    fn short(&self) -> Option<Diagnostic> {
        if self.attack.goal() != Goal::Radius {
            return None;
        }
        let steps = self.attack.moves();
        let reach = |epsilon: f64| f64::from(steps) * self.attack.step_size(epsilon) / epsilon;
        // A little less than ε may be rounding.
        let short = |reach: f64| reach < 0.999;
        let epsilons: Vec<f64> = self
            .epsilons
            .iter()
            .copied()
            .filter(|&e| short(reach(e)))
            .collect();
        let worst = epsilons.iter().copied().map(reach).reduce(f64::min)?;
        let finding = format!(
            "{steps} steps of this size reach {worst:.2} of the radius, so that most of the ball is never looked at"
        );
        let advice = "take more or longer steps; without step_size they add up to 2.5·ε".to_owned();
        Some(self.found(
            DiagnosticKind::ShortSteps,
            (worst, epsilons, true),
            finding,
            advice,
        ))
    }

    /// The largest share that a count comes to, the radii concerned, and whether it is grave there; the grave radii alone if there are any.
    fn worst(&self, count: fn(&Tally) -> u64, grave: f64) -> Option<(f64, Vec<f64>, bool)> {
        let share = |tally: &Tally| count(tally) as f64 / self.samples.max(1) as f64;
        let shares = || self.epsilons.iter().zip(self.tallies.iter().map(share));
        let above = |least: f64| -> Vec<f64> {
            let concerned = shares().filter(|(_, share)| *share > 0.0 && *share >= least);
            concerned.map(|(epsilon, _)| *epsilon).collect()
        };
        let largest = shares().map(|(_, share)| share).fold(0.0, f64::max);
        let grave = above(grave);
        match (grave.is_empty(), largest > 0.0) {
            (_, false) => None,
            (true, true) => Some((largest, above(0.0), false)),
            (false, true) => Some((largest, grave, true)),
        }
    }

    fn found(
        &self,
        kind: DiagnosticKind,
        (figure, epsilons, untrustworthy): (f64, Vec<f64>, bool),
        finding: String,
        advice: String,
    ) -> Diagnostic {
        Diagnostic {
            kind,
            attack: Some(self.label.to_owned()),
            norm: Some(self.norm),
            epsilons,
            figure,
            finding,
            advice,
            untrustworthy,
        }
    }
}

/// Which attacks are of which kind, by what the rows call them.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds {
    /// Those that climb within a radius along the model's own gradients, of which many steps should do what one does.
    pub(super) ascents: Vec<String>,
    /// Those that follow another model's gradients.
    pub(super) transfers: Vec<String>,
}

/// What the rows say when they are looked at side by side.
pub(super) fn of_rows(
    rows: &[SummaryRow],
    kinds: &Kinds,
    classes: Option<usize>,
) -> Vec<Diagnostic> {
    let mut found = rising(rows);
    found.extend(single_step_stronger(rows, &kinds.ascents));
    found.extend(outsider_stronger(rows, kinds));
    found.extend(guessing(rows, classes));
    found
}

/// A difference between rows that is more than a sample here or there.
fn notable(larger: f64, smaller: f64, samples: u64) -> bool {
    let count = ((larger - smaller) * samples as f64).round();
    count >= 2.0 && larger - smaller >= GRAVE
}

/// A larger ball holds the smaller one: what is broken in it stays broken.
fn rising(rows: &[SummaryRow]) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    for row in rows.iter().filter(|row| row.attack != WORST_CASE) {
        let smaller = rows.iter().filter(|other| {
            other.attack == row.attack && other.norm == row.norm && other.epsilon < row.epsilon
        });
        let least = smaller.min_by(|a, b| a.robust_accuracy.total_cmp(&b.robust_accuracy));
        let Some(least) = least else { continue };
        if !notable(row.robust_accuracy, least.robust_accuracy, row.samples) {
            continue;
        }
        let rise = row.robust_accuracy - least.robust_accuracy;
        let known = found.iter_mut().find(|known| {
            known.attack.as_ref() == Some(&row.attack) && known.norm == Some(row.norm)
        });
        if let Some(known) = known {
            known.epsilons.push(row.epsilon);
            known.figure = known.figure.max(rise);
            continue;
        }
        found.push(Diagnostic {
            kind: DiagnosticKind::RisesWithEpsilon,
            attack: Some(row.attack.clone()),
            norm: Some(row.norm),
            epsilons: vec![row.epsilon],
            figure: rise,
            finding: format!(
                "the robust accuracy rises from {} % at ε {} to {} % at ε {}, and a larger ball holds the smaller one",
                percent(least.robust_accuracy),
                least.epsilon,
                percent(row.robust_accuracy),
                row.epsilon
            ),
            advice: "take more steps or restarts, and judge every point (--keep any)".to_owned(),
            untrustworthy: true,
        });
    }
    found
}

/// Many steps can do what one does; where they do worse, gradients mislead.
fn single_step_stronger(rows: &[SummaryRow], ascents: &[String]) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    let attacks = || rows.iter().filter(|row| ascents.contains(&row.attack));
    // Without gradients there is nothing that could mislead.
    let follows = |row: &&SummaryRow| row.steps > 1 && row.gradient_evaluations > 0;
    for many in attacks().filter(follows) {
        let same = |row: &&SummaryRow| {
            row.steps == 1
                && row.norm == many.norm
                && row.epsilon.to_bits() == many.epsilon.to_bits()
        };
        let singles = attacks().filter(same);
        let Some(single) = singles.min_by(|a, b| a.robust_accuracy.total_cmp(&b.robust_accuracy))
        else {
            continue;
        };
        if !notable(many.robust_accuracy, single.robust_accuracy, many.samples) {
            continue;
        }
        found.push(Diagnostic {
            kind: DiagnosticKind::SingleStepStronger,
            attack: None,
            norm: Some(many.norm),
            epsilons: vec![many.epsilon],
            figure: many.robust_accuracy - single.robust_accuracy,
            finding: format!(
                "at ε {} {} leaves {} % of the samples robust with a single step, and {} with {} steps {} %: gradients mislead where \
                 the loss surface is rough or flat",
                many.epsilon,
                single.attack,
                percent(single.robust_accuracy),
                many.attack,
                many.steps,
                percent(many.robust_accuracy)
            ),
            advice: "take more restarts, loss=margin, and an attack that needs no gradients; the true robust accuracy is lower than either"
                .to_owned(),
            untrustworthy: true,
        });
    }
    found
}

/// Who sees the model's gradients knows more than who asks for scores or labels, or sees those of another model; where that is of no use,
/// they mislead.
fn outsider_stronger(rows: &[SummaryRow], kinds: &Kinds) -> Vec<Diagnostic> {
    let attacks = || rows.iter().filter(|row| row.attack != WORST_CASE);
    let carried = |row: &SummaryRow| kinds.transfers.contains(&row.attack);
    let asks = |row: &SummaryRow| row.gradient_evaluations == 0 && !carried(row);
    // One step is no match for thousands of queries, or for many steps elsewhere.
    let sees = |row: &&SummaryRow| !carried(row) && !asks(row) && row.steps > 1;
    let mut found = Vec::new();
    for outside in attacks().filter(|row| asks(row) || carried(row)) {
        let same = |row: &&SummaryRow| {
            row.norm == outside.norm && row.epsilon.to_bits() == outside.epsilon.to_bits()
        };
        let best = attacks()
            .filter(sees)
            .filter(same)
            .min_by(|a, b| a.robust_accuracy.total_cmp(&b.robust_accuracy));
        let Some(best) = best else { continue };
        if !notable(
            best.robust_accuracy,
            outside.robust_accuracy,
            outside.samples,
        ) {
            continue;
        }
        let (kind, of_it) = if carried(outside) {
            let of_it = "which follows another model's gradients";
            (DiagnosticKind::TransferStronger, of_it)
        } else {
            (DiagnosticKind::BlackBoxStronger, "which sees no gradients")
        };
        let of_the_best = match kind {
            DiagnosticKind::TransferStronger => "which follows the model's own",
            _ => "which does",
        };
        found.push(Diagnostic {
            kind,
            attack: None,
            norm: Some(outside.norm),
            epsilons: vec![outside.epsilon],
            figure: best.robust_accuracy - outside.robust_accuracy,
            finding: format!(
                "at ε {} {}, {of_it}, leaves {} % of the samples robust, and {}, {of_the_best}, {} %: gradients mislead",
                outside.epsilon,
                outside.attack,
                percent(outside.robust_accuracy),
                best.attack,
                percent(best.robust_accuracy),
            ),
            advice: "take apgd with loss=margin and more restarts, and --straight-through where the model rounds; the true robust accuracy is \
                     lower than either"
                .to_owned(),
            untrustworthy: true,
        });
    }
    found
}

/// A model that is right no more often than chance does not get what it was trained on.
fn guessing(rows: &[SummaryRow], classes: Option<usize>) -> Option<Diagnostic> {
    let (row, classes) = (rows.first()?, classes?);
    let chance = 1.0 / classes.max(1) as f64;
    (row.clean_accuracy <= chance).then(|| Diagnostic {
        kind: DiagnosticKind::NoBetterThanChance,
        attack: None,
        norm: None,
        epsilons: Vec::new(),
        figure: row.clean_accuracy,
        finding: format!(
            "the model is right on {} % of the samples as they are, no better than guessing among {classes} classes",
            percent(row.clean_accuracy)
        ),
        advice: "check that the labels belong to it, and that the samples have the range and layout that it was trained on (--scale, \
                 --mean, --std, --layout)"
            .to_owned(),
        untrustworthy: false,
    })
}

/// A share in percent, with one decimal.
fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::AttackPlan;

    const EPSILONS: [f64; 3] = [0.1, 0.2, 0.3];

    fn trial(attack: &str, tallies: [Tally; 3]) -> Vec<Diagnostic> {
        let plan = AttackPlan::parse(attack).unwrap();
        let trial = Trial {
            label: &plan.attacks()[0].label(),
            attack: plan.attacks()[0].gradient().unwrap().as_ref(),
            foreign: false,
            norm: Norm::Linf,
            epsilons: &EPSILONS,
            tallies: &tallies,
            samples: 1000,
            straight_through: false,
        };
        trial.diagnose()
    }

    fn kinds(found: &[Diagnostic]) -> Vec<(&'static str, Vec<f64>, bool)> {
        let one =
            |found: &Diagnostic| (found.kind.id(), found.epsilons.clone(), found.untrustworthy);
        found.iter().map(one).collect()
    }

    fn row(attack: &str, steps: u32, epsilon: f64, robust: u64) -> SummaryRow {
        SummaryRow {
            attack: attack.to_owned(),
            epsilon,
            steps,
            gradient_evaluations: 1000 * u64::from(steps),
            samples: 1000,
            clean_accuracy: 0.95,
            robust_accuracy: robust as f64 / 1000.0,
            ..SummaryRow::blank()
        }
    }

    fn known() -> Kinds {
        Kinds {
            ascents: ["fgsm", "pgd"].map(str::to_owned).to_vec(),
            transfers: vec!["transfer".to_owned()],
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is_wrong() {
        assert!(trial("pgd", [Tally::default(); 3]).is_empty());
        assert!(trial("fgsm", [Tally::default(); 3]).is_empty());
        let rows = [
            row("fgsm", 1, 0.1, 700),
            row("fgsm", 1, 0.2, 500),
            row("pgd", 40, 0.1, 601),
            row("pgd", 40, 0.2, 200),
            row(WORST_CASE, 41, 0.2, 200),
        ];
        assert!(of_rows(&rows, &known(), Some(10)).is_empty());
    }

    #[test]
    fn zero_gradients_are_grave_from_one_in_a_hundred() {
        let tally = |dead| Tally {
            dead,
            ..Tally::default()
        };
        let found = trial("pgd", [tally(3), tally(0), tally(9)]);
        assert_eq!(kinds(&found), [("zero-gradients", vec![0.1, 0.3], false)]);
        let found = trial("pgd", [tally(3), tally(10), tally(500)]);
        assert_eq!(kinds(&found), [("zero-gradients", vec![0.2, 0.3], true)]);
        assert!(found[0].finding.starts_with("50.0 % of the samples"));
    }

    #[test]
    fn gradients_that_are_no_numbers_are_found() {
        let tally = Tally {
            not_finite: 20,
            ..Tally::default()
        };
        let found = trial("pgd", [tally; 3]);
        assert_eq!(
            kinds(&found),
            [("non-finite-gradients", EPSILONS.to_vec(), true)]
        );
        assert!((found[0].figure - 0.02).abs() < 1e-12);
    }

    #[test]
    fn losses_that_do_not_rise_are_grave_where_they_are_many() {
        let tally = |flat| Tally {
            flat,
            ..Tally::default()
        };
        assert!(
            trial("pgd", [tally(9); 3]).is_empty(),
            "a few may be rounding"
        );
        let found = trial("pgd", [tally(20), tally(9), tally(0)]);
        assert_eq!(kinds(&found), [("flat-loss", vec![0.1, 0.2], false)]);
        let found = trial("fgsm", [tally(0), tally(20), tally(60)]);
        assert_eq!(kinds(&found), [("flat-loss", vec![0.3], true)]);
        assert!(found[0].advice.contains("use pgd"));
    }

    #[test]
    fn an_attack_that_still_finds_something_at_its_end_has_not_converged() {
        let tally = |late| Tally {
            late,
            ..Tally::default()
        };
        let late = |counts: [u64; 3]| kinds(&trial("pgd", counts.map(tally)));
        assert!(late([0, 9, 49]).is_empty(), "less than one in twenty");
        assert_eq!(late([80, 9, 12]), [("not-converged", vec![0.1], true)]);
        let plan = AttackPlan::parse("pgd").unwrap();
        let single = Trial {
            label: "pgd",
            attack: plan.attacks()[0].gradient().unwrap().as_ref(),
            foreign: false,
            norm: Norm::Linf,
            epsilons: &EPSILONS,
            tallies: &[tally(1); 3],
            samples: 10,
            straight_through: false,
        };
        assert!(single.diagnose().is_empty(), "a single sample says nothing");
    }

    #[test]
    fn restarts_that_still_gain_have_not_converged() {
        let tally = |last| Tally {
            last,
            ..Tally::default()
        };
        let gaining = |counts: [u64; 3]| trial("pgd:restarts=5", counts.map(tally));
        assert!(gaining([0, 3, 9]).is_empty(), "less than one in a hundred");
        let found = gaining([0, 13, 9]);
        assert_eq!(kinds(&found), [("not-converged", vec![0.2, 0.3], false)]);
        assert!(
            found[0]
                .finding
                .starts_with("the last of 5 restarts broke 1.3 %")
        );
        let found = gaining([0, 13, 50]);
        assert_eq!(kinds(&found), [("not-converged", vec![0.3], true)]);
        // Said once, whichever way it shows.
        let both = Tally {
            late: 60,
            last: 70,
            ..Tally::default()
        };
        let found = trial("pgd:restarts=5", [both; 3]);
        assert_eq!(kinds(&found), [("not-converged", EPSILONS.to_vec(), true)]);
    }

    #[test]
    fn queries_that_do_better_than_gradients_are_found() {
        let square = |robust| SummaryRow {
            gradient_evaluations: 0,
            ..row("square", 5000, 0.1, robust)
        };
        let pgd = row("pgd", 40, 0.1, 320);
        let found = of_rows(&[pgd.clone(), square(300)], &known(), Some(10));
        assert_eq!(kinds(&found), [("black-box-stronger", vec![0.1], true)]);
        assert!((found[0].figure - 0.02).abs() < 1e-12);
        assert_eq!(found[0].attack, None, "it concerns the worst case too");
        for rows in [
            vec![pgd.clone(), square(315)],
            vec![pgd.clone(), row("apgd", 100, 0.1, 290), square(300)],
            vec![row("fgsm", 1, 0.1, 500), square(300)],
            vec![row("pgd", 40, 0.2, 320), square(300)],
            vec![square(300)],
        ] {
            assert!(of_rows(&rows, &known(), Some(10)).is_empty(), "{rows:?}");
        }
    }

    #[test]
    fn another_model_s_gradients_that_do_better_than_the_model_s_own_are_found() {
        let carried = |robust| row("transfer", 40, 0.1, robust);
        let pgd = row("pgd", 40, 0.1, 320);
        let found = of_rows(&[pgd.clone(), carried(300)], &known(), Some(10));
        assert_eq!(kinds(&found), [("transfer-stronger", vec![0.1], true)]);
        assert!((found[0].figure - 0.02).abs() < 1e-12);
        for part in ["transfer", "30.0 %", "pgd", "32.0 %"] {
            assert!(found[0].finding.contains(part), "{}", found[0].finding);
        }
        for rows in [
            vec![pgd.clone(), carried(315)],
            vec![pgd, carried(330)],
            vec![row("fgsm", 1, 0.1, 500), carried(300)],
            vec![row("pgd", 40, 0.2, 320), carried(300)],
            vec![carried(300)],
        ] {
            assert!(of_rows(&rows, &known(), Some(10)).is_empty(), "{rows:?}");
        }
    }

    #[test]
    fn another_model_s_gradients_are_no_match_for_queries_to_be_measured_by() {
        let square = SummaryRow {
            gradient_evaluations: 0,
            ..row("square", 5000, 0.1, 300)
        };
        let carried = row("transfer", 40, 0.1, 500);
        assert!(of_rows(&[carried, square], &known(), Some(10)).is_empty());
    }

    #[test]
    fn steps_have_to_reach_the_edge_of_the_ball() {
        let short = |attack| kinds(&trial(attack, [Tally::default(); 3]));
        assert_eq!(
            short("pgd:steps=10,step_size=0.02"),
            [("short-steps", vec![0.3], true)]
        );
        assert!(short("pgd:steps=10,step_size=0.03").is_empty());
    }

    #[test]
    fn a_robust_accuracy_that_rises_is_found_at_every_larger_radius() {
        let rows = [
            row("pgd", 40, 0.1, 300),
            row("pgd", 40, 0.2, 305),
            row("pgd", 40, 0.3, 350),
            row("pgd", 40, 0.4, 400),
        ];
        let found = of_rows(&rows, &known(), Some(10));
        assert_eq!(
            kinds(&found),
            [("rises-with-epsilon", vec![0.3, 0.4], true)],
            "half a percent is a sample here or there"
        );
        assert!((found[0].figure - 0.1).abs() < 1e-12);
    }

    #[test]
    fn one_step_that_does_better_than_many_is_found() {
        let found = of_rows(
            &[row("fgsm", 1, 0.1, 300), row("pgd", 40, 0.1, 320)],
            &known(),
            Some(10),
        );
        assert_eq!(kinds(&found), [("single-step-stronger", vec![0.1], true)]);
        assert_eq!(found[0].attack, None, "it concerns the worst case too");
    }

    #[test]
    fn a_model_that_guesses_is_found() {
        let guess = SummaryRow {
            clean_accuracy: 0.1,
            ..row("pgd", 40, 0.1, 0)
        };
        assert_eq!(
            kinds(&of_rows(&[guess], &known(), Some(10))),
            [("no-better-than-chance", vec![], false)]
        );
    }
}
