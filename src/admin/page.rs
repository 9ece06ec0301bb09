//! The page for people: `GET /` on the admin address.
//!
//! Made here as a whole, from text alone: it runs no script, fetches nothing, and changes nothing.
//!
//! ```text
//! page           from facts to HTML, and the fields it is sent with
//! page/facts     what it shows                              (pure)
//! page/verdict   how things are, in a sentence              (pure)
//! page/words     numbers as people read them                (pure)
//! page/markup    what is text stays text                    (pure)
//! ```

pub mod facts;
mod markup;
mod verdict;
mod words;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use self::facts::Facts;
use self::markup::{Html, Table};
use self::verdict::{Level, verdicts};
use self::words::{ago, percent, took};
use crate::sight::latency::{Latencies, Percentiles};
use crate::sight::tally::Told;
use crate::sight::{BecameOf, Lately, Outcomes, Seen};

/// The page, which asks for itself again after a while unless it is paused.
pub fn render(facts: &Facts, paused: bool) -> String {
    let mut html = Html::default();
    html.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Portcullis</title>\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    if !paused {
        html.raw("<meta http-equiv=\"refresh\" content=\"10\">\n");
    }
    html.raw("<style>").raw(STYLE).raw("</style></head><body>\n");
    top(&mut html, facts, paused);
    html.raw("<main>\n");
    now(&mut html, &facts.seen);
    refused(&mut html, &facts.seen.refused);
    unenforced(&mut html, facts);
    latency(&mut html, &facts.seen);
    state(&mut html, facts);
    secrets(&mut html, facts);
    html.raw("</main></body></html>\n");
    html.into_string()
}

/// The fields it is sent with: a browser that shows it does nothing beside that.
pub fn fields() -> Vec<(&'static str, Bytes)> {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut fields = vec![("Content-Security-Policy", Bytes::from(policy))];
    fields.extend(FIELDS.map(|(name, value)| (name, Bytes::from_static(value.as_bytes()))));
    fields
}

fn top(html: &mut Html, facts: &Facts, paused: bool) {
    html.raw("<header><h1>Portcullis</h1>\n");
    let verdicts = verdicts(facts);
    for (at, verdict) in verdicts.iter().enumerate() {
        html.raw(match (at, verdict.level) {
            (0, Level::Bad) => "<p class=\"verdict bad\">",
            (0, Level::Doubtful) => "<p class=\"verdict doubtful\">",
            (0, Level::Good) => "<p class=\"verdict good\">",
            (_, Level::Bad) => "<p class=\"bad\">",
            (_, Level::Doubtful) => "<p class=\"doubtful\">",
            (_, Level::Good) => "<p class=\"good\">",
        });
        html.text(&verdict.sentence).raw("</p>\n");
    }
    let seen = ago(facts.seen.time);
    let about = format!(
        "{} · version {} · dialect {} · config {} · started {seen}",
        facts.at,
        env!("CARGO_PKG_VERSION"),
        facts.dialect,
        facts.config.generation
    );
    html.element("<p class=\"quiet\">", &about, "</p>\n<nav aria-label=\"Pages\">");
    html.raw(match paused {
        true => "<a href=\"/\">Refresh every 10 s</a>",
        false => "<a href=\"/?pause\">Stop refreshing</a>",
    });
    html.raw(" <a href=\"/status\">Status as JSON</a> <a href=\"/metrics\">Metrics</a></nav></header>\n");
}

