//! `[revocation]`: how tokens that ended are remembered.

use std::path::PathBuf;
use std::time::Duration;

use super::paper::{Complaints, Table};
use super::{count, duration};
use crate::revocation::Rules;

/// Reads the section.
pub fn revocation(mut table: Table, complaints: &mut Complaints) -> Rules {
    let keep = duration(&mut table, "keep", Duration::from_secs(24 * 3600), complaints);
    let capacity = count(&mut table, "capacity", 1_000_000, complaints);
    let journal = table.string("journal", complaints);
    if let Some(journal) = &journal
        && journal.value.is_empty()
    {
        complaints
            .push(&journal.place, "`revocation.journal` must be a folder, as in journal = \"/var/lib/portcullis\"");
    }
    let journal = journal.map(|journal| PathBuf::from(journal.value));
    table.finish(complaints);
    Rules { keep, capacity, journal }
}
