//! The frames of HTTP/2 as bytes that pass (RFC 9113 §4.1): what a caller leaves unfinished, and what we end.
//!
//! The h2 crate has no clock for a header block that does not end. And it refuses much by itself, and tells nobody but the
//! caller: a head that breaks the rules, a list of fields that is too long, a stream too many, a flood. What it tells stands
//! in the frames that go out, RST_STREAM and GOAWAY with their error code, so that is where it is learnt.

use super::refused::Http2Fault;

/// Where in which frame is what comes in.
#[derive(Debug)]
pub struct Incoming {
    /// Bytes to come before the next head: of the preface at first, then of payloads.
    rest: usize,
    /// The next head, as far as it is known.
    head: [u8; HEAD],
    known: usize,
    /// Between the frame that begins a header block and the last byte of the one that ends it, if not within DATA.
    open: bool,
    in_block: bool,
    /// Frames begun, those that go on with a header block left out.
    begun: u64,
}

impl Default for Incoming {
    fn default() -> Incoming {
        Incoming { rest: PREFACE, head: [0; HEAD], known: 0, open: false, in_block: false, begun: 0 }
    }
}

impl Incoming {
    /// Passes bytes that have been read.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.rest.min(bytes.len());
            bytes = bytes.get(skipped..).unwrap_or_default();
            self.rest -= skipped;
            if self.rest == 0 && self.known == HEAD {
                self.known = 0;
                self.open = self.in_block;
            }
            let [first, rest @ ..] = bytes else { return };
            if self.known == 0 && !self.in_block {
                self.begun += 1;
                self.open = true;
            }
            if let Some(place) = self.head.get_mut(self.known) {
                *place = *first;
                self.known += 1;
                bytes = rest;
            }
            if self.known == HEAD {
                self.begin();
            }
        }
    }

    /// A head is known.
    fn begin(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.rest = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            BODY => self.open = self.in_block,
            HEADERS | CONTINUATION => self.in_block = flags & END_HEADERS == 0,
            _ => {}
        }
    }

    /// Which one, counted from the first, has begun and not ended.
    pub fn unfinished(&self) -> Option<u64> {
        self.open.then_some(self.begun)
    }
}

/// Where in which frame is what goes out.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The bytes of the current frame's head (RFC 9113 §4.1), and behind it of as much payload as is looked at.
    start: Vec<u8>,
    /// Bytes of it still to come that nobody looks at.
    skip: usize,
}

impl Outgoing {
    /// Passes bytes that have been written, and tells what was refused in them.
    pub fn pass(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Http2Fault)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = self.looked_at() - self.start.len();
            let (taken, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            self.start.extend_from_slice(taken);
            bytes = rest;
            if self.start.len() == self.looked_at() && self.start.len() >= HEAD {
                if let Some(fault) = self.fault() {
                    tell(fault);
                }
                self.skip = self.payload() + HEAD - self.start.len();
                self.start.clear();
            }
        }
    }

    /// How many bytes of the current frame are looked at, as far as is known.
    fn looked_at(&self) -> usize {
        match self.start.get(3) {
            Some(&RST_STREAM) if self.start.len() >= HEAD => HEAD + self.payload().min(4),
            Some(&GOAWAY) if self.start.len() >= HEAD => HEAD + self.payload().min(8),
            _ => HEAD,
        }
    }

    fn payload(&self) -> usize {
        self.start.iter().take(3).fold(0, |length, byte| length << 8 | usize::from(*byte))
    }

    /// What a frame says to its receiver (RFC 9113 §7). Codes that we give where a caller did nothing wrong are none.
    fn fault(&self) -> Option<Http2Fault> {
        let code = self.start.last_chunk::<4>().map(|code| h2::Reason::from(u32::from_be_bytes(*code)))?;
        match (*self.start.get(3)?, self.start.len()) {
            (RST_STREAM, RST_STREAM_LENGTH) => match code {
                h2::Reason::NO_ERROR | h2::Reason::CANCEL | h2::Reason::INTERNAL_ERROR => None,
                h2::Reason::REFUSED_STREAM => Some(Http2Fault::Stream),
                _ => Some(Http2Fault::Request),
            },
            (GOAWAY, GOAWAY_LENGTH) => match code {
                h2::Reason::NO_ERROR | h2::Reason::INTERNAL_ERROR => None,
                h2::Reason::ENHANCE_YOUR_CALM => Some(Http2Fault::Flood),
                _ => Some(Http2Fault::Connection),
            },
            _ => None,
        }
    }
}

/// Bytes of the client's preface (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// Bytes of a frame's head: its length, type, flags and stream.
const HEAD: usize = 9;

