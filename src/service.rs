//! The request half: what the cookies say, and what follows from it before the handler runs.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use tower::Service;

use crate::clock::UnixMillis;
use crate::cookie::{Anchor, FoundIdentity, Lineage, Payload};
use crate::error::EuidError;
use crate::extension::Euid;
use crate::future::{Beside, Parked, Planned, Refreshing, Renewed, ResponseFuture};
use crate::gate;
use crate::identity::{AdvertisingToken, Identity, IdentityTimes};
use crate::layer::{RefreshMode, Shared};
use crate::observe;
use crate::plan::{self, Action, AnchorSays, Consent, Plan, Presented, Sees, Subject, Verdict};
use crate::refresh::{Asked, Refreshed, failed};

/// The service that [`EuidLayer`](crate::EuidLayer) makes.
///
/// Its error is the inner one's, its responses are the inner one's; bodies are not touched.
#[derive(Clone)]
pub struct EuidService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> EuidService<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, B, R> Service<Request<B>> for EuidService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.extensions().get::<Euid>().is_some() {
            // A layer further out does the work already.
            return ResponseFuture::nested(self.inner.call(request));
        }
        let shared = Arc::clone(&self.shared);
        match look(&shared, request.headers()) {
            Sight::Shown { euid, action } => {
                let token = show(&mut request, euid);
                let planned = Planned { action, renewed: None, token, beside: None };
                ResponseFuture::calling(self.inner.call(request), shared, planned)
            }
            Sight::Due(due) => {
                let (request, may_refresh) = gate::may_refresh(request, shared.refresh_when.as_deref());
                let Shared { desk, .. } = &*shared;
                let asked = if may_refresh {
                    desk.ask(&due.identity, due.now)
                } else {
                    // What another request has found out holds for this one too.
                    desk.recall(&due.identity, due.now)
                };
                self.call_due(shared, request, *due, asked)
            }
        }
    }
}

impl<S> EuidService<S> {
    /// Calls the handler of a request whose identity is due: now, or once the operator has answered.
    fn call_due<B>(
        &mut self,
        shared: Arc<Shared>,
        mut request: Request<B>,
        due: Due,
        asked: Asked,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        let (settled, beside) = match asked {
            Asked::Known(outcome) => (settle(&shared, &due, due.now, &outcome), None),
            Asked::Refused(why) => {
                observe::refresh_refused(why);
                (settle(&shared, &due, due.now, &failed(why)), None)
            }
            Asked::Waiting(waiter, patience) => {
                let unanswered = settle(&shared, &due, due.now, &failed("not answered yet"));
                let is_usable = unanswered.euid.advertising_token().is_some();
                if shared.refresh_mode == RefreshMode::Beside && is_usable {
                    (unanswered, Some(Box::new(Beside { waiter, due })))
                } else {
                    // Only the service that `poll_ready` was called on is ready; a clone is not. The
                    // ready one goes with the request, the clone stays to be asked again.
                    let clone = self.inner.clone();
                    let ready = mem::replace(&mut self.inner, clone);
                    let refreshing = Refreshing::new(shared, waiter, patience, Parked { due, ready, request });
                    return ResponseFuture::refreshing(refreshing);
                }
            }
        };
        let Settled { euid, action, renewed } = settled;
        let token = show(&mut request, euid);
        let planned = Planned { action, renewed, token, beside };
        ResponseFuture::calling(self.inner.call(request), shared, planned)
    }
}

impl<S: fmt::Debug> fmt::Debug for EuidService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EuidService").field("inner", &self.inner).field("shared", &self.shared).finish()
    }
}

/// What the cookies come to, before the handler runs.
enum Sight {
    /// Nobody needs to be asked.
    Shown { euid: Euid, action: Action },
    /// The operator does.
    Due(Box<Due>),
}

/// An identity to be refreshed.
pub(crate) struct Due {
    pub(crate) lineage: Lineage,
    pub(crate) identity: Identity,
    /// Its times with the margin taken off and the jitter put on.
    pub(crate) times: IdentityTimes,
    /// When the request came.
    pub(crate) now: UnixMillis,
}

