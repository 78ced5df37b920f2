//! Losses on the host, in double precision: what the graph's losses are compared with.

use crate::loss::Loss;

/// The loss of one sample, and how much it moves where every logit is off by 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct HostLoss {
    pub(super) value: f64,
    pub(super) sensitivity: f64,
    /// The largest logit in magnitude, which says how finely logits are rounded.
    pub(super) scale: f64,
}

/// The loss of logits; probabilities are brought to logits by their logarithm, which differs from them by one constant.
pub(super) fn loss(kind: Loss, scores: &[f32], label: u32, probabilities: bool) -> HostLoss {
    let logit = |score: f32| {
        let score = f64::from(score);
        if probabilities {
            score.max(f64::MIN_POSITIVE).ln()
        } else {
            score
        }
    };
    let logits: Vec<f64> = scores.iter().map(|&score| logit(score)).collect();
    let own = logits
        .get(label as usize)
        .copied()
        .unwrap_or(f64::NEG_INFINITY);
    let others = || {
        let numbered = logits.iter().enumerate();
        numbered
            .filter(|(class, _)| *class != label as usize)
            .map(|(_, &logit)| logit)
    };
    let best_other = others().fold(f64::NEG_INFINITY, f64::max);
    let (value, sensitivity) = match kind {
        Loss::CrossEntropy => {
            let sum: f64 = others().map(|logit| (logit - best_other).exp()).sum();
            let excess = best_other + sum.ln() - own;
            // log(1 + eˣ), to full precision where it is tiny.
            let value = excess.max(0.0) + (-excess.abs()).exp().ln_1p();
            (value, -2.0 * (-value).exp_m1())
        }
        Loss::Margin => (best_other - own, 2.0),
        Loss::Dlr => {
            let mut order = logits.clone();
            order.sort_by(|a, b| b.total_cmp(a));
            let spread = order.first().unwrap_or(&0.0) - order.get(2).unwrap_or(&0.0) + 1e-12;
            ((best_other - own) / spread, 4.0 / spread)
        }
    };
    let (sensitivity, scale) = if probabilities {
        // Probabilities may be rounded as one minus another, so the smaller of those that count is off by the spacing of numbers around 1.
        let least = match kind {
            Loss::CrossEntropy => own,
            Loss::Margin | Loss::Dlr => own.min(best_other),
        };
        (
            sensitivity.max(1.0) / least.exp().max(f64::MIN_POSITIVE),
            1.0,
        )
    } else {
        let largest = |most: f64, logit: &f64| most.max(logit.abs());
        (sensitivity, logits.iter().fold(0.0, largest))
    };
    HostLoss {
        value,
        sensitivity,
        scale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_losses_are_those_of_their_formulas() {
        let scores = [2.0, 0.5, -1.0, 1.0];
        let of = |kind| loss(kind, &scores, 1, false).value;
        let total: f64 = scores.iter().map(|&z| f64::from(z).exp()).sum();
        assert!((of(Loss::CrossEntropy) - (total.ln() - 0.5)).abs() < 1e-12);
        assert!((of(Loss::Margin) - 1.5).abs() < 1e-12);
        assert!((of(Loss::Dlr) - 1.5 / 1.5).abs() < 1e-9);
    }

    #[test]
    fn a_confident_sample_keeps_its_digits() {
        let found = loss(Loss::CrossEntropy, &[50.0, 0.0], 0, false);
        assert!((found.value / (-50f64).exp() - 1.0).abs() < 1e-12);
        assert!((found.sensitivity / (2.0 * (-50f64).exp()) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn probabilities_have_the_losses_of_their_logits() {
        let logits = [1.0f32, 0.0, -2.0];
        let total: f32 = logits.iter().map(|z| z.exp()).sum();
        let probabilities = logits.map(|z| z.exp() / total);
        for kind in Loss::ALL {
            let [a, b] = [(&logits, false), (&probabilities, true)]
                .map(|(scores, probabilities)| loss(kind, scores, 2, probabilities).value);
            assert!((a - b).abs() < 1e-5, "{kind}: {a} and {b}");
        }
    }
}
