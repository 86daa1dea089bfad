//! Responses with as many headers as a header map holds: they pass unchanged, with a warning.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use http::{HeaderName, HeaderValue, Response};
use tower_euid::{Euid, EuidUpdate};

use crate::support::{Log, SCOPE, Site, identity};

/// Returns a response whose header map is full.
fn full_response() -> Response<()> {
    let mut response = Response::new(());
    for number in 0.. {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        if response.headers_mut().try_append(name, HeaderValue::from_static("x")).is_err() {
            break;
        }
    }
    response
}

#[tokio::test]
async fn response_with_a_full_header_map_passes_unchanged_with_a_warning() {
    let full = full_response();
    let names = full.headers().keys_len();
    let unwritten =
        format!("WARN tower_euid: a response could not write its cookies scope=\"{SCOPE}\" reason=\"headers_full\"");
    let updates: [fn() -> EuidUpdate; 3] =
        [|| EuidUpdate::login(identity("x")), EuidUpdate::logout, EuidUpdate::opt_out];
    for update in updates {
        let mut site = Site::offline().logged_in(0).await;
        let log = Log::default();
        let _logging = log.start();
        let full = full.clone();
        let handler = move |_: &Euid, response: &mut Response<()>| {
            *response = full.clone();
            update().attach(response);
        };
        let visit = site.visit(handler).await;
        assert_eq!((visit.writes(), visit.response.headers().keys_len()), (String::new(), names));
        assert_eq!(log.take(), [unwritten.as_str()]);
    }
}

#[tokio::test]
async fn full_response_whose_token_was_read_becomes_private_only_if_it_has_a_cache_control() {
    let mut site = Site::offline().logged_in(0).await;
    let (log, mut full) = (Log::default(), full_response());
    let _logging = log.start();
    let respond_with = |full: Response<()>| {
        move |euid: &Euid, response: &mut Response<()>| {
            drop(euid.advertising_token().unwrap().to_string());
            *response = full.clone();
        }
    };
    let unguarded = "WARN tower_euid: a response has too many headers: caches may store it";
    site.visit(respond_with(full.clone())).await;
    assert_eq!(log.take(), [unguarded]);
    full.headers_mut().remove("x-0");
    full.headers_mut().insert("cache-control", HeaderValue::from_static("public"));
    let visit = site.visit(respond_with(full)).await;
    assert_eq!(visit.header("cache-control"), Some("private, no-cache"));
    assert_eq!(log.take(), [unguarded], "the map has no room for `Vary`");
}
