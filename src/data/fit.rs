//! How the samples of a file become what the model's input asks for: reshaped or transposed, never guessed.

/// The order of the axes of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Channels, height, width.
    Nchw,
    /// Height, width, channels.
    Nhwc,
}

impl Layout {
    /// The name that `--layout` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Layout::Nchw => "nchw",
            Layout::Nhwc => "nhwc",
        }
    }

    fn other(self) -> Self {
        match self {
            Layout::Nchw => Layout::Nhwc,
            Layout::Nhwc => Layout::Nchw,
        }
    }

    /// An image's shape in the other layout.
    fn transposed(self, [a, b, c]: [usize; 3]) -> [usize; 3] {
        match self {
            Layout::Nchw => [b, c, a],
            Layout::Nhwc => [c, a, b],
        }
    }

    /// The number of columns when an image in this layout is seen as a matrix, channels along one side.
    fn columns(self, [_, b, c]: [usize; 3]) -> usize {
        match self {
            Layout::Nchw => b * c,
            Layout::Nhwc => c,
        }
    }
}

/// What is done to every sample.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fit {
    /// The sample is a matrix with this many columns, which is transposed.
    pub(super) transpose: Option<usize>,
    /// What was done, for the log.
    pub(super) note: Option<String>,
}

/// Fits samples of shape `data` to an input of shape `model`, both without the batch axis.
///
/// Shapes that differ only in axes of length 1 or in how neighbouring axes are merged are reshaped.
/// `layout` names the layout of the data: they are transposed if only the other layout fits the model.
/// Where both fit (all axes equally long, or a flat model input) the model is taken to be channels first, as ONNX's operators are.
///
/// The error is what could be done instead, to be appended to a message; it may be empty.
pub(super) fn fit(data: &[usize], model: &[usize], layout: Option<Layout>) -> Result<Fit, String> {
    if let Some(layout) = layout
        && let Some(image) = image(data, model, layout)
    {
        return fit_image(data, image, model, layout);
    }
    if reshapes(data, model) {
        let note = (data != model)
            .then(|| format!("samples of shape {data:?} are reshaped to the model's {model:?}"));
        return Ok(Fit {
            transpose: None,
            note,
        });
    }
    Err(hint(data, model, layout))
}

fn fit_image(
    data: &[usize],
    image: [usize; 3],
    model: &[usize],
    layout: Layout,
) -> Result<Fit, String> {
    let other = layout.transposed(image);
    let as_is = reshapes(&image, model);
    if reshapes(&other, model) && (layout == Layout::Nhwc || !as_is) {
        let columns = layout.columns(image);
        let note = format!(
            "samples of shape {data:?} are transposed from {} {image:?} to {} {other:?} for the model's {model:?}",
            layout.name(),
            layout.other().name()
        );
        return Ok(Fit {
            transpose: Some(columns),
            note: Some(note),
        });
    }
    if as_is {
        fit(data, model, None)
    } else {
        Err(hint(data, model, Some(layout)))
    }
}

/// The image that `data` are in `layout`; `None` where they have no axis of channels to move.
fn image(data: &[usize], model: &[usize], layout: Layout) -> Option<[usize; 3]> {
    match *data {
        [a, b, c] | [1, a, b, c] => Some([a, b, c]),
        // Flat data take their height, width and channels from the model.
        [values] => {
            let &[a, b, c] = model else { return None };
            if a.checked_mul(b)?.checked_mul(c)? != values {
                return None;
            }
            let model_layout = if c < a { Layout::Nhwc } else { Layout::Nchw };
            let model = <[usize; 3]>::try_from(model).ok()?;
            Some(if model_layout == layout {
                model
            } else {
                model_layout.transposed(model)
            })
        }
        _ => None,
    }
}

/// Whether the two shapes differ only in axes of length 1 or in how neighbouring axes are merged.
pub(crate) fn reshapes(a: &[usize], b: &[usize]) -> bool {
    let long = |shape: &[usize]| {
        shape
            .iter()
            .copied()
            .filter(|&axis| axis != 1)
            .collect::<Vec<_>>()
    };
    let (a, b) = (long(a), long(b));
    merges(&a, &b) || merges(&b, &a)
}

/// Whether `merged` is `axes` with some neighbours merged.
fn merges(axes: &[usize], merged: &[usize]) -> bool {
    let mut axes = axes.iter();
    merged.iter().all(|&axis| {
        let mut product = 1usize;
        while product < axis {
            let Some(&next) = axes.next() else {
                return false;
            };
            product = product.saturating_mul(next);
        }
        product == axis
    }) && axes.next().is_none()
}

