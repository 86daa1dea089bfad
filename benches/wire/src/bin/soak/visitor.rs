//! A visitor with a browser and random actions.
//!
//! To the operator each login is a different person, so that each token identifies its login. Answers are processed in
//! the order of arrival, as a browser does with several tabs. Some arrive only after later actions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use euid_sandbox::Sandbox;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_euid::clock::{Clock, SystemClock};
use tower_euid::{Dii, EuidClient};

use crate::answer::{Answer, Order};
use crate::cookies::{Outcome, cookies};
use crate::login::Login;
use crate::operator::Operator;
use crate::rules;
use crate::tally::Tally;

/// The state that all visitors share.
pub(crate) struct World {
    nodes: Vec<String>,
    http: Client<HttpConnector, Full<Bytes>>,
    operator: Arc<Operator>,
    /// Validates tokens, even while the operator fails.
    judge: EuidClient,
    tally: Arc<Tally>,
    /// Whether the site keeps identities in a store.
    has_store: bool,
}

impl World {
    pub(crate) fn new(nodes: Vec<String>, operator: Arc<Operator>, tally: Arc<Tally>, has_store: bool) -> Self {
        let sandbox = Sandbox::builder().build().unwrap();
        let (judge, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
        Self { nodes, http: Client::builder(TokioExecutor::new()).build_http(), operator, judge, tally, has_store }
    }
}

pub(crate) struct Visitor {
    number: u64,
    seed: u64,
    chance: fastrand::Rng,
    world: Arc<World>,
    jar: BTreeMap<String, String>,
    login: Option<Login>,
    /// The previous logins, latest first, for answers that arrive late. `None` is a time without a login.
    past: VecDeque<Option<Login>>,
    /// The answers that have not arrived at the browser yet.
    on_the_way: Vec<Answer>,
    /// How many people have logged in with this browser.
    people: u64,
    /// How often the login has changed.
    changes: u64,
    /// The last actions, for the report of a violation.
    lately: VecDeque<String>,
}

impl Visitor {
    pub(crate) fn new(number: u64, seed: u64, world: Arc<World>) -> Self {
        let chance = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            number,
            seed,
            chance,
            world,
            jar: BTreeMap::new(),
            login: None,
            past: VecDeque::new(),
            on_the_way: Vec::new(),
            people: 0,
            changes: 0,
            lately: VecDeque::new(),
        }
    }

    /// Browses until a rule is broken.
    pub(crate) async fn browse(mut self) {
        while !self.world.tally.is_broken() {
            sleep(Duration::from_millis(self.chance.u64(200..3000))).await;
            let step = self.step().await;
            if let Err(rule) = step {
                let lately: Vec<String> = self.lately.into();
                let what = format!("BROKEN: {rule}\nseed {}, visitor {}, who last did:\n", self.seed, self.number);
                self.world.tally.breaks(what + &lately.join("\n"));
                return;
            }
        }
    }

    async fn step(&mut self) -> Result<(), String> {
        if self.chance.bool() {
            self.take_late().await?;
        }
        match self.chance.u32(..100) {
            _ if self.login.is_none() && self.chance.bool() => {
                let login = self.a_login();
                self.at_once(vec![login]).await
            }
            0..70 => {
                let page = self.a_page();
                self.at_once(vec![page]).await
            }
            70..82 => {
                let tabs = (0..self.chance.usize(2..5)).map(|_| self.a_page()).collect();
                self.at_once(tabs).await
            }
            82..86 => {
                self.hang_up().await;
                Ok(())
            }
            86..88 => {
                self.opt_out();
                Ok(())
            }
            88..92 => self.at_once(vec![Order::Logout]).await,
            92..96 => {
                let orders = vec![self.a_page(), Order::Logout, self.a_page()];
                self.at_once(orders).await
            }
            _ => {
                let orders = vec![self.a_page(), self.a_login(), self.a_page()];
                self.at_once(orders).await
            }
        }
    }

    fn a_page(&mut self) -> Order {
        let status = self.chance.choice([200, 200, 200, 404, 503]).unwrap();
        Order::Page { status, word: self.chance.u64(..) }
    }

    /// Returns a login of a new person, or now and then of the previous one: more often if that one has opted out.
    fn a_login(&mut self) -> Order {
        let has_opted_out = self.login.as_ref().is_some_and(|login| login.opted_out_at.is_some());
        if self.chance.u32(..if has_opted_out { 2 } else { 10 }) != 0 {
            self.people += 1;
        }
        Order::Login { address: format!("visitor{}-{}@example.com", self.number, self.people) }
    }

    fn opt_out(&mut self) {
        let Some(login) = &mut self.login else { return };
        self.world.operator.opt_out(login.person);
        login.opted_out_at.get_or_insert_with(|| SystemClock.now());
        self.world.tally.opt_outs.one_more();
        self.note("opts out at the operator".to_owned());
    }

    /// Requests a page and hangs up after a few milliseconds.
    async fn hang_up(&mut self) {
        let page = self.a_page();
        let patience = Duration::from_millis(self.chance.u64(..20));
        if timeout(patience, self.send(page)).await.is_err() {
            self.world.tally.hung_up.one_more();
            self.note(format!("hangs up on a page after {patience:?}"));
        }
    }

