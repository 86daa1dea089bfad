//! Who is logged in by the cookie of EUID's JavaScript SDK is taken over: read where none of ours came,
//! sealed as a login, and the plain cookie deleted.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{Request, Response, StatusCode};
use tower_euid::error::ErrorKind;
use tower_euid::{Consent, CookieConfig, EuidLogoutHandle, EuidUpdate, RefreshMode, Refreshed};

use crate::support::{
    ANCHOR, BOTH_CLEARED, DUE, EXPIRED, IDENTITY, IDENTITY_EXPIRES, Jar, Operator, REFRESH_EXPIRES, REFRESH_FROM,
    SCRIPT_TOKEN, SDK, Site, at, expect, failure, identity, new_pair, outcome,
};

/// Both are told with one response.
const TAKEN_OVER: &str = "identity set, anchor set, sdk cleared";
const ALL_CLEARED: &str = "identity cleared, anchor cleared, sdk cleared";
const OPTED_OUT: &str = "identity cleared, anchor opted out, sdk cleared";

/// What the SDK keeps, as JSON.
fn json() -> String {
    let [from, token, refresh] = [REFRESH_FROM, IDENTITY_EXPIRES, REFRESH_EXPIRES].map(|millis| at(millis).as_millis());
    let key = BASE64_STANDARD.encode([7; 32]);
    format!(
        r#"{{"advertising_token":"the-SDKs","refresh_token":"ref/re+sh==","refresh_response_key":"{key}","refresh_from":{from},"identity_expires":{token},"refresh_expires":{refresh}}}"#
    )
}

