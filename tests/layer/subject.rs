//! `EuidLayer::subject`: an identity bound to one signed-in user is never used for another on the same browser.
//!
//! In production a session layer outside names the user; here the test does.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use tower::Layer;
use tower_euid::error::ErrorKind;
use tower_euid::{CookieConfig, EuidUpdate, KeyRing, Refreshed};

use crate::support::{
    DUE, EXPIRED, IDENTITY, Jar, LOGIN_REPLACED, Log, OPTED_OUT, Operator, Site, expect, failure, identity, new_pair,
    outcome, ring, set_cookies,
};

const ANN: Option<&str> = Some("ann");
const BOB: Option<&str> = Some("bob");
const NO_USER: Option<&str> = None;
/// For how long an opt-out counts, in milliseconds.
const OPT_OUT_REMEMBERED: i64 = 72 * 3_600_000;

/// Returns a site with the hook and with Ann's login.
async fn logged_in_as_ann(operator: Operator) -> Site {
    logged_in_as_ann_with_keys(ring(), operator).await
}

async fn logged_in_as_ann_with_keys(keys: KeyRing, operator: Operator) -> Site {
    let mut site = Site::with_keys(keys, operator).with_subject();
    site.update(EuidUpdate::login(identity("of-ann")).subject("ann")).await;
    site
}

#[tokio::test]
async fn bound_identity_is_active_for_its_user_alone() {
    let mut site = logged_in_as_ann(Operator::never()).await;
    assert_eq!(outcome(&site.look_as(ANN).await), expect("active(of-ann)", ""));
    assert_eq!(outcome(&site.look_as(BOB).await), expect("absent", "identity cleared"));
    assert_eq!(outcome(&site.look_as(ANN).await), expect("absent", ""), "Bob's request has ended it");
}

#[tokio::test]
async fn bound_identity_is_kept_and_hidden_while_no_user_is_signed_in() {
    let mut site = logged_in_as_ann(Operator::never()).await;
    assert_eq!(outcome(&site.look_as(NO_USER).await), expect("absent", ""));
    assert_eq!(outcome(&site.look_as(ANN).await), expect("active(of-ann)", ""));
}

