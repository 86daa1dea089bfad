//! `check`: whether an operator of EUID or UID2 is reachable, accepts the credentials, and behaves as it should. These
//! are the tests that the guides of both ask of a publisher before going live.
//!
//! It checks the operator that `EUID_OPERATOR_URL` (`production`, `integration` or a URL), `EUID_API_KEY` and
//! `EUID_CLIENT_SECRET` name, or `UID2_OPERATOR_URL` and so on. If both are set, it checks both operators. For each
//! failure it prints advice. It uses only the addresses that operators reserve for tests. It prints no token and no
//! secret.

use std::env;
use std::error::Error;
use std::time::Duration;

use clap::Args;
use euid_sandbox::{Sandbox, SandboxServer};
use tower_euid::clock::{Clock, ManualClock, SystemClock, UnixMillis};
use tower_euid::error::{ConfigError, ErrorKind, EuidError};
use tower_euid::{Dii, EuidClient, EuidClientBuilder, Generated, Identity, Refreshed, Scope};

/// Which operator is checked, and how.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Checks an embedded sandbox of each scope
    #[arg(long)]
    sandbox: bool,
    /// Sends `optout_check: 1`, which private operators up to 5.65 require
    #[arg(long)]
    optout_check: bool,
}

/// # Errors
///
/// If a check failed, after its advice has been printed.
pub(crate) async fn check(options: Options) -> Result<(), String> {
    match run(&options).await {
        Ok(0) => Ok(()),
        Ok(failed) => Err(format!("failed checks: {failed}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A client of the sandbox, with the sandbox's clock.
fn client_builder(sandbox: &SandboxServer) -> EuidClientBuilder {
    EuidClientBuilder::from_operator(sandbox.operator()).clock(sandbox.sandbox().clock())
}

/// Returns the number of checks that failed.
async fn run(options: &Options) -> Result<u32, Box<dyn Error>> {
    // The sandboxes must live as long as the checks run.
    let mut sandboxes: Vec<SandboxServer> = Vec::new();
    let mut operators = Vec::new();
    if options.sandbox {
        for scope in Scope::ALL {
            let sandbox = Sandbox::builder().scope(scope).build()?.serve(([127, 0, 0, 1], 0).into()).await?;
            let name = format!("{} (an embedded sandbox)", sandbox.base_url());
            operators.push((scope, client_builder(&sandbox), sandbox.sandbox().api_key().to_owned(), name));
            sandboxes.push(sandbox);
        }
    } else {
        let variable = |scope: Scope, name: &str| variable(&format!("{}{name}", scope.env_prefix()));
        for scope in scopes(|scope| SETTINGS.iter().any(|name| !variable(scope, name).is_empty())) {
            let operator = EuidClientBuilder::from_env_of(scope)
                .map_err(|error| format!("{error} (to try it without an operator: --sandbox)"))?;
            operators.push((scope, operator, variable(scope, "API_KEY"), variable(scope, "OPERATOR_URL")));
        }
    }
    let mut failed = 0;
    for (scope, operator, api_key, name) in operators {
        println!("operator of {scope}: {name}");
        let operator = if options.optout_check { operator.optout_check(true) } else { operator };
        let mut report = Report::of(scope);
        check_operator(&operator, &api_key, &mut report).await?;
        failed += report.done();
    }
    Ok(failed)
}

/// The scopes to check: those whose variables are set. If none are, EUID, so that an error names its variables.
fn scopes(is_set: impl Fn(Scope) -> bool) -> Vec<Scope> {
    let set: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| is_set(*scope)).collect();
    if set.is_empty() { vec![Scope::Euid] } else { set }
}

async fn check_operator(operator: &EuidClientBuilder, api_key: &str, report: &mut Report) -> Result<(), ConfigError> {
    let client = operator.clone().build()?;
    let wrong_secret = operator.clone().credentials(api_key, WRONG_SECRET).build()?;
    let wrong_key = operator.clone().credentials(WRONG_API_KEY, WRONG_SECRET).build()?;
    let stamped = |time: UnixMillis| operator.clone().clock(ManualClock::at(time)).build();
    let now = SystemClock.now();
    let [early, late, much_too_late] =
        [stamped(now.saturating_add(ROOM))?, stamped(now.saturating_sub(ROOM))?, stamped(now.saturating_sub(DRIFT))?];

    let identity = report.note("generate: validate@example.com gets an identity", generate(&client, ACTIVE).await);
    let Some(identity) = identity else {
        report.line("The other checks need that identity and were not run.".to_owned());
        return Ok(());
    };
    let mistaken = "validate: its token is not taken for another person's";
    let recognized = validate(&client, identity.advertising_token(), ACTIVE, true).await;
    let validates = report.note("validate: its token is recognized as that person's", recognized).is_some();
    if validates {
        report.note(mistaken, validate(&client, identity.advertising_token(), OTHER_PERSON, false).await);
    } else {
        report.skip(mistaken);
    }
    let chain = refresh_chain(&client, identity, validates).await;
    report.note("refresh: three in a row, and still the same person", chain);
    report.note("opt-out at generate: optout@example.com gets no identity", opted_out(&client).await);
    report.note("opt-out at refresh: refresh-optout@example.com has opted out", opts_out_later(&client).await);
    let room = async { generate(&early, ACTIVE).await.and(generate(&late, ACTIVE).await) };
    report.note("clock: this machine's is right, with at least 45 s to spare", room.await);
    let drift = refused(&much_too_late, ErrorKind::ClockDrift).await;
    report.note("clock drift: the operator reports a clock that is ten minutes off", drift);
    report.note("wrong secret: the operator reports it", refused(&wrong_secret, ErrorKind::Undecryptable).await);
    report.note("wrong API key: the operator reports it", refused(&wrong_key, ErrorKind::Unauthorized).await);
    Ok(())
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
            describe(&error),
            "The operator does not take its own token for yours: ask the {scope} team whether your site has an encryption \
             key of its own. Generate and refresh work without.",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Refreshes three times. Then checks that the token is still the person's, if the operator validates this publisher's tokens.
async fn refresh_chain(client: &EuidClient, mut identity: Identity, validates: bool) -> Result<(), Problem> {
    for _ in 0..3 {
        let Refreshed::Identity(next) = client.refresh(&identity).await? else {
            return Err(Problem::unlike_test_identities(ACTIVE, "has opted out"));
        };
        if next == identity {
            return Err(Problem::new("the refreshed identity is the old one", "Is there a cache in between?"));
        }
        identity = next;
    }
    if validates { validate(client, identity.advertising_token(), ACTIVE, true).await } else { Ok(()) }
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

/// Calls with a client that is wrong on purpose. The operator must refuse it, and the error must name the cause.
async fn refused(client: &EuidClient, expected: ErrorKind) -> Result<(), Problem> {
    match client.generate(person(ACTIVE)?).await {
        Err(error) if error.kind() == expected => Ok(()),
        Err(error) if error.kind() == ErrorKind::Transient => Err(error.into()),
        Err(error) => Err(Problem::new(
            format!("it is reported as another failure, {:?}: {}", error.kind(), describe(&error)),
            "Do not rely on the cause that the log gives for a failed call: this operator's answers do not show it.",
        )),
        Ok(_) => Err(Problem::new(
            "the operator did not notice",
            "Something between here and the operator answers in its place, or it is no operator for real people.",
        )),
    }
}

/// A person of the checks. All their addresses are valid.
fn person(address: &str) -> Result<Dii, EuidError> {
    Ok(Dii::email(address)?)
}

/// A failure, and advice. In the advice, `{scope}` is the name of the scope, `{word}` its word in configurations, and
/// `{PREFIX}` the beginning of its variables.
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
            "An operator of before 2023-10, or none of {scope}'s, does not know these test identities: which version is it?",
        )
    }
}

impl From<EuidError> for Problem {
    fn from(error: EuidError) -> Self {
        let advice = match error.kind() {
            ErrorKind::Transient if error.to_string().contains("HTTP 500") => {
                "If it answers HTTP 500 to every call, the operator may run without encryption: set `enable_v2_encryption` \
                 in its configuration to true, which development configurations have as false. Otherwise see its log."
            }
            ErrorKind::Transient => {
                "Is {PREFIX}OPERATOR_URL right, and may this machine connect there (DNS, firewall, proxy)? Is the operator up: \
                 what does GET /ops/healthcheck say?"
            }
            ErrorKind::Unauthorized => {
                "Is {PREFIX}API_KEY one of this very operator, enabled, with the role GENERATOR? Production and integration \
                 have their own keys."
            }
            ErrorKind::Undecryptable => {
                "{PREFIX}CLIENT_SECRET is not the one that was issued with {PREFIX}API_KEY: copy both from the same message."
            }
            ErrorKind::WrongScope => {
                "Bidders of {scope} do not know these tokens: {PREFIX}OPERATOR_URL and {PREFIX}API_KEY must be those of an \
                 operator of {scope}. A private operator is one with `identity_scope` set to `{word}`."
            }
            ErrorKind::ClockDrift => {
                "Synchronize this machine's clock (NTP; `timedatectl` shows it): two minutes off, and every call fails."
            }
            ErrorKind::RejectedInput if error.to_string().contains("optout_check") => {
                "A private operator up to 5.65: run this with --optout-check, and the site with {PREFIX}OPTOUT_CHECK or \
                 `EuidClientBuilder::optout_check`."
            }
            ErrorKind::RejectedInput => {
                "The operator does not take the test identity of this check: which version is it?"
            }
            ErrorKind::RejectedToken => {
                "Refresh tokens of one operator are worth nothing at another: is this one address?"
            }
            ErrorKind::Malformed => {
                "Something answers at {PREFIX}OPERATOR_URL that is no {scope} operator: is it the base URL, without /v2, and is \
                 there a proxy or login page in between?"
            }
            _ => "Ask the {scope} team, with the time of this call.",
        };
        Self::new(describe(&error), advice)
    }
}

/// The text of the error and of its causes. None of them contains a secret.
fn describe(error: &EuidError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

struct Report {
    scope: Scope,
    passed: u32,
    failed: u32,
    skipped: u32,
    lines: Vec<String>,
}

impl Report {
    fn of(scope: Scope) -> Self {
        Self { scope, passed: 0, failed: 0, skipped: 0, lines: Vec::new() }
    }

    fn note<T>(&mut self, check: &str, outcome: Result<T, Problem>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.line(format!("pass  {check}"));
                self.passed += 1;
                Some(value)
            }
            Err(Problem { what, advice }) => {
                self.line(format!("FAIL  {check}\n      {what}\n      {}", self.filled(advice)));
                self.failed += 1;
                None
            }
        }
    }

    /// The advice for this scope.
    fn filled(&self, advice: &str) -> String {
        let text = advice.replace("{scope}", &self.scope.to_string()).replace("{word}", self.scope.as_str());
        text.replace("{PREFIX}", self.scope.env_prefix())
    }

    /// Skips a check that would fail for the same reason as an earlier one.
    fn skip(&mut self, check: &str) {
        self.line(format!("skip  {check}"));
        self.skipped += 1;
    }

    fn line(&mut self, line: String) {
        println!("{line}");
        self.lines.push(line);
    }

    fn done(&mut self) -> u32 {
        let more = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        self.line(format!("{} passed, {} failed{more}", self.passed, self.failed));
        self.failed
    }
}

/// The value of a variable, as `EuidClientBuilder::from_env_of` reads it; empty if it is not set.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default().trim().to_owned()
}

