//! HTTP between the visitor and the site: heads, connections, failures.

use tower_euid::Consent;

use super::*;

#[tokio::test]
async fn request_and_response_pass_as_they_came() {
    let running =
        Running::start(|_| with("X-Twice: 1\r\nX-Twice: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", "fine")).await;
    let request = "POST //a/../b%2f?q=%20+'& HTTP/1.1\r\nHost: Site:81\r\nConnection: close\r\n\
                   X-Twice: 1\r\nX-Twice: 2\r\nCookie: a=1\r\nContent-Length: 5\r\n\r\nhello";
    let response = running.exchange(request).await;
    let received = running.site.last();
    assert!(received.head.starts_with("POST //a/../b%2f?q=%20+'& HTTP/1.1\r\n"), "{}", received.head);
    assert_eq!((received.value("host"), &*received.body), (Some("Site:81"), "hello"));
    assert_eq!((received.value("cookie"), received.values("x-twice")), (Some("a=1"), vec!["1", "2"]));
    assert_eq!((received.value("content-length"), received.value("connection")), (Some("5"), None));
    assert!(response.ends_with("\r\n\r\nfine"), "{response}");
    for line in ["x-twice: 1", "x-twice: 2", "set-cookie: a=1", "set-cookie: b=2", "content-length: 4"] {
        assert!(has(&response, line), "{line}: {response}");
    }
}

#[tokio::test]
async fn url_as_a_target_becomes_a_path() {
    let running = Running::start(|_| ok("fine")).await;
    running.exchange("GET http://site/a?b HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n").await;
    assert!(running.site.last().head.starts_with("GET /a?b HTTP/1.1\r\n"));
    running.exchange("OPTIONS * HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n").await;
    assert!(running.site.last().head.starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[tokio::test]
async fn old_client_gets_an_answer_that_it_can_read() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n";
    let running = Running::start(|_| chunked.to_owned()).await;
    let response = running.exchange("GET / HTTP/1.0\r\nHost: site\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n") && response.ends_with("\r\n\r\nfine"), "{response}");
    assert!(running.site.last().head.starts_with("GET / HTTP/1.1\r\n"));
}

#[tokio::test]
async fn headers_of_one_connection_are_not_passed_on() {
    let running = Running::start(|_| with("Connection: x-own\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\n", "fine")).await;
    let request = "GET / HTTP/1.1\r\nHost: site\r\nConnection: close, X-Own\r\nX-Own: 1\r\nKeep-Alive: 1\r\n\
                   Proxy-Connection: close\r\nUpgrade: h2c\r\nTE: gzip\r\n\r\n";
    let response = running.exchange(request).await;
    let received = running.site.last();
    for name in ["connection", "x-own", "keep-alive", "proxy-connection", "upgrade", "te"] {
        assert_eq!(received.value(name), None, "{name}");
    }
    assert!(!response.contains("x-own") && !response.contains("keep-alive"), "{response}");
}

#[tokio::test]
async fn connection_to_the_site_is_used_again() {
    let running = Running::start(|_| ok("fine")).await;
    for _ in 0..3 {
        assert_eq!(status(&running.get("").await), "200");
    }
    let connections: Vec<usize> = running.site.received().iter().map(|received| received.connection).collect();
    assert_eq!(connections, [0, 0, 0]);
}

#[tokio::test]
async fn connection_whose_response_was_not_read_to_its_end_is_not_used_again() {
    // More than fits into all buffers.
    let body = "x".repeat(32 << 20);
    let running =
        Running::start(move |received| if received.head.contains("/large") { ok(&body) } else { ok("fine") }).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: site\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 1000]).await.unwrap();
    drop(stream);
    running.get("").await;
    assert_eq!(running.site.last().connection, 1);
}

#[tokio::test]
async fn get_is_sent_again_if_the_site_has_closed_an_idle_connection_and_a_post_is_not() {
    // The first request of a connection is answered. The second one is read, and the connection closed.
    let is_first = |received: &Received, seen: &mut Vec<usize>| {
        let is_first = !seen.contains(&received.connection);
        seen.push(received.connection);
        is_first
    };
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n", ("200", 3)),
        ("HEAD / HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n", ("200", 3)),
        ("POST / HTTP/1.1\r\nHost: site\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", ("502", 2)),
        ("GET / HTTP/1.1\r\nHost: site\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", ("502", 2)),
        ("DELETE / HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n", ("502", 2)),
    ] {
        let seen = Mutex::default();
        let answer = move |received: &Received| match is_first(received, &mut seen.lock().unwrap()) {
            true if received.head.starts_with("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".to_owned(),
            true => ok("fine"),
            false => String::new(),
        };
        let running = Running::start(answer).await;
        running.get("").await;
        let response = running.exchange(request).await;
        assert_eq!((status(&response), running.site.received().len()), expected, "{request}");
    }
}

