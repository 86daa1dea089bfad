//! The guides name cookies, metrics, events, files and types; these tests compare them with the code.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use tower_euid::clock::UnixMillis;
use tower_euid::engine::{Change, Engine, RequestContext, Step};
use tower_euid::{CookieConfig, CookieKey, EuidUpdate, HeaderConfig, Identity, Refreshed, Scope};

use crate::support::{Operator, Site, identity_until, set_cookies};

const APPS: &str = include_str!("../../src/docs/apps.md");
const README: &str = include_str!("../../README.md");
const GUIDE: &str = "https://docs.rs/tower-euid/latest/tower_euid/docs/";
const PRIVACY: &str = include_str!("../../src/docs/privacy.md");
const SCOPES: &str = include_str!("../../src/docs/scopes.md");
const METRICS: &str = include_str!("../../src/docs/metrics.md");
const TROUBLESHOOTING: &str = include_str!("../../src/docs/troubleshooting.md");
/// Guides that name metrics or events.
const GUIDES: [&str; 5] = [
    include_str!("../../src/docs/failures.md"),
    METRICS,
    include_str!("../../src/docs/operations.md"),
    include_str!("../../src/docs/serverless.md"),
    TROUBLESHOOTING,
];
/// Pages for people who change the code. The package has neither these nor all of the code.
const FOR_DEVELOPERS: [&str; 2] = ["CONTRIBUTING.md", "docs/architecture.md"];
/// The code of all metrics and events.
const TELEMETRY: &str = concat!(
    include_str!("../../src/telemetry.rs"),
    include_str!("../../src/telemetry/calls.rs"),
    include_str!("../../src/telemetry/series.rs"),
    include_str!("../../src/telemetry/store.rs")
);
/// An event of another crate, and its code, which the package does not have.
const STORE_EVENT: &str = "the layer has a store";
const STORE_OF_THE_ENVIRONMENT: &str = "crates/tower-euid-redis/src/env.rs";
const ALERTS: &str = include_str!("../../monitoring/alerts.yml");
const DASHBOARD: &str = include_str!("../../monitoring/dashboard.json");

/// A row of the table of cookies: names, lifetime and `HttpOnly`.
struct Row {
    names: Vec<&'static str>,
    days: u64,
    http_only: bool,
}

fn cookie_table() -> Vec<Row> {
    PRIVACY.lines().filter(|line| line.starts_with("| `")).map(row).collect()
}

fn row(line: &'static str) -> Row {
    let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
    let names = cells.next().unwrap().split('`').skip(1).step_by(2).collect();
    let mut cells = cells.skip(2);
    // The longest lifetime that the row names.
    let words: Vec<&str> = cells.next().unwrap().split_whitespace().collect();
    let pairs = words.iter().zip(words.iter().skip(1)).filter(|(_, unit)| unit.starts_with("days"));
    let days = pairs.map(|(number, _)| number.parse().unwrap()).max().unwrap_or(0);
    Row { names, days, http_only: cells.next().unwrap() == "yes" }
}

/// Returns an identity that lives longer than any cookie may.
fn long_lived(name: &str) -> Identity {
    identity_until(name, [1, 2, 3].map(|years| years * 400 * 86_400_000))
}

/// Returns the `Set-Cookie` lines of a whole login: login, refreshes, opt-outs, logout.
async fn every_cookie(scope: Scope, config: CookieConfig) -> Vec<String> {
    let mut lines = Vec::new();
    let config = config.expose_token_to_scripts().migrate_js_sdk_cookie(None).unwrap();
    for answer in [Ok(Refreshed::Identity(long_lived("new"))), Ok(Refreshed::OptedOut)] {
        let operator = Operator::answering(answer).of_scope(scope);
        let mut site = Site::new(operator).configured(|layer| layer.cookie(config.clone()));
        for update in [EuidUpdate::opt_out(), EuidUpdate::logout(), EuidUpdate::login(long_lived("old"))] {
            let visit = site.update(update).await;
            lines.extend(lines_of(&visit.response));
        }
        site.clock.advance(Duration::from_secs(600 * 86_400));
        lines.extend(lines_of(&site.look().await.response));
    }
    lines
}

/// Returns the name as the guides write it, with `TAG` in place of a login's tag.
fn untagged(name: &str) -> String {
    match name.split_once('.') {
        Some((beginning, tag)) => {
            assert!(tag == "sdk" || tag.len() == 4, "{name}");
            format!("{beginning}.TAG")
        }
        None => name.to_owned(),
    }
}

