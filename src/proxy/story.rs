//! The story of one request, from its head to the reply.
//!
//! ```text
//! route?  ──  body  ──  gate  ──  the PAM  ──  did the answer end the token?  ──  reply
//! ```
//!
//! Each step leaves with a [`Denial`]; only a [`Permit`] leads to the PAM. The answer is in hand, and the token dead,
//! before the first byte of it goes to the caller.

mod facts;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;

use super::certificates::Certificates;
use super::generation::Generation;
use super::memory::{MOST_ADDRESSES, MOST_CALLERS, Memory};
use super::places::{Place, Places};
use super::{Body, BodyFault, Refusals, Refused, Sent, Serve, forward};
use crate::admin::key::AdminKeys;
use crate::config::{Complaint, Drain, InUse, Limits, Settings};
use crate::credential::Caller;
use crate::credential::password::Passwords;
use crate::credential::replay::claims::Claims;
use crate::credential::replay::{Replays, Ticket};
use crate::denial::Denial;
use crate::dialect::answer::{Effect, Ending};
use crate::digits::timestamp;
use crate::event::{Decision, Event, Indices, NONE};
use crate::fields::Fields;
use crate::gate::{Ends, Gate, Permit, Trail};
use crate::log::requests::RequestLog;
use crate::log::{Log, LogRules};
use crate::metrics::{Levels, Metrics, Traffic};
use crate::moment::Moment;
use crate::origin::{Origin, TrustedProxies, Unreadable};
use crate::prompt::at_once;
use crate::rate::Rates;
use crate::readiness::Readiness;
use crate::request::{Head, HeadFault, Method, Peer, Reply, ReplyBody, Request, Whence};
use crate::revocation::presumed::Presumed;
use crate::revocation::sightings::Sightings;
use crate::revocation::{Revocations, WhenAway};
use crate::secret::DigestKey;
use crate::sight::{KnownCaller, Sight};
use crate::span::{Asked, Exchange, Recorded, Spans};
use crate::tls::callers::CallerTls;
use crate::token::TokenDigest;
use crate::trace::{CorrelationId, Fresh, TraceContext, Trust};
use crate::upstream::{Answer, AnswerBody, FailureKind, Manner, Upstream};

/// A running Portcullis: one generation of its config, and what outlives generations.
pub struct Portcullis {
    generation: Generation,
    gate: Gate,
    upstream: Upstream,
    certificates: Arc<Certificates>,
    trusted_proxies: TrustedProxies,
    limits: Limits,
    drain: Drain,
    readiness: Readiness,
    admin_keys: Option<AdminKeys>,
    memory: Memory,
    /// Requests that are with the PAM.
    places: Arc<Places>,
    metrics: Arc<Metrics>,
    /// What requests of this generation count in.
    traffic: Arc<Traffic>,
    log: Log,
    log_rules: LogRules,
    /// What becomes of the traces of callers that have no rule of their own.
    trust: Trust,
    /// `None` when no backend is told of requests.
    spans: Option<Arc<Spans>>,
}

/// What is kept of a request until its reply has been sent.
pub struct Record {
    at: SystemTime,
    client: IpAddr,
    method: &'static str,
    status: u16,
    denial: Option<Denial>,
    decision: Decision,
    correlation: CorrelationId,
    trace_id: [u8; 16],
    token: Option<TokenDigest>,
    would_refuse: Vec<Denial>,
    retired: bool,
    taught: bool,
    own: Duration,
    upstream: Option<Duration>,
    indices: Indices,
    /// Whom the request claims to come from, if nobody was proven.
    suspect: Option<usize>,
    /// `None` when no backend is told of it. Boxed, as what follows is: a record moves a few times, and few have any of them.
    recorded: Option<Box<Recorded>>,
    start: Instant,
    unsettled: Option<Box<Ticket>>,
    /// Given back when the reply has been sent.
    _place: Option<Place>,
}

