//! `EuidLayer::subject`: an identity sealed for one signed-in user is never used for another on the same
//! browser.
//!
//! Who is signed in, a layer further out knows: here, the test.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use tower_euid::error::ErrorKind;
use tower_euid::{EuidUpdate, KeyRing, Refreshed};

use crate::support::{
    DUE, EXPIRED, IDENTITY, Jar, Log, Operator, Site, expect, failure, identity, new_pair, outcome, ring, set_cookies,
};

/// Who is signed in, in the extensions of a request.
#[derive(Clone)]
struct User(&'static str);

const ANN: Option<&str> = Some("ann");
const BOB: Option<&str> = Some("bob");
const NOBODY: Option<&str> = None;

fn binding(site: Site) -> Site {
    site.configured(|layer| layer.subject(|request| request.extensions.get::<User>().map(|user| user.0)))
}

/// Ann's browser, on a site that binds.
async fn of_ann(operator: Operator) -> Site {
    of_ann_under(ring(), operator).await
}

async fn of_ann_under(keys: KeyRing, operator: Operator) -> Site {
    let mut site = binding(Site::with_keys(keys, operator));
    site.update(EuidUpdate::login(identity("anns")).subject("ann")).await;
    site
}

/// A page while `user` is signed in; the browser keeps the cookies it is given.
async fn page_of(site: &mut Site, user: Option<&'static str>) -> (String, String) {
    let mut request = site.jar.request();
    if let Some(user) = user {
        request.extensions_mut().insert(User(user));
    }
    let visit = site.send(request, |_, _| ()).await;
    site.jar.apply(visit.response.headers());
    outcome(&visit)
}

#[tokio::test]
async fn a_bound_identity_is_for_its_user_alone() {
    let mut site = of_ann(Operator::never()).await;
    assert_eq!(page_of(&mut site, ANN).await, expect("active(anns)", ""));
    assert_eq!(page_of(&mut site, BOB).await, expect("absent", "identity cleared"));
    assert_eq!(page_of(&mut site, ANN).await, expect("absent", ""), "Bob's visit ended it");
}

#[tokio::test]
async fn while_nobody_is_signed_in_it_is_kept_and_not_handed_out() {
    let mut site = of_ann(Operator::never()).await;
    assert_eq!(page_of(&mut site, NOBODY).await, expect("absent", ""));
    assert_eq!(page_of(&mut site, ANN).await, expect("active(anns)", ""));
}

#[tokio::test]
async fn nobody_is_asked_for_the_identity_of_somebody_else() {
    let operator = Operator::answering(new_pair("new"));
    for millis in [DUE, EXPIRED] {
        for (user, writes) in [(NOBODY, ""), (BOB, "identity cleared")] {
            let mut site = of_ann(operator.clone()).await;
            site.wait_until(millis);
            assert_eq!(page_of(&mut site, user).await, expect("absent", writes));
        }
    }
    assert_eq!(operator.calls(), 0);
}

#[tokio::test]
async fn a_refresh_keeps_the_binding() {
    let mut site = of_ann(Operator::answering(new_pair("new"))).await;
    site.wait_until(DUE);
    assert_eq!(page_of(&mut site, ANN).await, expect("active(new)", "identity set"));
    assert_eq!(page_of(&mut site.clone(), ANN).await, expect("active(new)", ""));
    assert_eq!(page_of(&mut site.clone(), NOBODY).await, expect("absent", ""));
    assert_eq!(page_of(&mut site, BOB).await, expect("absent", "identity cleared"));
}

#[tokio::test]
async fn a_node_that_does_not_bind_yet_uses_it_and_keeps_the_binding() {
    let keys = ring();
    let mut site = of_ann_under(keys.clone(), Operator::never()).await;
    let mut older = Site { jar: site.jar, ..Site::with_keys(keys, Operator::answering(new_pair("new"))) };
    older.wait_until(DUE);
    assert_eq!(outcome(&older.look().await), expect("active(new)", "identity set"));
    site.jar = older.jar;
    assert_eq!(page_of(&mut site.clone(), ANN).await, expect("active(new)", ""));
    assert_eq!(page_of(&mut site, BOB).await, expect("absent", "identity cleared"));
}

#[tokio::test]
async fn an_identity_bound_to_nobody_goes_on() {
    let mut site = binding(Site::offline());
    site.login("anybodys").await;
    for user in [ANN, BOB, NOBODY] {
        assert_eq!(page_of(&mut site, user).await, expect("active(anybodys)", ""));
    }
}

#[tokio::test]
async fn the_record_of_an_opt_out_is_its_users_alone() {
    let mut site = of_ann(Operator::answering(Ok(Refreshed::OptedOut))).await;
    site.wait_until(DUE);
    assert_eq!(page_of(&mut site, ANN).await, expect("opted_out", "identity cleared, opt-out recorded"));
    assert_eq!(page_of(&mut site, ANN).await, expect("opted_out", ""));
    for other in [NOBODY, BOB] {
        assert_eq!(page_of(&mut site, other).await, expect("absent", ""));
    }
    assert_eq!(page_of(&mut site, ANN).await, expect("opted_out", ""));
}

#[tokio::test]
async fn the_next_users_login_is_theirs() {
    let mut site = of_ann(Operator::never()).await;
    site.update(EuidUpdate::login(identity("bobs")).subject("bob")).await;
    assert_eq!(page_of(&mut site, BOB).await, expect("active(bobs)", ""));
    assert_eq!(page_of(&mut site, ANN).await, expect("absent", "identity cleared"));
}

#[tokio::test]
async fn ids_are_compared_whole() {
    for (subject, user, expected) in [("", "", "active(x)"), ("ann", "ann ", "absent"), ("", "ann", "absent")] {
        let user: &'static str = user;
        let mut site = binding(Site::offline());
        site.update(EuidUpdate::login(identity("x")).subject(subject)).await;
        assert_eq!(page_of(&mut site, Some(user)).await.0, expected, "{subject:?} {user:?}");
    }
}

#[tokio::test]
async fn the_id_of_the_user_is_nowhere_in_the_cookies() {
    let id = "the-very-long-id-of-a-user@example.com";
    let mut site = Site::offline();
    let visit = site.update(EuidUpdate::login(identity("x")).subject(id)).await;
    let told = set_cookies(visit.response.headers()).into_iter().map(|line| line.to_str().unwrap().to_owned());
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(site.jar.value(IDENTITY).unwrap()).unwrap();
    let told = [told.collect::<Vec<_>>().join("\n").into_bytes(), decoded].concat();
    // Base64 of a part of a longer text depends on where the part stands: three ways.
    let shifted = (0..3).flat_map(|skipped| {
        let part = &id[skipped..skipped + 27];
        [BASE64_STANDARD.encode(part), BASE64_URL_SAFE_NO_PAD.encode(part)]
    });
    for form in shifted.chain([id.to_owned()]) {
        assert!(!told.windows(form.len()).any(|window| window == form.as_bytes()), "{form}");
    }
}

#[tokio::test]
async fn a_login_without_a_subject_is_warned_about_where_identities_are_bound() {
    let warning = "WARN tower_euid: a login has no subject, so it is bound to no user";
    let login = || EuidUpdate::login(identity("x"));
    for (bind, update, expected) in [
        (true, login(), &[warning][..]),
        (true, login().subject("ann"), &[]),
        (true, EuidUpdate::logout(), &[]),
        (false, login(), &[]),
    ] {
        let site = Site::offline();
        let mut site = if bind { binding(site) } else { site };
        let log = Log::default();
        let _logging = log.start();
        site.update(update).await;
        assert_eq!(log.take(), expected);
    }
}

const NO_USER: &str = "WARN tower_euid: the hook `subject` has never found a signed-in user: the session layer must be \
                       outside of the EuidLayer identities=20";

#[tokio::test]
async fn bind_that_never_finds_a_user_is_warned_of_once_after_20_bound_identities() {
    let mut site = of_ann(Operator::never()).await;
    let log = Log::default();
    let _logging = log.start();
    for _ in 0..19 {
        page_of(&mut site, NOBODY).await;
        // Neither counts: no identity, and one that is bound to no user.
        page_of(&mut Site { jar: Jar::default(), ..site.clone() }, NOBODY).await;
    }
    assert_eq!(log.take(), [""; 0]);
    for _ in 0..100 {
        page_of(&mut site, NOBODY).await;
    }
    assert_eq!(log.take(), [NO_USER]);
}

#[tokio::test]
async fn bind_that_has_found_a_user_once_is_not_warned_of() {
    let mut site = of_ann(Operator::never()).await;
    page_of(&mut Site { jar: Jar::default(), ..site.clone() }, BOB).await;
    let log = Log::default();
    let _logging = log.start();
    for _ in 0..100 {
        page_of(&mut site, NOBODY).await;
    }
    assert_eq!(log.take(), [""; 0]);
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_binding_as_it_was() {
    let mut site = of_ann(Operator::answering(failure(ErrorKind::Transient))).await;
    site.wait_until(DUE);
    assert_eq!(page_of(&mut site, ANN).await, expect("active(anns)", ""));
    assert_eq!(page_of(&mut site, BOB).await, expect("absent", "identity cleared"));
}
