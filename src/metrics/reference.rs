//! The reference page, `config/metrics.md`, made from the [`catalogue`](super::catalogue).

use std::fmt::Write;

use super::catalogue::{ALL, Kind, Metric, Values};
use super::cells::BOUNDS;

/// The page, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Made from the code; `UPDATE_REFERENCE=1 cargo test --quiet reference` makes it again.\n\n\
         Labels have values from closed sets and from the config, never from a request: what callers send adds no series. Each\n\
         series is there from the start, at zero. Only where callers times routes are more than 5,000, requests are shown for the\n\
         pairs that were seen. Counters go on over a reload; a caller or route that is gone for two reloads is forgotten.\n\n",
    );
    // Writing to a string cannot fail.
    let buckets: Vec<String> = BOUNDS.iter().map(|bound| super::cells::seconds(*bound).to_string()).collect();
    let _ = writeln!(page, "Histograms count seconds, in buckets up to {}.", buckets.join(", "));
    ALL.iter().for_each(|metric| chapter(&mut page, metric));
    page
}

fn chapter(page: &mut String, metric: &Metric) {
    let kind = match metric.kind {
        Kind::Counter => "Counter",
        Kind::Gauge => "Gauge",
        Kind::Histogram => "Histogram",
    };
    let _ = write!(page, "\n## `{}`\n\n{kind}. {}\n", metric.name, metric.help);
    if !metric.labels.is_empty() {
        page.push('\n');
    }
    for label in metric.labels {
        let values = match &label.values {
            Values::Closed(words) => words().iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
            Values::Of(what) => (*what).to_owned(),
        };
        let _ = writeln!(page, "- `{}`: {values}", label.name);
    }
    if !metric.advice.is_empty() {
        let _ = write!(page, "\n*What to do:* {}\n", metric.advice);
    }
}
