//! What the reader of a dump finds: a copy of all that the server holds.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use euid_sandbox::Visitor;
use tower_euid::EuidUpdate;

use crate::server::Server;
use crate::site::{Site, advertising_token, look, refresh_token, response_key, visit};
use crate::{key, put};

/// All keys and values of a server.
async fn dump(server: &Server) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for key in server.command::<Vec<String>>("KEYS *").await {
        all.push(server.command::<Vec<u8>>(&format!("GET {key}")).await);
        all.push(key.into_bytes());
    }
    all
}

/// Returns the name of a secret of which a part is in the dump, as it is, or in hexadecimal digits or base64.
fn found<'a>(dump: &[Vec<u8>], secrets: &'a HashMap<String, Vec<u8>>) -> Option<&'a str> {
    let mut parts = HashMap::new();
    for (name, secret) in secrets {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        // In base64 a byte looks different by its place among three.
        let base64 = (0..3).map(|place| BASE64_STANDARD.encode(secret.get(place..).unwrap_or_default()));
        let base64: Vec<String> = base64.collect();
        let url_safe = base64.iter().map(|text| text.replace('+', "-").replace('/', "_"));
        let texts = url_safe.chain(base64.iter().cloned()).chain([hex.to_uppercase(), hex]);
        for form in texts.map(String::into_bytes).chain([secret.clone()]) {
            parts.extend(form.windows(PART).map(|part| (part.to_vec(), name.as_str())));
        }
    }
    dump.iter().flat_map(|text| text.windows(PART)).find_map(|part| parts.get(part).copied())
}

fn handle(browser: &Visitor) -> String {
    let cookies = browser.cookie_header();
    cookies.split("; ").find_map(|cookie| cookie.strip_prefix("__Host-euid-login=")).unwrap().to_owned()
}

#[tokio::test]
async fn dump_of_the_server_holds_no_token_no_handle_and_no_user() {
    let Some(server) = Server::start(&[]) else { return };
    let site = Site::new();
    let user = "user-4711@example.com";
    let node = site.node(server.store()).subject(move |_| Some(user));
    let mut secrets = HashMap::from([("user".to_owned(), user.as_bytes().to_vec())]);
    let mut browsers = [(); 4].map(|()| site.browser());
    for (number, browser) in browsers.iter_mut().enumerate() {
        visit(&node, browser, Some(site.login().subject(user))).await;
        let handle = handle(browser);
        secrets.insert(format!("raw handle {number}"), BASE64_URL_SAFE_NO_PAD.decode(&handle).unwrap());
        secrets.insert(format!("handle {number}"), handle.into_bytes());
    }
    let without_user = site.node(server.store());
    let mut anonymous = site.browser();
    visit(&without_user, &mut anonymous, Some(site.login())).await;
    let [logs_out, logs_in_again, opts_out, _] = &mut browsers;
    visit(&node, logs_out, Some(EuidUpdate::logout())).await;
    visit(&node, logs_in_again, Some(site.login().subject(user))).await;
    visit(&node, opts_out, Some(EuidUpdate::opt_out())).await;
    site.wait_until_due();
    assert_eq!(look(&without_user, &mut anonymous).await, "active(6)", "it is refreshed");

    for number in site.issued() {
        secrets.insert(format!("advertising token {number}"), advertising_token(number).into_bytes());
        let raw = BASE64_STANDARD.decode(advertising_token(number)).unwrap();
        secrets.insert(format!("raw advertising token {number}"), raw);
        secrets.insert(format!("refresh token {number}"), BASE64_STANDARD.encode(refresh_token(number)).into_bytes());
        secrets.insert(format!("raw refresh token {number}"), refresh_token(number).to_vec());
        secrets.insert(format!("response key {number}"), response_key(number).to_vec());
    }
    let all = dump(&server).await;
    assert_eq!(all.len(), 2 * 6, "six logins, of which some have ended");
    assert_eq!(found(&all, &secrets), None);

    // What the search would find.
    put(&server.store(), 7).await.unwrap();
    let secrets = HashMap::from([("value".to_owned(), vec![7; 600]), ("key".to_owned(), [1; 32].to_vec())]);
    let names = ["key", "value"].map(|name| {
        let secret = secrets.iter().filter(|(known, _)| *known == name);
        secret.map(|(name, secret)| (name.clone(), secret.clone())).collect::<HashMap<_, _>>()
    });
    assert_eq!(key(1).to_hex(), "01".repeat(32));
    let all = dump(&server).await;
    assert!(names.iter().all(|secret| found(&all, secret).is_some()));
}

/// A shorter part of a secret is in a dump by chance.
const PART: usize = 12;
