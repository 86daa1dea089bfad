//! Generates identities for the users that a site has already. First read the guide `src/docs/generating.md`: most sites
//! should not need this program, and all need a legal basis for each user.
//!
//! ```console
//! $ cargo run --example batch users.csv journal.jsonl
//! generated 2, opted out 1, rejected 0, without consent 1
//! ```
//!
//! 1. `users.csv` has a line for each user: id, hash of the normalized email address, and `yes` if they consent.
//! 2. The journal gets a line for each outcome. Another run continues after the last line, also after a crash. A user without
//!    consent gets no line, so the next run checks again. A user who has opted out gets a line, and no further call.
//! 3. Calls begin at a fixed rate, and a limited number is under way. After a 429, or if the operator does not answer, no call
//!    begins for as long as `Retry-After` says, or else for some seconds. Then the user is tried again.
//! 4. Wrong credentials end the run at once. So does the ninth pause without a success in between.
//!
//! The journal holds refresh tokens: protect it as you protect passwords. At the user's next visit, a handler returns
//! `EuidUpdate::login(identity).subject(id)` if the user still consents, their `Euid` is `Absent`, and the refresh token is
//! still valid (`identity.times().is_refreshable(now)`). The application then deletes the identity.

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::time::Duration;
use std::{env, fmt};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower_euid::error::{ErrorKind, EuidError};
use tower_euid::{Dii, EuidClient, Generated};

type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (client, _) = euid_wiring::stand_in()?; // in production: `tower_euid::from_env()?`
    let [_, users, journal] = env::args().collect::<Vec<_>>().try_into().map_err(|_| "usage: batch USERS JOURNAL")?;
    let users = fs::read_to_string(users)?.lines().map(User::parse).collect::<Result<_, _>>()?;
    println!("{}", run(&client, users, &mut Journal::open(&journal)?, Pace::default()).await?);
    Ok(())
}

/// Generates for the users who consent and are not in the journal.
async fn run(client: &EuidClient, users: Vec<User>, journal: &mut Journal, pace: Pace) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let users = users.into_iter().filter(|user| !journal.done.contains(&user.id));
    let (consenting, without): (Vec<_>, Vec<_>) = users.partition(|user| user.consents);
    tally.without_consent = without.len();
    let mut waiting = VecDeque::from(consenting);

    let mut turns = interval(pace.between_calls);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut calls = JoinSet::new();
    let (mut pause, mut pauses) = (None, 0);
    loop {
        if calls.is_empty()
            && let Some(pause) = pause.take()
        {
            sleep(pause).await;
        }
        while pause.is_none()
            && calls.len() < pace.at_once
            && let Some(user) = waiting.pop_front()
        {
            turns.tick().await;
            let client = client.clone();
            calls.spawn(async move { (client.generate(user.dii).await, user) });
        }
        let Some(ended) = calls.join_next().await else { return Ok(tally) };
        match ended? {
            (Ok(generated), user) => {
                pauses = 0;
                match generated {
                    Generated::Identity(identity) => {
                        journal.write(user.id, Outcome::Identity(serde_json::from_str(&identity.to_sdk_json())?))?;
                        tally.generated += 1;
                    }
                    Generated::OptedOut => {
                        journal.write(user.id, Outcome::OptedOut)?;
                        tally.opted_out += 1;
                    }
                    _ => tally.without_consent += 1,
                }
            }
            (Err(error), user) if error.kind() == ErrorKind::RejectedInput => {
                journal.write(user.id, Outcome::Rejected)?;
                tally.rejected += 1;
            }
            (Err(error), _) if is_misconfigured(&error) => return Err(error.into()),
            (Err(error), user) => {
                // Of several calls that fail together, the longest pause counts.
                pauses += u32::from(pause.is_none());
                if pauses > MOST_PAUSES {
                    return Err(error.into());
                }
                let asked_for = error.retry_after().unwrap_or(Duration::from_secs(1 << pauses));
                pause = pause.max(Some(asked_for));
                waiting.push_back(user);
            }
        }
    }
}

