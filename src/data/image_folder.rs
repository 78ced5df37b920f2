//! Folders of images: one subfolder per class, PNG and JPEG files in each.
//!
//! The classes are the subfolders, sorted by name and counted from 0; the samples are their images, sorted by class and name.
//! An image of another size than the model's is resized, keeping its proportions, until it covers the model's, and cropped at its
//! centre; it is made grey or RGB as the model has one channel or three, and transparency is dropped. What an EXIF tag says about its
//! orientation is not followed. All this is as `torchvision` and Pillow do it, up to the rounding of the interpolation.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::{Error, Place};
use super::picture::Target;
use super::{Contents, Description, Flag, Reader, Rows, Source, sha256};
use crate::tensor::DType;

const ENDINGS: [&str; 3] = [".png", ".jpg", ".jpeg"];

/// The number of class names that are listed in the log.
const NAMES: usize = 20;

/// The reader of folders of images.
pub(super) struct ImageFolder;

impl Reader for ImageFolder {
    fn name(&self) -> &'static str {
        "a folder of images (one subfolder of .png and .jpg per class)"
    }

    /// A single image is no data set, but the message about it should come from here.
    fn suffixes(&self) -> &'static [&'static str] {
        &ENDINGS
    }

    fn flags(&self) -> &'static [Flag] {
        &[]
    }

    fn recognises(&self, path: &Path, _: &[u8]) -> bool {
        path.is_dir()
    }

    fn open(&self, source: &Source) -> Result<Box<dyn Contents>, Error> {
        let place = Place::file(&source.path);
        let (images, mut notes) = scan(&source.path)?;
        let Some((first, _)) = images.first() else {
            return Err(malformed(
                &source.path,
                "no subfolder of it holds .png or .jpg files; it needs one subfolder per class",
            ));
        };
        let target = Target::of_image(&bytes(first)?).map_err(|reason| broken(first, reason))?;
        notes.push(target.note());
        let description = Description {
            samples: images.len() as u64,
            shape: target.shape(),
            dtype: DType::U8,
            pixels: place.clone(),
            labels: place,
            notes,
        };
        Ok(Box::new(Images {
            images: images.into(),
            target,
            description,
        }))
    }
}

fn malformed(path: &Path, reason: impl Into<String>) -> Error {
    Error::Malformed {
        place: Place::file(path),
        format: "a folder of images",
        reason: reason.into(),
    }
}

/// The files with their labels, and the names of the classes.
type Scanned = (Vec<(PathBuf, u32)>, Vec<String>);

/// The images below `root` with their classes, and what to say about them.
fn scan(root: &Path) -> Result<Scanned, Error> {
    if !root.is_dir() {
        return Err(malformed(
            root,
            "it is a single file; give the folder that has one subfolder per class",
        ));
    }
    let (classes, loose): (Vec<_>, Vec<_>) =
        entries(root)?.into_iter().partition(|path| path.is_dir());
    let mut images = Vec::new();
    let mut left_out = loose.len();
    let mut empty = Vec::new();
    for (class, folder) in (0u32..).zip(&classes) {
        let before = images.len();
        for path in entries(folder)? {
            if is_image(&path) {
                images.push((path, class));
            } else {
                left_out += 1;
            }
        }
        if images.len() == before {
            empty.push(name(folder));
        }
    }
    let listed: Vec<_> = (0..)
        .zip(classes.iter().take(NAMES))
        .map(|(class, folder): (u32, _)| format!("{class} {}", name(folder)))
        .collect();
    let more = classes.len().saturating_sub(NAMES);
    let mut notes = vec![format!(
        "classes are the subfolders by name: {}{}",
        listed.join(", "),
        if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        }
    )];
    if !empty.is_empty() {
        notes.push(format!("classes without images: {}", empty.join(", ")));
    }
    if left_out > 0 {
        notes.push(format!(
            "{left_out} entries that are no .png or .jpg in a class's folder were left out"
        ));
    }
    Ok((images, notes))
}

/// What a folder holds, sorted by name, without hidden files.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = std::fs::read_dir(folder).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
    });
    let mut paths = read.map_err(|source| Error::Io {
        place: Place::file(folder),
        source,
    })?;
    paths.retain(|path| !name(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn is_image(path: &Path) -> bool {
    let name = name(path).to_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending)) && path.is_file()
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io {
        place: Place::file(path),
        source,
    })
}

fn broken(path: &Path, reason: impl Display) -> Error {
    Error::Malformed {
        place: Place::file(path),
        format: "a PNG or JPEG image",
        reason: reason.to_string(),
    }
}

