//! Changing keys while the site runs: nobody is logged out, in whatever order nodes come to a step and
//! go back from it.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use http::{Method, Request, StatusCode};
use tower_euid::{Consent, CookieKey, EuidUpdate, KeyRing, refresh_fn};

use crate::support::{
    ANCHOR, BOTH_CLEARED, BOTH_SET, DUE, EXPIRED, IDENTITY, Operator, Site, Visit, identity, new_pair, ring,
};

/// Two keys, and the rings of the three documented steps, the one before them first.
fn rotation() -> [KeyRing; 4] {
    let [old, new] = [(); 2].map(|()| CookieKey::generate().unwrap());
    [vec![old.clone()], vec![old.clone(), new.clone()], vec![new.clone(), old], vec![new]]
        .map(|keys| KeyRing::new(keys).unwrap())
}

/// A node whose operator renews whatever it is asked for, due again at once.
fn node(keys: &KeyRing) -> Site {
    Site::with_keys(keys.clone(), refresh_fn(|_| async { new_pair("new") }))
}

/// The browser of `site` visits `node`.
async fn visit(site: &mut Site, node: &Site) -> Visit {
    let visit = node.send(site.jar.request(), |_, _| ()).await;
    site.jar.apply(visit.response.headers());
    visit
}

async fn logged_in(keys: &KeyRing) -> Site {
    let mut site = node(keys);
    site.login("old").await;
    site
}

/// Ways of a browser over the nodes of a deployment: which of two rings answers its visits.
fn ways() -> impl Iterator<Item = [usize; 5]> {
    (0..32).map(|bits| std::array::from_fn(|visit| bits >> visit & 1))
}