/// Whether all other calls would fail, too.
fn is_misconfigured(error: &EuidError) -> bool {
    use ErrorKind::{ClockDrift, Unauthorized, Undecryptable, WrongScope};
    matches!(error.kind(), ClockDrift | Unauthorized | Undecryptable | WrongScope)
}

const MOST_PAUSES: u32 = 8;

/// Ask your operator which pace it accepts.
struct Pace {
    between_calls: Duration,
    at_once: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { between_calls: Duration::from_millis(100), at_once: 4 }
    }
}

struct User {
    id: String,
    dii: Dii,
    consents: bool,
}

impl User {
    fn parse(line: &str) -> Result<Self, Failure> {
        let [id, hash, consents] = line.split(',').collect::<Vec<_>>().try_into().map_err(|_| "not: id,hash,yes|no")?;
        Ok(Self { id: id.to_owned(), dii: Dii::email_hash(hash)?, consents: consents == "yes" })
    }
}

/// The outcomes so far: a JSON object per line.
struct Journal {
    file: File,
    /// The ids of the users who have a line.
    done: HashSet<String>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    user: String,
    outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The operator's JSON, which deserializes into a `tower_euid::Identity`.
    Identity(serde_json::Value),
    OptedOut,
    /// The operator does not accept the hash.
    Rejected,
}

impl Journal {
    fn open(path: &str) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.append(true).create(true).open(path)?;
        let text = fs::read_to_string(path)?;
        // After a crash the last line may be incomplete: that user is asked for again.
        let (complete, _) = text.rsplit_once('\n').unwrap_or_default();
        file.set_len(if complete.is_empty() { 0 } else { complete.len() as u64 + 1 })?;
        let users = complete.lines().map(|line| serde_json::from_str(line).map(|line: Line| line.user));
        Ok(Self { done: users.collect::<Result<_, _>>()?, file })
    }

    fn write(&mut self, user: String, outcome: Outcome) -> Result<(), Failure> {
        let line = serde_json::to_string(&Line { user, outcome })? + "\n";
        Ok(self.file.write_all(line.as_bytes())?)
    }
}

