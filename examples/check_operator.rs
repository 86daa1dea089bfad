//! Is the operator reachable, are the credentials right, and does it behave? The tests that the EUID
//! guide asks a publisher to make before going live, against any operator.
//!
//! ```console
//! $ cargo run --example check_operator --features sandbox -- --sandbox
//! operator: http://127.0.0.1:40217
//! pass  generate: validate@example.com gets an identity
//! pass  validate: its token is recognized as that person's
//! …
//! 10 passed, 0 failed
//! ```
//!
//! Without `--sandbox` the operator is the one of `EUID_OPERATOR_URL` (`production`, `integration` or
//! a URL), `EUID_API_KEY` and `EUID_CLIENT_SECRET`. What fails is told with what to do about it, and
//! makes the exit status 1. Real people are not asked for: the addresses are those that operators
//! keep for tests. No token or secret is printed.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tower_euid::sandbox::{Sandbox, SandboxServer};
use tower_euid::{
    Clock, Dii, ErrorKind, EuidClient, EuidClientBuilder, EuidError, Generated, Identity, ManualClock, Refreshed,
    SystemClock, UnixMillis,
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("check_operator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many checks failed.
async fn run() -> Result<u32, Box<dyn Error>> {
    // Lives as long as the checks run.
    let _sandbox: SandboxServer;
    let (operator, api_key) = match env::args().nth(1).as_deref() {
        None => {
            let operator = EuidClientBuilder::from_env()
                .map_err(|error| format!("{error} (to try it without an operator: --sandbox)"))?;
            println!("operator: {}", variable("EUID_OPERATOR_URL"));
            (operator, variable("EUID_API_KEY"))
        }
        Some("--sandbox") => {
            let sandbox = Sandbox::builder().build()?.serve(([127, 0, 0, 1], 0).into()).await?;
            println!("operator: {} (an embedded sandbox)", sandbox.base_url());
            let operator = (sandbox.client_builder(), sandbox.sandbox().api_key().to_owned());
            _sandbox = sandbox;
            operator
        }
        Some(_) => return Err("the only argument there is: --sandbox".into()),
    };
    let client = operator.clone().build()?;
    let wrong_secret = operator.clone().credentials(api_key, WRONG_SECRET).build()?;
    let wrong_key = operator.clone().credentials(WRONG_API_KEY, WRONG_SECRET).build()?;
    let stamped = |time: UnixMillis| operator.clone().clock(ManualClock::at(time)).build();
    let now = SystemClock.now();
    let [early, late, much_too_late] =
        [stamped(now.saturating_add(ROOM))?, stamped(now.saturating_sub(ROOM))?, stamped(now.saturating_sub(DRIFT))?];

    let mut report = Report::default();
    let identity = report.note("generate: validate@example.com gets an identity", generate(&client, ACTIVE).await);
    let Some(identity) = identity else {
        println!("The other checks need that identity and were not run.");
        return Ok(report.done());
    };
    let recognized = validate(&client, identity.advertising_token(), ACTIVE, true).await;
    report.note("validate: its token is recognized as that person's", recognized);
    let mistaken = validate(&client, identity.advertising_token(), SOMEBODY_ELSE, false).await;
    report.note("validate: its token is not taken for somebody else's", mistaken);
    report.note("refresh: three in a row, and still the same person", refresh_chain(&client, identity).await);
    report.note("opt-out at generate: optout@example.com gets no identity", opted_out(&client).await);
    report.note("opt-out at refresh: refresh-optout@example.com has opted out", opts_out_later(&client).await);
    let room = async { generate(&early, ACTIVE).await.and(generate(&late, ACTIVE).await) };
    report.note("clock: this machine's is right, with at least 45 s to spare", room.await);
    let drift = refused(&much_too_late, ErrorKind::ClockDrift).await;
    report.note("clock drift: a clock that is ten minutes off is told", drift);
    report.note("wrong secret: it is told", refused(&wrong_secret, ErrorKind::Undecryptable).await);
    report.note("wrong API key: it is told", refused(&wrong_key, ErrorKind::Unauthorized).await);
    Ok(report.done())
}

async fn generate(client: &EuidClient, address: &str) -> Result<Identity, Problem> {
    match client.generate(person(address)?).await? {
        Generated::Identity(identity) => Ok(identity),
        _ => Err(Problem::unlike_test_identities(address, "is refused an identity")),
    }
}

async fn validate(client: &EuidClient, token: &str, address: &str, expected: bool) -> Result<(), Problem> {
    match client.validate(token, person(address)?).await {
        Ok(answer) if answer == expected => Ok(()),
        Ok(answer) => {
            let whose = if answer { "is taken for its owner" } else { "is not taken for its owner" };
            Err(Problem::unlike_test_identities(address, whose))
        }
        Err(error) if error.kind() == ErrorKind::RejectedInput => Err(Problem::new(
            told(&error),
            "The operator does not take its own token for yours: ask the EUID team whether your site has an encryption \
             key of its own. Generate and refresh work without.",
        )),
        Err(error) => Err(error.into()),
    }
}

async fn refresh_chain(client: &EuidClient, mut identity: Identity) -> Result<(), Problem> {
    for _ in 0..3 {
        let Refreshed::Identity(next) = client.refresh(&identity).await? else {
            return Err(Problem::unlike_test_identities(ACTIVE, "has opted out"));
        };
        if next == identity {
            return Err(Problem::new("the refreshed identity is the old one", "Is there a cache in between?"));
        }
        identity = next;
    }
    validate(client, identity.advertising_token(), ACTIVE, true).await
}

async fn opted_out(client: &EuidClient) -> Result<(), Problem> {
    match client.generate(person(OPTED_OUT)?).await? {
        Generated::OptedOut => Ok(()),
        _ => Err(Problem::unlike_test_identities(OPTED_OUT, "has not opted out")),
    }
}

async fn opts_out_later(client: &EuidClient) -> Result<(), Problem> {
    let identity = generate(client, OPTS_OUT_LATER).await?;
    let Refreshed::OptedOut = client.refresh(&identity).await? else {
        return Err(Problem::unlike_test_identities(OPTS_OUT_LATER, "has not opted out"));
    };
    Ok(())
}

/// A client that is wrong on purpose must be refused, and be told why.
async fn refused(client: &EuidClient, expected: ErrorKind) -> Result<(), Problem> {
    match client.generate(person(ACTIVE)?).await {
        Err(error) if error.kind() == expected => Ok(()),
        Err(error) if error.kind() == ErrorKind::Transient => Err(error.into()),
        Err(error) => Err(Problem::new(
            format!("it is told as another failure, {:?}: {}", error.kind(), told(&error)),
            "Do not rely on the cause that the log gives for a failed call: this operator's answers do not show it.",
        )),
        Ok(_) => Err(Problem::new(
            "the operator did not notice",
            "Something between here and the operator answers in its place, or it is no operator for real people.",
        )),
    }
}

/// The test identities' addresses are good ones.
fn person(address: &str) -> Result<Dii, EuidError> {
    Ok(Dii::email(address)?)
}

/// What failed, and what to do.
struct Problem {
    what: String,
    advice: &'static str,
}

impl Problem {
    fn new(what: impl Into<String>, advice: &'static str) -> Self {
        Self { what: what.into(), advice }
    }

    fn unlike_test_identities(address: &str, what: &str) -> Self {
        Self::new(
            format!("{address} {what}"),
            "An operator of before 2023-10, or none of EUID's, does not know these test identities: which version is it?",
        )
    }
}

impl From<EuidError> for Problem {
    fn from(error: EuidError) -> Self {
        let advice = match error.kind() {
            ErrorKind::Transient => {
                "Is EUID_OPERATOR_URL right, and may this machine connect there (DNS, firewall, proxy)? Is the operator up: \
                 what does GET /ops/healthcheck say?"
            }
            ErrorKind::Unauthorized => {
                "Is EUID_API_KEY one of this very operator, enabled, with the role GENERATOR? Production and integration \
                 have their own keys."
            }
            ErrorKind::Undecryptable => {
                "EUID_CLIENT_SECRET is not the one that was issued with EUID_API_KEY: copy both from the same message."
            }
            ErrorKind::ClockDrift => {
                "Synchronize this machine's clock (NTP; `timedatectl` shows it): two minutes off, and every call fails."
            }
            ErrorKind::RejectedInput => {
                "The operator's version matters: up to 5.65 a private one may want `EuidClientBuilder::optout_check`."
            }
            ErrorKind::RejectedToken => {
                "Refresh tokens of one operator are worth nothing at another: is this one address?"
            }
            ErrorKind::Malformed => {
                "Something answers at EUID_OPERATOR_URL that is no EUID operator: is it the base URL, without /v2, and is \
                 there a proxy or login page in between?"
            }
            _ => "Ask the EUID team, with the time of this call.",
        };
        Self::new(told(&error), advice)
    }
}

/// The error with its causes; none of them holds a secret.
fn told(error: &EuidError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[derive(Default)]
struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    fn note<T>(&mut self, check: &str, outcome: Result<T, Problem>) -> Option<T> {
        match outcome {
            Ok(value) => {
                println!("pass  {check}");
                self.passed += 1;
                Some(value)
            }
            Err(Problem { what, advice }) => {
                println!("FAIL  {check}\n      {what}\n      {advice}");
                self.failed += 1;
                None
            }
        }
    }

    fn done(self) -> u32 {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed
    }
}

/// One that `EuidClientBuilder::from_env` has found.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default().trim().to_owned()
}

/// The test identities of EUID, and somebody whom nobody is asked for.
const ACTIVE: &str = "validate@example.com";
const OPTED_OUT: &str = "optout@example.com";
const OPTS_OUT_LATER: &str = "refresh-optout@example.com";
const SOMEBODY_ELSE: &str = "somebody-else@example.com";

/// Well-formed, and nobody's.
const WRONG_API_KEY: &str = "EUID-C-T-0-wrong1.ThisIsAWrongKeyOfTheCheckOperatorExample";
const WRONG_SECRET: &str = "VGhpcyBpcyBhIHdyb25nIGNsaWVudCBzZWNyZXQgISE=";

/// Operators take requests up to 119 s old or early; the guide says 60 s.
const ROOM: Duration = Duration::from_secs(45);
const DRIFT: Duration = Duration::from_secs(600);
