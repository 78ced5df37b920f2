//! Encoded pictures as samples: decoded, made grey or RGB, resized and cropped to what a model takes.
//!
//! Readers whose samples are pictures share it. All is as `torchvision` and Pillow do it, up to the rounding of the interpolation.

use std::fmt::Display;
use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageReader, RgbImage};

/// What every image is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    height: u32,
    width: u32,
    order: Order,
}

/// How the values of an image follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Grey, without an axis of channels.
    Plain,
    /// `[channels, height, width]`
    First { grey: bool },
    /// `[height, width, channels]`
    Last { grey: bool },
}

impl Target {
    /// The size and the colours of an encoded image, for when no model asks for others; the reason where it is none.
    pub(super) fn of_image(bytes: &[u8]) -> Result<Self, String> {
        let decoder = reader(bytes)?.into_decoder().map_err(reason)?;
        let (width, height) = decoder.dimensions();
        let grey = matches!(
            decoder.color_type(),
            ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16
        );
        Ok(Target {
            height,
            width,
            order: Order::First { grey },
        })
    }

    /// What a model with inputs of this shape takes; `None` where that is no image.
    pub(super) fn of_model(shape: &[usize]) -> Option<Self> {
        let (height, width, order) = match *shape {
            [channels @ (1 | 3), height, width] => {
                let grey = channels == 1;
                (height, width, Order::First { grey })
            }
            [height, width, channels @ (1 | 3)] => {
                let grey = channels == 1;
                (height, width, Order::Last { grey })
            }
            [height, width] => (height, width, Order::Plain),
            _ => return None,
        };
        let side = |side: usize| u32::try_from(side).ok().filter(|&side| side > 0);
        Some(Target {
            height: side(height)?,
            width: side(width)?,
            order,
        })
    }

    pub(super) fn shape(self) -> Vec<usize> {
        let (height, width) = (self.height as usize, self.width as usize);
        let channels = if self.grey() { 1 } else { 3 };
        match self.order {
            Order::Plain => vec![height, width],
            Order::First { .. } => vec![channels, height, width],
            Order::Last { .. } => vec![height, width, channels],
        }
    }

    fn grey(self) -> bool {
        match self.order {
            Order::Plain => true,
            Order::First { grey } | Order::Last { grey } => grey,
        }
    }

    /// What is done to images until a model is known, in a sentence for the log.
    pub(super) fn note(self) -> String {
        format!(
            "images are brought to {} by {} pixels: resized until they cover it, and cropped at the centre",
            self.height, self.width
        )
    }

    /// What is done to images for a model, in a sentence for the log.
    pub(super) fn note_of_model(self) -> String {
        format!(
            "images are made {} and brought to the model's {} by {} pixels: resized until they cover it, and cropped at the centre",
            if self.grey() { "grey" } else { "RGB" },
            self.height,
            self.width
        )
    }

    /// Decodes an encoded image to `pixels`; the reason where it is none.
    pub(super) fn read(self, bytes: &[u8], pixels: &mut [f32]) -> Result<(), String> {
        let decoded = decode(bytes)?;
        if self.grey() {
            let image = self.cover(&grey(decoded));
            fill(pixels, image.as_raw().iter());
        } else {
            let image = self.cover(&decoded.into_rgb8());
            let bytes = image.as_raw();
            if matches!(self.order, Order::Last { .. }) {
                fill(pixels, bytes.iter());
            } else {
                let channel = |channel| bytes.iter().skip(channel).step_by(3);
                fill(pixels, (0..3).flat_map(channel));
            }
        }
        Ok(())
    }

    /// Resizes until the target is covered, and crops at the centre.
    fn cover<P>(self, image: &Pixels<P>) -> Pixels<P>
    where
        P: image::Pixel<Subpixel = u8> + 'static,
    {
        let (width, height) = self.covering(image.dimensions());
        let resized = if image.dimensions() == (width, height) {
            image.clone()
        } else {
            // An area-aware linear filter, as Pillow's `BILINEAR` is.
            imageops::resize(image, width, height, FilterType::Triangle)
        };
        if (width, height) == (self.width, self.height) {
            return resized;
        }
        let left = centred(width - self.width);
        let top = centred(height - self.height);
        imageops::crop_imm(&resized, left, top, self.width, self.height).to_image()
    }

    /// The smallest size, in the image's proportions, that covers the target; fractions are cut off, as `torchvision` does.
    pub(super) fn covering(self, (width, height): (u32, u32)) -> (u32, u32) {
        let scaled = |side: u32, new: u32, old: u32| {
            let side = u64::from(side) * u64::from(new) / u64::from(old.max(1));
            u32::try_from(side).unwrap_or(u32::MAX)
        };
        let (wide, high) = (u64::from(width), u64::from(height));
        if u64::from(self.height) * wide >= u64::from(self.width) * high {
            let wide = scaled(width, self.height, height);
            (wide.max(self.width), self.height)
        } else {
            let high = scaled(height, self.width, width);
            (self.width, high.max(self.height))
        }
    }
}

/// An image of 8-bit pixels.
type Pixels<P> = image::ImageBuffer<P, Vec<u8>>;

/// Half of `spare`, a half pixel going to the even side, as `torchvision`'s rounding does.
fn centred(spare: u32) -> u32 {
    let half = spare / 2;
    half + (spare & 1 & half)
}

fn fill<'a>(pixels: &mut [f32], bytes: impl Iterator<Item = &'a u8>) {
    for (value, &byte) in pixels.iter_mut().zip(bytes) {
        *value = byte.into();
    }
}

/// The image in grey; colours by ITU-R 601 in fixed point, to the bit as Pillow's `L`.
fn grey(image: DynamicImage) -> GrayImage {
    if !image.color().has_color() {
        return image.into_luma8();
    }
    let colours: RgbImage = image.into_rgb8();
    let (width, height) = colours.dimensions();
    GrayImage::from_fn(width, height, |x, y| {
        let &image::Rgb([red, green, blue]) = colours.get_pixel(x, y);
        let sum = u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471;
        // The weights add up to 2¹⁶, so that the third byte is all there is.
        let [_, _, luma, _] = (sum + (1 << 15)).to_le_bytes();
        image::Luma([luma])
    })
}

/// Decodes an image that is there to its end.
fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    if is_cut_jpeg(bytes) {
        return Err(reason("it ends before the image does"));
    }
    reader(bytes)?.decode().map_err(reason)
}

/// Whether a JPEG lacks its end marker behind its last scan: the decoder would make up what is missing.
/// Neither marker can stand inside of a scan.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    bytes.starts_with(&[0xff, 0xd8]) && last(0xd9) <= last(0xda)
}

/// Cameras' and scrapers' names are not always true; the content is.
fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, String> {
    ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(reason)
}

fn reason(error: impl Display) -> String {
    format!("{error}; copy it again or remove it")
}
