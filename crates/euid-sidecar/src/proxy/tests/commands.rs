//! The headers to the site and back.

use euid_sandbox::Fault;

use super::*;

/// A site that answers with a command, in which NONCE stands for that of the request.
async fn commanded(command: &'static str) -> Running {
    Running::start(move |received| {
        let command = command.replace("NONCE", received.value("euid-nonce").unwrap());
        with(&format!("Cache-Control: public\r\nEuid-Command: {command}\r\n"), "fine")
    })
    .await
}

/// The cookies that a response sets, as the line of a request.
fn cookies_of(response: &str) -> String {
    let lines = response.lines().filter_map(|line| line.strip_prefix("set-cookie: "));
    let pairs: Vec<&str> =
        lines.filter_map(|line| line.split(';').next()).filter(|pair| !pair.ends_with('=')).collect();
    format!("Cookie: {}\r\n", pairs.join("; "))
}

#[tokio::test]
async fn site_gets_state_token_and_nonce() {
    let running = Running::start(|_| ok("fine")).await;
    for (state, word) in
        [(VisitorState::Absent, "absent"), (VisitorState::Fresh, "active"), (VisitorState::OptedOut, "opted_out")]
    {
        running.get(&running.cookies(state)).await;
        let received = running.site.last();
        assert_eq!(received.value("euid-state"), Some(word));
        assert_eq!(received.value("euid-token").is_some_and(|token| token.len() > 100), word == "active");
        assert_eq!(received.value("euid-nonce").unwrap().len(), 32);
    }
    let nonces: Vec<_> =
        running.site.received().iter().map(|received| received.value("euid-nonce").unwrap().to_owned()).collect();
    assert!(nonces[0] != nonces[1] && nonces[1] != nonces[2]);
}

#[tokio::test]
async fn site_does_not_get_the_cookies_that_hold_the_state() {
    let running = Running::start(|_| ok("fine")).await;
    let own = running.visitor(VisitorState::Fresh).cookie_header();
    running.get(&format!("Cookie: a=1; {own}\r\nCookie: b=2\r\n")).await;
    let received = running.site.last();
    assert_eq!((received.value("cookie"), received.value("euid-state")), (Some("a=1; b=2"), Some("active")));
    running.get(&format!("Cookie: {own}\r\n")).await;
    assert_eq!(running.site.last().value("cookie"), None);
}

#[tokio::test]
async fn page_that_got_a_token_is_private_unless_it_was_unused() {
    let page = with("Cache-Control: public\r\n", "fine");
    let running = Running::start(move |_| page.clone()).await;
    let fresh = running.cookies(VisitorState::Fresh);
    let response = running.get(&fresh).await;
    assert!(has(&response, "cache-control: private, no-cache"), "{response}");
    let response = running.get("").await;
    assert!(has(&response, "cache-control: public"), "{response}");
    let running = commanded("unused").await;
    let response = running.get(&running.cookies(VisitorState::Fresh)).await;
    assert!(running.site.last().value("euid-token").is_some());
    assert!(has(&response, "cache-control: public") && !response.contains("euid-command"), "{response}");
}

#[tokio::test]
async fn part_of_a_page_that_caches_keep_gets_no_token() {
    let page = with("Cache-Control: public\r\n", "fine");
    let running = Running::start(move |_| page.clone()).await;
    let fresh = running.cookies(VisitorState::Fresh);
    for (dest, has_token) in
        [("image", false), ("style", false), ("font", false), ("script", true), ("document", true), ("empty", true)]
    {
        let response = running.get(&format!("{fresh}Sec-Fetch-Dest: {dest}\r\n")).await;
        assert_eq!(running.site.last().value("euid-token").is_some(), has_token, "{dest}");
        assert_eq!(running.site.last().value("euid-state"), Some("active"), "{dest}");
        assert_eq!(has(&response, "cache-control: public"), !has_token, "{dest}: {response}");
    }
}

#[tokio::test]
async fn no_header_of_a_visitor_reaches_the_site_under_a_reserved_name() {
    let running = Running::start(|_| ok("fine")).await;
    let spoofed: String = "!#$%&'*+-.^_`|~".chars().map(|between| format!("Euid{between}Token: spoofed\r\n")).collect();
    running
        .get(&format!("{spoofed}EUID-TOKEN: spoofed\r\nEuid-Token: spoofed\r\nEuid-State: active\r\nEuid: spoofed\r\n"))
        .await;
    let received = running.site.last();
    assert!(!received.head.contains("spoofed"), "{}", received.head);
    assert_eq!((received.value("euid-state"), received.value("euid-token")), (Some("absent"), None));
    let named = "GET / HTTP/1.1\r\nHost: site\r\n\
                 Connection: close, Euid-Token, Euid-State, Euid-Nonce, X-Forwarded-For, Host\r\n\
                 Euid-Token: spoofed\r\n";
    running.exchange(format!("{named}{}\r\n", running.cookies(VisitorState::Fresh))).await;
    let received = running.site.last();
    assert!(received.value("euid-token").is_some_and(|token| token != "spoofed"), "{}", received.head);
    assert_eq!((received.value("euid-state"), received.value("x-forwarded-for")), (Some("active"), Some("127.0.0.1")));
}