/// What it keeps instead once the person has opted out.
fn marker(until: i64) -> String {
    let until = at(until).as_millis();
    format!(r#"{{"refresh_expires":{until},"identity_expires":{until},"status":"optout"}}"#)
}

/// As JavaScript's `encodeURIComponent` does.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// A browser with that cookie, on a site that takes it over.
fn visitor(value: &str, operator: Operator) -> Site {
    let config = CookieConfig::default().migrate_js_sdk_cookie(None).unwrap();
    let site = Site::new(operator).configured(|layer| layer.cookie(config));
    Site { jar: Jar::default().with(SDK, value), ..site }
}

fn of_the_sdk(operator: Operator) -> Site {
    visitor(&encoded(&json()), operator)
}

#[tokio::test]
async fn a_fresh_one_is_used_and_sealed_with_the_first_page() {
    for value in [encoded(&json()), json().replace(' ', "%20"), json()] {
        let mut site = visitor(&value, Operator::never());
        let first = site.look().await;
        assert_eq!(outcome(&first), expect("active(the-SDKs)", TAKEN_OVER), "{value}");
        assert_eq!(first.header("cache-control"), Some("private, no-store"));
        assert_eq!(site.jar.value(SDK), None);
        assert_eq!(outcome(&site.look().await), expect("active(the-SDKs)", ""));
    }
}

#[tokio::test]
async fn it_is_refreshed_with_the_token_that_the_sdk_had() {
    let operator = tower_euid::refresh_fn(|identity| async move {
        assert_eq!(identity.refresh_token().expose_secret(), "ref/re+sh==");
        assert_eq!(identity.response_key().expose_secret(), &[7; 32]);
        new_pair("new")
    });
    for millis in [0, DUE] {
        let mut site = Site { jar: of_the_sdk(Operator::never()).jar, ..Site::new(operator) };
        site = site.configured(|layer| layer.cookie(CookieConfig::default().migrate_js_sdk_cookie(None).unwrap()));
        site.wait_until(millis);
        site.look().await;
        site.wait_until(DUE);
        assert_eq!(site.look().await.saw(), "active(new)", "taken over at {millis}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_it_by_its_age_and_the_operators_answer() {
    let pair = || Operator::answering(new_pair("new"));
    let failing = |kind| Operator::answering(failure(kind));
    let opted_out = || Operator::answering(Ok(Refreshed::OptedOut));
    for (millis, operator, saw, writes, then) in [
        (DUE, pair(), "active(new)", TAKEN_OVER, "active(new)"),
        (DUE, failing(ErrorKind::Transient), "active(the-SDKs)", TAKEN_OVER, "active(the-SDKs)"),
        (DUE, Operator::never(), "active(the-SDKs)", TAKEN_OVER, "active(the-SDKs)"),
        (DUE, failing(ErrorKind::RejectedToken), "absent", ALL_CLEARED, "absent"),
        (DUE, opted_out(), "opted_out", OPTED_OUT, "opted_out"),
        (EXPIRED, pair(), "active(new)", TAKEN_OVER, "active(new)"),
        (EXPIRED, failing(ErrorKind::Transient), "unavailable", TAKEN_OVER, "unavailable"),
        (EXPIRED, failing(ErrorKind::RejectedInput), "absent", ALL_CLEARED, "absent"),
        (EXPIRED, opted_out(), "opted_out", OPTED_OUT, "opted_out"),
        (REFRESH_EXPIRES, pair(), "absent", "", "absent"),
    ] {
        let mut site = of_the_sdk(operator.clone());
        site.wait_until(millis);
        assert_eq!(outcome(&site.look().await), expect(saw, writes), "{millis} {operator:?}");
        assert_eq!(outcome(&site.look().await), expect(then, ""), "{millis} {operator:?}");
    }
}

#[tokio::test]
async fn beside_its_refresh_it_is_sealed_as_it_is_and_refreshed_with_the_next_page() {
    let mut site = of_the_sdk(Operator::answering(new_pair("new")));
    site = site.configured(|layer| layer.refresh_mode(RefreshMode::Concurrent));
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look().await), expect("active(the-SDKs)", TAKEN_OVER));
    tokio::task::yield_now().await;
    assert_eq!(outcome(&site.look().await), expect("active(new)", "identity set"));
}

#[tokio::test]
async fn the_mark_of_an_opt_out_is_told_until_it_ends() {
    let mut site = visitor(&encoded(&marker(DUE)), Operator::never());
    assert_eq!(outcome(&site.look().await), expect("opted_out", ""));
    assert_eq!(outcome(&site.look().await), expect("opted_out", ""));
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
}

#[tokio::test]
async fn what_is_neither_is_nobody_and_harms_no_page() {
    let cut = &json()[..100];
    let nested = format!("{}1{}", "[".repeat(3000), "]".repeat(3000));
    let hostile = ["</script>", "a;b", "a\u{a0}b"].map(|token| json().replace("the-SDKs", token));
    let [script, semicolon, not_ascii] = hostile.map(|json| encoded(&json));
    let out_of_order = json().replace("refresh_from\":1", "refresh_from\":9");
    for value in [
        "",
        "%",
        "%zz%7B",
        "null",
        "{}",
        "[]",
        cut,
        &encoded(cut),
        &nested,
        &encoded(&encoded(&json())),
        &out_of_order,
        &script,
        &semicolon,
        &not_ascii,
        r#"{"status":"optout"}"#,
        r#"{"refresh_expires":9e99,"status":"optout"}"#,
        r#"{"refresh_expires":9999999999999,"status":"success"}"#,
        "%FF%FE",
    ] {
        let mut site = visitor(value, Operator::never());
        assert_eq!(outcome(&site.look().await), expect("absent", ""), "{value}");
        site.login("mine").await;
        assert_eq!(site.jar.value(SDK), None, "{value}");
        assert_eq!(site.look().await.saw(), "active(mine)", "{value}");
    }
}

#[tokio::test]
async fn of_several_the_first_that_can_be_read_is_taken_over_and_none_of_another_name() {
    let cookie = |name: &str, token: &str| format!("{name}={}", encoded(&json().replace("the-SDKs", token)));
    let site = of_the_sdk(Operator::never());
    for (cookies, saw) in [
        (vec![cookie(SDK, "first"), cookie(SDK, "second")], "active(first)"),
        (vec![format!("{SDK}=garbled"), cookie(SDK, "second")], "active(second)"),
        (vec![cookie(SCRIPT_TOKEN, "foreign"), cookie(SDK, "second")], "active(second)"),
        (vec![cookie(SCRIPT_TOKEN, "foreign")], "absent"),
    ] {
        let request = Request::builder().header("cookie", cookies.join("; ")).body(()).unwrap();
        assert_eq!(site.send(request, |_, _| ()).await.saw(), saw, "{cookies:?}");
    }
}

#[tokio::test]
async fn it_is_not_looked_at_where_one_of_ours_came_or_nobody_asked_to_take_it_over() {
    let mut site = of_the_sdk(Operator::never());
    let sdk = site.jar.clone();
    site.login("mine").await;
    let ours = site.jar.clone().with(SDK, sdk.value(SDK).unwrap());
    site.jar = ours.clone();
    assert_eq!(outcome(&site.look().await), expect("active(mine)", ""));
    site.jar = ours.clone().without(IDENTITY);
    assert_eq!(outcome(&site.look().await), expect("absent", ""));
    site.jar = ours.without(ANCHOR);
    assert_eq!(outcome(&site.look().await), expect("absent", "identity cleared"));
    let mut without = Site { jar: sdk, ..Site::offline() };
    assert_eq!(outcome(&without.look().await), expect("absent", ""));
    assert_eq!(without.update(EuidUpdate::logout()).await.writes(), BOTH_CLEARED);
}

#[tokio::test]
async fn withheld_it_stays_and_withdrawn_it_goes() {
    let operator = Operator::answering(new_pair("new"));
    for (millis, mark) in [(0, false), (DUE, false), (EXPIRED, false), (0, true)] {
        for (consent, saw, writes) in
            [(Consent::Withheld, "withheld", ""), (Consent::Withdrawn, "withheld", ALL_CLEARED)]
        {
            let value = if mark { marker(EXPIRED) } else { json() };
            let mut site = visitor(&encoded(&value), operator.clone());
            site = site.configured(|layer| layer.consent(move |_| consent));
            site.wait_until(millis);
            let saw = if mark && consent == Consent::Withheld { "opted_out" } else { saw };
            assert_eq!(outcome(&site.look().await), expect(saw, writes), "{millis} {mark} {consent:?}");
            if consent == Consent::Withheld {
                assert!(site.jar.value(SDK).is_some());
            }
        }
    }
    assert_eq!(operator.calls(), 0);
}

fn binding(site: Site) -> Site {
    site.configured(|layer| layer.subject(|request| request.headers.get("user").map(|id| id.as_bytes().to_vec())))
}

async fn page_of(site: &mut Site, user: Option<&'static str>) -> (String, String) {
    let mut request = site.jar.request();
    if let Some(user) = user {
        request.headers_mut().insert("user", user.parse().unwrap());
    }
    let visit = site.send(request, |_, _| ()).await;
    site.jar.apply(visit.response.headers());
    outcome(&visit)
}

#[tokio::test]
async fn where_identities_are_bound_it_is_whose_who_is_signed_in_first() {
    for millis in [0, DUE] {
        let operator = Operator::answering(new_pair("the-SDKs"));
        let mut site = binding(of_the_sdk(operator.clone()));
        site.wait_until(millis);
        assert_eq!(page_of(&mut site, None).await, expect("absent", ""), "nobody is signed in");
        assert_eq!(operator.calls(), 0);
        assert_eq!(page_of(&mut site, Some("ann")).await, expect("active(the-SDKs)", TAKEN_OVER));
        assert_eq!(page_of(&mut site, None).await, expect("absent", ""));
        assert_eq!(page_of(&mut site, Some("ann")).await, expect("active(the-SDKs)", ""));
        assert_eq!(page_of(&mut site, Some("bob")).await, expect("absent", "identity cleared"));
    }
}

#[tokio::test]
async fn what_a_handler_says_counts_and_deletes_it() {
    for millis in [0, DUE, EXPIRED] {
        for (update, expected, then) in [
            (EuidUpdate::logout(), ALL_CLEARED, "absent"),
            (EuidUpdate::login(identity("another")), TAKEN_OVER, "another"),
            (EuidUpdate::opt_out(), OPTED_OUT, "opted_out"),
        ] {
            let mut site = of_the_sdk(Operator::answering(failure(ErrorKind::Transient)));
            site.wait_until(millis);
            assert_eq!(site.update(update).await.writes(), expected, "{millis}");
            assert_eq!(site.jar.value(SDK), None);
            if millis == 0 {
                assert!(site.look().await.saw().contains(then));
            }
        }
    }
}

#[tokio::test]
async fn a_logout_said_first_ends_it() {
    let site = of_the_sdk(Operator::never());
    let handler = tower::service_fn(|request: Request<()>| async move {
        EuidLogoutHandle::of(request.extensions()).unwrap().logout();
        Ok::<_, std::convert::Infallible>(Response::new(()))
    });
    let Ok(response) = tower::ServiceExt::oneshot(tower::Layer::layer(&site.layer, handler), site.jar.request()).await;
    assert_eq!(crate::support::writes(response.headers()), ALL_CLEARED);
}

#[tokio::test]
async fn a_page_that_has_not_changed_leaves_it_to_the_next() {
    let mut site = of_the_sdk(Operator::never());
    let visit = site.visit(|_, response| *response.status_mut() = StatusCode::NOT_MODIFIED).await;
    assert_eq!(outcome(&visit), expect("active(the-SDKs)", ""));
    assert_eq!(outcome(&site.look().await), expect("active(the-SDKs)", TAKEN_OVER));
}

#[tokio::test]
async fn it_is_not_taken_over_beside_an_image_or_a_prefetch() {
    for (name, value) in [("sec-fetch-dest", "image"), ("sec-purpose", "prefetch")] {
        for (millis, saw) in [(0, "active(the-SDKs)"), (DUE, "active(the-SDKs)"), (EXPIRED, "unavailable")] {
            let operator = Operator::answering(new_pair("new"));
            let site = of_the_sdk(operator.clone());
            site.wait_until(millis);
            let mut request = site.jar.request();
            request.headers_mut().insert(name, value.parse().unwrap());
            let visit = site.send(request, |_, _| ()).await;
            assert_eq!(outcome(&visit), expect(saw, ""), "{name} {millis}");
            assert_eq!(operator.calls(), 0);
        }
    }
}

#[tokio::test]
async fn two_tabs_at_once_come_to_one_login() {
    for millis in [0, DUE] {
        let operator = Operator::answering(new_pair("the-SDKs"));
        let site = of_the_sdk(operator.clone());
        site.wait_until(millis);
        let (one, other) =
            tokio::join!(site.send(site.jar.request(), |_, _| ()), site.send(site.jar.request(), |_, _| ()));
        for answers in [[&one, &other], [&other, &one]] {
            let mut browser = site.clone();
            for answer in answers {
                assert_eq!(outcome(answer), expect("active(the-SDKs)", TAKEN_OVER));
                browser.jar.apply(answer.response.headers());
            }
            assert_eq!(outcome(&browser.look().await), expect("active(the-SDKs)", ""));
        }
        assert_eq!(operator.calls(), usize::from(millis == DUE));
    }
}
