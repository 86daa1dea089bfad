//! What a request does with the engine's step: its handler is called at once, after a refresh, or after a look into the
//! store.

use std::mem;
use std::sync::Arc;

use euid_core::Reason;
use euid_core::engine::{Decision, Load, Loaded, RefreshCandidate, RequestContext, Step, Unavailable};
use euid_core::store::StoreKey;
use http::{Request, Response};
use tower::Service;

use crate::config::{Config, RefreshMode};
use crate::future::{ConcurrentRefresh, Loading, Refreshing, ResponseFuture, Suspended};
use crate::hooks::{self, HookAnswers};
use crate::records::RefreshByStore;
use crate::refresh::{ErasedRefresh, Origin, RefreshKey, Reply};
use crate::request::{report, start_explained};
use crate::telemetry;

/// A service that is ready for a request, with the configuration of the layer around it.
pub(crate) struct Ready<'a, S> {
    pub(crate) inner: &'a mut S,
    pub(crate) config: Arc<Config>,
}

impl<S> Ready<'_, S> {
    /// Calls the handler of a request whose decision is made.
    fn call_decided<B>(self, request: Request<B>, decision: Decision) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        if !decision.findings().is_empty() {
            report(&self.config, decision.scope(), decision.findings());
        }
        if decision.stores_identity() {
            return self.call_to_store(request, decision);
        }
        self.call_now(request, decision, None)
    }

    /// Asks the hooks of the application about the request, if there are any, then the engine.
    pub(crate) fn call_with_hooks<B, R>(self, request: Request<B>) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
    {
        let Self { inner, config } = self;
        let (request, answers) = if config.has_request_hooks {
            let (request, answers) = hooks::answers(&config, request);
            (request, Some(answers))
        } else {
            (request, None)
        };
        let context = answers.as_ref().map_or(RequestContext::UNRESTRICTED, HookAnswers::context);
        let step = config.engine.begin(request.method(), request.headers(), &context, || config.now());
        Ready { inner, config }.call_step(request, step, answers)
    }

    /// Does what a step says. `answers` are those of the hooks, if there are any.
    pub(crate) fn call_step<B, R>(
        self,
        request: Request<B>,
        step: Step,
        answers: Option<HookAnswers>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
    {
        match step {
            Step::Ready(decision) => self.call_decided(request, decision),
            Step::Refresh(candidate) => self.call_due(request, candidate),
            Step::Load(load) => self.call_loaded(request, load, answers),
        }
    }

    /// Calls the handler without a wait.
    fn call_now<B>(
        self,
        mut request: Request<B>,
        decision: Decision,
        concurrent: Option<Box<ConcurrentRefresh>>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        let Self { inner, config } = self;
        let (pending, explanation) = start_explained(&config, &mut request, decision);
        let future = inner.call(request);
        match explanation {
            Some(_) => ResponseFuture::calling(future, config, pending, concurrent, explanation),
            None => ResponseFuture::running(future, config, pending, concurrent),
        }
    }

    /// Calls the handler of a request whose identity must be written without a refresh: under a new key, or because it
    /// was migrated from the JS SDK.
    fn call_to_store<B>(self, request: Request<B>, mut decision: Decision) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        let (request, hook_allows) = hooks::allows_writes(&self.config, request);
        if !hook_allows {
            decision.defer();
        }
        self.call_now(request, decision, None)
    }

    /// Calls the handler of a request whose identity is due: at once, or after the operator has answered.
    fn call_due<B>(self, mut request: Request<B>, mut candidate: Box<RefreshCandidate>) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        let config = &self.config;
        if !candidate.findings().is_empty() {
            report(config, Some(candidate.scope()), candidate.findings());
        }
        // The hook is not called for a response that may not write anyway, such as that to a request for an image:
        // `may_refresh` is false, and `settle` defers the write.
        let mut hook_allows = true;
        if candidate.may_write() {
            (request, hook_allows) = hooks::allows_writes(config, request);
        }
        let now = candidate.arrived();
        // As bytes, since `refresh` must not import the engine.
        let lineage = candidate.lineage().map(|lineage| *lineage.as_bytes());
        let coordinator = config.coordinator(candidate.scope());
        let key = RefreshKey::new(candidate.identity(), lineage);
        let mut decision = if hook_allows && candidate.may_refresh() {
            let origin = if candidate.is_migrated() { Origin::Migrated } else { Origin::Login };
            match coordinator.ask(&key, candidate.identity(), origin, by_store(config, &candidate), now) {
                Reply::Known(outcome) => candidate.settle(&outcome, now),
                Reply::Refused(why) => refused(candidate.proceed(why, now)),
                Reply::Waiting { waiter, patience, shared } => {
                    candidate.share(shared);
                    let is_concurrent = config.refresh_mode == RefreshMode::Concurrent && candidate.is_usable();
                    if is_concurrent || !candidate.may_wait() {
                        // The handler is called now, with the old token. `ConcurrentRefresh::adopt` settles the
                        // candidate again, if the operator has answered before the handler's response.
                        let unanswered = candidate.proceed(Reason::RefreshUnderWay, now);
                        let concurrent = Box::new(ConcurrentRefresh { waiter, candidate });
                        return self.call_now(request, unanswered, Some(concurrent));
                    }
                    let (ready, config) = self.take();
                    let refreshing = Refreshing::new(config, waiter, patience, Suspended { candidate, ready, request });
                    return ResponseFuture::refreshing(refreshing);
                }
            }
        } else {
            // The outcome of another request's refresh applies to this one too.
            match coordinator.recall(&key, now) {
                Some(outcome) => candidate.settle(&outcome, now),
                None if hook_allows => refused(candidate.postpone(now)),
                None => refused(candidate.proceed(Reason::RefreshDeclined, now)),
            }
        };
        if !hook_allows {
            decision.defer();
        }
        self.call_now(request, decision, None)
    }

    /// Reads the record from the store, then calls the handler.
    #[cold]
    fn call_loaded<B, R>(self, request: Request<B>, load: Load, answers: Option<HookAnswers>) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
    {
        let Some(records) = &self.config.records else {
            // Never: the engine has a store if the layer has one.
            return self.resume(request, load.key(), &Err(Unavailable), answers.as_ref());
        };
        let record = if load.may_be_shared() && records.shares_reads() {
            if let Some(loaded) = records.remembered(load.key()) {
                return self.resume(request, load.key(), &loaded, answers.as_ref());
            }
            records.load(load.key())
        } else {
            records.load_alone(load.key())
        };
        let (ready, config) = self.take();
        ResponseFuture::loading(Loading { config, record, suspended: Some((ready, request, load, answers)) })
    }

    /// Calls the handler of a request that needed a record, now that the store has answered, or has failed to.
    pub(crate) fn resume<B, R>(
        self,
        request: Request<B>,
        key: &StoreKey,
        loaded: &Loaded,
        answers: Option<&HookAnswers>,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
    {
        let context = answers.map_or(RequestContext::UNRESTRICTED, HookAnswers::context);
        let Self { inner, config } = self;
        let (method, headers, now) = (request.method(), request.headers(), || config.now());
        let step = config.engine.resume(key, loaded, method, headers, &context, now);
        // It is not `Step::Load`: the record has been looked for.
        Ready { inner, config }.call_step(request, step, None)
    }

    /// The ready service. Only the one that `poll_ready` was called on is ready; a clone is not. The ready one moves into
    /// the request's future; the clone stays for the next `poll_ready`.
    fn take(self) -> (S, Arc<Config>)
    where
        S: Clone,
    {
        let clone = self.inner.clone();
        (mem::replace(self.inner, clone), self.config)
    }
}

/// The refresh by way of the store, if the identity is there or moves there.
fn by_store(config: &Config, candidate: &RefreshCandidate) -> Option<Arc<dyn ErasedRefresh>> {
    let (records, stored) = (config.records.as_ref()?, candidate.stored()?);
    let coordinator = config.coordinator(candidate.scope());
    Some(Arc::new(RefreshByStore {
        records: Arc::clone(records),
        engine: config.engine.clone(),
        stored: stored.clone(),
        refresh: Arc::clone(coordinator.refresh()),
        call_deadline: coordinator.call_deadline(),
    }))
}

/// Reports that no call is made for this decision, and returns it.
fn refused(decision: Decision) -> Decision {
    telemetry::refresh_refused(decision.reason());
    decision
}
