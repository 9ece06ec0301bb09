//! Dead stays dead: real replicas, a real store and journals, with calls, crashes and outages in random order, held against
//! a model of what must be known where.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::prop_oneof;
use proptest::test_runner::{TestCaseError, TestCaseResult};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::holds_slowly;
use super::knowledge::{Kind, Made, Model, Sharing, Store};
use crate::binary::{Running, portcullis};
use crate::redis_server::RedisServer;
use crate::world::{Connection, Folder, PATIENCE, Pam, Request, answer, futures_answer, valkyrie, wallet};

// threat: F1
#[test]
fn dead_stays_dead_with_a_journal_alone() {
    let cases = (setting(Sharing::Alone), vec(step(Sharing::Alone), 10..30));
    holds_slowly(8, &cases, |(setting, steps)| run(setting, &steps));
}

// threat: F1
#[test]
fn dead_stays_dead_for_replicas_that_follow_one_log() {
    let cases = (setting(Sharing::Follow), vec(step(Sharing::Follow), 10..25));
    holds_slowly(6, &cases, |(setting, steps)| run(setting, &steps));
}

// threat: F1
#[test]
fn dead_stays_dead_at_once_for_replicas_that_ask() {
    let cases = (setting(Sharing::Ask), vec(step(Sharing::Ask), 10..25));
    holds_slowly(6, &cases, |(setting, steps)| run(setting, &steps));
}

/// What a case runs against.
#[derive(Clone, Copy, Debug)]
struct Setting {
    family: Family,
    sharing: Sharing,
    journal: bool,
    /// The very first start is killed so many microseconds later.
    killed_first: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Wallet,
    Valkyrie,
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// Calls, all at once, and perhaps a loss amid them.
    Calls(Vec<Call>, Option<(Moment, Loss)>),
    Loss(Loss),
    /// A replica that was lost starts again.
    Restart(usize),
    /// The same, and it is killed so many microseconds later.
    StartKilled(usize, u64),
    /// So does the store.
    StoreBack,
    /// Everything is there again, and what is known anywhere becomes known everywhere.
    Settle,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    /// The other one gets it when this one is not running.
    replica: usize,
    /// Counted back from the newest.
    token: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// `kill -9` of a replica.
    Crash(usize),
    /// `kill -9` of the store.
    StoreKilled,
    /// The store stops, and its connections stay open.
    StoreHung,
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The PAM has got a call that may end a token, and answers when the loss has happened.
    AtPam,
    /// So many microseconds after the calls were sent.
    After(u64),
}

fn setting(sharing: Sharing) -> impl Strategy<Value = Setting> {
    let family = prop_oneof![Just(Family::Wallet), Just(Family::Valkyrie)];
    // Whoever asks can do without: then everything rests on the log.
    let journal = proptest::bool::ANY.prop_map(move |journal| journal || sharing != Sharing::Ask);
    (family, journal, 0..STARTED_WITHIN).prop_map(move |(family, journal, killed_first)| Setting {
        family,
        sharing,
        journal,
        killed_first,
    })
}

