//! A connection that must begin with a PROXY header: the header is taken off it, and not a byte more.

use std::net::IpAddr;
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::announcement::{AnnouncementFault, Reading, read};

/// Whom the header names, if anybody. It must arrive within `time`.
pub async fn announced(stream: &mut Stream, time: Duration) -> Result<Option<IpAddr>, AnnouncementFault> {
    timeout(time, header(stream)).await.unwrap_or(Err(AnnouncementFault::Slow))
}

async fn header(stream: &mut Stream) -> Result<Option<IpAddr>, AnnouncementFault> {
    let mut header = Vec::with_capacity(USUAL);
    loop {
        match read(&header)? {
            Reading::Whole(client) => return Ok(client),
            Reading::More(most) => {
                let mut missing = (&mut *stream).take(most as u64);
                if missing.read_buf(&mut header).await.map_err(|_| AnnouncementFault::Cut)? == 0 {
                    return Err(AnnouncementFault::Cut);
                }
            }
        }
    }
}

/// Room for a header with two addresses of IPv6 and a few extensions.
const USUAL: usize = 128;