fn now(html: &mut Html, seen: &Seen) {
    html.raw("<section><h2>Calls</h2>\n");
    let of = |get: fn(BecameOf) -> u64| seen.minutes.iter().map(|became| get(*became)).collect::<Vec<u64>>();
    let series = [("good", of(|one| one.admitted)), ("doubtful", of(|one| one.refused)), ("bad", of(|one| one.failed))];
    let most = seen.minutes.iter().map(|became| became.all()).max().unwrap_or_default();
    let hour = seen.all.hour;
    let title = format!(
        "Calls in each minute of the last hour, {most} at most: {} admitted (green), {} refused (amber), {} failed (red)",
        hour.admitted, hour.refused, hour.failed
    );
    html.sparkline(&title, &series);
    html.element("<p class=\"quiet\">", &title, ".</p>\n");
    let row = |name: &str, get: fn(BecameOf) -> u64| {
        let Outcomes { minute, hour } = seen.all;
        let (few, many) = (get(minute), get(hour));
        vec![name.to_owned(), few.to_string(), percent(few, minute.all()), many.to_string(), percent(many, hour.all())]
    };
    html.table(Table {
        caption: "What became of calls",
        columns: &["outcome", "last minute", "share", "last hour", "share"],
        named: 1,
        rows: vec![
            row("admitted: forwarded and answered", |one| one.admitted),
            row("refused: not forwarded", |one| one.refused),
            row("failed: forwarded, and answered with 5xx or not at all", |one| one.failed),
        ],
        empty: "",
    });
    html.raw("<div class=\"panels\">\n");
    by_name(html, "By caller, last minute", "caller", &seen.callers);
    by_name(html, "By route, last minute", "route", &seen.routes);
    by_reason(html, "Refused, by reason", "Nothing was refused in the last hour.", &seen.refused);
    by_reason(html, "Failed, by reason", "Nothing failed in the last hour.", &seen.failed);
    html.raw("</div></section>\n");
}

fn by_name(html: &mut Html, caption: &'static str, head: &'static str, named: &[(Box<str>, Outcomes)]) {
    let columns = [head, "admitted", "refused", "failed", "all, last hour"];
    let row = |name: String, outcomes: Outcomes| {
        let Outcomes { minute, hour } = outcomes;
        let mut row = vec![name];
        row.extend([minute.admitted, minute.refused, minute.failed, hour.all()].map(|count| count.to_string()));
        row
    };
    let mut rows: Vec<_> = named.iter().take(MOST).map(|(name, outcomes)| row(short(name), *outcomes)).collect();
    let rest = named.get(MOST..).unwrap_or_default();
    if !rest.is_empty() {
        let sum = rest.iter().fold(Outcomes::default(), |sum, (_, one)| sum.and(*one));
        rows.push(row(format!("({} more)", rest.len()), sum));
    }
    html.table(Table { caption, columns: &columns, named: 1, rows, empty: "No call in the last hour." });
}

fn by_reason(html: &mut Html, caption: &'static str, empty: &'static str, told: &Told) {
    let row = |(reason, lately): &(&str, Lately)| {
        vec![(*reason).to_owned(), lately.minute.to_string(), lately.hour.to_string()]
    };
    let rows = told.reasons.iter().map(row).collect();
    html.table(Table { caption, columns: &["reason", "last minute", "last hour"], named: 1, rows, empty });
}

fn refused(html: &mut Html, told: &Told) {
    html.raw("<section><h2>Refused</h2>\n");
    by_kind(html, "Refused, by caller, route and reason", "Nothing was refused in the last hour.", told);
    last(html, "Last refusals", "Nothing was refused since the start.", told);
    html.raw("</section>\n");
}

fn unenforced(html: &mut Html, facts: &Facts) {
    html.raw("<section><h2>What shadow mode would have refused</h2>\n");
    if facts.unenforced.is_empty() {
        html.raw("<p class=\"quiet\">Every check is enforced.</p>\n");
    } else {
        html.raw("<h3>Not enforced</h3><ul>\n");
        for one in facts.unenforced.iter().take(MOST_SENTENCES) {
            html.element("<li>", one, "</li>\n");
        }
        more(html, facts.unenforced.len());
        html.raw("</ul>\n");
    }
    let told = &facts.seen.unenforced;
    if !(facts.unenforced.is_empty() && told.last.is_empty()) {
        by_kind(html, "Would have been refused, by caller, route and reason", "Nothing in the last hour.", told);
        last(html, "Examples", "Nothing since the start.", told);
    }
    html.raw("</section>\n");
}

