//! What must be known where, and so which replies are right.
//!
//! Of each token: whether the PAM was asked to end it, whether a caller can have the answer that ended it, and where that
//! must be remembered: in a replica's memory, in its journal, in the log that all read. Where timing decides, more than one
//! reply is right; then the model learns from the one it sees.

/// How replicas share what they know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One replica.
    Alone,
    /// Two that follow the log. While the store is away, checks go by what is known, and the journal takes what ends.
    Follow,
    /// Two that ask. While the store is away, both are refused.
    Ask,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ends nothing.
    Check,
    /// May end the token, and the PAM ends it.
    Ends,
    /// The same, and the PAM says that it did not.
    Stays,
    /// The same, and the PAM's answer cannot be read.
    Garbled,
}

/// Where the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Up,
    /// Its process is gone.
    Killed,
    /// Its process is stopped, and its connections stay open.
    Hung,
}

/// A call that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub id: String,
    pub replica: usize,
    pub token: usize,
    pub kind: Kind,
    /// What had to be known when it was sent.
    pub known: Known,
    /// `None` when no whole reply came.
    pub status: Option<u16>,
}

/// What a replica had to know.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// That the token ended: it knows, or the store does and it has to ask.
    pub ended: bool,
    /// The same, from its own memory.
    pub by_heart: bool,
    /// Where the store was.
    pub store: Store,
}

/// All tokens, and all replicas.
pub struct Model {
    sharing: Sharing,
    journal: bool,
    tokens: Vec<Token>,
    replicas: [Replica; 2],
    /// Counts steps.
    step: usize,
}

#[derive(Clone, Default)]
struct Token {
    /// The PAM ended it, or may have.
    ended: bool,
    /// A caller has the answer that ended it.
    released: bool,
    /// The step by which it stood in the log.
    logged: Option<usize>,
    at: [Memory; 2],
}

#[derive(Clone, Copy, Default)]
struct Memory {
    /// The replica forwarded a call that ended the token, or may have.
    asked: bool,
    /// It must know, as long as it runs.
    here: bool,
    /// Its journal must.
    journal: bool,
}

#[derive(Clone, Copy, Default)]
struct Replica {
    /// The step in which it was started last.
    started: usize,
    /// It has shown that it read the log.
    synced: bool,
}

impl Model {
    pub fn new(sharing: Sharing, journal: bool) -> Model {
        Model { sharing, journal, tokens: Vec::new(), replicas: Default::default(), step: 0 }
    }

    pub fn next_step(&mut self) {
        self.step += 1;
    }

    /// A token that nobody has used yet.
    pub fn add_token(&mut self) -> usize {
        self.tokens.push(Token::default());
        self.tokens.len() - 1
    }

    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Nothing has ended it.
    pub fn is_alive(&self, token: usize) -> bool {
        !self.tokens[token].ended
    }

    /// A caller believes that it ended, or some replica says so: sooner or later, all must refuse it.
    pub fn must_end(&self, token: usize) -> bool {
        let token = &self.tokens[token];
        token.released || token.at.iter().any(|memory| memory.here)
    }

    pub fn replica_starts(&mut self, replica: usize) {
        self.replicas[replica] = Replica { started: self.step, synced: self.sharing == Sharing::Alone };
    }

    pub fn replica_crashes(&mut self, replica: usize) {
        for token in &mut self.tokens {
            let memory = &mut token.at[replica];
            memory.here = memory.journal;
        }
    }

    /// Everything that some replica knows has reached the log.
    pub fn settled(&mut self) {
        if self.sharing != Sharing::Alone {
            for token in 0..self.tokens.len() {
                if self.must_end(token) {
                    self.tokens[token].logged.get_or_insert(self.step);
                }
            }
        }
    }

    /// What the replica must know before a call.
    pub fn known(&self, replica: usize, token: usize, store: Store) -> Known {
        let (token, replica_state) = (&self.tokens[token], &self.replicas[replica]);
        let by_heart = token.at[replica].here;
        let read = |logged| self.sharing == Sharing::Ask || replica_state.started > logged;
        Known { ended: by_heart || token.logged.is_some_and(read), by_heart, store }
    }

