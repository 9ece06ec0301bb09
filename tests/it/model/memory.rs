//! What is remembered of tokens, in this process and on disk: records in any order, held against a model in plain maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, SystemTime};

use portcullis::ledger::{Ledger, Place};
use portcullis::revocation::index::Index;
use portcullis::revocation::journal::Journal;
use portcullis::revocation::record::{Fate, Record};
use portcullis::secret::DigestKey;
use portcullis::token::TokenDigest;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq, prop_oneof};
use tokio::task::JoinSet;

use super::holds;
use crate::world::Folder;

/// A token's fate, with times in hours. Tests take seconds, so that no time is over by itself.
#[derive(Clone, Copy, Debug)]
struct News {
    token: u8,
    /// The grace of an end; `None` for a pardon.
    ended: Option<u32>,
    left: u32,
}

fn news(tokens: u8) -> impl Strategy<Value = News> {
    let ended = prop_oneof![1 => Just(None), 4 => (0..4u32).prop_map(Some)];
    (0..tokens, ended, 1..30u32).prop_map(|(token, ended, left)| News { token, ended, left })
}

/// What is to be known of one token, with moments in hours from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// From when it is refused; `None` when it was pardoned.
    from: Option<u32>,
    until: u32,
}

/// All of them.
type Model = BTreeMap<u8, Known>;

/// What is known after some news, which came when it was `now`.
fn unite(model: &mut Model, news: News, now: u32) {
    let known = model.get(&news.token).copied().filter(|known| known.until > now);
    let from = match (known.and_then(|known| known.from), news.ended) {
        (Some(from), Some(grace)) => Some(from.min(now + grace)),
        (None, Some(grace)) => Some(now + grace),
        (_, None) => None,
    };
    let until = (now + news.left).max(known.map_or(0, |known| known.until));
    model.insert(news.token, Known { from, until });
}

#[test]
fn the_index_knows_what_its_records_say_and_never_for_a_shorter_time() {
    holds(200, &vec(news(5), 1..40), |all| {
        let (index, mut model) = (Index::new(5), Model::new());
        for (number, news) in all.iter().enumerate() {
            let before = in_hours(index.records(), 0);
            match index.reserve() {
                Ok(place) if number % 2 == 0 => index.put(place, record(*news)),
                Ok(_) | Err(_) => index.put_anyway(record(*news)),
            }
            unite(&mut model, *news, 0);
            let after = in_hours(index.records(), 0);
            prop_assert_eq!(&after, &model);
            prop_assert!(before.iter().all(|(token, known)| after[token].until >= known.until));
            for token in 0..5 {
                let known = model.get(&token);
                prop_assert_eq!(index.refuses(&digest(token)), known.is_some_and(|known| known.from == Some(0)));
                prop_assert_eq!(index.find(&digest(token)).is_some(), known.is_some());
            }
        }
        prop_assert_eq!(index.count().0, u64::try_from(model.len()).unwrap());
        Ok(())
    });
}

#[test]
fn ends_of_a_token_unite_to_the_same_in_any_order() {
    let ends = vec((0..4u32, 1..30u32), 1..8).prop_map(|ends| {
        ends.into_iter().map(|(grace, left)| News { token: 0, ended: Some(grace), left }).collect::<Vec<_>>()
    });
    let orders = ends.prop_flat_map(|ends| (Just(ends.clone()), Just(ends).prop_shuffle()));
    holds(200, &orders, |(one, other)| {
        let united = |all: &[News]| {
            let index = Index::new(1);
            all.iter().for_each(|news| index.put_anyway(record(*news)));
            in_hours(index.records(), 0)
        };
        prop_assert_eq!(united(&one), united(&other));
        Ok(())
    });
}