fn by_kind(html: &mut Html, caption: &'static str, empty: &'static str, told: &Told) {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (kind, lately) in told.kinds.iter().take(MOST) {
        let names = [&*kind.caller, &*kind.route, kind.reason].map(short);
        rows.push([&names[..], &[lately.minute.to_string(), lately.hour.to_string()]].concat());
    }
    let rest = told.kinds.get(MOST..).unwrap_or_default();
    if !rest.is_empty() {
        let sum = |get: fn(&Lately) -> u64| rest.iter().map(|(_, one)| get(one)).sum::<u64>().to_string();
        let name = format!("({} more)", rest.len());
        rows.push(vec![name, String::new(), String::new(), sum(|one| one.minute), sum(|one| one.hour)]);
    }
    let columns = ["caller", "route", "reason", "last minute", "last hour"];
    html.table(Table { caption, columns: &columns, named: 3, rows, empty });
    if told.unkept > 0 {
        let text = format!("{} since the start were too many to be told apart.", told.unkept);
        html.element("<p class=\"quiet\">", &text, "</p>\n");
    }
}

fn last(html: &mut Html, caption: &'static str, empty: &'static str, told: &Told) {
    let rows = told.last.iter().take(MOST_EXAMPLES).map(|example| {
        let kind = &example.kind;
        let mut row = vec![example.timestamp.clone()];
        row.extend([&*kind.caller, &*kind.route, kind.reason].map(short));
        row.extend([example.correlation_id.clone(), example.status.to_string()]);
        row
    });
    let columns = ["time", "caller", "route", "reason", "correlation id", "status"];
    html.table(Table { caption, columns: &columns, named: 5, rows: rows.collect(), empty });
}

fn latency(html: &mut Html, seen: &Seen) {
    html.raw("<section><h2>Latency</h2>\n");
    let row = |name: &str, found: Option<Percentiles>| {
        let shown = match found {
            None => ["–"; 3].map(str::to_owned),
            Some(found) => [found.half, found.p95, found.p99].map(took),
        };
        [vec![name.to_owned()], shown.to_vec()].concat()
    };
    html.table(Table {
        caption: "How long calls take",
        columns: &["time", "p50", "p95", "p99"],
        named: 1,
        rows: vec![
            row("Portcullis itself, last minute", seen.own.minute),
            row("Portcullis itself, last hour", seen.own.hour),
            row("the PAM, last minute", seen.pam.minute),
            row("the PAM, last hour", seen.pam.hour),
        ],
        empty: "",
    });
    html.raw("<div class=\"panels\">\n");
    slow(html, "Portcullis itself", &seen.own);
    slow(html, "The PAM", &seen.pam);
    html.raw("</div></section>\n");
}

fn slow(html: &mut Html, who: &str, latencies: &Latencies) {
    let micros = |p95: &Option<Duration>| p95.map_or(0, |p95| u64::try_from(p95.as_micros()).unwrap_or(u64::MAX));
    let most = latencies.series.iter().flatten().max().map_or_else(|| "–".to_owned(), |most| took(*most));
    let title = format!("{who}, p95 of each minute of the last hour, {most} at most");
    html.raw("<figure>").sparkline(&title, &[("link", latencies.series.iter().map(micros).collect())]);
    html.element("<figcaption class=\"quiet\">", &title, "</figcaption></figure>\n");
}

fn state(html: &mut Html, facts: &Facts) {
    html.raw("<section><h2>State</h2>\n");
    let rows = standing(facts).into_iter().map(|(name, state)| vec![name.to_owned(), state]).collect();
    html.table(Table { caption: "Parts", columns: &["part", "state"], named: 2, rows, empty: "" });
    if !facts.config.rejected.is_empty() {
        html.raw("<h3>Why the config on disk is refused</h3><ul>\n");
        for complaint in facts.config.rejected.iter().take(MOST_SENTENCES) {
            html.element("<li>", complaint, "</li>\n");
        }
        more(html, facts.config.rejected.len());
        html.raw("</ul>\n");
    }
    let away = "Connections and streams that ended before there was a call";
    by_reason(html, away, "None in the last hour.", &facts.seen.turned_away);
    html.raw("</section>\n");
}

