//! The files of a report: opened before the evaluation runs, filled while it does and after it, named together at the end.

use super::adversarial::AdversarialWriter;
use super::arguments::{EvaluateArguments, SAMPLES, formats_by_default};
use super::evaluate::Work;
use super::exit::{Blame, Failure};
use super::output::{OutputFile, OutputFolder, commit, distinct};
use crate::data::Dataset;
use crate::evaluate::Adversarial;
use crate::model::Model;
use crate::outcome::{Norm, SampleOutcome};
use crate::report::csv::SamplesWriter;
use crate::report::{Document, Example, FORMATS, Format, ImageLayout};
use crate::threat::Bounds;
use std::io::{self, Write};
use std::path::PathBuf;

/// How many examples a report shows.
const GALLERY: usize = 24;

/// The forms of a report that are written where nobody says which are.
pub(super) fn default_formats() -> Vec<String> {
    formats_by_default().split(',').map(str::to_owned).collect()
}

/// The names of the files that the arguments ask for.
pub(super) fn written(arguments: &EvaluateArguments) -> Vec<&'static str> {
    let attacked = !arguments.epsilon.is_empty();
    let asked = |name: &str| attacked && arguments.format.iter().any(|format| format == name);
    let samples = asked(SAMPLES).then_some("samples.csv");
    let others = FORMATS.iter().filter(|format| asked(format.name()));
    let minimal = arguments.minimal_epsilon.is_some();
    samples
        .into_iter()
        .chain(others.map(|format| format.file_name()))
        .chain(minimal.then_some("minimal_epsilon.csv"))
        .collect()
}

/// The files that an evaluation writes, opened before it starts.
#[derive(Default)]
pub(super) struct Files {
    /// The folder of the results, where there is one: it stays reserved for this run as long as any of its files is open.
    folder: Option<OutputFolder>,
    /// Goes first, as it may lie in the folder of the others, which goes with the last of them.
    adversarial: Option<OutputFile>,
    samples: Option<OutputFile>,
    rendered: Vec<(&'static dyn Format, OutputFile)>,
}

impl Files {
    /// Opens what the arguments ask for.
    pub(super) fn open(arguments: &EvaluateArguments) -> Result<Self, Failure> {
        let mut files = match &arguments.out {
            Some(path) => {
                let folder = OutputFolder::open(path).or_bad_input()?;
                if arguments.epsilon.is_empty() {
                    Files {
                        folder: Some(folder),
                        ..Files::default()
                    }
                } else {
                    Files::in_folder(&folder, &arguments.format)?
                }
            }
            None => Files::default(),
        };
        if let Some(path) = &arguments.save_adversarial {
            let file = OutputFile::create(path).or_bad_input()?;
            let read = [&arguments.model.model, &arguments.data.samples];
            for input in read.into_iter().chain(&arguments.data.labels) {
                file.spare(input)?;
            }
            files.adversarial = Some(file);
        }
        let rendered = files.rendered.iter().map(|(_, file)| file);
        distinct(
            files
                .adversarial
                .iter()
                .chain(&files.samples)
                .chain(rendered),
        )?;
        Ok(files)
    }

    /// The forms of that name in a folder.
    pub(super) fn in_folder(folder: &OutputFolder, formats: &[String]) -> Result<Self, Failure> {
        let asked = |name: &str| formats.iter().any(|format| format == name);
        let samples = asked(SAMPLES).then(|| folder.file("samples.csv"));
        let rendered = FORMATS
            .iter()
            .filter(|format| asked(format.name()))
            .map(|&format| Ok((format, folder.file(format.file_name()).or_bad_input()?)))
            .collect::<Result<_, Failure>>()?;
        Ok(Files {
            folder: Some(folder.clone()),
            adversarial: None,
            samples: samples.transpose().or_bad_input()?,
            rendered,
        })
    }

