//! Robustness curves as SVG: accuracy over ε, a line per attack with its confidence band.
//!
//! Figures show on hovering and on focus, by style sheet alone. An attack has a colour, a dash and a marker of its own.

use super::super::document::Document;
use super::super::number::percent;
use super::super::table::epsilon;
use super::escape;
use crate::outcome::{Norm, SummaryRow, WORST_CASE, clopper_pearson};
use std::fmt::Write;

/// The colours and markers that the style sheet has; more attacks than these begin again.
const LOOKS: usize = 6;

/// How large a chart is drawn, in pixels; one for wide windows, one for phones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    class: &'static str,
    width: f64,
    height: f64,
}

/// For wide windows.
pub(super) const WIDE: Size = Size {
    class: "wide",
    width: 800.0,
    height: 360.0,
};

/// For phones.
pub(super) const NARROW: Size = Size {
    class: "narrow",
    width: 360.0,
    height: 300.0,
};

const LEFT: f64 = 46.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// Between two labels of the axis of ε.
const LABEL: f64 = 46.0;

/// One attack in one norm.
pub(super) struct Curve<'a> {
    pub(super) attack: &'a str,
    /// The number of its looks, from 0.
    pub(super) look: usize,
    points: Vec<Point<'a>>,
}

/// One measured share.
struct Point<'a> {
    epsilon: f64,
    share: f64,
    low: f64,
    high: f64,
    /// None for the clean accuracy, at ε = 0.
    row: Option<&'a SummaryRow>,
}

/// The curves of a norm, the worst case first.
pub(super) fn curves(document: &Document, norm: Norm) -> Vec<Curve<'_>> {
    let mut curves: Vec<Curve<'_>> = Vec::new();
    for row in document.summary.rows.iter().filter(|row| row.norm == norm) {
        let known = curves.iter().position(|curve| curve.attack == row.attack);
        let position = known.unwrap_or_else(|| {
            curves.push(Curve {
                attack: &row.attack,
                look: 0,
                points: vec![clean(row)],
            });
            curves.len() - 1
        });
        curves[position].points.push(Point {
            epsilon: row.epsilon,
            share: row.robust_accuracy,
            low: row.robust_accuracy_low,
            high: row.robust_accuracy_high,
            row: Some(row),
        });
    }
    let attacks = curves.iter().filter(|curve| curve.attack != WORST_CASE);
    if attacks.count() == 1 {
        // The worst case over one attack is that attack.
        curves.retain(|curve| curve.attack != WORST_CASE);
    }
    curves.sort_by_key(|curve| curve.attack != WORST_CASE);
    for (position, curve) in curves.iter_mut().enumerate() {
        curve.look = position % LOOKS;
        curve.points.retain(|point| !point.share.is_nan());
        curve
            .points
            .sort_by(|left, right| left.epsilon.total_cmp(&right.epsilon));
    }
    curves
}

fn clean<'a>(row: &SummaryRow) -> Point<'a> {
    #[expect(clippy::cast_sign_loss, reason = "a share of a count")]
    let right = (row.clean_accuracy * row.samples as f64).round() as u64;
    let interval = clopper_pearson(right, row.samples);
    Point {
        epsilon: 0.0,
        share: row.clean_accuracy,
        low: interval.low,
        high: interval.high,
        row: None,
    }
}

/// Where things lie.
struct Scale {
    size: Size,
    largest: f64,
}

impl Scale {
    fn x(&self, epsilon: f64) -> f64 {
        LEFT + (self.size.width - LEFT - RIGHT) * epsilon / self.largest
    }

    fn y(&self, share: f64) -> f64 {
        TOP + (self.size.height - TOP - BOTTOM) * (1.0 - share)
    }
}