/// What the user can do about shapes that do not fit.
fn hint(data: &[usize], model: &[usize], tried: Option<Layout>) -> String {
    let fits = |layout: Layout| {
        tried != Some(layout)
            && image(data, model, layout)
                .is_some_and(|image| reshapes(&layout.transposed(image), model))
    };
    let count = |shape: &[usize]| {
        shape
            .iter()
            .try_fold(1usize, |count, &axis| count.checked_mul(axis))
    };
    match [Layout::Nhwc, Layout::Nchw]
        .into_iter()
        .find(|&layout| fits(layout))
    {
        Some(layout) => format!(": transposed they would, so say --layout {}", layout.name()),
        None if count(data) == count(model) => {
            ": the number of values agrees, so reorder the axes of the data".to_owned()
        }
        None => ": are they made for another model?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_shape_is_left_alone() {
        for layout in [None, Some(Layout::Nchw)] {
            assert_eq!(fit(&[3, 32, 32], &[3, 32, 32], layout), Ok(Fit::default()));
        }
        assert_eq!(
            fit(&[32, 32, 3], &[32, 32, 3], Some(Layout::Nhwc)),
            Ok(Fit::default())
        );
    }

    #[test]
    fn axes_of_length_one_and_flattening_are_reshaped_and_said() {
        for (data, model) in [
            (&[28, 28][..], &[1, 28, 28][..]),
            (&[28, 28, 1], &[1, 28, 28]),
            (&[784], &[1, 28, 28]),
            (&[3, 32, 32], &[3072]),
            (&[3, 1024], &[3, 32, 32]),
            (&[], &[1]),
        ] {
            let fit = fit(data, model, None).unwrap();
            assert_eq!(fit.transpose, None);
            assert!(fit.note.unwrap().contains(&format!("{model:?}")));
        }
    }

    #[test]
    fn the_named_layout_is_transposed_to_what_the_model_takes() {
        assert_eq!(
            fit(&[32, 30, 3], &[3, 32, 30], Some(Layout::Nhwc))
                .unwrap()
                .transpose,
            Some(3)
        );
        assert_eq!(
            fit(&[3, 32, 30], &[32, 30, 3], Some(Layout::Nchw))
                .unwrap()
                .transpose,
            Some(960)
        );
        assert_eq!(
            fit(&[2880], &[3, 32, 30], Some(Layout::Nhwc))
                .unwrap()
                .transpose,
            Some(3)
        );
        assert_eq!(
            fit(&[2880], &[3, 32, 30], Some(Layout::Nchw))
                .unwrap()
                .transpose,
            None
        );
        assert_eq!(
            fit(&[32, 30, 3], &[2880], Some(Layout::Nhwc))
                .unwrap()
                .transpose,
            Some(3)
        );
        assert_eq!(
            fit(&[3, 3, 3], &[3, 3, 3], Some(Layout::Nhwc))
                .unwrap()
                .transpose,
            Some(3)
        );
        assert_eq!(
            fit(&[3, 3, 3], &[3, 3, 3], Some(Layout::Nchw))
                .unwrap()
                .transpose,
            None
        );
    }

    #[test]
    fn a_missing_layout_is_suggested_not_guessed() {
        assert!(
            fit(&[32, 32, 3], &[3, 32, 32], None)
                .unwrap_err()
                .contains("--layout nhwc")
        );
        assert!(
            fit(&[3, 32, 32], &[32, 32, 3], None)
                .unwrap_err()
                .contains("--layout nchw")
        );
        assert!(
            fit(&[32, 32, 3], &[3, 32, 32], Some(Layout::Nchw))
                .unwrap_err()
                .contains("--layout nhwc")
        );
    }

    #[test]
    fn other_shapes_do_not_fit() {
        for layout in [None, Some(Layout::Nchw), Some(Layout::Nhwc)] {
            assert!(fit(&[28, 28], &[3, 32, 32], layout).is_err());
            assert!(fit(&[30, 32, 3], &[3, 32, 30], layout).is_err());
            assert!(fit(&[27, 27], &[728], layout).is_err());
            let error = fit(&[784], &[3, 28, 28], layout).unwrap_err();
            assert!(!error.contains("--layout"), "{error}");
        }
    }
}