fn step(sharing: Sharing) -> impl Strategy<Value = Step> {
    let outages = u32::from(sharing != Sharing::Alone);
    prop_oneof![
        10 => call().prop_map(|call| Step::Calls(vec![call], None)),
        2 => vec(call(), 2..8).prop_map(|calls| Step::Calls(calls, None)),
        4 => (vec(call(), 1..8), moment(), loss(sharing)).prop_map(|(calls, moment, loss)| {
            Step::Calls(calls, Some((moment, loss)))
        }),
        2 => loss(sharing).prop_map(Step::Loss),
        3 => (0..2usize).prop_map(Step::Restart),
        1 => (0..2usize, 0..STARTED_WITHIN).prop_map(|(replica, micros)| Step::StartKilled(replica, micros)),
        outages => Just(Step::StoreBack),
        1 => Just(Step::Settle),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let kind = prop_oneof![
        10 => Just(Kind::Check),
        8 => Just(Kind::Ends),
        1 => Just(Kind::Stays),
        1 => Just(Kind::Garbled),
    ];
    // Mostly one of the newest few, of which some are alive.
    let token = prop_oneof![4 => 0..3usize, 1 => 0..40usize];
    (0..2usize, token, kind).prop_map(|(replica, token, kind)| Call { replica, token, kind })
}

fn loss(sharing: Sharing) -> impl Strategy<Value = Loss> {
    let outages = u32::from(sharing != Sharing::Alone);
    prop_oneof![
        3 => (0..2usize).prop_map(Loss::Crash),
        2 * outages => Just(Loss::StoreKilled),
        outages => Just(Loss::StoreHung),
    ]
}

fn moment() -> impl Strategy<Value = Moment> {
    prop_oneof![Just(Moment::AtPam), (0..20_000u64).prop_map(Moment::After)]
}

/// One case, in a runtime of its own.
fn run(setting: Setting, steps: &[Step]) -> TestCaseResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut stage = Stage::new(setting).await;
        for (number, step) in steps.iter().enumerate() {
            let taken = stage.take(step).await;
            taken.map_err(|fault| TestCaseError::fail(format!("in step {number}, {step:?}: {fault}")))?;
        }
        let ended = stage.end().await;
        ended.map_err(|fault| TestCaseError::fail(format!("after the last step: {fault}")))
    })
}

struct Stage {
    setting: Setting,
    model: Model,
    pam: CountingPam,
    redis: Option<RedisServer>,
    store: Store,
    replicas: Vec<Replica>,
    /// Every call, as it went.
    made: Vec<Made>,
    calls: usize,
}

struct Replica {
    running: Option<Running>,
    arguments: Vec<String>,
    _journal: Folder,
}

impl Stage {
    async fn new(setting: Setting) -> Stage {
        let number = CASES.fetch_add(1, Ordering::Relaxed);
        let redis = match setting.sharing {
            Sharing::Alone => None,
            Sharing::Follow | Sharing::Ask => {
                let options = ["--appendonly", "yes", "--appendfsync", "always"];
                Some(RedisServer::start(&format!("model-{number}"), &options).await)
            }
        };
        let mut set = redis.iter().map(RedisServer::set).collect::<Vec<_>>();
        if redis.is_some() {
            set.push("revocation.redis.timeout=250ms".to_owned());
        }
        if setting.sharing == Sharing::Ask {
            set.push("revocation.consistency=ask".to_owned());
            set.push("revocation.on_outage={ check = \"refuse\", retire = \"refuse\" }".to_owned());
        }
        let replica = |replica: usize| {
            let folder = Folder::new(&format!("model-{number}-{replica}"));
            let mut set = set.clone();
            if setting.journal {
                set.push(format!("revocation.journal={}", folder.path().join("journal").display()));
            }
            let arguments = set.into_iter().flat_map(|set| ["--set".to_owned(), set]).collect();
            Replica { running: None, arguments, _journal: folder }
        };
        let replicas = if setting.sharing == Sharing::Alone { vec![replica(0)] } else { vec![replica(0), replica(1)] };
        let mut model = Model::new(setting.sharing, setting.journal);
        for _ in 0..3 {
            model.add_token();
        }
        let pam = CountingPam::start(setting.family).await;
        let mut stage = Stage { setting, model, pam, redis, store: Store::Up, replicas, made: Vec::new(), calls: 0 };
        for replica in 0..stage.replicas.len() {
            stage.start_and_kill(replica, setting.killed_first).await;
        }
        stage.restart_all();
        stage
    }

    async fn take(&mut self, step: &Step) -> Result<(), String> {
        self.model.next_step();
        match step {
            Step::Calls(calls, loss) => self.call(calls, *loss).await?,
            Step::Loss(loss) => {
                if let Some(crashed) = self.lose(*loss) {
                    self.model.replica_crashes(crashed);
                }
            }
            Step::Restart(replica) => self.restart(*replica),
            Step::StartKilled(replica, micros) => self.start_and_kill(*replica, *micros).await,
            Step::StoreBack => self.store_back().await,
            Step::Settle => self.settle().await?,
        }
        Ok(())
    }

    /// In the end all know everything, also those who come after them, and the PAM got each call as often as was said.
    async fn end(&mut self) -> Result<(), String> {
        self.take(&Step::Settle).await?;
        for replica in 0..self.replicas.len() {
            self.take(&Step::Loss(Loss::Crash(replica))).await?;
        }
        self.take(&Step::Settle).await?;
        self.made.iter().try_for_each(|call| self.pam.check(call))
    }

