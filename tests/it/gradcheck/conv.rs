//! Convolutions.

use super::*;
use proptest::prelude::*;

/// A convolution, or the transposed one with the same attributes.
#[derive(Debug, Clone, Default)]
struct Geometry {
    input: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
    auto_pad: Option<&'static str>,
    output_padding: Vec<i64>,
    output_shape: Vec<i64>,
    groups: usize,
    /// Channels in and out, in each group.
    channels: (usize, usize),
    seed: u64,
}

/// A convolution with one group, two channels in and three out.
fn over(input: &[usize], kernel: &[usize]) -> Geometry {
    Geometry {
        input: input.to_vec(),
        kernel: kernel.to_vec(),
        groups: 1,
        channels: (2, 3),
        ..Geometry::default()
    }
}

impl Geometry {
    fn strides(self, strides: &[i64]) -> Self {
        let strides = strides.to_vec();
        Geometry { strides, ..self }
    }

    fn dilations(self, dilations: &[i64]) -> Self {
        let dilations = dilations.to_vec();
        Geometry { dilations, ..self }
    }

    fn pads(self, pads: &[i64]) -> Self {
        let pads = pads.to_vec();
        Geometry { pads, ..self }
    }

    fn groups(self, groups: usize, channels: (usize, usize)) -> Self {
        Geometry {
            groups,
            channels,
            ..self
        }
    }

    fn auto_pad(self, side: &'static str) -> Self {
        let auto_pad = Some(side);
        Geometry { auto_pad, ..self }
    }

    fn output_padding(self, output_padding: &[i64]) -> Self {
        let output_padding = output_padding.to_vec();
        Geometry {
            output_padding,
            ..self
        }
    }

    fn output_shape(self, output_shape: &[i64]) -> Self {
        let output_shape = output_shape.to_vec();
        Geometry {
            output_shape,
            ..self
        }
    }

    /// The case, with weights that are differentiated or constant.
    fn case(&self, op_type: &'static str, constant_weights: bool) -> Case {
        let (into, out) = self.channels;
        let mut input = vec![N, self.groups * into];
        input.extend(&self.input);
        let mut weights = match op_type {
            "Conv" => vec![self.groups * out, into],
            _ => vec![self.groups * into, out],
        };
        weights.extend(&self.kernel);
        let weights = if constant_weights {
            let number = |at: IxDyn| {
                let place = at.slice().iter().fold(7, |sum, &index| sum * 5 + index);
                ((place * 31 % 17) as f32 - 8.0) / 8.0
            };
            Input::Constant(Tensor::from(ArrayD::from_shape_fn(weights, number)))
        } else {
            varied(&weights)
        };
        let mut inputs = vec![varied(&input), weights];
        if !constant_weights {
            inputs.push(varied(&[self.groups * out]));
        }
        let mut case = Case::new(op_type, inputs)
            .single()
            .int("group", self.groups as i64)
            .seed(self.seed);
        for (name, values) in [
            ("strides", &self.strides),
            ("dilations", &self.dilations),
            ("pads", &self.pads),
            ("output_padding", &self.output_padding),
            ("output_shape", &self.output_shape),
        ] {
            if !values.is_empty() {
                case = case.ints(name, values);
            }
        }
        if let Some(side) = self.auto_pad {
            case = case.string("auto_pad", side);
        }
        linear(case)
    }

    fn check(&self, op_type: &'static str) {
        self.case(op_type, false).check();
        self.case(op_type, true).check();
    }
}

