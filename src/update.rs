//! [`EuidUpdate`]: a handler's order to the layer, in the response's extensions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use euid_core::engine::Change;
use euid_core::{Generated, Identity};
use http::{Extensions, Response};

use crate::telemetry;

/// A login, a logout or an opt-out that a handler requests from the layer around it.
///
/// With axum, return it as a part of the response. Without axum, [`attach`](Self::attach) it to the response. The layer
/// takes it out and writes the cookies. Precedence of two updates in one response: logout > opt-out > login. Of two
/// logins, the later one counts.
///
/// An update is for one response, and clones are the same update: make a new one for each response. If a cache inside
/// the layer replays a stored response, its update arrives a second time, in the response to another visitor. The layer
/// then ignores a login, so that no stranger is logged in, and warns once. It obeys a logout and an opt-out each time,
/// because these only end an identity. Keep caches outside: the layer can't know which visitor a response belongs to.
/// If a cache inside merges several requests and returns one response to all of them, the wrong visitor may be logged
/// in.
///
/// Responses to one browser may arrive in any order. Of updates, the one whose response arrives last counts, or with a
/// [store by user](crate::docs::stores#by-user) the one that the store wrote last. A late response to a page of another
/// login changes none of them: see
/// [the order of responses](crate::docs::threat_model#the-order-of-responses).
///
/// A route that logs in or out must be behind the layer (in axum: added before `.layer(…)`). On any other route an
/// update has no effect, and an event warns of it. The same happens if a layer between handler and `EuidLayer` replaces
/// the response.
///
/// ```
/// use http::Response;
/// use tower_euid::EuidUpdate;
///
/// let mut response = Response::new("bye");
/// EuidUpdate::logout().attach(&mut response);
/// ```
#[derive(Clone)]
#[must_use = "nothing changes until it is attached to a response"]
pub struct EuidUpdate(Arc<Shared>);

/// An update and its progress.
struct Shared {
    change: Change,
    /// Whether it is in a response and no layer has taken it out.
    attached: AtomicBool,
    /// How often a layer has taken it out of a response.
    taken: AtomicU32,
    /// Whether a layer further in found no consent to give its token to scripts.
    withheld: AtomicBool,
}

impl EuidUpdate {
    /// Returns a login: the visitor has logged in with this identity. It ends any previous identity.
    ///
    /// ```
    /// # use tower_euid::EuidUpdate;
    /// # use tower_euid::identity::{Identity, IdentityTimes};
    /// # let at = tower_euid::clock::UnixMillis::from_millis;
    /// # let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
    /// # let identity = Identity::new("E4AAAABl", "EAAAAGZ".to_owned().into(), [5; 32].into(), times)?;
    /// let mut response = http::Response::new("welcome");
    /// EuidUpdate::login(identity).attach(&mut response);
    /// assert!(response.extensions().get::<EuidUpdate>().is_some()); // until the layer takes it out
    /// # Ok::<_, tower_euid::error::InvalidIdentity>(())
    /// ```
    pub fn login(identity: Identity) -> Self {
        Self::of(Change::login(identity))
    }

    /// Binds a login, or the opt-out of a person who logs in, to the user that the handler has just signed in. Pass the
    /// id that the hook [`EuidLayer::subject`](crate::EuidLayer::subject) will return for this user in later requests;
    /// in this request it ran before the sign-in. Has no effect on a logout.
    ///
    /// ```
    /// # use tower_euid::{EuidUpdate, Identity};
    /// # struct User { id: u64 }
    /// # fn login(identity: Identity, user: User) -> EuidUpdate {
    /// EuidUpdate::login(identity).subject(user.id.to_string())
    /// # }
    /// ```
    pub fn subject(self, id: impl AsRef<[u8]>) -> Self {
        self.detach();
        Self::of(self.change().clone().subject(id))
    }

