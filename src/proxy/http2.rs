//! A connection that speaks HTTP/2: its requests, side by side. The frames are pingora's and the h2 crate's.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::COOKIE;
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, Stream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::current::Current;
use super::leave::Leaving;
use super::watched::{Waits, Watched};
use super::{Body, BodyFault, DRAINED, DRAINED_WITHIN, Http2Fault, Refused, Sent, Serve};
use crate::config::Limits;
use crate::fields::{FieldFault, Fields};
use crate::request::{Head, HeadFault, HeadLimits, Peer, Reply, ReplyBody};

/// Serves a connection, from its preface on, until one of the sides ends it.
pub async fn serve<S: Serve>(current: &Arc<Current<S>>, stream: Stream, peer: Peer, mut leaving: Leaving) {
    let limits = current.now().limits();
    let peer = Arc::new(peer);
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    });
    let (telling, client) = (Arc::clone(current), peer.address);
    let tell = move |fault| telling.now().refused(client, Refused::Http2(fault));
    let (stream, waits, known) = Watched::over(stream, tell.clone());
    let shaking_hands = handshake(Box::new(stream), Some(options(&limits)));
    let Ok(Ok(mut connection)) = timeout(limits.head_timeout, shaking_hands).await else {
        tell(Http2Fault::Preface);
        return;
    };
    let open = watch::Sender::new(0_usize);
    // A request whose stream the caller has reset may still be with the PAM: it keeps its place, and those that come after
    // wait for one. So a caller never has more with the PAM than it may have streams.
    let places = Arc::new(Semaphore::new(limits.streams as usize));
    let most_open = limits.streams as usize * 2;
    let parting = Arc::new(Notify::new());
    let old = Instant::now() + limits.connection_age;
    let mut taken = 0_u32;
    let mut taken_since_goodbye = 0;
    let mut rejected = 0;
    let mut stopping = false;
    // It was opened by somebody who does not know yet, and is not told before the first request has been taken: some send
    // none on a connection that begins with a goodbye.
    let late = leaving.is_announced();
    // Not before its last request is done does a connection count as closed: a drain must wait for what the PAM executes,
    // also when the caller has gone.
    let mut requests = open.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            () = farewell(&mut leaving, late && taken == 0), if !stopping => {
                connection.graceful_shutdown();
                stopping = true;
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
            // Nobody is there who would read a word.
            () = overdue(waits.clone(), |waits| waits.to_write, limits.write_timeout) => break,
            () = overdue(waits.clone(), |waits| waits.to_read, limits.head_timeout), if !stopping => {
                if *open.borrow() == 0 {
                    break;
                }
                connection.graceful_shutdown();
                stopping = true;
                continue;
            }
            () = sleep_until(old), if !stopping => {
                connection.graceful_shutdown();
                stopping = true;
                continue;
            }
            // One that leaves a reply lying would do so with the next, and some replies are the last: the other requests are
            // finished, and it is let go.
            () = parting.notified(), if !stopping => {
                connection.graceful_shutdown();
                stopping = true;
                continue;
            }
            () = idle(&open, if stopping { LAST_WORD } else { limits.idle_timeout }) => {
                if stopping {
                    let _ = timeout(limits.write_timeout, handed_over(&mut connection, &waits)).await;
                    break;
                }
                // Said before it is closed: a request that crosses this is known not to have been taken (RFC 9113 §6.8).
                connection.graceful_shutdown();
                stopping = true;
                continue;
            }
        };
        match accepted {
            // A caller that does not hear that its connection ends, or does not want to.
            Ok(Some(H2Accept::Session(_))) if taken_since_goodbye >= most_open => {
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
            // A caller that resets its streams is free to open others, while the PAM is still busy with the first ones.
            Ok(Some(H2Accept::Session(_))) if *open.borrow() >= most_open => {
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
            Ok(Some(H2Accept::Session(session))) => {
                taken = taken.saturating_add(1);
                taken_since_goodbye += usize::from(stopping);
                if taken >= limits.requests_per_connection && !stopping {
                    connection.graceful_shutdown();
                    stopping = true;
                }
                let (serve, peer) = (current.now(), Arc::clone(&peer));
                let (places, parting) = (Arc::clone(&places), Arc::clone(&parting));
                let stream = OpenStream::count(&open);
                tokio::spawn(async move {
                    let _stream = stream;
                    let mut session = session;
                    let place = tokio::select! {
                        biased;
                        // Taken back before anything was done about it.
                        _ = session.idle() => return,
                        place = places.acquire() => place,
                    };
                    request(&*serve, &peer, session, &parting).await;
                    drop(place);
                });
            }
            Ok(Some(H2Accept::Rejected)) => {
                known.expect();
                tell(Http2Fault::Request);
                rejected += 1;
                if rejected >= MOST_REJECTED {
                    break;
                }
            }
            Ok(None) | Err(_) => break,
        }
    }
    drop(connection);
    let _ = requests.wait_for(|open| *open == 0).await;
}

