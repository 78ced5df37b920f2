//! Parquet files as the Hugging Face hub has them: a column of images (`{bytes, path}`, or bytes) or of lists of numbers, and a
//! column of class numbers.
//!
//! Reading them takes the Cargo feature `parquet`; without it the format is known, and refused with the way out.

#[cfg(feature = "parquet")]
mod columns;
#[cfg(feature = "parquet")]
mod contents;
#[cfg_attr(
    not(feature = "parquet"),
    allow(
        dead_code,
        reason = "without the feature, a folder is recognised and no more"
    )
)]
mod shards;
#[cfg(feature = "parquet")]
mod stream;
#[cfg(feature = "parquet")]
mod value;

use std::path::Path;

use super::error::Error;
use super::{Contents, Flag, Reader, Source};

/// How every Parquet file begins and ends.
const MAGIC: &[u8] = b"PAR1";

/// The reader of Parquet files.
pub(super) struct Parquet;

impl Reader for Parquet {
    fn name(&self) -> &'static str {
        "Parquet (.parquet or a folder of them, with the feature `parquet`)"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".parquet"]
    }

    fn flags(&self) -> &'static [Flag] {
        &[Flag::XKey, Flag::LabelColumn]
    }

    fn recognises(&self, path: &Path, head: &[u8]) -> bool {
        head.starts_with(MAGIC) || shards::is_folder(path)
    }

    #[cfg(feature = "parquet")]
    fn open(&self, source: &Source) -> Result<Box<dyn Contents>, Error> {
        contents::open(source)
    }

    #[cfg(not(feature = "parquet"))]
    fn open(&self, source: &Source) -> Result<Box<dyn Contents>, Error> {
        Err(Error::Malformed {
            place: super::Place::file(&source.path),
            format: "a file",
            reason: "it is Parquet, and this mohs was built without the feature `parquet`; build it with \
                     `cargo install --path . --features parquet`, or save the samples as .npz"
                .into(),
        })
    }
}

#[cfg(all(test, not(feature = "parquet")))]
mod tests {
    use super::super::fixtures::{Folder, message};
    use super::super::{Dataset, Source};

    #[test]
    fn without_the_feature_the_message_names_it() {
        let folder = Folder::new();
        for (name, bytes) in [("train.parquet", &b"PAR1 and more"[..]), ("shard", b"PAR1")] {
            folder.write(name, bytes);
        }
        for name in ["train.parquet", "shard", ""] {
            let opened = Dataset::open(&Source::new(folder.path(name)));
            let error = message(opened.unwrap_err());
            assert!(error.contains("--features parquet"), "{error}");
        }
    }
}
