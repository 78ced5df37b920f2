//! A progress bar on stderr: what is done, how fast, how long it will take, how many samples broke.

use super::arguments::Verbosity;
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
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
            bar.set_style(style);
        }
        Progress { bar }
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

/// The text beside the bar: `120/450 · 8.4k gradients/s · 12 broken · 3s left`.
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
        text.push_str(&format!(" · {} left", left_over(left)));
    }
    text
}

fn rate(per_second: f64) -> String {
    match per_second {
        _ if per_second < 9.95 => format!("{per_second:.1}"),
        _ if per_second < 999.5 => format!("{per_second:.0}"),
        _ if per_second < 9_950.0 => format!("{:.1}k", per_second / 1e3),
        _ if per_second < 999_500.0 => format!("{:.0}k", per_second / 1e3),
        _ => format!("{:.1}M", per_second / 1e6),
    }
}

fn left_over(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative; a float beyond the range gives the largest integer"
    )]
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}
