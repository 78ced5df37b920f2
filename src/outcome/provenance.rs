//! Where numbers come from: all that is needed to measure them again.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file that an evaluation read, by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The path, as it was given.
    pub path: String,
    /// The SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
}

/// An attack with every parameter, those that nobody set included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttackRecord {
    /// The name with the parameters that differ from their defaults, as in [`SummaryRow::attack`](super::SummaryRow::attack).
    pub label: String,
    /// Every parameter by name, as it would be written on the command line; a default that depends on something else, in words.
    pub parameters: BTreeMap<String, String>,
}

/// What was evaluated, with what, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of mohs.
    pub mohs: String,
    /// The version of ONNX Runtime.
    pub onnxruntime: String,
    /// The device that sessions ran on.
    pub device: String,
    /// The operating system and the processor's architecture, as in `linux x86_64`.
    pub platform: String,
    /// When the report was made: RFC 3339, in UTC.
    pub date: String,
    /// The command line, word by word.
    pub command: Vec<String>,
    /// The model; then the models that `transfer` follows, and a graph of gradients made elsewhere.
    pub models: Vec<FileRecord>,
    /// The files of the data set.
    pub data: Vec<FileRecord>,
    /// The seed of everything random.
    pub seed: u64,
    /// The attacks.
    pub attacks: Vec<AttackRecord>,
    /// Every other effective parameter by name.
    pub parameters: BTreeMap<String, String>,
}

impl Provenance {
    /// The command line as one would type it into a POSIX shell.
    #[must_use]
    pub fn command_line(&self) -> String {
        let words: Vec<String> = self.command.iter().map(|word| quoted(word)).collect();
        words.join(" ")
    }
}

/// A word that a POSIX shell reads back as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./,:=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A time as RFC 3339 writes it, from seconds since the beginning of 1970 (UTC): `2026-03-01T12:00:00Z`.
///
/// Days become dates by counting years from March, so that the day that leap years add is the last (H. Hinnant, “chrono-compatible
/// low-level date algorithms”).
#[must_use]
pub fn timestamp(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), expected);
        }
    }

    #[test]
    fn a_shell_reads_the_command_line_back() {
        let words = [
            "mohs",
            "evaluate",
            "my model.onnx",
            "--epsilon",
            "8/255",
            "it's",
            "",
        ];
        let provenance = Provenance {
            command: words.map(str::to_owned).to_vec(),
            ..Provenance::default()
        };
        assert_eq!(
            provenance.command_line(),
            r"mohs evaluate 'my model.onnx' --epsilon 8/255 'it'\''s' ''"
        );
    }
}
