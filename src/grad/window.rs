//! The geometry that convolutions and pools share: which positions of an input a sliding window covers.
//!
//! Along each axis a window of `kernel` taps, `dilation` apart, starts at `before` positions in front of the input and moves on by `stride`.
//! Everything else follows: padding behind the input, leftover positions, how many taps lie inside.

use super::rule::Vjp;
use crate::graph::{Attribute, Attributes, Dim, Dims, Expr, Fact};

/// A window along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    /// The extent that the window slides over.
    pub input: i64,
    /// The number of places at which it stops.
    pub output: i64,
    /// The number of taps.
    pub kernel: i64,
    /// The distance between two places.
    pub stride: i64,
    /// The distance between two taps.
    pub dilation: i64,
    /// The padding in front of the input, at which the first place starts.
    pub before: i64,
    /// The padding that is asked for behind the input; places may use less of it, or reach beyond it.
    pub behind: i64,
}

impl Axis {
    /// The extent from the first tap to the last, both included.
    pub(super) fn span(self) -> i64 {
        self.dilation * (self.kernel - 1) + 1
    }

    /// The extent that all places together cover.
    pub(super) fn reach(self) -> i64 {
        (self.output - 1) * self.stride + self.span()
    }

    /// How far the last place reaches beyond the input; negative where it leaves positions of the input uncovered.
    pub(super) fn after(self) -> i64 {
        self.reach() - self.input - self.before
    }

    /// For each place, how many taps lie inside the input, or inside the padded input.
    pub(super) fn coverage(self, padded: bool) -> Vec<i64> {
        let inside = if padded {
            -self.before..self.input + self.behind
        } else {
            0..self.input
        };
        let taps = |place: i64| {
            let start = place * self.stride - self.before;
            let taps = (0..self.kernel).map(|tap| start + tap * self.dilation);
            taps.map(|position| i64::from(inside.contains(&position)))
                .sum()
        };
        (0..self.output).map(taps).collect()
    }
}

/// A window along all spatial axes (those behind samples and channels).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window(pub Vec<Axis>);

impl Window {
    /// The window of a convolution or a pool over `input`, which stopped at the places of `output`; both with samples and channels in front.
    ///
    /// # Errors
    /// Where a spatial extent follows the batch, or attributes do not fit the rank.
    pub(super) fn new(
        n: &Vjp<'_>,
        kernel: &[i64],
        input: &[Dim],
        output: &[Dim],
    ) -> Result<Self, String> {
        let rank = kernel.len();
        if input.len() != rank + 2 || output.len() != rank + 2 {
            return Err(format!(
                "its kernel has {rank} axes, its input {} besides samples and channels",
                input.len().saturating_sub(2)
            ));
        }
        let strides = per_axis(n, "strides", rank, 1)?;
        let dilations = per_axis(n, "dilations", rank, 1)?;
        let mut axes = Vec::with_capacity(rank);
        for index in 0..rank {
            axes.push(Axis {
                input: n.fixed(input[index + 2])?,
                output: n.fixed(output[index + 2])?,
                kernel: kernel[index],
                stride: strides[index],
                dilation: dilations[index],
                before: 0,
                behind: 0,
            });
        }
        Ok(Window(axes))
    }

    /// With the padding that the node's `pads` give.
    ///
    /// # Errors
    /// Where `pads` does not fit the rank, or is negative.
    pub(super) fn with_pads(mut self, n: &Vjp<'_>) -> Result<Self, String> {
        let pads = per_axis(n, "pads", 2 * self.0.len(), 0)?;
        if let Some(negative) = pads.iter().find(|&&count| count < 0) {
            return Err(format!(
                "its padding of {negative} is negative; export it with a Slice instead"
            ));
        }
        let (before, behind) = pads.split_at(self.0.len());
        for (axis, (&before, &behind)) in self.0.iter_mut().zip(before.iter().zip(behind)) {
            (axis.before, axis.behind) = (before, behind);
        }
        Ok(self)
    }

