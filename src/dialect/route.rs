//! Routes: which method, path and action is which operation, and what that operation asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hashbrown::{Equivalent, HashMap};

use super::answer::Ending;
use super::condition::Conditions;
use crate::json::Found;
use crate::request::Method;

/// One operation of an API family.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its place among the routes of its dialect, which [`Routes::add`] knows.
    pub at: usize,
    /// Its name in logs and metrics.
    pub name: Box<str>,
    /// The method it is called with.
    pub method: Method,
    /// Its path; `{name}` stands for any one segment that is not empty.
    pub path: Box<str>,
    /// What the body must say for the request to be this route's.
    pub when: Conditions,
    /// Query parameters that must be there once and not be empty.
    pub query: Vec<Box<str>>,
    /// Query parameters that may be there; any other is refused where the body decides or is what was signed.
    pub optional_query: Vec<Box<str>>,
    /// It must be signed.
    pub signed: bool,
    /// It must carry a player token.
    pub token: bool,
    /// What the body must say for the request to settle what is owed, or to look up; no conditions: always. `None`: never.
    pub settles: Option<Conditions>,
    /// Whether it may do so with a token that has ended.
    pub settlement: Settlement,
    /// When an answer ends the request's token.
    pub retires: Option<Ending>,
    /// For how long a token that it ended still passes: families that refresh keep the old one for a moment.
    pub grace: Duration,
    /// Its body is read as JSON by some check.
    pub reads_json: bool,
    /// Its body is looked at by some check, and so must not be encoded.
    pub reads_body: bool,
}

/// Whether a request with a token that has ended may pass, because money that is owed hangs on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Settlement {
    /// Never.
    #[default]
    Strict,
    /// When it settles: a win passes, a bet does not.
    Admit,
}

/// All routes of a dialect, found by the segments of their paths.
#[derive(Clone, Default)]
pub struct Routes {
    routes: Vec<Route>,
    root: Node,
    /// Those without a template, by the whole of their paths. They go before all others.
    literal: HashMap<Spot, Vec<usize>>,
}

/// Where a route is found.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Spot {
    method: Method,
    path: Box<str>,
}

/// The rest follows from them.
impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.routes).finish()
    }
}

#[derive(Hash)]
struct SpotRef<'p> {
    method: Method,
    path: &'p str,
}

impl Equivalent<Spot> for SpotRef<'_> {
    fn equivalent(&self, spot: &Spot) -> bool {
        self.method == spot.method && *self.path == *spot.path
    }
}

/// The routes that share a method and a path. More than one only if bodies tell them apart.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    routes: &'a [Route],
    candidates: &'a [usize],
}

#[derive(Clone, Default)]
struct Node {
    literal: BTreeMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    here: Vec<(Method, Vec<usize>)>,
}

impl Routes {
    /// Adds a route; the error says with which one it collides.
    pub fn add(&mut self, route: Route) -> Result<(), String> {
        let mut node = &mut self.root;
        for segment in segments(&route.path) {
            node = if is_template(segment) {
                node.any.get_or_insert_default()
            } else {
                node.literal.entry(segment.into()).or_default()
            };
        }
        let index = self.routes.len();
        match node.here.iter_mut().find(|(method, _)| *method == route.method) {
            None => node.here.push((route.method, vec![index])),
            Some((_, candidates)) => {
                // The first candidate that fits is taken, so one that always fits must not stand beside another.
                let others = candidates.iter().filter_map(|&at| self.routes.get(at));
                if let Some(other) = others.into_iter().find(|other| other.when.is_empty() || route.when.is_empty()) {
                    return Err(format!("matches the same requests as `{}`; tell them apart by `when`", other.name));
                }
                candidates.push(index);
            }
        }
        if !segments(&route.path).any(is_template) {
            let spot = Spot { method: route.method, path: route.path.clone() };
            self.literal.entry(spot).or_default().push(index);
        }
        self.routes.push(Route { at: index, ..route });
        Ok(())
    }