/// An opened folder.
struct Images {
    images: Arc<[(PathBuf, u32)]>,
    target: Target,
    description: Description,
}

impl Contents for Images {
    fn description(&self) -> &Description {
        &self.description
    }

    fn rows(&self, start: u64) -> Result<Box<dyn Rows>, Error> {
        Ok(Box::new(ImageRows {
            images: self.images.clone(),
            target: self.target,
            next: usize::try_from(start).unwrap_or(usize::MAX),
        }))
    }

    fn fitted(&self, shape: &[usize]) -> Option<Box<dyn Contents>> {
        let target = Target::of_model(shape)?;
        let mut description = self.description.clone();
        description.shape = target.shape();
        // The last note is of the size.
        description.notes.pop();
        description.notes.push(target.note_of_model());
        Some(Box::new(Images {
            images: self.images.clone(),
            target,
            description,
        }))
    }

    /// The digest of the lines `DIGEST  CLASS/FILE` of all images in order, as `sha256sum` prints them.
    fn digest(&self) -> Result<Option<String>, Error> {
        let mut hasher = Sha256::new();
        for (path, _) in self.images.iter() {
            let folder = path.parent().map(name).unwrap_or_default();
            hasher.update(format!("{}  {folder}/{}\n", sha256(path)?, name(path)));
        }
        Ok(Some(format!("{:x}", hasher.finalize())))
    }
}

struct ImageRows {
    images: Arc<[(PathBuf, u32)]>,
    target: Target,
    next: usize,
}

impl Rows for ImageRows {
    fn read(&mut self, pixels: &mut [f32], labels: &mut [u32]) -> Result<(), Error> {
        let values = self.target.shape().iter().product::<usize>().max(1);
        let images = self.images.iter().skip(self.next);
        for (((path, class), pixels), label) in
            images.zip(pixels.chunks_mut(values)).zip(&mut *labels)
        {
            let read = self.target.read(&bytes(path)?, pixels);
            read.map_err(|reason| broken(path, reason))?;
            *label = *class;
        }
        self.next = self.next.saturating_add(labels.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb, RgbImage};

    use super::super::fixtures::{Folder, message, read};
    use super::super::{Dataset, Options};
    use super::*;

    /// Red counts columns, green counts rows, in tens.
    fn ramp(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([10 * x as u8, 10 * y as u8, 200]))
    }

    fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        encoded(&ramp(width, height), ImageFormat::Png)
    }

    /// Files `CLASS/NAME`.
    fn folder(files: &[(&str, Vec<u8>)]) -> Folder {
        let folder = Folder::new();
        for (name, bytes) in files {
            let path = folder.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn open(folder: &Folder) -> Result<Dataset, Error> {
        Dataset::open(&Source::new(folder.path("")))
    }

    fn fitted(folder: &Folder, shape: &[usize]) -> Result<Dataset, Error> {
        let options = Options {
            bounds: (0.0, 255.0),
            input_shape: Some(shape.to_vec()),
            ..Options::default()
        };
        open(folder)?.prepared(&options)
    }

    #[test]
    fn classes_are_the_sorted_subfolders() {
        let files = [
            ("dog/b.png", png(3, 2)),
            ("dog/a.PNG", png(3, 2)),
            ("dog/notes.txt", Vec::new()),
            ("cat/z.jpg", encoded(&ramp(3, 2), ImageFormat::Jpeg)),
            ("eel/.hidden.png", Vec::new()),
        ];
        let folder = folder(&files);
        let dataset = open(&folder).unwrap();
        assert_eq!(dataset.sample_shape(), [3, 2, 3]);
        let labels: Vec<_> = read(&dataset).unwrap().iter().map(|s| s.label).collect();
        assert_eq!(labels, [0, 1, 1]);
        let notes: Vec<_> = dataset.notes().collect();
        assert_eq!(
            notes[0],
            "classes are the subfolders by name: 0 cat, 1 dog, 2 eel"
        );
        assert_eq!(notes[1], "classes without images: eel");
        assert!(notes[2].starts_with("1 entries"), "{notes:?}");
    }

    #[test]
    fn an_image_of_the_right_size_is_read_as_it_is_in_either_layout() {
        let folder = folder(&[("a/1.png", png(3, 2))]);
        let first = read(&fitted(&folder, &[3, 2, 3]).unwrap()).unwrap();
        let expected = [
            [0.0, 10.0, 20.0, 0.0, 10.0, 20.0],
            [0.0, 0.0, 0.0, 10.0, 10.0, 10.0],
            [200.0; 6],
        ];
        assert_eq!(first[0].pixels, expected.concat());
        let folder = self::folder(&[("a/1.png", png(2, 4))]);
        let last = read(&fitted(&folder, &[4, 2, 3]).unwrap()).unwrap();
        assert_eq!(last[0].pixels[..6], [0.0, 0.0, 200.0, 10.0, 0.0, 200.0]);
    }

    #[test]
    fn grey_is_pillows_to_the_bit() {
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [12, 200, 77]];
        let image = RgbImage::from_fn(4, 1, |x, _| Rgb(colours[x as usize]));
        let folder = folder(&[("a/1.png", encoded(&image, ImageFormat::Png))]);
        for shape in [&[1, 1, 4][..], &[1, 4]] {
            let sample = &read(&fitted(&folder, shape).unwrap()).unwrap()[0];
            // PIL.Image.convert("L") of the same pixels.
            assert_eq!(sample.pixels, [76.0, 150.0, 29.0, 130.0]);
        }
    }

    #[test]
    fn other_sizes_cover_the_input_and_are_cropped_at_the_centre() {
        let folder = folder(&[("a/1.png", png(7, 2))]);
        let sample = &read(&fitted(&folder, &[3, 2, 2]).unwrap()).unwrap()[0];
        // No resizing: half of the five spare columns, 2.5, is rounded to the even 2.
        assert_eq!(sample.pixels[..4], [20.0, 30.0, 20.0, 30.0]);
        let target = Target::of_model(&[3, 224, 224]).unwrap();
        assert_eq!(target.covering((500, 375)), (298, 224));
        assert_eq!(target.covering((375, 500)), (224, 298));
        assert_eq!(target.covering((10, 10)), (224, 224));
        let flat = RgbImage::from_pixel(9, 5, Rgb([7, 8, 9]));
        let folder = self::folder(&[("a/1.png", encoded(&flat, ImageFormat::Png))]);
        let sample = &read(&fitted(&folder, &[3, 8, 8]).unwrap()).unwrap()[0];
        assert_eq!(
            sample.pixels,
            [[7.0; 64], [8.0; 64], [9.0; 64]].concat(),
            "a single colour stays one"
        );
    }

    #[test]
    fn an_image_cut_anywhere_is_an_error_that_names_it() {
        let image = ramp(16, 16);
        for (name, format) in [("1.png", ImageFormat::Png), ("1.jpg", ImageFormat::Jpeg)] {
            let bytes = encoded(&image, format);
            // The last bytes of a PNG are an empty chunk, which decoders do not wait for.
            for length in 0..bytes.len() - 16 {
                let folder = folder(&[
                    ("a/0.png", png(16, 16)),
                    (&format!("b/{name}"), bytes[..length].to_vec()),
                ]);
                let error = read(&open(&folder).unwrap()).unwrap_err();
                let error = message(error);
                assert!(error.contains(name), "{error}");
            }
        }
    }

    #[test]
    fn what_is_no_folder_of_classes_says_what_is_needed() {
        let folder = folder(&[("loose.png", png(2, 2)), ("a/b/deep.png", png(2, 2))]);
        let error = message(open(&folder).unwrap_err());
        assert!(error.contains("one subfolder per class"), "{error}");
        let single = Dataset::open(&Source::new(folder.path("loose.png")));
        let error = message(single.unwrap_err());
        assert!(error.contains("it is a single file"), "{error}");
    }

    #[test]
    fn a_layout_is_refused_since_images_take_the_models() {
        let folder = folder(&[("a/1.png", png(2, 2))]);
        let options = Options {
            input_shape: Some(vec![3, 2, 2]),
            layout: Some(super::super::Layout::Nhwc),
            ..Options::default()
        };
        let error = message(open(&folder).unwrap().prepared(&options).unwrap_err());
        assert!(error.contains("--layout"), "{error}");
    }

    #[test]
    fn the_digest_changes_with_a_name_and_with_a_pixel() {
        let digest = |name: &str, bytes: Vec<u8>| {
            let folder = folder(&[(name, bytes)]);
            open(&folder).unwrap().digests().unwrap().remove(0).1
        };
        let one = digest("a/1.png", png(2, 2));
        assert_eq!(one, digest("a/1.png", png(2, 2)));
        assert_ne!(one, digest("b/1.png", png(2, 2)));
        assert_ne!(one, digest("a/1.png", png(2, 3)));
    }
}
