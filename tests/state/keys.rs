//! The key ring: keys change while the site runs, without a logout.
//!
//! A rotation has three steps. The nodes of a deployment may take a step, or go back from it, in any order.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::array;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use tower_euid::{Consent, CookieKey, EuidUpdate, KeyRing, refresh_fn};

use crate::support::{
    ANCHOR, DUE, EXPIRED, IDENTITY, LOGIN_REMOVED, LOGIN_REPLACED, NOTHING, Operator, Site, Visit, expect, identity,
    new_pair, outcome, ring,
};

/// Returns the rings of a rotation: the one before it, and those of its three documented steps.
fn rotation() -> [KeyRing; 4] {
    let [old, new] = [(); 2].map(|()| CookieKey::generate().unwrap());
    [vec![old.clone()], vec![old.clone(), new.clone()], vec![new.clone(), old], vec![new]]
        .map(|keys| KeyRing::new(keys).unwrap())
}

/// Returns a node whose operator answers each call with a new pair.
fn node(keys: &KeyRing) -> Site {
    Site::with_keys(keys.clone(), refresh_fn(|_| async { new_pair("new") }))
}

/// Visits `node` with the browser of `site`.
async fn visit(site: &mut Site, node: &Site) -> Visit {
    let visit = node.send(site.jar.request(), NOTHING).await;
    site.jar.apply(visit.response.headers());
    visit
}

#[tokio::test]
async fn key_ring_opens_under_all_its_keys_and_seals_under_the_newest() {
    let [old, _, both, new] = rotation();
    for (sealing, opening, saw) in [(&old, &both, "active(old)"), (&both, &new, "active(old)"), (&both, &old, "absent")]
    {
        let mut site = node(sealing).logged_in(0).await;
        assert_eq!(visit(&mut site, &node(opening)).await.saw(), saw);
    }
}

#[tokio::test]
async fn key_ring_shared_by_two_nodes_opens_the_cookies_of_both() {
    let keys = ring();
    let mut site = node(&keys).logged_in(0).await;
    assert_eq!(visit(&mut site, &node(&keys)).await.saw(), "active(old)");
}

#[tokio::test]
async fn refresh_seals_under_the_newest_key() {
    let [old, _, both, new] = rotation();
    let mut site = node(&old).logged_in(0).await;
    let [both, new] = [both, new].map(|keys| node(&keys));
    both.wait_until(DUE);
    visit(&mut site, &both).await;
    assert_eq!(visit(&mut site, &new).await.saw(), "active(new)");
}

#[tokio::test]
async fn login_replaces_cookies_under_unknown_keys() {
    let site = Site::offline().logged_in(0).await;
    let mut other = Site { jar: site.jar, ..Site::offline() };
    assert_eq!(other.login("other").await.writes(), LOGIN_REPLACED);
    assert_eq!(outcome(&other.look().await), expect("active(other)", ""));
}

/// Returns all sequences of five visits to two nodes.
fn visit_sequences() -> impl Iterator<Item = [usize; 5]> {
    (0..32).map(|bits| array::from_fn(|visit| bits >> visit & 1))
}

#[tokio::test]
async fn key_rings_of_neighbouring_steps_keep_a_login_whichever_node_answers() {
    let [before, first, second, third] = rotation();
    // The third step begins when no cookie is sealed under the old key.
    for step in [[before, first.clone()], [first, second.clone()], [second, third]] {
        for sequence in visit_sequences() {
            let nodes = step.each_ref().map(node);
            let mut browser = node(&step[sequence[0]]).logged_in(0).await;
            assert_eq!(visit(&mut browser, &nodes[sequence[1]]).await.saw(), "active(old)", "{sequence:?}");
            nodes.iter().for_each(|node| node.wait_until(DUE));
            let refreshing = visit(&mut browser, &nodes[sequence[2]]).await;
            assert_eq!(outcome(&refreshing), expect("active(new)", "identity set"));
            for node in [sequence[3], sequence[4]] {
                let after = visit(&mut browser, &nodes[node]).await;
                assert_eq!(outcome(&after), expect("active(new)", ""), "{sequence:?}");
            }
        }
    }
}

