//! `portcullis demo`: a small PAM, a Portcullis per family in front of it, and telling requests through them.
//!
//! ```text
//! demo.rs            the command, and how it ends
//! demo/stage.rs      what is started: the PAM, and a Portcullis in front of each of its doors
//! demo/pam.rs        the PAM's sockets, and what it notes of what reaches them
//! demo/accounts.rs   the PAM's players, sessions and money
//! demo/walk.rs       the requests, and what is promised of each
//! demo/offer.rs      curl lines to try
//! demo/page.rs       how it is printed
//! ```

mod accounts;
mod offer;
mod page;
mod pam;
mod stage;
mod walk;

use std::fs::File;
use std::io::{self, IsTerminal, StdoutLock, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;

use clap::Args;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::page::{Look, Page};
use self::stage::Stage;
use self::walk::Walk;

/// How far to go.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Demo {
    /// Ends after the walk: with 0 when everything came out as promised, with 1 when not.
    #[arg(long)]
    once: bool,
}

const EXAMPLE: &str = "Example:
  portcullis demo --once";

/// Walks, and stays until it is stopped or nobody reads any more.
pub fn demo(arguments: &Demo) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => return failed(&format!("cannot start threads: {fault}")),
    };
    let shown = runtime.block_on(show(arguments.once));
    // A request that is still running does not hold the process.
    runtime.shutdown_background();
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever stops reading has read enough.
        Err(Fault::Page(fault)) if fault.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Fault::Page(fault)) => failed(&format!("cannot print: {fault}")),
        Err(Fault::Stage(fault)) => failed(&fault),
    }
}

/// What can go wrong.
enum Fault {
    /// The page could not be printed.
    Page(io::Error),
    /// Something of what is shown did not work.
    Stage(String),
}

async fn show(once: bool) -> Result<(), Fault> {
    let mut stops = Stops::new().map_err(|fault| format!("cannot listen for signals: {fault}"))?;
    let mut page = Page::new(io::stdout().lock(), look());
    tokio::select! {
        played = play(&mut page, once) => played,
        () = stops.any() => Ok(page.stopped()?),
        () = unread() => Ok(()),
    }
}

async fn play(page: &mut Page<StdoutLock<'_>>, once: bool) -> Result<(), Fault> {
    let mut stage = Stage::start().await?;
    stage.introduce(page)?;
    let mut walk = Walk::new(page);
    walk.through(&mut stage).await?;
    let broken = walk.end()?;
    if once {
        let otherwise = || Fault::Stage(format!("{broken} of the promises above were not kept"));
        return if broken == 0 { Ok(()) } else { Err(otherwise()) };
    }
    offer::print(page, &stage)?;
    std::future::pending().await
}

/// What standard output is.
pub(super) fn look() -> Look {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let terminal = io::stdout().is_terminal();
    // https://no-color.org
    let plain = variable("NO_COLOR").is_some() || variable("TERM").is_some_and(|terminal| terminal == "dumb");
    Look { terminal, coloured: terminal && !plain }
}

/// What stops a demo that stays: Ctrl-C, or whoever started it.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    fn new() -> io::Result<Stops> {
        Ok(Stops { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Returns when standard output is a pipe and its reader has left: a demo that stays would not notice, since it has
/// nothing more to write.
async fn unread() {
    let watched = || -> io::Result<Option<pipe::Sender>> {
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        // Only watched, never written to: it may stay as blocking as the others who have it need it.
        if output.metadata()?.file_type().is_fifo() {
            pipe::Sender::from_file_unchecked(output).map(Some)
        } else {
            Ok(None)
        }
    };
    if let Ok(Some(watched)) = watched()
        && watched.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn failed(fault: &str) -> ExitCode {
    // Not eprintln!, which panics when standard error is closed too.
    let _ = writeln!(io::stderr(), "portcullis demo: {fault}");
    ExitCode::FAILURE
}

impl From<io::Error> for Fault {
    fn from(fault: io::Error) -> Fault {
        Fault::Page(fault)
    }
}

impl From<String> for Fault {
    fn from(fault: String) -> Fault {
        Fault::Stage(fault)
    }
}