/// What happened to a request on its way, beside the reply.
#[derive(Default)]
struct Course<'g> {
    trail: Trail<'g>,
    forwarded: bool,
    settled: bool,
    retired: bool,
    taught: bool,
    /// Settled once a streamed answer is complete.
    unsettled: Option<Ticket>,
    /// Kept by a streamed answer, which is with the PAM until its last byte.
    place: Option<Place>,
    own: Duration,
    upstream: Option<Duration>,
    /// When the last was decided about it that is known.
    decided: Option<Instant>,
    exchange: Option<Exchange>,
}

impl Portcullis {
    /// Puts the parts together.
    ///
    /// Opens what tokens that ended are kept in; the error says what is wrong with it.
    pub async fn new(mut settings: Settings, log: Log) -> Result<Portcullis, String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let callers = names(&settings);
        let (mut revocations, token_key) =
            Revocations::open(&settings.revocation, settings.digest_key.clone(), log.clone()).await?;
        if settings.admin_keys.is_some() {
            revocations = revocations.remembering_sightings();
        }
        let mut replays = Replays::new(settings.replay_capacity, &callers, settings.upstream_limits.total);
        if let (Some(feed), Some(sharing), true) =
            (revocations.feed(), &settings.revocation.sharing, settings.replay_shared)
        {
            replays = replays.shared(Claims::new(feed, callers, sharing.check == WhenAway::Refuse));
        }
        let metrics = Arc::new(Metrics::default());
        let memory = Memory {
            passwords: Arc::new(Passwords::new(threads)),
            replays,
            revocations: Arc::new(revocations),
            presumed: settings.revocation.learn.map(|time| Arc::new(Presumed::new(time))),
            addresses: Arc::new(Rates::new(MOST_ADDRESSES)),
            callers: Arc::new(Rates::new(MOST_CALLERS)),
            lockouts: Arc::default(),
            refusals: Arc::new(Refusals::new(log.clone())),
            requests: Arc::new(RequestLog::new(log.clone())),
            sight: Arc::new(Sight::new(Moment::now())),
        };
        let rules = settings.spans.take();
        let spans = rules.map(|rules| Arc::new(Spans::start(rules, metrics.spans(), log.clone())));
        let first = Generation::first(settings.fixed.clone());
        let portcullis = Portcullis::of(first, settings, token_key, memory, Arc::default(), metrics, log);
        Ok(Portcullis { spans, ..portcullis })
    }

    /// The next generation. What came before the reload stays known; what is under way ends by the old one.
    ///
    /// The error says what cannot change.
    pub fn successor(&self, mut settings: Settings) -> Result<Portcullis, Vec<Complaint>> {
        let generation = self.generation.successor(settings.fixed.clone())?;
        settings.dialect.follow(&self.gate.dialect, SystemTime::now());
        let memory = self.memory.successor(&names(&settings), settings.upstream_limits.total);
        let (places, metrics) = (Arc::clone(&self.places), Arc::clone(&self.metrics));
        let token_key = self.gate.token_key.clone();
        let next = Portcullis::of(generation, settings, token_key, memory, places, metrics, self.log.clone());
        // The environment is as it was.
        Ok(Portcullis { spans: self.spans.clone(), ..next })
    }

    fn of(
        generation: Generation,
        settings: Settings,
        token_key: DigestKey,
        memory: Memory,
        places: Arc<Places>,
        metrics: Arc<Metrics>,
        log: Log,
    ) -> Portcullis {
        let traffic = metrics.know(&settings.dialect, &settings.callers);
        memory.sight.know(known(&settings), settings.dialect.routes.iter().map(|route| route.name.clone()));
        let upstream = Upstream::new(settings.upstream, settings.upstream_limits)
            .speaking(settings.upstream_protocol)
            .for_threads(settings.threads)
            .counted_in(&metrics.upstream_connections);
        let certificates = Arc::new(Certificates(InUse { callers: settings.tls, pam: settings.upstream_tls }));
        certificates.watch(log.clone());
        let upstream = match &certificates.0.pam {
            Some(tls) => upstream.over(Arc::clone(tls)),
            None => upstream,
        };
        Portcullis {
            generation,
            gate: Gate {
                dialect: settings.dialect,
                callers: settings.callers,
                token_key,
                learns: settings.revocation.learn.is_some(),
                largest_body: settings.limits.body,
                modes: settings.modes,
            },
            upstream,
            certificates,
            trusted_proxies: settings.trusted_proxies,
            limits: settings.limits,
            drain: settings.drain,
            readiness: Readiness::default(),
            admin_keys: settings.admin_keys,
            memory,
            places,
            metrics,
            traffic,
            log,
            log_rules: settings.log,
            trust: settings.trace,
            spans: None,
        }
    }

    /// Which generation of the config this is.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// The certificates in use, which the next generation can keep.
    pub fn certificates(&self) -> InUse {
        self.certificates.0.clone()
    }

    /// How it stops.
    pub fn drain(&self) -> Drain {
        self.drain
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The checks.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The tokens that ended.
    pub fn revocations(&self) -> &Revocations {
        &self.memory.revocations
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Tells the log what it keeps back, when nothing comes any more.
    pub fn tell_rest(&self) {
        self.memory.requests.tell_rest();
    }

    /// Where requests go that a backend is told of; `None` when there is none.
    pub fn spans(&self) -> Option<&Spans> {
        self.spans.as_deref()
    }

    /// Who may make an operator's calls; `None` when there are none.
    pub fn admin_keys(&self) -> Option<&AdminKeys> {
        self.admin_keys.as_ref()
    }

    /// The exposition text for Prometheus.
    pub fn exposition(&self) -> Vec<u8> {
        let revocations = &self.memory.revocations;
        let (live, revocation_capacity) = revocations.live();
        self.metrics.text(Levels {
            upstream_in_flight: self.places.taken() as u64,
            revocations: live,
            revocation_capacity,
            presumed: self.memory.presumed.as_ref().map_or(0, |presumed| presumed.count()),
            journal_failing: revocations.journal_is_failing(),
            sharing: revocations.sharing().unwrap_or_default(),
            sightings: revocations.sightings().map_or(0, |sightings| sightings.count().0),
            sightings_missed: revocations.sightings().map_or(0, Sightings::missed),
            replays: self.memory.replays.count(),
            locked_out: self.memory.lockouts.count(Moment::now()),
            expiries: self.certificates.expiries(),
            certificates_stale: self.certificates.are_stale(),
            unenforced: self.gate.modes.unenforced(),
            config: self.generation.levels(),
            log_dropped: self.log.dropped(),
            log_left_out: self.memory.requests.left_out(),
            passwords: self.memory.passwords.load(),
            pooled: self.upstream.pooled(),
        })
    }

    /// What `/status` shows: nothing secret, nothing that grows.
    pub fn status(&self) -> serde_json::Value {
        let (live, capacity) = self.memory.revocations.live();
        let sharing = self.memory.revocations.sharing().map(|condition| {
            serde_json::json!({
                "away": condition.away,
                "lag_s": condition.lag,
                "unpublished": condition.unpublished,
                "resyncs": condition.resyncs,
            })
        });
        let callers: Vec<&str> = self.gate.callers.iter().map(|caller| &*caller.name).collect();
        let mut status = serde_json::json!({
            "config": self.generation.status(),
            "readiness": self.readiness(),
            "version": env!("CARGO_PKG_VERSION"),
            "dialect": &*self.gate.dialect.name,
            "callers": callers,
            "revocations": {
                "live": live,
                "capacity": capacity,
                "journal_failing": self.memory.revocations.journal_is_failing(),
                "sharing": sharing,
            },
            "replays": { "remembered": self.memory.replays.count() },
        });
        if let (Some(sightings), Some(members)) = (self.memory.revocations.sightings(), status.as_object_mut()) {
            let (remembered, capacity) = sightings.count();
            let about = serde_json::json!({
                "remembered": remembered,
                "capacity": capacity,
                "unremembered": sightings.missed(),
                "since": timestamp(sightings.since()),
            });
            members.insert("sightings".to_owned(), about);
        }
        status
    }

    /// Whether it is safe to enforce what is not, by what was seen.
    fn readiness(&self) -> serde_json::Value {
        let callers = self.gate.callers.iter().map(|caller| &*caller.name);
        self.readiness.report(callers, &self.gate.modes, self.generation.since())
    }

    /// Says in the log what is not enforced, where something is not.
    pub fn tell_modes(&self) {
        let modes = &self.gate.modes;
        if modes.are_strict() {
            return;
        }
        let named = |caller: usize| self.gate.callers.at(caller).map(|caller| caller.name.clone());
        let callers: BTreeMap<_, _> =
            modes.callers.iter().filter_map(|(caller, mode)| Some((named(*caller)?, mode.as_str()))).collect();
        let checks: BTreeMap<_, _> = modes.checks.iter().map(|(check, mode)| (check.as_str(), mode.as_str())).collect();
        let routes: BTreeMap<_, _> = modes.routes.iter().map(|(route, mode)| (route, mode.as_str())).collect();
        let about = serde_json::json!({
            "mode": modes.all.as_str(),
            "checks": checks,
            "routes": routes,
            "callers": callers,
            "hint": "requests that should be refused reach the PAM; `portcullis readiness` says what keeps you from enforcing",
        });
        self.log.note("warn", "not_enforced", &about);
    }

    /// True when every check can be answered.
    pub fn is_ready(&self) -> bool {
        self.memory.revocations.is_ready()
    }

    /// Waits until every check can be answered.
    pub async fn ready(&self) {
        self.memory.revocations.ready().await;
    }

    /// The steps, in order.
    async fn pass<'g>(
        &'g self,
        head: Head,
        whence: Whence<'_>,
        body: &mut impl Body,
        stamps: &mut Stamps,
        course: &mut Course<'g>,
    ) -> Result<Reply, Denial> {
        // A proxy that names nobody calls for everybody.
        if !self.trusted_proxies.contain(whence.origin.client) && !self.trusted_proxies.announce(whence.origin.client) {
            let rate = self.memory.rate_of_address(whence.origin.client, &self.limits);
            self.gate.weigh(&mut course.trail, rate)?;
        }
        let entry = self.gate.weigh(&mut course.trail, self.gate.enter(&head))?;
        self.gate.fits(&head)?;
        // A body that came with its head has been waited for by nobody.
        let mut reading = pin!(body.read(self.limits.body, self.limits.body_timeout));
        let (read, arrived) = match at_once(reading.as_mut()).await {
            Some(read) => (read, stamps.came.at),
            None => (reading.await, Instant::now()),
        };
        let request = Request { head, body: read.map_err(Denial::from)? };

        let ask = self.memory.asking(&self.limits, whence.origin.client);
        let now = stamps.came.wall(arrived);
        let admitted = self.gate.admit(entry, &request, whence, now, &mut course.trail, &ask).await;
        if let Some(text) = &course.trail.correlation {
            stamps.adopt(text);
        }
        let decided = Instant::now();
        course.decided = Some(decided);
        course.own = decided.duration_since(arrived).saturating_sub(ask.waited());
        let permit = ask.judged(admitted, &course.trail)?;
        // Last: a place is nothing that those who prove nothing could take away from others.
        let place = self.places.take(self.limits.in_flight).ok_or(Denial::InFlightFull)?;

        course.forwarded = true;
        course.settled = permit.settled;
        self.place_in_trace(stamps, &course.trail);
        let answer = self.ask_pam(&request, whence.origin, stamps, &permit, decided).await;
        let answered = answer.as_ref().map_or_else(|_| Instant::now(), |answer| answer.at);
        course.decided = Some(answered);
        course.upstream = Some(answered.duration_since(decided));
        course.exchange = (self.spans.is_some() && stamps.trace.own().sampled()).then(|| Exchange {
            asked: decided,
            address: self.upstream.address().into(),
            version: self.upstream.version(),
            status: answer.as_ref().ok().map(|answer| answer.status),
        });
        // What is held whole has left the PAM: how fast its caller takes it is nothing to wait for.
        let streams = answer.as_ref().is_ok_and(|answer| matches!(answer.body, AnswerBody::Stream(_)));
        course.place = streams.then_some(place);

        self.conclude(&request, answer?, permit, stamps, course).await
    }

    /// The exchange with the PAM. Taking the permit by reference is the point: there is no other way to the upstream.
    async fn ask_pam(
        &self,
        request: &Request,
        origin: Origin,
        stamps: &Stamps,
        permit: &Permit<'_>,
        now: Instant,
    ) -> Result<Answer, Denial> {
        let must_hold = permit.ends.as_ref().is_some_and(|ends| ends.firm);
        let (correlation, trace) = (&stamps.correlation, &stamps.trace);
        let forwarded = forward::Forwarded {
            request,
            origin,
            correlation,
            trace,
            whole_answer: must_hold,
            untouched: permit.untouched,
        };
        let manner = Manner { head_request: request.head.method == Method::Head, must_hold };
        let exchanged = self.upstream.exchange(&forwarded, request.body.clone(), manner, now).await;
        exchanged.map_err(|failure| match failure.sent {
            true => Denial::Upstream(failure.kind),
            false => Denial::Unsent(failure.kind),
        })
    }

    /// Whose trace this is part of, and whether it is recorded. That depends on the caller, so it is settled when everybody
    /// has been asked who it is; to settle it again changes nothing.
    fn place_in_trace(&self, stamps: &mut Stamps, trail: &Trail<'_>) {
        let caller = trail.caller.and_then(|caller| self.gate.callers.at(caller));
        match caller.and_then(|caller| caller.trace).unwrap_or(self.trust) {
            Trust::Continue => {}
            Trust::Link => stamps.trace.start_anew(&stamps.fresh),
        }
        if let Some(spans) = &self.spans {
            let sampled = spans.sampler().samples(&stamps.trace);
            stamps.trace.sample(sampled);
        }
    }

    /// From the answer to the reply: first the token dies, then the reply exists.
    async fn conclude(
        &self,
        request: &Request,
        answer: Answer,
        permit: Permit<'_>,
        stamps: &Stamps,
        course: &mut Course<'_>,
    ) -> Result<Reply, Denial> {
        if let Some(ends) = permit.ends {
            let retired = self.retire(ends, &answer).await;
            // To record an end may take a disk or a store; what else is done here takes no time that is worth a clock.
            let recorded = Instant::now();
            course.decided = Some(recorded);
            course.own += recorded.duration_since(answer.at);
            course.retired = retired?;
        }
        if let Some(presumption) = permit.teaches.filter(|_| !course.retired) {
            course.taught = self.learn(presumption, &answer);
        }
        let bodiless = request.head.method == Method::Head || matches!(answer.status, 204 | 304);
        let body = match answer.body {
            _ if bodiless => ReplyBody::None,
            AnswerBody::Whole(body) => ReplyBody::Whole(body),
            // To an HTTP/1.0 caller the end of the connection would be the end of the body, also of one that was cut.
            AnswerBody::Stream(stream) if stream.length().is_none() && !request.head.framing.chunks => {
                return Err(Denial::Upstream(FailureKind::TooLarge));
            }
            AnswerBody::Stream(stream) => ReplyBody::Stream(stream),
        };
        let fields = forward::answer_fields(answer.fields, bodiless && answer.status != 204);
        // Last, when nothing can come between the caller and this answer any more but the caller itself. 5xx is no
        // definitive answer: the caller will send the same message again and must get through.
        match (permit.ticket.filter(|_| answer.status < 500), &body) {
            (Some(ticket), ReplyBody::Stream(_)) => course.unsettled = Some(ticket),
            (Some(ticket), ReplyBody::Whole(_) | ReplyBody::None) => ticket.settle(),
            (None, _) => {}
        }
        let correlation = Some(stamps.correlation.clone());
        Ok(Reply { status: answer.status, fields, own: Vec::new(), correlation, body, last: false })
    }

    /// Records that an answer ended its token, if it did.
    async fn retire(&self, ends: Ends<'_>, answer: &Answer) -> Result<bool, Denial> {
        let Ends { token, ending, grace, room, firm } = ends;
        let effect = match &answer.body {
            AnswerBody::Whole(body) => ending.judge(answer.status, &answer.fields, body),
            AnswerBody::Stream(_) if firm => return Err(Denial::Internal),
            AnswerBody::Stream(_) => Effect::Unreadable,
        };
        match effect {
            Effect::Ends if firm => self.memory.revocations.end(room, token, grace).await.map(|()| true),
            Effect::Ends => {
                // Whoever only watches must not make anybody wait for a disk or a store.
                let revocations = Arc::clone(&self.memory.revocations);
                tokio::spawn(async move { revocations.end(room, token, grace).await });
                Ok(true)
            }
            Effect::Stays => Ok(false),
            // It may have ended the token, and the caller would believe so. Without certainty it does not go out.
            Effect::Unreadable if firm => Err(Denial::AnswerUnreadable),
            Effect::Unreadable => Ok(false),
        }
    }

    /// Believes an answer that calls its token expired or unknown. One that is too large, encoded or odd teaches nothing:
    /// no answer is held, changed or refused for this.
    fn learn(&self, presumption: TokenDigest, answer: &Answer) -> bool {
        let (Some(presumed), Some(token)) = (&self.memory.presumed, &self.gate.dialect.token) else { return false };
        let AnswerBody::Whole(body) = &answer.body else { return false };
        let says_so = |ending: &Ending| ending.judge(answer.status, &answer.fields, body) == Effect::Ends;
        let dead = token.dead.iter().any(says_so);
        if dead {
            presumed.presume(presumption);
        }
        dead
    }

    /// What the caller is told of a denial, in its family's words.
    fn refuse(&self, denial: Denial, stamps: &Stamps, head_request: bool) -> Reply {
        let request_id = stamps.correlation.uuid(&stamps.fresh);
        let (status, body) = self.gate.dialect.replies.render(denial.disclosure(), request_id, &stamps.correlation);
        let mut own = vec![("Content-Type", self.gate.dialect.replies.content_type.clone())];
        if let Some(time) = denial.retry_after() {
            own.push(("Retry-After", time.to_string().into()));
        }
        let reply = Reply { correlation: Some(stamps.correlation.clone()), ..Reply::of_ours(status, own, body) };
        if head_request { Reply { body: ReplyBody::None, ..reply } } else { reply }
    }

    fn record(
        &self,
        course: Course<'_>,
        stamps: Stamps,
        method: &'static str,
        status: u16,
        denial: Option<Denial>,
    ) -> Record {
        let recorded = self.spans.is_some() && stamps.trace.own().sampled();
        let recorded = recorded.then(|| {
            let path = course.trail.route.map(|route| route.path.clone());
            let scheme = if self.certificates.0.callers.is_some() { "https" } else { "http" };
            Box::new(Recorded::of(&stamps.trace, Asked { path, version: stamps.version, scheme }, course.exchange))
        });
        Record {
            at: stamps.came.wall(course.decided.unwrap_or_else(Instant::now)),
            client: stamps.client,
            method,
            status,
            denial,
            decision: match (course.forwarded, course.settled) {
                (false, _) => Decision::Refused,
                (true, true) => Decision::Settled,
                (true, false) => Decision::Admitted,
            },
            correlation: stamps.correlation,
            trace_id: stamps.trace.own().trace_id,
            token: course.trail.token,
            would_refuse: course.trail.would_refuse,
            retired: course.retired,
            taught: course.taught,
            own: course.own,
            upstream: course.upstream,
            indices: Indices {
                route: course.trail.route.map(|route| route.at),
                caller: course.trail.caller,
                secret: course.trail.secret,
                key: course.trail.key,
            },
            suspect: course.trail.suspect.filter(|_| course.trail.caller.is_none()),
            recorded,
            start: stamps.came.at,
            unsettled: course.unsettled.map(Box::new),
            _place: course.place,
        }
    }

    /// What is told of a request, in the words of the config that it was served by.
    fn event<'e>(&'e self, record: &'e Record, sent: Sent, now: Instant) -> Event<'e> {
        let Indices { route, caller, key, .. } = record.indices;
        let caller = caller.and_then(|caller| self.gate.callers.at(caller));
        let route = route.and_then(|route| self.gate.dialect.routes.at(route));
        let key = caller.zip(key).and_then(|(caller, key)| caller.keys.get(key));
        Event {
            at: record.at,
            dialect: (&*self.gate.dialect.name).into(),
            caller: caller.map_or(NONE, |caller| &caller.name).into(),
            key_id: key.map(|key| (&*key.id).into()),
            route: route.map_or(NONE, |route| &route.name).into(),
            client: record.client,
            method: record.method,
            status: record.status,
            denial: record.denial,
            decision: record.decision,
            correlation_id: record.correlation.as_str().into(),
            trace_id: record.trace_id,
            token: record.token,
            would_refuse: record.would_refuse.as_slice().into(),
            retired: record.retired,
            taught: record.taught,
            total: now.duration_since(record.start),
            own: record.own,
            upstream: record.upstream,
            delivered: sent == Sent::Whole,
            indices: record.indices,
            sample: self.log_rules.sample,
        }
    }
}

