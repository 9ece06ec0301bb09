//! Publishing: what is pending goes into the log in its order, and whether the store takes anything is known before an end
//! is at stake.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{Cmd, RedisResult, cmd, pipe};
use tokio::time::{sleep, timeout};

use super::{LONGEST_PAUSE, SHORTEST_PAUSE, Shared, Stop, TRIMMED_LATE, lock, millis};
use crate::revocation::news::{News, What};
use crate::revocation::store::{Connection, Fault, is_refusal};

impl Shared {
    /// Publishes what is pending, all of it anew: nobody knows what the store took over connections before this one.
    pub(super) async fn speak(&self, writing: &mut Connection, is_foreign: bool) -> Result<Infallible, Stop> {
        let mut next = 0;
        let mut pause = SHORTEST_PAUSE;
        let mut probed: Option<Instant> = None;
        let mut announced: Option<Instant> = None;
        loop {
            let mut ready = self.probe(writing, &mut probed).await?;
            if ready.is_ok() && is_foreign {
                // Before the first record under it, so that nobody meets a digest of a key unheard of.
                ready = self.announce(writing, &mut announced).await?;
            }
            if let Err(refusal) = ready {
                self.refuse(&refusal);
                pause = (pause * 2).min(LONGEST_PAUSE);
                sleep(pause).await;
                continue;
            }
            let batch = self.additions(next);
            if batch.is_empty() {
                self.refused.store(false, Ordering::Release);
                self.tell_back();
                // Also when nothing happens it must be known whether the store takes what it will be given.
                let _ = timeout(PROBED_EVERY, self.queued.notified()).await;
                continue;
            }
            let mut pipeline = pipe();
            pipeline.ignore_errors();
            for (_, addition) in &batch {
                pipeline.add_command(addition.clone());
            }
            // A cluster that is moving the log from one node to another takes entries only one by one.
            let at_once = self.at_once.swap(1, Ordering::Relaxed);
            let answers: Vec<RedisResult<String>> = pipeline.query_async(writing).await?;
            for ((number, _), answer) in batch.iter().zip(answers) {
                match answer {
                    Ok(_) => {
                        next = number + 1;
                        self.taken.store(next, Ordering::Release);
                        lock(&self.pending).taken(*number);
                    }
                    Err(fault) if is_refusal(&fault) => {
                        // Whatever comes after it waits for it: the order must stay.
                        self.refuse(&fault.into());
                        break;
                    }
                    Err(fault) => return Err(fault.into()),
                }
            }
            if batch.last().is_some_and(|(last, _)| next > *last) {
                self.at_once.store((at_once * 2).min(MOST_AT_ONCE), Ordering::Relaxed);
                self.refused.store(false, Ordering::Release);
                self.tell_back();
                pause = SHORTEST_PAUSE;
            } else {
                // Asked at once whether it takes anything, and then again.
                probed = None;
                sleep(pause).await;
            }
        }
    }

    /// Asks from time to time what the store's clock shows, and whether it takes anything: before an end is at stake.
    async fn probe(&self, writing: &mut Connection, probed: &mut Option<Instant>) -> Result<Result<(), Fault>, Stop> {
        if probed.is_some_and(|probed| probed.elapsed() < PROBED_EVERY) {
            return Ok(Ok(()));
        }
        self.tell_time(writing).await?;
        let offered = self.rules.offer(writing, self.keys.own()).await?;
        *probed = offered.is_ok().then(Instant::now);
        Ok(offered)
    }

    /// Tells the others under which key digests are made here, again before anyone could forget it.
    async fn announce(
        &self,
        writing: &mut Connection,
        announced: &mut Option<Instant>,
    ) -> Result<Result<(), Fault>, Stop> {
        if announced.is_some_and(|announced| announced.elapsed() < TRIMMED_LATE / 2) {
            return Ok(Ok(()));
        }
        let what = What::Key(self.keys.own().clone(), self.rules.keep + TRIMMED_LATE);
        let addition = self.addition(&News { id: rand::random(), made_ms: self.now_ms(), what });
        match addition.query_async::<String>(writing).await {
            Ok(_) => {
                *announced = Some(Instant::now());
                Ok(Ok(()))
            }
            Err(fault) if is_refusal(&fault) => Ok(Err(fault.into())),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The next entries to publish, with their numbers.
    fn additions(&self, from: u64) -> Vec<(u64, Cmd)> {
        let now = self.now_ms();
        let mut pending = lock(&self.pending);
        let most = self.at_once.load(Ordering::Relaxed);
        let news: Vec<(u64, Duration, What)> = pending
            .from(from, most)
            .into_iter()
            .map(|(number, waiting)| (number, waiting.made.elapsed(), waiting.what.clone()))
            .collect();
        let additions = news.into_iter().map(|(number, age, what)| {
            let made_ms = now.saturating_sub(millis(age));
            (number, self.addition(&News { id: pending.id(number), made_ms, what }))
        });
        additions.collect()
    }

    fn addition(&self, news: &News) -> Cmd {
        let mut add = cmd("XADD");
        add.arg(self.rules.log()).arg("MINID").arg("~").arg(self.oldest_ms()).arg("*");
        for (name, value) in news.fields() {
            add.arg(name).arg(value);
        }
        add
    }

    /// Entries before this are over, also for a replica whose clock is not ours. By the slower one of two clocks: one
    /// that jumps ahead must not have the log trimmed.
    fn oldest_ms(&self) -> u64 {
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        self.now_ms().min(ours).saturating_sub(millis(self.rules.keep + TRIMMED_LATE))
    }

    /// The store answers and takes nothing: it is full, has too few replicas, or the ACL user may not write.
    fn refuse(&self, why: &Fault) {
        self.refused.store(true, Ordering::Release);
        lock(&self.pending).refused(why);
        self.tell_away(why);
    }
}

/// How often the store is asked whether it takes anything.
const PROBED_EVERY: Duration = Duration::from_secs(1);

/// Entries published at once.
pub const MOST_AT_ONCE: usize = 512;
