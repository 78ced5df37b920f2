//! A progress bar on stderr: what is done, how fast, how long it will take, how many samples broke.

use super::arguments::Verbosity;
use crate::report::number::{count, duration};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// A progress bar; drawn nowhere where stderr is no terminal or `--quiet` was given.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Samples done, each counted once per attack × ε.
    pub done: u64,
    /// Samples in all, so counted.
    pub total: u64,
    /// How many of those done are broken.
    pub broken: u64,
    /// Gradient evaluations so far.
    pub gradients: u64,
}

impl Progress {
    /// A bar on stderr where that is a terminal, else none.
    #[must_use]
    pub fn new(verbosity: Verbosity) -> Self {
        let visible = verbosity > Verbosity::Quiet && std::io::stderr().is_terminal();
        Progress::on(if visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        })
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target);
        // The bar takes what the text leaves.
        if let Ok(style) = ProgressStyle::with_template("{prefix}{wide_bar} {msg}") {
            bar.set_style(style);
        }
        Progress { bar }
    }

    /// The same with a few words before the bar, for one of several runs.
    #[must_use]
    pub fn labelled(self, label: &str) -> Self {
        self.bar.set_prefix(format!("{label} "));
        self
    }

    /// Begins anew for the next of several runs, with a few words before the bar.
    pub fn restart(&self, label: &str) {
        self.bar.reset();
        self.bar.set_message("");
        self.bar.set_prefix(format!("{label} "));
    }

    /// Shows a new position. Cheap enough to be called after every batch: the bar draws itself a few times a second at most.
    pub fn update(&self, position: Position) {
        self.bar.set_length(position.total);
        self.bar.set_position(position.done);
        if !self.bar.is_hidden() {
            self.bar.set_message(describe(position, self.bar.elapsed()));
        }
    }

    /// Takes the bar away while `action` writes to stderr, so that lines of the log do not tear it.
    pub fn suspend<R>(&self, action: impl FnOnce() -> R) -> R {
        self.bar.suspend(action)
    }

    /// Takes the bar away for good.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    /// An error message must not stand behind half a bar.
    fn drop(&mut self) {
        self.finish();
    }
}

/// The text beside the bar: `120/450 · 8400 gradients/s · 12 broken · 3s left`.
fn describe(position: Position, elapsed: Duration) -> String {
    let Position {
        done,
        total,
        broken,
        gradients,
    } = position;
    let mut text = format!("{done}/{total}");
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 && gradients > 0 {
        text.push_str(&format!(
            " · {} gradients/s",
            rate(gradients as f64 / seconds)
        ));
    }
    text.push_str(&format!(" · {broken} broken"));
    if done > 0 && done < total {
        // Rates differ between attacks, so this is a guess, but one that a reader can follow.
        let left = seconds * (total - done) as f64 / done as f64;
        text.push_str(&format!(" · {} left", duration(left)));
    }
    text
}

/// One decimal where there are less than ten a second.
fn rate(per_second: f64) -> String {
    if per_second < 9.95 {
        return format!("{per_second:.1}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive; a float beyond the range gives the largest integer"
    )]
    count(per_second.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position {
        done: 120,
        total: 450,
        broken: 12,
        gradients: 84_000,
    };

    #[test]
    fn the_text_tells_rate_and_time_left() {
        assert_eq!(
            describe(POSITION, Duration::from_secs(10)),
            "120/450 · 8400 gradients/s · 12 broken · 28s left"
        );
        assert_eq!(
            describe(
                Position {
                    done: 450,
                    ..POSITION
                },
                Duration::from_secs(4000)
            ),
            "450/450 · 21 gradients/s · 12 broken"
        );
        let start = Position {
            total: 450,
            ..Position::default()
        };
        assert_eq!(describe(start, Duration::ZERO), "0/450 · 0 broken");
    }

    #[test]
    fn a_large_run_leaves_room_for_a_bar_within_80_columns() {
        let large = Position {
            done: 1_234_567,
            total: 9_999_999,
            broken: 1_111_111,
            gradients: 9_876_543_210,
        };
        let text = describe(large, Duration::from_hours(24));
        assert!(text.chars().count() <= 70, "{text}");
    }

    #[test]
    fn slow_rates_keep_a_decimal() {
        assert_eq!(
            [0.5, 9.96, 250.4, 25_000.0].map(rate),
            ["0.5", "10", "250", "25.0k"]
        );
    }

    #[test]
    fn quiet_draws_nothing_and_still_counts() {
        let progress = Progress::new(Verbosity::Quiet);
        progress.update(POSITION);
        assert!(progress.bar.is_hidden());
        assert_eq!(
            (progress.bar.position(), progress.bar.length()),
            (120, Some(450))
        );
        assert_eq!(progress.suspend(|| 5), 5);
    }
}
