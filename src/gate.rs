//! The gate: the checks, in their order, on one screen.
//!
//! Pure: it reads no clock and no memory. What it cannot know from the request alone it asks ([`Ask`]): is this password
//! right, is this message new, is this token alive. Its last line yields a [`Permit`], the only thing forwarding accepts.

pub mod walk;

use std::borrow::Cow;
use std::future::Future;
use std::time::{Duration, SystemTime};

use crate::credential::password::PasswordQuestion;
use crate::credential::replay::{ReplayKey, Ticket};
use crate::credential::{Callers, Identity, SecretAt};
use crate::denial::{Check, Denial};
use crate::dialect::Dialect;
use crate::dialect::answer::Ending;
use crate::dialect::route::{Entry, Route, Settlement};
use crate::dialect::source::{Reading, Source, View};
use crate::fields::{Fields, Only, fold, is_odd, is_token};
use crate::json::{self, Found};
use crate::mode::{Mode, Modes};
use crate::request::{Head, Request, Whence};
use crate::revocation::Room;
use crate::secret::{DigestKey, Purpose, SecretDigest};
use crate::token::{Standing, TokenDigest};

/// The questions the gate leaves open.
pub trait Ask: Sync {
    /// Which of the hashes does the password match? Goes with whom the request claims to come from.
    fn password(
        &self,
        question: PasswordQuestion,
        claim: SecretDigest,
    ) -> impl Future<Output = Result<Option<usize>, Denial>> + Send;
    /// Is this signed message new? The ticket keeps it so until the PAM has answered.
    fn first(&self, key: ReplayKey, time: Duration) -> impl Future<Output = Result<Ticket, Denial>> + Send;
    /// The same without waiting for anybody: neither for the fate of an earlier copy nor for other replicas.
    fn first_here(&self, key: ReplayKey, time: Duration) -> Result<Ticket, Denial>;
    /// Is this token alive, as far as this replica knows?
    fn standing_here(&self, token: TokenDigest, text: &[u8]) -> Standing;
    /// Is this token alive? Goes with its text, for those who know it under other names than ours.
    fn standing(&self, token: TokenDigest, text: &[u8]) -> impl Future<Output = Result<Standing, Denial>> + Send;
    /// Did the PAM say a moment ago, of what is filed under this, that the token is expired or unknown?
    fn presumed(&self, presumption: TokenDigest) -> bool;
    /// May this caller send another request now? Counts it, if so.
    fn rate(&self, caller: &str) -> Result<(), Denial>;
    /// Does it matter whom the request claims to be, which has `failed` to prove it or has not? The latter where somebody
    /// has failed who comes from the same place.
    fn counts_failures(&self, failed: bool) -> bool;
    /// Is there room to record that a token ended?
    fn room(&self) -> Result<Room, Denial>;
}

/// The checks of one dialect for its callers.
pub struct Gate {
    /// The API family.
    pub dialect: Dialect,
    /// Who may call.
    pub callers: Callers,
    /// The key tokens are remembered under.
    pub token_key: DigestKey,
    /// The PAM is believed for a while when it calls a token expired or unknown.
    pub learns: bool,
    /// Most bytes of a body.
    pub largest_body: u64,
    /// Which checks refuse, and which only watch.
    pub modes: Modes,
}

/// What is known of a request so far; the log wants it whether or not the request is admitted.
#[derive(Clone, Default)]
pub struct Trail<'g> {
    /// The route, once chosen.
    pub route: Option<&'g Route>,
    /// The caller's index, once proven.
    pub caller: Option<usize>,
    /// Which of the caller's credentials it was.
    pub secret: Option<SecretAt>,
    /// The index of the caller's key that signed.
    pub key: Option<usize>,
    /// The player token's digest, once it has the right shape.
    pub token: Option<TokenDigest>,
    /// Whom the request claims to come from, where that matters: it was not proven, or others failed to.
    pub claim: Option<SecretDigest>,
    /// That claim is proven, and not by a copy of what somebody else has sent.
    pub proven: bool,
    /// Which caller it would be, if it were proven. Known only where something is not enforced.
    pub suspect: Option<usize>,
    /// What would have refused it, if it had been enforced.
    pub would_refuse: Vec<Denial>,
    /// A correlation id out of the body, for families that send none in a header; only from a request that is proven.
    pub correlation: Option<Box<str>>,
}

