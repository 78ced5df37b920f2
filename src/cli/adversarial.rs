//! `--save-adversarial`: the adversarial examples of an evaluation as an `.npz` file.
//!
//! Arrays, one entry per example in the order in which they were found: `x` float32 [k, …] in the units of the data, `index`, `label`,
//! `prediction` int64 [k], `epsilon` float64 [k], `norm` float64 [k] (∞, 2 or 1), and `attack` int64 [k], a position in `attacks` (the labels, one per line, as uint8).

use super::output::OutputFile;
use crate::evaluate::Adversarial;
use crate::outcome::Norm;
use ndarray::{Array1, ArrayViewD, IxDyn};
use ndarray_npy::{WriteNpyError, WriteNpyExt};
use std::io::{self, Seek, SeekFrom, Write};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Collects examples; the points go through a temporary file, so that memory stays flat.
pub(super) struct AdversarialWriter {
    target: OutputFile,
    sample_shape: Vec<usize>,
    points: io::BufWriter<std::fs::File>,
    index: Vec<i64>,
    label: Vec<i64>,
    prediction: Vec<i64>,
    epsilon: Vec<f64>,
    norm: Vec<f64>,
    attack: Vec<i64>,
    attacks: Vec<String>,
}

impl AdversarialWriter {
    /// Starts.
    pub(super) fn new(target: OutputFile, sample_shape: &[usize]) -> io::Result<Self> {
        Ok(AdversarialWriter {
            target,
            sample_shape: sample_shape.to_vec(),
            points: io::BufWriter::new(tempfile::tempfile()?),
            index: Vec::new(),
            label: Vec::new(),
            prediction: Vec::new(),
            epsilon: Vec::new(),
            norm: Vec::new(),
            attack: Vec::new(),
            attacks: Vec::new(),
        })
    }

    /// Adds an example.
    pub(super) fn write(&mut self, found: &Adversarial<'_>) -> io::Result<()> {
        for value in found.point {
            self.points.write_all(&value.to_ne_bytes())?;
        }
        let attack = self
            .attacks
            .iter()
            .position(|name| name == found.attack)
            .unwrap_or_else(|| {
                self.attacks.push(found.attack.to_owned());
                self.attacks.len() - 1
            });
        self.index
            .push(i64::try_from(found.index).unwrap_or(i64::MAX));
        self.label.push(found.label.into());
        self.prediction.push(found.prediction.into());
        self.epsilon.push(found.epsilon);
        self.norm.push(match found.norm {
            Norm::Linf => f64::INFINITY,
            Norm::L2 => 2.0,
            Norm::L1 => 1.0,
            Norm::L0 => 0.0,
        });
        self.attack.push(i64::try_from(attack).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Writes the archive; the file is ready to be committed then.
    #[expect(
        unsafe_code,
        reason = "a memory map of a file that only this process can reach"
    )]
    pub(super) fn finish(mut self) -> io::Result<OutputFile> {
        let mut file = self
            .points
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.flush()?;
        file.seek(SeekFrom::Start(0))?;
        let shape: Vec<usize> = std::iter::once(self.index.len())
            .chain(self.sample_shape)
            .collect();
        // SAFETY: the file is unlinked and open here alone, so nothing changes it while it is mapped.
        let map = if self.index.is_empty() {
            None
        } else {
            Some(unsafe { memmap2::Mmap::map(&file)? })
        };
        let points: &[f32] = match &map {
            // SAFETY: a map starts at a page, which is aligned for f32, and every bit pattern is an f32.
            Some(map) => unsafe { map.align_to::<f32>().1 },
            None => &[],
        };
        let points = ArrayViewD::from_shape(IxDyn(&shape), points).map_err(io::Error::other)?;
        let names: Vec<u8> = self.attacks.join("\n").into_bytes();
        let mut archive = ZipWriter::new(&mut self.target);
        let failed = |error: WriteNpyError| io::Error::other(error);
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .large_file(true);
        macro_rules! member {
            ($name:literal, $array:expr) => {
                archive.start_file(concat!($name, ".npy"), options)?;
                $array.write_npy(&mut archive).map_err(failed)?;
            };
        }
        member!("x", points);
        member!("index", Array1::from(self.index));
        member!("label", Array1::from(self.label));
        member!("prediction", Array1::from(self.prediction));
        member!("epsilon", Array1::from(self.epsilon));
        member!("norm", Array1::from(self.norm));
        member!("attack", Array1::from(self.attack));
        member!("attacks", Array1::from(names));
        archive.finish()?;
        Ok(self.target)
    }
}