    /// The folder of the results, for further files.
    pub(super) fn folder(&self) -> Option<&OutputFolder> {
        self.folder.as_ref()
    }
}

/// Writes what an evaluation finds as it comes.
pub(super) struct Recorder {
    /// Goes first, as in [`Files`].
    adversarial: Option<AdversarialWriter>,
    samples: Option<SamplesWriter<OutputFile>>,
    rendered: Vec<(&'static dyn Format, OutputFile)>,
    galleries: Vec<Gallery>,
    /// How many outcomes were noted.
    outcomes: u64,
}

/// What is left of an evaluation that was cut off.
const PARTIAL: &str = "samples.partial.csv";

impl Recorder {
    /// For an evaluation in these norms.
    pub(super) fn new(files: Files, model: &Model, norms: &[Norm]) -> Result<Self, Failure> {
        let adversarial = files
            .adversarial
            .map(|file| AdversarialWriter::new(file, model.sample_shape()));
        // An inner tensor is no image, whatever its shape.
        let layout = ImageLayout::of(model.sample_shape()).filter(|_| !model.is_cut());
        Ok(Recorder {
            samples: files
                .samples
                .map(SamplesWriter::new)
                .transpose()
                .or_bad_input()?,
            galleries: layout
                .filter(|_| !files.rendered.is_empty())
                .map(|layout| Gallery::of_each(layout, norms))
                .unwrap_or_default(),
            rendered: files.rendered,
            outcomes: 0,
            adversarial: adversarial.transpose().or_bad_input()?,
        })
    }

    /// Whether there is a file that is rendered from the whole.
    pub(super) fn is_rendered(&self) -> bool {
        !self.rendered.is_empty()
    }

    /// Notes what became of a sample.
    pub(super) fn outcome(&mut self, outcome: &SampleOutcome) -> io::Result<()> {
        self.outcomes += 1;
        match &mut self.samples {
            Some(samples) => samples.write(outcome),
            None => Ok(()),
        }
    }

    /// Notes an adversarial example.
    pub(super) fn adversarial(&mut self, found: &Adversarial<'_>) -> io::Result<()> {
        let mut galleries = self.galleries.iter_mut();
        if let Some(gallery) = galleries.find(|gallery| gallery.norm == found.norm) {
            gallery.add(found);
        }
        match &mut self.adversarial {
            Some(writer) => writer.write(found),
            None => Ok(()),
        }
    }

    /// Keeps the outcomes of an evaluation that was cut off, under a name that says so; how many there are and where.
    pub(super) fn keep(self) -> Result<Option<(u64, PathBuf)>, Failure> {
        let Some(samples) = self.samples.filter(|_| self.outcomes > 0) else {
            return Ok(None);
        };
        let mut file = samples.finish().or_bad_input()?;
        file.rename(PARTIAL);
        let path = file.path().to_owned();
        commit(vec![file]).or_bad_input()?;
        Ok(Some((self.outcomes, path)))
    }

    /// Completes every file and gives it its name, `others` together with them.
    pub(super) fn finish(
        self,
        mut document: Document,
        work: &Work<'_>,
        others: Vec<OutputFile>,
    ) -> Result<Document, Failure> {
        let mut done = others;
        if let Some(adversarial) = self.adversarial {
            done.push(adversarial.finish().or_bad_input()?);
        }
        if let Some(samples) = self.samples {
            done.push(samples.finish().or_bad_input()?);
        }
        for gallery in self.galleries {
            document.examples.extend(gallery.examples(work)?);
        }
        for (format, mut file) in self.rendered {
            let bytes = format.render(&document).or_bad_input()?;
            file.write_all(&bytes).or_bad_input()?;
            done.push(file);
        }
        commit(done).or_bad_input()?;
        Ok(document)
    }
}

/// The most fragile samples in a norm: one example of each, those at the smallest ε, in the order of the data where that is the same.
struct Gallery {
    layout: ImageLayout,
    norm: Norm,
    /// How many there may be.
    most: usize,
    kept: Vec<Found>,
}

/// An example without its clean image.
struct Found {
    index: u64,
    label: u32,
    prediction: u32,
    attack: String,
    epsilon: f64,
    point: Vec<f32>,
}

impl Gallery {
    /// A gallery for each norm: radii of different norms cannot be held against each other.
    fn of_each(layout: ImageLayout, norms: &[Norm]) -> Vec<Self> {
        let gallery = |&norm| Gallery {
            layout,
            norm,
            most: GALLERY / norms.len(),
            kept: Vec::new(),
        };
        norms.iter().map(gallery).collect()
    }