/// Reads the cookies and asks the policy. No lock, no timer; the clock only if there is a time to
/// hold against it.
fn look(shared: &Shared, headers: &HeaderMap) -> Sight {
    let found = shared.cookies.read(headers, &shared.keys, |payload| sight_of(shared, payload));
    let presented = match found.identity {
        FoundIdentity::Usable(sight) => return sight,
        FoundIdentity::None => Presented::Nothing,
        FoundIdentity::UnknownKey => {
            observe::cookie_unknown();
            Presented::UnknownKey
        }
        FoundIdentity::Unusable(reason) => {
            observe::cookie_unusable(reason);
            Presented::Unusable
        }
    };
    let anchor = match found.anchor {
        Anchor::None => AnchorSays::Nothing,
        Anchor::OptedOut { until } if shared.clock.now() < until => AnchorSays::OptedOut,
        Anchor::OptedOut { .. } | Anchor::Login(_) | Anchor::Unusable => AnchorSays::Something,
    };
    let Verdict { sees, action } = plan::without_identity(presented, anchor, Consent::Granted);
    Sight::Shown { euid: euid(sees, None), action }
}

/// What an identity that opened comes to; `None` if it breaks the rules of one.
fn sight_of(shared: &Shared, payload: &Payload<'_>) -> Option<Sight> {
    let now = shared.clock.now();
    let mut times = with_margin(shared, payload.times);
    let [a, b, c, d, ..] = payload.lineage;
    let jitter = plan::jitter(&payload.times, u32::from_be_bytes([a, b, c, d]), shared.refresh_jitter);
    times.refresh_from = times.refresh_from.saturating_add(jitter);
    Some(match plan::plan(&times, Subject::Same, Consent::Granted, now) {
        Plan::Proceed(Verdict { sees, action }) => {
            let token = || AdvertisingToken::new(&payload.advertising_token(), payload.times);
            Sight::Shown { euid: euid(sees, (sees == Sees::Active).then(token)), action }
        }
        Plan::Refresh => {
            Sight::Due(Box::new(Due { lineage: payload.lineage, identity: payload.identity()?, times, now }))
        }
    })
}

/// What an answer comes to.
pub(crate) struct Settled {
    pub(crate) euid: Euid,
    pub(crate) action: Action,
    /// The identity to store, where there is one.
    pub(crate) renewed: Option<Renewed>,
}

/// The answer of the operator, or its failure to come, turned into what the handler sees and what
/// the response will do.
pub(crate) fn settle(shared: &Shared, due: &Due, now: UnixMillis, answer: &Result<Refreshed, EuidError>) -> Settled {
    let told = match plan::Answer::of(answer) {
        plan::Answer::NewPair(times) => plan::Answer::NewPair(with_margin(shared, times)),
        other => other,
    };
    let Verdict { sees, action } = plan::settle(&due.times, now, told);
    let token = |identity: &Identity| Some(AdvertisingToken::new(identity.advertising_token(), identity.times()));
    match (sees, answer) {
        (Sees::ActiveNew, Ok(Refreshed::Identity(new))) => {
            let renewed = Some(Renewed { lineage: due.lineage, identity: new.clone() });
            Settled { euid: euid(sees, token(new)), action, renewed }
        }
        (Sees::Active, _) => Settled { euid: euid(sees, token(&due.identity)), action, renewed: None },
        _ => Settled { euid: euid(sees, None), action, renewed: None },
    }
}

/// Puts what the handler sees into the request; gives back its token.
pub(crate) fn show<B>(request: &mut Request<B>, euid: Euid) -> Option<AdvertisingToken> {
    observe::request(&euid);
    let token = euid.advertising_token().cloned();
    let extensions = request.extensions_mut();
    if let Some(token) = &token {
        extensions.insert(token.clone());
    }
    extensions.insert(euid);
    token
}

fn with_margin(shared: &Shared, mut times: IdentityTimes) -> IdentityTimes {
    times.identity_expires = times.identity_expires.saturating_sub(shared.expiry_margin);
    times
}

fn euid(sees: Sees, token: Option<AdvertisingToken>) -> Euid {
    match (sees, token) {
        (Sees::Active | Sees::ActiveNew, Some(token)) => Euid::Active(token),
        (Sees::Absent, _) => Euid::Absent,
        (Sees::OptedOut, _) => Euid::OptedOut,
        (Sees::Withheld, _) => Euid::Withheld,
        (Sees::Unavailable | Sees::Active | Sees::ActiveNew, _) => Euid::Unavailable,
    }
}
