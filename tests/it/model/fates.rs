//! Ends and pardons of the same tokens by two replicas, with restarts, outages and a log that loses what it had: in the end
//! both say the same, and what ended last is dead.
//!
//! Left out: pardons that come into the log late, because the store was away or the replica had just started. Between such
//! a one and an end by another replica, clocks decide.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis::log::Log;
use portcullis::revocation::Revocations;
use portcullis::secret::DigestKey;
use portcullis::token::{Standing, TokenDigest};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::prop_oneof;
use proptest::test_runner::{TestCaseError, TestCaseResult};
use tokio::time::{Instant, sleep};

use super::holds_slowly;
use crate::redis_server::RedisServer;
use crate::world::{Folder, PATIENCE, load};

// threat: F1
#[test]
fn replicas_agree_about_ends_and_pardons_and_the_last_end_counts() {
    holds_slowly(8, &vec(step(), 8..25), |steps| run(&steps));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A token ends at a replica.
    End(usize, usize),
    /// A replica takes it back.
    Pardon(usize, usize),
    /// A replica stops, with what it had still to say unsaid, and starts again.
    Restart(usize),
    StoreKilled,
    /// The log and the key are gone, while the replicas go on.
    StoreEmptied,
    StoreBack,
    /// Everything is said, and both have heard it.
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2usize, 0..TOKENS).prop_map(|(replica, token)| Step::End(replica, token)),
        6 => (0..2usize, 0..TOKENS).prop_map(|(replica, token)| Step::Pardon(replica, token)),
        2 => (0..2usize).prop_map(Step::Restart),
        1 => Just(Step::StoreKilled),
        1 => Just(Step::StoreEmptied),
        2 => Just(Step::StoreBack),
        2 => Just(Step::Settle),
    ]
}

fn run(steps: &[Step]) -> TestCaseResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ran = runtime.block_on(async {
        let mut stage = Stage::new().await;
        for (number, step) in steps.iter().enumerate() {
            let taken = async { stage.take(*step).await.and(stage.look().await) };
            taken.await.map_err(|fault| format!("in step {number}, {step:?}: {fault}"))?;
        }
        stage.settle().await.map_err(|fault| format!("after the last step: {fault}"))
    });
    ran.map_err(TestCaseError::fail)
}

struct Stage {
    redis: RedisServer,
    is_up: bool,
    replicas: [Option<Replica>; 2],
    folders: [Folder; 2],
    log: Log,
    tokens: [Token; TOKENS],
}

struct Replica {
    revocations: Revocations,
    key: DigestKey,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Nothing,
    /// By a replica.
    Ended(usize),
    Pardoned,
}

/// The model of one token.
#[derive(Clone, Default)]
struct Token {
    /// What was last done with it.
    last: Last,
    /// Since all had heard everything, something may have come into the log later than it was made.
    late: bool,
}

impl Stage {
    async fn new() -> Stage {
        let number = CASES.fetch_add(1, Ordering::Relaxed);
        let options = ["--appendonly", "yes", "--appendfsync", "always"];
        let redis = RedisServer::start(&format!("fates-{number}"), &options).await;
        let folders = [0, 1].map(|replica| Folder::new(&format!("fates-{number}-{replica}")));
        let (log, _) = Log::start(std::io::sink()).unwrap();
        let tokens = Default::default();
        let mut stage = Stage { redis, is_up: true, replicas: [None, None], folders, log, tokens };
        for replica in 0..2 {
            stage.start(replica).await.unwrap();
        }
        stage
    }

