//! A PAM that answers everything at once with the same few bytes, on HTTP/1.1 connections that stay.
//!
//! ```sh
//! pam LISTEN
//! ```

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 95\r\n\r\n\
    {\"status\":true,\"code\":0,\"balance\":1000.50,\"currency\":\"EUR\",\"transaction_id\":\"0123456789abcdef\"}";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> io::Result<()> {
    let Some(address) = std::env::args().nth(1) else {
        eprintln!("pam LISTEN");
        std::process::exit(64);
    };
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut read = Vec::with_capacity(64 << 10);
    loop {
        while let Some(length) = request(&read) {
            if read.len() < length {
                break;
            }
            read.drain(..length);
            stream.write_all(ANSWER).await?;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

/// How many bytes the first request has, when its head is there.
fn request(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let fields = String::from_utf8_lossy(read.get(..head)?).to_ascii_lowercase();
    if fields.contains("\r\ntransfer-encoding: chunked") {
        let rest = read.get(head..)?;
        return rest.windows(5).position(|five| five == b"0\r\n\r\n").map(|end| head + end + 5);
    }
    let length = fields.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.lines().next());
    Some(head + length.and_then(|length| length.trim().parse().ok()).unwrap_or(0))
}