#[tokio::test]
async fn login_that_the_site_commands_is_made_and_the_next_page_has_its_token() {
    let running = commanded("login?nonce=NONCE&email=user+tag%40example.com&subject=17").await;
    let response = running.get("").await;
    assert!(has(&response, "cache-control: private, no-store") && !response.contains("euid-command"), "{response}");
    running.get(&cookies_of(&response)).await;
    assert_eq!(running.site.last().value("euid-state"), Some("active"));
}

#[tokio::test]
async fn login_of_a_person_who_has_opted_out_says_so_on_the_next_page() {
    let running = commanded("login?nonce=NONCE&email=optout@example.com").await;
    let response = running.get("").await;
    running.get(&cookies_of(&response)).await;
    assert_eq!(running.site.last().value("euid-state"), Some("opted_out"));
}

#[tokio::test]
async fn logout_that_the_site_commands_ends_the_login() {
    let running = commanded("logout").await;
    let response = running.get(&running.cookies(VisitorState::Fresh)).await;
    assert!(response.contains("set-cookie: __Host-euid-login=; "), "{response}");
    assert!(has(&response, "cache-control: private, no-store"), "{response}");
}

#[tokio::test]
async fn login_that_fails_ends_the_previous_identity() {
    for (command, fault) in [
        ("login?nonce=NONCE&email=user", None),
        ("login?nonce=NONCE", None),
        ("login?nonce=NONCE&email=user@example.com", Some(Fault::Status(503))),
        ("login?nonce=NONCE&email=user@example.com", Some(Fault::Status(401))),
    ] {
        let running = commanded(command).await;
        running.sandbox.fault(fault);
        let response = running.get(&running.cookies(VisitorState::Fresh)).await;
        assert_eq!(status(&response), "200");
        assert!(response.contains("set-cookie: __Host-euid-login=; "), "{command} {response}");
    }
}

#[tokio::test]
async fn login_without_the_nonce_of_the_request_changes_nothing() {
    for command in ["login?email=user@example.com", "login?nonce=0123456789abcdef&email=user@example.com", "nonsense"] {
        let running = commanded(command).await;
        let response = running.get(&running.cookies(VisitorState::Fresh)).await;
        assert!(!response.contains("set-cookie") && !response.contains("euid-command"), "{response}");
        assert_eq!(running.sandbox.calls().generate, 0);
    }
}

#[tokio::test]
async fn cache_that_replays_a_login_logs_no_visitor_in() {
    // Between the proxy and the site: the first response is kept, and served to everyone.
    let kept: Mutex<Option<String>> = Mutex::default();
    let running = Running::start(move |received| {
        let login = || {
            let nonce = received.value("euid-nonce").unwrap();
            with(&format!("Euid-Command: login?nonce={nonce}&email=user@example.com\r\n"), "fine")
        };
        kept.lock().unwrap().get_or_insert_with(login).clone()
    })
    .await;
    assert!(running.get("").await.contains("set-cookie: __Host-euid."));
    for _ in 0..10 {
        assert!(!running.get("").await.contains("set-cookie"));
    }
    assert_eq!(running.sandbox.calls().generate, 1);
}

#[tokio::test]
async fn site_may_command_the_login_on_every_page_and_pages_that_come_together_share_a_call() {
    let running = commanded("login?nonce=NONCE&email=user@example.com").await;
    running.sandbox.fault(Fault::Delay(Duration::from_millis(300)));
    let pages = (0..20).map(|_| running.get(""));
    let pages: Vec<String> = join_all(pages).await;
    assert!(pages.iter().all(|page| page.contains("set-cookie: __Host-euid.")));
    assert_eq!(running.sandbox.calls().generate, 1);
}

#[tokio::test]
async fn page_whose_login_takes_too_long_goes_on_as_a_logout_and_after_five_none_waits() {
    let running = commanded("login?nonce=NONCE&email=user@example.com").await;
    let client = tower_euid::EuidClientBuilder::from_operator(running.sandbox.operator())
        .http_service(running.sandbox.clone())
        .clock(running.sandbox.clock())
        .build()
        .unwrap();
    running.sandbox.fault(Fault::Delay(Duration::from_secs(4)));
    tokio::time::pause();
    let logins = crate::proxy::Logins::new(client, running.layer.clone());
    for number in 0..5 {
        let person = tower_euid::Dii::email(&format!("user{number}@example.com")).unwrap().into();
        let began = crate::access::now();
        assert!(logins.generate(&person).await.is_err());
        let waited = crate::access::now() - began;
        assert!(waited >= Duration::from_secs(2) && waited < Duration::from_millis(2100), "{waited:?}");
    }
    // The task of the call notes its failure just after the page has gone on.
    tokio::time::advance(Duration::from_millis(1)).await;
    let began = crate::access::now();
    let person = tower_euid::Dii::email("user9@example.com").unwrap().into();
    assert_eq!(logins.generate(&person).await, Err("the operator is down".to_owned()));
    assert_eq!(crate::access::now(), began);
}

/// Waits for all futures, which make progress together.
async fn join_all(futures: impl Iterator<Item = impl Future<Output = String>>) -> Vec<String> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in futures.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(cx) {
                *output = Some(ready);
            }
        }
        match futures.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}