    async fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::End(replica, token) => self.change(replica, token, true).await,
            Step::Pardon(replica, token) => self.change(replica, token, false).await,
            Step::Restart(replica) => {
                self.replicas[replica] = None;
                // A journal knows seconds, and in doubt a token is dead.
                self.tokens.iter_mut().for_each(|token| token.late = true);
                self.start(replica).await
            }
            Step::StoreKilled if self.is_up => {
                self.redis.kill();
                self.is_up = false;
                self.tokens.iter_mut().for_each(|token| token.late = true);
                Ok(())
            }
            Step::StoreEmptied if self.is_up => {
                self.redis.cli(&["FLUSHALL"]);
                self.tokens.iter_mut().for_each(|token| token.late = true);
                Ok(())
            }
            Step::StoreKilled | Step::StoreEmptied => Ok(()),
            Step::StoreBack => {
                self.store_back().await;
                Ok(())
            }
            Step::Settle => self.settle().await,
        }
    }

    async fn start(&mut self, number: usize) -> Result<(), String> {
        let redis = self.redis.set();
        let journal = format!("revocation.journal={}", self.folders[number].path().join("journal").display());
        let settings = load("config/wallet.toml", "127.0.0.1:1", &[&redis, &journal]);
        let rules = settings.map_err(|complaints| format!("{complaints:?}"))?.revocation;
        let (revocations, key) = Revocations::open(&rules, DigestKey::new(rand::random()), self.log.clone()).await?;
        self.replicas[number] = Some(Replica { revocations, key });
        Ok(())
    }

    /// Nothing happens when the replica has not read the log yet.
    async fn change(&mut self, number: usize, token: usize, ends: bool) -> Result<(), String> {
        let Replica { revocations, .. } = self.replica(number);
        let digest = self.digest(number, token);
        if !ends && self.tokens[token].late {
            return Ok(());
        }
        let Ok(room) = revocations.room() else { return Ok(()) };
        let changed = match ends {
            true => revocations.end(room, digest, Duration::ZERO).await,
            false => revocations.pardon(room, digest).await,
        };
        changed.map_err(|denial| format!("{denial:?}"))?;
        self.tokens[token].last = if ends { Last::Ended(number) } else { Last::Pardoned };
        Ok(())
    }

    /// Whatever a replica hears after it ended a token, it refuses it until somebody pardons it.
    async fn look(&self) -> Result<(), String> {
        for (token, model) in self.tokens.iter().enumerate() {
            if let Last::Ended(number) = model.last
                && self.standing(number, token).await == Ok(Standing::Alive)
            {
                return Err(format!("token {token} lives again at {number}"));
            }
        }
        Ok(())
    }

    async fn store_back(&mut self) {
        if !self.is_up {
            self.redis.start_again().await;
            self.is_up = true;
        }
    }

    async fn settle(&mut self) -> Result<(), String> {
        self.store_back().await;
        let deadline = Instant::now() + PATIENCE;
        for token in 0..TOKENS {
            loop {
                let settled = (0..2).all(|number| {
                    let condition = self.replica(number).revocations.sharing().unwrap_or_default();
                    !condition.away && condition.unpublished == 0
                });
                let standings = [self.standing(0, token).await, self.standing(1, token).await];
                let fault = match standings {
                    _ if !settled => "all is never said".to_owned(),
                    [Ok(one), Ok(other)] if one != other => format!("{one:?} for one and {other:?} for the other"),
                    [Ok(standing), Ok(_)] => match self.is_wrong(token, standing) {
                        true => format!("{standing:?} for both, after {:?}", self.tokens[token].last),
                        false => break,
                    },
                    [one, other] => format!("{one:?} and {other:?}"),
                };
                if Instant::now() > deadline {
                    return Err(format!("token {token}: {fault}"));
                }
                sleep(Duration::from_millis(3)).await;
            }
        }
        for token in 0..TOKENS {
            // What they agree about now is where they go on from.
            let standing = self.standing(0, token).await?;
            let model = &mut self.tokens[token];
            model.late = false;
            if model.last == Last::Pardoned && standing == Standing::Ended {
                model.last = Last::Ended(0);
            }
        }
        Ok(())
    }

    /// What ended last is dead, and what was pardoned last is alive, unless news came late.
    fn is_wrong(&self, token: usize, standing: Standing) -> bool {
        let model = &self.tokens[token];
        match model.last {
            Last::Nothing => standing == Standing::Ended,
            Last::Ended(_) => standing == Standing::Alive,
            Last::Pardoned => standing == Standing::Ended && !model.late,
        }
    }

    async fn standing(&self, number: usize, token: usize) -> Result<Standing, String> {
        let text = text(token);
        let standing = self.replica(number).revocations.standing(&self.digest(number, token), text.as_bytes()).await;
        standing.map_err(|denial| format!("{denial:?}"))
    }

    fn digest(&self, number: usize, token: usize) -> TokenDigest {
        TokenDigest::of(text(token).as_bytes(), &self.replica(number).key)
    }

    fn replica(&self, number: usize) -> &Replica {
        self.replicas[number].as_ref().unwrap()
    }
}

fn text(token: usize) -> String {
    format!("token-{token}")
}

const TOKENS: usize = 3;

/// Cases so far, for names of their own.
static CASES: AtomicUsize = AtomicUsize::new(0);