#[tokio::test]
async fn key_ring_of_the_previous_step_keeps_a_login_after_a_step_back() {
    let [before, first, second, third] = rotation();
    for steps in [[&before, &first, &before], [&first, &second, &first], [&second, &third, &second]] {
        let mut browsers = Vec::new();
        for step in steps {
            browsers.push(node(step).logged_in(0).await);
            for browser in &mut browsers {
                assert_eq!(visit(browser, &node(step)).await.saw(), "active(old)");
            }
        }
    }
}

#[tokio::test]
async fn key_ring_of_a_skipped_step_hides_a_login_but_keeps_its_cookies() {
    let [before, _, second, _] = rotation();
    let mut site = node(&second).logged_in(0).await;
    let behind = visit(&mut site, &node(&before)).await;
    assert_eq!(outcome(&behind), expect("absent", ""));
    assert_eq!(visit(&mut site, &node(&second)).await.saw(), "active(old)");
}

#[tokio::test]
async fn key_ring_reload_affects_a_running_layer_and_its_clones() {
    let [before, _, second, third] = rotation();
    let keys = KeyRing::from(CookieKey::generate().unwrap());
    keys.reload(before);
    let mut site = node(&keys).logged_in(0).await;
    let clone = site.clone().configured(|layer| layer.reseal(false));
    keys.clone().reload(second);
    assert_eq!(site.look().await.saw(), "active(old)");
    for mut running in [site.clone(), clone] {
        running.login("later").await;
        assert_eq!(visit(&mut running, &node(&third)).await.saw(), "active(later)", "sealed under the new key");
    }
    keys.reload(third);
    assert_eq!(outcome(&site.look().await), expect("absent", ""), "the old key is no longer in the ring");
}

#[tokio::test]
async fn key_ring_reload_during_a_request_seals_its_login_under_the_new_key() {
    let [before, _, second, third] = rotation();
    let keys = KeyRing::from(CookieKey::generate().unwrap());
    keys.reload(before);
    let mut site = node(&keys).logged_in(0).await;
    site.visit(move |_, response| {
        keys.reload(second.clone());
        EuidUpdate::login(identity("later")).attach(response);
    })
    .await;
    assert_eq!(visit(&mut site, &node(&third)).await.saw(), "active(later)");
}

#[tokio::test]
async fn logout_ends_an_identity_under_an_unknown_key() {
    let [before, first, ..] = rotation();
    let mut site = node(&before).logged_in(0).await;
    let logged_in = site.jar.clone();
    let mut other_keys = Site { jar: site.jar.clone(), ..node(&ring()) };
    assert_eq!(other_keys.update(EuidUpdate::logout()).await.writes(), LOGIN_REMOVED);
    site.jar = other_keys.jar;
    assert_eq!(site.look().await.saw(), "absent");
    // A late response sets the identity again. Without an anchor, a node with any keys removes it.
    site.jar = site.jar.with_from(&logged_in, IDENTITY);
    for node in [node(&first), node(&ring())] {
        assert_eq!(outcome(&visit(&mut site.clone(), &node).await), expect("absent", "identity cleared"));
    }
}

/// Returns a browser with an identity under the old key at a node that reseals, and a node with the new key alone.
async fn resealing_nodes() -> (Site, Site) {
    let [before, _, second, third] = rotation();
    let site = node(&second).configured(|layer| layer.reseal(true));
    (Site { jar: node(&before).logged_in(0).await.jar, ..site }, node(&third))
}

#[tokio::test]
async fn reseal_seals_an_identity_under_the_new_key_with_the_first_page_only() {
    let (mut site, third) = resealing_nodes().await;
    let anchor = site.jar.pair(ANCHOR);
    let first = site.look().await;
    assert_eq!(outcome(&first), expect("active(old)", "identity set"));
    assert_eq!(first.header("cache-control"), Some("private, no-store"));
    let next = site.look().await;
    assert_eq!(outcome(&next), expect("active(old)", ""));
    assert!(next.response.headers().is_empty());
    assert_eq!(site.jar.pair(ANCHOR), anchor, "the login is the same");
    assert_eq!(visit(&mut site, &third).await.saw(), "active(old)");
}

