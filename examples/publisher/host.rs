//! Refuses requests for other host names. Otherwise a page of another site could reach the demo through a name of its own
//! that points at 127.0.0.1 (DNS rebinding).

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};

use crate::{Site, page};

/// The outermost middleware.
pub(crate) async fn check(State(site): State<Site>, request: Request, next: Next) -> Response {
    let hosts: Vec<_> = request.headers().get_all(HOST).iter().collect();
    let is_ours = match hosts[..] {
        [host] => Authority::try_from(host.as_bytes()).is_ok_and(|host| site.answers_to(&host)),
        _ => false,
    };
    if is_ours && request.uri().authority().is_none_or(|host| site.answers_to(host)) {
        return next.run(request).await;
    }
    let text = "This demo answers to localhost and loopback addresses. For another name, start it with SITE_NAME.";
    (StatusCode::MISDIRECTED_REQUEST, Html(page::error("Unknown host name", text))).into_response()
}

impl Site {
    fn answers_to(&self, authority: &Authority) -> bool {
        let host = authority.host();
        let address: Result<IpAddr, _> = host.trim_start_matches('[').trim_end_matches(']').parse();
        match address {
            Ok(address) => address.is_loopback(),
            Err(_) => {
                [Some("localhost"), self.name.as_deref()].iter().flatten().any(|name| host.eq_ignore_ascii_case(name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;
    use crate::tests::{Tested, app};

    async fn status(target: &str, hosts: &[&str]) -> Tested<u16> {
        let request = hosts.iter().fold(Request::get(target), |request, host| request.header(HOST, *host));
        Ok(app("news.example")?.oneshot(request.body(Body::empty())?).await?.status().as_u16())
    }

    #[tokio::test]
    async fn host_may_be_loopback_or_the_sites_name() -> Tested {
        for host in ["localhost", "LOCALHOST:3000", "127.0.0.1:3000", "127.8.8.8", "[::1]:3000", "news.example:443"] {
            assert_eq!(status("/", &[host]).await?, 200, "{host}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn host_of_another_site_is_refused_on_every_path() -> Tested {
        for host in ["evil.example", "localhost.evil.example", "192.0.2.1:3000", "[::2]", "0.0.0.0", "", ":3000", "a b"]
        {
            for path in ["/", "/api/identity", "/health", "/page.js", "/nothing"] {
                assert_eq!(status(path, &[host]).await?, 421, "{host} {path}");
            }
        }
        assert_eq!(status("/", &[]).await?, 421);
        assert_eq!(status("/", &["localhost", "evil.example"]).await?, 421);
        assert_eq!(status("http://evil.example/", &["localhost"]).await?, 421);
        Ok(())
    }
}
