//! The gallery: clean image, adversarial image, and what was added, magnified.

use super::super::document::{Document, Example};
use super::super::number::magnitude;
use super::super::table::{epsilon, symbol};
use super::picture::{Picture, Triple, base64};
use super::{Section, escape};
use std::io;

/// How many bytes the pictures of a page may have as PNG: in base 64 they become a third more, and the page is to stay below a megabyte.
const BUDGET: usize = 600_000;

/// Sides that pictures may have, the largest first: the first with which they keep to the budget is taken.
const SIDES: [usize; 5] = [112, 88, 64, 48, 32];

/// The gallery, where there are images.
pub(super) fn gallery(document: &Document) -> io::Result<Option<Section>> {
    let pictures = pictures(&document.examples)?;
    if pictures.is_empty() {
        return Ok(None);
    }
    let cards: String = pictures
        .iter()
        .map(|(example, triple, files)| card(document, example, triple, files))
        .collect();
    let plural = if pictures.len() == 1 { "" } else { "s" };
    let lead = format!(
        "{} adversarial example{plural}, those found at the smallest ε first. Every one was judged by the model as shipped. In the third picture grey is \
         no change; the change is multiplied by the number below it.",
        pictures.len()
    );
    Ok(Some(Section {
        id: "gallery",
        title: "Most fragile samples",
        lead,
        body: format!("<div class=\"gallery\">\n{cards}</div>\n"),
    }))
}

type Pictured<'a> = (&'a Example, Triple, [Vec<u8>; 3]);

/// The examples with their pictures, all of them as large as the budget lets them be.
fn pictures(examples: &[Example]) -> io::Result<Vec<Pictured<'_>>> {
    let mut pictured = Vec::new();
    for side in SIDES {
        pictured.clear();
        let mut size = 0;
        for example in examples {
            if let Some(triple) = Triple::new(example, side) {
                let files = triple.encode()?;
                size += files.iter().map(Vec::len).sum::<usize>();
                pictured.push((example, triple, files));
            }
        }
        if size <= BUDGET {
            break;
        }
    }
    Ok(pictured)
}

fn card(document: &Document, example: &Example, triple: &Triple, files: &[Vec<u8>; 3]) -> String {
    let [clean, adversarial, perturbation] = files;
    let Example {
        index,
        label,
        prediction,
        attack,
        norm,
        ..
    } = example;
    let radius = epsilon(&document.summary, example.epsilon);
    let times = magnitude(f64::from(triple.magnification));
    let first = image(
        &triple.clean,
        clean,
        &format!("Sample {index} as it is, predicted as {label}"),
    );
    let second = image(
        &triple.adversarial,
        adversarial,
        &format!("Sample {index} under attack, predicted as {prediction}"),
    );
    let third = image(
        &triple.perturbation,
        perturbation,
        &format!("The change of sample {index}, magnified {times} times"),
    );
    format!(
        "<figure class=\"card\">\n<div class=\"triple\">\n\
         <div>{first}<span>clean <b>{label}</b></span></div>\n\
         <div>{second}<span>now <b class=\"wrong\">{prediction}</b></span></div>\n\
         <div>{third}<span>change × {times}</span></div>\n</div>\n\
         <figcaption>sample {index} · {} ε {} · {}</figcaption>\n</figure>\n",
        symbol(*norm),
        escape(&radius),
        escape(attack)
    )
}

fn image(picture: &Picture, file: &[u8], text: &str) -> String {
    // Few pixels are drawn as the squares that they are.
    let class = if picture.width.max(picture.height) < 64 {
        " class=\"pixels\""
    } else {
        ""
    };
    format!(
        "<img{class} width=\"{}\" height=\"{}\" alt=\"{}\" src=\"data:image/png;base64,{}\">",
        picture.width,
        picture.height,
        escape(text),
        base64(file)
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::document::ImageLayout;
    use super::super::super::document::fixtures::{document, example};
    use super::*;

    #[test]
    fn a_card_says_what_the_model_says() {
        let mut document = document();
        document.examples.push(example());
        let section = gallery(&document).unwrap().unwrap();
        assert!(section.body.contains("clean <b>3</b>"));
        assert!(section.body.contains("now <b class=\"wrong\">5</b>"));
        assert!(
            section
                .body
                .contains("sample 17 · ℓ∞ ε 8/255 · pgd:steps=20")
        );
        assert!(section.body.contains("change × 5.000"));
    }

    #[test]
    fn without_images_there_is_no_gallery() {
        assert!(gallery(&document()).unwrap().is_none());
    }

    #[test]
    fn two_dozen_large_colour_images_of_noise_keep_to_the_budget() {
        let layout = ImageLayout::of(&[3, 224, 224]).unwrap();
        // Numbers without any pattern, which no compression makes smaller.
        let mut state = 1u32;
        let mut noise = || -> Vec<f32> {
            let next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as f32 / 65_535.0
            };
            (0..layout.len()).map(next).collect()
        };
        let examples: Vec<Example> = (0..24)
            .map(|index| Example {
                index,
                layout,
                clean: noise(),
                adversarial: noise(),
                ..example()
            })
            .collect();
        let pictured = pictures(&examples).unwrap();
        let size: usize = pictured
            .iter()
            .flat_map(|(_, _, files)| files)
            .map(Vec::len)
            .sum();
        assert_eq!(pictured.len(), 24);
        assert!(size <= BUDGET, "{size}");
    }
}
