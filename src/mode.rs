//! Which checks are enforced, for whom and where: what an operator turns on step by step.
//!
//! Four places can say it: a check, a route, a caller, and the config as a whole. Where none of the first three says
//! anything, the last counts; of those that do, the mildest. So `mode = "shadow"` with one caller at `"enforce"` enforces
//! everything for that caller alone, and a check in shadow is in shadow for everybody.

use std::collections::BTreeMap;

use crate::denial::Check;

/// What a check does with a request that fails it. Ordered from the strictest to the mildest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It goes on as it came, and what it would have been refused for is told.
    Shadow,
    /// It goes on; the check is not made.
    Off,
}

/// Who said which mode.
#[derive(Clone, Debug, Default)]
pub struct Modes {
    /// Where nothing else does.
    pub all: Mode,
    /// By check.
    pub checks: BTreeMap<Check, Mode>,
    /// By the name of the route.
    pub routes: BTreeMap<Box<str>, Mode>,
    /// By the index of the caller.
    pub callers: BTreeMap<usize, Mode>,
}

impl Modes {
    /// The mode of a check for a request, as far as is known where it goes and from whom it comes.
    pub fn of(&self, check: Check, route: Option<&str>, caller: Option<usize>) -> Mode {
        let said = [
            self.checks.get(&check),
            route.and_then(|route| self.routes.get(route)),
            caller.and_then(|caller| self.callers.get(&caller)),
        ];
        said.into_iter().flatten().copied().max().unwrap_or(self.all)
    }

    /// Whether everything is enforced for everybody.
    pub fn are_strict(&self) -> bool {
        let mut said = self.checks.values().chain(self.routes.values()).chain(self.callers.values());
        self.all == Mode::Enforce && said.all(|mode| *mode == Mode::Enforce)
    }

    /// The checks that are not enforced for some request: of a caller or route that says so, or of any other.
    pub fn unenforced(&self) -> Vec<Check> {
        let callers = || self.callers.keys().copied().map(Some).chain([None]);
        let routes = || self.routes.keys().map(|route| Some(&**route)).chain([None]);
        let mild = |check: &Check| {
            callers().any(|caller| routes().any(|route| self.of(*check, route, caller) != Mode::Enforce))
        };
        Check::WEIGHED.into_iter().filter(mild).collect()
    }

    /// Whether nothing at all is enforced for a request: then it is not touched.
    pub fn only_watch(&self, route: Option<&str>, caller: Option<usize>) -> bool {
        Check::WEIGHED.iter().all(|check| self.of(*check, route, caller) != Mode::Enforce)
    }
}

impl Mode {
    /// Every mode, as configs write them.
    pub const WORDS: [(&str, Mode); 3] = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow), ("off", Mode::Off)];

    /// One word for configs, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Shadow => "shadow",
            Mode::Off => "off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_request_counts_before_what_is_said_of_all_and_the_mildest_of_it() {
        let modes = |all| Modes {
            all,
            checks: [(Check::Freshness, Mode::Off), (Check::Token, Mode::Enforce)].into(),
            routes: [("bet".into(), Mode::Shadow)].into(),
            callers: [(0, Mode::Enforce), (1, Mode::Shadow)].into(),
        };
        for (all, check, route, caller, expected) in [
            (Mode::Enforce, Check::Signature, None, None, Mode::Enforce),
            (Mode::Shadow, Check::Signature, None, None, Mode::Shadow),
            (Mode::Shadow, Check::Signature, Some("win"), Some(0), Mode::Enforce),
            (Mode::Shadow, Check::Signature, Some("bet"), Some(0), Mode::Shadow),
            (Mode::Enforce, Check::Signature, Some("win"), Some(1), Mode::Shadow),
            (Mode::Enforce, Check::Freshness, Some("bet"), Some(0), Mode::Off),
            (Mode::Off, Check::Token, Some("win"), Some(2), Mode::Enforce),
            (Mode::Off, Check::Token, Some("win"), Some(1), Mode::Shadow),
        ] {
            assert_eq!(modes(all).of(check, route, caller), expected, "{all:?} {check:?} {route:?} {caller:?}");
        }
    }

    #[test]
    fn strict_is_what_relaxes_nothing_and_watching_what_enforces_nothing() {
        assert!(Modes::default().are_strict());
        let one = Modes { routes: [("bet".into(), Mode::Off)].into(), ..Modes::default() };
        assert!(!one.are_strict());
        assert!(one.only_watch(Some("bet"), None) && !one.only_watch(Some("win"), None));
        let shadow = Modes { all: Mode::Shadow, checks: [(Check::Token, Mode::Enforce)].into(), ..Modes::default() };
        assert!(!shadow.only_watch(None, None));
        assert_eq!(shadow.unenforced().len(), Check::WEIGHED.len() - 1);
        assert!(Modes::default().unenforced().is_empty());
    }
}