    /// What a replica must know once a call has ended a token, and its caller has the answer.
    pub fn known_after(&self, ended: &Made, replica: usize) -> Known {
        let known = self.known(replica, ended.token, ended.known.store);
        let by_heart = known.by_heart || replica == ended.replica;
        Known { ended: known.ended || by_heart || self.sharing == Sharing::Ask, by_heart, ..known }
    }

    /// Holds replies of calls that were made at once against what had to be known, and learns from them. `echoes` were made
    /// with the tokens of some of them once their callers had the answer that ended them. `crashed` went down meanwhile.
    pub fn judge(&mut self, made: &[Made], echoes: &[Made], crashed: Option<usize>) -> Result<(), String> {
        for call in made.iter().filter(|call| call.kind == Kind::Ends && !matches!(call.status, Some(401 | 503))) {
            let token = &mut self.tokens[call.token];
            token.ended = true;
            token.at[call.replica].asked = true;
        }
        for call in made {
            self.judge_one(call, crashed)?;
        }
        for call in made {
            self.learn(call);
        }
        for echo in echoes {
            self.judge_one(echo, crashed)?;
        }
        for echo in echoes {
            self.learn(echo);
        }
        if let Some(replica) = crashed {
            self.replica_crashes(replica);
        }
        Ok(())
    }

    fn judge_one(&self, call: &Made, crashed: Option<usize>) -> Result<(), String> {
        self.fault(call, crashed == Some(call.replica)).map_err(|fault| format!("{fault}: {call:?}"))
    }

    fn fault(&self, call: &Made, crashed: bool) -> Result<(), &'static str> {
        let ensure = |right: bool, fault: &'static str| if right { Ok(()) } else { Err(fault) };
        let Some(status) = call.status else { return ensure(crashed, "there was no reply") };
        ensure(!call.known.by_heart || status == 401, "this replica knew that the token had ended")?;
        match status {
            200 => {
                ensure(!call.known.ended, "a token that ended has passed")?;
                ensure(call.kind != Kind::Garbled, "an answer was released that nobody can read")?;
                let asks = self.sharing == Sharing::Ask;
                ensure(!asks || call.known.store != Store::Killed, "it was to ask, and nobody was there")
            }
            401 => ensure(self.tokens[call.token].ended, "a token was refused that nothing had ended"),
            502 => match call.kind {
                Kind::Check | Kind::Stays => Err("the answer ended nothing and was not released"),
                Kind::Ends => ensure(self.sharing == Sharing::Ask, "an answer was not released for want of a store"),
                Kind::Garbled => Ok(()),
            },
            503 => match self.sharing {
                Sharing::Alone => Err("nothing can be away"),
                Sharing::Follow => ensure(!self.replicas[call.replica].synced, "no rule says to refuse"),
                Sharing::Ask => Ok(()),
            },
            _ => Err("nothing in the model is told so"),
        }
    }

    fn learn(&mut self, call: &Made) {
        let token = &mut self.tokens[call.token];
        let memory = &mut token.at[call.replica];
        match (call.kind, call.status) {
            (Kind::Ends, Some(200)) => {
                token.released = true;
                (memory.here, memory.journal) = (true, self.journal);
                if self.sharing == Sharing::Ask {
                    // It was not released before the store had it.
                    token.logged.get_or_insert(self.step);
                }
            }
            // It could not be told to all in time, but is known here.
            (Kind::Ends, Some(502)) => (memory.here, memory.journal) = (true, self.journal),
            (_, Some(401)) => {
                memory.here = true;
                if self.sharing != Sharing::Alone && !memory.asked {
                    // Where else should it know from?
                    token.logged.get_or_insert(self.step);
                }
            }
            (Kind::Check | Kind::Ends | Kind::Stays | Kind::Garbled, _) => {}
        }
        self.replicas[call.replica].synced |= call.status == Some(200);
    }
}

impl Made {
    /// How often the PAM may have got it.
    pub fn seen(&self) -> std::ops::RangeInclusive<usize> {
        match self.status {
            Some(401 | 503) => 0..=0,
            Some(_) => 1..=1,
            None => 0..=1,
        }
    }
}
