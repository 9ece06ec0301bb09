//! The end of a section of lines: an answer's head, or the trailers behind a chunked body.

use memchr::memchr;

/// Looks for the empty line that ends a section. It is asked again as bytes arrive, and looks at
/// each of them once.
#[derive(Clone, Copy, Default)]
pub(super) struct Section {
    /// Where the line starts that is not complete yet.
    line: usize,
    /// How far no line end was found.
    seen: usize,
}

impl Section {
    /// Where the section ends, behind its empty line; `None` when more bytes are needed. `bytes`
    /// starts with the section; a section longer than `most` bytes is refused.
    ///
    /// A bare LF is refused on the spot: a peer that ends lines so never sends the end that is
    /// awaited here.
    pub(super) fn end(&mut self, bytes: &[u8], most: usize) -> Result<Option<usize>, &'static str> {
        let bounded = bytes.get(..most).unwrap_or(bytes);
        while let Some(rest) = bounded.get(self.seen..)
            && let Some(feed) = memchr(b'\n', rest)
        {
            let next = self.seen + feed + 1;
            match bounded.get(self.line..next) {
                Some(b"\r\n") => return Ok(Some(next)),
                Some([.., b'\r', b'\n']) => (),
                _ => return Err("line_end"),
            }
            self.line = next;
            self.seen = next;
        }
        if bytes.len() >= most {
            return Err("too_long");
        }
        self.seen = bytes.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told when the bytes arrive one by one.
    fn end(bytes: &[u8], most: usize) -> Result<Option<usize>, &'static str> {
        let mut section = Section::default();
        for length in 0..bytes.len() {
            match section.end(&bytes[..length], most) {
                Ok(None) => (),
                early => return early,
            }
        }
        section.end(bytes, most)
    }

    #[test]
    fn a_section_ends_behind_its_empty_line() {
        for (bytes, place) in [
            (&b"HTTP/1.1 200 OK\r\na: 1\r\n\r\nbody\r\n\r\n"[..], 25),
            (b"HTTP/1.1 200 OK\r\n\r\n", 19),
            (b"\r\n", 2),
            (b"\r\nmore", 2),
        ] {
            assert_eq!(end(bytes, 100), Ok(Some(place)));
            assert_eq!(Section::default().end(bytes, 100), Ok(Some(place)));
        }
    }

    #[test]
    fn an_unfinished_section_needs_more() {
        for bytes in [&b""[..], b"a: 1", b"a: 1\r\n", b"a: 1\r\n\r"] {
            assert_eq!(end(bytes, 100), Ok(None));
        }
    }

    #[test]
    fn a_bare_line_feed_is_refused_at_once() {
        for bytes in [&b"a: 1\n"[..], b"\n", b"a: 1\r\n\n", b"a: 1\r\nb: 2\n\r\n"] {
            assert_eq!(end(bytes, 100), Err("line_end"));
            assert_eq!(Section::default().end(bytes, 100), Err("line_end"));
        }
    }

    #[test]
    fn a_section_is_bounded() {
        let bytes = b"a: 1\r\n\r\n";
        assert_eq!(end(bytes, 8), Ok(Some(8)));
        assert_eq!(end(bytes, 7), Err("too_long"));
        assert_eq!(Section::default().end(bytes, 7), Err("too_long"));
        assert_eq!(Section::default().end(b"a: 1234", 7), Err("too_long"));
    }
}
