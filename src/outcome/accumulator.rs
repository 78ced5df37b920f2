//! From outcomes of single samples to the rows of a summary, in one pass.

use super::sample_set::SampleSet;
use super::{Norm, SampleOutcome, SummaryError, SummaryRow, clopper_pearson};

/// The name, in the column `attack`, of the row over all attacks.
pub const WORST_CASE: &str = "worst-case";

/// One attack at one ε: the cell of the evaluation that one row of the summary is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The attack's name with its parameters, as in [`SampleOutcome::attack`].
    pub attack: String,
    /// The norm of the threat model.
    pub norm: Norm,
    /// The radius of the ball, in the units of the data.
    pub epsilon: f64,
    /// Steps per restart.
    pub steps: u32,
    /// Restarts per sample.
    pub restarts: u32,
    /// Whether a step is a gradient evaluation; otherwise it is a run of the model forward.
    pub gradients: bool,
}

impl Run {
    fn is(&self, attack: &str, norm: Norm, epsilon: f64) -> bool {
        // The same number is the same bits here: both come from one parsed ε.
        self.epsilon.to_bits() == epsilon.to_bits() && self.norm == norm && self.attack == attack
    }
}

/// Adds up [`SampleOutcome`]s as they come.
///
/// [`Accumulator::finish`] gives one row per [`Run`], in the order in which they were announced, then one [`WORST_CASE`] row per
/// norm × ε: a sample is robust there if it is robust under every attack, and the norms of its perturbation are those of the first
/// attack to break it. The costs of that row (`steps`, `restarts`, `gradient_evaluations`, `seconds`) are added up over the attacks.
///
/// Outcomes may come in any order, attack by attack being the fastest. Memory grows by one bit per sample × norm × ε, no more.
/// Means depend on the order in the last bits only, save for the norms of `worst-case`, which take attacks as they come.
///
/// ```
/// use mohs::outcome::{Accumulator, Norm, Run, SampleOutcome};
///
/// let run = Run { attack: "fgsm".to_owned(), norm: Norm::Linf, epsilon: 0.1, steps: 1, restarts: 1, gradients: true };
/// let mut accumulator = Accumulator::new("model.onnx", vec![run])?;
/// accumulator.add(&SampleOutcome {
///     index: 0, label: 3, clean_prediction: 3, attack: "fgsm".to_owned(), norm: Norm::Linf, epsilon: 0.1,
///     adversarial_prediction: 5, robust: false, clean_loss: 0.1, loss: 2.0, linf: 0.1, l2: 0.6, l1: 5.0, l0: 9.0, steps: 1, restart: 0,
/// })?;
/// accumulator.add_seconds("fgsm", Norm::Linf, 0.1, 0.25)?;
/// let rows = accumulator.finish()?;
/// assert_eq!(rows[0].robust_accuracy, 0.0);
/// assert_eq!(rows[1].attack, "worst-case");
/// # Ok::<(), mohs::outcome::SummaryError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Accumulator {
    model: String,
    cells: Vec<Cell>,
    worst: Vec<WorstCase>,
    /// The cell of the latest outcome, where the search for the next one starts.
    latest: usize,
}

#[derive(Debug, Clone)]
struct Cell {
    run: Run,
    tally: Tally,
    /// The position in `worst` of the cell's norm and ε.
    worst: usize,
}

/// The counts and sums behind one row.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    samples: u64,
    clean_right: u64,
    broken: u64,
    linf: f64,
    l2: f64,
    gradient_evaluations: u64,
    seconds: f64,
}

#[derive(Debug, Clone)]
struct WorstCase {
    norm: Norm,
    epsilon: f64,
    broken: SampleSet,
    linf: f64,
    l2: f64,
}

impl Accumulator {
    /// Prepares for the outcomes of the given runs on the model of that name.
    ///
    /// # Errors
    ///
    /// Where a run is announced twice, or an attack is named like the row over all attacks.
    pub fn new(model: impl Into<String>, runs: Vec<Run>) -> Result<Self, SummaryError> {
        let mut cells: Vec<Cell> = Vec::with_capacity(runs.len());
        let mut worst: Vec<WorstCase> = Vec::new();
        for run in runs {
            if run.attack == WORST_CASE {
                return Err(SummaryError::ReservedName);
            }
            if cells
                .iter()
                .any(|cell| cell.run.is(&run.attack, run.norm, run.epsilon))
            {
                return Err(SummaryError::RepeatedRun(Box::new(run)));
            }
            let same = |row: &WorstCase| {
                row.norm == run.norm && row.epsilon.to_bits() == run.epsilon.to_bits()
            };
            let position = worst.iter().position(same).unwrap_or_else(|| {
                worst.push(WorstCase {
                    norm: run.norm,
                    epsilon: run.epsilon,
                    broken: SampleSet::default(),
                    linf: 0.0,
                    l2: 0.0,
                });
                worst.len() - 1
            });
            cells.push(Cell {
                run,
                tally: Tally::default(),
                worst: position,
            });
        }
        Ok(Accumulator {
            model: model.into(),
            cells,
            worst,
            latest: 0,
        })
    }