/// Sessions of a journal, each with the news that came in it and how many hours passed before them.
#[test]
fn a_journal_gives_back_what_is_known_and_not_over() {
    let sessions = vec(vec((prop_oneof![3 => Just(0), 1 => 0..12u32], news(5)), 0..12), 1..4);
    holds(40, &sessions, |sessions| {
        let folder = Folder::new(&unique("model-journal"));
        let key = DigestKey::new([3; 32]);
        let began = SystemTime::now();
        let at = |hour: u32| began + HOUR * hour;
        let (mut model, mut now) = (Model::new(), 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for session in sessions {
            let opened = Journal::open(folder.path(), &key, at(now)).map_err(TestCaseError::fail)?;
            let known: Model = model.clone().into_iter().filter(|(_, known)| known.until > now).collect();
            prop_assert_eq!(in_hours(opened.records.iter().copied(), now), at_earliest(&known, now));
            let journal = Arc::new(opened.journal);
            let mut appends = JoinSet::new();
            // Queued in this order, and written together.
            for (hours, news) in session {
                now += hours;
                unite(&mut model, news, now);
                let (journal, record, when) = (Arc::clone(&journal), record(news), at(now));
                appends.spawn_on(async move { journal.append(record, when).await }, runtime.handle());
            }
            let appended = runtime.block_on(appends.join_all());
            prop_assert!(appended.iter().all(Result::is_ok));
        }
        let last = Journal::open(folder.path(), &key, at(now)).map_err(TestCaseError::fail)?;
        let known: Model = model.into_iter().filter(|(_, known)| known.until > now).collect();
        prop_assert_eq!(in_hours(last.records.iter().copied(), now), at_earliest(&known, now));
        Ok(())
    });
}

/// Something done to a ledger.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Keeps a key, for an hour or for no time.
    Put(u8, bool),
    KeepFirst(u8, bool),
    Drop(u8),
    /// Takes a place and keeps it for later.
    Reserve,
    /// Gives the oldest one back.
    Return,
    /// Uses the oldest one.
    Use(u8),
    PutAnyway(u8),
}

fn deed() -> impl Strategy<Value = Deed> {
    let key = 0..8u8;
    prop_oneof![
        4 => (key.clone(), proptest::bool::weighted(0.7)).prop_map(|(key, stays)| Deed::Put(key, stays)),
        2 => (key.clone(), proptest::bool::weighted(0.7)).prop_map(|(key, stays)| Deed::KeepFirst(key, stays)),
        2 => key.clone().prop_map(Deed::Drop),
        2 => Just(Deed::Reserve),
        1 => Just(Deed::Return),
        1 => key.clone().prop_map(Deed::Use),
        1 => key.prop_map(Deed::PutAnyway),
    ]
}

// threat: F2
#[test]
fn a_ledger_counts_exactly_what_it_keeps_and_what_is_reserved() {
    holds(100, &vec(deed(), 1..60), |deeds| {
        let ledger = Ledger::<u8, ()>::new(6);
        let (mut kept, mut places) = (BTreeSet::new(), Vec::<Place>::new());
        for deed in deeds {
            let reserved = match deed {
                Deed::Drop(_) | Deed::Return | Deed::Use(_) => None,
                Deed::PutAnyway(_) => Some(ledger.reserve_anyway()),
                Deed::Put(..) | Deed::KeepFirst(..) | Deed::Reserve => {
                    let full = kept.len() + places.len() >= 6;
                    // What was kept for no time may lie about for a moment, and is counted when a place is wanted.
                    ledger.count();
                    let place = ledger.reserve().ok();
                    prop_assert_eq!(place.is_none(), full);
                    place
                }
            };
            match (deed, reserved) {
                (Deed::Put(key, stays), Some(place)) => {
                    ledger.put(place, key, time(stays), |_| ());
                    if stays {
                        kept.insert(key);
                    }
                }
                (Deed::KeepFirst(key, stays), Some(place)) => {
                    let first = ledger.keep_first(place, key, (), time(stays)).is_ok();
                    prop_assert_eq!(first, !kept.contains(&key));
                    if stays {
                        kept.insert(key);
                    }
                }
                (Deed::PutAnyway(key), Some(place)) => {
                    ledger.put(place, key, HOUR, |_| ());
                    kept.insert(key);
                }
                (Deed::Reserve, Some(place)) => places.push(place),
                (Deed::Return, _) => drop((!places.is_empty()).then(|| places.remove(0))),
                (Deed::Use(key), _) if !places.is_empty() => {
                    ledger.put(places.remove(0), key, HOUR, |_| ());
                    kept.insert(key);
                }
                (Deed::Drop(key), _) => {
                    ledger.drop_key(&key);
                    kept.remove(&key);
                }
                // There was no place.
                (Deed::Put(..) | Deed::KeepFirst(..) | Deed::PutAnyway(_) | Deed::Reserve | Deed::Use(_), _) => {}
            }
            prop_assert_eq!(ledger.count(), u64::try_from(kept.len() + places.len()).unwrap());
            prop_assert_eq!(ledger.iter().map(|(key, ..)| key).collect::<BTreeSet<_>>(), kept.clone());
        }
        Ok(())
    });
}

