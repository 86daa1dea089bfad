//! The spans: of a call to the operator, and of a refresh. The wait of a page is a field of the application's span.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_euid::clock::ManualClock;
use tower_euid::refresh_fn;
use tracing::field::{Empty, Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Instrument, Subscriber, info_span};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, registry};

use crate::support::{DUE, Log, SCOPE, START, Site, new_pair};

/// Records the spans of this thread, and which span each event of this crate is in.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Recorded>>>);

#[derive(Clone, Debug)]
struct Recorded {
    id: Id,
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
    follows: Vec<Id>,
    /// How many events are in it.
    events: usize,
    is_closed: bool,
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Spans {
    fn start(&self) -> DefaultGuard {
        drop(Log::default().start());
        tracing::subscriber::set_default(registry().with(self.clone()))
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut Recorded)) {
        if let Some(span) = self.0.lock().unwrap().iter_mut().rfind(|span| span.id == *id) {
            change(span);
        }
    }

    /// Returns the spans of this name.
    fn named(&self, name: &str) -> Vec<Recorded> {
        self.0.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let name = attributes.metadata().name();
        self.0.lock().unwrap().push(Recorded {
            id: id.clone(),
            name,
            fields,
            follows: Vec::new(),
            events: 0,
            is_closed: false,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |span| values.record(&mut Fields(&mut span.fields)));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        self.change(id, |span| span.follows.push(follows.clone()));
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.change(&id, |span| span.is_closed = true);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == "tower_euid"
            && let Some(span) = context.event_span(event)
        {
            self.change(&span.id(), |span| span.events += 1);
        }
    }
}

#[tokio::test]
async fn refresh_follows_from_the_page_that_started_it_and_a_page_records_its_wait() {
    let clock = ManualClock::at(START);
    let during_the_call = clock.clone();
    let operator = refresh_fn(move |_| {
        during_the_call.advance(Duration::from_millis(20));
        ready(new_pair("new"))
    });
    let site = Site { clock: clock.clone(), ..Site::new(operator).configured(|layer| layer.clock(clock)) };
    let site = site.logged_in(DUE).await;
    let spans = Spans::default();
    let _guard = spans.start();
    for name in ["first", "second"] {
        let page = info_span!("page", name, "tower_euid.waited_ms" = Empty);
        site.clone().look_once().instrument(page).await;
    }
    let pages = spans.named("page");
    let [refresh] = &spans.named("tower_euid.refresh")[..] else { panic!("one refresh") };
    assert_eq!(refresh.follows, [pages[0].id.clone()]);
    assert_eq!((&*refresh.fields["tower_euid.scope"], refresh.events), (SCOPE.as_ref(), 1));
    assert!(refresh.is_closed);
    // The outcome is known when the second page comes, so it does not wait.
    let waited = pages.iter().map(|page| page.fields.get("tower_euid.waited_ms").map(String::as_str));
    assert_eq!(waited.collect::<Vec<_>>(), [Some("20"), None]);
}

#[cfg(feature = "client")]
mod calls {
    use std::convert::Infallible;
    use std::net::TcpListener;

    use euid_sandbox::{Fault, Sandbox};
    use http::{Request, Response, StatusCode};
    use http_body_util::Full;
    use tower::service_fn;
    use tower_euid::error::EuidError;
    use tower_euid::{Dii, Environment, EuidClient, Generated};

    use super::*;
    use crate::support::scope;

    const KEY: &str = "EUID-C-T-124-example";
    const SECRET: &str = "4/NJLv1Umr4RfRLZW3Gw8SLf12anfELLKZHYUy2tqcM=";

    fn user() -> Dii {
        Dii::email("user@example.com").unwrap()
    }

    /// Returns the fields of the one call that was made.
    fn fields(spans: &Spans) -> BTreeMap<&'static str, String> {
        let [call] = &spans.named("tower_euid.call")[..] else { panic!("one call") };
        call.fields.clone()
    }