/// One request and its reply.
async fn request<S: Serve>(serve: &S, peer: &Peer, mut session: HttpSession, parting: &Notify) {
    let limits = serve.limits();
    session.set_write_timeout(Some(limits.write_timeout));
    let head = head(&session, &limits.head);
    let declared = head.as_ref().ok().and_then(|head| head.framing.length);
    let mut body = Inbound { session, declared, done: false };
    let (reply, record) = serve.serve(head, peer, Instant::now().into(), &mut body).await;
    if !body.done {
        // Some callers throw a reply away when the stream is reset behind it, as it must be while their body is unread.
        let _ = body.read(DRAINED, DRAINED_WITHIN).await;
    }
    let last = reply.last;
    let sent = match send(&mut body.session, reply).await {
        Ok(()) => Sent::Whole,
        Err(fault) => {
            if *fault.etype() == ErrorType::WriteTimedout {
                parting.notify_one();
            }
            Sent::Cut
        }
    };
    serve.sent(record, sent, Instant::now().into());
    if last {
        parting.notify_one();
    }
}

fn options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(OWN_RESETS));
    options
}

/// The request's head in the shape that HTTP/1 heads have.
fn head(session: &HttpSession, limits: &HeadLimits) -> Result<Head, HeadFault> {
    let request = session.req_header();
    let host = match request.headers.contains_key(http::header::HOST) {
        true => None,
        false => request.uri.authority().map(|authority| (&b"host"[..], authority.as_str().as_bytes())),
    };
    if request.headers.len() + usize::from(host.is_some()) > limits.fields {
        return Err(HeadFault::from_field(FieldFault::TooMany));
    }
    let crumbs: Vec<&[u8]> = request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // The PAM could take the first of several for all there are (RFC 9113 §8.2.3).
    let cookie = Some(crumbs.join(&b"; "[..])).filter(|_| !crumbs.is_empty());
    let cookie = cookie.iter().map(|cookie| (COOKIE.as_str().as_bytes(), &cookie[..]));
    let others = request.headers.iter().filter(|(name, _)| **name != COOKIE);
    let others = others.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let fields = host.into_iter().chain(others).chain(cookie);
    let fields = Fields::from_pairs(fields, limits.fields).map_err(HeadFault::from_field)?;
    Head::of_http2(request.method.as_str().as_bytes(), Bytes::copy_from_slice(request.raw_path()), fields, limits)
}

async fn send(session: &mut HttpSession, reply: Reply) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(reply.status, Some(reply.lines().count() + 1))?;
    for (name, value) in reply.lines() {
        // Names and values were read strictly; what HTTP/2 cannot carry all the same is left out.
        if let (Ok(name), Ok(value)) = (http::HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            header.append_header(name, value)?;
        }
    }
    match reply.body {
        ReplyBody::None => session.write_response_header(Box::new(header), true),
        ReplyBody::Whole(body) => {
            header.insert_header("content-length", body.len().to_string())?;
            let empty = body.is_empty();
            session.write_response_header(Box::new(header), empty)?;
            if empty { Ok(()) } else { session.write_body(body, true).await }
        }
        ReplyBody::Stream(mut body) => {
            if let Some(length) = body.length() {
                header.insert_header("content-length", length.to_string())?;
            }
            session.write_response_header(Box::new(header), false)?;
            let cut = |_| pingora::Error::new_str("the PAM cut its answer");
            while let Some(piece) = body.next().await.map_err(cut)? {
                session.write_body(piece, false).await?;
            }
            session.finish()
        }
    }
}