    /// Makes calls at once. What is refused for our own trouble must not be for long, once nothing is away.
    async fn call(&mut self, calls: &[Call], loss: Option<(Moment, Loss)>) -> Result<(), String> {
        let made = self.make(calls, loss).await?;
        for call in made.iter().filter(|call| call.status == Some(503)) {
            let deadline = Instant::now() + PATIENCE;
            while self.store == Store::Up && self.replicas[call.replica].running.is_some() {
                if self.make_one(call.replica, call.token, call.kind).await?.status != Some(503) {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(format!("503 for ever: {call:?}"));
                }
                sleep(BETWEEN).await;
            }
        }
        Ok(())
    }

    async fn make_one(&mut self, replica: usize, token: usize, kind: Kind) -> Result<Made, String> {
        let call = Call { replica, token: self.model.tokens() - 1 - token, kind };
        let made = self.make(&[call], None).await?;
        made.into_iter().next().ok_or_else(|| "nobody is there".to_owned())
    }

    /// Makes calls at once, and judges their replies. No calls when no replica is there to take them.
    async fn make(&mut self, calls: &[Call], loss: Option<(Moment, Loss)>) -> Result<Vec<Made>, String> {
        let mut sending = Vec::new();
        let (unfinished, mut finished) = mpsc::channel::<()>(1);
        let mut arrived = self.pam.hold(matches!(loss, Some((Moment::AtPam, _))));
        for Call { replica, token, kind } in calls {
            let mut nearest = (0..self.replicas.len()).map(|step| (replica + step) % self.replicas.len());
            let Some(replica) = nearest.find(|replica| self.replicas[*replica].running.is_some()) else { continue };
            let token = self.model.tokens() - 1 - token % self.model.tokens();
            let call = self.prepare(replica, token, *kind).await;
            let mut echoes = Vec::new();
            for other in 0..self.replicas.len() {
                if *kind == Kind::Ends && self.replicas[other].running.is_some() {
                    let mut echo = self.prepare(other, token, Kind::Check).await;
                    echo.made.known = self.model.known_after(&call.made, other);
                    echoes.push(echo);
                }
            }
            let unfinished = unfinished.clone();
            sending.push(tokio::spawn(async move {
                let call = call.send().await;
                drop(unfinished);
                let mut made = vec![call.clone()];
                if call.status == Some(200) {
                    // Whoever has the answer uses the token again before anyone has taken a breath.
                    let echoes: Vec<_> = echoes.into_iter().map(|echo| tokio::spawn(echo.send())).collect();
                    for echo in echoes {
                        made.push(echo.await.unwrap());
                    }
                }
                made
            }));
        }
        drop(unfinished);
        let mut crashed = None;
        if let Some((moment, loss)) = loss {
            match moment {
                Moment::AtPam => tokio::select! {
                    _ = arrived.changed() => {}
                    _ = finished.recv() => {}
                },
                Moment::After(micros) => sleep(Duration::from_micros(micros)).await,
            }
            crashed = self.lose(loss);
        }
        let store = self.store;
        self.pam.release();
        let (mut made, mut echoes) = (Vec::new(), Vec::new());
        for sent in sending {
            let mut sent = sent.await.unwrap().into_iter();
            made.extend(sent.next());
            echoes.extend(sent);
        }
        if matches!(loss, Some((Moment::AtPam, _))) {
            // None of these was answered before.
            made.iter_mut().filter(|call| call.kind == Kind::Ends).for_each(|call| call.known.store = store);
        }
        self.model.judge(&made, &echoes, crashed)?;
        made.extend(echoes);
        made.iter().try_for_each(|call| self.pam.check(call))?;
        self.made.extend_from_slice(&made);
        // As a session goes on under a new token.
        for _ in made.iter().filter(|call| call.kind == Kind::Ends) {
            self.model.add_token();
        }
        Ok(made)
    }