    /// Sends all these requests, and processes the answers as they arrive. Some arrive only in a later step.
    async fn at_once(&mut self, orders: Vec<Order>) -> Result<(), String> {
        if orders.len() > 1 && orders.iter().any(|order| !matches!(order, Order::Page { .. })) {
            self.world.tally.raced.one_more();
        }
        if self.on_the_way.is_empty() {
            self.past.clear();
        }
        let mut under_way = JoinSet::new();
        for order in orders {
            self.note(format!("asks for {order:?}"));
            under_way.spawn(self.send(order));
        }
        while let Some(answer) = under_way.join_next().await {
            let answer = answer.unwrap();
            if self.chance.u32(..8) == 0 {
                self.note(format!("does not get the answer to {:?} yet", answer.order));
                self.on_the_way.push(answer);
            } else {
                self.take(&answer).await?;
            }
        }
        Ok(())
    }

    /// Processes the answers that were on the way, in any order.
    async fn take_late(&mut self) -> Result<(), String> {
        let mut late = std::mem::take(&mut self.on_the_way);
        self.chance.shuffle(&mut late);
        for answer in late {
            self.world.tally.late.one_more();
            self.note(format!("gets the late answer to {:?}", answer.order));
            self.take(&answer).await?;
        }
        Ok(())
    }

    fn send(&mut self, order: Order) -> impl Future<Output = Answer> + Send + 'static {
        if let Some(login) = self.login.as_mut().filter(|_| !matches!(order, Order::Page { .. })) {
            login.is_about_to_end();
        }
        let node = self.chance.usize(..self.world.nodes.len());
        let request = order.request(&self.world.nodes[node], &self.jar);
        let (changes, told) = (self.changes, self.login.as_ref().is_some_and(|login| login.told));
        let lives_until = self.login.as_ref().map(|login| login.lives_until);
        let world = Arc::clone(&self.world);
        async move {
            let asked_at = SystemClock.now();
            let response = async {
                let (parts, body) = world.http.request(request).await.map_err(|error| error.to_string())?.into_parts();
                let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
                Ok(Response::from_parts(parts, body))
            };
            let response = response.await;
            Answer { order, node, changes, told, lives_until, asked_at, came_at: SystemClock.now(), response }
        }
    }

    /// Processes an answer as a browser does, and judges it.
    async fn take(&mut self, answer: &Answer) -> Result<(), String> {
        let response = answer.response.as_ref().map_err(|error| format!("no answer: {error}"))?;
        let body = String::from_utf8_lossy(response.body());
        let status = response.status().as_u16();
        let renewed = self.keep_cookies(response.headers());
        let took = answer.came_at.saturating_since(answer.asked_at);
        self.note(format!("is told {status} by node {} after {took:?}, cookies: {renewed}: {body:.90}", answer.node));
        let world = Arc::clone(&self.world);
        match (&answer.order, status, &*body) {
            (Order::Page { status: wanted, word }, ..) => {
                let page = answer.page(response.headers(), &body, *word).filter(|_| status == *wanted);
                let page = page.ok_or("a page that its handler did not make")?;
                world.tally.page(page.state, renewed, took);
                if let Some(login) = &mut self.login {
                    login.follow(&page);
                    let is_its_page = self.changes == answer.changes;
                    if is_its_page && login.follow_store(&page, |cookie| self.jar.contains_key(cookie)) {
                        world.tally.moved.one_more();
                    }
                }
                let login = match usize::try_from(self.changes - answer.changes).unwrap() {
                    0 => &mut self.login,
                    ago => &mut self.past[ago - 1],
                };
                if login.as_mut().is_some_and(|login| login.is_lost(&page, &world.operator)) {
                    world.tally.lost.one_more();
                    return Err("a login that counts, and its page is `absent`".to_owned());
                }
                return rules::judge(&page, login.as_mut(), &world.judge).await;
            }
            (Order::Login { address }, ..) => {
                let outcome = Outcome::of(response.headers());
                let counter = match (&outcome, status, &*body) {
                    (Outcome::Identity(..), 200, "identity" | "sent") => &world.tally.logins,
                    (Outcome::OptedOut, 200, "opted out" | "sent") => &world.tally.refused_logins,
                    // A site in Python does not know the outcome.
                    (Outcome::Failed, 503, "try later") | (Outcome::Failed, 200, "sent") => &world.tally.failed_logins,
                    _ => return Err("a login that its handler did not make".to_owned()),
                };
                counter.one_more();
                if world.has_store && matches!(outcome, Outcome::Identity(_, Some(_))) {
                    world.tally.sealed_logins.one_more();
                }
                let person = Dii::email(address).unwrap();
                self.change(Login::begun(outcome, person, answer.asked_at, world.has_store)?);
            }
            (Order::Logout, 200, "bye") => {
                world.tally.logouts.one_more();
                self.change(None);
            }
            _ => return Err("an answer that its handler did not make".to_owned()),
        }
        rules::caching(response.headers(), false)
    }

    fn change(&mut self, login: Option<Login>) {
        self.past.push_front(std::mem::replace(&mut self.login, login));
        self.changes += 1;
    }

    /// Keeps the cookies of a response. Returns whether there was one to keep.
    fn keep_cookies(&mut self, headers: &HeaderMap) -> bool {
        let mut kept = false;
        for cookie in cookies(headers) {
            if cookie.is_removal() {
                self.jar.remove(cookie.name);
            } else {
                self.jar.insert(cookie.name.to_owned(), cookie.value.to_owned());
                kept = true;
            }
        }
        kept
    }

    fn note(&mut self, what: String) {
        if self.lately.len() == REMEMBERED {
            self.lately.pop_front();
        }
        self.lately.push_back(format!("{} {what}", SystemClock.now().as_millis()));
    }
}

const REMEMBERED: usize = 16;