/// That a request passed every check that is enforced. Nothing else is forwarded.
pub struct Permit<'g> {
    /// The route; `None` for a request of none, where that is not enforced.
    pub route: Option<&'g Route>,
    /// The token that the answer may end.
    pub ends: Option<Ends<'g>>,
    /// Nothing is enforced for this request: it goes on exactly as it came.
    pub untouched: bool,
    /// What to file under that the token is presumed to have ended, if the answer calls it expired or unknown.
    pub teaches: Option<TokenDigest>,
    /// A dead token passed because the route settles what is owed.
    pub settled: bool,
    /// Settled when the PAM gives a definitive answer.
    pub ticket: Option<Ticket>,
}

/// A token that an answer may end.
pub struct Ends<'g> {
    /// The token.
    pub token: TokenDigest,
    /// When it does.
    pub ending: &'g Ending,
    /// For how long it passes all the same.
    pub grace: Duration,
    /// To record it.
    pub room: Room,
    /// The answer is not released before it is known and recorded what it ends.
    pub firm: bool,
}

impl Gate {
    /// 1, as far as the head tells: done before a byte of the body is read or a `100 Continue` invites one.
    pub fn enter(&self, head: &Head) -> Result<Entry<'_>, Denial> {
        self.dialect.routes.enter(head.method, head.target.path()).ok_or(Denial::NoRoute)
    }

    /// 2, as far as the head tells. Always enforced: every body is held whole.
    pub fn fits(&self, head: &Head) -> Result<(), Denial> {
        match head.framing.length {
            Some(length) if length > self.largest_body => Err(Denial::BodyTooLarge),
            Some(_) | None => Ok(()),
        }
    }

    /// What a check found, weighed by its mode: a failure that is not enforced is noted, and is no value.
    pub fn weigh<T>(&self, trail: &mut Trail<'_>, found: Result<T, Denial>) -> Result<Option<T>, Denial> {
        match found {
            Ok(value) => Ok(Some(value)),
            Err(denial) => match self.mode(denial.check(), trail) {
                Mode::Enforce => Err(denial),
                Mode::Shadow => {
                    trail.would_refuse.push(denial);
                    Ok(None)
                }
                Mode::Off => Ok(None),
            },
        }
    }

    fn mode(&self, check: Check, trail: &Trail<'_>) -> Mode {
        self.modes.of(check, trail.route.map(|route| &*route.name), trail.caller.or(trail.suspect))
    }

    fn makes(&self, check: Check, trail: &Trail<'_>) -> bool {
        self.mode(check, trail) != Mode::Off
    }

    /// The checks, in their order. Each one protects those behind it.
    ///
    /// Without an `entry`, which only [`weigh`](Gate::weigh) lets happen, there is nothing to check by.
    pub async fn admit<'g>(
        &'g self,
        entry: Option<Entry<'g>>,
        request: &Request,
        whence: Whence<'_>,
        now: SystemTime,
        trail: &mut Trail<'g>,
        ask: &impl Ask,
    ) -> Result<Permit<'g>, Denial> {
        let mut view = View { request, found: None };
        if !self.modes.are_strict() {
            trail.suspect = self.suspect(&mut view);
        }

        // 1. Route: everything else depends on what the route demands, and what no route names is nobody's business.
        //    A header that hides behind an underscore would be checked by us under one name and read by the PAM under the
        //    other.
        self.weigh(trail, self.refuse_twins(&request.head.fields))?;
        let Some(entry) = entry else { return Ok(self.unrouted(trail)) };
        if entry.depends_on_body() {
            let read = self.read_json(&mut view);
            self.weigh(trail, read)?;
        }
        let route = self.weigh(trail, entry.choose(view.found.as_ref()).ok_or(Denial::NoRoute))?;
        let Some(route) = route else { return Ok(self.unrouted(trail)) };
        trail.route = Some(route);

        // 2. Size: before any work that grows with the body. Its bytes were counted while they were read; what is left is
        //    that no check looks at bytes which somebody inflates later.
        if route.reads_body {
            self.weigh(trail, plain_coding(&request.head.fields))?;
        }

        // 3. Credential and 4. signature: who calls, and from where.
        let proven = self.prove(route, &mut view, whence, trail, ask).await;
        if ask.counts_failures(proven.is_err()) {
            trail.claim = Some(self.claim(&view));
        }
        let proof = proven?;
        let caller = trail.caller.and_then(|caller| self.callers.at(caller));
        if caller.and_then(|caller| caller.routes.as_ref()).is_some_and(|routes| !routes.contains(&route.name)) {
            self.weigh::<()>(trail, Err(Denial::CallerNotAllowed))?;
        }

        // 5. Freshness and replay: only a signed timestamp means anything, and only signed messages may fill the memory.
        let ticket = match proof {
            Some(proof) => self.prove_fresh(proof, now, trail, ask).await?,
            None => None,
        };
        trail.proven = trail.caller.is_some();
        //    Whoever repeats what it has overheard uses up nobody's rate, so not before. And a payout is not held up by it.
        if let Some(caller) = caller
            && let Err(denial) = ask.rate(&caller.name)
            && !self.could_settle(route, &view)
        {
            self.weigh::<()>(trail, Err(denial))?;
        }

        // 6. Shape of parameters and token: a caller who has proven itself may be told what is wrong with its request.
        self.weigh(trail, self.refuse_unnamed_parameters(route, request))?;
        self.weigh(trail, demand_parameters(route, request))?;
        if route.reads_json {
            let read = self.read_json(&mut view);
            self.weigh(trail, read)?;
        }
        trail.correlation = trail.caller.and_then(|_| self.correlation(&view));
        let token = match route.token && self.makes(Check::Token, trail) {
            true => self.weigh(trail, self.token(&view))?.flatten(),
            false => None,
        };
        trail.token = token.as_ref().map(|token| token.digest);

        // 7. Standing: last, because only it may cost a question to a store, and because an answer about a token is
        //    nothing to give to strangers.
        let token = token.filter(|_| self.makes(Check::Standing, trail));
        let mut settled = false;
        if let Some(token) = &token {
            let standing = self.stand(route, token, &view, trail, ask).await;
            settled = self.weigh(trail, standing)?.unwrap_or(false);
        }
        let teaches = token.as_ref().and_then(|token| token.presumption).filter(|_| !settled);
        let ends = match (token, &route.retires) {
            (Some(token), Some(ending)) => {
                let firm = self.mode(Check::Standing, trail) == Mode::Enforce;
                let room = self.weigh(trail, ask.room())?;
                room.map(|room| Ends { token: token.digest, ending, grace: route.grace, room, firm })
            }
            _ => None,
        };
        Ok(Permit { route: Some(route), ends, untouched: self.is_untouched(trail), teaches, settled, ticket })
    }

    /// For a request of no route, where that is not enforced.
    fn unrouted(&self, trail: &Trail<'_>) -> Permit<'_> {
        let untouched = self.is_untouched(trail);
        Permit { route: None, ends: None, untouched, teaches: None, settled: false, ticket: None }
    }

    fn is_untouched(&self, trail: &Trail<'_>) -> bool {
        self.modes.only_watch(trail.route.map(|route| &*route.name), trail.caller.or(trail.suspect))
    }

    /// Steps 3 and 4.
    async fn prove<'g>(
        &'g self,
        route: &Route,
        view: &mut View<'_>,
        whence: Whence<'_>,
        trail: &mut Trail<'g>,
        ask: &impl Ask,
    ) -> Result<Option<Proven>, Denial> {
        // 3. Credential: before the signature, since it says whose secret that must have been made with.
        if self.makes(Check::Credential, trail) {
            let by_credential = self.prove_credential(view, ask).await;
            (trail.caller, trail.secret) = self.weigh(trail, by_credential)?.flatten().unzip();
        }

        // 4. Signature: before anything is believed that it protects, the timestamp and the token above all.
        let mut proof = None;
        if route.signed && self.makes(Check::Signature, trail) {
            let by_signature = self.prove_signature(view, trail.caller);
            proof = self.weigh(trail, by_signature)?.flatten();
        }
        if let Some(proof) = &proof {
            (trail.caller, trail.key) = (Some(proof.key.caller), Some(proof.index));
        }
        //    Who calls is proven now, by the credential, the signature or both; whether it may call from there, and call
        //    this, comes next.
        let caller = trail.caller.and_then(|caller| self.callers.at(caller));
        if caller
            .and_then(|caller| caller.from.as_ref())
            .is_some_and(|from| !from.iter().any(|one| one.contains(whence.origin.client)))
        {
            self.weigh::<()>(trail, Err(Denial::CallerElsewhere))?;
        }
        //    A certificate it is bound to comes on top: who has stolen its secret still lacks the key of that.
        if caller.and_then(|caller| caller.certificate.as_ref()).is_some_and(|names| !whence.names.any_of(names)) {
            self.weigh::<()>(trail, Err(Denial::CertificateOther))?;
        }
        Ok(proof)
    }

    /// Step 7: whether the token is alive, or has ended and passes all the same since the route settles what is owed.
    async fn stand(
        &self,
        route: &Route,
        token: &Token<'_>,
        view: &View<'_>,
        trail: &Trail<'_>,
        ask: &impl Ask,
    ) -> Result<bool, Denial> {
        let standing = match self.mode(Check::Standing, trail) {
            Mode::Enforce => ask.standing(token.digest, &token.text).await?,
            // Whoever only watches must not make anybody wait.
            Mode::Shadow | Mode::Off => ask.standing_here(token.digest, &token.text),
        };
        match standing {
            Standing::Ended if route.settlement == Settlement::Admit && settles(route, view.found.as_ref()) => Ok(true),
            Standing::Ended => Err(Denial::TokenEnded),
            Standing::Alive => match token.presumption {
                Some(presumption) if ask.presumed(presumption) && !self.could_settle(route, view) => {
                    Err(Denial::TokenPresumedEnded)
                }
                Some(_) | None => Ok(false),
            },
        }
    }

    /// Which caller a request would come from, proven or not: the user or key it names, or the only one there is.
    fn suspect(&self, view: &mut View<'_>) -> Option<usize> {
        let by_key = |view: &mut View<'_>| {
            let key_id = self.dialect.signature.as_ref()?.key_id.as_ref()?;
            if let Source::Json { .. } = key_id {
                // A body that cannot be read names nobody; the check that reads it says so.
                let _ = self.read_json(view);
            }
            match key_id.read(view) {
                Reading::One(id) => self.callers.by_key_id(&id),
                Reading::None | Reading::Many | Reading::NotText => None,
            }
        };
        let only = || (self.callers.iter().count() == 1).then_some(0);
        self.callers.claimed(&view.request.head.fields).or_else(|| by_key(view)).or_else(only)
    }

    /// Whom a request claims to come from: the user it names, or else the key. It need not be anybody.
    fn claim(&self, view: &View<'_>) -> SecretDigest {
        let user = Callers::claimed_user(&view.request.head.fields);
        let key_id = self.dialect.signature.as_ref().and_then(|scheme| scheme.key_id.as_ref());
        let text = match (user, key_id.map(|source| source.read(view))) {
            (Some(user), _) => [b"user ", user.as_bytes()].concat(),
            (None, Some(Reading::One(id))) => [b"key ", &*id].concat(),
            (None, Some(Reading::None | Reading::Many | Reading::NotText) | None) => b"none".to_vec(),
        };
        self.token_key.digest(Purpose::Claim, &text)
    }

    async fn prove_credential(&self, view: &View<'_>, ask: &impl Ask) -> Result<Option<(usize, SecretAt)>, Denial> {
        if self.dialect.credential.is_empty() {
            return Ok(None);
        }
        match self.callers.identify(&view.request.head.fields, &self.dialect.credential)? {
            Identity::Known(caller, secret) => Ok(Some((caller, secret))),
            Identity::IfPassword(caller, question) => match ask.password(question, self.claim(view)).await? {
                Some(at) => Ok(Some((caller, SecretAt::PasswordHash(at)))),
                None => Err(Denial::CredentialWrong),
            },
            Identity::Nobody(question) => {
                ask.password(question, self.claim(view)).await?;
                Err(Denial::CredentialWrong)
            }
        }
    }

    fn prove_signature(&self, view: &mut View<'_>, by_credential: Option<usize>) -> Result<Option<Proven>, Denial> {
        let Some(scheme) = &self.dialect.signature else { return Ok(None) };
        if scheme.reads_json() || (scheme.message.compacts() && !view.request.body.is_empty()) {
            self.read_json(view)?;
        }
        let presented = scheme.presented(view)?;
        let by_key_id = match scheme.key_id.as_ref().map(|source| source.read(view)) {
            None => None,
            Some(Reading::One(id)) => Some(self.callers.by_key_id(&id).ok_or(Denial::KeyUnknown)?),
            Some(Reading::None) => return Err(Denial::SignatureMissing),
            Some(Reading::Many) => return Err(Denial::SignatureRepeated),
            Some(Reading::NotText) => return Err(Denial::SignatureMalformed),
        };
        let named = match (by_credential, by_key_id) {
            (Some(one), Some(other)) if one != other => return Err(Denial::KeyUnknown),
            (one, other) => one.or(other),
        };
        let tried = match named {
            Some(caller) => caller..caller + 1,
            // Neither credential nor key id: whose secret matches is who calls.
            None => 0..self.callers.iter().count(),
        };
        for index in tried {
            let Some(caller) = self.callers.at(index) else { continue };
            match scheme.verify(&presented, view, &caller.keys) {
                Ok(proof) => {
                    let timestamp = presented.timestamp.map(Cow::into_owned);
                    let (message, under_other_keys) = (proof.message, proof.under_other_keys);
                    let key = ReplayKey { caller: index, message, under_other_keys };
                    return Ok(Some(Proven { key, index: proof.key, timestamp }));
                }
                Err(Denial::SignatureWrong) => {}
                Err(other) => return Err(other),
            }
        }
        Err(Denial::SignatureWrong)
    }

    async fn prove_fresh(
        &self,
        proof: Proven,
        now: SystemTime,
        trail: &mut Trail<'_>,
        ask: &impl Ask,
    ) -> Result<Option<Ticket>, Denial> {
        let mode = self.mode(Check::Freshness, trail);
        if mode == Mode::Off {
            return Ok(None);
        }
        let rule = self.dialect.signature.as_ref().and_then(|scheme| scheme.timestamp.as_ref());
        if let Some(rule) = rule {
            let fresh = rule.judge(proof.timestamp.as_deref().unwrap_or_default(), now);
            if self.weigh(trail, fresh)?.is_none() {
                // What is out of its time would be remembered for nothing.
                return Ok(None);
            }
        }
        let Some(time) = self.dialect.replay_memory() else { return Ok(None) };
        let first = match mode {
            Mode::Enforce => ask.first(proof.key, time).await,
            Mode::Shadow | Mode::Off => ask.first_here(proof.key, time),
        };
        self.weigh(trail, first)
    }

    fn token<'v>(&self, view: &'v View<'_>) -> Result<Option<Token<'v>>, Denial> {
        let Some(token) = &self.dialect.token else { return Ok(None) };
        if let (Source::Json { slot, .. }, Some(found)) = (&token.at, &view.found)
            && matches!(found.at(*slot), Some(json::Value::Number(_)))
        {
            // Other places take a number as it is written; a token is a string or nothing.
            return Err(Denial::TokenMalformed);
        }
        match token.at.read(view) {
            Reading::None => Err(Denial::TokenMissing),
            Reading::Many => Err(Denial::TokenRepeated),
            Reading::NotText => Err(Denial::TokenMalformed),
            Reading::One(text) if !token.rule.admits(&text) => Err(Denial::TokenMalformed),
            Reading::One(text) => {
                let digest = TokenDigest::of(&text, &self.token_key);
                let presumption = self.learns.then(|| self.presumption(digest, &token.dead_per, view)).flatten();
                Ok(Some(Token { digest, presumption, text }))
            }
        }
    }

    /// What a presumption about a token is filed under: the token, and what the request says at the places that the PAM's
    /// word depends on. `None` where one of them can be read in two ways: then nothing is presumed.
    fn presumption(&self, token: TokenDigest, per: &[Source], view: &View<'_>) -> Option<TokenDigest> {
        if per.is_empty() {
            return Some(token);
        }
        let mut text = token.as_bytes().to_vec();
        for source in per {
            match source.read(view) {
                Reading::None => text.push(0),
                Reading::One(value) => {
                    text.push(1);
                    text.extend_from_slice(&value.len().to_be_bytes());
                    text.extend_from_slice(&value);
                }
                Reading::Many | Reading::NotText => return None,
            }
        }
        Some(TokenDigest::of(&text, &self.token_key))
    }

    /// Whether money that is owed could hang on a request, or nothing at all, as on a look-up. A presumption holds up
    /// neither, whatever is to become of tokens that are known to have ended: to withhold a win because of a guess is worse
    /// than to ask the PAM once more, which decides as it did before. So a body that no check has read yet is read here, and
    /// one that cannot be read passes.
    fn could_settle(&self, route: &Route, view: &View<'_>) -> bool {
        match &route.settles {
            Some(when) if !when.is_empty() && view.found.is_none() => {
                self.json(view.request).map_or(true, |found| when.hold(Some(&found)))
            }
            Some(_) | None => settles(route, view.found.as_ref()),
        }
    }

    fn correlation(&self, view: &View<'_>) -> Option<Box<str>> {
        let text = self.dialect.correlation.iter().find_map(|source| match source.read(view) {
            Reading::One(text) => Some(text),
            Reading::None | Reading::Many | Reading::NotText => None,
        })?;
        Some(std::str::from_utf8(&text).ok()?.into())
    }

    fn read_json(&self, view: &mut View<'_>) -> Result<(), Denial> {
        if view.found.is_none() {
            view.found = Some(self.json(view.request)?);
        }
        Ok(())
    }

    fn json<'a>(&self, request: &'a Request) -> Result<Found<'a>, Denial> {
        plain_coding(&request.head.fields)?;
        json_type(&request.head.fields)?;
        json::read(&request.body, &self.dialect.wanted).map_err(Denial::Json)
    }

    /// Where the body decides, or is what was signed, a parameter that no one named is refused: some frameworks lay
    /// parameters over the members of a JSON body, and the PAM would then read what was neither signed nor looked at.
    fn refuse_unnamed_parameters(&self, route: &Route, request: &Request) -> Result<(), Denial> {
        let signed_query = self.dialect.signature.as_ref().is_some_and(|scheme| scheme.message.covers_query());
        let query = request.head.target.query();
        if query.is_empty() || !(route.reads_body || route.signed) || (route.signed && signed_query) {
            return Ok(());
        }
        let named = |name: &str| route.query.iter().chain(&route.optional_query).any(|known| **known == *name);
        let all_named = query.split('&').all(|pair| named(pair.split_once('=').map_or(pair, |(name, _)| name)));
        if all_named { Ok(()) } else { Err(Denial::UnnamedParameter) }
    }

    fn refuse_twins(&self, fields: &Fields) -> Result<(), Denial> {
        if !fields.have_odd_names() {
            return Ok(());
        }
        let odd = fields.iter().filter(|field| is_odd(field.name));
        let guarded = |name: &[u8]| self.dialect.guarded.iter().any(|guarded| fold(guarded.as_bytes()).eq(fold(name)));
        // A guarded name may itself be odd; then it is looked at under that very name.
        let known = |name: &[u8]| self.dialect.guarded.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name));
        let twin = odd.into_iter().any(|field| guarded(field.name) && !known(field.name));
        if twin { Err(Denial::TwinField) } else { Ok(()) }
    }
}

