//! Every event of the log, and what to do about it. `config/log.md` is made from this.

use std::fmt::Write;

/// What is told about an event.
#[derive(Debug)]
pub struct LogEvent {
    /// What `event` says in its lines. It never changes its meaning.
    pub name: &'static str,
    /// The levels it can have.
    pub levels: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What to do; empty where there is nothing to do.
    pub advice: &'static str,
    /// What its lines have beside `timestamp`, `level` and `event`.
    pub members: &'static [(&'static str, &'static str)],
}

/// All events.
pub const ALL: [LogEvent; 28] = [
    LogEvent {
        name: "request",
        levels: "info for what went well, warn for what a caller did wrong, error for what went wrong here or at the PAM",
        meaning: "A request was answered.",
        advice: "`reason` says what; the correlation id finds it in the caller's log and the PAM's.",
        members: &[
            ("dialect", "the API family"),
            ("caller", "who was proven to call, or `none`"),
            ("key_id", "the signing key it proved itself with"),
            ("client.address", "where it came from"),
            ("http.route", "the route, or `none`"),
            ("http.request.method", "the method, or `none` where there is none that can be served"),
            ("http.response.status_code", "the status of the reply"),
            ("decision", "`admitted`, `settled` (with a token that had ended, since money is owed) or `refused`"),
            ("check", "the check that refused, or `upstream` where the exchange with the PAM failed"),
            ("reason", "why: a word of the label `reason` in [the metrics](metrics.md)"),
            ("would_refuse", "the checks and reasons that would have refused it, were they enforced"),
            ("correlation_id", "as in the reply's X-Correlation-ID"),
            ("trace_id", "as in the PAM's traceparent"),
            ("token", "a keyed digest of the player token, the same wherever it stands"),
            ("token_ended", "true where the answer ended the token"),
            ("token_presumed_ended", "true where the PAM called the token dead and is believed for a while"),
            ("duration_s", "from the head to the end of the reply, in seconds"),
            ("own_duration_s", "of that, what Portcullis took"),
            ("upstream_duration_s", "of that, what the PAM took"),
            ("delivered", "false where the caller did not take the whole reply"),
            ("sample_rate", "the share of such lines that are written, where `log.sample` is below 100%"),
        ],
    },
    LogEvent {
        name: "requests_refused",
        levels: "warn, or error where it was our trouble",
        meaning: "Within a second, so many more requests of one caller and address were refused for one reason, beyond \
                  those that have their own line. The metrics count each.",
        advice: "Look at the lines before it.",
        members: &[
            ("caller", "who was proven to call, or `none`"),
            (
                "client.address",
                "where they came from, of IPv6 the /64; missing while thousands of addresses are refused",
            ),
            ("check", "the check that refused"),
            ("reason", "why"),
            ("folded", "how many"),
        ],
    },
    LogEvent {
        name: "connection_refused",
        levels: "warn; info for what probes do",
        meaning: "A connection, or an HTTP/2 stream, ended before there was a request: one line a second for each reason.",
        advice: "`reason` is a word of `portcullis_connections_refused_total`, or `handshake_` and one of \
                 `portcullis_tls_handshakes_failed_total`.",
        members: &[
            ("client.address", "where it came from; of several, the last one"),
            ("reason", "why"),
            ("folded", "how many more there were within the second"),
        ],
    },
    LogEvent {
        name: "revoked",
        levels: "warn; error where what outlives the process has not taken it",
        meaning: "An operator ended a token.",
        advice: "",
        members: &[
            ("token", "its digest"),
            ("ended", "1, or 0 if it had ended"),
            ("actor, reason", "as the operator said"),
        ],
    },
    LogEvent {
        name: "revoked_seen_before",
        levels: "warn; error as above",
        meaning: "An operator ended all tokens first seen before a moment.",
        advice: "`complete` is false where some had not been remembered: those are not ended.",
        members: &[
            ("seen_before", "the moment"),
            ("ended", "how many"),
            ("complete, unremembered, seen_since", "as above"),
        ],
    },
    LogEvent {
        name: "unrevoked",
        levels: "info; error as above",
        meaning: "An operator took back that a token ended.",
        advice: "",
        members: &[("token", "its digest"), ("pardoned", "whether it had ended")],
    },
    LogEvent {
        name: "admin_refused",
        levels: "warn",
        meaning: "Somebody made an operator's call and was refused.",
        advice: "If it was nobody of yours: who can reach the admin address?",
        members: &[],
    },
    LogEvent {
        name: "config_reloaded",
        levels: "info",
        meaning: "A config was loaded anew and is in use.",
        advice: "",
        members: &[("about", "its generation, dialect and number of callers")],
    },
    LogEvent {
        name: "config_rejected",
        levels: "error",
        meaning: "A config was loaded anew and is of no use; the one before is in use.",
        advice: "Correct what `complaints` say.",
        members: &[("about", "the complaints, by file, line and column")],
    },
    LogEvent {
        name: "restart_needed",
        levels: "warn",
        meaning: "A file has changed that cannot be read anew while it runs, the password of a store for instance.",
        advice: "Restart when it suits; until then the content from the start is in use.",
        members: &[("about", "the keys that name such files")],
    },
    LogEvent {
        name: "not_enforced",
        levels: "warn",
        meaning: "A config is in use that lets pass what fails its checks, somewhere.",
        advice: "`portcullis readiness` says what keeps you from enforcing.",
        members: &[("about", "the mode of the config, and those of checks, routes and callers")],
    },
    LogEvent {
        name: "span_export_failing",
        levels: "warn",
        meaning: "The receiver of traces takes no spans; they are lost, and requests go on.",
        advice: "See whether it is reachable and what it says.",
        members: &[("about", "what went wrong")],
    },
    LogEvent {
        name: "span_export_recovered",
        levels: "info",
        meaning: "The receiver of traces takes spans again.",
        advice: "",
        members: &[],
    },
    LogEvent {
        name: "spans_left",
        levels: "warn",
        meaning: "The process stopped before the receiver of traces had taken all spans.",
        advice: "",
        members: &[],
    },
    LogEvent {
        name: "certificates_renewed",
        levels: "info",
        meaning: "Certificates were taken over from their files.",
        advice: "",
        members: &[("about", "of which table")],
    },
    LogEvent {
        name: "certificates_unusable",
        levels: "error",
        meaning: "Certificates in files that changed are of no use; those from before are in use.",
        advice: "Correct the file before those expire.",
        members: &[("about", "of which table, and what is wrong")],
    },
    LogEvent {
        name: "revocation_store_away",
        levels: "error",
        meaning: "The store that replicas share does not answer, or takes nothing.",
        advice: "What [revocation] on_outage says is in force until `revocation_store_back`.",
        members: &[("about", "why")],
    },
    LogEvent {
        name: "revocation_store_back",
        levels: "info",
        meaning: "The store that replicas share is back.",
        advice: "",
        members: &[],
    },
    LogEvent {
        name: "revocation_entry_unreadable",
        levels: "error",
        meaning: "An entry of the log that replicas share cannot be read.",
        advice: "Find who else writes there; all replicas need the same version.",
        members: &[("about", "which entry")],
    },
    LogEvent {
        name: "revocation_log_rolled_back",
        levels: "warn",
        meaning: "The log that replicas share had lost entries; what this replica knew was published again.",
        advice: "The store lost writes: look at its persistence and failover.",
        members: &[("about", "how many were published again")],
    },
    LogEvent {
        name: "journal_salvaged",
        levels: "error",
        meaning: "The journal was damaged and on_damage = \"salvage\": what could be read is in use.",
        advice: "Tokens whose records were lost pass again: end them, or all that were seen before.",
        members: &[("about", "what was lost")],
    },
    LogEvent {
        name: "few_descriptors",
        levels: "warn",
        meaning: "The process may open fewer files than limits.connections needs; the limit was lowered to fit.",
        advice: "Raise the limit (ulimit -n, LimitNOFILE).",
        members: &[("about", "the numbers")],
    },
    LogEvent {
        name: "file_never_changes",
        levels: "warn",
        meaning: "A file of the config is mounted in a way that never shows its changes.",
        advice: "Mount the folder instead of the file (Kubernetes: no subPath).",
        members: &[("about", "which file")],
    },
    LogEvent {
        name: "panic",
        levels: "error",
        meaning: "A fault in Portcullis broke something off; a request got 500.",
        advice: "Report it, with the place.",
        members: &[("about", "where in the code; never what it said")],
    },
    LogEvent {
        name: "started",
        levels: "info",
        meaning: "It serves. What is true of all lines stands here alone.",
        advice: "",
        members: &[
            ("service.name", "`portcullis`"),
            ("service.version", "its version"),
            ("about", "addresses, dialect, number of callers"),
        ],
    },
    LogEvent {
        name: "ready",
        levels: "info",
        meaning: "Everything is known that must be before the first check; only where there is a store.",
        advice: "",
        members: &[],
    },
    LogEvent {
        name: "stopping",
        levels: "info",
        meaning: "A signal asked it to stop; requests in flight go on.",
        advice: "",
        members: &[("about", "how long that may take")],
    },
    LogEvent {
        name: "stopped",
        levels: "info",
        meaning: "It has stopped.",
        advice: "all_requests_finished false: raise drain.timeout.",
        members: &[("about", "whether all requests were finished")],
    },
];

