//! Who listens in this network namespace, by the text of `/proc/net/tcp` and `/proc/net/tcp6` (proc(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses at which somebody listens on a port. An IPv4 address in IPv6's clothes is taken for what it is.
pub fn listening(tables: &[String], port: u16) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> =
        tables.iter().flat_map(|table| table.lines()).filter_map(|line| at(line, port)).collect();
    found.sort();
    found.dedup();
    found
}

fn at(line: &str, port: u16) -> Option<IpAddr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, found) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    let here = state == LISTEN && u16::from_str_radix(found, 16) == Ok(port);
    address(ip).filter(|_| here)
}

/// Words of 32 bits, each as the machine would read it from the network's bytes.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// TCP_LISTEN
const LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_found_by_their_port_in_both_families() {
        let four = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 1 1 0 100 0 0 10 0\n\
             1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 2 1 0 100 0 0 10 0\n\
             2: 0500000A:2328 0600000A:C350 01 00000000:00000000 00:00000000 00000000  1000 0 3 1 0 100 0 0 10 0\n";
        let six = "  sl  local_address                         remote_address                        st\n\
             0: 00000000000000000000000000000000:2328 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4\n\
             1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 5\n\
             2: 00000000000000000000000001000000:2328 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 6\n";
        let found = |port| {
            let found = listening(&[four.to_owned(), six.to_owned()], port);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found(9000), ["127.0.0.1", "::", "::1"]);
        assert_eq!(found(8080), ["0.0.0.0", "127.0.0.1"]);
        assert_eq!(found(1), [""; 0]);
    }

    #[test]
    fn what_is_no_line_of_the_table_is_nobody() {
        for line in
            ["", "0:", "0: 0100007F:2328", "0: 0100:2328 0 0A", "0: zzzzzzzz:2328 0 0A", "0: é100007F:2328 0 0A"]
        {
            assert_eq!(listening(&[line.to_owned()], 9000), [] as [IpAddr; 0], "{line}");
        }
    }
}
