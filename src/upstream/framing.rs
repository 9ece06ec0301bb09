//! Where an answer's body ends, read strictly (RFC 9112 §6.3, §7.1).

use bytes::{Buf, BytesMut};

use super::section::Section;
use crate::fields::{FieldFault, Fields, is_value_byte};

/// How the end of a body is told, and how much is still to come.
#[derive(Clone, Copy)]
pub(super) enum Framing {
    /// So many bytes more.
    Length(u64),
    /// In chunks, at this place.
    Chunked(Chunk),
    /// When the connection is closed.
    Close,
}

/// A place in a chunked body.
#[derive(Clone, Copy)]
pub(super) enum Chunk {
    /// In front of a chunk's size.
    Size,
    /// Inside a chunk, with so many bytes more.
    Inside(u64),
    /// In front of the line end behind a chunk.
    End,
    /// In the trailer section.
    Trailers(Section),
    /// Behind everything.
    Over,
}

/// What the bytes at hand amount to.
pub(super) enum Step {
    /// A piece of the body, never empty.
    Piece(BytesMut),
    /// Nothing without more bytes.
    More,
    /// The body is complete. Bytes left over do not belong to it.
    End,
}

/// How much trailers may hold.
#[derive(Clone, Copy)]
pub(super) struct TrailerBounds {
    /// In bytes.
    pub(super) section: usize,
    /// In fields.
    pub(super) fields: usize,
}

impl Framing {
    /// The start of a chunked body.
    pub(super) const CHUNKED: Framing = Framing::Chunked(Chunk::Size);

    /// Takes the next piece of the body off the front of `buffer`, or says what is missing.
    /// Trailers are checked and dropped.
    pub(super) fn step(&mut self, buffer: &mut BytesMut, bounds: TrailerBounds) -> Result<Step, &'static str> {
        match self {
            Framing::Length(0) => Ok(Step::End),
            Framing::Length(left) => Ok(piece(left, buffer)),
            Framing::Chunked(chunk) => chunk.step(buffer, bounds),
            Framing::Close if buffer.is_empty() => Ok(Step::More),
            Framing::Close => Ok(Step::Piece(buffer.split())),
        }
    }

    /// For how many bytes the next read should have room: no more than a stated length leaves, so
    /// that a body stays where its start is.
    pub(super) fn room(&self) -> usize {
        let at_most = |left: u64| usize::try_from(left).unwrap_or(MOST_ROOM).min(MOST_ROOM);
        match self {
            Framing::Length(left) => at_most(*left),
            Framing::Chunked(Chunk::Inside(left)) => at_most(*left).max(USUAL_ROOM),
            Framing::Chunked(_) | Framing::Close => USUAL_ROOM,
        }
    }

    /// The length of the whole body, asked in front of it.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Framing::Length(length) => Some(*length),
            Framing::Chunked(_) | Framing::Close => None,
        }
    }

    /// Whether the body is complete when the connection is closed now.
    pub(super) fn ends_at_close(&self) -> bool {
        matches!(self, Framing::Close)
    }
}

impl Chunk {
    fn step(&mut self, buffer: &mut BytesMut, bounds: TrailerBounds) -> Result<Step, &'static str> {
        loop {
            *self = match self {
                Chunk::Size => match size_line(buffer)? {
                    None => return Ok(Step::More),
                    Some(0) => Chunk::Trailers(Section::default()),
                    Some(size) => Chunk::Inside(size),
                },
                Chunk::Inside(0) => Chunk::End,
                Chunk::Inside(left) => return Ok(piece(left, buffer)),
                Chunk::End => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        Chunk::Size
                    }
                    None if b"\r".starts_with(buffer) => return Ok(Step::More),
                    _ => return Err("chunk_end"),
                },
                Chunk::Trailers(section) => match section.end(buffer, bounds.section)? {
                    None => return Ok(Step::More),
                    Some(end) => {
                        let trailers = buffer.split_to(end).freeze();
                        Fields::scan(trailers, 0, bounds.fields).map_err(FieldFault::as_str)?;
                        Chunk::Over
                    }
                },
                Chunk::Over => return Ok(Step::End),
            }
        }
    }
}

/// As much as there is of the `left` bytes.
fn piece(left: &mut u64, buffer: &mut BytesMut) -> Step {
    let there = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
    if there == 0 {
        return Step::More;
    }
    *left -= there as u64;
    Step::Piece(buffer.split_to(there))
}

/// Takes a line with a chunk's size off the front of `buffer`; `None` when it is not complete yet.
fn size_line(buffer: &mut BytesMut) -> Result<Option<u64>, &'static str> {
    let bounded = buffer.get(..LONGEST_SIZE_LINE).unwrap_or(buffer);
    let Some(feed) = bounded.iter().position(|&byte| byte == b'\n') else {
        return match bounded.len() {
            LONGEST_SIZE_LINE => Err("chunk_size"),
            _ => Ok(None),
        };
    };
    let line = buffer.split_to(feed + 1);
    let line = line.strip_suffix(b"\r\n").ok_or("line_end")?;
    size(line).map(Some).ok_or("chunk_size")
}