/// A request body as it arrives.
struct Inbound {
    session: HttpSession,
    declared: Option<u64>,
    done: bool,
}

impl Inbound {
    async fn whole(&mut self, most: u64) -> Result<Bytes, BodyFault> {
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        let mut length = 0;
        loop {
            let piece = match self.session.read_body_bytes().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(_) => return Err(BodyFault::Cut),
            };
            length += piece.len() as u64;
            if length > most {
                return Err(BodyFault::TooLarge);
            }
            match &first {
                None => first = Some(piece),
                Some(start) => {
                    if rest.is_empty() {
                        rest.extend_from_slice(start);
                    }
                    rest.extend_from_slice(&piece);
                }
            }
        }
        self.done = true;
        // The h2 crate compares lengths as well; a body that is forwarded must not depend on it.
        if self.declared.is_some_and(|declared| declared != length) {
            return Err(BodyFault::Cut);
        }
        Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
    }
}

impl Body for Inbound {
    async fn read(&mut self, most: u64, time: Duration) -> Result<Bytes, BodyFault> {
        if self.declared.is_some_and(|declared| declared > most) {
            return Err(BodyFault::TooLarge);
        }
        timeout(time, self.whole(most)).await.unwrap_or(Err(BodyFault::Slow))
    }
}

/// Returns when a connection is to be told that we stop.
async fn farewell(leaving: &mut Leaving, waits: bool) {
    match waits {
        true => leaving.over().await,
        false => leaving.announced().await,
    }
}

/// Returns when the kernel has taken what was said.
async fn handed_over(connection: &mut h2::server::Connection<Stream, Bytes>, waits: &watch::Receiver<Waits>) {
    poll_fn(|cx| match connection.poll_closed(cx) {
        Poll::Pending if waits.borrow().to_write.is_some() => Poll::Pending,
        Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
    })
    .await;
}

/// Returns when no request has been open for `time`.
async fn idle(open: &watch::Sender<usize>, time: Duration) {
    let mut changes = open.subscribe();
    if changes.wait_for(|open| *open == 0).await.is_ok() {
        tokio::time::sleep(time).await;
    }
}

/// Returns when a caller has kept us waiting for `time`.
async fn overdue(mut waits: watch::Receiver<Waits>, since: fn(&Waits) -> Option<Instant>, time: Duration) {
    loop {
        let by = since(&waits.borrow_and_update()).map(|since| since + time);
        tokio::select! {
            biased;
            Ok(()) = waits.changed() => {}
            () = sleep_until(by.unwrap_or_else(Instant::now)), if by.is_some() => return,
            // The connection, which tells of changes, has gone.
            else => std::future::pending::<()>().await,
        }
    }
}

/// Counts a request as open while it lives.
struct OpenStream(watch::Sender<usize>);

impl OpenStream {
    fn count(open: &watch::Sender<usize>) -> OpenStream {
        open.send_modify(|open| *open += 1);
        OpenStream(open.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// For how long a caller without open requests may take to leave once it has been told to.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Bytes of a decoded header list, 32 for each field included (RFC 9113 §6.5.2).
const HEADER_LIST: u32 = 64 << 10;

/// Bytes of replies that wait on one stream for a caller to take them.
const SEND_BUFFER: usize = 64 << 10;

/// Streams that we reset in a connection's life because of what the caller did on them, those beyond its bound included:
/// each is work that it does not wait for. One that has not heard of the bound yet may open the 100 of which RFC 9113
/// §6.5.2 speaks; a few hundred more are an attack.
const OWN_RESETS: usize = 128;

/// Malformed requests after which a connection is ended.
const MOST_REJECTED: usize = 32;