    /// Returns a logout. It ends the identity, even one that this node can't decrypt. It makes no call to the operator:
    /// EUID has no logout call for publishers. If the handler may fail before it returns a response, let it call
    /// [`EuidLogoutHandle::logout`](crate::EuidLogoutHandle::logout) first.
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use http::{Request, Response};
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::EuidUpdate;
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// async fn logout(_: Request<()>) -> Result<Response<&'static str>, std::convert::Infallible> {
    ///     let mut response = Response::new("bye");
    ///     EuidUpdate::logout().attach(&mut response);
    ///     Ok(response)
    /// }
    /// # let mut visitor = sandbox.visitor(&layer, VisitorState::Fresh)?;
    /// let response = visitor.send(&layer.layer(service_fn(logout)), Request::new(())).await?;
    /// assert_eq!(response.headers()["cache-control"], "private, no-store");
    /// assert_eq!(visitor.cookie_header(), "");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn logout() -> Self {
        Self::of(Change::EndLogin)
    }

    /// Returns an opt-out: at login, the operator reported that the person has opted out of EUID. It is a login without
    /// an identity, and ends any previous identity. For 72 hours pages see [`Euid::OptedOut`](crate::Euid::OptedOut).
    /// With the hook [`EuidLayer::subject`](crate::EuidLayer::subject), bind it to the user as you bind a login.
    ///
    /// ```
    /// # #[cfg(feature = "client")]
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use http::{Request, Response};
    /// # use tower::{Layer, service_fn};
    /// # use tower_euid::EuidUpdate;
    /// # use euid_sandbox::{Sandbox, VisitorState};
    /// # let sandbox = Sandbox::builder().build()?;
    /// # let (_, layer) = tower_euid::from_service(sandbox.operator(), sandbox.clone(), sandbox.clock())?;
    /// async fn login(_: Request<()>) -> Result<Response<()>, std::convert::Infallible> {
    ///     let mut response = Response::new(());
    ///     EuidUpdate::opt_out().attach(&mut response); // the same as `EuidUpdate::from(Generated::OptedOut)`
    ///     Ok(response)
    /// }
    /// # let mut visitor = sandbox.visitor(&layer, VisitorState::Absent)?;
    /// visitor.send(&layer.layer(service_fn(login)), Request::new(())).await?;
    /// assert!(visitor.cookie_header().contains("; __Host-euid-optout."));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn opt_out() -> Self {
        Self::of(Change::opt_out())
    }

    /// Attaches the update to a response. If an update with a higher precedence is already attached, that one stays.
    ///
    /// ```
    /// # use http::Response;
    /// # use tower_euid::EuidUpdate;
    /// let mut response = Response::new(());
    /// EuidUpdate::logout().attach(&mut response);
    /// EuidUpdate::opt_out().attach(&mut response); // has no effect: a logout takes precedence
    /// let update = response.extensions().get::<EuidUpdate>();
    /// assert_eq!(format!("{update:?}"), "Some(EuidUpdate(Logout))");
    /// ```
    pub fn attach<B>(self, response: &mut Response<B>) {
        self.merge_into(response.extensions_mut());
    }

    pub(crate) fn merge_into(self, extensions: &mut Extensions) {
        let stronger = extensions.get::<Self>().is_some_and(|other| other.change().outranks(self.change()));
        if !stronger {
            let shared = Arc::clone(&self.0);
            // The weaker update must not count as lost: this one replaces it.
            extensions.insert(self).inspect(Self::detach);
            shared.attached.store(true, Ordering::Relaxed);
        }
    }

    /// Takes it out of a response. Ignores a login that was taken before.
    pub(crate) fn take_from(extensions: &mut Extensions) -> Option<Self> {
        let update = extensions.remove::<Self>().inspect(Self::detach)?;
        let taken = &update.0.taken;
        // A counter that wraps would let a login that a cache replays pass again.
        let times = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_add(1));
        let times = times.unwrap_or_else(|most| most);
        if times == 1 {
            telemetry::update_replayed();
        }
        (times == 0 || !matches!(update.change(), Change::Begin(_))).then_some(update)
    }

    /// Withholds the token of a login from scripts.
    pub(crate) fn withhold(&self) {
        self.0.withheld.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_withheld(&self) -> bool {
        self.0.withheld.load(Ordering::Relaxed)
    }

    /// Notes that it is in no response any more, and not lost.
    fn detach(&self) {
        self.0.attached.store(false, Ordering::Relaxed);
    }

    fn of(change: Change) -> Self {
        let [attached, withheld] = [const { AtomicBool::new(false) }; 2];
        Self(Arc::new(Shared { change, attached, taken: AtomicU32::new(0), withheld }))
    }

    /// Returns the change that the engine must make.
    pub(crate) fn change(&self) -> &Change {
        &self.0.change
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The application's log may panic; a second panic while unwinding would end the process.
        if *self.attached.get_mut() && !thread::panicking() {
            telemetry::update_lost();
        }
    }
}

impl From<Identity> for EuidUpdate {
    fn from(identity: Identity) -> Self {
        Self::login(identity)
    }
}

/// Every outcome ends the previous identity: another person may have logged in.
impl From<Generated> for EuidUpdate {
    fn from(generated: Generated) -> Self {
        Self::of(generated.into())
    }
}

impl fmt::Debug for EuidUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.change() {
            Change::Begin(_) => "Login",
            Change::OptOut(_) => "OptOut",
            Change::EndLogin => "Logout",
            Change::Keep | Change::ForgetIdentity | Change::RecordOptOut(_) | Change::Renew(_) => "Other",
        };
        write!(f, "EuidUpdate({word})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use euid_core::clock::UnixMillis;
    use euid_core::identity::IdentityTimes;

    fn login(name: &str) -> EuidUpdate {
        let at = UnixMillis::from_millis;
        let times = IdentityTimes { refresh_from: at(1), identity_expires: at(2), refresh_expires: at(3) };
        EuidUpdate::login(Identity::new(name, "refresh".to_owned().into(), [5; 32].into(), times).unwrap())
    }

    /// Returns the token and the user of a login.
    fn token_and_user(update: &EuidUpdate) -> Option<(&str, Option<&[u8]>)> {
        let Change::Begin(login) = update.change() else { return None };
        Some((login.identity.advertising_token(), login.subject.as_deref()))
    }

    #[test]
    fn login_is_bound_to_its_last_subject_and_other_updates_to_none() {
        let bound = login("a").subject("17").subject(*b"18");
        assert_eq!(token_and_user(&bound), Some(("a", Some(&b"18"[..]))));
        assert_eq!(token_and_user(&login("a")), Some(("a", None)));
        assert_eq!(token_and_user(&EuidUpdate::logout().subject("17")), None);
    }

    #[test]
    fn replayed_login_is_not_taken_again_when_its_counter_is_full() {
        let update = login("a");
        update.0.taken.store(u32::MAX - 1, Ordering::Relaxed);
        for _ in 0..3 {
            let mut response = Response::new(());
            update.clone().attach(&mut response);
            assert!(EuidUpdate::take_from(response.extensions_mut()).is_none());
        }
    }

    #[test]
    fn debug_shows_the_kind_of_update_and_no_token() {
        assert_eq!(format!("{:?}", EuidUpdate::logout()), "EuidUpdate(Logout)");
        assert_eq!(format!("{:?}", EuidUpdate::opt_out()), "EuidUpdate(OptOut)");
        assert_eq!(format!("{:?}", login("secret").subject("17")), "EuidUpdate(Login)");
    }
}