const BODY: u8 = 0; // called DATA there
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const RST_STREAM_LENGTH: usize = HEAD + 4;
const GOAWAY: u8 = 7;
const GOAWAY_LENGTH: usize = HEAD + 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const OF_A_BODY: &[u8] = b"\0\0\x03\0\0\0\0\0\x01abc";
    const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0abcdef";
    const HEADERS_OPEN: &[u8] = b"\0\0\x02\x01\0\0\0\0\x01ab";
    const CONTINUATION_OPEN: &[u8] = b"\0\0\0\x09\0\0\0\0\x01";
    const CONTINUATION_END: &[u8] = b"\0\0\x01\x09\x04\0\0\0\x01a";

    /// What is unfinished after each of the bytes of `frames`, each of them passed on its own.
    fn after_each(frames: &[&[u8]]) -> Vec<Option<u64>> {
        let mut seen = Incoming::default();
        seen.pass(&[0; PREFACE]);
        frames
            .concat()
            .iter()
            .map(|&byte| {
                seen.pass(&[byte]);
                seen.unfinished()
            })
            .collect()
    }

    #[test]
    fn a_frame_is_unfinished_until_its_last_byte() {
        let seen = after_each(&[SETTINGS, SETTINGS]);
        let (last, before) = seen.split_last().unwrap();
        assert_eq!(*last, None);
        assert!(before[..14].iter().all(|seen| *seen == Some(1)));
        assert_eq!(before[14], None);
        assert!(before[15..].iter().all(|seen| *seen == Some(2)));
    }

    #[test]
    fn a_frame_of_a_body_is_unfinished_only_until_it_is_known_to_be_one() {
        let seen = after_each(&[OF_A_BODY]);
        assert_eq!(seen[..8], [Some(1); 8]);
        assert_eq!(seen[8..], [None; 4]);
    }

    #[test]
    fn a_header_block_is_one_however_many_frames_it_has() {
        let seen = after_each(&[HEADERS_OPEN, CONTINUATION_OPEN, CONTINUATION_OPEN, CONTINUATION_END, SETTINGS]);
        let end = HEADERS_OPEN.len() + 2 * CONTINUATION_OPEN.len() + CONTINUATION_END.len();
        assert!(seen[..end - 1].iter().all(|seen| *seen == Some(1)));
        assert_eq!((seen[end - 1], seen[end]), (None, Some(2)));
        assert_eq!(seen.last(), Some(&None));
    }

    #[test]
    fn bytes_that_come_together_are_seen_like_bytes_that_come_alone() {
        let frames = [HEADERS_OPEN, CONTINUATION_END, OF_A_BODY, SETTINGS, HEADERS_OPEN, CONTINUATION_OPEN];
        let alone = after_each(&frames);
        let all = [&[0; PREFACE][..], &frames.concat()].concat();
        for cut in 0..all.len() {
            let mut seen = Incoming::default();
            seen.pass(&all[..cut]);
            let so_far = cut.checked_sub(PREFACE + 1).and_then(|at| alone[at]);
            assert_eq!(seen.unfinished(), so_far, "{cut}");
            seen.pass(&all[cut..]);
            assert_eq!(seen.unfinished(), *alone.last().unwrap(), "{cut}");
        }
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 5], payload].concat()
    }

    fn reset(code: u32) -> Vec<u8> {
        frame(RST_STREAM, &code.to_be_bytes())
    }

    fn goodbye(code: u32, debug: &[u8]) -> Vec<u8> {
        frame(GOAWAY, &[&[0, 0, 0, 9], &code.to_be_bytes()[..], debug].concat())
    }

    #[test]
    fn what_is_refused_is_found_among_the_frames_in_pieces_of_every_size() {
        let looks_like_a_reset = frame(0, &reset(1));
        let frames = [
            frame(4, &[]),
            looks_like_a_reset,
            reset(1),
            reset(0),
            reset(8),
            reset(2),
            reset(7),
            frame(1, &[0; 300]),
            goodbye(0, b""),
            reset(3),
            goodbye(11, b"too_many_resets"),
            frame(3, &[1]),
            frame(7, &[0, 0, 0, 1]),
            goodbye(1, b""),
            frame(6, &[7; 8]),
        ]
        .concat();
        let expected =
            [Http2Fault::Request, Http2Fault::Stream, Http2Fault::Request, Http2Fault::Flood, Http2Fault::Connection];
        for size in 1..=frames.len() {
            let (mut following, mut told) = (Outgoing::default(), Vec::new());
            for piece in frames.chunks(size) {
                following.pass(piece, |fault| told.push(fault));
            }
            assert_eq!(told, expected, "{size}");
        }
    }
}