#[derive(Debug, Default, PartialEq)]
struct Tally {
    generated: usize,
    opted_out: usize,
    rejected: usize,
    without_consent: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generated, opted_out, rejected, without_consent } = self;
        write!(
            f,
            "generated {generated}, opted out {opted_out}, rejected {rejected}, without consent {without_consent}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Arc, Mutex};

    use euid_sandbox::{Fault, Sandbox, VisitorState};
    use euid_wiring::Tested;
    use http::Response;
    use http_body_util::Full;
    use tokio::time::timeout;
    use tower::{Layer, Service, ServiceExt, service_fn};
    use tower_euid::{Euid, EuidUpdate, Identity, from_service};

    use super::*;

    /// A file of a test, which removes it in the end.
    struct Path(String);

    impl Path {
        fn new(test: &str) -> Self {
            let path = env::temp_dir().join(format!("euid-batch-{}-{test}.jsonl", std::process::id()));
            drop(fs::remove_file(&path));
            Self(path.to_str().unwrap().to_owned())
        }

        fn lines(&self) -> Vec<Line> {
            let text = fs::read_to_string(&self.0).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl Drop for Path {
        fn drop(&mut self) {
            drop(fs::remove_file(&self.0));
        }
    }

    fn users() -> Vec<User> {
        include_str!("../users.csv").lines().map(|line| User::parse(line).unwrap()).collect()
    }

    /// As many users with consent.
    fn people(number: usize) -> Vec<User> {
        let dii = |number| Dii::email(&format!("user-{number}@example.com")).unwrap();
        (0..number).map(|number| User { id: number.to_string(), dii: dii(number), consents: true }).collect()
    }

    async fn run_with(sandbox: &Sandbox, path: &Path, users: Vec<User>) -> Tested<Tally> {
        let (client, _) = from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
        run(&client, users, &mut Journal::open(&path.0)?, Pace::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn users_with_consent_are_generated_and_opt_outs_recorded() -> Tested {
        let (sandbox, path) = (Sandbox::builder().build()?, Path::new("outcomes"));
        let tally = run_with(&sandbox, &path, users()).await?;
        assert_eq!(tally, Tally { generated: 2, opted_out: 1, rejected: 0, without_consent: 1 });
        assert_eq!(sandbox.calls().generate, 3);
        let opted_out = |line: &Line| matches!(line.outcome, Outcome::OptedOut).then(|| line.user.clone());
        assert_eq!(path.lines().iter().filter_map(opted_out).collect::<Vec<_>>(), ["3"]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn second_run_generates_only_for_users_who_have_consented_since() -> Tested {
        let (sandbox, path) = (Sandbox::builder().build()?, Path::new("resumed"));
        run_with(&sandbox, &path, users()).await?;
        let mut users = users();
        users.iter_mut().for_each(|user| user.consents = true);
        let tally = run_with(&sandbox, &path, users).await?;
        assert_eq!(tally, Tally { generated: 1, ..Tally::default() });
        assert_eq!(sandbox.calls().generate, 4);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn user_of_an_incomplete_line_is_generated_again() -> Tested {
        let (sandbox, path) = (Sandbox::builder().build()?, Path::new("incomplete"));
        run_with(&sandbox, &path, people(3)).await?;
        let text = fs::read_to_string(&path.0)?;
        fs::write(&path.0, &text[..text.len() - 9])?;
        assert_eq!(run_with(&sandbox, &path, people(3)).await?.generated, 1);
        assert_eq!(path.lines().len(), 3);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn identity_of_the_journal_serves_the_next_visit_and_is_refreshed() -> Tested {
        let (sandbox, path) = (Sandbox::builder().build()?, Path::new("visit"));
        run_with(&sandbox, &path, people(1)).await?;
        let [Line { user, outcome: Outcome::Identity(json) }] = &path.lines()[..] else { panic!("no identity") };
        let identity: Identity = serde_json::from_value(json.clone())?;

        let (_, layer) = from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
        let layer = layer.subject(|_| Some("0"));
        let mut visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
        let (user, token) = (user.clone(), identity.advertising_token().to_owned());
        let site = layer.layer(service_fn(move |request: http::Request<()>| {
            let euid: Euid = request.extensions().get().cloned().unwrap_or_default();
            let mut response = Response::new(euid.advertising_token().map(ToString::to_string));
            if matches!(euid, Euid::Absent) {
                EuidUpdate::login(identity.clone()).subject(&user).attach(&mut response);
            }
            ready(Ok::<_, std::convert::Infallible>(response))
        }));
        assert_eq!(visitor.send(&site, http::Request::new(())).await?.into_body(), None);
        assert_eq!(visitor.send(&site, http::Request::new(())).await?.into_body(), Some(token.clone()));
        sandbox.advance(Duration::from_secs(20 * 60));
        let refreshed = visitor.send(&site, http::Request::new(())).await?.into_body();
        assert!(refreshed.is_some_and(|refreshed| refreshed != token));
        Ok(())
    }

    /// Runs with an operator that answers some calls, by their number from 0, with a 429.
    async fn run_with_refusals(path: &Path, users: usize, refuses: fn(usize) -> bool) -> Tested<Tally> {
        let sandbox = Sandbox::builder().build()?;
        let (operator, calls) = (sandbox.clone(), Arc::new(AtomicUsize::new(0)));
        let service = service_fn(move |request: http::Request<Full<bytes::Bytes>>| {
            let (operator, number) = (operator.clone(), calls.fetch_add(1, SeqCst));
            async move {
                if refuses(number) {
                    let response = Response::builder().status(429).header("retry-after", "60");
                    return Ok(response.body(Full::default()).unwrap());
                }
                operator.oneshot(request).await
            }
        });
        let (client, _) = from_service(sandbox.operator(), service, sandbox.clock())?;
        let pace = Pace { at_once: 1, ..Pace::default() };
        run(&client, people(users), &mut Journal::open(&path.0)?, pace).await
    }

    #[tokio::test(start_paused = true)]
    async fn run_pauses_as_long_as_the_operator_asks_and_then_completes() -> Tested {
        let path = Path::new("pause");
        let two_pauses = |path| run_with_refusals(path, 5, |number| number == 2 || number == 3);
        assert!(timeout(Duration::from_secs(119), two_pauses(&path)).await.is_err());
        assert_eq!(path.lines().len(), 2);
        drop(fs::remove_file(&path.0));
        let tally = timeout(Duration::from_secs(121), two_pauses(&path)).await??;
        assert_eq!((tally.generated, path.lines().len()), (5, 5));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn run_with_a_success_after_each_pause_completes() -> Tested {
        let path = Path::new("slow");
        let tally = run_with_refusals(&path, 20, |number| number % 2 == 0).await?;
        assert_eq!((tally.generated, path.lines().len()), (20, 20));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn calls_begin_at_a_fixed_rate() -> Tested {
        let (sandbox, path) = (Sandbox::builder().build()?, Path::new("rate"));
        let too_short = timeout(Duration::from_millis(1_899), run_with(&sandbox, &path, people(20))).await;
        assert!(too_short.is_err());
        assert_eq!(sandbox.calls().generate, 19);
        drop(fs::remove_file(&path.0));
        timeout(Duration::from_millis(1_999), run_with(&sandbox, &path, people(20))).await??;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_four_calls_are_under_way() -> Tested {
        let (sandbox, path) = (Sandbox::builder().build()?, Path::new("at-once"));
        let under_way = Arc::new(Mutex::new((0, 0)));
        let (operator, counts) = (sandbox.clone(), Arc::clone(&under_way));
        let service = service_fn(move |request: http::Request<Full<bytes::Bytes>>| {
            let (mut operator, counts) = (operator.clone(), Arc::clone(&counts));
            async move {
                {
                    let (now, most) = &mut *counts.lock().unwrap();
                    *now += 1;
                    *most = (*most).max(*now);
                }
                sleep(Duration::from_secs(2)).await;
                counts.lock().unwrap().0 -= 1;
                operator.call(request).await
            }
        });
        let (client, _) = from_service(sandbox.operator(), service, sandbox.clock())?;
        run(&client, people(30), &mut Journal::open(&path.0)?, Pace::default()).await?;
        assert_eq!(*under_way.lock().unwrap(), (0, 4));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_credentials_end_the_run_after_one_call() -> Tested {
        let (sandbox, path) = (Sandbox::builder().build()?, Path::new("credentials"));
        sandbox.fault(Fault::WrongKey);
        let error = run_with(&sandbox, &path, people(1)).await.unwrap_err();
        assert_eq!(error.downcast_ref::<EuidError>().map(EuidError::kind), Some(ErrorKind::Undecryptable));
        assert_eq!((sandbox.calls().generate, path.lines().len()), (1, 0));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn run_ends_after_eight_pauses_and_the_next_one_completes() -> Tested {
        let (sandbox, path) = (Sandbox::builder().build()?, Path::new("down"));
        sandbox.fault(Fault::Status(503));
        let error = run_with(&sandbox, &path, people(1)).await.unwrap_err();
        assert_eq!(error.downcast_ref::<EuidError>().map(EuidError::kind), Some(ErrorKind::Transient));
        assert_eq!(sandbox.calls().generate, 9);
        sandbox.fault(None);
        assert_eq!(run_with(&sandbox, &path, people(1)).await?.generated, 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_hash_is_recorded_and_not_sent_again() -> Tested {
        let (sandbox, path) = (Sandbox::builder().build()?, Path::new("rejected"));
        sandbox.fault(Fault::Refuse("client_error"));
        assert_eq!(run_with(&sandbox, &path, people(2)).await?.rejected, 2);
        assert_eq!(run_with(&sandbox, &path, people(2)).await?, Tally::default());
        assert_eq!(sandbox.calls().generate, 2);
        Ok(())
    }
}
