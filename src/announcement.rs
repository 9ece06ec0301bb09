//! The header of the PROXY protocol, version 2: by it a balancer that passes on bytes says whose they are.
//!
//! Read as haproxy's specification has it (`doc/proxy-protocol.txt`, §2.2), and strictly: whoever may send one decides who
//! a caller seems to be. Version 1, which is text, is not read.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The header is whole. `None` where it names nobody: the balancer speaks for itself, as in its health checks, or does
    /// not know.
    Whole(Option<IpAddr>),
    /// At least one and at most so many bytes are missing; what comes behind them is the caller's.
    More(usize),
}

/// Why a connection that must begin with a header is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnouncementFault {
    /// It begins with something else.
    Missing,
    /// It is of another version, or has a command nobody knows.
    Version,
    /// The connection it tells of is no stream, or of a family nobody knows.
    Transport,
    /// It is longer than any that is sent.
    TooLong,
    /// What is in it does not fit into it.
    Malformed,
    /// Its checksum is that of other bytes.
    Checksum,
    /// It ended early.
    Cut,
    /// It did not arrive in time.
    Slow,
}

/// Reads as much of a header as there is. Never asks for a byte behind its end.
pub fn read(bytes: &[u8]) -> Result<Reading, AnnouncementFault> {
    let Some((signature, rest)) = bytes.split_at_checked(SIGNATURE.len()) else {
        return match SIGNATURE.starts_with(bytes) {
            true => Ok(Reading::More(FIXED - bytes.len())),
            false => Err(unsigned(bytes)),
        };
    };
    if signature != SIGNATURE {
        return Err(unsigned(bytes));
    }
    let [version_and_command, family, high, low, behind @ ..] = rest else {
        return Ok(Reading::More(FIXED - bytes.len()));
    };
    let speaks_for_itself = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(AnnouncementFault::Version),
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > LONGEST {
        return Err(AnnouncementFault::TooLong);
    }
    if speaks_for_itself {
        // Its content is to be skipped, whatever it is.
        return Ok(if behind.len() < length { Reading::More(length - behind.len()) } else { Reading::Whole(None) });
    }
    let room = match family {
        0x00 => 0,
        0x11 => ROOM_OF_IPV4,
        0x21 => ROOM_OF_IPV6,
        0x31 => ROOM_OF_UNIX,
        _ => return Err(AnnouncementFault::Transport),
    };
    if length < room {
        return Err(AnnouncementFault::Malformed);
    }
    let Some(content) = behind.get(..length) else { return Ok(Reading::More(length - behind.len())) };
    if *family == 0 {
        // The sender knows nothing, and nothing of what stands behind it has a form.
        return Ok(Reading::Whole(None));
    }
    let (addresses, extensions) = content.split_at(room);
    if let Some(at) = checksum_at(extensions)? {
        verify(bytes.get(..FIXED + length).unwrap_or_default(), FIXED + room + at)?;
    }
    Ok(Reading::Whole(client(addresses)))
}

impl AnnouncementFault {
    /// All there are.
    pub const ALL: [AnnouncementFault; 8] = [
        AnnouncementFault::Missing,
        AnnouncementFault::Version,
        AnnouncementFault::Transport,
        AnnouncementFault::TooLong,
        AnnouncementFault::Malformed,
        AnnouncementFault::Checksum,
        AnnouncementFault::Cut,
        AnnouncementFault::Slow,
    ];

    /// A fixed word for the log and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            AnnouncementFault::Missing => "proxy_header_missing",
            AnnouncementFault::Version => "proxy_header_version",
            AnnouncementFault::Transport => "proxy_header_transport",
            AnnouncementFault::TooLong => "proxy_header_too_long",
            AnnouncementFault::Malformed => "proxy_header_malformed",
            AnnouncementFault::Checksum => "proxy_header_checksum",
            AnnouncementFault::Cut => "proxy_header_cut",
            AnnouncementFault::Slow => "proxy_header_timeout",
        }
    }
}

fn unsigned(bytes: &[u8]) -> AnnouncementFault {
    if bytes.starts_with(b"PROXY ") { AnnouncementFault::Version } else { AnnouncementFault::Missing }
}