    fn add(&mut self, found: &Adversarial<'_>) {
        let rank = |epsilon: f64, index: u64| (epsilon.to_bits(), index);
        let new = rank(found.epsilon, found.index);
        if let Some(position) = self.kept.iter().position(|old| old.index == found.index) {
            if new >= rank(self.kept[position].epsilon, found.index) {
                return;
            }
            self.kept.remove(position);
        }
        // Radii are positive, so that their bits are ordered as they are.
        let place = self
            .kept
            .partition_point(|old| rank(old.epsilon, old.index) < new);
        if place < self.most {
            let kept = Found {
                index: found.index,
                label: found.label,
                prediction: found.prediction,
                attack: found.attack.to_owned(),
                epsilon: found.epsilon,
                point: found.point.to_vec(),
            };
            self.kept.insert(place, kept);
            self.kept.truncate(self.most);
        }
    }

    /// The examples with their clean images, for which the data set is read once more.
    fn examples(self, work: &Work<'_>) -> Result<Vec<Example>, Failure> {
        let mut clean = self.clean_images(work.dataset)?;
        let bounds = work.threats.common.bounds;
        let bounds = (bounds != Bounds::NONE).then_some((bounds.low, bounds.high));
        let examples = self.kept.into_iter().zip(&mut clean);
        Ok(examples
            .map(|(found, clean)| Example {
                index: found.index,
                label: found.label,
                prediction: found.prediction,
                attack: found.attack,
                norm: self.norm,
                epsilon: found.epsilon,
                layout: self.layout,
                clean: std::mem::take(clean),
                adversarial: found.point,
                bounds,
            })
            .collect())
    }

    /// The clean image of each example, in their order.
    fn clean_images(&self, dataset: &Dataset) -> Result<Vec<Vec<f32>>, Failure> {
        let mut images = vec![Vec::new(); self.kept.len()];
        let mut missing = self.kept.len();
        let mut pixels = vec![0.0; dataset.sample_len()];
        let mut samples = dataset.samples().or_bad_input()?;
        while missing > 0 {
            let Some(entry) = samples.read_into(&mut pixels).or_bad_input()? else {
                break;
            };
            let wanted = self
                .kept
                .iter()
                .position(|found| found.index == entry.index);
            if let Some(position) = wanted {
                images[position].clone_from(&pixels);
                missing -= 1;
            }
        }
        Ok(images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gallery_keeps_the_smallest_radius_of_each_sample_and_the_most_fragile_samples() {
        let layout = ImageLayout::of(&[4, 4]).unwrap();
        let [mut gallery] = Gallery::of_each(layout, &[Norm::Linf])
            .try_into()
            .ok()
            .unwrap();
        let mut add = |index, epsilon, attack| {
            gallery.add(&Adversarial {
                index,
                label: 0,
                prediction: 1,
                attack,
                norm: Norm::Linf,
                epsilon,
                point: &[0.0; 16],
            });
        };
        for index in (0..40).rev() {
            add(index, 0.2, "fgsm");
        }
        add(39, 0.1, "pgd");
        add(3, 0.3, "pgd");
        add(7, 0.2, "pgd");
        let kept: Vec<(u64, f64, &str)> = gallery
            .kept
            .iter()
            .map(|found| (found.index, found.epsilon, found.attack.as_str()))
            .collect();
        assert_eq!(kept.len(), GALLERY);
        assert_eq!(kept[0], (39, 0.1, "pgd"));
        let rest: Vec<_> = (0..23).map(|index| (index, 0.2, "fgsm")).collect();
        assert_eq!(kept[1..], rest);
    }
}