#[test]
fn conv_of_stride_one() {
    // Few input channels and many: the gradient takes another form.
    for channels in [(2, 3), (9, 2)] {
        for geometry in [
            over(&[6], &[3]),
            over(&[6], &[3]).pads(&[1, 1]),
            over(&[6, 5], &[3, 2]).pads(&[1, 0, 2, 1]),
            over(&[5, 5], &[1, 1]),
            over(&[5, 5], &[1, 1]).pads(&[1, 2, 1, 0]),
            over(&[7, 8], &[3, 3])
                .dilations(&[2, 3])
                .pads(&[2, 3, 2, 3]),
            over(&[4, 5, 3], &[2, 3, 2]).pads(&[1, 1, 0, 0, 1, 1]),
            // The padding is wider than the kernel: places that see nothing but padding.
            over(&[3, 3], &[2, 2]).pads(&[3, 2, 2, 3]),
            over(&[4], &[2]).dilations(&[2]).pads(&[5, 4]),
            // One place alone.
            over(&[4, 4], &[4, 4]),
        ] {
            Geometry {
                channels,
                ..geometry
            }
            .check("Conv");
        }
    }
}

#[test]
fn weights_of_few_and_of_many_channels() {
    // Up to 4 channels, more, and kernels of one tap are computed in different ways.
    for channels in [(1, 3), (4, 2), (5, 3), (6, 7)] {
        for geometry in [
            over(&[7, 8], &[3, 2]).strides(&[2, 1]).pads(&[1, 0, 1, 1]),
            over(&[9, 9], &[3, 3])
                .dilations(&[2, 1])
                .pads(&[0, 2, 1, 0]),
            over(&[8, 9], &[4, 4]).strides(&[3, 3]),
            over(&[6, 5], &[1, 1]).strides(&[2, 1]),
            over(&[6], &[3]).pads(&[1, 1]),
            over(&[4, 5, 4], &[2, 1, 3]).strides(&[1, 2, 1]),
        ] {
            let geometry = geometry.groups(1, channels);
            geometry.check("Conv");
            geometry.check("ConvTranspose");
        }
    }
    let pointwise = over(&[5, 4], &[1, 1]).strides(&[2, 1]).groups(3, (2, 3));
    pointwise.check("Conv");
}

#[test]
fn conv_of_larger_strides() {
    for geometry in [
        over(&[6], &[3]).strides(&[2]),
        over(&[7, 8], &[3, 3]).strides(&[2, 2]).pads(&[1, 1, 1, 1]),
        over(&[8, 8], &[1, 1]).strides(&[2, 2]),
        over(&[8, 8], &[2, 2]).strides(&[3, 4]),
        over(&[8, 8], &[4, 4]).strides(&[4, 4]),
        over(&[9, 7], &[3, 2]).strides(&[1, 2]).pads(&[1, 0, 1, 1]),
        // Asymmetric padding, with more and with less behind than in front.
        over(&[8, 8], &[3, 3]).strides(&[2, 2]).pads(&[0, 0, 1, 1]),
        over(&[8, 8], &[3, 3]).strides(&[2, 2]).pads(&[1, 1, 0, 0]),
        over(&[9, 8], &[5, 5]).strides(&[3, 2]).pads(&[0, 3, 4, 1]),
        over(&[9, 9], &[3, 3])
            .strides(&[2, 3])
            .dilations(&[3, 2])
            .pads(&[2, 2, 2, 2]),
        over(&[7, 6, 5], &[3, 2, 3])
            .strides(&[2, 2, 3])
            .pads(&[1, 0, 1, 1, 1, 1]),
        // Padding behind alone is met by the last place, or by none.
        over(&[5], &[1]).strides(&[3]).pads(&[2, 2]),
        over(&[1], &[1]).strides(&[3]).pads(&[1, 1]),
        over(&[2], &[1]).strides(&[5]).pads(&[1, 0]),
    ] {
        geometry.check("Conv");
    }
}

#[test]
fn conv_with_more_positions_left_over_than_padded() {
    // The stems and down-samplings at which a gradient by `output_shape` would be shifted.
    for geometry in [
        over(&[64], &[7]).strides(&[4]).pads(&[3, 3]),
        over(&[19], &[3]).strides(&[4]).pads(&[1, 1]),
        over(&[17], &[3]).strides(&[3]),
        over(&[16, 16], &[7, 7])
            .strides(&[4, 4])
            .pads(&[3, 3, 3, 3]),
        over(&[20], &[2]).strides(&[6]),
    ] {
        geometry.check("Conv");
    }
}

