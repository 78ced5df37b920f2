//! Numbers for people: few characters, the digits that matter.

/// What stands where there is no number.
const NONE: &str = "–";

/// One decimal; 0.0 and 100.0 stand for none and all, never for nearly so.
#[must_use]
pub fn percent(share: f64) -> String {
    if share.is_nan() {
        return NONE.to_owned();
    }
    let percent = 100.0 * share;
    if percent > 0.0 && percent < 100.0 {
        format!("{:.1}", percent.clamp(0.1, 99.9))
    } else {
        format!("{percent:.1}")
    }
}

/// About three significant digits in at most seven characters.
#[must_use]
pub fn magnitude(value: f64) -> String {
    match value {
        _ if value.is_nan() => NONE.to_owned(),
        _ if value == 0.0 => "0".to_owned(),
        _ if value < 0.001 => format!("{value:.1e}"),
        _ if value < 0.1 => format!("{value:.4}"),
        _ if value < 10.0 => format!("{value:.3}"),
        _ if value < 10_000.0 => format!("{value:.1}"),
        _ => format!("{value:.1e}"),
    }
}

/// Three significant digits and a unit from ten thousand on.
#[must_use]
pub fn count(value: u64) -> String {
    if value < 10_000 {
        return value.to_string();
    }
    let mut scaled = value as f64;
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        // 999.5 would be rounded to a fourth digit.
        if scaled < 999.5 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    let decimals = if scaled < 9.995 {
        2
    } else if scaled < 99.95 {
        1
    } else {
        0
    };
    format!("{scaled:.decimals$}{unit}")
}

/// `0.4s`, `12s`, `4m05s`, `2h05m`, `3d04h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if seconds.is_nan() {
        return NONE.to_owned();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive; a float beyond the range gives the largest integer"
    )]
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_rounded_to_all_or_nothing() {
        assert_eq!(
            [0.0, 0.0001, 0.5, 0.99999, 1.0].map(percent),
            ["0.0", "0.1", "50.0", "99.9", "100.0"]
        );
        assert_eq!(
            [9_999, 10_000, 99_960, 999_499, 999_500].map(count),
            ["9999", "10.0k", "100k", "999k", "1.00M"]
        );
        assert_eq!(count(u64::MAX), "18.4E");
        assert_eq!(
            [0.04, 9.96, 59.6, 245.4, 7_500.0, 273_600.0].map(duration),
            ["0.0s", "10s", "1m00s", "4m05s", "2h05m", "3d04h"]
        );
        assert_eq!(
            [0.0, 0.000_123, 0.03137, 0.25, 12.345, 123_456.0].map(magnitude),
            ["0", "1.2e-4", "0.0314", "0.250", "12.3", "1.2e5"]
        );
    }
}