#[tokio::test]
async fn request_is_sent_twice_at_most() {
    let running =
        Running::start(|received| if received.head.contains("/first") { ok("fine") } else { String::new() }).await;
    running.exchange("GET /first HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&running.get("").await), "502");
    assert_eq!(running.site.received().len(), 3);
}

#[tokio::test]
async fn site_that_fails_is_a_502_that_the_layer_writes_its_state_into() {
    let withdrawn = |layer: EuidLayer| layer.consent(|_| Consent::Withdrawn);
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for answer in
        ["", "HTTP/1.1 200 OK\r\nX\r\n\r\n", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]
    {
        let running = Running::configured(|_| answer.to_owned(), withdrawn).await;
        let response = running.get(&running.cookies(VisitorState::Fresh)).await;
        assert_eq!(status(&response), "502", "{answer}");
        assert!(response.contains("set-cookie: __Host-euid-login=; "), "{response}");
    }
    let running = Running::before(Site::start(|_| ok("")).await, &nowhere.to_string(), false, withdrawn).await;
    let response = running.get(&running.cookies(VisitorState::Fresh)).await;
    assert_eq!(status(&response), "502");
    assert!(response.contains("set-cookie: __Host-euid-login=; "), "{response}");
}

#[tokio::test]
async fn addresses_are_appended_and_what_a_proxy_in_front_says_stays() {
    let running = Running::start(|_| ok("fine")).await;
    running.get("").await;
    let received = running.site.last();
    assert_eq!(received.value("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!((received.value("x-forwarded-proto"), received.value("x-forwarded-host")), (Some("http"), Some("site")));
    let in_front = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n\
                    X-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\n";
    running.get(in_front).await;
    let received = running.site.last();
    assert_eq!(received.value("x-forwarded-for"), Some("192.0.2.1, 192.0.2.2, 127.0.0.1"));
    assert_eq!((received.value("x-forwarded-proto"), received.value("x-forwarded-host")), (Some("https"), Some("a")));
}

#[tokio::test]
async fn site_at_a_unix_socket_is_reached() {
    let path = std::env::temp_dir().join(format!("proxy-site-{}.sock", std::process::id()));
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 30]).await.unwrap();
        stream.write_all(ok("fine").as_bytes()).await.unwrap();
    });
    let upstream = format!("unix:{}", path.display());
    let running = Running::before(Site::start(|_| ok("")).await, &upstream, false, |layer| layer).await;
    let response = running.get("").await;
    std::fs::remove_file(path).unwrap();
    assert!(response.ends_with("fine"), "{response}");
}

#[tokio::test]
async fn head_and_304_keep_their_headers_and_have_no_body() {
    for (request, answer) in [
        ("HEAD / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\n"),
        ("HEAD / HTTP/1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"a\"\r\n\r\n"),
        ("GET / HTTP/1.1", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"),
        ("GET / HTTP/1.1", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\n"),
        ("GET / HTTP/1.1", "HTTP/1.1 204 No Content\r\nETag: \"a\"\r\n\r\n"),
    ] {
        let running = Running::start(|_| answer.to_owned()).await;
        // Twice, so that a body that is waited for would be seen.
        let request = format!("{request}\r\nHost: site\r\n\r\n{request}\r\nHost: site\r\nConnection: close\r\n\r\n");
        let responses = running.exchange(request).await;
        assert_eq!(responses.matches("HTTP/1.1 ").count(), 2, "{answer}: {responses}");
        assert!(responses.ends_with("\r\n\r\n") && has(&responses, "etag: \"a\""), "{responses}");
        let announced = responses.matches("content-length: 1000").count();
        assert_eq!(
            announced,
            if answer.starts_with("HTTP/1.1 200") && answer.contains("1000") { 2 } else { 0 },
            "{responses}"
        );
        assert_eq!(running.site.last().connection, 0, "{answer}: the connection to the site is used again");
    }
}

#[tokio::test]
async fn no_path_method_or_browser_goes_around_the_layer() {
    let running = Running::start(|received| match received.head.starts_with("HEAD") {
        true => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
        false => ok("fine"),
    })
    .await;
    let fresh = running.cookies(VisitorState::Fresh);
    for line in [
        "GET /healthz",
        "GET /metrics",
        "GET /v1/page",
        "GET /logo.png",
        "HEAD /",
        "POST /",
        "PUT /",
        "DELETE /",
        "PATCH /",
        "OPTIONS /",
        "OPTIONS *",
        "TRACE /",
        "PROPFIND /",
    ] {
        for agent in ["", "User-Agent: Googlebot\r\n", "User-Agent: kube-probe/1.32\r\n"] {
            let request = format!(
                "{line} HTTP/1.1\r\nHost: site\r\nConnection: close\r\nContent-Length: 0\r\n{agent}{fresh}\r\n"
            );
            let response = running.exchange(request).await;
            assert!(has(&response, "cache-control: private, no-cache"), "{line}: {response}");
            assert_eq!(running.site.last().value("euid-state"), Some("active"), "{line}");
        }
    }
}
