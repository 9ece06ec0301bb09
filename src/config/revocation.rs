//! `[revocation]`: how tokens that ended are remembered, and how replicas share them.

use std::path::PathBuf;
use std::time::Duration;

use super::paper::{Complaints, Spanned, Table};
use super::redis;
use super::sources::Sources;
use super::{count, duration};
use crate::dialect::Dialect;
use crate::revocation::{Consistency, Rules, Sharing, WhenAway};

/// What the section is read with.
pub struct Reading<'a> {
    /// Must have what the section builds on, where there is one.
    pub dialect: Option<&'a Dialect>,
    /// Where files and variables are.
    pub sources: &'a Sources<'a>,
    /// Where complaints go.
    pub complaints: &'a mut Complaints,
}

impl Reading<'_> {
    /// Reads the section.
    pub fn revocation(&mut self, mut table: Table) -> Rules {
        let complaints = &mut *self.complaints;
        let keep = duration(&mut table, "keep", Duration::from_secs(24 * 3600), complaints);
        let capacity = count(&mut table, "capacity", 1_000_000, complaints);
        let journal = table.string("journal", complaints);
        if let Some(journal) = &journal
            && journal.value.is_empty()
        {
            complaints
                .push(&journal.place, "`revocation.journal` must be a folder, as in journal = \"/var/lib/portcullis\"");
        }
        table.usual("on_damage", "\"stop\"");
        let on_damage = table.choice("on_damage", &[("stop", false), ("salvage", true)], complaints);
        if let (Some(on_damage), None) = (&on_damage, &journal) {
            complaints.push(&on_damage.place, "`revocation.on_damage` is about the journal, and there is none");
        }
        let store = table.table("redis", complaints);
        let consistency = [("follow", Consistency::Follow), ("ask", Consistency::Ask)];
        table.usual("consistency", "\"follow\"");
        let consistency = table.choice("consistency", &consistency, complaints);
        let on_outage = table.table("on_outage", complaints);
        for (written, place) in [
            ("consistency", consistency.as_ref().map(|consistency| &consistency.place)),
            ("on_outage", on_outage.as_ref().map(Table::place)),
        ] {
            if let (Some(place), None) = (place, &store) {
                let message =
                    format!("`revocation.{written}` says how replicas share; without `revocation.redis` nothing is");
                complaints.push(place, message);
            }
        }
        let has_journal = journal.is_some();
        let (check, retire_to_journal) = on_outage.map_or((WhenAway::Local, has_journal), |mut table| {
            let check = [("local", WhenAway::Local), ("refuse", WhenAway::Refuse)];
            table.usual("check", "\"local\"");
            let check = table.choice("check", &check, complaints).map_or(WhenAway::Local, |word| word.value);
            let retire = table.choice("retire", &[("journal", true), ("refuse", false)], complaints);
            if let Some(Spanned { value: true, place }) = &retire
                && !has_journal
            {
                let message = "retire = \"journal\" needs one, as in [revocation] journal = \"/var/lib/portcullis\"";
                complaints.push(place, message);
            }
            table.finish(complaints);
            (check, retire.map_or(has_journal, |word| word.value))
        });
        let sharing = store.and_then(|table| {
            let (store, prefix, timeout) = redis::redis(table, self.sources, complaints)?;
            let consistency = consistency.map_or(Consistency::Follow, |word| word.value);
            Some(Sharing { store, prefix, timeout, consistency, check, retire_to_journal })
        });
        let learn = learn(&mut table, self.dialect, complaints);
        table.finish(complaints);
        let journal = journal.map(|journal| PathBuf::from(journal.value));
        let salvage = on_damage.is_some_and(|on_damage| on_damage.value);
        Rules { keep, capacity, journal, salvage, learn, sharing }
    }
}

/// `learn = "30s"`: only what a dialect describes can be learnt.
fn learn(table: &mut Table, dialect: Option<&Dialect>, complaints: &mut Complaints) -> Option<Duration> {
    let learn = table.duration("learn", complaints)?;
    if learn.value > LONGEST_PRESUMPTION {
        let message =
            "`revocation.learn` must be at most \"10m\": the PAM may think better of a token, and is not asked";
        complaints.push(&learn.place, message);
    }
    if let Some(dialect) = dialect
        && dialect.token.as_ref().is_none_or(|token| token.dead.is_empty())
    {
        let message = format!(
            "the dialect `{}` does not say which answers call a token expired or unknown; leave `revocation.learn` out, or \
             use a dialect file with dead = [ {{ status = 401, json = {{ \"/code\" = \"…\" }} }} ] in its [token]",
            dialect.name
        );
        complaints.push(&learn.place, message);
    }
    Some(learn.value)
}

/// A flood is over by then, and a token that was called dead by mistake is not missed for longer.
const LONGEST_PRESUMPTION: Duration = Duration::from_secs(600);