    /// Counts one outcome.
    ///
    /// # Errors
    ///
    /// Where the outcome belongs to no announced run, or calls a sample robust that the model gets wrong clean.
    pub fn add(&mut self, outcome: &SampleOutcome) -> Result<(), SummaryError> {
        let position = self.find(&outcome.attack, outcome.norm, outcome.epsilon)?;
        let clean_right = outcome.clean_prediction == outcome.label;
        if outcome.robust && !clean_right {
            return Err(SummaryError::RobustButWrong {
                index: outcome.index,
                attack: outcome.attack.clone(),
            });
        }
        let cell = &mut self.cells[position];
        cell.tally.samples += 1;
        cell.tally.clean_right += u64::from(clean_right);
        if cell.run.gradients {
            cell.tally.gradient_evaluations += outcome.steps;
        }
        if clean_right && !outcome.robust {
            cell.tally.broken += 1;
            cell.tally.linf += outcome.linf;
            cell.tally.l2 += outcome.l2;
            let worst = &mut self.worst[cell.worst];
            if worst.broken.insert(outcome.index) {
                worst.linf += outcome.linf;
                worst.l2 += outcome.l2;
            }
        }
        Ok(())
    }

    /// Adds wall-clock time that one run took; may be called any number of times.
    ///
    /// # Errors
    ///
    /// Where no such run was announced.
    pub fn add_seconds(
        &mut self,
        attack: &str,
        norm: Norm,
        epsilon: f64,
        seconds: f64,
    ) -> Result<(), SummaryError> {
        let position = self.find(attack, norm, epsilon)?;
        self.cells[position].tally.seconds += seconds;
        Ok(())
    }

    /// The rows: runs first, then the worst case of each norm × ε.
    ///
    /// # Errors
    ///
    /// Where the attacks of one norm × ε saw different numbers of samples or of samples right clean: a worst case over them would
    /// be meaningless.
    pub fn finish(&self) -> Result<Vec<SummaryRow>, SummaryError> {
        let mut rows: Vec<SummaryRow> = Vec::with_capacity(self.cells.len() + self.worst.len());
        rows.extend(
            self.cells
                .iter()
                .map(|cell| cell.tally.row(&self.model, cell.run.clone())),
        );
        for (position, worst) in self.worst.iter().enumerate() {
            let cells = self.cells.iter().filter(|cell| cell.worst == position);
            rows.push(worst.row(&self.model, cells)?);
        }
        Ok(rows)
    }

    fn find(&mut self, attack: &str, norm: Norm, epsilon: f64) -> Result<usize, SummaryError> {
        let is = |cell: &Cell| cell.run.is(attack, norm, epsilon);
        if !self.cells.get(self.latest).is_some_and(is) {
            self.latest =
                self.cells
                    .iter()
                    .position(is)
                    .ok_or_else(|| SummaryError::UnknownRun {
                        attack: attack.to_owned(),
                        norm,
                        epsilon,
                    })?;
        }
        Ok(self.latest)
    }
}

impl WorstCase {
    fn row<'a>(
        &self,
        model: &str,
        cells: impl Iterator<Item = &'a Cell>,
    ) -> Result<SummaryRow, SummaryError> {
        let mut run = Run {
            attack: WORST_CASE.to_owned(),
            norm: self.norm,
            epsilon: self.epsilon,
            steps: 0,
            restarts: 0,
            gradients: true,
        };
        let mut tally = Tally {
            broken: self.broken.len(),
            linf: self.linf,
            l2: self.l2,
            ..Tally::default()
        };
        let mut first: Option<&Cell> = None;
        for cell in cells {
            let reference = *first.get_or_insert(cell);
            if (cell.tally.samples, cell.tally.clean_right)
                != (reference.tally.samples, reference.tally.clean_right)
            {
                return Err(SummaryError::UnequalRuns {
                    first: reference.run.attack.clone(),
                    second: cell.run.attack.clone(),
                    epsilon: self.epsilon,
                });
            }
            tally.samples = cell.tally.samples;
            tally.clean_right = cell.tally.clean_right;
            tally.gradient_evaluations += cell.tally.gradient_evaluations;
            tally.seconds += cell.tally.seconds;
            run.steps = run.steps.saturating_add(cell.run.steps);
            run.restarts = run.restarts.saturating_add(cell.run.restarts);
        }
        Ok(tally.row(model, run))
    }
}

