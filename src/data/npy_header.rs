//! The text of a `.npy` header.
//!
//! A parser of just what NumPy writes, without recursion: a header comes from a file that may be damaged or hostile.

/// The three entries of a header, a Python dictionary such as
/// `{'descr': '|u1', 'fortran_order': False, 'shape': (10000, 28, 28), }`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The element type, for example `<f4`.
    pub(super) descr: String,
    /// Whether the first axis varies fastest.
    pub(super) fortran_order: bool,
    /// The extent of each axis.
    pub(super) shape: Vec<u64>,
}

impl Header {
    /// Parses the text of a header; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut text = Text(text);
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        text.expect("{")?;
        while !text.take("}") {
            let key = text.string()?;
            text.expect(":")?;
            match key {
                "descr" => descr = Some(text.descr()?),
                "fortran_order" => fortran_order = Some(text.boolean()?),
                "shape" => shape = Some(text.shape()?),
                _ => return Err(format!("its header has an unknown entry `{key}`")),
            }
            if !text.take(",") {
                text.expect("}")?;
                break;
            }
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok(Header {
                descr,
                fortran_order,
                shape,
            }),
            _ => Err("its header lacks descr, fortran_order or shape".to_owned()),
        }
    }
}

/// The rest of a header that is being parsed.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// Passes over `token` if it comes next, after spaces.
    fn take(&mut self, token: &str) -> bool {
        self.0 = self.0.trim_start();
        match self.0.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            Ok(())
        } else {
            Err(self.unexpected(token))
        }
    }

    fn unexpected(&self, wanted: &str) -> String {
        let found: String = self.0.chars().take(12).collect();
        format!("its header has {found:?} where {wanted} should stand")
    }

    fn string(&mut self) -> Result<&'a str, String> {
        for quote in ["'", "\""] {
            if self.take(quote) {
                let (string, rest) = self
                    .0
                    .split_once(quote)
                    .ok_or_else(|| self.unexpected("a closing quote"))?;
                self.0 = rest;
                return Ok(string);
            }
        }
        Err(self.unexpected("a string"))
    }

    /// An element type: a string, or for records a list, which ends the parsing since mohs reads no records.
    fn descr(&mut self) -> Result<String, String> {
        if self.take("[") {
            return Err(
                "its elements are records: save each field as an array of its own".to_owned(),
            );
        }
        self.string().map(str::to_owned)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        if self.take("True") {
            Ok(true)
        } else if self.take("False") {
            Ok(false)
        } else {
            Err(self.unexpected("True or False"))
        }
    }

    fn shape(&mut self) -> Result<Vec<u64>, String> {
        let mut shape = Vec::new();
        self.expect("(")?;
        while !self.take(")") {
            shape.push(self.extent()?);
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(shape)
    }

    /// A whole number; Python 2 wrote an `L` after it.
    fn extent(&mut self) -> Result<u64, String> {
        self.0 = self.0.trim_start();
        let rest = self.0.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = self.0.strip_suffix(rest).unwrap_or_default();
        let extent = digits
            .parse()
            .map_err(|_| self.unexpected("the length of an axis"))?;
        self.0 = rest;
        self.take("L");
        Ok(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_all_writers_are_understood() {
        let header = |descr: &str, fortran_order, shape: &[u64]| {
            Ok(Header {
                descr: descr.to_owned(),
                fortran_order,
                shape: shape.to_vec(),
            })
        };
        for (text, expected) in [
            (
                "{'descr': '|u1', 'fortran_order': False, 'shape': (10, 28, 28), }   \n",
                header("|u1", false, &[10, 28, 28]),
            ),
            (
                "{\"shape\":(5,),\"fortran_order\":True,\"descr\":\">f8\"}",
                header(">f8", true, &[5]),
            ),
            (
                "{'descr': '<i8', 'fortran_order': False, 'shape': (10L,), }",
                header("<i8", false, &[10]),
            ),
            (
                "{'descr': '<i8', 'fortran_order': False, 'shape': ()}",
                header("<i8", false, &[]),
            ),
        ] {
            assert_eq!(Header::parse(text), expected);
        }
        for text in [
            "",
            "{",
            "{}",
            "{'descr': '<f4'}",
            "{'descr'",
            "{'shape': (1,, 2)}",
            "{'shape': (-1,)}",
            "{'\u{e9}",
        ] {
            assert!(Header::parse(text).is_err(), "{text}");
        }
    }
}
