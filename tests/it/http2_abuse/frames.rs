//! A caller that writes HTTP/2 by hand (RFC 9113, RFC 7541), because no client would send what is sent here.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{PATIENCE, Request, World};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS with these parameters.
pub fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let parameters = parameters.iter().flat_map(|(name, value)| {
        let (name, value) = (name.to_be_bytes(), value.to_be_bytes());
        name.into_iter().chain(value)
    });
    frame(SETTINGS, 0, 0, &parameters.collect::<Vec<u8>>())
}

/// A field as a literal that is not indexed (RFC 7541 §6.2.2).
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &string(name), &string(value)].concat()
}

/// A field as a literal that goes into the dynamic table (§6.2.1): 62 stands for the newest.
pub fn indexed_literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x40][..], &string(name), &string(value)].concat()
}

/// A string without Huffman's code (§5.2).
pub fn string(text: &[u8]) -> Vec<u8> {
    [&length(text.len()), text].concat()
}

/// An integer with a prefix of 7 bits (§5.1).
pub fn length(length: usize) -> Vec<u8> {
    let Some(mut rest) = length.checked_sub(127) else { return vec![length as u8] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

/// A header block of literals.
pub fn block(fields: &[(String, String)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes())).collect()
}

/// The fields of a request, pseudo-headers first.
pub fn fields(request: &Request) -> Vec<(String, String)> {
    let pseudo = [
        (":method", request.method.as_str()),
        (":scheme", "http"),
        (":path", &request.target),
        (":authority", "pam.example"),
    ];
    let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let others = request.fields.iter().filter(|(name, _)| name != "Host");
    pseudo.into_iter().chain(others.map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))).collect()
}

/// A whole request without a body, in one frame.
pub fn call(stream: u32, request: &Request) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&fields(request)))
}

pub fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

/// A frame as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Received {
    /// The reason of a RST_STREAM or a GOAWAY.
    pub fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the reason of its last GOAWAY.
    Goodbye(u32),
    Silent,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    Reset(u32),
    Ended(End),
}

/// A connection of which the frames are written and read one by one.
pub struct Caller<S = TcpStream> {
    reading: ReadHalf<S>,
    writing: WriteHalf<S>,
}

impl Caller {
    /// With the preface, and settings that leave everything as it is.
    pub async fn to(address: SocketAddr) -> Caller {
        Caller::with(address, &[]).await
    }

    pub async fn with(address: SocketAddr, parameters: &[(u16, u32)]) -> Caller {
        let mut caller = Caller::over(TcpStream::connect(address).await.unwrap());
        caller.write(&[PREFACE, &settings(parameters)].concat()).await;
        caller
    }
}

impl<S: AsyncRead + AsyncWrite> Caller<S> {
    /// Without a byte sent.
    pub fn over(stream: S) -> Caller<S> {
        let (reading, writing) = split(stream);
        Caller { reading, writing }
    }

    /// Writes what the other side takes; false when it has gone.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        let writing = async { self.writing.write_all(bytes).await.is_ok() && self.writing.flush().await.is_ok() };
        timeout(PATIENCE, writing).await.expect("nobody reads")
    }

    /// Writes for as long as somebody reads: how many bytes, and whether the connection is still there. That nobody reads
    /// shows when nothing is taken for half a second.
    pub async fn write_unread(&mut self, bytes: &[u8]) -> (usize, Taken) {
        self.write_unread_within(bytes, Duration::from_millis(500)).await
    }

    /// The same, where each write may take so long.
    pub async fn write_unread_within(&mut self, mut bytes: &[u8], patience: Duration) -> (usize, Taken) {
        let mut written = 0;
        while !bytes.is_empty() {
            match timeout(patience, self.writing.write(bytes)).await {
                Err(_) => return (written, Taken::Blocked),
                Ok(Err(_) | Ok(0)) => return (written, Taken::Gone),
                Ok(Ok(count)) => {
                    written += count;
                    bytes = &bytes[count..];
                }
            }
        }
        (written, Taken::All)
    }

    /// The next frame; `None` when the connection has ended.
    pub async fn read(&mut self) -> Option<Received> {
        let reading = async {
            let mut head = [0; 9];
            self.reading.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.reading.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            Some(Received { kind: head[3], flags: head[4], stream, payload })
        };
        timeout(PATIENCE, reading).await.expect("neither a frame nor an end came")
    }

    /// The next frame of which this is true.
    pub async fn until(&mut self, wanted: impl Fn(&Received) -> bool) -> Received {
        loop {
            let frame = self.read().await.expect("the connection ended");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Reads to the end of the connection.
    pub async fn end(&mut self) -> End {
        let mut end = End::Silent;
        while let Some(frame) = self.read().await {
            if frame.kind == GOAWAY {
                end = End::Goodbye(frame.reason());
            }
        }
        end
    }

    /// What becomes of a stream. A goodbye for reasons other than age is an end.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some(frame) = self.read().await {
            match (frame.kind, frame.stream) {
                (HEADERS, at) if at == stream => return Outcome::Status(status(&frame.payload)),
                (RST_STREAM, at) if at == stream => return Outcome::Reset(frame.reason()),
                (GOAWAY, _) if frame.reason() != NO_ERROR => return Outcome::Ended(End::Goodbye(frame.reason())),
                _ => {}
            }
        }
        Outcome::Ended(End::Silent)
    }
}

/// What became of bytes that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    All,
    /// The other side reads no more, and is there.
    Blocked,
    Gone,
}

/// The `:status` in front of a header block: from the static table, or a literal of three digits.
pub fn status(block: &[u8]) -> u16 {
    let [first, rest @ ..] = block else { panic!("an empty header block") };
    if let Some(at) = (8..=14).position(|index| first & 0x7f == index && first & 0x80 != 0) {
        return [200, 204, 206, 304, 400, 404, 500][at];
    }
    let [length, text @ ..] = rest else { panic!("no status") };
    let text = &text[..usize::from(length & 0x7f)];
    if length & 0x80 == 0 {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    // Huffman (appendix B): 0, 1 and 2 have 5 bits, the other digits 6.
    let bits = text.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (32 - 8 * text.len());
    let (number, _) = (0..3).fold((0, bits), |(number, bits), _| match bits >> 27 {
        short @ 0..=2 => (number * 10 + short, bits << 5),
        _ => (number * 10 + (bits >> 26) - 0x19 + 3, bits << 6),
    });
    u16::try_from(number).unwrap()
}

/// After whatever was done: a good call on a new connection is served, over both protocols.
pub async fn assert_serves(world: &World, call: &Request) {
    assert_eq!((world.send_h2(call).await.status, world.send(call).await.status), (200, 200));
}