impl Serve for Portcullis {
    type Record = Record;

    async fn serve(
        &self,
        head: Result<Head, HeadFault>,
        peer: &Peer,
        came: Instant,
        body: &mut impl Body,
    ) -> (Reply, Record) {
        self.metrics.begin();
        let came = Came::at(came);
        let mut course = Course::default();
        let origin = match &head {
            Ok(head) if !peer.unnamed => self.trusted_proxies.origin(peer.address, &head.fields),
            // A balancer that passes on bytes passes on what a stranger wrote; where it names nobody, nobody is believed.
            Ok(_) | Err(_) => Ok(Origin::of(peer.address)),
        };
        let client = origin.map_or(peer.address, |origin| origin.client);
        let mut stamps = Stamps::new(head.as_ref().map_or(&Fields::empty(), |head| &head.fields), client, came);
        stamps.version = head.as_ref().ok().map(|head| head.version);
        let method = head.as_ref().map_or(NONE, |head| head.method.as_str());
        let passed = match (head, origin) {
            (Ok(head), Ok(origin)) => {
                let whence = Whence { origin, names: &peer.names };
                // What is left half done is this request's alone: its stamps and its course are only told from here on.
                let passing = AssertUnwindSafe(self.pass(head, whence, body, &mut stamps, &mut course));
                passing.catch_unwind().await.unwrap_or_else(|_| {
                    self.metrics.panics.inc();
                    Err(Denial::Internal)
                })
            }
            (Ok(_), Err(Unreadable)) => Err(Denial::ForwardedMalformed),
            (Err(fault), _) => Err(Denial::Head(fault)),
        };
        self.place_in_trace(&mut stamps, &course.trail);
        let (reply, denial) = match passed {
            Ok(reply) => (reply, None),
            Err(denial) => {
                // A trusted proxy's connection carries others as well.
                let last = matches!(denial, Denial::LockedOut(_)) && !self.trusted_proxies.contain(peer.address);
                (Reply { last, ..self.refuse(denial, &stamps, method == "HEAD") }, Some(denial))
            }
        };
        let record = self.record(course, stamps, method, reply.status, denial);
        (reply, record)
    }