#[test]
fn conv_in_groups() {
    for geometry in [
        over(&[5, 5], &[3, 3]).groups(2, (2, 3)).pads(&[1, 1, 1, 1]),
        over(&[6, 6], &[3, 3])
            .groups(3, (2, 1))
            .strides(&[2, 2])
            .pads(&[1, 1, 1, 1]),
        over(&[5, 5], &[3, 3]).groups(4, (1, 1)).pads(&[1, 1, 1, 1]),
        over(&[8, 8], &[5, 5])
            .groups(4, (1, 2))
            .strides(&[2, 2])
            .pads(&[2, 2, 2, 2]),
        over(&[9], &[3]).groups(3, (1, 1)).dilations(&[2]),
        over(&[3, 4, 5], &[2, 2, 2])
            .groups(2, (1, 2))
            .strides(&[1, 2, 2]),
        over(&[4, 4], &[1, 1]).groups(2, (3, 2)),
    ] {
        geometry.check("Conv");
    }
}

#[test]
fn conv_with_automatic_padding() {
    for side in ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"] {
        for geometry in [
            over(&[8, 7], &[3, 3]).strides(&[2, 2]),
            over(&[8, 7], &[4, 2]),
            over(&[9, 6], &[2, 5]).strides(&[2, 3]),
            over(&[8], &[1]).strides(&[2]),
            over(&[5, 4, 6], &[2, 3, 4]).strides(&[1, 2, 2]),
        ] {
            geometry.auto_pad(side).check("Conv");
        }
    }
}

#[test]
fn conv_with_automatic_padding_that_would_be_negative_is_refused() {
    let case = over(&[8], &[1]).strides(&[4]).auto_pad("SAME_UPPER");
    let reason = case.case("Conv", false).refusal();
    assert!(reason.contains("explicit pads"), "{reason}");
}

#[test]
fn conv_whose_batch_is_fixed() {
    Case {
        inputs: vec![varied(&[3, 2, 5]), varied(&[4, 2, 3])],
        ..linear(Case::new("Conv", vec![]).single())
    }
    .ints("strides", &[2])
    .check();
}

#[test]
fn conv_transpose_of_all_kinds() {
    for geometry in [
        over(&[4], &[3]),
        over(&[4, 3], &[3, 2]).strides(&[2, 2]),
        over(&[4, 3], &[3, 3]).strides(&[2, 2]).pads(&[1, 1, 1, 1]),
        over(&[4, 3], &[4, 4]).strides(&[2, 2]).pads(&[1, 0, 2, 1]),
        over(&[3, 4], &[3, 3])
            .strides(&[3, 2])
            .output_padding(&[2, 1]),
        over(&[3, 4], &[3, 3])
            .strides(&[2, 2])
            .pads(&[1, 1, 1, 1])
            .output_padding(&[1, 1]),
        over(&[4, 4], &[3, 2])
            .dilations(&[2, 3])
            .pads(&[1, 1, 1, 1]),
        over(&[4], &[3])
            .strides(&[2])
            .dilations(&[4])
            .output_padding(&[1])
            .pads(&[1, 0]),
        over(&[5, 5], &[1, 1]).strides(&[2, 3]),
        over(&[2, 3, 2], &[3, 2, 2])
            .strides(&[2, 1, 2])
            .pads(&[1, 0, 0, 1, 1, 0]),
        over(&[4, 4], &[3, 3]).groups(2, (2, 3)).strides(&[2, 2]),
        over(&[4, 4], &[4, 4])
            .groups(3, (1, 1))
            .strides(&[2, 2])
            .pads(&[1, 1, 1, 1]),
        over(&[4, 4], &[3, 3]).groups(3, (1, 2)),
    ] {
        geometry.check("ConvTranspose");
    }
}

