//! What a failover, and a server that hangs, bring back of a login that has ended.

use std::time::Duration;

use euid_sandbox::Visitor;
use tower_euid::EuidUpdate;

use crate::failures::failover;
use crate::server::Server;
use crate::site::{Site, look, visit};
use crate::until;

/// A browser that has only the handle of this one.
fn with_handle(site: &Site, browser: &Visitor) -> Visitor {
    let mut copy = site.browser();
    let cookies = browser.cookie_header();
    let handle = cookies.split("; ").find(|cookie| cookie.starts_with("__Host-euid-login=")).unwrap();
    let mut headers = http::HeaderMap::new();
    headers.insert("set-cookie", handle.parse().unwrap());
    copy.keep_cookies(&headers);
    copy
}

#[tokio::test]
async fn browser_that_logged_out_stays_so_after_a_failover_that_lost_the_logout() {
    let Some(([old, new], target, store)) = failover().await else { return };
    let () = new.command(&format!("REPLICAOF 127.0.0.1 {}", old.port())).await;
    let site = Site::new();
    let node = site.node(store);
    let mut browser = site.browser();
    visit(&node, &mut browser, Some(site.login())).await;
    let mut copy = with_handle(&site, &browser);
    until(async || new.command::<usize>("DBSIZE").await == 1).await;

    // The replica is promoted, and the old primary confirms a logout that the replica does not hear of.
    let () = new.command("REPLICAOF NO ONE").await;
    assert_eq!(visit(&node, &mut browser, Some(EuidUpdate::logout())).await, ("active(0)".to_owned(), true));
    assert_eq!(look(&node, &mut copy.clone()).await, "absent");
    target.store(new.port(), std::sync::atomic::Ordering::Relaxed);
    old.kill();

    until(async || look(&node, &mut copy).await != "unavailable").await;
    assert_eq!(look(&node, &mut copy).await, "active(0)", "a copied handle works again, as the docs say");
    assert_eq!(visit(&node, &mut browser, None).await, ("absent".to_owned(), false));
    visit(&node, &mut browser, Some(site.login())).await;
    assert_eq!(look(&node, &mut browser).await, "active(1)");
}

/// Two nodes: one that does not wait for a server that hangs, and one that does not know what the first one did.
fn nodes(site: &Site, server: &Server) -> [tower_euid::EuidLayer; 2] {
    let impatient = server.builder().timeout(IMPATIENT).build().unwrap();
    [site.node(impatient).store_timeout(IMPATIENT), site.node(server.store())]
}

#[tokio::test]
async fn login_that_a_hanging_server_does_later_has_ended_by_its_logout() {
    let Some(server) = Server::start(&[]) else { return };
    let site = Site::new();
    let [node, other] = nodes(&site, &server);
    // The node has a connection, so that the server has the login before it while it hangs.
    visit(&node, &mut site.browser(), Some(site.login())).await;
    let hanging = server.hang();
    let mut browser = site.browser();
    visit(&node, &mut browser, Some(site.login())).await;
    assert_eq!(look(&node, &mut browser).await, "active(1)", "it is sealed");
    let mut copy = with_handle(&site, &browser);
    visit(&node, &mut browser, Some(EuidUpdate::logout())).await;
    assert_eq!(browser.cookie_header(), "");
    drop(hanging);
    // By a connection that is new, so the server has done what it had before it.
    assert_eq!(server.command::<usize>("DBSIZE").await, 2);
    until(async || look(&other, &mut copy).await == "absent").await;
    assert_eq!(look(&node, &mut copy).await, "absent");
    assert_eq!(visit(&node, &mut browser, None).await, ("absent".to_owned(), false));
}

#[tokio::test]
async fn logout_from_a_hanging_server_ends_the_login_once_the_server_goes_on() {
    let Some(server) = Server::start(&[]) else { return };
    let site = Site::new();
    let [node, other] = nodes(&site, &server);
    let mut browser = site.browser();
    visit(&node, &mut browser, Some(site.login())).await;
    let mut copy = with_handle(&site, &browser);
    let hanging = server.hang();
    visit(&node, &mut browser, Some(EuidUpdate::logout())).await;
    assert_eq!(browser.cookie_header(), "");
    assert_eq!(look(&node, &mut copy).await, "absent", "this node knows it");
    drop(hanging);
    until(async || look(&other, &mut copy).await == "absent").await;
}

#[tokio::test]
async fn refresh_that_a_hanging_server_does_later_does_not_bring_a_login_back() {
    let Some(server) = Server::start(&[]) else { return };
    let site = Site::new();
    let [node, other] = nodes(&site, &server);
    let mut browser = site.browser();
    visit(&node, &mut browser, Some(site.login())).await;
    let mut copy = with_handle(&site, &browser);
    site.wait_until_due();
    let record = async || {
        let key: String = server.command("RANDOMKEY").await;
        server.command::<Vec<u8>>(&format!("GET {key}")).await
    };
    let (read, operator) = (record().await, site.operator.lock().await);
    let mut tab = browser.clone();
    let page = look(&node, &mut tab);
    let logout = async {
        // The lease is there, so the node waits for the operator.
        until(async || record().await != read).await;
        let hanging = server.hang();
        drop(operator);
        visit(&node, &mut browser, Some(EuidUpdate::logout())).await;
        hanging
    };
    let (_, hanging) = tokio::join!(page, logout);
    assert_eq!(site.issued(), 0..2);
    drop(hanging);
    until(async || look(&other, &mut copy).await == "absent").await;
    assert_eq!(visit(&node, &mut browser, None).await, ("absent".to_owned(), false));
}

/// Far more than a call takes, so that only a server that hangs is too slow.
const IMPATIENT: Duration = Duration::from_millis(500);
