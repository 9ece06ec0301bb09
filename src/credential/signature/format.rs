//! How a signature stands in its field: alone, behind a version (`sha256=…`), or packed with others (`t=…,v1=…`).

/// The format of a signature field, as in `t={timestamp},v1={signature}` with the separator `,`.
#[derive(Clone, Debug)]
pub struct Format {
    separator: Option<Box<str>>,
    pieces: Vec<Piece>,
}

/// What a signature field holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked<'a> {
    /// The signatures as spelled, at least one and at most [`MOST_SIGNATURES`].
    pub signatures: Vec<&'a [u8]>,
    /// The timestamp, when the format packs one.
    pub timestamp: Option<&'a [u8]>,
}

/// More signatures than this in one field are refused: each one is compared with each secret.
pub const MOST_SIGNATURES: usize = 8;

#[derive(Clone, Debug)]
struct Piece {
    prefix: Box<str>,
    variable: Variable,
    suffix: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Variable {
    Signature,
    Timestamp,
}

impl Format {
    /// The field is the signature.
    pub fn bare() -> Format {
        Format {
            separator: None,
            pieces: vec![Piece { prefix: "".into(), variable: Variable::Signature, suffix: "".into() }],
        }
    }

    /// Reads a format; without a separator it has exactly one variable.
    pub fn parse(text: &str, separator: Option<&str>) -> Result<Format, String> {
        let items: Vec<&str> = match separator {
            Some("") => return Err("the separator is empty".to_owned()),
            Some(separator) => text.split(separator).collect(),
            None => vec![text],
        };
        let pieces = items.into_iter().map(Piece::parse).collect::<Result<Vec<_>, _>>()?;
        let count = |variable| pieces.iter().filter(|piece| piece.variable == variable).count();
        if count(Variable::Signature) != 1 || count(Variable::Timestamp) > 1 {
            return Err(format!("`{text}` needs {{signature}} once, and {{timestamp}} at most once"));
        }
        Ok(Format { separator: separator.map(Into::into), pieces })
    }

    /// True when the format packs a timestamp.
    pub fn has_timestamp(&self) -> bool {
        self.pieces.iter().any(|piece| piece.variable == Variable::Timestamp)
    }

    /// Takes a field value apart. Items of another version are passed over (a sender may list several); `None` when no
    /// signature is left, there are too many, or a timestamp is missing or repeated.
    pub fn unpack<'a>(&self, value: &'a [u8]) -> Option<Unpacked<'a>> {
        let mut unpacked = Unpacked::default();
        let mut take = |item: &'a [u8]| -> Option<()> {
            for piece in &self.pieces {
                let inner = item
                    .strip_prefix(piece.prefix.as_bytes())
                    .and_then(|rest| rest.strip_suffix(piece.suffix.as_bytes()));
                match (inner, piece.variable) {
                    (None, _) => continue,
                    (Some(inner), Variable::Signature) => unpacked.signatures.push(inner),
                    (Some(inner), Variable::Timestamp) => {
                        if unpacked.timestamp.replace(inner).is_some() {
                            return None;
                        }
                    }
                }
                break;
            }
            (unpacked.signatures.len() <= MOST_SIGNATURES).then_some(())
        };
        match &self.separator {
            None => take(value)?,
            Some(separator) => split(value, separator.as_bytes()).try_for_each(|item| take(item.trim_ascii()))?,
        }
        let complete = !unpacked.signatures.is_empty() && unpacked.timestamp.is_some() == self.has_timestamp();
        complete.then_some(unpacked)
    }

    /// Puts a field value together.
    pub fn pack(&self, signature: &str, timestamp: &str) -> String {
        let item = |piece: &Piece| {
            let value = match piece.variable {
                Variable::Signature => signature,
                Variable::Timestamp => timestamp,
            };
            format!("{}{value}{}", piece.prefix, piece.suffix)
        };
        let items: Vec<String> = self.pieces.iter().map(item).collect();
        items.join(self.separator.as_deref().unwrap_or_default())
    }
}

impl Piece {
    fn parse(text: &str) -> Result<Piece, String> {
        for (word, variable) in [("{signature}", Variable::Signature), ("{timestamp}", Variable::Timestamp)] {
            if let Some((prefix, suffix)) = text.split_once(word)
                && !suffix.contains('{')
                && !prefix.contains('{')
            {
                return Ok(Piece { prefix: prefix.into(), variable, suffix: suffix.into() });
            }
        }
        Err(format!("`{text}` needs {{signature}} or {{timestamp}} exactly once; a separator divides several"))
    }
}

fn split<'a>(value: &'a [u8], separator: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let here = rest?;
        match here.windows(separator.len()).position(|window| window == separator) {
            Some(at) => {
                rest = here.get(at + separator.len()..);
                here.get(..at)
            }
            None => rest.take(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(format: &str, separator: Option<&str>, value: &str) -> Option<(Vec<String>, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let unpacked = Format::parse(format, separator).unwrap().unpack(value.as_bytes())?;
        Some((unpacked.signatures.into_iter().map(text).collect(), unpacked.timestamp.map(text)))
    }

    fn some(signatures: &[&str], timestamp: Option<&str>) -> Option<(Vec<String>, Option<String>)> {
        Some((signatures.iter().map(|&one| one.to_owned()).collect(), timestamp.map(str::to_owned)))
    }

    #[test]
    fn a_field_is_taken_apart_by_its_format() {
        assert_eq!(unpack("{signature}", None, "ab"), some(&["ab"], None));
        assert_eq!(unpack("sha256={signature}", None, "sha256=ab"), some(&["ab"], None));
        assert_eq!(unpack("sha256={signature}", None, "sha1=ab"), None);
        assert_eq!(unpack("v1,{signature}", Some(" "), "v1,a v2,b v1,c"), some(&["a", "c"], None));
        let packed = "t={timestamp},v1={signature}";
        assert_eq!(unpack(packed, Some(","), "t=1,v1=a,v0=b, v1=c"), some(&["a", "c"], Some("1")));
        assert_eq!(unpack(packed, Some(","), "t=1,t=1,v1=a"), None);
        assert_eq!(unpack(packed, Some(","), "v1=a"), None);
        assert_eq!(unpack(packed, Some(","), "t=1"), None);
    }

    #[test]
    fn too_many_signatures_are_refused() {
        let many = |count| vec!["v1=a"; count].join(",");
        assert!(unpack("v1={signature}", Some(","), &many(MOST_SIGNATURES)).is_some());
        assert_eq!(unpack("v1={signature}", Some(","), &many(MOST_SIGNATURES + 1)), None);
    }

    #[test]
    fn what_is_packed_unpacks_again() {
        let format = Format::parse("ts={timestamp};h1={signature}", Some(";")).unwrap();
        assert_eq!(format.pack("ab", "17"), "ts=17;h1=ab");
        assert_eq!(format.unpack(b"ts=17;h1=ab").unwrap().timestamp, Some(&b"17"[..]));
    }

    #[test]
    fn a_format_without_its_signature_is_refused() {
        for (text, separator) in [
            ("x", None),
            ("{timestamp}", None),
            ("{signature}{timestamp}", None),
            ("{signature},{signature}", Some(",")),
        ] {
            assert!(Format::parse(text, separator).is_err(), "{text}");
        }
    }
}