    /// With a padding of `total` along each axis, whose larger half is in front or behind.
    pub(super) fn with_total(
        mut self,
        larger_in_front: bool,
        mut total: impl FnMut(&Axis) -> i64,
    ) -> Self {
        for axis in &mut self.0 {
            let total = total(axis).max(0);
            axis.before = (total + i64::from(larger_in_front)) / 2;
            axis.behind = total - axis.before;
        }
        self
    }

    /// The spatial extents of the input.
    pub(super) fn input(&self) -> Dims {
        self.0.iter().map(|axis| Dim::fixed(axis.input)).collect()
    }

    /// Every place adds to the positions that its window covers, by a transposed convolution into the shape `to`.
    pub(super) fn scatter<'g>(
        &self,
        places: Expr<'g>,
        weights: Expr<'g>,
        groups: i64,
        to: &[Dim],
    ) -> Expr<'g> {
        let (mut pads, mut leftovers) = (Vec::new(), Vec::new());
        let (mut produced, mut ranges) = (to[..2].to_vec(), Vec::new());
        for axis in &self.0 {
            // Equal padding on both sides, which every device takes, if rows left over make up for the difference; else all is computed and cut.
            let leftover = axis.input + 2 * axis.before - axis.reach();
            let fits = axis.reach() > 2 * axis.before && (0..axis.stride).contains(&leftover);
            if fits {
                pads.push(axis.before);
                leftovers.push(leftover);
                produced.push(Dim::fixed(axis.input));
                ranges.push((0, axis.input));
            } else {
                pads.push(0);
                leftovers.push(0);
                produced.push(Dim::fixed(axis.reach()));
                ranges.push((axis.before, axis.input));
            }
        }
        let attributes = [
            ("group", Attribute::Int(groups)),
            ("strides", self.attribute(|axis| axis.stride)),
            ("dilations", self.attribute(|axis| axis.dilation)),
            ("pads", Attribute::Ints([pads.clone(), pads].concat())),
            ("output_padding", Attribute::Ints(leftovers)),
        ];
        let fact = Fact::new(places.dtype(), produced);
        let operands = [places, weights];
        let all = places
            .builder()
            .node("ConvTranspose", &operands, &attributes, fact);
        refit(all, &ranges)
    }

    /// As [`Window::scatter`] where every position is a place: a convolution with the weights mirrored, their large channels in front.
    pub(super) fn scatter_by_conv<'g>(
        &self,
        places: Expr<'g>,
        mirrored: Expr<'g>,
        groups: i64,
        to: &[Dim],
    ) -> Expr<'g> {
        let (mut ranges, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for axis in &self.0 {
            // Places whose window lies wholly in the padding add nothing: they are cut off where the mirrored window's padding would be negative.
            let front = axis.span() - 1 - axis.before;
            let back = axis.input - axis.output + axis.before;
            let start = (-front).max(0);
            ranges.push((start, axis.output - start - (-back).max(0)));
            before.push(front.max(0));
            after.push(back.max(0));
        }
        let attributes = [
            ("group", Attribute::Int(groups)),
            ("dilations", self.attribute(|axis| axis.dilation)),
            ("pads", Attribute::Ints([before, after].concat())),
        ];
        let operands = [refit(places, &ranges), mirrored];
        let fact = Fact::new(places.dtype(), to.to_vec());
        places.builder().node("Conv", &operands, &attributes, fact)
    }

    /// Without the taps that lie in the padding at every place; taps next to each other only.
    pub(super) fn clipped(mut self) -> Self {
        for axis in self.0.iter_mut().filter(|axis| axis.dilation == 1) {
            // Tap t of place p lies at stride·p + t − before, inside for 0 ≤ it < input.
            let first = (axis.before - axis.stride * (axis.output - 1)).clamp(0, axis.kernel - 1);
            let end = (axis.before + axis.input).clamp(first + 1, axis.kernel);
            axis.kernel = end - first;
            axis.before -= first;
        }
        self
    }

    /// One integer per axis, as an attribute.
    pub(super) fn attribute(&self, of: impl Fn(&Axis) -> i64) -> Attribute {
        Attribute::Ints(self.0.iter().map(of).collect())
    }
}