    #[tokio::test]
    async fn call_has_a_span_with_the_fields_of_an_http_client() {
        for (fault, status, outcome) in [
            (None, "200", "generated"),
            (Some(Fault::Status(503)), "503", "failed"),
            (Some(Fault::Status(401)), "401", "unauthorized"),
        ] {
            let sandbox = Sandbox::builder().scope(scope()).build().unwrap();
            let (client, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
            let is_error = fault.is_some();
            sandbox.fault(fault);
            let spans = Spans::default();
            let guard = spans.start();
            let generated = client.generate(user()).await;
            drop(guard);
            let fields = fields(&spans);
            assert!(!fields["server.address"].is_empty() && fields["server.port"].parse::<u16>().is_ok(), "{fields:?}");
            for (name, value) in [
                ("otel.name", "POST /v2/token/generate"),
                ("otel.kind", "client"),
                ("http.request.method", "POST"),
                ("url.template", "/v2/token/generate"),
                ("http.response.status_code", status),
                ("tower_euid.scope", scope().as_str()),
                ("tower_euid.outcome", outcome),
            ] {
                assert_eq!(fields[name], value, "{name}");
            }
            let error =
                [fields.get("error.type"), fields.get("otel.status_code")].map(|field| field.map(String::as_str));
            assert_eq!(error, if is_error { [Some(status), Some("ERROR")] } else { [None, None] });
            let text = format!("{fields:?}");
            assert!(!text.contains("example.com") && !text.contains(sandbox.api_key()), "{text}");
            if let Ok(Generated::Identity(identity)) = &generated {
                assert!(!text.contains(identity.advertising_token()), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn span_of_a_call_ends_with_the_call_and_not_with_its_connection() {
        let server =
            Sandbox::builder().scope(scope()).build().unwrap().serve(([127, 0, 0, 1], 0).into()).await.unwrap();
        let sandbox = server.sandbox();
        let builder = EuidClient::builder(Environment::Url(server.base_url())).clock(sandbox.clock());
        let client = builder.credentials(sandbox.api_key(), sandbox.client_secret()).build().unwrap();
        let spans = Spans::default();
        let _guard = spans.start();
        for count in 1..3 {
            client.generate(user()).await.unwrap();
            let calls = spans.named("tower_euid.call");
            assert!(calls.len() == count && calls.iter().all(|call| call.is_closed), "{calls:?}");
        }
    }

    #[tokio::test]
    async fn call_without_a_response_has_the_cause_as_the_type_of_its_error() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let operator = |host: &str| Environment::Url(format!("http://{host}:{port}"));
        let call = async |client: EuidClient| -> (EuidError, BTreeMap<&'static str, String>) {
            let spans = Spans::default();
            let _guard = spans.start();
            let error = client.generate(user()).await.unwrap_err();
            (error, fields(&spans))
        };
        let builder =
            |host: &str| EuidClient::builder(operator(host)).scope(tower_euid::Scope::Euid).credentials(KEY, SECRET);
        let (error, fields) = call(builder("127.0.0.1").build().unwrap()).await;
        assert_eq!(error.to_string(), "the operator can't be reached: connection refused");
        assert_eq!((&*fields["error.type"], &*fields["server.port"]), ("connection_refused", &*port.to_string()));
        assert!(!fields.contains_key("http.response.status_code"));

        let hangs = service_fn(|_: Request<_>| std::future::pending::<Result<Response<Full<&[u8]>>, Infallible>>());
        let client = builder("127.0.0.1").http_service(hangs).timeout(Duration::from_millis(1)).build().unwrap();
        assert_eq!(call(client).await.1["error.type"], "timeout");
    }

    #[tokio::test]
    async fn request_to_the_operator_has_no_header_of_a_trace() {
        let names = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&names);
        let service = service_fn(move |request: Request<_>| {
            seen.lock().unwrap().extend(request.headers().keys().map(|name| name.as_str().to_owned()));
            let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(Full::new(&b""[..])).unwrap();
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let builder = EuidClient::builder(Environment::Url("http://127.0.0.1:9".to_owned())).credentials(KEY, SECRET);
        let client = builder.scope(tower_euid::Scope::Euid).http_service(service).build().unwrap();
        let spans = Spans::default();
        let _guard = spans.start();
        client.generate(user()).instrument(info_span!("page")).await.unwrap_err();
        let names = names.lock().unwrap();
        assert!(!names.is_empty());
        assert!(!names.iter().any(|name| name.starts_with("trace") || name == "baggage"), "{names:?}");
    }
}