/// Many at once, on entries whose time runs out meanwhile.
// threat: F2
#[test]
fn a_ledgers_count_does_not_drift_whoever_does_what_at_once() {
    let threads = vec(vec((deed(), 0..300u64), 50..200), 4);
    holds(20, &threads, |threads| {
        let ledger = Arc::new(Ledger::<u8, ()>::new(6));
        let together = Arc::new(Barrier::new(threads.len()));
        let threads: Vec<_> = threads
            .into_iter()
            .map(|deeds| {
                let (ledger, together) = (Arc::clone(&ledger), Arc::clone(&together));
                std::thread::spawn(move || {
                    together.wait();
                    for (deed, micros) in deeds {
                        let time = Duration::from_micros(micros);
                        match deed {
                            Deed::Put(key, _) | Deed::Use(key) | Deed::PutAnyway(key) => {
                                let Ok(place) = ledger.reserve() else { continue };
                                ledger.put(place, key, time, |_| ());
                            }
                            Deed::KeepFirst(key, _) => {
                                let Ok(place) = ledger.reserve() else { continue };
                                let _ = ledger.keep_first(place, key, (), time);
                            }
                            Deed::Drop(key) => ledger.drop_key(&key),
                            Deed::Reserve | Deed::Return => drop(ledger.reserve()),
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        std::thread::sleep(Duration::from_millis(1));
        prop_assert_eq!(ledger.iter().count(), 0);
        prop_assert_eq!(ledger.count(), 0);
        Ok(())
    });
}

fn digest(token: u8) -> TokenDigest {
    TokenDigest::from_bytes([token; 16])
}

fn record(news: News) -> Record {
    let fate = match news.ended {
        Some(grace) => Fate::Ended { grace: HOUR * grace },
        None => Fate::Pardoned,
    };
    // A little less, since some are kept for a second more than they must.
    Record { token: digest(news.token), fate, left: HOUR * news.left - Duration::from_secs(60) }
}

/// Records of `now`, in the model's words.
fn in_hours(records: impl Iterator<Item = Record>, now: u32) -> Model {
    let hours = |time: Duration| u32::try_from((time + HOUR / 2).as_secs() / HOUR.as_secs()).unwrap();
    let known = records.map(|record| {
        let from = match record.fate {
            Fate::Ended { grace } => Some(now + hours(grace)),
            Fate::Pardoned => None,
        };
        (record.token.as_bytes()[0], Known { from, until: now + hours(record.left) })
    });
    known.collect()
}

/// A grace that is over is no different from none.
fn at_earliest(model: &Model, now: u32) -> Model {
    let known = model.iter().map(|(token, known)| {
        let from = known.from.map(|from| from.max(now));
        (*token, Known { from, ..*known })
    });
    known.collect()
}

fn time(stays: bool) -> Duration {
    if stays { HOUR } else { Duration::ZERO }
}

fn unique(name: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

const HOUR: Duration = Duration::from_secs(3600);
