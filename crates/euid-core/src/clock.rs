//! Time, as an argument.
//!
//! The operator counts milliseconds since the Unix epoch, and so does this crate: [`UnixMillis`] is a
//! moment, and [`Clock`] returns the present one. Give one clock to the layer, the client and the
//! sandbox, and all of them move together.
//!
//! No other module reads the machine's clock; `clippy.toml` forbids it. On wasm32-unknown-unknown the
//! standard library has no clock, so [`SystemClock`] and [`ManualClock::running`] do not exist there:
//! implement [`Clock`], for instance with JavaScript's `Date.now()`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment: whole milliseconds since 1970-01-01T00:00:00Z, the unit of the EUID API.
///
/// Arithmetic saturates, so a hostile value can't wrap around into the present. A [`SystemTime`] converts
/// into it, and [`to_system_time`](Self::to_system_time) converts back.
///
/// ```
/// # use euid_core as tower_euid;
/// use std::time::Duration;
/// use tower_euid::clock::UnixMillis;
///
/// let issued = UnixMillis::from_millis(1_735_689_600_000);
/// let due = issued.saturating_add(Duration::from_secs(900));
/// assert_eq!(due.as_millis(), 1_735_690_500_000);
/// assert_eq!(due.saturating_since(issued), Duration::from_secs(900));
/// assert_eq!(issued.saturating_since(due), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(i64);

impl UnixMillis {
    /// The moment `millis` milliseconds after the epoch (before it, if negative).
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use tower_euid::clock::UnixMillis;
    ///
    /// let expires = UnixMillis::from_millis(1_735_948_800_000); // a number of the operator's answer
    /// assert!(UnixMillis::from_millis(0) < expires); // 1970 is before it
    /// ```
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::clock::UnixMillis;
    /// let expires = UnixMillis::from_millis(1_735_948_800_999);
    /// assert_eq!(expires.as_millis() / 1000, 1_735_948_800); // for what counts in seconds
    /// ```
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// `duration` later, in whole milliseconds, at most the largest moment there is.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use std::time::Duration;
    /// # use tower_euid::clock::UnixMillis;
    /// let now = UnixMillis::from_millis(1_000);
    /// assert_eq!(now.saturating_add(Duration::from_micros(1_999)), UnixMillis::from_millis(1_001));
    /// assert_eq!(now.saturating_add(Duration::MAX), UnixMillis::from_millis(i64::MAX));
    /// ```
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// `duration` earlier, in whole milliseconds, at least the smallest moment there is.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use std::time::Duration;
    /// # use tower_euid::clock::UnixMillis;
    /// let expires = UnixMillis::from_millis(60_000);
    /// assert_eq!(expires.saturating_sub(Duration::from_secs(1)), UnixMillis::from_millis(59_000));
    /// assert_eq!(expires.saturating_sub(Duration::from_secs(61)), UnixMillis::from_millis(-1_000)); // before 1970
    /// ```
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// The time from `earlier` to this moment; zero if this moment is not after it.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use std::time::Duration;
    /// # use tower_euid::clock::UnixMillis;
    /// let (now, expires) = (UnixMillis::from_millis(1_000), UnixMillis::from_millis(61_000));
    /// assert_eq!(expires.saturating_since(now), Duration::from_secs(60)); // what is left
    /// assert_eq!(now.saturating_since(expires), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).try_into().unwrap_or(0))
    }

    /// The moment as the standard library's type; `None` if this platform's [`SystemTime`] does not
    /// reach so far.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use std::time::{Duration, UNIX_EPOCH};
    /// # use tower_euid::clock::UnixMillis;
    /// let expires = UnixMillis::from_millis(1_735_948_800_000);
    /// let expires = expires.to_system_time().ok_or("too far away")?; // for a crate that formats dates
    /// assert_eq!(expires.duration_since(UNIX_EPOCH)?, Duration::from_secs(1_735_948_800));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn to_system_time(self) -> Option<SystemTime> {
        let distance = Duration::from_millis(self.0.unsigned_abs());
        if self.0 < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
    }
}

