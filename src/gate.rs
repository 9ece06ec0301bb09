//! The gate: the checks, in their order, on one screen.
//!
//! Pure: it reads no clock and no memory. What it cannot know from the request alone it asks ([`Ask`]): is this password
//! right, is this message new, is this token alive. Its last line yields a [`Permit`], the only thing forwarding accepts.

use std::borrow::Cow;
use std::future::Future;
use std::time::{Duration, SystemTime};

use crate::credential::password::PasswordQuestion;
use crate::credential::replay::{ReplayKey, Ticket};
use crate::credential::{Callers, Identity};
use crate::denial::Denial;
use crate::dialect::Dialect;
use crate::dialect::route::{Entry, Route, Settlement};
use crate::dialect::source::{Reading, Source, View};
use crate::fields::{Fields, Only, fold, is_token};
use crate::json::{self, Found};
use crate::request::{Head, Request, Whence};
use crate::revocation::Room;
use crate::secret::{DigestKey, Purpose, SecretDigest};
use crate::token::{Standing, TokenDigest};

/// The questions the gate leaves open.
pub trait Ask: Sync {
    /// Does the password match one of the hashes? Goes with whom the request claims to come from.
    fn password(
        &self,
        question: PasswordQuestion,
        claim: SecretDigest,
    ) -> impl Future<Output = Result<bool, Denial>> + Send;
    /// Is this signed message new? The ticket keeps it so until the PAM has answered.
    fn first(&self, key: ReplayKey, time: Duration) -> impl Future<Output = Result<Ticket, Denial>> + Send;
    /// Is this token alive? Goes with its text, for those who know it under other names than ours.
    fn standing(&self, token: TokenDigest, text: &[u8]) -> impl Future<Output = Result<Standing, Denial>> + Send;
    /// Did the PAM say a moment ago, of what is filed under this, that the token is expired or unknown?
    fn presumed(&self, presumption: TokenDigest) -> bool;
    /// May this caller send another request now? Counts it, if so.
    fn rate(&self, caller: &str) -> Result<(), Denial>;
    /// Has somebody failed to prove who it is where the request comes from?
    fn remembers_failures(&self) -> bool;
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
}

/// What is known of a request so far; the log wants it whether or not the request is admitted.
#[derive(Clone, Default)]
pub struct Trail<'g> {
    /// The route, once chosen.
    pub route: Option<&'g Route>,
    /// The caller's index, once proven.
    pub caller: Option<usize>,
    /// The index of the caller's key that signed.
    pub key: Option<usize>,
    /// The player token's digest, once it has the right shape.
    pub token: Option<TokenDigest>,
    /// Whom the request claims to come from, where that matters: it was not proven, or others failed to.
    pub claim: Option<SecretDigest>,
    /// That claim is proven, and not by a copy of what somebody else has sent.
    pub proven: bool,
    /// A correlation id out of the body, for families that send none in a header; only from a request that is proven.
    pub correlation: Option<Box<str>>,
}

/// That a request passed every check. Nothing else is forwarded.
pub struct Permit<'g> {
    /// The route.
    pub route: &'g Route,
    /// The token that the answer may end, with the room to record it.
    pub ends: Option<(TokenDigest, Room)>,
    /// What to file under that the token is presumed to have ended, if the answer calls it expired or unknown.
    pub teaches: Option<TokenDigest>,
    /// A dead token passed because the route settles what is owed.
    pub settled: bool,
    /// Settled when the PAM gives a definitive answer.
    pub ticket: Option<Ticket>,
}