    /// A call on a connection of its own.
    async fn prepare(&mut self, replica: usize, token: usize, kind: Kind) -> Prepared {
        let id = format!("call-{}-{kind:?}", self.calls);
        self.calls += 1;
        let request = self.setting.family.request(kind, token, &id);
        let address = self.replicas[replica].running.as_ref().unwrap().listen.parse().unwrap();
        let known = self.model.known(replica, token, self.store);
        let made = Made { id, replica, token, kind, known, status: None };
        Prepared { made, request, connection: Connection::to(address).await }
    }

    /// The replica that went down, if one did.
    fn lose(&mut self, loss: Loss) -> Option<usize> {
        match loss {
            Loss::Crash(replica) => {
                let replica = replica % self.replicas.len();
                self.replicas[replica].running.take()?.kill();
                return Some(replica);
            }
            Loss::StoreKilled | Loss::StoreHung if self.store != Store::Up => {}
            Loss::StoreKilled => {
                self.redis.iter_mut().for_each(RedisServer::kill);
                self.store = Store::Killed;
            }
            Loss::StoreHung => {
                self.redis.iter().for_each(|redis| redis.signal("STOP"));
                self.store = Store::Hung;
            }
        }
        None
    }

    fn restart(&mut self, replica: usize) {
        let number = replica % self.replicas.len();
        let replica = &mut self.replicas[number];
        if replica.running.is_none() {
            let arguments: Vec<&str> = replica.arguments.iter().map(String::as_str).collect();
            let config = self.setting.family.config();
            replica.running = Some(Running::start(config, &self.pam.pam.address.to_string(), &arguments));
            self.model.replica_starts(number);
        }
    }

