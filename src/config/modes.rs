//! `mode` and `[modes]`: which checks refuse, and which only watch.

use std::collections::BTreeMap;

use super::paper::{Complaints, Spanned, Table};
use super::shape::Shape;
use crate::denial::Check;
use crate::dialect::Dialect;
use crate::mode::{Mode, Modes};

/// Reads both, with what each caller says of itself, in their order.
pub fn modes(
    table: &mut Table,
    dialect: Option<&Dialect>,
    callers: impl Iterator<Item = Option<Mode>>,
    complaints: &mut Complaints,
) -> Modes {
    table.usual("mode", "\"enforce\"");
    let all = table.choice("mode", &Mode::WORDS, complaints).map_or(Mode::Enforce, |mode| mode.value);
    let mut reading = Reading { dialect, complaints, checks: BTreeMap::new(), routes: BTreeMap::new() };
    let mut sections = table.section("modes", reading.complaints);
    for (word, mode) in Mode::WORDS {
        let mut section = sections.section(word, reading.complaints);
        let checks = Check::WEIGHED.iter().map(|check| check.as_str().to_owned()).collect();
        section.declare("checks", Shape::Word(checks).or_many());
        for name in section.strings("checks", reading.complaints).unwrap_or_default() {
            reading.check(name, mode);
        }
        for name in section.strings("routes", reading.complaints).unwrap_or_default() {
            reading.route(name, mode);
        }
        section.finish(reading.complaints);
    }
    sections.finish(reading.complaints);
    let callers = callers.enumerate().filter_map(|(caller, mode)| Some((caller, mode?))).collect();
    Modes { all, checks: reading.checks, routes: reading.routes, callers }
}

struct Reading<'a> {
    dialect: Option<&'a Dialect>,
    complaints: &'a mut Complaints,
    checks: BTreeMap<Check, Mode>,
    routes: BTreeMap<Box<str>, Mode>,
}

impl Reading<'_> {
    fn check(&mut self, name: Spanned<String>, mode: Mode) {
        let known = Check::WEIGHED.into_iter().find(|check| check.as_str() == name.value);
        match known.map(|check| self.checks.insert(check, mode)) {
            Some(None) => {}
            Some(Some(_)) => self.twice(&name),
            None => {
                let known: Vec<&str> = Check::WEIGHED.iter().map(|check| check.as_str()).collect();
                let message = format!("`{}` is no check that has a mode; there are {}", name.value, known.join(", "));
                self.complaints.push(&name.place, message);
            }
        }
    }

    fn route(&mut self, name: Spanned<String>, mode: Mode) {
        let known = |dialect: &Dialect| dialect.routes.iter().any(|route| *route.name == *name.value);
        if !self.dialect.is_none_or(known) {
            self.complaints.push(&name.place, format!("the dialect has no route `{}`", name.value));
        }
        if self.routes.insert(name.value.as_str().into(), mode).is_some() {
            self.twice(&name);
        }
    }

    fn twice(&mut self, name: &Spanned<String>) {
        self.complaints.push(&name.place, format!("`{}` has a mode already", name.value));
    }
}