/// Saturates at the smallest and the largest moment there is. A fraction of a millisecond is cut off,
/// so that the result is the nearer one to the epoch.
///
/// ```
/// # use euid_core as tower_euid;
/// use std::time::{Duration, UNIX_EPOCH};
/// use tower_euid::clock::UnixMillis;
///
/// let modified = UNIX_EPOCH + Duration::from_micros(1_500_900); // of a file, for example
/// assert_eq!(UnixMillis::from(modified), UnixMillis::from_millis(1_500));
/// ```
impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> Self {
        Self(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, i64::saturating_neg),
        })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A source of the present moment.
///
/// The default is [`SystemClock`]; tests and demos use a [`ManualClock`]. With a client's clock two
/// minutes or more away from the operator's, every login is refused
/// ([`ErrorKind::ClockDrift`](crate::error::ErrorKind::ClockDrift)); a refresh carries no time.
///
/// ```
/// # use euid_core as tower_euid;
/// use std::time::Duration;
/// use tower_euid::clock::{Clock, SystemClock, UnixMillis};
///
/// /// Sees now what users will see in an hour.
/// struct Ahead;
///
/// impl Clock for Ahead {
///     fn now(&self) -> UnixMillis {
///         SystemClock.now().saturating_add(Duration::from_secs(3600))
///     }
/// }
/// assert!(Ahead.now() > SystemClock.now());
/// ```
pub trait Clock: Send + Sync + 'static {
    /// The present moment. A request reads it at most three times: when an identity has arrived, after
    /// a wait for its refresh, and when a cookie is written. Each call to the operator reads it once or
    /// twice more. Must not block.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// use std::sync::Arc;
    /// use tower_euid::clock::{Clock, ManualClock, UnixMillis};
    ///
    /// // An `Arc` of a clock is one too, whichever is inside.
    /// let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(UnixMillis::from_millis(7)));
    /// assert_eq!(clock.now().as_millis(), 7);
    /// ```
    fn now(&self) -> UnixMillis;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> UnixMillis {
        (**self).now()
    }
}

/// The machine's wall clock.
///
/// Not on wasm32-unknown-unknown, where the standard library has no clock.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::clock::{Clock, SystemClock};
///
/// assert!(SystemClock.now().as_millis() > 1_700_000_000_000);
/// ```
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> UnixMillis {
        SystemTime::now().into()
    }
}

/// A clock that its owner moves: for tests and demos.
///
/// Clones share one time: a test keeps one, gives others to the layer, the client and the sandbox, and
/// moves all of them.
///
/// ```
/// # use euid_core as tower_euid;
/// use std::time::Duration;
/// use tower_euid::clock::{Clock, ManualClock, UnixMillis};
///
/// let clock = ManualClock::at(UnixMillis::from_millis(0));
/// let layers = clock.clone();
/// clock.advance(Duration::from_secs(600));
/// assert_eq!(layers.now(), UnixMillis::from_millis(600_000));
/// ```
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

struct Manual {
    /// Whether the time moves by itself as well: then `millis` is the lead over the system clock.
    runs: bool,
    /// In a lock, as not every processor has atomics of 64 bits.
    millis: Mutex<i64>,
}

impl ManualClock {
    /// A clock that stands at `now` until it is moved.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use tower_euid::clock::{Clock, ManualClock, UnixMillis};
    /// let new_year = UnixMillis::from_millis(1_735_689_600_000);
    /// assert_eq!(ManualClock::at(new_year).now(), new_year);
    /// ```
    #[must_use]
    pub fn at(now: UnixMillis) -> Self {
        Self(Arc::new(Manual { runs: false, millis: Mutex::new(now.0) }))
    }

    /// A clock that starts at the present and runs as the system clock does.
    ///
    /// Not on wasm32-unknown-unknown, where the standard library has no clock.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use std::time::Duration;
    /// # use tower_euid::clock::{Clock, ManualClock, SystemClock};
    /// let clock = ManualClock::running();
    /// let began = SystemClock.now();
    /// assert!(clock.now() >= began);
    /// clock.advance(Duration::from_secs(3600)); // it keeps this lead
    /// assert!(clock.now() >= began.saturating_add(Duration::from_secs(3600)));
    /// ```
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    #[must_use]
    pub fn running() -> Self {
        Self(Arc::new(Manual { runs: true, millis: Mutex::new(0) }))
    }

