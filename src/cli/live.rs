//! What a user sees of a training: a line on stderr, the table of epochs, and Ctrl-C.

use super::arguments::Verbosity;
use super::output::{OutputFile, commit, remove_temporaries};
use crate::report::number::{duration, percent};
use crate::train::{Epoch, Observer, ObserverError, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Follows a training on stderr and in `training.csv`.
pub(super) struct Live {
    bar: ProgressBar,
    log: PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Live {
    /// A line on stderr where that is a terminal; the table goes to `log`.
    pub(super) fn new(verbosity: Verbosity, log: PathBuf, interrupted: Arc<AtomicBool>) -> Self {
        let visible = verbosity > Verbosity::Quiet && std::io::stderr().is_terminal();
        let target = if visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}") {
            bar.set_style(style);
        }
        Live {
            bar,
            log,
            interrupted,
        }
    }
}

impl Drop for Live {
    /// An error message must not stand behind half a line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Live {
    fn epoch(&mut self, epochs: &[Epoch]) -> Result<(), ObserverError> {
        let mut file = OutputFile::create(&self.log)?;
        file.write_all(&table(epochs)?)?;
        commit(vec![file])?;
        if let Some(epoch) = epochs.last() {
            self.bar.suspend(|| tracing::info!("{}", sentence(epoch)));
        }
        Ok(())
    }

    fn progress(&mut self, progress: &Progress) {
        self.bar.set_length(progress.batches);
        self.bar.set_position(progress.batch);
        if !self.bar.is_hidden() {
            self.bar.set_message(describe(progress));
        }
    }

    fn note(&mut self, note: &str) {
        self.bar.suspend(|| tracing::info!("{note}"));
    }

    fn stops(&mut self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// The epochs as `training.csv` has them. Numbers read back to the same floats.
fn table(epochs: &[Epoch]) -> Result<Vec<u8>, ObserverError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "epoch",
        "steps",
        "learning_rate",
        "loss",
        "clean_accuracy",
        "robust_accuracy",
        "passes",
        "seconds",
    ])?;
    let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for epoch in epochs {
        writer.write_record([
            epoch.epoch.to_string(),
            epoch.steps.to_string(),
            epoch.learning_rate.to_string(),
            epoch.loss.to_string(),
            optional(epoch.clean_accuracy),
            optional(epoch.robust_accuracy),
            epoch.passes.to_string(),
            epoch.seconds.to_string(),
        ])?;
    }
    Ok(writer.into_inner().map_err(|error| error.to_string())?)
}

/// An epoch in a sentence.
fn sentence(epoch: &Epoch) -> String {
    let mut text = format!("epoch {}: loss {:.4}", epoch.epoch, epoch.loss);
    if let Some(accuracy) = epoch.clean_accuracy {
        text.push_str(&format!(", clean {} %", percent(accuracy)));
    }
    if let Some(accuracy) = epoch.robust_accuracy {
        text.push_str(&format!(", robust {} %", percent(accuracy)));
    }
    text.push_str(&format!(", {}", duration(epoch.seconds)));
    text
}

/// The text beside the bar: `epoch 3/20 · loss 0.5213 · robust 81.2 % · 2400/s · 3m left`.
fn describe(progress: &Progress) -> String {
    let mut text = format!(
        "epoch {}/{} · loss {:.4}",
        progress.epoch, progress.epochs, progress.loss
    );
    for (what, accuracy) in [
        ("clean", progress.clean_accuracy),
        ("robust", progress.robust_accuracy),
    ] {
        if let Some(accuracy) = accuracy {
            text.push_str(&format!(" · {what} {} %", percent(accuracy)));
        }
    }
    if progress.seconds > 0.0 && progress.samples > 0 {
        let rate = progress.samples as f64 / progress.seconds;
        let epochs_left = (progress.epochs - progress.epoch) as f64;
        let of_this = progress.batch as f64 / progress.batches.max(1) as f64;
        // The samples of an epoch, as far as this one tells.
        let per_batch = progress.samples as f64 / (progress.batch.max(1) as f64);
        let per_batch = per_batch / (progress.epoch.max(1) as f64);
        let left = (epochs_left + 1.0 - of_this) * per_batch * progress.batches as f64 / rate;
        text.push_str(&format!(" · {rate:.0}/s · {} left", duration(left)));
    }
    text
}

/// Lets the first Ctrl-C finish the step that is under way, and the second end the program.
pub(super) fn catch_interrupts() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&interrupted);
    let set = ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            end();
        }
    });
    if let Err(error) = set {
        tracing::debug!("Ctrl-C ends the program at once: {error}");
    }
    interrupted
}

/// Lets the first Ctrl-C end the program, which has nothing to finish.
pub(super) fn end_on_interrupt() {
    if let Err(error) = ctrlc::set_handler(end) {
        tracing::debug!("Ctrl-C may leave temporary files behind: {error}");
    }
}

/// The user has asked for it; checkpoints are whole at any moment.
fn end() {
    remove_temporaries();
    crate::runtime::end_process(super::exit::Exit::Interrupted as i32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_per_epoch_and_nothing_for_what_was_not_measured() {
        let epoch = Epoch {
            epoch: 1,
            steps: 469,
            learning_rate: 0.001,
            loss: 0.1 + 0.2,
            clean_accuracy: Some(0.975),
            robust_accuracy: None,
            passes: 3752,
            seconds: 12.5,
        };
        let text = String::from_utf8(table(&[epoch]).unwrap()).unwrap();
        assert_eq!(
            text,
            "epoch,steps,learning_rate,loss,clean_accuracy,robust_accuracy,passes,seconds\n\
             1,469,0.001,0.30000000000000004,0.975,,3752,12.5\n"
        );
    }

    #[test]
    fn the_line_tells_loss_accuracies_rate_and_time_left() {
        let progress = Progress {
            epoch: 1,
            epochs: 2,
            batch: 50,
            batches: 100,
            samples: 6400,
            seconds: 10.0,
            loss: 0.25,
            clean_accuracy: None,
            robust_accuracy: Some(0.5),
        };
        assert_eq!(
            describe(&progress),
            "epoch 1/2 · loss 0.2500 · robust 50.0 % · 640/s · 30s left"
        );
    }
}