fn standing(facts: &Facts) -> Vec<(&'static str, String)> {
    let seen = &facts.seen;
    let store = match &facts.sharing {
        None => "none is shared with other replicas".to_owned(),
        Some(condition) => format!(
            "{}, {:.1} s behind, {} ends of tokens unpublished, {} resyncs, {} entries unreadable",
            if condition.away { "away" } else { "there" },
            condition.lag,
            condition.unpublished,
            condition.resyncs,
            condition.unreadable
        ),
    };
    let answered = match seen.pam_answered {
        None => "no answer yet".to_owned(),
        Some((time, status)) => format!("last answer {} with {status}", ago(time)),
    };
    let failed = match seen.pam_failed {
        None => "no failure since the start".to_owned(),
        Some((time, reason)) => format!("last failure {}: {reason}", ago(time)),
    };
    let config = match facts.config.rejected.len() {
        0 => "as it is on disk",
        _ => "the one on disk is refused",
    };
    let (live, capacity) = facts.revocations;
    let (with_pam, most_with_pam) = facts.upstream_in_flight;
    let (connections, most_connections) = facts.connections;
    let journal = match (facts.journal, facts.journal_failing) {
        (false, _) => "none is kept",
        (true, false) => "written",
        (true, true) => "cannot be written",
    };
    let stale = if facts.certificates_stale { "; files are of no use, those from before are in use" } else { "" };
    let expiry = |(name, days): &(&str, i64)| match days {
        ..0 => format!("{name} has expired"),
        days => format!("{name} expires in {days} d"),
    };
    let certificates: Vec<String> = facts.certificates.iter().map(expiry).collect();
    let certificates = if certificates.is_empty() { "none".to_owned() } else { certificates.join(", ") };
    vec![
        ("ready", if facts.ready { "yes" } else { "no" }.to_owned()),
        ("PAM", format!("{answered}; {failed}; {with_pam} of {most_with_pam} calls are with it")),
        ("store", store),
        ("journal", journal.to_owned()),
        ("tokens that ended", format!("{live} of {capacity}")),
        ("certificates", format!("{certificates}{stale}")),
        ("config", format!("generation {} since {}, {config}", facts.config.generation, facts.config.since)),
        ("connections", format!("{connections} of {most_connections}; {} calls in flight", facts.in_flight)),
        ("signed messages remembered", facts.replays.to_string()),
        ("locked out", format!("{} pairs of a claimed caller and an address", facts.locked_out)),
        ("log", format!("{} lines dropped", facts.log_dropped)),
    ]
}

fn secrets(html: &mut Html, facts: &Facts) {
    let keys = &facts.seen.keys;
    html.raw("<section><h2>Secrets</h2>\n");
    let row = |(caller, id, used): &(Box<str>, Box<str>, Option<Duration>)| {
        let used = used.map_or_else(|| "not since the start".to_owned(), ago);
        vec![short(caller), short(id), used]
    };
    // Those that were used last are what a rotation is about to end; those that never were, what it is about to begin.
    let mut rows: Vec<_> = keys.iter().rev().take(MOST).map(row).collect();
    if let Some(rest) = keys.len().checked_sub(MOST).and_then(|rest| keys.get(..rest)).filter(|rest| !rest.is_empty()) {
        let never = rest.iter().filter(|(_, _, used)| used.is_none()).count();
        let name = format!("({} more)", rest.len());
        rows.push(vec![name, String::new(), format!("{never} of them not since the start")]);
    }
    html.table(Table {
        caption: "Secrets that sign, and when each was last used",
        columns: &["caller", "id", "last used"],
        named: 3,
        rows,
        empty: "No secret that has an id.",
    });
    let callers = format!("Callers in the config: {}.", facts.callers);
    html.element("<p class=\"quiet\">", &callers, "</p></section>\n");
}

fn more(html: &mut Html, all: usize) {
    if all > MOST_SENTENCES {
        html.element("<li>and ", &(all - MOST_SENTENCES).to_string(), " more</li>\n");
    }
}