impl Tally {
    fn row(&self, model: &str, run: Run) -> SummaryRow {
        let robust = self.clean_right - self.broken;
        let interval = clopper_pearson(robust, self.samples);
        SummaryRow {
            model: model.to_owned(),
            attack: run.attack,
            norm: run.norm,
            epsilon: run.epsilon,
            steps: run.steps,
            restarts: run.restarts,
            samples: self.samples,
            clean_accuracy: ratio(self.clean_right, self.samples),
            robust_accuracy: ratio(robust, self.samples),
            robust_accuracy_low: interval.low,
            robust_accuracy_high: interval.high,
            attack_success_rate: ratio(self.broken, self.clean_right),
            mean_linf: mean(self.linf, self.broken),
            mean_l2: mean(self.l2, self.broken),
            gradient_evaluations: self.gradient_evaluations,
            seconds: self.seconds,
            untrustworthy: String::new(),
        }
    }
}

/// NaN where there is nothing to take a share of.
fn ratio(part: u64, whole: u64) -> f64 {
    mean(part as f64, whole)
}

/// NaN where there is nothing to take the mean of.
fn mean(sum: f64, count: u64) -> f64 {
    if count == 0 {
        f64::NAN
    } else {
        sum / count as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    fn run(attack: &str, epsilon: f64, steps: u32, restarts: u32) -> Run {
        Run {
            attack: attack.to_owned(),
            norm: Norm::Linf,
            epsilon,
            steps,
            restarts,
            gradients: true,
        }
    }

    /// A sample that is right clean, with a perturbation of ℓ∞ norm `linf` where it is broken.
    fn outcome(attack: &str, epsilon: f64, index: u64, broken: Option<f64>) -> SampleOutcome {
        SampleOutcome {
            index,
            label: 1,
            clean_prediction: 1,
            attack: attack.to_owned(),
            norm: Norm::Linf,
            epsilon,
            adversarial_prediction: if broken.is_some() { 2 } else { 1 },
            robust: broken.is_none(),
            clean_loss: 0.1,
            loss: 0.2,
            linf: broken.unwrap_or(epsilon),
            l2: 10.0 * broken.unwrap_or(epsilon),
            l1: 0.0,
            l0: 0.0,
            steps: 3,
            restart: 0,
        }
    }

    fn wrong_clean(attack: &str, epsilon: f64, index: u64) -> SampleOutcome {
        SampleOutcome {
            clean_prediction: 7,
            adversarial_prediction: 7,
            robust: false,
            linf: 0.0,
            l2: 0.0,
            steps: 0,
            ..outcome(attack, epsilon, index, None)
        }
    }

    #[test]
    fn a_sample_counts_in_the_worst_case_if_every_attack_leaves_it_robust() {
        let runs = vec![run("fgsm", 0.1, 1, 1), run("pgd", 0.1, 40, 5)];
        let mut accumulator = Accumulator::new("m.onnx", runs).unwrap();
        for sample in [
            outcome("fgsm", 0.1, 10, Some(0.1)),
            outcome("fgsm", 0.1, 11, None),
            outcome("fgsm", 0.1, 12, None),
            wrong_clean("fgsm", 0.1, 13),
            outcome("pgd", 0.1, 10, Some(0.05)),
            outcome("pgd", 0.1, 11, Some(0.03)),
            outcome("pgd", 0.1, 12, None),
            wrong_clean("pgd", 0.1, 13),
        ] {
            accumulator.add(&sample).unwrap();
        }
        accumulator
            .add_seconds("fgsm", Norm::Linf, 0.1, 0.5)
            .unwrap();
        accumulator
            .add_seconds("pgd", Norm::Linf, 0.1, 1.0)
            .unwrap();
        accumulator
            .add_seconds("pgd", Norm::Linf, 0.1, 1.0)
            .unwrap();

        let rows = accumulator.finish().unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.attack.as_str()).collect();
        assert_eq!(names, ["fgsm", "pgd", "worst-case"]);
        let [fgsm, pgd, worst] = rows.as_slice() else {
            panic!("three rows");
        };
        assert_eq!(
            (fgsm.samples, fgsm.clean_accuracy, fgsm.robust_accuracy),
            (4, 0.75, 0.5)
        );
        assert_relative_eq!(fgsm.attack_success_rate, 1.0 / 3.0);
        assert_eq!(
            (pgd.robust_accuracy, pgd.gradient_evaluations, pgd.seconds),
            (0.25, 9, 2.0)
        );
        assert_relative_eq!(pgd.mean_linf, 0.04);
        assert_relative_eq!(pgd.mean_l2, 0.4);
        assert_eq!(
            (worst.samples, worst.clean_accuracy, worst.robust_accuracy),
            (4, 0.75, 0.25)
        );
        assert_relative_eq!(worst.attack_success_rate, 2.0 / 3.0);
        // Sample 10 was broken by fgsm first, sample 11 by pgd.
        assert_relative_eq!(worst.mean_linf, (0.1 + 0.03) / 2.0);
        assert_eq!((worst.steps, worst.restarts), (41, 6));
        assert_eq!((worst.gradient_evaluations, worst.seconds), (18, 2.5));
        assert_relative_eq!(worst.robust_accuracy_low, 0.006_309_463, epsilon = 1e-9);
        assert_relative_eq!(worst.robust_accuracy_high, 0.805_879_6, epsilon = 1e-7);
    }

    #[test]
    fn one_attack_alone_has_a_worst_case_row_equal_to_its_own_at_every_epsilon() {
        let runs = vec![run("pgd", 0.1, 40, 2), run("pgd", 0.2, 40, 2)];
        let mut accumulator = Accumulator::new("m.onnx", runs).unwrap();
        // Sample by sample, so that the runs alternate.
        for index in 0..3 {
            accumulator.add(&outcome("pgd", 0.1, index, None)).unwrap();
            let broken = (index > 0).then_some(0.2);
            accumulator
                .add(&outcome("pgd", 0.2, index, broken))
                .unwrap();
        }
        let rows = accumulator.finish().unwrap();
        assert_eq!(rows.len(), 4);
        // At 0.1 nothing is broken, so the means are NaN and only the texts can be compared.
        for (own, worst) in [(&rows[0], &rows[2]), (&rows[1], &rows[3])] {
            let renamed = SummaryRow {
                attack: "pgd".to_owned(),
                ..worst.clone()
            };
            assert_eq!(format!("{own:?}"), format!("{renamed:?}"));
        }
        assert!(rows[0].mean_linf.is_nan());
        assert_relative_eq!(rows[1].robust_accuracy, 1.0 / 3.0);
    }

    #[test]
    fn no_samples_give_no_shares() {
        let accumulator = Accumulator::new("m.onnx", vec![run("pgd", 0.1, 40, 1)]).unwrap();
        for row in accumulator.finish().unwrap() {
            assert_eq!(row.samples, 0);
            assert!(row.clean_accuracy.is_nan() && row.robust_accuracy_low.is_nan());
            assert!(row.attack_success_rate.is_nan());
        }
    }

    #[test]
    fn outcomes_that_do_not_add_up_are_refused() {
        let twice = vec![run("pgd", 0.1, 40, 1), run("pgd", 0.1, 20, 1)];
        assert_eq!(
            Accumulator::new("m", twice).unwrap_err().to_string(),
            "attack `pgd` with norm linf and epsilon 0.1 is asked for twice; give it once"
        );
        assert_eq!(
            Accumulator::new("m", vec![run("worst-case", 0.1, 1, 1)]).unwrap_err(),
            SummaryError::ReservedName
        );
        let runs = vec![run("fgsm", 0.1, 1, 1), run("pgd", 0.1, 40, 1)];
        let mut accumulator = Accumulator::new("m", runs).unwrap();
        assert!(matches!(
            accumulator.add(&outcome("pgd", 0.2, 0, None)),
            Err(SummaryError::UnknownRun { epsilon: 0.2, .. })
        ));
        let contradiction = SampleOutcome {
            robust: true,
            ..wrong_clean("pgd", 0.1, 5)
        };
        assert!(matches!(
            accumulator.add(&contradiction),
            Err(SummaryError::RobustButWrong { index: 5, .. })
        ));
        accumulator.add(&outcome("pgd", 0.1, 0, None)).unwrap();
        assert!(matches!(
            accumulator.finish(),
            Err(SummaryError::UnequalRuns { .. })
        ));
    }
}
