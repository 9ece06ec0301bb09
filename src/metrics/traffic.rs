//! Counts by the names of a config: requests by route and caller, durations by route, uses of secrets.
//!
//! A generation of the config has a table of its own, in which a request counts by two indices. What the tables have is
//! added up by name when somebody looks, so that a reload takes nothing back; a name that two configs in a row do not have
//! is forgotten, so that reloads cannot add up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::UNIX_EPOCH;

use super::cells::{Counter, Distribution, Histogram};
use super::secrets::Secrets;
use crate::credential::Callers;
use crate::dialect::Dialect;
use crate::event::Event;
use crate::threads::Each;

/// The counts of one generation.
pub struct Traffic {
    /// By index, and behind all of them the one that is none.
    routes: Vec<Box<str>>,
    callers: Vec<Box<str>>,
    tables: Each<Table>,
    /// There would be too many zeros.
    sparse: bool,
    secrets: Vec<Secrets>,
}

/// What is counted by threads.
struct Table {
    /// By caller; made when the caller is first seen where there would be too many zeros.
    rows: Vec<OnceLock<Row>>,
    durations: Vec<Histogram>,
}

/// By route and class of status.
type Row = Box<[[Counter; STATUSES.len()]]>;

/// All generations.
#[derive(Default)]
pub struct Generations(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    past: Totals,
    living: Vec<Arc<Traffic>>,
}

/// What several generations have counted.
#[derive(Clone, Default)]
pub struct Totals {
    /// By caller and route.
    pub requests: BTreeMap<(Box<str>, Box<str>), [u64; STATUSES.len()]>,
    /// By route.
    pub durations: BTreeMap<Box<str>, Distribution>,
}

/// Classes of statuses that replies have.
pub const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

impl Traffic {
    fn new(dialect: &Dialect, callers: &Callers, before: Option<&Traffic>) -> Traffic {
        let named = |names: &mut dyn Iterator<Item = &Box<str>>| -> Vec<Box<str>> {
            names.cloned().chain(["none".into()]).collect()
        };
        let routes = named(&mut dialect.routes.iter().map(|route| &route.name));
        let names = named(&mut callers.iter().map(|caller| &caller.name));
        let sparse = routes.len() * names.len() > MOST_PAIRS_AT_ZERO;
        let known = |name: &str| {
            let before = before?;
            before.secrets.get(before.callers.iter().position(|other| **other == *name)?)
        };
        let table = || Table {
            rows: names.iter().map(|_| if sparse { OnceLock::new() } else { row(routes.len()).into() }).collect(),
            durations: routes.iter().map(|_| Histogram::default()).collect(),
        };
        // Of a large one there is one for all threads: they hardly ever meet in it.
        let tables = if sparse { Each::new(1, table) } else { Each::with(table) };
        Traffic {
            tables,
            sparse,
            secrets: callers.iter().map(|caller| Secrets::of(caller, callers, known(&caller.name))).collect(),
            routes,
            callers: names,
        }
    }

    /// Counts a request that is done.
    pub fn count(&self, event: &Event<'_>) {
        let (none_of_routes, none_of_callers) = (self.routes.len() - 1, self.callers.len() - 1);
        let route = event.indices.route.unwrap_or(none_of_routes);
        let caller = event.indices.caller.unwrap_or(none_of_callers);
        let class = usize::from(event.status / 100).saturating_sub(2);
        let Table { rows, durations } = self.tables.own();
        let row = rows.get(caller).map(|one| one.get_or_init(|| row(self.routes.len())));
        if let Some(count) = row.and_then(|row| row.get(route)).and_then(|classes| classes.get(class)) {
            count.inc();
        }
        if let Some(duration) = durations.get(route) {
            duration.observe(event.total);
        }
        if let Some(secrets) = event.indices.caller.and_then(|caller| self.secrets.get(caller)) {
            let now = event.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            secrets.used(event.indices.secret, event.indices.key, now);
        }
    }

    /// The callers, with their secrets.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &Secrets)> {
        self.callers.iter().map(|name| &**name).zip(&self.secrets)
    }
}

fn row(routes: usize) -> Row {
    (0..routes).map(|_| Default::default()).collect()
}

impl Generations {
    /// Begins another one.
    pub fn begin(&self, dialect: &Dialect, callers: &Callers) -> Arc<Traffic> {
        let mut tables = self.tables();
        let next = Arc::new(Traffic::new(dialect, callers, tables.living.last().map(|last| &**last)));
        let Tables { past, living } = &mut *tables;
        living.retain_mut(|one| {
            // Nobody else holds it, so nobody counts in it any more.
            let over = Arc::get_mut(one).is_some();
            if over {
                past.add(one);
            }
            !over
        });
        living.push(Arc::clone(&next));
        past.keep_only(living);
        next
    }

    /// What all of them have counted, and the newest one.
    pub fn totals(&self) -> (Totals, Option<Arc<Traffic>>) {
        let tables = self.tables();
        let mut totals = tables.past.clone();
        tables.living.iter().for_each(|one| totals.add(one));
        (totals, tables.living.last().cloned())
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // What a panic could leave half done here is a sum that is shown once.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    fn add(&mut self, traffic: &Traffic) {
        for Table { rows, durations } in traffic.tables.iter() {
            for (caller, row) in traffic.callers.iter().zip(rows) {
                let Some(row) = row.get() else { continue };
                for (route, classes) in traffic.routes.iter().zip(row) {
                    let now: [u64; STATUSES.len()] =
                        std::array::from_fn(|at| classes.get(at).map_or(0, Counter::value));
                    if traffic.sparse && now.iter().all(|count| *count == 0) {
                        continue;
                    }
                    let sum = self.requests.entry((caller.clone(), route.clone())).or_default();
                    sum.iter_mut().zip(now).for_each(|(sum, more)| *sum += more);
                }
            }
            for (route, duration) in traffic.routes.iter().zip(durations) {
                self.durations.entry(route.clone()).or_default().add(&duration.now());
            }
        }
    }

    fn keep_only(&mut self, living: &[Arc<Traffic>]) {
        let callers: BTreeSet<&str> = living.iter().flat_map(|one| one.callers.iter().map(|name| &**name)).collect();
        let routes: BTreeSet<&str> = living.iter().flat_map(|one| one.routes.iter().map(|name| &**name)).collect();
        self.requests.retain(|(caller, route), _| callers.contains(&**caller) && routes.contains(&**route));
        self.durations.retain(|route, _| routes.contains(&**route));
    }
}

/// Pairs of a caller and a route that are shown from the start. With more of them, a page of zeros would be megabytes, and
/// only those that were seen are shown: still as many as the config has, at most.
const MOST_PAIRS_AT_ZERO: usize = 5_000;