/// The page, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# The log\n\n\
         Made from the code; `UPDATE_REFERENCE=1 cargo test --quiet reference` makes it again.\n\n\
         One JSON object a line on standard output. Each has `timestamp` (RFC 3339, UTC), `level` (`info`, `warn`, `error`) and\n\
         `event`; names are those of OpenTelemetry's semantic conventions where there is one. No secret, token, signature or\n\
         credential is ever in it. Requests that are answered within a few milliseconds may change places, if different threads\n\
         serve them: go by `timestamp`. Any other event stands behind everything that was said before it.\n\n\
         `log.sample` leaves out requests that were admitted, went well and ended no token: all but a share of them, drawn by\n\
         their trace ids, so that replicas keep the same. Everything else is there; only of refusals, what goes beyond\n\
         `log.refusals_per_second` with one caller, address and reason is told in one `requests_refused`.\n",
    );
    for event in &ALL {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## `{}`\n\n{} Level: {}.\n", event.name, event.meaning, event.levels);
        if !event.members.is_empty() {
            page.push('\n');
        }
        for (names, what) in event.members {
            let names: Vec<String> = names.split(", ").map(|name| format!("`{name}`")).collect();
            let _ = writeln!(page, "- {}: {what}", names.join(", "));
        }
        if !event.advice.is_empty() {
            let _ = write!(page, "\n*What to do:* {}\n", event.advice);
        }
    }
    page
}
