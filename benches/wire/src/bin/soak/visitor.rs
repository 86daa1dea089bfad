//! A visitor with a browser and random actions.
//!
//! To the operator each login is a different person, so that each token identifies its login. Answers are processed in
//! the order of arrival, as a browser does with several tabs. Some arrive only after later actions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use euid_sandbox::Sandbox;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_euid::clock::{Clock, SystemClock, UnixMillis};
use tower_euid::{Dii, EuidClient};

use crate::operator::Operator;
use crate::rules::{self, IdentityCookie, Login, Page, Token};
use crate::tally::Tally;

/// The state that all visitors share.
pub(crate) struct World {
    nodes: Vec<String>,
    http: Client<HttpConnector, Full<Bytes>>,
    operator: Arc<Operator>,
    /// Validates tokens, even while the operator fails.
    judge: EuidClient,
    tally: Arc<Tally>,
}

impl World {
    pub(crate) fn new(nodes: Vec<String>, operator: Arc<Operator>, tally: Arc<Tally>) -> Self {
        let sandbox = Sandbox::builder().build().unwrap();
        let (judge, _) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock()).unwrap();
        Self { nodes, http: Client::builder(TokioExecutor::new()).build_http(), operator, judge, tally }
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

/// A request that a browser is about to send.
#[derive(Clone, Debug)]
enum Order {
    Page { status: u16, word: u64 },
    Login { address: String },
    Logout,
}

/// The answer that a browser got, and its knowledge at the time of the request.
struct Answer {
    order: Order,
    node: usize,
    changes: u64,
    told: bool,
    lives_until: Option<UnixMillis>,
    asked_at: UnixMillis,
    came_at: UnixMillis,
    response: Result<Response<Bytes>, String>,
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

    /// Returns a login of a new person, or now and then of the previous one.
    fn a_login(&mut self) -> Order {
        if self.chance.u32(..10) != 0 {
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
        let node = self.chance.usize(..self.world.nodes.len());
        let (method, path, body) = match &order {
            Order::Page { status, word } => (Method::GET, format!("/?status={status}&word={word}"), String::new()),
            Order::Login { address } => (Method::POST, "/login".to_owned(), address.clone()),
            Order::Logout => (Method::POST, "/logout".to_owned(), String::new()),
        };
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.world.nodes[node]));
        let cookies: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = if cookies.is_empty() { request } else { request.header(COOKIE, cookies.join("; ")) };
        let request = request.body(Full::from(body)).unwrap();
        let (changes, told) = (self.changes, self.login.as_ref().is_some_and(|login| login.told));
        let lives_until = self.login.as_ref().map(|login| login.cookie.lives_until);
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
                let page = page(answer, response.headers(), &body, *word).filter(|_| status == *wanted);
                let page = page.ok_or("a page that its handler did not make")?;
                world.tally.page(page.state, renewed, took);
                self.follow_cookie(answer, response.headers());
                let removed = removed_cookies(response.headers());
                let login = match usize::try_from(self.changes - answer.changes).unwrap() {
                    0 => &mut self.login,
                    ago => &mut self.past[ago - 1],
                };
                if let Some(login) = login.as_mut().filter(|login| removed.contains(&&*login.cookie.name)) {
                    login.refused |= world.operator.has_refused_since(login.since);
                }
                if login.as_ref().is_some_and(|login| login.is_lost(&page)) {
                    world.tally.lost.one_more();
                    return Err("a login that counts, and its page is `absent`".to_owned());
                }
                return rules::judge(&page, login.as_mut(), &world.judge).await;
            }
            (Order::Login { address }, 200, "identity") => {
                world.tally.logins.one_more();
                let cookie = identity_cookie(answer, response.headers()).ok_or("a login without an identity cookie")?;
                self.change(Some(Login::new(Dii::email(address).unwrap(), answer.asked_at, cookie)));
            }
            (Order::Login { .. }, 200, "opted out") => {
                world.tally.refused_logins.one_more();
                self.change(None);
            }
            (Order::Login { .. }, 503, "try later") => {
                world.tally.failed_logins.one_more();
                self.change(None);
            }
            // A site behind the sidecar does not know what becomes of its login; the cookies show it.
            (Order::Login { address }, 200, "sent") => {
                let cookie = identity_cookie(answer, response.headers());
                let outcome = match (&cookie, sets_opt_out(response.headers())) {
                    (Some(_), _) => &world.tally.logins,
                    (None, true) => &world.tally.refused_logins,
                    (None, false) => &world.tally.failed_logins,
                };
                outcome.one_more();
                self.change(cookie.map(|cookie| Login::new(Dii::email(address).unwrap(), answer.asked_at, cookie)));
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

    /// Notes that a page has replaced the identity of the login that counts.
    fn follow_cookie(&mut self, answer: &Answer, headers: &HeaderMap) {
        let Some(login) = &mut self.login else { return };
        if let Some(cookie) = identity_cookie(answer, headers).filter(|cookie| cookie.name == login.cookie.name) {
            login.cookie = cookie;
        }
    }

    /// Keeps the cookies of a response. Returns whether there was one to keep.
    fn keep_cookies(&mut self, headers: &HeaderMap) -> bool {
        let mut kept = false;
        for line in headers.get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            let (name, rest) = line.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if is_removal(line) {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
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

/// Returns the identity cookie that a response sets.
fn identity_cookie(answer: &Answer, headers: &HeaderMap) -> Option<IdentityCookie> {
    let lines = headers.get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.filter(|line| line.starts_with("__Host-euid.")).find_map(|line| {
        let name = line.split('=').next()?.to_owned();
        let seconds: u64 = line.split("Max-Age=").nth(1)?.split(';').next()?.parse().ok()?;
        // A second less, and from the request on, so that the operator cannot find the token expired before.
        let lives = Duration::from_secs(seconds.checked_sub(1)?);
        Some(IdentityCookie { name, lives_until: answer.asked_at.saturating_add(lives) })
    })
}

fn sets_opt_out(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.filter(|line| !is_removal(line)).any(|line| line.starts_with("__Host-euid-optout."))
}

fn removed_cookies(headers: &HeaderMap) -> Vec<&str> {
    let lines = headers.get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.filter(|line| is_removal(line)).filter_map(|line| line.split('=').next()).collect()
}

fn is_removal(line: &str) -> bool {
    line.contains("Max-Age=0")
}

/// Parses a page of [`site`](crate::site); `None` if it is no such page.
fn page<'a>(answer: &Answer, headers: &'a HeaderMap, body: &'a str, word: u64) -> Option<Page<'a>> {
    let (said, seen) = body.split_once('\n')?;
    let mut seen = seen.split(' ');
    let (state, shown_at) = (seen.next()?, moment(seen.next()?)?);
    let token = match (seen.next(), seen.next()) {
        (Some(ends), Some(text)) => Some(Token { shown_at, ends: moment(ends)?, text }),
        _ => None,
    };
    let Answer { asked_at, came_at, told, lives_until, .. } = *answer;
    let page = Page { asked_at, came_at, asked_told: told, lives_until, headers, state, token };
    (said == word.to_string()).then_some(page)
}

fn moment(text: &str) -> Option<UnixMillis> {
    text.parse().ok().map(UnixMillis::from_millis)
}

const REMEMBERED: usize = 16;