/// The chart of a norm.
pub(super) fn svg(document: &Document, curves: &[Curve<'_>], name: &str, size: Size) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let largest = points().map(|point| point.epsilon).fold(0.0, f64::max);
    if largest <= 0.0 {
        return String::new();
    }
    let scale = Scale { size, largest };
    let Size {
        class,
        width,
        height,
    } = size;
    let mut svg = format!(
        "<svg class=\"chart {class}\" viewBox=\"0 0 {width} {height}\" role=\"group\" aria-label=\"Accuracy over ε in {name}\">\n"
    );
    axes(
        &mut svg,
        document,
        &scale,
        points().filter_map(|point| point.row),
    );
    // Backwards, so that the worst case lies on top.
    for curve in curves.iter().rev() {
        band(&mut svg, curve, &scale);
    }
    for curve in curves.iter().rev() {
        line(&mut svg, curve, &scale);
    }
    for curve in curves.iter().rev() {
        for point in &curve.points {
            figures(&mut svg, document, curve, point, &scale);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes<'a>(
    svg: &mut String,
    document: &Document,
    scale: &Scale,
    rows: impl Iterator<Item = &'a SummaryRow>,
) {
    let (left, right) = (LEFT, scale.size.width - RIGHT);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = scale.y(share);
        let class = if share == 0.0 { "axis" } else { "grid" };
        let _ = writeln!(
            svg,
            "<path class=\"{class}\" d=\"M{left} {y:.1}H{right}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
            left - 8.0,
            y + 4.0,
            100.0 * share
        );
    }
    let mut radii: Vec<f64> = rows.map(|row| row.epsilon).collect();
    radii.sort_by(f64::total_cmp);
    radii.dedup();
    let base = scale.size.height - BOTTOM;
    let mut free = f64::NEG_INFINITY;
    let mut tick = |x: f64, text: &str, anchor: &str| {
        let _ = write!(svg, "<path class=\"axis\" d=\"M{x:.1} {base}v5\"/>");
        if x - LABEL >= free {
            free = x;
            let y = base + 19.0;
            let _ = writeln!(
                svg,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
                escape(text)
            );
        }
    };
    tick(scale.x(0.0), "clean", "middle");
    for &radius in &radii {
        let text = epsilon(&document.summary, radius);
        let anchor = if radius < scale.largest {
            "middle"
        } else {
            "end"
        };
        // The label of the last one reaches to the left, and may lie at the border.
        let x = scale.x(radius);
        tick(
            if anchor == "end" { x + RIGHT - 2.0 } else { x },
            &text,
            anchor,
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">ε</text>",
        f64::midpoint(left, right),
        scale.size.height - 6.0
    );
}

/// `x,y x,y …`
fn joined(points: impl Iterator<Item = (f64, f64)>) -> String {
    let texts: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    texts.join(" ")
}

fn band(svg: &mut String, curve: &Curve<'_>, scale: &Scale) {
    let measured = || curve.points.iter().filter(|point| !point.low.is_nan());
    let upper = measured().map(|point| (scale.x(point.epsilon), scale.y(point.high)));
    let lower = measured().map(|point| (scale.x(point.epsilon), scale.y(point.low)));
    let _ = writeln!(
        svg,
        "<polygon class=\"band look{}\" points=\"{}\"/>",
        curve.look,
        joined(upper.chain(lower.rev()))
    );
}

fn line(svg: &mut String, curve: &Curve<'_>, scale: &Scale) {
    let at = |point: &Point<'_>| (scale.x(point.epsilon), scale.y(point.share));
    let _ = writeln!(
        svg,
        "<polyline class=\"line look{}\" points=\"{}\"/>",
        curve.look,
        joined(curve.points.iter().map(at))
    );
    for (x, y) in curve.points.iter().map(at) {
        svg.push_str(&marker(curve.look, x, y));
        svg.push('\n');
    }
}

/// The marker of a look: circle, square, diamond, triangle up, triangle down, ring.
pub(super) fn marker(look: usize, x: f64, y: f64) -> String {
    let path = match look {
        0 => return circle(look, x, y, ""),
        1 => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
        2 => format!("M{x:.1} {:.1}l5 5-5 5-5-5z", y - 5.0),
        3 => format!("M{x:.1} {:.1}l4.5 8h-9z", y - 5.0),
        4 => format!("M{x:.1} {:.1}l4.5-8h-9z", y + 5.0),
        _ => return circle(look, x, y, " ring"),
    };
    format!("<path class=\"mark look{look}\" d=\"{path}\"/>")
}

fn circle(look: usize, x: f64, y: f64, more: &str) -> String {
    format!("<circle class=\"mark look{look}{more}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>")
}

/// An invisible target over a point, with what it shows while it is pointed at or has the focus.
fn figures(
    svg: &mut String,
    document: &Document,
    curve: &Curve<'_>,
    point: &Point<'_>,
    scale: &Scale,
) {
    let (x, y) = (scale.x(point.epsilon), scale.y(point.share));
    let lines = texts(document, curve, point);
    let longest = lines.iter().map(|line| line.chars().count()).max();
    let most = scale.size.width - 8.0;
    let width = (longest.unwrap_or(0) as f64 * 6.8 + 18.0).min(most);
    let height = lines.len() as f64 * 17.0 + 11.0;
    let left = (x - 0.5 * width).clamp(4.0, scale.size.width - 4.0 - width);
    // Above the point where there is room, else below.
    let top = if y - height - 12.0 > 0.0 {
        y - height - 12.0
    } else {
        y + 12.0
    };
    let _ = write!(
        svg,
        "<g class=\"point\" tabindex=\"0\" role=\"img\" aria-label=\"{}\"><circle class=\"target\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"11\"/>\
         <g class=\"tip\" aria-hidden=\"true\"><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"5\"/>",
        escape(&lines.join(", "))
    );
    for (number, line) in lines.iter().enumerate() {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\"{}>{}</text>",
            left + 9.0,
            top + 19.0 + 17.0 * number as f64,
            if number == 0 { " class=\"first\"" } else { "" },
            escape(line)
        );
    }
    svg.push_str("</g></g>\n");
}

/// What is said of a point, in lines.
fn texts(document: &Document, curve: &Curve<'_>, point: &Point<'_>) -> Vec<String> {
    let interval = format!("95 % CI {} – {} %", percent(point.low), percent(point.high));
    let share = percent(point.share);
    let Some(row) = point.row else {
        return vec!["clean".to_owned(), format!("{share} % right"), interval];
    };
    let radius = epsilon(&document.summary, point.epsilon);
    let mut lines = vec![
        format!("{}, ε {radius}", super::short(curve.attack, 34)),
        format!("{share} % robust"),
        interval,
    ];
    if !row.untrustworthy.is_empty() {
        lines.push(format!(
            "not to be trusted: {}",
            super::short(&row.untrustworthy, 28)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::super::document::fixtures::document;
    use super::*;

    #[test]
    fn a_curve_begins_at_the_clean_accuracy_and_follows_epsilon() {
        let document = document();
        let curves = curves(&document, Norm::Linf);
        let names: Vec<&str> = curves.iter().map(|curve| curve.attack).collect();
        assert_eq!(names, [WORST_CASE, "fgsm", "pgd:steps=20"]);
        let shares: Vec<f64> = curves[0].points.iter().map(|point| point.share).collect();
        assert_eq!(shares, [442.0 / 450.0, 400.0 / 450.0, 190.0 / 450.0]);
        assert_eq!(curves[0].points[0].epsilon, 0.0);
    }

    #[test]
    fn the_worst_case_over_one_attack_is_not_drawn_twice() {
        let mut document = document();
        document.summary.rows.retain(|row| row.attack != "fgsm");
        let curves = curves(&document, Norm::Linf);
        assert_eq!(curves.len(), 1);
        assert_eq!(curves[0].attack, "pgd:steps=20");
    }

    #[test]
    fn points_lie_where_their_figures_are() {
        let scale = Scale {
            size: WIDE,
            largest: 0.5,
        };
        assert_eq!((scale.x(0.0), scale.x(0.5)), (LEFT, WIDE.width - RIGHT));
        assert_eq!((scale.y(1.0), scale.y(0.0)), (TOP, WIDE.height - BOTTOM));
    }

    #[test]
    fn every_point_can_be_focused_and_says_its_figures() {
        let document = document();
        let curves = curves(&document, Norm::Linf);
        let svg = svg(&document, &curves, "ℓ∞", WIDE);
        assert_eq!(svg.matches("tabindex=\"0\"").count(), 9);
        assert!(svg.contains("aria-label=\"fgsm, ε 8/255, 70.4 % robust, 95 % CI 66.0 – 74.6 %, not to be trusted: flat-loss\""));
        assert_eq!(svg.matches("<g").count(), svg.matches("</g>").count());
    }
}