/// An attribute with one integer per axis.
///
/// # Errors
/// Where it has another length.
pub(super) fn per_axis(
    n: &Vjp<'_>,
    name: &str,
    length: usize,
    default: i64,
) -> Result<Vec<i64>, String> {
    match n.ints(name) {
        None | Some([]) => Ok(vec![default; length]),
        Some(values) if values.len() == length => Ok(values.to_vec()),
        Some(values) => Err(format!(
            "its attribute {name} has {} entries instead of {length}",
            values.len()
        )),
    }
}

/// For each spatial axis, the `extent` positions from `start` on, with zeros where there is no such position.
pub(super) fn refit<'g>(value: Expr<'g>, ranges: &[(i64, i64)]) -> Expr<'g> {
    let shape = value.shape();
    let lead = shape.len() - ranges.len();
    let (mut starts, mut ends, mut axes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut before, mut after) = (vec![0; shape.len()], vec![0; shape.len()]);
    let mut cut = shape.clone();
    for (index, &(start, extent)) in ranges.iter().enumerate() {
        let axis = lead + index;
        let length = shape[axis].fixed;
        let from = start.clamp(0, length);
        let to = (start + extent).clamp(from, length);
        if from != 0 || to != length {
            starts.push(from);
            ends.push(to);
            axes.push(axis as i64);
            cut[axis] = Dim::fixed(to - from);
        }
        before[axis] = (from - start).clamp(0, extent);
        after[axis] = extent - before[axis] - (to - from);
    }
    if cut.iter().any(|dim| dim.extent() == Some(0)) {
        // Nothing is left: ONNX Runtime need not pad tensors without elements.
        let mut shape = shape;
        for (dim, &(_, extent)) in shape[lead..].iter_mut().zip(ranges) {
            *dim = Dim::fixed(extent);
        }
        return value.builder().full(value.dtype(), &shape, 0.0);
    }
    let cut = if axes.is_empty() {
        value
    } else {
        let ints = |values: &[i64]| value.builder().ints(values);
        let operands = [value, ints(&starts), ints(&ends), ints(&axes)];
        let fact = Fact::new(value.dtype(), cut);
        value.builder().node("Slice", &operands, &[], fact)
    };
    cut.pad(&before, &after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_follows_from_the_first_place() {
        // A stem of kernel 7, stride 4, padding 3 over 64 positions: the last 3 of the padded 70 are left over.
        let axis = Axis {
            input: 64,
            output: 16,
            kernel: 7,
            stride: 4,
            dilation: 1,
            before: 3,
            behind: 3,
        };
        assert_eq!((axis.span(), axis.reach(), axis.after()), (7, 67, 0));
        let coverage = axis.coverage(false);
        assert_eq!((coverage[0], coverage[1], coverage[15]), (4, 7, 7));
        assert!(axis.coverage(true).iter().all(|&taps| taps == 7));
    }

    #[test]
    fn taps_that_never_meet_the_input_are_clipped() {
        // Global pooling written as a window of 640 over 2 positions.
        let axis = Axis {
            input: 2,
            output: 1,
            kernel: 640,
            stride: 640,
            dilation: 1,
            before: 0,
            behind: 0,
        };
        let clipped = Window(vec![axis]).clipped().0[0];
        assert_eq!((clipped.kernel, clipped.before), (2, 0));
        assert_eq!(clipped.coverage(false), axis.coverage(false));
        let padded = Axis {
            kernel: 7,
            before: 3,
            ..axis
        };
        let clipped = Window(vec![padded]).clipped().0[0];
        assert_eq!((clipped.kernel, clipped.before), (2, 0));
        assert_eq!(clipped.coverage(false), padded.coverage(false));
    }

    #[test]
    fn a_dilated_window_may_reach_beyond_the_padded_input() {
        let axis = Axis {
            input: 5,
            output: 3,
            kernel: 2,
            stride: 2,
            dilation: 3,
            before: 0,
            behind: 1,
        };
        assert_eq!(axis.after(), 3);
        assert_eq!(axis.coverage(false), [2, 1, 1]);
        assert_eq!(axis.coverage(true), [2, 2, 1]);
    }
}
