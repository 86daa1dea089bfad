//! The model's operator. It records the user of each login, and its last answer to each process for each pair.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_euid::clock::{Clock, ManualClock, UnixMillis};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::identity::{Identity, IdentityTimes};
use tower_euid::{Refresh, Refreshed};

pub(crate) const MINUTES: Duration = Duration::from_secs(60);
/// The three times of a pair, counted from its issue.
pub(crate) const REFRESH_FROM: Duration = MINUTES.saturating_mul(15);
const IDENTITY_EXPIRES: Duration = MINUTES.saturating_mul(60);
/// Later than the record of an opt-out expires.
const REFRESH_EXPIRES: Duration = MINUTES.saturating_mul(7 * 24 * 60);
/// The delay of a slow answer, on tokio's clock. It is longer than a page waits.
pub(crate) const SLOW_DELAY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum User {
    Anna,
    Ben,
    Cleo,
}

impl User {
    /// Returns the user's id at the site.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Anna => "anna",
            Self::Ben => "ben",
            Self::Cleo => "cleo",
        }
    }
}

/// How the operator answers a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Works,
    /// Works, but answers only after the page has stopped waiting.
    Slow,
    /// Fails with a transient error.
    Down,
    /// Answers `client_error`.
    Refuses,
    /// Answers `invalid_token`.
    Ends,
}

/// The number of a login.
pub(crate) type Login = usize;
/// The number of a pair: an advertising token with its refresh token.
pub(crate) type Pair = usize;
/// The number of a process. Each has its own memory of refreshes.
pub(crate) type Process = usize;

#[derive(Debug)]
pub(crate) struct Operator {
    clock: ManualClock,
    pub(crate) mode: Mode,
    /// The number of refresh calls.
    pub(crate) refresh_calls: usize,
    opted_out: BTreeSet<User>,
    logins: Vec<LoginRecord>,
    pairs: Vec<PairRecord>,
    /// The last answer to each process for each pair.
    answers: BTreeMap<(Process, Pair), Answer>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LoginRecord {
    pub(crate) user: User,
    /// The pair that the login began with; none if the operator stated an opt-out.
    pub(crate) first: Option<Pair>,
    /// The time when the operator stated the user's opt-out, or a refresh last found it.
    pub(crate) opt_out_found_at: Option<UnixMillis>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PairRecord {
    pub(crate) login: Login,
    pub(crate) times: IdentityTimes,
}

/// An answer to a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) at: UnixMillis,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    NewPair(Pair),
    OptedOut,
    Ended,
    Refused,
    Failed,
}

/// The result of a login at the operator.
pub(crate) enum Generated {
    Identity(Login, Identity),
    OptedOut(Login),
}

impl Operator {
    pub(crate) fn new(clock: ManualClock) -> Self {
        Self {
            clock,
            mode: Mode::Works,
            refresh_calls: 0,
            opted_out: BTreeSet::new(),
            logins: Vec::new(),
            pairs: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    pub(crate) fn opt_out(&mut self, user: User) {
        self.opted_out.insert(user);
    }

    pub(crate) fn opt_in(&mut self, user: User) {
        self.opted_out.remove(&user);
    }

    /// Starts a login of `user`. The [`Mode`] concerns only refreshes.
    pub(crate) fn generate(&mut self, user: User) -> Generated {
        let login = self.logins.len();
        if self.opted_out.contains(&user) {
            self.logins.push(LoginRecord { user, first: None, opt_out_found_at: Some(self.clock.now()) });
            return Generated::OptedOut(login);
        }
        self.logins.push(LoginRecord { user, first: Some(self.pairs.len()), opt_out_found_at: None });
        Generated::Identity(login, self.issue(login).1)
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
        let failed = |outcome, kind| (outcome, Err(EuidError::new(kind, "as the model wants it")));
        let (outcome, result) = match self.mode {
            Mode::Down => failed(Outcome::Failed, ErrorKind::Transient),
            Mode::Refuses => failed(Outcome::Refused, ErrorKind::RejectedInput),
            Mode::Ends => failed(Outcome::Ended, ErrorKind::RejectedToken),
            Mode::Works | Mode::Slow if self.opted_out.contains(&self.logins[record.login].user) => {
                self.logins[record.login].opt_out_found_at = Some(at);
                (Outcome::OptedOut, Ok(Refreshed::OptedOut))
            }
            Mode::Works | Mode::Slow if !record.times.is_refreshable(at) => {
                failed(Outcome::Ended, ErrorKind::RejectedToken)
            }
            Mode::Works | Mode::Slow => {
                let (new, identity) = self.issue(record.login);
                (Outcome::NewPair(new), Ok(Refreshed::Identity(identity)))
            }
        };
        self.answers.insert((process, pair), Answer { at, outcome });
        result
    }

    pub(crate) fn login(&self, login: Login) -> LoginRecord {
        self.logins[login]
    }

    pub(crate) fn pair(&self, pair: Pair) -> PairRecord {
        self.pairs[pair]
    }

    /// Returns the pair that an advertising token names.
    pub(crate) fn pair_of(&self, token: &str) -> (Pair, PairRecord) {
        let (_, number) = token.rsplit_once("pair").unwrap();
        let pair = number.parse().unwrap();
        (pair, self.pairs[pair])
    }

    pub(crate) fn last_answer(&self, process: Process, pair: Pair) -> Option<Answer> {
        self.answers.get(&(process, pair)).copied()
    }

    /// Returns the last outcomes for all pairs of a login, as a process knows them.
    pub(crate) fn outcomes(&self, process: Process, login: Login) -> impl Iterator<Item = Outcome> {
        let to_process = self.answers.iter().filter(move |((to, _), _)| *to == process);
        to_process.filter(move |((_, pair), _)| self.pairs[*pair].login == login).map(|(_, answer)| answer.outcome)
    }
}

impl Outcome {
    /// Returns whether the login goes on.
    pub(crate) fn goes_on(self) -> bool {
        matches!(self, Self::NewPair(_) | Self::Failed)
    }
}

/// The connection of one process to the operator.
pub(crate) struct OperatorConnection {
    pub(crate) process: Process,
    pub(crate) operator: Arc<Mutex<Operator>>,
}

impl Refresh for OperatorConnection {
    async fn refresh(&self, identity: &Identity) -> Result<Refreshed, EuidError> {
        let slow = {
            let mut operator = self.operator.lock().unwrap();
            operator.refresh_calls += 1;
            operator.mode == Mode::Slow
        };
        if slow {
            tokio::time::sleep(SLOW_DELAY).await;
        }
        self.operator.lock().unwrap().refresh(self.process, identity.advertising_token())
    }
}
