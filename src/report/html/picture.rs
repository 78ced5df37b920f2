//! Small PNGs for the gallery: an image, and what was added to it, magnified.

use super::super::document::{Example, ImageLayout};
use std::io;

/// A picture of whole pixels, in rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) width: usize,
    pub(super) height: usize,
    /// 1 or 3.
    channels: usize,
    bytes: Vec<u8>,
}

/// The three pictures of an example.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Triple {
    pub(super) clean: Picture,
    pub(super) adversarial: Picture,
    pub(super) perturbation: Picture,
    /// How many times larger the perturbation is drawn than it is.
    pub(super) magnification: f32,
}

impl Triple {
    /// The pictures, at most `side` pixels long and wide; none where the values are not those of an image of that layout.
    pub(super) fn new(example: &Example, side: usize) -> Option<Self> {
        let Example {
            layout,
            clean,
            adversarial,
            ..
        } = example;
        if clean.len() != layout.len() || adversarial.len() != layout.len() {
            return None;
        }
        let (low, high) = example.bounds.unwrap_or_else(|| {
            let values = || clean.iter().chain(adversarial);
            let low = values().copied().fold(f32::INFINITY, f32::min);
            let high = values().copied().fold(f32::NEG_INFINITY, f32::max);
            (low, high)
        });
        let range = (high - low).max(f32::MIN_POSITIVE);
        let perturbation: Vec<f32> = adversarial
            .iter()
            .zip(clean)
            .map(|(adversarial, clean)| adversarial - clean)
            .collect();
        let largest = perturbation
            .iter()
            .fold(0f32, |largest, v| largest.max(v.abs()));
        // The largest change becomes black or white, no change the grey between them.
        let magnification = if largest > 0.0 {
            0.5 * range / largest
        } else {
            1.0
        };
        let shade = |value: f32| (value - low) / range;
        let picture =
            |values: &[f32], shade: &dyn Fn(f32) -> f32| Picture::new(*layout, values, side, shade);
        Some(Triple {
            clean: picture(clean, &shade),
            adversarial: picture(adversarial, &shade),
            perturbation: picture(&perturbation, &|value| 0.5 + value * magnification / range),
            magnification,
        })
    }

    /// The three as PNG files.
    pub(super) fn encode(&self) -> io::Result<[Vec<u8>; 3]> {
        Ok([
            self.clean.encode()?,
            self.adversarial.encode()?,
            self.perturbation.encode()?,
        ])
    }
}

impl Picture {
    /// Each pixel the mean of those that fall into it, its shade from 0 (black) to 1 (white).
    fn new(layout: ImageLayout, values: &[f32], side: usize, shade: &dyn Fn(f32) -> f32) -> Self {
        let ImageLayout {
            height: rows,
            width: columns,
            channels,
            ..
        } = layout;
        let longest = rows.max(columns);
        let scaled = |length: usize| {
            if longest <= side {
                length
            } else {
                (length * side / longest).max(1)
            }
        };
        let (height, width) = (scaled(rows), scaled(columns));
        let mut bytes = Vec::with_capacity(height * width * channels);
        for row in 0..height {
            let vertical = row * rows / height..((row + 1) * rows).div_ceil(height);
            for column in 0..width {
                let horizontal = column * columns / width..((column + 1) * columns).div_ceil(width);
                for channel in 0..channels {
                    let (mut sum, mut count) = (0f32, 0f32);
                    for row in vertical.clone() {
                        for column in horizontal.clone() {
                            let value = values.get(layout.position(row, column, channel));
                            sum += shade(value.copied().unwrap_or_default());
                            count += 1.0;
                        }
                    }
                    let level = (255.0 * sum / count).round().clamp(0.0, 255.0);
                    #[expect(clippy::cast_sign_loss, reason = "from 0 to 255")]
                    bytes.push(level as u8);
                }
            }
        }
        Picture {
            width,
            height,
            channels,
            bytes,
        }
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let mut file = Vec::new();
        let side = |length: usize| u32::try_from(length).map_err(io::Error::other);
        let mut encoder = png::Encoder::new(&mut file, side(self.width)?, side(self.height)?);
        encoder.set_color(if self.channels == 1 {
            png::ColorType::Grayscale
        } else {
            png::ColorType::Rgb
        });
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.bytes)?;
        writer.finish()?;
        Ok(file)
    }
}

/// Bytes in base 64 (RFC 4648), as a data URI has them.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |position: usize| u32::from(chunk.get(position).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            // Three bytes give four digits, two give three, one gives two.
            text.push(if position <= chunk.len() {
                char::from(DIGITS[(group >> (18 - 6 * position) & 63) as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::document::fixtures::example;
    use super::*;

    #[test]
    fn base_64_is_that_of_the_standard() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let expected = [
            "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
        ];
        assert_eq!(texts.map(|text| base64(text.as_bytes())), expected);
    }

    #[test]
    fn shades_run_from_the_lower_bound_to_the_upper() {
        let triple = Triple::new(&example(), 96).unwrap();
        assert_eq!((triple.clean.width, triple.clean.height), (4, 4));
        let expected: Vec<u8> = (0..16).map(|value| value * 17).collect();
        assert_eq!(triple.clean.bytes, expected);
        // The largest change of 0.1 is white, its half downwards half way to black, no change grey.
        assert!((triple.magnification - 5.0).abs() < 1e-4);
        assert_eq!(triple.perturbation.bytes[5], 255);
        assert_eq!(triple.perturbation.bytes[6], 64);
        assert_eq!(triple.perturbation.bytes[7], 128);
    }

    #[test]
    fn large_images_are_made_smaller_by_taking_means() {
        let layout = ImageLayout::of(&[2 * 4, 4 * 4, 3]).unwrap();
        let mut values = vec![0.0; layout.len()];
        // The first pixel of the small picture covers four of the large one: half of its red is full.
        values[layout.position(0, 0, 0)] = 1.0;
        values[layout.position(1, 1, 0)] = 1.0;
        let picture = Picture::new(layout, &values, 8, &|value| value);
        assert_eq!((picture.width, picture.height), (8, 4));
        assert_eq!(picture.bytes[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn a_picture_reads_back_from_its_file() {
        let triple = Triple::new(&example(), 96).unwrap();
        for (file, picture) in triple.encode().unwrap().iter().zip([
            &triple.clean,
            &triple.adversarial,
            &triple.perturbation,
        ]) {
            let mut reader = png::Decoder::new(io::Cursor::new(file))
                .read_info()
                .unwrap();
            let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut bytes).unwrap();
            assert_eq!(bytes, picture.bytes);
        }
    }

    #[test]
    fn values_of_another_length_give_no_picture() {
        let mut example = example();
        example.clean.pop();
        assert_eq!(Triple::new(&example, 96), None);
    }
}
