//! Requests that two servers could read in two ways: refused, or passed on in a form that has one meaning.

use super::*;

/// Returns the status of the answer, and what the site has received.
async fn outcome(request: &str) -> (String, Vec<Received>) {
    let running = Running::start(|_| ok("fine")).await;
    let answer = running.exchange(request).await;
    (status(&answer).to_owned(), running.site.received())
}

#[tokio::test]
async fn request_that_hyper_passes_and_this_refuses_does_not_reach_the_site() {
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", "400"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "501"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABk\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nGET /",
            "400",
        ),
    ] {
        let (status, received) = outcome(request).await;
        assert_eq!((&*status, received.len()), (expected, 0), "{request:?}");
    }
}

#[tokio::test]
async fn framing_that_has_two_meanings_is_refused_by_hyper_and_does_not_reach_the_site() {
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    ] {
        let (status, received) = outcome(request).await;
        assert_eq!((&*status, received.len()), ("400", 0), "{request:?}");
    }
}

#[tokio::test]
async fn length_beside_chunks_is_dropped_and_what_follows_is_no_request() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for lengths in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\n{smuggled}");
        let (status, received) = outcome(&request).await;
        assert_eq!((&*status, received.len()), ("200", 1), "{received:?}");
        assert_eq!(received[0].value("content-length"), None);
        assert_eq!((received[0].value("transfer-encoding"), &*received[0].body), (Some("chunked"), "0\r\n\r\n"));
    }
}

#[tokio::test]
async fn chunk_extensions_and_bare_line_feeds_are_not_passed_on() {
    let close = "Host: a\r\nConnection: close\r\n";
    let chunked =
        format!("POST / HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0;c\r\n\r\n");
    let (status, received) = outcome(&chunked).await;
    assert_eq!((&*status, &*received[0].body), ("200", "5\r\nhello\r\n0\r\n\r\n"));
    let (status, received) = outcome("GET / HTTP/1.1\nHost: a\nConnection: close\n\n").await;
    assert_eq!(status, "200");
    assert!(!received[0].head.replace("\r\n", "").contains('\n'), "{:?}", received[0].head);
}

#[tokio::test]
async fn body_with_broken_framing_is_the_visitors_fault() {
    for body in ["x\r\nhello\r\n0\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n", "5\nhello\n0\n\n", "fffffffffffffffff\r\n"] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let (status, received) = outcome(&request).await;
        assert_eq!((&*status, received.len()), ("400", 0), "{body:?}");
    }
}

#[tokio::test]
async fn refused_request_closes_the_connection() {
    let running = Running::start(|_| ok("fine")).await;
    let answer = running.exchange("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(has(&answer, "connection: close"), "{answer}");
    assert_eq!((answer.matches("HTTP/1.1 ").count(), running.site.received().len()), (1, 0));
}

#[tokio::test]
async fn head_is_limited_at_some_128_kib_both_ways() {
    let header = |length: usize| format!("X: {}\r\n", "x".repeat(length * 1024));
    for (asked, answered, expected, received) in [(100, 100, "200", 1), (260, 0, "431", 0), (0, 260, "502", 1)] {
        let running = Running::start(move |_| with(&header(answered), "fine")).await;
        let response = running.get(&header(asked)).await;
        let outcome = (status(&response), running.site.received().len());
        assert_eq!(outcome, (expected, received), "{asked} and {answered} KiB");
    }
}

#[tokio::test]
async fn number_of_headers_is_limited_at_256_both_ways() {
    // With `Host` and `Connection`.
    let headers = |count: usize| (2..count).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    // With `Content-Length`.
    let answer =
        |count: usize| with(&(1..count).map(|number| format!("Y-{number}: 1\r\n")).collect::<String>(), "fine");
    for (asked, answered, expected) in [(256, 256, "200"), (257, 1, "431"), (2, 257, "502")] {
        let running = Running::start(move |_| answer(answered)).await;
        let response = running.get(&headers(asked)).await;
        assert_eq!(status(&response), expected, "{asked} {answered}");
    }
}

#[tokio::test]
async fn bytes_that_a_url_must_encode_are_refused_in_a_path_and_in_a_query() {
    let running = Running::start(|_| ok("fine")).await;
    let mut refused = [String::new(), String::new()];
    for byte in (0x21..=0xff).filter(|byte| *byte != b'?') {
        for (refused, target) in refused.iter_mut().zip(["/a", "/?a"]) {
            let mut request = format!("GET {target}").into_bytes();
            request.push(byte);
            request.extend_from_slice(b"b HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n");
            match status(&running.exchange(request).await) {
                "200" => {}
                "400" => *refused += &format!("{byte:x} "),
                other => panic!("{other}"),
            }
        }
    }
    let not_ascii: String = (0x7f..=0xff).map(|byte| format!("{byte:x} ")).collect();
    assert_eq!(refused, [format!("3c 3e 60 {not_ascii}"), format!("22 3c 3e {not_ascii}")]);
}
