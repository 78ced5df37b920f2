//! `report.html`: one file that a person reads, offline, on any screen and on paper.
//!
//! It asks for nothing outside of itself, and holds no script: figures show on hovering and on focus by style sheet alone.
//! What a reader needs is never told by colour alone. Start at [`page`].

mod chart;
mod gallery;
mod picture;
mod sections;

use super::Format;
use super::document::Document;
use std::io;

/// `report.html`
#[derive(Debug)]
pub(super) struct Html;

impl Format for Html {
    fn name(&self) -> &'static str {
        "html"
    }

    fn file_name(&self) -> &'static str {
        "report.html"
    }

    fn about(&self) -> &'static str {
        "A page with curves, table and gallery, in one file"
    }

    fn is_default(&self) -> bool {
        true
    }

    fn render(&self, document: &Document) -> io::Result<Vec<u8>> {
        page(document).map(String::into_bytes)
    }
}

/// Nothing may be loaded or run but the style sheet and the pictures within.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

fn page(document: &Document) -> io::Result<String> {
    let title = if document.model().is_empty() {
        "Robustness".to_owned()
    } else {
        format!("Robustness of {}", document.model())
    };
    let sections: Vec<Section> = [
        sections::verdict(document),
        sections::curves(document),
        sections::table(document),
        sections::comparison(document),
        sections::histogram(document),
        gallery::gallery(document)?,
        sections::diagnostics(document),
        sections::provenance(document),
    ]
    .into_iter()
    .flatten()
    .collect();
    let links: String = sections
        .iter()
        .map(|section| format!("<a href=\"#{}\">{}</a>\n", section.id, section.title))
        .collect();
    let bodies: String = sections.iter().map(Section::html).collect();
    let header = sections::header(document);
    let style = include_str!("style.css");
    let title = escape(&title);
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{style}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the report</a>\n{header}\
         <nav aria-label=\"Sections\"><div class=\"page\">\n{links}</div></nav>\n\
         <main id=\"main\" class=\"page\">\n{bodies}</main>\n</body>\n</html>\n"
    ))
}

/// A part of the page, with an entry in its navigation.
struct Section {
    id: &'static str,
    title: &'static str,
    /// What the figures mean, in a sentence or two; may be empty.
    lead: String,
    body: String,
}

impl Section {
    fn html(&self) -> String {
        let Section {
            id,
            title,
            lead,
            body,
        } = self;
        let lead = if lead.is_empty() {
            String::new()
        } else {
            format!("<p class=\"lead\">{lead}</p>\n")
        };
        format!(
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n{lead}{body}</section>\n"
        )
    }
}

/// Text as HTML, in elements and in attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The text in at most `width` characters, an ellipsis for what is left out at the end.
fn short(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let head: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    use super::super::document::fixtures::{document, example, gated};
    use super::*;

    #[test]
    fn a_page_asks_for_nothing_outside_of_itself() {
        let mut document = gated();
        document.examples = vec![example(); 3];
        let page = page(&document).unwrap();
        for outside in ["http://", "https://", "<script", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains(POLICY));
    }

    #[test]
    fn the_verdict_comes_first_and_every_link_has_its_target() {
        let mut document = gated();
        document.examples.push(example());
        let page = page(&document).unwrap();
        let verdict = page.find("The gate failed: 1 of 2 checks").unwrap();
        assert!(verdict < page.find("<svg class=\"chart").unwrap());
        for link in page.split("href=\"#").skip(1) {
            let id = link.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
        let ids: Vec<&str> = page
            .split(" id=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        for (position, id) in ids.iter().enumerate() {
            assert!(!ids[..position].contains(id), "{id} twice");
        }
    }

    #[test]
    fn nothing_that_a_file_says_becomes_markup() {
        let mut document = document();
        let evil = "<script>alert('x')</script>\"&";
        for row in &mut document.summary.rows {
            row.model = evil.to_owned();
            row.attack = evil.to_owned();
        }
        document.provenance.command.push(evil.to_owned());
        document.notes.push(evil.to_owned());
        document.diagnostics[0].attack = Some(evil.to_owned());
        document.examples = vec![example()];
        document.examples[0].attack = evil.to_owned();
        assert!(!page(&document).unwrap().contains("<script"));
    }

    #[test]
    fn elements_are_closed() {
        let mut document = gated();
        document.examples.push(example());
        let page = page(&document).unwrap();
        for element in [
            "section", "table", "tr", "td", "th", "div", "figure", "svg", "p", "dl", "dd",
        ] {
            let opened = page.matches(&format!("<{element}>")).count()
                + page.matches(&format!("<{element} ")).count();
            let closed = page.matches(&format!("</{element}>")).count();
            assert_eq!(opened, closed, "{element}");
        }
    }
}
