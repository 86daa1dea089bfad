//! Requests beyond a plain page: with headers, with a method, to a slow handler, from many visitors.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response};
use tower::{Layer, ServiceExt};
use tower_euid::Euid;

use super::{DUE, Jar, Seen, Site, Visit, page};

impl Jar {
    /// Returns a request to the site, with its cookies and with `headers`.
    pub(crate) fn request_with(&self, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = self.request();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    /// Returns a request to the site, with its cookies and with `method`.
    pub(crate) fn request_of(&self, method: Method) -> Request<()> {
        let mut request = self.request();
        *request.method_mut() = method;
        request
    }
}

impl Site {
    /// Logs in `count` visitors with the tokens `visitor-0`, `visitor-1` and so on, each in a browser of their own. Then
    /// moves the clock to [`DUE`].
    pub(crate) async fn due_visitors(&self, count: usize) -> Vec<Self> {
        let mut visitors = Vec::new();
        for number in 0..count {
            let mut visitor = self.clone();
            visitor.login(&format!("visitor-{number}")).await;
            visitors.push(visitor);
        }
        self.wait_until(DUE);
        visitors
    }

    /// Logs the visitor in, and visits a page at [`DUE`]. Fails unless the operator reports an opt-out.
    pub(crate) async fn opted_out(self) -> Self {
        let mut site = self.logged_in(DUE).await;
        assert_eq!(site.look().await.saw(), "opted_out");
        site
    }

    /// Sends a request to a handler that takes `duration` of tokio's time, without a change of the jar.
    pub(crate) async fn send_slowly(
        &self,
        request: Request<()>,
        duration: Duration,
        handler: impl Fn(&Euid, &mut Response<()>) + Clone + Send + 'static,
    ) -> Visit {
        let seen = Seen::default();
        let page = page(Arc::clone(&seen), handler).map_future(move |response| async move {
            tokio::time::sleep(duration).await;
            response.await
        });
        let response = self.layer.layer(page).oneshot(request).await.unwrap();
        let (euid, token) = seen.lock().unwrap().clone();
        Visit { euid, token, response }
    }
}