    fn sent(&self, mut record: Record, sent: Sent, now: Instant) {
        if let (Sent::Whole, Some(ticket)) = (sent, record.unsettled.take()) {
            ticket.settle();
        }
        let recorded = record.recorded.take();
        let event = self.event(&record, sent, now);
        if !self.gate.modes.are_strict() {
            let suspect = record.suspect.and_then(|suspect| self.gate.callers.at(suspect));
            let caller = suspect.map_or(&*event.caller, |suspect| &suspect.name);
            let refused = event.denial.iter().filter(|_| event.decision == Decision::Refused);
            self.readiness.count(caller, event.would_refuse.iter().chain(refused), SystemTime::now());
        }
        self.metrics.count(&self.traffic, &event);
        self.memory.sight.observe(&event, Moment::at(now));
        self.memory.requests.tell(&event, self.log_rules);
        if let (Some(spans), Some(recorded)) = (&self.spans, recorded) {
            spans.take(*recorded, event, record.start);
        }
    }

    fn connected(&self, change: i64) {
        self.metrics.connections.add(change);
    }

    fn tls(&self) -> Option<Arc<CallerTls>> {
        self.certificates.0.callers.as_ref().map(|callers| callers.now())
    }

    fn announces(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.announce(peer)
    }

    fn carries_many(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.contain(peer)
    }

