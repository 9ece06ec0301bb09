//! The keys as a page for people, in Markdown.

use std::fmt::Write;

use super::Keys;
use super::prose::Paragraph;
use crate::config::shape::{Asked, Form, Shape};

/// The page of the config, `config/guide/config.md`.
pub fn config() -> String {
    let mut page = String::from(
        "# Every key of a config\n\n\
         Made from the code and from [`reference.toml`](../reference.toml), which is a config with all of them;\n\
         `UPDATE_REFERENCE=1 cargo test --quiet --test it -- reference` makes it again.\n\n\
         - An editor that knows JSON Schema for TOML completes and checks a config that has\n  \
           `#:schema PATH/config/schema/portcullis.json` ([`schema/`](../schema)) in its first line, and `portcullis check` checks it whole.\n\
         - A duration is `\"250ms\"`, `\"300s\"`, `\"5m\"`, `\"2h\"`, `\"7d\"` or a number of seconds; a size `\"10kB\"`, `\"64KiB\"`, `\"2MB\"`,\n  \
           `\"1MiB\"`, `\"1GB\"`, `\"1GiB\"` or a number of bytes.\n\
         - `--set KEY=VALUE` sets any of them on the command line: `--set limits.body=128KiB`.\n\
         - A change counts at once, by a file that changes or SIGHUP, unless a key says that it needs a restart.\n\n\
         ## At the top\n",
    );
    chapters(&mut page, &super::config());
    page
}

/// The page of dialect files, `config/guide/dialect-keys.md`.
pub fn dialect() -> String {
    let mut page = String::from(
        "# Everything a dialect file can say\n\n\
         Made from the code and from [`dialect.toml`](dialect.toml), which is a dialect with all of it;\n\
         `UPDATE_REFERENCE=1 cargo test --quiet --test it -- reference` makes it again. How to write one: [`dialect.md`](dialect.md).\n\n\
         An editor that knows JSON Schema for TOML completes and checks a dialect that has\n\
         `#:schema PATH/config/schema/dialect.json` ([`schema/`](../schema)) in its first line.\n\n\
         ## At the top\n",
    );
    chapters(&mut page, &super::dialect());
    page
}

fn chapters(page: &mut String, keys: &Keys) {
    for paragraph in &keys.prose.0 {
        chapter(page, keys, paragraph);
    }
}

// Writing to a string cannot fail.
fn chapter(page: &mut String, keys: &Keys, paragraph: &Paragraph) {
    let level = if paragraph.heads { "##" } else { "###" };
    let names: Vec<String> = paragraph.keys.iter().map(|key| format!("`{key}`")).collect();
    let _ = write!(page, "\n{level} {}\n\n", names.join(", "));
    let said = |key: &String| keys.asked().get(key).or_else(|| keys.asked().get(key.trim_end_matches("[]")));
    for key in &paragraph.keys {
        let Some(asked) = said(key) else { continue };
        let name = if paragraph.keys.len() > 1 { format!("- `{key}`: ") } else { String::new() };
        let _ = writeln!(page, "{name}{}", facts(keys, key, asked));
    }
    let text = paragraph.text.trim_end();
    if !text.is_empty() {
        let _ = write!(page, "\n{text}\n");
    }
    for key in &paragraph.keys {
        let within: Vec<String> = silent(keys, key).map(|name| format!("`{name}`")).collect();
        if !within.is_empty() {
            let _ = write!(page, "\nIn it: {}.\n", within.join(", "));
        }
    }
}

/// The keys right below one of which the reference has no words of their own, neither for them nor for what is in them.
fn silent<'k>(keys: &'k Keys, path: &'k str) -> impl Iterator<Item = &'k str> {
    let below = move |key: &'k String| key.strip_prefix(path)?.trim_start_matches("[]").strip_prefix('.');
    let within = |key: &str, other: &str| {
        other.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let told =
        move |key: &str| keys.prose.0.iter().any(|paragraph| paragraph.keys.iter().any(|other| within(key, other)));
    let names = keys.asked().keys().filter(move |key| !told(key)).filter_map(below);
    names.filter(|name| !name.contains('.') && *name != "*")
}

fn facts(keys: &Keys, key: &str, asked: &Asked) -> String {
    let mut facts = asked.shape.as_ref().map(words).unwrap_or_default();
    if let Some(first) = facts.get(..1) {
        facts = format!("{}{}", first.to_uppercase(), facts.get(1..).unwrap_or_default());
    }
    facts.push('.');
    // A table that may be left out needs its keys only where it is there.
    let above = key.rsplit_once('.').map(|(above, _)| above.trim_end_matches("[]"));
    match above.filter(|above| !keys.asked().get(*above).is_some_and(|above| above.needed)) {
        Some(above) if asked.needed => drop(write!(facts, " Must be there where `{above}` is.")),
        None if asked.needed => facts.push_str(" Must be there."),
        Some(_) | None => {}
    }
    if let Some(usual) = &asked.usual {
        let _ = write!(facts, " Default: `{usual}`.");
    }
    match key {
        "admin_token" => facts.push_str(" Whether there is one needs a restart."),
        _ if keys.is_fixed(key) => facts.push_str(" Needs a restart."),
        _ => {}
    }
    facts
}

fn words(shape: &Shape) -> String {
    match shape {
        Shape::Text => "a text".to_owned(),
        Shape::Form(form) => form.words().to_owned(),
        Shape::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            match words.split_last() {
                Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
                _ => words.concat(),
            }
        }
        Shape::Boolean => "`true` or `false`".to_owned(),
        Shape::Integer(range) if *range.start() == i64::MIN => "a whole number".to_owned(),
        Shape::Integer(range) => format!("a whole number from {} to {}", range.start(), range.end()),
        Shape::Duration { zero: false } => "a duration".to_owned(),
        Shape::Duration { zero: true } => "a duration, or 0".to_owned(),
        Shape::Bytes(range) if *range.end() == u64::MAX => "a size".to_owned(),
        Shape::Bytes(range) => format!("a size from {} to {} bytes", range.start(), range.end()),
        Shape::Percentage => "a share such as `\"10%\"` or `\"0.5%\"`".to_owned(),
        Shape::Pair(range) => {
            format!("two whole numbers from {} to {}, as in `[32, 40]`", range.start(), range.end())
        }
        Shape::Secret => "where a secret is, `{ env = \"NAME\" }` or `{ file = \"PATH\" }`".to_owned(),
        Shape::Table => "a table".to_owned(),
        Shape::Many(one) => format!("an array, each {}", words(one)),
        Shape::OneOrMany(one) => format!("{}; or a list of them", words(one)),
        Shape::Either(several) => several.iter().map(words).collect::<Vec<_>>().join(", or "),
    }
}

impl Form {
    fn words(self) -> &'static str {
        match self {
            Form::Address => "an address, `HOST:PORT`",
            Form::BasePath => "a path such as `/pam`",
            Form::PublicUrl => "a URL without a path, such as `https://pam.example`",
            Form::Store => "the address of a store, `redis://HOST:PORT` or `rediss://HOST:PORT`",
            Form::Place => "a place in a request: `header:NAME`, `query:NAME` or `json:/pointer`",
            Form::PlaceOrSignature => {
                "a place in a request, `header:NAME`, `query:NAME` or `json:/pointer`; or `signature`"
            }
            Form::Pointer => "a JSON pointer such as `/error/code`",
            Form::Route => "a method and a path, `POST /players/{playerId}/balance`",
        }
    }
}
