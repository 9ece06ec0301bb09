//! The few parts of protobuf that OTLP needs. <https://protobuf.dev/programming-guides/encoding/>

/// A message, field by field.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// A number; zero is left out, as everywhere in protobuf.
    pub fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.explicit(field, number);
        }
    }

    /// A number that is there also when it is zero: one of several that could be.
    pub fn explicit(&mut self, field: u32, number: u64) {
        self.tag(field, VARINT);
        self.varint(number);
    }

    /// A number in eight bytes.
    pub fn fixed64(&mut self, field: u32, number: u64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// A number in four bytes.
    pub fn fixed32(&mut self, field: u32, number: u32) {
        self.tag(field, FIXED32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Bytes, or text.
    pub fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message in the message.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        self.tag(field, LENGTH);
        // Written in place, with one byte for the length in front: most are that short.
        let at = self.0.len();
        self.0.push(0);
        write(self);
        let length = (self.0.len() - at - 1) as u64;
        match self.0.get_mut(at) {
            Some(place) if length < 0x80 => *place = length as u8,
            _ => {
                let mut longer = Message::default();
                longer.varint(length);
                self.0.splice(at..=at, longer.0);
            }
        }
    }

    /// What has been written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.varint((field << 3 | kind).into());
    }

    fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

/// What a field of a message holds, as far as anybody asks here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held<'m> {
    /// A number.
    Number(u64),
    /// Bytes, text or a message.
    Bytes(&'m [u8]),
    /// A number of four or eight bytes.
    Fixed,
}

/// The fields of a message, up to its end or to where it makes no sense any more.
pub fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Held<'_>)> {
    std::iter::from_fn(move || {
        let tag = read_varint(&mut message)?;
        let held = match u32::try_from(tag & 7).ok()? {
            VARINT => Held::Number(read_varint(&mut message)?),
            FIXED64 => take(&mut message, 8).map(|_| Held::Fixed)?,
            FIXED32 => take(&mut message, 4).map(|_| Held::Fixed)?,
            LENGTH => {
                let length = read_varint(&mut message)?;
                Held::Bytes(take(&mut message, usize::try_from(length).ok()?)?)
            }
            _ => return None,
        };
        Some((tag >> 3, held))
    })
}

fn take<'m>(message: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..10 {
        let &[byte] = take(message, 1)? else { return None };
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_the_encoding_has_it() {
        let mut message = Message::default();
        message.number(1, 150);
        message.number(2, 0);
        message.bytes(2, b"testing");
        message.message(3, |inner| inner.number(1, 1));
        message.fixed32(16, 1);
        message.fixed64(7, 2);
        let expected = b"\x08\x96\x01\x12\x07testing\x1a\x02\x08\x01\x85\x01\x01\0\0\0\x39\x02\0\0\0\0\0\0\0";
        assert_eq!(message.into_bytes(), expected);
    }

    #[test]
    fn a_message_in_a_message_may_have_any_length() {
        for length in [0, 127, 128, 16_383, 16_384] {
            let text = vec![b'x'; length];
            let (mut outer, mut inner) = (Message::default(), Message::default());
            outer.message(1, |message| message.bytes(2, &text));
            outer.number(3, 1);
            inner.bytes(2, &text);
            let (outer, inner) = (outer.into_bytes(), inner.into_bytes());
            assert_eq!(fields(&outer).collect::<Vec<_>>(), [(1, Held::Bytes(&inner)), (3, Held::Number(1))]);
        }
    }

    #[test]
    fn what_was_written_is_read_and_what_makes_no_sense_ends_the_reading() {
        let mut message = Message::default();
        message.number(1, u64::MAX);
        message.fixed64(2, 1);
        message.fixed32(3, 1);
        message.bytes(4, b"text");
        let bytes = message.into_bytes();
        let read: Vec<_> = fields(&bytes).collect();
        let expected = [(1, Held::Number(u64::MAX)), (2, Held::Fixed), (3, Held::Fixed), (4, Held::Bytes(b"text"))];
        assert_eq!(read, expected);
        for cut in 0..bytes.len() {
            assert!(fields(&bytes[..cut]).count() < 4);
        }
        assert_eq!(fields(&[0xff; 32]).count(), 0);
        assert_eq!(fields(b"\x0b").count(), 0);
    }
}