/// A well-formed player token.
struct Token<'v> {
    digest: TokenDigest,
    /// Where answers may teach that it has ended.
    presumption: Option<TokenDigest>,
    text: Cow<'v, [u8]>,
}

/// A signature that matched, and what it signed.
struct Proven {
    key: ReplayKey,
    index: usize,
    timestamp: Option<Vec<u8>>,
}

/// The route settles what is owed, as its body says, or looks up.
fn settles(route: &Route, found: Option<&Found<'_>>) -> bool {
    route.settles.as_ref().is_some_and(|when| when.hold(found))
}

/// Each required parameter is there once and not empty.
fn demand_parameters(route: &Route, request: &Request) -> Result<(), Denial> {
    for name in &route.query {
        let mut values = request.head.target.parameters(name);
        match (values.next(), values.next()) {
            (Some(Some(value)), None) if !value.is_empty() => {}
            _ => return Err(Denial::Parameter),
        }
    }
    Ok(())
}

/// A body that is read must be what it looks like: whoever inflates it later sees another one.
fn plain_coding(fields: &Fields) -> Result<(), Denial> {
    match fields.only("content-encoding") {
        Only::None => Ok(()),
        Only::One(coding) if coding.eq_ignore_ascii_case(b"identity") => Ok(()),
        Only::One(_) | Only::Many => Err(Denial::ContentEncoding),
    }
}

