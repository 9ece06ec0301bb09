//! What a connection costs that has had its answer and waits: memory.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::peers::{Kind, Place};
use crate::work::{self, Work};

/// A line of the table: KiB of resident memory for each of many connections that wait.
pub fn line(place: &Place) -> io::Result<String> {
    let work = work::small_wallet();
    let mut shown = Vec::new();
    for kind in Kind::ALL {
        let Some(peer) = kind.start(&work, place)? else {
            shown.push("–".to_owned());
            continue;
        };
        // What is kept for the first ones is not kept for each.
        let warm = open(&work, peer.port, 200)?;
        let before = peer.memory();
        let held = open(&work, peer.port, CONNECTIONS)?;
        let each = peer.memory().saturating_sub(before) / CONNECTIONS as u64;
        drop((warm, held));
        shown.push(format!("{:.1} KiB", each as f64 / 1024.0));
    }
    Ok(format!("| memory of an idle connection, of {CONNECTIONS} | {} | | |", shown.join(" | ")))
}

fn open(work: &Work, port: u16, count: usize) -> io::Result<Vec<TcpStream>> {
    (0..count).map(|_| ask(work, port)).collect()
}

fn ask(work: &Work, port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut head = format!("{} {} HTTP/1.1\r\nHost: localhost\r\n", work.method, work.path);
    for (name, value) in &work.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", work.body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(&work.body)?;
    let mut read = [0; 4096];
    let count = stream.read(&mut read)?;
    match read.get(..count).is_some_and(|read| read.starts_with(b"HTTP/1.1 200")) {
        true => Ok(stream),
        false => Err(io::Error::other("an idle connection was not answered")),
    }
}

const CONNECTIONS: usize = 5_000;