#[tokio::test]
async fn bound_identity_is_not_refreshed_for_another_user() {
    let operator = Operator::answering(new_pair("new"));
    for millis in [DUE, EXPIRED] {
        for (user, writes) in [(NO_USER, ""), (BOB, "identity cleared")] {
            let mut site = logged_in_as_ann(operator.clone()).await;
            site.wait_until(millis);
            assert_eq!(outcome(&site.look_as(user).await), expect("absent", writes));
        }
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn refresh_keeps_the_subject() {
    let mut site = logged_in_as_ann(Operator::answering(new_pair("new"))).await;
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look_as(ANN).await), expect("active(new)", "identity set"));
    assert_eq!(outcome(&site.clone().look_as(ANN).await), expect("active(new)", ""));
    assert_eq!(outcome(&site.clone().look_as(NO_USER).await), expect("absent", ""));
    assert_eq!(outcome(&site.look_as(BOB).await), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn node_without_the_hook_uses_a_bound_identity_and_keeps_the_subject() {
    let keys = ring();
    let mut site = logged_in_as_ann_with_keys(keys.clone(), Operator::never()).await;
    let mut older = Site { jar: site.jar, ..Site::with_keys(keys, Operator::answering(new_pair("new"))) };
    older.wait_until(DUE);
    assert_eq!(outcome(&older.look().await), expect("active(new)", "identity set"));
    site.jar = older.jar;
    assert_eq!(outcome(&site.clone().look_as(ANN).await), expect("active(new)", ""));
    assert_eq!(outcome(&site.look_as(BOB).await), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn unbound_identity_is_active_for_every_user() {
    let mut site = Site::offline().with_subject();
    site.login("unbound").await;
    for user in [ANN, BOB, NO_USER] {
        assert_eq!(outcome(&site.look_as(user).await), expect("active(unbound)", ""));
    }
}

#[tokio::test]
async fn opt_out_found_by_a_refresh_is_shown_to_its_user_alone() {
    let mut site = logged_in_as_ann(Operator::answering(Ok(Refreshed::OptedOut))).await;
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look_as(ANN).await), expect("opted_out", "identity cleared, opt-out set"));
    assert_eq!(outcome(&site.look_as(ANN).await), expect("opted_out", ""));
    for other in [NO_USER, BOB] {
        assert_eq!(outcome(&site.look_as(other).await), expect("absent", ""));
    }
    assert_eq!(outcome(&site.look_as(ANN).await), expect("opted_out", ""));
}

#[tokio::test]
async fn stated_opt_out_is_shown_to_its_subject_alone_and_for_72_hours() {
    let mut site = logged_in_as_ann(Operator::never()).await;
    assert_eq!(site.update(EuidUpdate::opt_out().subject("ann")).await.writes(), OPTED_OUT);
    for (user, sees) in [(ANN, "opted_out"), (NO_USER, "absent"), (BOB, "absent"), (ANN, "opted_out")] {
        assert_eq!(outcome(&site.look_as(user).await), expect(sees, ""), "{user:?}");
    }
    site.wait_until(OPT_OUT_REMEMBERED - 1);
    assert_eq!(site.look_as(ANN).await.saw(), "opted_out");
    site.wait_until(OPT_OUT_REMEMBERED);
    assert_eq!(site.look_as(ANN).await.saw(), "absent");
}

#[tokio::test]
async fn stated_opt_out_without_a_subject_is_shown_to_every_user() {
    let mut site = logged_in_as_ann(Operator::never()).await;
    site.update(EuidUpdate::opt_out()).await;
    for user in [ANN, NO_USER, BOB] {
        assert_eq!(outcome(&site.look_as(user).await), expect("opted_out", ""), "{user:?}");
    }
}

#[tokio::test]
async fn login_of_another_user_replaces_the_bound_identity() {
    let mut site = logged_in_as_ann(Operator::never()).await;
    let login = site.update(EuidUpdate::login(identity("of-bob")).subject("bob")).await;
    assert_eq!(login.writes(), LOGIN_REPLACED);
    assert_eq!(outcome(&site.look_as(BOB).await), expect("active(of-bob)", ""));
    assert_eq!(outcome(&site.look_as(ANN).await), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn subjects_are_compared_as_a_whole() {
    for (subject, user, expected) in [("", "", "active(x)"), ("ann", "ann ", "absent"), ("", "ann", "absent")] {
        let user: &'static str = user;
        let mut site = Site::offline().with_subject();
        site.update(EuidUpdate::login(identity("x")).subject(subject)).await;
        assert_eq!(site.look_as(Some(user)).await.saw(), expected, "{subject:?} {user:?}");
    }
}

#[tokio::test]
async fn subject_is_not_readable_in_the_cookies() {
    let id = "the-very-long-id-of-a-user@example.com";
    let mut site = Site::offline();
    let visit = site.update(EuidUpdate::login(identity("x")).subject(id)).await;
    let lines = set_cookies(visit.response.headers()).into_iter().map(|line| line.to_str().unwrap().to_owned());
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(site.jar.value(IDENTITY).unwrap()).unwrap();
    let written = [lines.collect::<Vec<_>>().join("\n").into_bytes(), decoded].concat();
    // Base64 of a part of a text depends on its position: there are three forms.
    let shifted = (0..3).flat_map(|skipped| {
        let part = &id[skipped..skipped + 27];
        [BASE64_STANDARD.encode(part), BASE64_URL_SAFE_NO_PAD.encode(part)]
    });
    for form in shifted.chain([id.to_owned()]) {
        assert!(!written.windows(form.len()).any(|window| window == form.as_bytes()), "{form}");
    }
}

#[tokio::test]
async fn login_or_opt_out_without_a_subject_is_warned_about_if_the_hook_is_set() {
    let warning = "WARN tower_euid: a login has no subject, so it is bound to no user";
    let login = || EuidUpdate::login(identity("x"));
    for (has_hook, update, expected) in [
        (true, login(), &[warning][..]),
        (true, EuidUpdate::opt_out(), &[warning]),
        (true, login().subject("ann"), &[]),
        (true, EuidUpdate::opt_out().subject("ann"), &[]),
        (true, EuidUpdate::logout(), &[]),
        (false, login(), &[]),
        (false, EuidUpdate::opt_out(), &[]),
    ] {
        let site = Site::offline();
        let mut site = if has_hook { site.with_subject() } else { site };
        let log = Log::default();
        let _logging = log.start();
        site.update(update).await;
        assert_eq!(log.take(), expected);
    }
}

const WARNING: &str = "WARN tower_euid: the hook `subject` has never found a signed-in user: the session layer must be \
                       outside of the EuidLayer identities=20";

#[tokio::test]
async fn subject_that_never_finds_a_user_is_warned_about_once_after_20_bound_identities() {
    let mut site = logged_in_as_ann(Operator::never()).await;
    let mut unbound = Site { jar: Jar::default(), ..site.clone() };
    unbound.login("unbound").await;
    let log = Log::default();
    let _logging = log.start();
    for _ in 0..19 {
        site.look_as(NO_USER).await;
        // Requests without an identity, or with an unbound one, do not count.
        unbound.look_as(NO_USER).await;
        Site { jar: Jar::default(), ..site.clone() }.look_as(NO_USER).await;
    }
    assert_eq!(log.take(), [""; 0]);
    for _ in 0..100 {
        site.look_as(NO_USER).await;
    }
    assert_eq!(log.take(), [WARNING]);
}

#[tokio::test]
async fn subject_that_has_found_a_user_once_is_not_warned_about() {
    let mut site = logged_in_as_ann(Operator::never()).await;
    Site { jar: Jar::default(), ..site.clone() }.look_as(BOB).await;
    let log = Log::default();
    let _logging = log.start();
    for _ in 0..100 {
        site.look_as(NO_USER).await;
    }
    assert_eq!(log.take(), [""; 0]);
}

#[tokio::test]
async fn failed_refresh_keeps_the_subject() {
    let mut site = logged_in_as_ann(Operator::answering(failure(ErrorKind::Transient))).await;
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look_as(ANN).await), expect("active(of-ann)", ""));
    assert_eq!(outcome(&site.look_as(BOB).await), expect("absent", "identity cleared"));
}

#[tokio::test]
async fn layer_for_a_domain_without_the_hook_subject_warns_once_when_it_is_first_applied() {
    let log = Log::default();
    let _guard = log.start();
    let domain = || CookieConfig::default().domain("publisher.example").unwrap();
    let site = Site::offline().configured(|layer| layer.cookie(domain()));
    assert!(log.take().is_empty(), "the hook may still be set");
    for _ in 0..3 {
        _ = site.layer.clone().layer(());
    }
    let warning = "WARN tower_euid: the cookies are for a domain and its sub-domains, and the hook `subject` is not set: \
                   any of these hosts can replace a visitor's cookies by those of another visitor";
    assert_eq!(log.take(), [warning]);
    let insecure = CookieConfig::insecure().domain("publisher.example").unwrap();
    _ = site.clone().configured(|layer| layer.cookie(insecure)).layer.layer(());
    assert_eq!(log.take(), [warning], "another layer");
    _ = site.clone().with_subject().layer.layer(());
    _ = site.configured(|layer| layer.cookie(CookieConfig::default())).layer.layer(());
    _ = Site::offline().layer.layer(());
    assert!(log.take().is_empty());
}