fn lines_of(response: &Response<()>) -> Vec<String> {
    set_cookies(response.headers()).into_iter().map(|line| line.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn privacy_table_lists_every_cookie_with_its_lifetime_and_http_only() {
    let rows = cookie_table();
    let mut written = BTreeSet::new();
    let domain = CookieConfig::default().domain("publisher.example").unwrap();
    for config in [CookieConfig::default(), domain, CookieConfig::insecure()] {
        for line in every_cookie(Scope::Euid, config).await {
            let name = untagged(line.split('=').next().unwrap());
            let row = rows.iter().find(|row| row.names.contains(&&*name)).unwrap();
            assert_eq!(line.contains("; HttpOnly"), row.http_only, "{line}");
            let max_age = line.split("; Max-Age=").nth(1).unwrap().split(';').next().unwrap();
            assert!(max_age.parse::<u64>().unwrap() <= row.days * 86_400, "{line}");
            written.insert((name, max_age.parse::<u64>().unwrap() == row.days * 86_400));
        }
    }
    for name in rows.iter().flat_map(|row| &row.names) {
        assert!(written.contains(&((*name).to_owned(), true)), "some {name} cookie lives as long as the table says");
    }
}

#[tokio::test]
async fn guides_name_every_cookie_of_uid2() {
    let lines = every_cookie(Scope::Uid2, CookieConfig::default()).await;
    let names: BTreeSet<_> = lines.iter().map(|line| untagged(line.split('=').next().unwrap())).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    for name in names {
        assert!(PRIVACY.contains(&format!("`{name}`")), "{name}");
        assert!(column_of(Scope::Uid2).contains(&format!("`{name}`")), "{name}");
    }
}

/// Returns the names of the headers that an app keeps, as the guides write them: of a login, an opt-out and a logout.
fn every_header(scope: Scope) -> BTreeSet<String> {
    let engine = Engine::new(CookieKey::generate().unwrap().into()).with_scope(scope);
    let engine = engine.with_headers(HeaderConfig::default());
    let wants = HeaderName::try_from(format!("{scope}-login")).unwrap();
    let wants = HeaderMap::from_iter([(wants, HeaderValue::from_static(""))]);
    let token = if scope == Scope::Euid { "E4long" } else { "A4long" };
    let mut names = BTreeSet::new();
    for change in [Change::login(long_lived(token)), Change::opt_out(), Change::EndLogin] {
        let now = || UnixMillis::from_millis(0);
        let step = engine.begin(&Method::POST, &wants, &RequestContext::UNRESTRICTED, now);
        let Step::Ready(decision) = step else { unreachable!("it brought nothing") };
        let mut response = HeaderMap::new();
        engine.finish(decision.start().1, Some(&change), StatusCode::OK, &mut response, now);
        names
            .extend(response.keys().filter(|name| **name != CACHE_CONTROL).map(|name| header_in_guides(name.as_str())));
    }
    names
}

/// Returns the name as the guides write it: words with a capital, and `TAG` in place of a login's tag.
fn header_in_guides(name: &str) -> String {
    let is_tag = |word: &str| word.len() == 6 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let word = |word: &str| match word.split_at(1) {
        _ if is_tag(word) => "TAG".to_owned(),
        (first, rest) => first.to_ascii_uppercase() + rest,
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

#[test]
fn guides_name_every_header_of_apps() {
    for scope in Scope::ALL {
        let names = every_header(scope);
        assert_eq!(names.len(), 3, "{names:?}");
        for name in names.iter().map(|name| format!("`{name}`")) {
            assert!([APPS, PRIVACY, &column_of(scope)].iter().all(|guide| guide.contains(&name)), "{name}");
        }
    }
}

/// Returns the column of a scope in the table of all that differs.
fn column_of(scope: Scope) -> String {
    let rows = SCOPES.split("\n## What differs\n").nth(1).unwrap().lines().skip_while(|line| line.is_empty());
    let cells = rows.take_while(|row| row.starts_with('|')).map(|row| row.trim_matches('|').split(" | "));
    cells.map(|mut cells| cells.nth(if scope == Scope::Euid { 1 } else { 2 }).unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn table_of_scopes_has_the_literals_of_each() {
    let cookies = CookieConfig::default();
    for scope in Scope::ALL {
        let column = column_of(scope);
        for literal in [
            format!("`{}OPERATOR_URL`", scope.env_prefix()),
            format!("`{}TAG`", cookies.identity_prefix(scope)),
            format!("`{}`", cookies.anchor_name(scope)),
            format!("`{}TAG`", cookies.opt_out_prefix(scope)),
            format!("`{}`", scope.eid_source()),
            format!("`{}`", scope.as_str()),
        ] {
            assert!(column.contains(&literal), "{literal}");
        }
    }
}

/// Returns the texts between each `start` and the next character that `is_end`.
fn texts<'a>(text: &'a str, start: &'a str, is_end: impl Fn(char) -> bool + Copy) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).map(move |rest| rest.split(is_end).next().unwrap().trim_end())
}

#[test]
fn metrics_and_labels_named_in_the_guides_exist() {
    let is_end = |character: char| !character.is_ascii_lowercase() && character != '_';
    let mut count = 0;
    for name in GUIDES.iter().flat_map(|guide| texts(guide, "euid_", is_end)) {
        assert!(TELEMETRY.contains(&format!("\"euid_{name}\"")), "euid_{name}");
        count += 1;
    }
    for label in ["outcome=", "reason="] {
        for value in GUIDES.iter().flat_map(|guide| texts(guide, label, |end| end == '}' || end.is_whitespace())) {
            for word in value.trim_matches(['~', '!', '=', '"', '`']).split('|') {
                assert!(TELEMETRY.contains(&format!("\"{word}\"")), "{label}{word}");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn every_metric_has_a_row_in_the_guide() {
    let is_end = |character: char| !character.is_ascii_lowercase() && character != '_';
    let names: BTreeSet<_> = texts(TELEMETRY, "\"euid_", is_end).collect();
    let missing = names.iter().find(|name| !METRICS.contains(&format!("\n| `euid_{name}` |")));
    assert_eq!((missing, names.len()), (None, 14));
}

/// The first cells of the table, and the first literals after the names of the macros.
#[test]
fn table_of_events_has_the_texts_of_the_log() {
    let table = METRICS.split("\n| event |").nth(1).unwrap().lines().skip(2).take_while(|line| line.starts_with('|'));
    let in_guide: BTreeSet<_> = table.map(|row| row[2..].split(" | ").next().unwrap().to_owned()).collect();
    let macros = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    let events = |code: &str| -> BTreeSet<_> {
        let calls = code.split("tracing::").filter(|rest| macros.iter().any(|name| rest.starts_with(name)));
        calls.map(|rest| joined(rest.split('"').nth(1).unwrap())).collect()
    };
    let mut in_code = events(TELEMETRY);
    match repository_file(STORE_OF_THE_ENVIRONMENT) {
        Some(store) => in_code.extend(events(&store)),
        None => in_code.extend([STORE_EVENT.to_owned()]),
    }
    assert_eq!(in_guide, in_code);
    assert!(in_code.len() > 30, "{in_code:?}");
}

/// Returns the text of a literal that continues on further lines.
fn joined(literal: &str) -> String {
    literal.split("\\\n").map(str::trim_start).collect()
}

#[test]
fn metrics_and_labels_of_the_alert_rules_and_the_dashboard_exist() {
    let dashboard = DASHBOARD.replace("\\\"", "\"");
    let mut sidecar = String::new();
    if repository_file(".ci/run").is_some() {
        add_code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/euid-sidecar/src"), &mut sidecar);
    }
    let is_end = |character: char| !character.is_ascii_lowercase() && character != '_';
    for file in [ALERTS, &dashboard] {
        let mut count = 0;
        for name in texts(file, "euid_", is_end).filter(|name| !name.starts_with("sidecar_") || !sidecar.is_empty()) {
            let name = ["_bucket", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            let quoted = format!("\"euid_{name}\"");
            assert!(TELEMETRY.contains(&quoted) || sidecar.contains(&quoted), "{name}");
            count += 1;
        }
        for label in [" outcome=", "{outcome=", "reason=", "state=", "call="] {
            for value in texts(file, label, |end| matches!(end, '}' | ',')) {
                for word in value.trim_matches(['~', '"']).split('|') {
                    assert!(TELEMETRY.contains(&format!("\"{word}\"")), "{label}{word}");
                }
            }
        }
        assert!(count > 20, "{count}");
    }
}

#[test]
fn alerts_named_in_the_guides_are_rules() {
    let guides = GUIDES.into_iter().chain([include_str!("../../src/docs/stores.md")]);
    let names: Vec<_> = guides.flat_map(|guide| texts(guide, "alert `", |end| end == '`')).collect();
    for name in &names {
        assert!(ALERTS.contains(&format!("- alert: {name}\n")), "{name}");
    }
    assert!(names.len() >= 5, "{names:?}");
}

#[test]
fn events_quoted_on_the_troubleshooting_page_exist() {
    let events: Vec<_> = texts(TROUBLESHOOTING, " tower_euid: ", |end| end == '`' || end == '\n').collect();
    for event in &events {
        let message = event.split(" reason=").next().unwrap();
        assert!(TELEMETRY.contains(&format!("\"{message}\"")) || message == STORE_EVENT, "{message}");
    }
    assert!(events.len() >= 4, "{events:?}");
}

/// Returns a file of the repository; `None` in the package, which does not have it.
fn repository_file(path: &str) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join(".ci").is_dir().then(|| fs::read_to_string(root.join(path)).unwrap())
}

/// Returns the texts between backticks on the pages for developers, without code blocks. Empty in the package.
fn code_spans() -> Vec<String> {
    let pages = FOR_DEVELOPERS.iter().filter_map(|page| repository_file(page));
    let spans = |page: String| -> Vec<String> {
        let prose = page.split("```").step_by(2);
        prose.flat_map(|prose| prose.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
    };
    pages.flat_map(spans).collect()
}

/// Adds the Rust code of a folder and its subfolders.
fn add_code(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            add_code(&entry, code);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&fs::read_to_string(entry).unwrap());
        }
    }
}

#[test]
fn files_named_on_the_pages_for_developers_exist() {
    let is_path = |word: &&str| word.contains('/') || [".rs", ".md", ".toml"].iter().any(|end| word.ends_with(end));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let spans = code_spans();
    let paths = spans.iter().flat_map(|span| span.split_whitespace()).filter(is_path);
    let missing: BTreeSet<_> = paths.filter(|path| !root.join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// On GitHub, a guide's links to other guides would lead nowhere. So pages link to it where it is rendered.
#[test]
fn guides_that_the_readme_links_to_exist() {
    let guides: BTreeSet<&str> = texts(README, GUIDE, |next| next == '/').collect();
    assert!(guides.len() > 15, "{guides:?}");
    let modules = include_str!("../../src/lib.rs");
    for guide in guides {
        assert!(modules.contains(&format!("pub mod {guide} {{")), "{guide}");
    }
    assert_eq!(texts(README, "(src/docs/", |next| next == '/').collect::<Vec<_>>(), ["pictures"]);
}

#[test]
fn types_and_functions_named_on_the_pages_for_developers_exist() {
    let spans = code_spans();
    if spans.is_empty() {
        return;
    }
    let is_in_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    // A Rust name has a capital, a colon or an underscore; other words in backticks may be anything.
    let is_name = |span: &&String| {
        span.chars().all(|character| is_in_word(character) || character == ':')
            && span.contains(|character: char| character.is_ascii_uppercase() || matches!(character, ':' | '_'))
    };
    let mut code = String::new();
    for folder in ["src", "crates"] {
        add_code(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut code);
    }
    let known: BTreeSet<&str> = code.split(|character| !is_in_word(character)).collect();
    let names = spans.iter().filter(is_name).flat_map(|span| span.split("::"));
    let missing: BTreeSet<_> = names.filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn workflow_runs_every_step_and_the_justfile_names_only_existing_steps() {
    let Some(run) = repository_file(".ci/run") else { return };
    let steps: BTreeSet<_> = texts(&run, "\nstep ", char::is_whitespace).collect();
    let workflow = repository_file(".github/workflows/ci.yml").unwrap();
    let in_workflow = texts(&workflow, ", steps: ", |end| end == '}').flat_map(str::split_whitespace);
    assert_eq!(in_workflow.collect::<BTreeSet<_>>(), steps);
    let justfile = repository_file("justfile").unwrap();
    let lines = texts(&justfile, "\n    bash .ci/run ", |end| end == '\n');
    assert_eq!(lines.flat_map(str::split_whitespace).find(|step| !steps.contains(step)), None);
}