    async fn start_and_kill(&mut self, replica: usize, micros: u64) {
        let replica = &self.replicas[replica % self.replicas.len()];
        if replica.running.is_none() {
            let mut command = portcullis();
            command.args(["run", "--config", self.setting.family.config(), "--listen", "127.0.0.1:0"]);
            command.args(["--admin", "127.0.0.1:0"]).args(&replica.arguments);
            let mut child = command.stdout(Stdio::null()).spawn().unwrap();
            sleep(Duration::from_micros(micros)).await;
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn restart_all(&mut self) {
        (0..self.replicas.len()).for_each(|replica| self.restart(replica));
    }

    async fn store_back(&mut self) {
        if let Some(redis) = &mut self.redis {
            match self.store {
                Store::Up => {}
                Store::Killed => redis.start_again().await,
                Store::Hung => redis.signal("CONT"),
            }
        }
        self.store = Store::Up;
    }

    async fn settle(&mut self) -> Result<(), String> {
        self.store_back().await;
        self.restart_all();
        if self.redis.is_some() {
            for replica in 0..self.replicas.len() {
                for metric in ["portcullis_revocation_store_away", "portcullis_revocations_unpublished"] {
                    self.until_zero(replica, metric).await?;
                }
            }
        }
        self.model.settled();
        for token in 0..self.model.tokens() {
            for replica in 0..self.replicas.len() {
                if self.model.must_end(token) {
                    self.until_refused(replica, token).await?;
                } else if self.model.is_alive(token) {
                    self.call(&[self.check(replica, token)], None).await?;
                }
            }
        }
        Ok(())
    }

    async fn until_refused(&mut self, replica: usize, token: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.make_one(replica, token, Kind::Check).await?.status != Some(401) {
            if Instant::now() > deadline {
                return Err(format!("replica {replica} never heard that token {token} ended"));
            }
            sleep(BETWEEN).await;
        }
        Ok(())
    }

    async fn until_zero(&self, replica: usize, metric: &str) -> Result<(), String> {
        let running = self.replicas[replica].running.as_ref().ok_or("it is not running")?;
        let mut admin = Connection::to(running.admin.parse().unwrap()).await;
        let deadline = Instant::now() + PATIENCE;
        let zero = format!("\n{metric} 0\n");
        while !admin.send(&Request::new("GET", "/metrics")).await.text().contains(&zero) {
            if Instant::now() > deadline {
                return Err(format!("{metric} of replica {replica} never became 0"));
            }
            sleep(BETWEEN).await;
        }
        Ok(())
    }

    fn check(&self, replica: usize, token: usize) -> Call {
        Call { replica, token: self.model.tokens() - 1 - token, kind: Kind::Check }
    }
}

/// A call that is about to be made.
struct Prepared {
    made: Made,
    request: Request,
    connection: Connection,
}

impl Prepared {
    async fn send(mut self) -> Made {
        let reply = self.connection.try_send(&self.request).await;
        Made { status: reply.map(|reply| reply.status), ..self.made }
    }
}

impl Family {
    fn config(self) -> &'static str {
        match self {
            Family::Wallet => "config/wallet.toml",
            Family::Valkyrie => "config/valkyrie.toml",
        }
    }

    /// The PAM knows a call by its correlation id.
    fn request(self, kind: Kind, token: usize, id: &str) -> Request {
        let token = format!("token-{token:030}");
        let request = match (self, kind) {
            (Family::Wallet, Kind::Check) => wallet::signed("debit", &wallet::body(&token)),
            (Family::Wallet, Kind::Ends | Kind::Stays | Kind::Garbled) => {
                wallet::signed("terminate", &wallet::body(&token))
            }
            (Family::Valkyrie, Kind::Check) => valkyrie::call("GET", "/players/1/balance?provider=x"),
            (Family::Valkyrie, Kind::Ends | Kind::Stays | Kind::Garbled) => {
                valkyrie::call("PUT", "/players/session?provider=x")
            }
        };
        let request = if self == Family::Valkyrie { request.replacing("X-Player-Token", &token) } else { request };
        request.with("X-Correlation-ID", id)
    }

    fn answer(self, kind: &str) -> Vec<u8> {
        let body = match (self, kind) {
            (_, "Garbled") => r#"{"status":"#,
            (Family::Wallet, "Stays") => r#"{"status":false,"code":2}"#,
            (Family::Wallet, _) => r#"{"status":true,"code":1}"#,
            (Family::Valkyrie, "Stays") => r#"{"status":"ERROR","error":{"code":"PAM_ERR_UNDEFINED"}}"#,
            (Family::Valkyrie, _) => r#"{"status":"OK","session":{"token":"new"}}"#,
        };
        answer(200, body)
    }
}

/// A PAM that counts how often it got each call, and can be told to hold back what may end a token.
struct CountingPam {
    pam: Pam,
    seen: Arc<Mutex<HashMap<String, usize>>>,
    held: watch::Sender<bool>,
    arrived: watch::Sender<()>,
}

impl CountingPam {
    async fn start(family: Family) -> CountingPam {
        let pam = Pam::start().await;
        let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let (held, arrived) = (watch::Sender::new(false), watch::Sender::new(()));
        let (counts, holding, arrives) = (Arc::clone(&seen), held.clone(), arrived.clone());
        pam.answer_async(move |seen| {
            let id = seen.values("x-correlation-id")[0].to_owned();
            *counts.lock().unwrap().entry(id.clone()).or_default() += 1;
            let kind = id.rsplit('-').next().unwrap().to_owned();
            let mut held = holding.subscribe();
            if kind != "Check" {
                arrives.send_replace(());
            }
            futures_answer::of(async move {
                if kind != "Check" {
                    held.wait_for(|held| !held).await.ok()?;
                }
                Some(family.answer(&kind))
            })
        });
        CountingPam { pam, seen, held, arrived }
    }

    /// Whether to hold back answers from now on; what is given changes when a call that is held back arrives.
    fn hold(&self, held: bool) -> watch::Receiver<()> {
        self.held.send_replace(held);
        self.arrived.subscribe()
    }

    fn release(&self) {
        self.held.send_replace(false);
    }

    /// At most once, and what was refused not at all.
    fn check(&self, call: &Made) -> Result<(), String> {
        let seen = self.seen.lock().unwrap().get(&call.id).copied().unwrap_or_default();
        match call.seen().contains(&seen) {
            true => Ok(()),
            false => Err(format!("the PAM got this {seen} times: {call:?}")),
        }
    }
}

/// What a start takes on a machine that has time for it, in microseconds.
const STARTED_WITHIN: u64 = 50_000;

/// Between two looks at something that takes its time.
const BETWEEN: Duration = Duration::from_millis(3);

/// Cases so far, for names of their own.
static CASES: AtomicUsize = AtomicUsize::new(0);