    fn refused(&self, client: IpAddr, refused: Refused) {
        self.metrics.count_refused(refused);
        self.memory.sight.observe_turned_away(refused.reason(), Moment::now());
        self.memory.refusals.tell(client, refused);
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

fn names(settings: &Settings) -> Vec<Box<str>> {
    settings.callers.iter().map(|caller| caller.name.clone()).collect()
}

/// The callers, as people are told of them.
fn known(settings: &Settings) -> impl Iterator<Item = KnownCaller> {
    let ids = |caller: &Caller| caller.keys.iter().map(|key| key.id.clone()).collect();
    settings.callers.iter().map(move |caller| KnownCaller { name: caller.name.clone(), keys: ids(caller) })
}

/// When a request came: by the clock that people go by, and by the one that never jumps. What comes later is told from here
/// by the second.
#[derive(Clone, Copy)]
struct Came {
    wall: SystemTime,
    at: Instant,
}

impl Came {
    fn at(at: Instant) -> Came {
        Came { wall: SystemTime::now(), at }
    }

    fn wall(self, later: Instant) -> SystemTime {
        self.wall + later.saturating_duration_since(self.at)
    }
}

/// The identifiers of one request, and where and when it comes from.
struct Stamps {
    came: Came,
    client: IpAddr,
    fresh: Fresh,
    correlation: CorrelationId,
    trace: TraceContext,
    /// The version of HTTP, when a head could be read.
    version: Option<&'static str>,
}

impl Stamps {
    fn new(fields: &Fields, client: IpAddr, came: Came) -> Stamps {
        // From the thread's CSPRNG: ids that could be guessed could be forged into other people's traces.
        let (trace_id, parent_id, random): ([u8; 16], [u8; 8], [u8; 10]) = rand::random();
        let since = came.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or_default();
        let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        let fresh = Fresh { trace_id, parent_id, uuid };
        Stamps {
            came,
            client,
            correlation: CorrelationId::adopt_or_mint(fields.all("x-correlation-id"), &fresh),
            trace: TraceContext::adopt_or_start(fields.all("traceparent"), fields.all("tracestate"), &fresh),
            fresh,
            version: None,
        }
    }

    /// Takes an id out of the body, unless the caller sent a good one in the header.
    fn adopt(&mut self, text: &str) {
        if self.correlation.as_str() == self.fresh.uuid.as_hyphenated().to_string() {
            self.correlation = CorrelationId::adopt_or_mint(std::iter::once(text.as_bytes()), &self.fresh);
        }
    }
}

impl From<BodyFault> for Denial {
    fn from(fault: BodyFault) -> Denial {
        match fault {
            BodyFault::TooLarge => Denial::BodyTooLarge,
            BodyFault::Cut => Denial::BodyCut,
            BodyFault::Slow => Denial::BodySlow,
        }
    }
}