/// The source, which comes first; the destination and the ports are nobody's concern here. `None` for one that is no
/// address.
fn client(addresses: &[u8]) -> Option<IpAddr> {
    let address = match addresses.len() {
        ROOM_OF_IPV4 => IpAddr::V4(Ipv4Addr::from(*addresses.first_chunk::<4>()?)),
        ROOM_OF_IPV6 => IpAddr::V6(Ipv6Addr::from(*addresses.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(address.to_canonical())
}

/// Walks through the extensions (§2.2.x, type, length, value). Where the value of the checksum stands, if there is one.
fn checksum_at(extensions: &[u8]) -> Result<Option<usize>, AnnouncementFault> {
    let mut found = None;
    let mut at = 0;
    while at < extensions.len() {
        let Some([kind, high, low]) = extensions.get(at..at + 3) else { return Err(AnnouncementFault::Malformed) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = at + 3;
        at = value + length;
        let misplaced = *kind == CHECKSUM && (length != 4 || found.is_some());
        if at > extensions.len() || misplaced {
            return Err(AnnouncementFault::Malformed);
        }
        if *kind == CHECKSUM {
            found = Some(value);
        }
    }
    Ok(found)
}

/// The checksum is over the whole header with zeroes in its own place (§2.2.4).
fn verify(header: &[u8], at: usize) -> Result<(), AnnouncementFault> {
    let own = at..at + 4;
    let given = header.get(own.clone()).and_then(|own| own.first_chunk()).map(|own| u32::from_be_bytes(*own));
    let bytes = header.iter().enumerate().map(|(place, byte)| if own.contains(&place) { 0 } else { *byte });
    if given == Some(crc32c(bytes)) { Ok(()) } else { Err(AnnouncementFault::Checksum) }
}

/// RFC 3720 appendix B.4, a bit at a time: a header has some hundred bytes, and a connection one header.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(byte), step))
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of every header: the signature, the version and command, the family, the length of what follows.
const FIXED: usize = 16;

/// Bytes behind those. Addresses take at most 216; what balancers add of names, certificates and zones fits into the rest,
/// and the whole into the one segment that the specification asks for.
const LONGEST: usize = 536;

const ROOM_OF_IPV4: usize = 12;
const ROOM_OF_IPV6: usize = 36;
const ROOM_OF_UNIX: usize = 216;

/// PP2_TYPE_CRC32C.
const CHECKSUM: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [u8; 12] = [198, 51, 100, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

    fn header(command: u8, family: u8, content: &[&[u8]]) -> Vec<u8> {
        let content = content.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, &content].concat()
    }

    fn v6(client: &str) -> [u8; 36] {
        let mut addresses = [0; 36];
        addresses[..16].copy_from_slice(&client.parse::<Ipv6Addr>().unwrap().octets());
        addresses
    }

    fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
    }

    /// With the checksum as the last of its extensions.
    fn summed(command: u8, family: u8, content: &[&[u8]]) -> Vec<u8> {
        let mut header = header(command, family, &[&content.concat(), &extension(CHECKSUM, &[0; 4])]);
        let sum = crc32c(header.iter().copied());
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let zone = extension(0xea, b"\x01vpce-08d2bf15fac5001c9");
        vec![
            (header(0x21, 0x11, &[&V4]), Some("198.51.100.7")),
            (header(0x21, 0x21, &[&v6("2001:db8::7")]), Some("2001:db8::7")),
            (header(0x21, 0x21, &[&v6("::ffff:198.51.100.7")]), Some("198.51.100.7")),
            (header(0x21, 0x11, &[&V4, &zone, &extension(4, &[0; 9]), &extension(4, &[])]), Some("198.51.100.7")),
            (summed(0x21, 0x11, &[&V4]), Some("198.51.100.7")),
            (summed(0x21, 0x21, &[&v6("2001:db8::7"), &zone]), Some("2001:db8::7")),
            (header(0x21, 0x31, &[&[b'/'; 216]]), None),
            (header(0x21, 0x00, &[]), None),
            (header(0x21, 0x00, &[&[0xff; 30]]), None),
            (header(0x20, 0x00, &[]), None),
            (header(0x20, 0x11, &[&V4]), None),
            (header(0x20, 0x12, &[&[0xff; 5]]), None),
            (header(0x21, 0x11, &[&V4, &extension(0xe0, &[b'x'; LONGEST - 12 - 3])]), Some("198.51.100.7")),
        ]
    }

    #[test]
    fn a_header_names_the_client_or_nobody() {
        for (header, client) in good() {
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(read(&header), Ok(Reading::Whole(client)), "{header:x?}");
            // What comes behind it is not looked at.
            assert_eq!(read(&[&header, &b"GET / HTTP/1.1\r\n"[..]].concat()), Ok(Reading::Whole(client)));
        }
    }

    #[test]
    fn every_piece_of_a_header_asks_for_more_and_never_for_too_much() {
        for (header, _) in good() {
            for length in 0..header.len() {
                let expected = if length < FIXED { FIXED - length } else { header.len() - length };
                assert_eq!(read(&header[..length]), Ok(Reading::More(expected)), "{length} of {header:x?}");
            }
        }
    }

    #[test]
    fn what_is_not_a_header_is_refused_at_its_first_wrong_byte() {
        for text in
            ["G", "GET / HTTP/1.1\r\n", "\r\nGET", "\r\n\r\n\0\r\nQUIT\r", "\x16\x03\x01\x02", "PRI * HTTP/2.0\r\n"]
        {
            assert_eq!(read(text.as_bytes()), Err(AnnouncementFault::Missing), "{text:?}");
        }
        for text in ["PROXY ", "PROXY TCP4 198.51.100.7 10.0.0.1 8080 80\r\n", "PROXY UNKNOWN\r\n"] {
            assert_eq!(read(text.as_bytes()), Err(AnnouncementFault::Version), "{text:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        use AnnouncementFault::{Checksum, Malformed, TooLong, Transport, Version};
        let damaged = |mut header: Vec<u8>, at: usize| {
            header[at] ^= 1;
            header
        };
        let rows = [
            (header(0x11, 0x11, &[&V4]), Version),
            (header(0x31, 0x11, &[&V4]), Version),
            (header(0x22, 0x11, &[&V4]), Version),
            (header(0x2f, 0x11, &[&V4]), Version),
            (header(0x21, 0x12, &[&V4]), Transport),
            (header(0x21, 0x22, &[&v6("::1")]), Transport),
            (header(0x21, 0x32, &[&[0; 216]]), Transport),
            (header(0x21, 0x01, &[&V4]), Transport),
            (header(0x21, 0x10, &[&V4]), Transport),
            (header(0x21, 0x41, &[&V4]), Transport),
            (header(0x21, 0x11, &[&V4[..11]]), Malformed),
            (header(0x21, 0x11, &[]), Malformed),
            (header(0x21, 0x21, &[&V4]), Malformed),
            (header(0x21, 0x31, &[&V4]), Malformed),
            (header(0x21, 0x11, &[&V4, &[4]]), Malformed),
            (header(0x21, 0x11, &[&V4, &[4, 0, 1]]), Malformed),
            (header(0x21, 0x11, &[&V4, &[4, 0xff, 0xff, 0]]), Malformed),
            (header(0x21, 0x11, &[&V4, &extension(CHECKSUM, &[0; 3])]), Malformed),
            (summed(0x21, 0x11, &[&V4, &extension(CHECKSUM, &[0; 4])]), Malformed),
            (header(0x21, 0x11, &[&V4, &extension(CHECKSUM, &[0; 4])]), Checksum),
            (damaged(summed(0x21, 0x11, &[&V4]), 16), Checksum),
            (damaged(summed(0x21, 0x11, &[&V4]), 27), Checksum),
            (damaged(summed(0x21, 0x11, &[&V4]), 34), Checksum),
            (header(0x21, 0x11, &[&V4, &extension(4, &[0; LONGEST - 12 - 2])]), TooLong),
            (header(0x20, 0x00, &[&[0; LONGEST + 1]]), TooLong),
        ];
        for (header, fault) in rows {
            assert_eq!(read(&header), Err(fault), "{header:x?}");
        }
    }

    /// The check value of the algorithm's catalogues, and the first vector of RFC 3720 appendix B.4.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        assert_eq!(crc32c([0; 32].into_iter()).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }
}