    /// The routes for a method and a path. Literal segments go before templates.
    pub fn enter(&self, method: Method, path: &str) -> Option<Entry<'_>> {
        let literal = self.literal.get(&SpotRef { method, path }).map(Vec::as_slice);
        let candidates = literal.or_else(|| self.root.find(method, &mut segments(path)))?;
        Some(Entry { routes: &self.routes, candidates })
    }

    /// The route at a place that [`Routes::add`] gave.
    pub fn at(&self, place: usize) -> Option<&Route> {
        self.routes.get(place)
    }

    /// All routes, in the dialect's order.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }
}

impl<'a> Entry<'a> {
    /// True when the body decides which route it is.
    pub fn depends_on_body(&self) -> bool {
        self.all().any(|route| !route.when.is_empty())
    }

    /// The route, given what the body says.
    pub fn choose(&self, found: Option<&Found<'_>>) -> Option<&'a Route> {
        self.all().find(|route| route.when.hold(found))
    }

    /// The candidates.
    pub fn all(&self) -> impl Iterator<Item = &'a Route> {
        let routes = self.routes;
        self.candidates.iter().filter_map(move |&at| routes.get(at))
    }
}

impl Node {
    fn find<'p>(&self, method: Method, rest: &mut (impl Iterator<Item = &'p str> + Clone)) -> Option<&[usize]> {
        let Some(segment) = rest.next() else {
            return self.here.iter().find(|(one, _)| *one == method).map(|(_, candidates)| candidates.as_slice());
        };
        let literal = self.literal.get(segment).and_then(|node| node.find(method, &mut rest.clone()));
        literal.or_else(|| {
            let any = self.any.as_ref().filter(|_| !segment.is_empty())?;
            any.find(method, &mut rest.clone())
        })
    }
}

/// The segments behind the leading `/`.
fn segments(path: &str) -> impl Iterator<Item = &str> + Clone {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

fn is_template(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, method: Method, path: &str) -> Route {
        Route {
            at: 0,
            name: name.into(),
            method,
            path: path.into(),
            when: Conditions::default(),
            query: Vec::new(),
            optional_query: Vec::new(),
            signed: false,
            token: false,
            settles: None,
            settlement: Settlement::Strict,
            retires: None,
            grace: Duration::ZERO,
            reads_json: false,
            reads_body: false,
        }
    }

    fn name(routes: &Routes, method: Method, path: &str) -> Option<Box<str>> {
        Some(routes.enter(method, path)?.choose(None)?.name.clone())
    }

    #[test]
    fn a_path_finds_its_route_and_nothing_close_to_it() {
        let mut routes = Routes::default();
        routes.add(route("session", Method::Get, "/players/session")).unwrap();
        routes.add(route("player", Method::Get, "/players/{id}")).unwrap();
        routes.add(route("balance", Method::Get, "/players/{id}/balance")).unwrap();
        routes.add(route("refresh", Method::Put, "/players/session")).unwrap();
        let cases = [
            (Method::Get, "/players/session", Some("session")),
            (Method::Put, "/players/session", Some("refresh")),
            (Method::Get, "/players/17", Some("player")),
            (Method::Get, "/players/session/balance", Some("balance")),
            (Method::Post, "/players/session", None),
            (Method::Get, "/players/", None),
            (Method::Get, "/players", None),
            (Method::Get, "/players/session/", None),
            (Method::Get, "/Players/session", None),
            (Method::Get, "/players/17/balance/x", None),
            (Method::Get, "/", None),
        ];
        for (method, path, expected) in cases {
            assert_eq!(name(&routes, method, path).as_deref(), expected, "{method:?} {path}");
        }
    }

    #[test]
    fn routes_that_cannot_be_told_apart_collide() {
        let mut routes = Routes::default();
        routes.add(route("a", Method::Get, "/x/{id}")).unwrap();
        assert!(routes.add(route("b", Method::Get, "/x/{other}")).unwrap_err().contains("`a`"));
    }
}