/// chunk-size [ chunk-ext ]: 1 to 16 hex digits, which always fit, and extensions, which are
/// skipped. A blank is fine only in front of an extension.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extensions) = line.split_at_checked(digits)?;
    let extended = extensions.is_empty() || extensions.trim_ascii_start().starts_with(b";");
    let clean = extensions.iter().copied().all(is_value_byte);
    if digits.is_empty() || digits.len() > 16 || !extended || !clean {
        return None;
    }
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// What one read brings where nothing is known about what is to come.
const USUAL_ROOM: usize = 8 * 1024;

/// What one read brings at most, which bounds the memory of a streamed body.
const MOST_ROOM: usize = 64 * 1024;

/// A size and its line end take 18 bytes; what is beyond serves extensions, which no one here
/// reads.
const LONGEST_SIZE_LINE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: TrailerBounds = TrailerBounds { section: 64, fields: 2 };

    /// The body, the bytes left over and whether it is complete, with `input` arriving in pieces of
    /// `step` bytes.
    fn read(mut framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>, bool), &'static str> {
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        let mut pieces = input.chunks(step);
        loop {
            match framing.step(&mut buffer, BOUNDS)? {
                Step::Piece(piece) => {
                    assert!(!piece.is_empty());
                    body.extend_from_slice(&piece);
                }
                Step::End => {
                    let rest = pieces.flatten();
                    buffer.extend(rest);
                    return Ok((body, buffer.to_vec(), true));
                }
                Step::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok((body, buffer.to_vec(), framing.ends_at_close())),
                },
            }
        }
    }

    /// Read in pieces of every size, always with the same outcome.
    fn whole(framing: Framing, input: &[u8]) -> Result<(Vec<u8>, Vec<u8>, bool), &'static str> {
        let outcome = read(framing, input, usize::MAX);
        for step in 1..=input.len() {
            let pieces = read(framing, input, step);
            match (&outcome, &pieces) {
                (Ok(one), Ok(many)) => assert_eq!(one, many, "in pieces of {step}"),
                (Err(one), Err(many)) => assert_eq!(one, many, "in pieces of {step}"),
                _ => panic!("{outcome:?}, but {pieces:?} in pieces of {step}"),
            }
        }
        outcome
    }

    fn complete(body: &[u8], rest: &[u8]) -> Result<(Vec<u8>, Vec<u8>, bool), &'static str> {
        Ok((body.to_vec(), rest.to_vec(), true))
    }

    fn chunked_fault(input: &[u8]) -> &'static str {
        match whole(Framing::CHUNKED, input) {
            Ok(read) => panic!("{} was read as {read:?}", input.escape_ascii()),
            Err(fault) => fault,
        }
    }

    #[test]
    fn a_length_counts_the_bytes() {
        assert_eq!(whole(Framing::Length(5), b"hello"), complete(b"hello", b""));
        assert_eq!(whole(Framing::Length(5), b"hello!"), complete(b"hello", b"!"));
        assert_eq!(whole(Framing::Length(0), b"!"), complete(b"", b"!"));
    }

    #[test]
    fn close_takes_everything() {
        assert_eq!(whole(Framing::Close, b"hello\r\n"), complete(b"hello\r\n", b""));
        assert_eq!(whole(Framing::Close, b""), complete(b"", b""));
    }

    #[test]
    fn chunks_are_joined() {
        for input in [
            &b"5\r\nhello\r\n0\r\n\r\n"[..],
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            b"0000000000000005\r\nhello\r\n0000\r\n\r\n",
        ] {
            assert_eq!(whole(Framing::CHUNKED, input), complete(b"hello", b""));
        }
        assert_eq!(whole(Framing::CHUNKED, b"0\r\n\r\n"), complete(b"", b""));
        let long = [b"1A\r\n", &[b'\n'; 26][..], b"\r\n1a\r\n", &[b'\r'; 26], b"\r\n0\r\n\r\n"].concat();
        let body = [[b'\n'; 26], [b'\r'; 26]].concat();
        assert_eq!(whole(Framing::CHUNKED, &long), complete(&body, b""));
    }

    #[test]
    fn bytes_behind_the_last_chunk_are_left_over() {
        let input = b"1\r\nx\r\n0\r\n\r\nHTTP/1.1 200 OK";
        assert_eq!(whole(Framing::CHUNKED, input), complete(b"x", b"HTTP/1.1 200 OK"));
    }

    #[test]
    fn every_cut_leaves_a_body_incomplete() {
        let input = b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\na: 1\r\n\r\n";
        for length in 0..input.len() {
            let (_, _, complete) = read(Framing::CHUNKED, &input[..length], 3).unwrap();
            assert!(!complete, "cut at {length}");
        }
        for length in 0..5 {
            let (_, _, complete) = read(Framing::Length(5), &b"hello"[..length], 3).unwrap();
            assert!(!complete, "cut at {length}");
        }
    }

    // threat: G2
    #[test]
    fn a_chunk_size_is_hex_digits_only() {
        for size in [
            "",
            " ",
            "+1",
            "-1",
            " 1",
            "1 ",
            "0x1",
            "1_0",
            "g",
            "1g",
            "1,1",
            "1 1",
            "\t1",
            "00000000000000001",
            "10000000000000000",
        ] {
            let input = format!("{size}\r\nx\r\n0\r\n\r\n");
            assert_eq!(chunked_fault(input.as_bytes()), "chunk_size", "{size:?}");
        }
    }

    #[test]
    fn the_largest_chunk_size_does_not_overflow() {
        let (body, _, complete) = whole(Framing::CHUNKED, b"ffffffffffffffff\r\nabc").unwrap();
        assert_eq!(body, b"abc");
        assert!(!complete);
    }

    // threat: G2
    #[test]
    fn chunk_lines_end_with_crlf_only() {
        assert_eq!(chunked_fault(b"1\nx\r\n0\r\n\r\n"), "line_end");
        assert_eq!(chunked_fault(b"\nx\r\n0\r\n\r\n"), "line_end");
        assert_eq!(chunked_fault(b"1;a\nx\r\n0\r\n\r\n"), "line_end");
        assert_eq!(chunked_fault(b"1\r\r\nx\r\n0\r\n\r\n"), "chunk_size");
        assert_eq!(chunked_fault(b"1\rx\r\nx\r\n0\r\n\r\n"), "chunk_size");
        assert_eq!(chunked_fault(b"1\r\nx\n0\r\n\r\n"), "chunk_end");
        assert_eq!(chunked_fault(b"1\r\nx\r0\r\n\r\n"), "chunk_end");
        assert_eq!(chunked_fault(b"1\r\nxy\r\n0\r\n\r\n"), "chunk_end");
        assert_eq!(chunked_fault(b"1\r\nx0\r\n\r\n"), "chunk_end");
        assert_eq!(chunked_fault(b"1\r\nx\r\n0\n\r\n"), "line_end");
        assert_eq!(chunked_fault(b"1\r\nx\r\n0\r\n\n"), "line_end");
    }

    // threat: G2
    #[test]
    fn chunk_extensions_are_skipped() {
        for extension in [";a", ";a=b", " ; a=\"b;c\"", "\t;a", ";", ";a=\u{e9}"] {
            let input = format!("1{extension}\r\nx\r\n0{extension}\r\n\r\n");
            assert_eq!(whole(Framing::CHUNKED, input.as_bytes()), complete(b"x", b""));
        }
    }

    // threat: G2
    #[test]
    fn chunk_extensions_are_bounded_and_clean() {
        let fits = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(252));
        assert_eq!(whole(Framing::CHUNKED, fits.as_bytes()), complete(b"x", b""));
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(253));
        assert_eq!(chunked_fault(long.as_bytes()), "chunk_size");
        assert_eq!(chunked_fault(b"1;a\0\r\nx\r\n0\r\n\r\n"), "chunk_size");
        assert_eq!(chunked_fault(b"1;a\rb\r\nx\r\n0\r\n\r\n"), "chunk_size");
        assert_eq!(chunked_fault(b"1;\x7f\r\nx\r\n0\r\n\r\n"), "chunk_size");
        assert_eq!(chunked_fault(b"1\x0c;a\r\nx\r\n0\r\n\r\n"), "chunk_size");
        assert_eq!(chunked_fault(b"1 a\r\nx\r\n0\r\n\r\n"), "chunk_size");
    }

    // threat: G2
    #[test]
    fn trailers_are_checked_and_dropped() {
        let input = b"1\r\nx\r\n0\r\nContent-Length: 9\r\na: 1\r\n\r\n";
        assert_eq!(whole(Framing::CHUNKED, input), complete(b"x", b""));
        assert_eq!(chunked_fault(b"0\r\na : 1\r\n\r\n"), "name");
        assert_eq!(chunked_fault(b"0\r\na: 1\r\n 2\r\n\r\n"), "fold");
        assert_eq!(chunked_fault(b"0\r\na: \0\r\n\r\n"), "value");
        assert_eq!(chunked_fault(b"0\r\na\r\n\r\n"), "no_colon");
        assert_eq!(chunked_fault(b"0\r\na: 1\n\r\n"), "line_end");
        assert_eq!(chunked_fault(b"0\r\na: 1\r\nb: 1\r\nc: 1\r\n\r\n"), "too_many");
        let long = format!("0\r\na: {}\r\n\r\n", "x".repeat(58));
        assert_eq!(chunked_fault(long.as_bytes()), "too_long");
    }
}
