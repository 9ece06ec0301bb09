//! Header blocks that are small on the wire and large in memory, or have no end.

use super::frames::*;
use crate::caller_tls::Door;
use crate::certificates::client;
use crate::world::{World, valkyrie};

/// A header block in its frames, and what must come of it.
pub struct Block {
    pub name: &'static str,
    pub frames: Vec<u8>,
    /// The connection has to end, and not only the stream.
    pub ends: bool,
}

/// Header blocks without an end. Nothing of them is more than a few frames.
pub fn endless() -> Vec<Block> {
    let good = fields(&valkyrie::call("GET", SESSION));
    let begin = frame(HEADERS, END_STREAM, 1, &block(&good));
    // Continuations that are taken and one more.
    let goes_on = |payload: &[u8]| [begin.clone(), frame(CONTINUATION, 0, 1, payload).repeat(6)].concat();
    let tiny: Vec<u8> = (0..16_384 / 5).flat_map(|_| literal(b"a", b"b")).collect();
    let long = [&[0][..], &string(b"x-long"), &length(1 << 20)].concat();
    vec![
        Block { name: "empty frames", frames: goes_on(b""), ends: true },
        Block { name: "frames of a byte", frames: goes_on(&[0x90]), ends: true },
        Block { name: "full frames of tiny fields", frames: goes_on(&tiny[..16_384 / 5 * 5]), ends: true },
        Block { name: "full frames of references", frames: goes_on(&[0x90; 16_384]), ends: true },
        Block {
            name: "a value without an end",
            frames: [
                begin.clone(),
                frame(CONTINUATION, 0, 1, &long),
                frame(CONTINUATION, 0, 1, &[b'x'; 16_384]).repeat(5),
            ]
            .concat(),
            ends: true,
        },
        Block {
            name: "another frame in between",
            frames: [begin.clone(), frame(PING, 0, 0, &[0; 8])].concat(),
            ends: true,
        },
        Block {
            name: "another stream in between",
            frames: [begin.clone(), frame(CONTINUATION, END_HEADERS, 3, b"")].concat(),
            ends: true,
        },
        Block {
            name: "a continuation of nothing",
            frames: frame(CONTINUATION, END_HEADERS, 1, &block(&good)),
            ends: true,
        },
        Block {
            name: "a promise",
            frames: frame(PUSH_PROMISE, END_HEADERS, 1, &[&2_u32.to_be_bytes()[..], &block(&good)].concat()),
            ends: true,
        },
    ]
}

/// Header blocks that are too much once they are unpacked.
pub fn bombs() -> Vec<Block> {
    let good = block(&fields(&valkyrie::call("GET", SESSION)));
    let whole = |more: &[u8]| {
        let all = [&good[..], more].concat();
        let mut pieces = all.chunks(16_384).peekable();
        let first = pieces.next().unwrap();
        let ends = |more: bool| if more { 0 } else { END_HEADERS };
        let mut frames = frame(HEADERS, END_STREAM | ends(pieces.peek().is_some()), 1, first);
        while let Some(piece) = pieces.next() {
            frames.extend(frame(CONTINUATION, ends(pieces.peek().is_some()), 1, piece));
        }
        frames
    };
    let large = indexed_literal(b"x-large", &[b'x'; 4000]);
    let tiny = indexed_literal(b"a", b"");
    let crumbs: Vec<u8> = (0..3000).flat_map(|_| literal(b"cookie", b"a=b")).collect();
    let crumb = indexed_literal(b"cookie", b"a=b");
    let several: Vec<u8> = (0..98).flat_map(|at| literal(format!("x-{at}").as_bytes(), b"1")).collect();
    let path = "x".repeat(200_000);
    let mut long_path = fields(&valkyrie::call("GET", SESSION));
    long_path[2].1 = format!("{SESSION}{path}");
    let long_path = block(&long_path);
    let mut frames = frame(HEADERS, END_STREAM, 1, &long_path[..16_384]);
    let pieces: Vec<&[u8]> = long_path[16_384..].chunks(16_384).collect();
    for (at, piece) in pieces.iter().enumerate() {
        frames.extend(frame(CONTINUATION, if at + 1 == pieces.len() { END_HEADERS } else { 0 }, 1, piece));
    }
    vec![
        Block {
            name: "a large field and references to it",
            frames: whole(&[large, vec![0xbe; 15_000 - 4000]].concat()),
            ends: true,
        },
        Block {
            name: "a tiny field and references to it",
            frames: whole(&[tiny, vec![0xbe; 15_000]].concat()),
            ends: true,
        },
        Block { name: "the static table", frames: whole(&[0x90; 15_000]), ends: true },
        Block { name: "a few references too many", frames: whole(&[0x90; 2_000]), ends: false },
        Block { name: "cookie crumbs", frames: whole(&crumbs), ends: false },
        Block { name: "cookie crumbs by reference", frames: whole(&[crumb, vec![0xbe; 1_500]].concat()), ends: false },
        Block {
            name: "a hundred cookie crumbs",
            frames: whole(&[indexed_literal(b"cookie", b"a=b"), vec![0xbe; 99]].concat()),
            ends: false,
        },
        Block { name: "a field too many", frames: whole(&several), ends: false },
        Block { name: "a list a little too long", frames: whole(&literal(b"x-long", &[b'x'; 65_000])), ends: false },
        Block {
            name: "a list that is much too long",
            frames: whole(&[&literal(b"x-long", &[b'x'; 60_000])[..], &literal(b"x-long", &[b'x'; 20_000])].concat()),
            ends: false,
        },
        Block { name: "a path of 200 kB", frames, ends: true },
        Block {
            name: "an integer without an end",
            frames: whole(&[&[0][..], &[0x7f], &[0xff; 20]].concat()),
            ends: true,
        },
        Block {
            name: "a string longer than the block",
            frames: whole(&[0, 1, b'x', 0x7f, 0xff, 0xff, 0x03]),
            ends: true,
        },
        Block { name: "a reference to nothing", frames: whole(&[0xff, 0x80, 0x7f]), ends: true },
        Block { name: "the index 0", frames: whole(&[0x80]), ends: true },
        Block { name: "a table larger than was agreed", frames: whole(&[0x3f, 0xe1, 0xff, 0x03]), ends: true },
        Block { name: "broken Huffman", frames: whole(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]), ends: true },
    ]
}