#[tokio::test]
async fn reseal_changes_no_time_of_an_identity() {
    let (mut site, third) = resealing_nodes().await;
    site.wait_until(600_000);
    let resealing = site.look().await;
    assert!(resealing.header("set-cookie").unwrap().ends_with("; Max-Age=85800"), "{resealing:?}");
    third.wait_until(DUE);
    assert_eq!(visit(&mut site, &third).await.saw(), "active(new)");
}

#[tokio::test]
async fn reseal_is_off_by_default() {
    let [before, _, second, _] = rotation();
    let site = Site { jar: node(&before).logged_in(0).await.jar, ..node(&second) };
    assert_eq!(site.look_once().await.writes(), "");
}

#[tokio::test]
async fn reseal_does_not_happen_in_a_response_that_may_not_set_cookies() {
    let (site, _) = resealing_nodes().await;
    let withheld = site.clone().configured(|layer| layer.consent(|_| Consent::Withheld));
    let not_refreshing = site.clone().configured(|layer| layer.refresh_when(|_| false));
    let requests: [(&Site, Request<()>, &str); 5] = [
        (&site, site.jar.request_with(&[("sec-fetch-dest", "image")]), "active(old)"),
        (&site, site.jar.request_with(&[("sec-purpose", "prefetch;prerender")]), "active(old)"),
        (&site, site.jar.request_of(Method::OPTIONS), "active(old)"),
        (&not_refreshing, site.jar.request(), "active(old)"),
        (&withheld, site.jar.request(), "withheld"),
    ];
    for (site, request, saw) in requests {
        assert_eq!(outcome(&site.send(request, NOTHING).await), expect(saw, ""));
    }
    let not_modified = site.send(site.jar.request(), |_, response| *response.status_mut() = StatusCode::NOT_MODIFIED);
    assert_eq!(not_modified.await.writes(), "");
}

#[tokio::test]
async fn update_of_a_handler_has_precedence_over_reseal() {
    let (site, _) = resealing_nodes().await;
    for (update, writes) in
        [(EuidUpdate::logout(), LOGIN_REMOVED), (EuidUpdate::login(identity("another")), LOGIN_REPLACED)]
    {
        assert_eq!(site.clone().update(update).await.writes(), writes);
    }
}

#[tokio::test]
async fn refresh_has_precedence_over_reseal() {
    let (mut site, third) = resealing_nodes().await;
    site.wait_until(DUE);
    assert_eq!(outcome(&site.look().await), expect("active(new)", "identity set"));
    assert_eq!(visit(&mut site, &third).await.saw(), "active(new)");
}

#[tokio::test]
async fn reseal_keeps_an_expired_identity_whose_refresh_fails() {
    let [before, _, second, _] = rotation();
    let site = Site::with_keys(second, Operator::never());
    let site = site.configured(|layer| layer.max_wait(Duration::ZERO).reseal(true));
    let mut site = Site { jar: node(&before).logged_in(0).await.jar, ..site };
    site.wait_until(EXPIRED);
    assert_eq!((site.look().await.saw(), site.jar.value(ANCHOR).is_some()), ("unavailable".into(), true));
}

#[tokio::test]
async fn reseal_keeps_the_subject_of_an_identity() {
    let [before, _, second, third] = rotation();
    let mut site = node(&before).with_subject();
    site.update(EuidUpdate::login(identity("anns")).subject("ann")).await;
    // A node without the hook `subject` reseals for a node with it.
    let mut resealing = Site { jar: site.jar, ..node(&second).configured(|layer| layer.reseal(true)) };
    assert_eq!(resealing.look().await.writes(), "identity set");
    for (user, saw) in [("ann", "active(anns)"), ("bob", "absent")] {
        let mut third = Site { jar: resealing.jar.clone(), ..node(&third).with_subject() };
        assert_eq!(third.look_as(Some(user)).await.saw(), saw);
    }
}
