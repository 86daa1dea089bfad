//! The operator of the model: it knows who it was asked for, and what it said to which process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_euid::clock::{Clock, ManualClock, UnixMillis};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{EuidUpdate, Refresh, Refreshed};

pub(crate) const MINUTES: Duration = Duration::from_secs(60);
/// The three clocks of a pair, after its issue.
pub(crate) const REFRESH_FROM: Duration = MINUTES.saturating_mul(15);
const IDENTITY_EXPIRES: Duration = MINUTES.saturating_mul(60);
const REFRESH_EXPIRES: Duration = MINUTES.saturating_mul(24 * 60);
/// How long a slow answer takes, on tokio's clock: longer than a page waits.
pub(crate) const SLOWLY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum User {
    Anna,
    Ben,
    Cleo,
}

impl User {
    /// As the site knows them.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Anna => "anna",
            Self::Ben => "ben",
            Self::Cleo => "cleo",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Works,
    /// Answers when no page waits any more.
    Slow,
    Down,
    /// `client_error`.
    Refuses,
    /// `invalid_token`.
    Ends,
}

/// Which login, by number.
pub(crate) type Login = usize;
/// Which pair, by number: an advertising token and what belongs to it.
pub(crate) type Pair = usize;
/// Which process of which node, by number: each has a memory of its own.
pub(crate) type Process = usize;

#[derive(Debug)]
pub(crate) struct Operator {
    clock: ManualClock,
    pub(crate) mode: Mode,
    /// How many refreshes were asked for.
    pub(crate) asked: usize,
    opted_out: BTreeSet<User>,
    logins: Vec<LoginRecord>,
    pairs: Vec<PairRecord>,
    /// What was said last of a pair.
    said: BTreeMap<(Process, Pair), Said>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LoginRecord {
    pub(crate) user: User,
    /// The pair that it began with.
    pub(crate) first: Pair,
    /// When a refresh was last told that this person has opted out.
    pub(crate) found_opted_out: Option<UnixMillis>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PairRecord {
    pub(crate) login: Login,
    pub(crate) times: IdentityTimes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) at: UnixMillis,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Pair(Pair),
    OptedOut,
    Ended,
    Refused,
    Failed,
}

/// What comes of asking for an identity.
pub(crate) enum Generated {
    Identity(Login, EuidUpdate),
    OptedOut,
}

impl Operator {
    pub(crate) fn new(clock: ManualClock) -> Self {
        Self {
            clock,
            mode: Mode::Works,
            asked: 0,
            opted_out: BTreeSet::new(),
            logins: Vec::new(),
            pairs: Vec::new(),
            said: BTreeMap::new(),
        }
    }

    pub(crate) fn opt_out(&mut self, user: User) {
        self.opted_out.insert(user);
    }

    pub(crate) fn opt_in(&mut self, user: User) {
        self.opted_out.remove(&user);
    }

    /// A login of `user`. The operator's troubles are those of its refreshes alone.
    pub(crate) fn generate(&mut self, user: User) -> Generated {
        if self.opted_out.contains(&user) {
            return Generated::OptedOut;
        }
        let login = self.logins.len();
        self.logins.push(LoginRecord { user, first: self.pairs.len(), found_opted_out: None });
        Generated::Identity(login, EuidUpdate::login(self.issue(login).1))
    }

    fn issue(&mut self, login: Login) -> (Pair, Identity) {
        let now = self.clock.now();
        let times = IdentityTimes {
            refresh_from: now.saturating_add(REFRESH_FROM),
            identity_expires: now.saturating_add(IDENTITY_EXPIRES),
            refresh_expires: now.saturating_add(REFRESH_EXPIRES),
        };
        let pair = self.pairs.len();
        self.pairs.push(PairRecord { login, times });
        let token = format!("{:?}-login{login}-pair{pair}", self.logins[login].user);
        let refresh = format!("refresh-of-{token}").into();
        (pair, Identity::new(token, refresh, [7; 32].into(), times).unwrap())
    }

    fn refresh(&mut self, process: Process, token: &str) -> Result<Refreshed, EuidError> {
        let (pair, record) = self.pair_of(token);
        let at = self.clock.now();
        let failed = |what, kind| (what, Err(EuidError::new(kind, "as the model wants it")));
        let (what, answer) = match self.mode {
            Mode::Down => failed(What::Failed, ErrorKind::Transient),
            Mode::Refuses => failed(What::Refused, ErrorKind::RejectedInput),
            Mode::Ends => failed(What::Ended, ErrorKind::RejectedToken),
            Mode::Works | Mode::Slow if self.opted_out.contains(&self.logins[record.login].user) => {
                self.logins[record.login].found_opted_out = Some(at);
                (What::OptedOut, Ok(Refreshed::OptedOut))
            }
            Mode::Works | Mode::Slow if !record.times.is_refreshable(at) => {
                failed(What::Ended, ErrorKind::RejectedToken)
            }
            Mode::Works | Mode::Slow => {
                let (new, identity) = self.issue(record.login);
                (What::Pair(new), Ok(Refreshed::Identity(identity)))
            }
        };
        self.said.insert((process, pair), Said { at, what });
        answer
    }

    pub(crate) fn login(&self, login: Login) -> LoginRecord {
        self.logins[login]
    }

    pub(crate) fn pair(&self, pair: Pair) -> PairRecord {
        self.pairs[pair]
    }

    /// The pair that an advertising token names.
    pub(crate) fn pair_of(&self, token: &str) -> (Pair, PairRecord) {
        let (_, number) = token.rsplit_once("pair").unwrap();
        let pair = number.parse().unwrap();
        (pair, self.pairs[pair])
    }

    pub(crate) fn said(&self, process: Process, pair: Pair) -> Option<Said> {
        self.said.get(&(process, pair)).copied()
    }
}

/// The operator as one process reaches it.
pub(crate) struct Line {
    pub(crate) process: Process,
    pub(crate) operator: Arc<Mutex<Operator>>,
}

impl Refresh for Line {
    async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        let slow = {
            let mut operator = self.operator.lock().unwrap();
            operator.asked += 1;
            operator.mode == Mode::Slow
        };
        if slow {
            tokio::time::sleep(SLOWLY).await;
        }
        self.operator.lock().unwrap().refresh(self.process, identity.advertising_token())
    }
}