impl Gate {
    /// 1 and 2, as far as the head tells: done before a byte of the body is read or a `100 Continue` invites one.
    pub fn enter(&self, head: &Head) -> Result<Entry<'_>, Denial> {
        let entry = self.dialect.routes.enter(head.method, head.target.path()).ok_or(Denial::NoRoute)?;
        if head.framing.length.is_some_and(|length| length > self.largest_body) {
            return Err(Denial::BodyTooLarge);
        }
        Ok(entry)
    }

    /// The checks, in their order. Each one protects those behind it.
    pub async fn admit<'g>(
        &'g self,
        entry: Entry<'g>,
        request: &Request,
        whence: Whence<'_>,
        now: SystemTime,
        trail: &mut Trail<'g>,
        ask: &impl Ask,
    ) -> Result<Permit<'g>, Denial> {
        let mut view = View { request, found: None };

        // 1. Route: everything else depends on what the route demands, and what no route names is nobody's business.
        //    A header that hides behind an underscore would be checked by us under one name and read by the PAM under the
        //    other.
        self.refuse_twins(&request.head.fields)?;
        if entry.depends_on_body() {
            self.read_json(&mut view)?;
        }
        let route = entry.choose(view.found.as_ref()).ok_or(Denial::NoRoute)?;
        trail.route = Some(route);

        // 2. Size: before any work that grows with the body. Its bytes were counted while they were read; what is left is
        //    that no check looks at bytes which somebody inflates later.
        if route.reads_body {
            plain_coding(&request.head.fields)?;
        }

        // 3. Credential and 4. signature: who calls, and from where.
        let proven = self.prove(route, &mut view, whence, trail, ask).await;
        if proven.is_err() || ask.remembers_failures() {
            trail.claim = Some(self.claim(&view));
        }
        let proof = proven?;
        let caller = trail.caller.and_then(|caller| self.callers.at(caller));
        if caller.and_then(|caller| caller.routes.as_ref()).is_some_and(|routes| !routes.contains(&route.name)) {
            return Err(Denial::CallerNotAllowed);
        }

        // 5. Freshness and replay: only a signed timestamp means anything, and only signed messages may fill the memory.
        let ticket = match proof {
            Some(proof) => self.prove_fresh(proof, now, ask).await?,
            None => None,
        };
        trail.proven = trail.caller.is_some();
        //    Whoever repeats what it has overheard uses up nobody's rate, so not before. And a payout is not held up by it.
        if let Some(caller) = caller
            && let Err(denial) = ask.rate(&caller.name)
            && !self.could_settle(route, &view)
        {
            return Err(denial);
        }

        // 6. Shape of parameters and token: a caller who has proven itself may be told what is wrong with its request.
        self.refuse_unnamed_parameters(route, request)?;
        demand_parameters(route, request)?;
        if route.reads_json {
            self.read_json(&mut view)?;
        }
        trail.correlation = trail.caller.and_then(|_| self.correlation(&view));
        let token = if route.token { self.token(&view)? } else { None };
        trail.token = token.as_ref().map(|token| token.digest);

        // 7. Standing: last, because only it may cost a question to a store, and because an answer about a token is
        //    nothing to give to strangers.
        let settled = match &token {
            None => false,
            Some(token) => match ask.standing(token.digest, &token.text).await? {
                Standing::Ended if route.settlement == Settlement::Admit && settles(route, view.found.as_ref()) => true,
                Standing::Ended => return Err(Denial::TokenEnded),
                Standing::Alive => match token.presumption {
                    Some(presumption) if ask.presumed(presumption) && !self.could_settle(route, &view) => {
                        return Err(Denial::TokenPresumedEnded);
                    }
                    Some(_) | None => false,
                },
            },
        };
        let teaches = token.as_ref().and_then(|token| token.presumption).filter(|_| !settled);
        let ends = match (token, &route.retires) {
            (Some(token), Some(_)) => Some((token.digest, ask.room()?)),
            _ => None,
        };
        Ok(Permit { route, ends, teaches, settled, ticket })
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
        let by_credential = self.prove_credential(view, ask).await?;
        trail.caller = by_credential;

        // 4. Signature: before anything is believed that it protects, the timestamp and the token above all.
        let proof = if route.signed { self.prove_signature(view, by_credential)? } else { None };
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
            return Err(Denial::CallerElsewhere);
        }
        //    A certificate it is bound to comes on top: who has stolen its secret still lacks the key of that.
        if caller.and_then(|caller| caller.certificate.as_ref()).is_some_and(|names| !whence.names.any_of(names)) {
            return Err(Denial::CertificateOther);
        }
        Ok(proof)
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

    async fn prove_credential(&self, view: &View<'_>, ask: &impl Ask) -> Result<Option<usize>, Denial> {
        if self.dialect.credential.is_empty() {
            return Ok(None);
        }
        match self.callers.identify(&view.request.head.fields, &self.dialect.credential)? {
            Identity::Known(caller) => Ok(Some(caller)),
            Identity::IfPassword(caller, question) => match ask.password(question, self.claim(view)).await? {
                true => Ok(Some(caller)),
                false => Err(Denial::CredentialWrong),
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

    async fn prove_fresh(&self, proof: Proven, now: SystemTime, ask: &impl Ask) -> Result<Option<Ticket>, Denial> {
        let rule = self.dialect.signature.as_ref().and_then(|scheme| scheme.timestamp.as_ref());
        if let Some(rule) = rule {
            rule.judge(proof.timestamp.as_deref().unwrap_or_default(), now)?;
        }
        match self.dialect.replay_memory() {
            Some(time) => ask.first(proof.key, time).await.map(Some),
            None => Ok(None),
        }
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
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let odd = fields.iter().filter(|field| !field.name.iter().all(plain));
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
        Only::One(value) => value,
        Only::Many => return Err(Denial::ContentType),
    };
    let mut parts = value.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let subtype = media.strip_prefix(b"application/").unwrap_or_default();
    let json = is_token(subtype) && (subtype == b"json" || subtype.ends_with(b"+json"));
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