/// A name, cut where it is longer than names are: a page of them has a bound.
fn short(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        None => name.to_owned(),
        Some((end, _)) => [name.get(..end).unwrap_or_default(), "…"].concat(),
    }
}

/// Rows of a table; what is beyond them is summed.
const MOST: usize = 40;

/// Examples shown.
const MOST_EXAMPLES: usize = 20;

/// Sentences of a list; how many there are beyond them is said.
const MOST_SENTENCES: usize = 10;

/// Characters of a name.
const LONGEST_NAME: usize = 40;

const STYLE: &str = include_str!("page/style.css");

const FIELDS: [(&str, &str); 6] = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::facts::InUse;
    use super::*;
    use crate::sight::tally::{Example, Kind};

    /// Everything a config and callers can choose, at its worst.
    fn worst() -> Facts {
        let name = |at: usize| -> Box<str> { format!("{at:04}{}", "\"".repeat(5000)).into() };
        let many = Lately { minute: u64::MAX >> 12, hour: u64::MAX >> 12 };
        let became = BecameOf { admitted: many.hour, refused: many.hour, failed: many.hour };
        let kind = |at| Kind { caller: name(at), route: name(at), reason: "a_reason_that_is_rather_long" };
        let example = |at| Example {
            kind: kind(at),
            timestamp: "2026-01-01T00:00:00.000000Z".to_owned(),
            status: 500,
            correlation_id: "&".repeat(128),
        };
        let told = Told {
            reasons: vec![("a_reason_that_is_rather_long", many); 100],
            kinds: (0..512).map(|at| (kind(at), many)).collect(),
            unkept: u64::MAX,
            last: (0..50).map(example).collect(),
        };
        let outcomes = Outcomes { minute: became, hour: became };
        let named: Vec<_> = (0..1025).map(|at| (name(at), outcomes)).collect();
        let seen = Seen {
            all: outcomes,
            minutes: vec![became; 60],
            callers: named.clone(),
            routes: named,
            refused: told.clone(),
            failed: told.clone(),
            unenforced: told.clone(),
            turned_away: told,
            keys: (0..3000).map(|at| (name(at), name(at), None)).collect(),
            ..Seen::default()
        };
        let sentences = vec!["\"".repeat(5000); 1000];
        let config = InUse { rejected: sentences.clone(), ..InUse::default() };
        Facts { seen, unenforced: sentences, config, ..Facts::default() }
    }

    #[test]
    fn the_page_has_a_bound_whatever_it_shows() {
        let page = render(&worst(), false);
        assert!(page.len() <= 256 << 10, "{}", page.len());
        assert!(page.contains("(985 more)") && page.contains("and 990 more"));
        assert!(page.ends_with("</html>\n"));
    }

    #[test]
    fn what_is_beyond_the_rows_of_a_table_is_summed() {
        let mut facts = Facts::default();
        let one = BecameOf { admitted: 1, ..BecameOf::default() };
        facts.seen.callers = vec![("a".into(), Outcomes { minute: one, hour: one }); 1000];
        let page = render(&facts, true);
        let sum = "<th scope=\"row\">(960 more)</th><td class=\"n\">960</td><td class=\"n\">0</td>\
                   <td class=\"n\">0</td><td class=\"n\">960</td>";
        assert!(page.contains(sum), "{page}");
    }

    /// WCAG 2.2, success criterion 1.4.3, in both colour schemes.
    #[test]
    fn every_text_stands_out_from_what_is_behind_it() {
        let (light, dark) = STYLE.split_once("@media").unwrap();
        let dark = dark.split_once("} }").unwrap().0;
        for scheme in [light, dark] {
            let of = |name: &str| {
                let (_, value) = scheme.split_once(&format!("--{name}: #")).unwrap();
                luminance(&value[..6])
            };
            for ground in ["ground", "panel"] {
                for text in ["text", "quiet", "link", "good", "doubtful", "bad"] {
                    let (one, other) = (of(text), of(ground));
                    let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                    assert!(contrast >= 4.5, "{text} on {ground}: {contrast}");
                }
            }
        }
    }

    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let share = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if share <= 0.03928 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
    }
}
