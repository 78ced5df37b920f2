//! Names by pattern: `*` stands for any characters, `?` for one.

/// Whether the whole name fits the pattern.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut read) = (0, 0);
    // Where the last `*` stands, and how far it has reached.
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&letter) if letter == '?' || letter == name[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((place, reached)) => {
                    star = Some((place, reached + 1));
                    (at, read) = (place + 1, reached + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&letter| letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_characters() {
        for (pattern, name) in [
            ("conv1.weight", "conv1.weight"),
            ("conv*", "conv1.weight"),
            ("*.weight", "layer1.0.conv.weight"),
            ("layer?.*.bias", "layer2.1.bias"),
            ("*", ""),
            ("a*b*c", "a-b-b-c"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("conv1", "conv1.weight"),
            ("*.weight", "conv1.bias"),
            ("layer?.bias", "layer10.bias"),
            ("?", ""),
            ("a*b", "a-b-c"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