/// A body that is read as JSON must not be declared as something else; without a declaration it is taken for JSON.
fn json_type(fields: &Fields) -> Result<(), Denial> {
    let value = match fields.only("content-type") {
        Only::None => return Ok(()),
        // As nearly all have it.
        Only::One(b"application/json") => return Ok(()),
        Only::One(value) => value,
        Only::Many => return Err(Denial::ContentType),
    };
    let mut parts = value.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let media = parts.next().unwrap_or_default();
    let (kind, subtype) = media.split_at_checked(b"application/".len()).unwrap_or_default();
    let suffix = subtype.last_chunk::<5>().is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"));
    let json = kind.eq_ignore_ascii_case(b"application/")
        && is_token(subtype)
        && (subtype.eq_ignore_ascii_case(b"json") || suffix);
    // JSON is UTF-8 (RFC 8259 §8.1); another charset would be read differently on the other side.
    let other_charset = |part: &[u8]| {
        let Some(equals) = part.iter().position(|&byte| byte == b'=') else { return false };
        let (name, value) = part.split_at(equals);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let utf8 = value.eq_ignore_ascii_case(b"utf-8") || value.eq_ignore_ascii_case(b"\"utf-8\"");
        name.trim_ascii().eq_ignore_ascii_case(b"charset") && !utf8
    };
    if json && !parts.any(other_charset) { Ok(()) } else { Err(Denial::ContentType) }
}