#[tokio::test]
async fn between_neighbouring_steps_nobody_is_logged_out_whichever_node_answers() {
    let [none, first, second, third] = rotation();
    for step in [[none, first.clone()], [first, second.clone()], [second, third]] {
        for way in ways() {
            // The last step is for when no cookie is under the old key any more.
            let nodes = step.each_ref().map(node);
            let mut browser = node(&step[way[0]]);
            browser.login("old").await;
            assert_eq!(visit(&mut browser, &nodes[way[1]]).await.saw(), "active(old)", "{way:?}");
            nodes.iter().for_each(|node| node.wait_until(DUE));
            let refreshing = visit(&mut browser, &nodes[way[2]]).await;
            assert_eq!((refreshing.saw(), refreshing.writes()), ("active(new)".into(), "identity set".into()));
            for then in [way[3], way[4]] {
                let after = visit(&mut browser, &nodes[then]).await;
                assert_eq!((after.saw(), after.writes()), ("active(new)".into(), String::new()), "{way:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_step_forward_and_back_again_logs_nobody_out() {
    let [none, first, second, third] = rotation();
    for steps in [[&none, &first, &none], [&first, &second, &first], [&second, &third, &second]] {
        let mut browsers = Vec::new();
        for step in steps {
            browsers.push(logged_in(step).await);
            for browser in &mut browsers {
                assert_eq!(visit(browser, &node(step)).await.saw(), "active(old)");
            }
        }
    }
}

#[tokio::test]
async fn a_step_left_out_costs_logins_until_it_is_made_up_for() {
    let [none, _, second, _] = rotation();
    let mut early = logged_in(&second).await;
    let late = visit(&mut early, &node(&none)).await;
    assert_eq!((late.saw(), late.writes()), ("absent".into(), String::new()), "left alone");
    assert_eq!(visit(&mut early, &node(&second)).await.saw(), "active(old)");
}

#[tokio::test]
async fn a_reload_reaches_a_running_layer_and_its_clones() {
    let [none, _, second, third] = rotation();
    let keys = KeyRing::from(CookieKey::generate().unwrap());
    keys.reload(none);
    let mut site = logged_in(&keys).await;
    let clone = site.clone().configured(|layer| layer.reseal(false));
    keys.clone().reload(second);
    assert_eq!(site.look().await.saw(), "active(old)");
    for mut running in [site.clone(), clone] {
        running.login("later").await;
        assert_eq!(visit(&mut running, &node(&third)).await.saw(), "active(later)", "sealed under the new key");
    }
    keys.reload(third);
    let left = site.look().await;
    assert_eq!((left.saw(), left.writes()), ("absent".into(), String::new()), "its key is gone");
}

#[tokio::test]
async fn a_reload_during_a_page_seals_its_login_under_the_new_key() {
    let [none, _, second, third] = rotation();
    let keys = KeyRing::from(CookieKey::generate().unwrap());
    keys.reload(none);
    let mut site = logged_in(&keys).await;
    site.visit(move |_, response| {
        keys.reload(second.clone());
        EuidUpdate::login(identity("later")).attach(response);
    })
    .await;
    assert_eq!(visit(&mut site, &node(&third)).await.saw(), "active(later)");
}

#[tokio::test]
async fn a_node_that_can_not_open_it_can_end_it() {
    let [none, first, ..] = rotation();
    let mut site = logged_in(&none).await;
    let (before, mut stranger) = (site.jar.clone(), node(&ring()));
    stranger.jar = site.jar.clone();
    assert_eq!(stranger.update(EuidUpdate::logout()).await.writes(), BOTH_CLEARED);
    site.jar = stranger.jar.clone();
    assert_eq!(site.look().await.saw(), "absent");
    // Nor does an answer that comes late bring it back.
    site.jar.put(IDENTITY, before.value(IDENTITY).unwrap());
    assert_eq!(visit(&mut site, &node(&first)).await.saw(), "absent");
}

/// A browser under an old key, on a node that reseals; and one that knows the new key alone.
async fn to_reseal() -> (Site, Site) {
    let [none, _, second, third] = rotation();
    let site = node(&second).configured(|layer| layer.reseal(true));
    (Site { jar: logged_in(&none).await.jar, ..site }, node(&third))
}

#[tokio::test]
async fn resealing_moves_an_identity_with_the_first_page_and_once() {
    let (mut site, third) = to_reseal().await;
    let anchor = site.jar.pair(ANCHOR);
    let first = site.look().await;
    assert_eq!((first.saw(), first.writes()), ("active(old)".into(), "identity set".into()));
    assert_eq!(first.header("cache-control"), Some("private, no-store"));
    let next = site.look().await;
    assert_eq!((next.saw(), next.writes()), ("active(old)".into(), String::new()));
    assert!(next.response.headers().is_empty());
    assert_eq!(site.jar.pair(ANCHOR), anchor, "the same login");
    assert_eq!(visit(&mut site, &third).await.saw(), "active(old)");
}

#[tokio::test]
async fn a_resealed_identity_lasts_as_long_and_is_refreshed_as_before() {
    let (mut site, third) = to_reseal().await;
    site.wait_until(600_000);
    let resealing = site.look().await;
    assert!(resealing.header("set-cookie").unwrap().ends_with("; Max-Age=85800"), "{resealing:?}");
    third.wait_until(DUE);
    assert_eq!(visit(&mut site, &third).await.saw(), "active(new)");
}

#[tokio::test]
async fn without_being_asked_to_nothing_is_resealed() {
    let [none, _, second, _] = rotation();
    let mut site = Site { jar: logged_in(&none).await.jar, ..node(&second) };
    assert_eq!(site.look().await.writes(), "");
}

#[tokio::test]
async fn nothing_is_resealed_where_a_page_writes_no_cookie() {
    let (site, _) = to_reseal().await;
    let withheld = site.clone().configured(|layer| layer.consent(|_| Consent::Withheld));
    let beacon = site.clone().configured(|layer| layer.refresh_when(|_| false));
    let plain = |request| request;
    let with = |name: &'static str, value: &'static str| {
        move |mut request: Request<()>| {
            request.headers_mut().insert(name, value.parse().unwrap());
            request
        }
    };
    let options = |mut request: Request<()>| {
        *request.method_mut() = Method::OPTIONS;
        request
    };
    let image = with("sec-fetch-dest", "image");
    let prefetch = with("sec-purpose", "prefetch;prerender");
    let kinds: [(&Site, &dyn Fn(Request<()>) -> Request<()>, &str); 5] = [
        (&site, &image, "active(old)"),
        (&site, &prefetch, "active(old)"),
        (&site, &options, "active(old)"),
        (&beacon, &plain, "active(old)"),
        (&withheld, &plain, "withheld"),
    ];
    for (site, kind, saw) in kinds {
        let visit = site.send(kind(site.jar.request()), |_, _| ()).await;
        assert_eq!((visit.saw(), visit.writes()), (saw.into(), String::new()));
    }
    let not_modified = site.send(site.jar.request(), |_, response| *response.status_mut() = StatusCode::NOT_MODIFIED);
    assert_eq!(not_modified.await.writes(), "");
}

#[tokio::test]
async fn what_a_handler_says_beats_resealing() {
    let (site, _) = to_reseal().await;
    for (update, expected) in [(EuidUpdate::logout(), BOTH_CLEARED), (EuidUpdate::login(identity("another")), BOTH_SET)]
    {
        assert_eq!(site.clone().update(update).await.writes(), expected);
    }
}

#[tokio::test]
async fn a_due_identity_is_refreshed_not_resealed() {
    let (mut site, third) = to_reseal().await;
    site.wait_until(DUE);
    let due = site.look().await;
    assert_eq!((due.saw(), due.writes()), ("active(new)".into(), "identity set".into()));
    assert_eq!(visit(&mut site, &third).await.saw(), "active(new)");

    let [none, _, second, _] = rotation();
    let failing = Site::with_keys(second, Operator::never()).configured(|layer| layer.max_wait(Default::default()));
    let mut failing = Site { jar: logged_in(&none).await.jar, ..failing.configured(|layer| layer.reseal(true)) };
    failing.wait_until(EXPIRED);
    assert_eq!((failing.look().await.saw(), failing.jar.value(ANCHOR).is_some()), ("unavailable".into(), true));
}

#[tokio::test]
async fn resealing_keeps_whom_the_identity_is_bound_to() {
    let [none, _, second, third] = rotation();
    let bind = |site: Site| {
        site.configured(|layer| layer.subject(|request| request.headers.get("user").map(|id| id.as_bytes().to_vec())))
    };
    let mut site = bind(node(&none));
    site.update(EuidUpdate::login(identity("anns")).subject("ann")).await;
    // A node that binds nobody reseals for one that does.
    let mut resealing = Site { jar: site.jar, ..node(&second).configured(|layer| layer.reseal(true)) };
    assert_eq!(resealing.look().await.writes(), "identity set");
    for (user, expected) in [("ann", "active(anns)"), ("bob", "absent")] {
        let mut request = resealing.jar.request();
        request.headers_mut().insert("user", user.parse().unwrap());
        assert_eq!(bind(node(&third)).send(request, |_, _| ()).await.saw(), expected);
    }
}
