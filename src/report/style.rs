//! Emphasis and colour in text, where it is asked for.

/// Whether text carries ANSI escapes. Nothing that a reader needs is told by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// No escapes: for files, pipes and `NO_COLOR`.
    #[default]
    Plain,
    /// ANSI escapes for bold, dim and a few colours.
    Ansi,
}

/// What a piece of text is, as far as its looks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Heading,
    Quiet,
    Good,
    Bad,
    /// The series of a chart, by position.
    Series(usize),
}

impl Style {
    /// The text with the escapes of its role around it; whitespace at its ends stays outside them.
    pub(super) fn paint(self, role: Role, text: &str) -> String {
        if self == Style::Plain || text.trim().is_empty() {
            return text.to_owned();
        }
        let code = match role {
            Role::Heading => "1",
            Role::Quiet => "2",
            Role::Good => "32",
            Role::Bad => "1;31",
            // Blue and yellow stay apart under every common colour blindness.
            Role::Series(position) => ["34", "33", "36", "35"][position % 4],
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The text without ANSI escapes, to compare what is styled with what is not.
#[cfg(test)]
pub(super) fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, tail)| tail);
    }
    plain + rest
}
