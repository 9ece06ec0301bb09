//! What becomes of connections to the PAM, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts that outlive the connections, and the configs they were opened under.
#[derive(Debug, Default)]
pub struct Counts {
    opened: [AtomicU64; 2],
    reused: [AtomicU64; 2],
    closed: [AtomicU64; End::ALL.len()],
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It had waited for too long.
    Idle,
    /// There were enough others waiting.
    Surplus,
    /// It stood by certificates that are in use no more.
    Certificates,
    /// The PAM had closed it, or had said something that nobody had asked for.
    Left,
    /// An exchange failed on it, or the PAM wanted it closed behind its answer.
    Exchange,
    /// Its config was replaced, or everything ended.
    Reload,
    /// It spoke HTTP/2, and ended for whatever reason.
    Http2,
}

/// Counts a connection as closed when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Tally(Option<(Arc<Counts>, End)>);

impl Counts {
    pub(super) fn open(&self, http2: bool) {
        add(self.opened.get(usize::from(http2)));
    }

    pub(super) fn reuse(&self, http2: bool) {
        add(self.reused.get(usize::from(http2)));
    }

    pub(super) fn close(&self, end: End) {
        add(self.closed.get(end as usize));
    }

    /// Connections that were opened, over HTTP/1.1 and HTTP/2.
    pub fn opened(&self) -> [u64; 2] {
        self.opened.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Exchanges on a connection that was there.
    pub fn reused(&self) -> [u64; 2] {
        self.reused.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Connections that were closed for this.
    pub fn closed(&self, end: End) -> u64 {
        self.closed.get(end as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl End {
    /// All there are.
    pub const ALL: [End; 7] =
        [End::Idle, End::Surplus, End::Certificates, End::Left, End::Exchange, End::Reload, End::Http2];

    /// One word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Idle => "idle",
            End::Surplus => "surplus",
            End::Certificates => "certificates",
            End::Left => "left",
            End::Exchange => "exchange",
            End::Reload => "reload",
            End::Http2 => "http2",
        }
    }
}

impl Tally {
    pub(super) fn of(counts: &Arc<Counts>, end: End) -> Tally {
        Tally(Some((Arc::clone(counts), end)))
    }

    /// The connection goes on.
    pub(super) fn spare(mut self) {
        self.0 = None;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let Some((counts, end)) = &self.0 {
            counts.close(*end);
        }
    }
}

fn add(count: Option<&AtomicU64>) {
    if let Some(count) = count {
        count.fetch_add(1, Ordering::Relaxed);
    }
}