// threat: B3
#[tokio::test]
async fn a_header_block_without_an_end_ends_the_connection_within_a_few_frames() {
    let door = Door::new("endless");
    for secured in [false, true] {
        let set = ["limits.head_timeout=1h", "limits.idle_timeout=1h"];
        let world = if secured { door.world(&set).await } else { World::of("config/valkyrie.toml", &set).await };
        for block in endless() {
            let opening = [PREFACE, &settings(&[]), &block.frames].concat();
            let end = if secured {
                let tls = client(&door.authority, None, &["h2"], &[&tokio_rustls::rustls::version::TLS13]);
                ended(Caller::over(world.connect_tls(&tls).await.unwrap().stream), &opening).await
            } else {
                ended(Caller::over(tokio::net::TcpStream::connect(world.address).await.unwrap()), &opening).await
            };
            let reasons = [PROTOCOL_ERROR, COMPRESSION_ERROR, ENHANCE_YOUR_CALM].map(End::Goodbye);
            assert!(reasons.contains(&end) || end == End::Silent, "{}: {end:?}", block.name);
        }
        world.until("portcullis_connections", 0.0).await;
        world.pam.assert_untouched();
        if !secured {
            assert_serves(&world, &valkyrie::call("GET", SESSION)).await;
        }
    }
}

// threat: B4
// threat: B5
#[tokio::test]
async fn a_header_block_that_unpacks_into_too_much_is_refused() {
    let world = World::of("config/valkyrie.toml", &["limits.idle_timeout=1h"]).await;
    for block in bombs() {
        let mut caller = Caller::to(world.address).await;
        let _ = caller.write(&block.frames).await;
        let outcome = caller.outcome(1).await;
        match outcome {
            Outcome::Status(431) => assert!(!block.ends, "{}: {outcome:?}", block.name),
            Outcome::Ended(End::Goodbye(PROTOCOL_ERROR | COMPRESSION_ERROR | ENHANCE_YOUR_CALM) | End::Silent) => {
                assert!(block.ends, "{}: {outcome:?}", block.name);
            }
            other => panic!("{}: {other:?}", block.name),
        }
    }
    world.pam.assert_untouched();
    assert_serves(&world, &valkyrie::call("GET", SESSION)).await;
}

/// The bounds are not lower than they are said to be: what is just within them is served.
#[tokio::test]
async fn a_header_block_within_the_bounds_is_served_however_it_is_cut() {
    let world = World::valkyrie().await;
    let call = valkyrie::call("GET", SESSION);
    // The host, the two of the call and 97 more make a hundred.
    let more = (0..97).fold(call, |call, at| call.with(&format!("x-{at}"), &"y".repeat(200)));
    let all = block(&fields(&more));
    assert!(all.len() > 16_384, "one frame would do");
    for size in [16_384, 5_000] {
        let mut caller = Caller::to(world.address).await;
        let pieces: Vec<&[u8]> = all.chunks(size).collect();
        caller.write(&frame(HEADERS, END_STREAM, 1, pieces[0])).await;
        for (at, piece) in pieces.iter().enumerate().skip(1) {
            caller.write(&frame(CONTINUATION, if at + 1 == pieces.len() { END_HEADERS } else { 0 }, 1, piece)).await;
        }
        assert_eq!(caller.outcome(1).await, Outcome::Status(200), "{size}");
    }
    assert_eq!(world.pam.requests().len(), 2);
}

#[tokio::test]
async fn the_crumbs_of_a_cookie_are_one_cookie_to_the_pam() {
    let world = World::valkyrie().await;
    for crumbs in [&["a=1"][..], &["a=1", "b=2", "c=\"3\""], &["a=1; b=2", "c=3"]] {
        let mut fields = fields(&valkyrie::call("GET", SESSION).with("x-last", "1"));
        fields.extend(crumbs.iter().map(|crumb| ("cookie".to_owned(), (*crumb).to_owned())));
        let mut caller = Caller::to(world.address).await;
        caller.write(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields))).await;
        assert_eq!(caller.outcome(1).await, Outcome::Status(200));
        assert_eq!(world.pam.requests().pop().unwrap().values("cookie"), [crumbs.join("; ")]);
    }
}

async fn ended<S: tokio::io::AsyncRead + tokio::io::AsyncWrite>(mut caller: Caller<S>, opening: &[u8]) -> End {
    let _ = caller.write(opening).await;
    caller.end().await
}

const SESSION: &str = "/players/session?provider=x";
