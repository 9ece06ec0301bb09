//! `portcullis run`

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::Admin;
use crate::config::{Drain, Flags, Settings};
use crate::descriptors;
use crate::files::Files;
use crate::log::Log;
use crate::proxy::current::Current;
use crate::proxy::listener::{Server, bind, bind_each};
use crate::proxy::story::Portcullis;
use crate::reload::{Reload, mounts};
use crate::threads::Threads;

/// Serves until a signal says stop.
pub fn run(flags: &Flags) -> ExitCode {
    let (settings, files) = match super::read(flags) {
        Ok(read) => read,
        Err(code) => return code,
    };
    match serve(settings, files, flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            super::complain_of(&fault);
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings, files: Files, flags: &Flags) -> Result<(), String> {
    let cannot_listen = |address: &str, key: &str, fault| format!("cannot listen on {address} (`{key}`): {fault}");
    let traffic = bind_each(&settings.listen, settings.threads);
    let traffic = traffic.map_err(|fault| cannot_listen(&settings.listen, "listen", fault))?;
    let admin = settings.admin.as_deref();
    let admin =
        admin.map(|address| bind(address).map_err(|fault| cannot_listen(address, "admin", fault))).transpose()?;
    let cannot_start = |fault: std::io::Error| format!("cannot start threads: {fault}");
    let threads = Threads::start(settings.threads).map_err(cannot_start)?;
    // For everything but traffic: the admin address, the other replicas, reloads.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().map_err(cannot_start)?;
    let (log, writer) = Log::start(std::io::stdout()).map_err(|fault| format!("cannot start the log: {fault}"))?;
    log.tell_of_panics();
    let served = runtime.block_on(until_stopped(settings, files, flags.clone(), &threads, traffic, admin, log));
    // What is still running was given its time; a connection that holds out does not hold the process.
    runtime.shutdown_background();
    drop(threads);
    writer.finish(LAST_LINES);
    served
}

async fn until_stopped(
    mut settings: Settings,
    files: Files,
    flags: Flags,
    threads: &Threads,
    traffic: Vec<TcpListener>,
    admin: Option<TcpListener>,
    log: Log,
) -> Result<(), String> {
    let fault = |fault: std::io::Error| fault.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    let hangup = signal(SignalKind::hangup()).map_err(fault)?;
    let started = json!({
        "dialect": &*settings.dialect.name,
        "upstream": settings.upstream,
        "callers": settings.callers.iter().count(),
    });
    descriptors::raise();
    descriptors::fit(&mut settings.limits, &log);
    let digest_key = settings.digest_key.clone();
    let current = Current::new(Portcullis::new(settings, log.clone()).await?);
    let first = current.now();
    let (ready, watched) = watch::channel(false);
    let traffic = threads.handles().iter().cloned().zip(traffic);
    let traffic = Server::start_on(traffic, Arc::clone(&current)).map_err(fault)?;
    // Without anyone to ask, everything is known from the start, and nobody should see a moment of "not ready".
    ready.send_replace(first.is_ready());
    let pages = Admin::new(Arc::clone(&current), watched);
    let admin = admin.map(|admin| Server::start(admin, Current::new(pages))).transpose();
    let admin = admin.map_err(fault)?;
    let about = json!({
        "listen": traffic.address().to_string(),
        "admin": admin.as_ref().map(|admin| admin.address().to_string()),
        "config": started,
    });
    let resource = json!({
        "service.name": env!("CARGO_PKG_NAME"),
        "service.version": env!("CARGO_PKG_VERSION"),
        "about": about,
    });
    log.say("info", "started", &resource);

    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let ready_once_known = async {
        first.ready().await;
        if !ready.send_replace(true) {
            log.note("info", "ready", &json!({}));
        }
        drop(first);
        std::future::pending::<()>().await;
    };
    current.now().tell_modes();
    mounts::warn(&files, &log);
    let reload = Reload::new(flags, digest_key, files, Arc::clone(&current), log.clone());
    tokio::select! {
        () = stopped => {}
        ((), ()) = async { tokio::join!(ready_once_known, reload.keep_up(hangup)) } => {}
    }
    // Unready at once, so that no new callers are sent here, but serving those who have not heard of it yet.
    ready.send_replace(false);
    traffic.announce_stop();
    let Drain { delay, timeout } = current.now().drain();
    log.note(
        "info",
        "stopping",
        &json!({ "drain_delay_s": delay.as_secs_f64(), "drain_timeout_s": timeout.as_secs_f64() }),
    );
    let drained = async {
        tokio::time::sleep(delay).await;
        traffic.drain(timeout).await
    };
    let finished = tokio::select! {
        finished = drained => finished,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    current.now().tell_rest();
    let spans = match current.now().spans() {
        Some(spans) => Some(spans.flush(LAST_SPANS).await),
        None => None,
    };
    if spans == Some(false) {
        log.note("warn", "spans_left", &json!({}));
    }
    log.note("info", "stopped", &json!({ "all_requests_finished": finished }));
    if let Some(admin) = admin {
        admin.drain(ADMIN_DRAIN).await;
    }
    Ok(())
}

/// For the reader of the log to take what is left.
const LAST_LINES: Duration = Duration::from_secs(1);

/// For the receiver of traces to take what is left: it is no reason to stop late.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// A scrape in flight may finish.
const ADMIN_DRAIN: Duration = Duration::from_millis(500);
