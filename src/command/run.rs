//! `portcullis run`

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::Admin;
use crate::config::{Flags, Settings};
use crate::log::Log;
use crate::proxy::listener::{Server, bind};
use crate::proxy::story::Portcullis;

/// Serves until a signal says stop.
pub fn run(flags: &Flags) -> ExitCode {
    let settings = match super::load(flags) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            super::complain_of(&fault);
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings) -> Result<(), String> {
    let traffic = bound(&settings.listen, "listen")?;
    let admin = settings.admin.as_deref().map(|address| bound(address, "admin")).transpose()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if settings.threads > 0 {
        runtime.worker_threads(settings.threads);
    }
    let runtime = runtime.enable_all().build().map_err(|fault| format!("cannot start threads: {fault}"))?;
    let (log, writer) = Log::start(std::io::stdout()).map_err(|fault| format!("cannot start the log: {fault}"))?;
    let served = runtime.block_on(until_stopped(settings, traffic, admin, log));
    // What is still running was given its time; a connection that holds out does not hold the process.
    runtime.shutdown_background();
    writer.finish(LAST_LINES);
    served
}

async fn until_stopped(
    settings: Settings,
    traffic: TcpListener,
    admin: Option<TcpListener>,
    log: Log,
) -> Result<(), String> {
    let (delay, timeout) = (settings.drain_delay, settings.drain_timeout);
    let fault = |fault: std::io::Error| fault.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    let started = json!({
        "dialect": &*settings.dialect.name,
        "upstream": settings.upstream,
        "callers": settings.callers.iter().count(),
    });
    let portcullis = Portcullis::new(settings, log.clone()).await?;
    let portcullis = Arc::new(portcullis);
    let (ready, watched) = watch::channel(false);
    let traffic = Server::start(traffic, Arc::clone(&portcullis)).map_err(fault)?;
    // Without anyone to ask, everything is known from the start, and nobody should see a moment of "not ready".
    ready.send_replace(portcullis.is_ready());
    let checking = Arc::clone(&portcullis);
    let admin = admin.map(|admin| Server::start(admin, Arc::new(Admin::new(portcullis, watched)))).transpose();
    let admin = admin.map_err(fault)?;
    log.note(
        "info",
        "started",
        &json!({
            "listen": traffic.address().to_string(),
            "admin": admin.as_ref().map(|admin| admin.address().to_string()),
            "config": started,
        }),
    );

    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let ready_once_known = async {
        checking.ready().await;
        if !ready.send_replace(true) {
            log.note("info", "ready", &json!({}));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stopped => {}
        () = ready_once_known => {}
    }
    // Unready at once, so that no new callers are sent here, but serving those who have not heard of it yet.
    ready.send_replace(false);
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
    log.note("info", "stopped", &json!({ "all_requests_finished": finished }));
    if let Some(admin) = admin {
        admin.drain(ADMIN_DRAIN).await;
    }
    Ok(())
}

fn bound(address: &str, key: &str) -> Result<TcpListener, String> {
    bind(address).map_err(|fault| format!("cannot listen on {address} (`{key}`): {fault}"))
}

/// For the reader of the log to take what is left.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A scrape in flight may finish.
const ADMIN_DRAIN: Duration = Duration::from_millis(500);
