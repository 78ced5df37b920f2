//! The columns of a table and the fields in them, for the reader of [`csv`](super::csv) files.

use std::io::{self, BufRead, Read};

use super::stream::Bytes;

/// The names by which a label column is found, the more telling ones first.
const LABEL_NAMES: [&str; 4] = ["label", "y", "class", "target"];

/// The most columns that an error lists.
const LISTED: usize = 12;

/// The separator of the first line.
pub(super) fn separator(bytes: Bytes) -> io::Result<u8> {
    let mut line = Vec::new();
    // A first line beyond a megabyte is judged by its beginning.
    bytes.take(1 << 20).read_until(b'\n', &mut line)?;
    #[expect(clippy::naive_bytecount, reason = "one line of text")]
    let count = |separator: u8| line.iter().filter(|&&byte| byte == separator).count();
    // The last of equals wins: a line without any has a single column, however it is split.
    Ok([b'\t', b';', b',']
        .into_iter()
        .max_by_key(|&separator| count(separator))
        .unwrap_or(b','))
}

/// The position of the label column, or why it is not known.
pub(super) fn label_column(
    names: Option<&[String]>,
    columns: usize,
    wanted: Option<&str>,
) -> Result<usize, String> {
    let Some(wanted) = wanted else {
        let names = names.ok_or("there is no header to find the label column by")?;
        return LABEL_NAMES
            .iter()
            .find_map(|label| {
                names
                    .iter()
                    .position(|name| name.eq_ignore_ascii_case(label))
            })
            .ok_or_else(|| format!("no column is named {}", LABEL_NAMES.join(", ")));
    };
    if let Some(position) = names
        .unwrap_or_default()
        .iter()
        .position(|name| name == wanted)
    {
        return Ok(position);
    }
    let position = wanted.parse::<i64>().ok().and_then(|position| {
        let from_end = usize::try_from(position.unsigned_abs()).ok()?;
        if position < 0 {
            columns.checked_sub(from_end)
        } else {
            Some(from_end)
        }
    });
    position
        .filter(|&position| position < columns)
        .ok_or_else(|| format!("there is no column {wanted:?}"))
}

pub(super) fn list_columns(names: Option<&[String]>, columns: usize) -> String {
    let Some(names) = names else {
        return format!("0 to {} (without names)", columns.saturating_sub(1));
    };
    let listed: Vec<_> = names
        .iter()
        .take(LISTED)
        .map(|name| format!("`{name}`"))
        .collect();
    let more = columns.saturating_sub(LISTED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", listed.join(", "))
}

/// The number that `field` is, or what is wrong with it.
pub(super) fn number(field: &[u8]) -> Result<f32, String> {
    // Pixels are short whole numbers, which need no general parser.
    if let Some(whole) = whole_number(field)
        && let Ok(whole) = u16::try_from(whole)
    {
        return Ok(whole.into());
    }
    let text = String::from_utf8_lossy(field);
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) if text.is_empty() => Err("is empty: every row needs all values".to_owned()),
        Err(_) => Err(format!("holds {text:?}, which is not a number")),
    }
}

/// A field of at most nine digits.
pub(super) fn whole_number(field: &[u8]) -> Option<u32> {
    if field.is_empty() || field.len() > 9 {
        return None;
    }
    field.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u32::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_like_any_float() {
        for text in [
            "0",
            "255",
            "007",
            "65536",
            "1e-3",
            "-0.5",
            "3.4028235e38",
            "123456789012",
        ] {
            assert_eq!(number(text.as_bytes()), Ok(text.parse().unwrap()), "{text}");
        }
        assert!(number(b"nan").unwrap().is_nan());
        for text in [&b""[..], b"1,5", b"0x10", b"\xff", b"1 2"] {
            assert!(number(text).is_err());
        }
    }

    #[test]
    fn the_separator_is_the_most_frequent_one() {
        for (line, expected) in [
            ("a,b;c,d\n", b','),
            ("a;b;c\n1,5;2;3", b';'),
            ("a\tb", b'\t'),
            ("a\n;;;;", b','),
            ("", b','),
        ] {
            assert_eq!(
                separator(Box::new(line.as_bytes())).unwrap(),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn a_long_list_of_columns_is_shortened() {
        let names: Vec<_> = (0..785).map(|column| format!("c{column}")).collect();
        let listed = list_columns(Some(&names), names.len());
        assert!(
            listed.starts_with("`c0`, `c1`") && listed.ends_with("`c11` and 773 more"),
            "{listed}"
        );
    }
}