/// The variables of an operator, without the beginning that names the scope.
const SETTINGS: [&str; 3] = ["OPERATOR_URL", "API_KEY", "CLIENT_SECRET"];

/// The test identities of both scopes, and an address for which no identity is generated.
const ACTIVE: &str = "validate@example.com";
const OPTED_OUT: &str = "optout@example.com";
const OPTS_OUT_LATER: &str = "refresh-optout@example.com";
const OTHER_PERSON: &str = "somebody-else@example.com";

/// Credentials that are well-formed but not in use. Like an old API key, this one tells no scope.
const WRONG_API_KEY: &str = "wrong1.ThisIsAWrongKeyOfTheCheckOperatorExample";
const WRONG_SECRET: &str = "VGhpcyBpcyBhIHdyb25nIGNsaWVudCBzZWNyZXQgISE=";

/// Operators accept requests whose time is up to 119 s off; the guide says 60 s.
const ROOM: Duration = Duration::from_secs(45);
const DRIFT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use aes_gcm::aead::{Aead, KeyInit};
    use aes_gcm::{Aes256Gcm, Nonce};
    use axum::Router;
    use axum::body::to_bytes;
    use axum::http::StatusCode;
    use axum::middleware::map_response;
    use axum::response::Response;
    use axum::routing::post;
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use euid_sandbox::{Fault, SandboxBuilder};
    use tokio::net::TcpListener;
    use tower_euid::Environment;

    use super::*;

    type Tested<T = ()> = Result<T, Box<dyn Error>>;

    /// Returns the report on a sandbox with `fault`, for a client that `configure` has changed.
    async fn checked(
        sandbox: SandboxBuilder,
        fault: Option<Fault>,
        configure: fn(EuidClientBuilder) -> EuidClientBuilder,
    ) -> Tested<Report> {
        let server = sandbox.build()?.serve(([127, 0, 0, 1], 0).into()).await?;
        server.fault(fault);
        report(server.sandbox().scope(), &configure(client_builder(&server)), server.sandbox().api_key()).await
    }

    async fn report(scope: Scope, operator: &EuidClientBuilder, api_key: &str) -> Tested<Report> {
        let mut report = Report::of(scope);
        check_operator(operator, api_key, &mut report).await?;
        report.done();
        Ok(report)
    }

    fn lines_with<'a>(report: &'a Report, word: &str) -> Vec<&'a str> {
        report.lines.iter().map(String::as_str).filter(|line| line.contains(word)).collect()
    }

    #[tokio::test]
    async fn good_operator_passes_every_check() -> Tested {
        for scope in Scope::ALL {
            let report = checked(Sandbox::builder().scope(scope), None, |client| client).await?;
            assert_eq!(report.lines.last().map(String::as_str), Some("10 passed, 0 failed"), "{:?}", report.lines);
        }
        Ok(())
    }

    #[tokio::test]
    async fn old_operator_needs_the_optout_check() -> Tested {
        let old = Sandbox::builder().wants_optout_check(true);
        let without = checked(old.clone(), None, |client| client).await?;
        assert_eq!((without.passed, without.failed), (0, 1));
        assert_eq!(lines_with(&without, "run this with --optout-check").len(), 1, "{:?}", without.lines);
        let with = checked(old, None, |client| client.optout_check(true)).await?;
        assert_eq!((with.passed, with.failed), (10, 0), "{:?}", with.lines);
        Ok(())
    }

    #[tokio::test]
    async fn api_key_without_a_keyset_is_one_failure() -> Tested {
        // The operator's answer for the tokens of a site without its own encryption key.
        let refusal = r#"{"message":"Unauthorised to validate token","status":"client_error"}"#;
        let sandbox = Sandbox::builder().build()?;
        let validate = post(async move || (StatusCode::BAD_REQUEST, refusal));
        let app = Router::new().route("/v2/token/validate", validate).fallback_service(sandbox.clone());
        let report = report_of(Scope::Euid, app, &sandbox).await?;
        assert_eq!(
            report.lines.last().map(String::as_str),
            Some("8 passed, 1 failed, 1 skipped"),
            "{:?}",
            report.lines
        );
        assert_eq!(lines_with(&report, "an encryption key of its own").len(), 1, "{:?}", report.lines);
        Ok(())
    }

    #[tokio::test]
    async fn operator_without_encryption_is_distinguished_from_one_that_is_down() -> Tested {
        for (status, advice) in [(500, "`enable_v2_encryption`"), (503, "Is the operator up")] {
            let report = checked(Sandbox::builder(), Some(Fault::Status(status)), |client| client).await?;
            assert_eq!((report.passed, report.failed), (0, 1), "{status}");
            assert_eq!(lines_with(&report, advice).len(), 1, "{:?}", report.lines);
        }
        Ok(())
    }

    /// Replaces the EUID token in an answer to generate by a UID2 token.
    async fn with_uid2_token(response: Response) -> Response {
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 64 * 1024).await.unwrap();
        let cipher =
            Aes256Gcm::new_from_slice(&BASE64_STANDARD.decode(Sandbox::DEFAULT_CLIENT_SECRET).unwrap()).unwrap();
        let opened = BASE64_STANDARD.decode(&body).ok().and_then(|envelope| {
            let (nonce, sealed) = envelope.split_first_chunk::<12>()?;
            Some((*nonce, cipher.decrypt(&Nonce::from(*nonce), sealed).ok()?))
        });
        // The answer to a refresh is sealed under another key.
        let Some((nonce, mut plain)) = opened else { return Response::from_parts(parts, body.into()) };
        if let Some(at) = plain.windows(5).position(|text| text == b":\"E4A") {
            plain[at + 2] = b'A';
        }
        let sealed = cipher.encrypt(&Nonce::from(nonce), plain.as_slice()).unwrap();
        Response::new(BASE64_STANDARD.encode([&nonce[..], &sealed].concat()).into())
    }

    /// Returns the report on `app`, an operator of `scope` on a loopback port with the credentials of `sandbox`.
    async fn report_of(scope: Scope, app: Router, sandbox: &Sandbox) -> Tested<Report> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = tokio::spawn(axum::serve(listener, app).into_future());
        let operator = EuidClient::builder(Environment::Url(url)).scope(scope);
        let operator = operator.credentials(sandbox.api_key(), sandbox.client_secret());
        let report = report(scope, &operator, sandbox.api_key()).await;
        server.abort();
        report
    }

    #[tokio::test]
    async fn operator_with_tokens_of_the_other_scope_is_one_failure_that_names_both() -> Tested {
        // Its API key tells no scope.
        let sandbox = Sandbox::builder().credentials("old-key", Sandbox::DEFAULT_CLIENT_SECRET).build()?;
        let with_euid_tokens = Router::new().fallback_service(sandbox.clone());
        let with_uid2_tokens = with_euid_tokens.clone().layer(map_response(with_uid2_token));
        for (scope, app) in [(Scope::Euid, with_uid2_tokens), (Scope::Uid2, with_euid_tokens)] {
            let report = report_of(scope, app, &sandbox).await?;
            assert_eq!((report.passed, report.failed), (0, 1), "{:?}", report.lines);
            let issued = format!("issued a token of {}, and this client is for {scope}", scope.other());
            assert_eq!(lines_with(&report, &issued).len(), 1, "{:?}", report.lines);
            let advice = format!("`identity_scope` set to `{}`", scope.as_str());
            assert_eq!(lines_with(&report, &advice).len(), 1, "{:?}", report.lines);
        }
        Ok(())
    }

    #[test]
    fn advice_names_the_scope_of_the_operator_and_its_variables() {
        for scope in Scope::ALL {
            let mut report = Report::of(scope);
            for kind in [
                ErrorKind::Transient,
                ErrorKind::Unauthorized,
                ErrorKind::Undecryptable,
                ErrorKind::WrongScope,
                ErrorKind::Malformed,
                ErrorKind::UnknownStatus,
            ] {
                report.note("check", Err::<(), _>(Problem::from(EuidError::new(kind, "what"))));
            }
            report.note("check", Err::<(), _>(Problem::unlike_test_identities(ACTIVE, "what")));
            for line in &report.lines {
                assert!(line.contains(&scope.to_string()) && !line.contains(&scope.other().to_string()), "{line}");
                assert!(!line.contains(['{', '}']), "{line}");
            }
        }
    }

    #[test]
    fn operators_to_check_are_those_whose_variables_are_set() {
        assert_eq!(scopes(|_| false), [Scope::Euid]);
        assert_eq!(scopes(|_| true), Scope::ALL);
        for only in Scope::ALL {
            assert_eq!(scopes(|scope| scope == only), [only]);
        }
    }
}