#[test]
fn conv_transpose_with_automatic_padding_and_given_shapes() {
    for side in ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"] {
        for geometry in [
            over(&[4], &[3]).strides(&[2]),
            over(&[4, 3], &[4, 5]).strides(&[2, 3]),
            over(&[4], &[2]).strides(&[3]),
            over(&[4], &[4]),
            over(&[3], &[3]).strides(&[2]).dilations(&[2]),
            over(&[4], &[3]).strides(&[2]).output_padding(&[1]),
        ] {
            geometry.auto_pad(side).check("ConvTranspose");
        }
        for shape in [6, 7, 8, 9, 10] {
            let geometry = over(&[4], &[3]).strides(&[2]).output_shape(&[shape]);
            geometry.clone().auto_pad(side).check("ConvTranspose");
            geometry
                .auto_pad(side)
                .output_padding(&[1])
                .check("ConvTranspose");
        }
    }
    let geometry = over(&[3, 4], &[3, 3])
        .strides(&[2, 2])
        .output_shape(&[6, 8]);
    geometry.pads(&[1, 1, 1, 1]).check("ConvTranspose");
}

/// One axis: input, kernel, stride, dilation, padding in front and behind.
type AxisDraw = (usize, usize, i64, i64, i64, i64);

fn axis() -> impl Strategy<Value = AxisDraw> {
    (
        1_usize..9,
        1_usize..5,
        1_i64..5,
        1_i64..4,
        0_i64..4,
        0_i64..4,
    )
}

fn geometry() -> impl Strategy<Value = (Geometry, Vec<i64>)> {
    let axes = proptest::collection::vec(axis(), 1..4);
    // More than eight channels take another form of the gradient than fewer.
    let into = prop_oneof![1_usize..3, 9_usize..11];
    (axes, 1_usize..4, (into, 1_usize..3), any::<u64>(), 0_i64..4).prop_map(
        |(axes, groups, channels, seed, extra)| {
            let pick = |of: fn(&AxisDraw) -> i64| axes.iter().map(of).collect::<Vec<_>>();
            let geometry = Geometry {
                input: axes.iter().map(|axis| axis.0).collect(),
                kernel: axes.iter().map(|axis| axis.1).collect(),
                strides: pick(|axis| axis.2),
                dilations: pick(|axis| axis.3),
                pads: [pick(|axis| axis.4), pick(|axis| axis.5)].concat(),
                groups,
                channels,
                seed,
                ..Geometry::default()
            };
            let most = pick(|axis| axis.2 - 1);
            (
                geometry,
                most.into_iter().map(|most| most.min(extra)).collect(),
            )
        },
    )
}

proptest! {
    #![proptest_config(proptest_config(96))]

    #[test]
    fn conv_of_any_geometry((mut geometry, _) in geometry()) {
        let rank = geometry.input.len();
        for axis in 0..rank {
            let span = geometry.dilations[axis] as usize * (geometry.kernel[axis] - 1) + 1;
            let pads = (geometry.pads[axis] + geometry.pads[rank + axis]) as usize;
            geometry.input[axis] = geometry.input[axis].max((span + 1).saturating_sub(pads)).max(1);
        }
        geometry.check("Conv");
    }

    #[test]
    fn conv_transpose_of_any_geometry((mut geometry, output_padding) in geometry()) {
        let rank = geometry.input.len();
        for axis in 0..rank {
            let span = geometry.dilations[axis] * (geometry.kernel[axis] as i64 - 1) + 1;
            let reach = geometry.strides[axis] * (geometry.input[axis] as i64 - 1) + span;
            for side in [axis, rank + axis] {
                geometry.pads[side] = geometry.pads[side].min((reach - 1) / 2);
            }
        }
        geometry.output_padding(&output_padding).check("ConvTranspose");
    }
}