    /// Moves the clock forward, in whole milliseconds.
    ///
    /// ```
    /// # use euid_core as tower_euid;
    /// # use std::time::Duration;
    /// # use tower_euid::clock::{Clock, ManualClock, UnixMillis};
    /// # use tower_euid::identity::IdentityTimes;
    /// # let at = UnixMillis::from_millis;
    /// # let (refresh_from, identity_expires) = (at(900_000), at(3_600_000));
    /// # let times = IdentityTimes { refresh_from, identity_expires, refresh_expires: at(86_400_000) };
    /// let clock = ManualClock::at(UnixMillis::from_millis(0));
    /// assert!(!times.is_due(clock.now()));
    /// clock.advance(Duration::from_secs(900));
    /// assert!(times.is_due(clock.now()));
    /// ```
    pub fn advance(&self, duration: Duration) {
        let mut now = self.0.millis.lock().unwrap_or_else(PoisonError::into_inner);
        // Wrapping would be a jump into the past.
        *now = now.saturating_add(millis(duration));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        let millis = *self.0.millis.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
        if self.0.runs {
            return UnixMillis(SystemClock.now().0.saturating_add(millis));
        }
        UnixMillis(millis)
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("now", &self.now()).field("runs", &self.0.runs).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_millis_arithmetic_saturates_at_both_ends() {
        let last = UnixMillis::from_millis(i64::MAX);
        let first = UnixMillis::from_millis(i64::MIN);
        assert_eq!(last.saturating_add(Duration::MAX), last);
        assert_eq!(first.saturating_sub(Duration::MAX), first);
        assert_eq!(last.saturating_since(first), Duration::from_millis(i64::MAX.cast_unsigned()));
        assert_eq!(first.saturating_since(last), Duration::ZERO);
    }

    #[test]
    fn system_time_before_and_after_the_epoch_converts_both_ways() {
        for millis in [0, 1, -1, 1_735_689_600_123, -1_735_689_600_123] {
            let moment = UnixMillis::from_millis(millis);
            assert_eq!(moment.to_system_time().map(UnixMillis::from), Some(moment));
        }
        let fraction = Duration::from_nanos(1_999_999);
        assert_eq!(UnixMillis::from(UNIX_EPOCH + fraction), UnixMillis::from_millis(1));
        assert_eq!(UnixMillis::from(UNIX_EPOCH - fraction), UnixMillis::from_millis(-1));
    }

    #[test]
    fn system_time_beyond_unix_millis_saturates() {
        // Only some systems, such as Linux, have a `SystemTime` beyond the range of `UnixMillis`.
        let far = Duration::from_secs(i64::MAX.cast_unsigned());
        if let Some(late) = UNIX_EPOCH.checked_add(far) {
            assert_eq!(UnixMillis::from(late), UnixMillis::from_millis(i64::MAX));
        }
        if let Some(early) = UNIX_EPOCH.checked_sub(far) {
            assert_eq!(UnixMillis::from(early), UnixMillis::from_millis(i64::MIN));
        }
        let first = UnixMillis::from_millis(i64::MIN).to_system_time();
        assert!(first.is_none_or(|first| first < UNIX_EPOCH));
    }

    #[test]
    fn running_clock_keeps_its_lead_over_the_system_clock() {
        let clock = ManualClock::running();
        clock.advance(Duration::from_secs(3600));
        let lead = clock.now().saturating_since(SystemClock.now());
        assert!(lead > Duration::from_secs(3590) && lead <= Duration::from_secs(3600), "{lead:?}");
    }

    #[test]
    fn manual_clock_saturates_at_the_last_millisecond() {
        let clock = ManualClock::at(UnixMillis::from_millis(5));
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), UnixMillis::from_millis(i64::MAX));
    }
}
