//! The checks that every [`Store`] must pass: the [contract](super), as far as a test can see it.
//!
//! [`check_all`] runs the check of each [`Rule`], [`check`] runs one. They take two connections to the same store, as two
//! nodes of a site have, and a function that lets time pass: it moves the clock of a store in memory, or waits for a
//! store elsewhere. The keys are random, so a store may hold other data, and two runs may share it.
//!
//! The checks need a tokio runtime, better one with several threads: then the writes that compete run at the same time.
//! Three of them let a little more than two seconds pass.
//!
//! A check that passes does not prove the rule. No check sees what happens to a store that crashes, fails over to a replica or
//! runs out of memory.
//!
//! ```
//! # tokio::runtime::Builder::new_multi_thread().build()?.block_on(async {
//! use std::sync::Arc;
//! use tower_euid::clock::{ManualClock, UnixMillis};
//! use tower_euid::store::{MemoryStore, conformance};
//!
//! let clock = ManualClock::at(UnixMillis::from_millis(0));
//! let store = Arc::new(MemoryStore::new().clock(clock.clone()));
//! let nodes = [Arc::clone(&store), store];
//! conformance::check_all(&nodes, async |time| clock.advance(time)).await?;
//! # Ok::<_, conformance::Violation>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod checks;
mod probe;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::probe::Check;
use super::{Store, StoreError};

/// A rule that a check is about. Its text says what a store must do.
///
/// More rules may be added.
///
/// ```
/// use tower_euid::store::conformance::Rule;
///
/// assert_eq!(Rule::PutIsSeen.to_string(), "get sees every put that returned, from any connection");
/// assert!(Rule::ALL.contains(&Rule::PutIsSeen));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// `get` sees every `put` that returned, from any connection.
    PutIsSeen,
    /// `Always` writes whatever is there.
    AlwaysWrites,
    /// `Absent` writes only if there is no value.
    AbsentWritesOnce,
    /// `Is` writes only over a value of that version.
    IsComparesVersions,
    /// A refused `put` changes nothing, nor how long the value is kept.
    RefusedChangesNothing,
    /// What is past its `keep` is absent, also to `Absent` and `Is`.
    ExpiredIsAbsent,
    /// A value is there until it is past the `keep` of the last `put`.
    KeepIsOfTheLastPut,
    /// Of puts that compete with `Absent`, exactly one is done.
    OneAbsentWins,
    /// Of puts that compete with `Is`, exactly one is done.
    OneIsWins,
    /// Every bit of a key counts, and each of many keys has its own value.
    KeysAreWhole,
    /// A value of up to 4 KiB comes back as it was, whatever its bytes and its version.
    ValuesAreWhole,
}

impl Rule {
    /// All rules, in the order in which [`check_all`] checks them.
    pub const ALL: [Self; 11] = [
        Self::PutIsSeen,
        Self::AlwaysWrites,
        Self::AbsentWritesOnce,
        Self::IsComparesVersions,
        Self::RefusedChangesNothing,
        Self::ExpiredIsAbsent,
        Self::KeepIsOfTheLastPut,
        Self::OneAbsentWins,
        Self::OneIsWins,
        Self::KeysAreWhole,
        Self::ValuesAreWhole,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PutIsSeen => "get sees every put that returned, from any connection",
            Self::AlwaysWrites => "Always writes whatever is there",
            Self::AbsentWritesOnce => "Absent writes only if there is no value",
            Self::IsComparesVersions => "Is writes only over a value of that version",
            Self::RefusedChangesNothing => "a refused put changes nothing, nor how long the value is kept",
            Self::ExpiredIsAbsent => "what is past its keep is absent, also to Absent and Is",
            Self::KeepIsOfTheLastPut => "a value is there until it is past the keep of the last put",
            Self::OneAbsentWins => "of puts that compete with Absent, exactly one is done",
            Self::OneIsWins => "of puts that compete with Is, exactly one is done",
            Self::KeysAreWhole => "every bit of a key counts, and each of many keys has its own value",
            Self::ValuesAreWhole => "a value of up to 4 KiB comes back as it was, whatever its bytes and its version",
        })
    }
}

/// A store broke a rule, or failed where it must not. The text names the rule and what happened.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use tower_euid::store::conformance::{self, Rule};
/// use tower_euid::store::{Put, Store, StoreError, StoreKey, Stored, When};
///
/// /// A store that keeps nothing.
/// struct Nowhere;
///
/// impl Store for Nowhere {
///     async fn get(&self, _: &StoreKey) -> Result<Option<Stored>, StoreError> {
///         Ok(None)
///     }
///     async fn put(&self, _: &StoreKey, _: When, _: &Stored, _: Duration) -> Result<Put, StoreError> {
///         Ok(Put::Done)
///     }
/// }
///
/// let nodes = [Arc::new(Nowhere), Arc::new(Nowhere)];
/// let violation = conformance::check_all(&nodes, async |_| ()).await.unwrap_err();
/// assert_eq!(violation.rule(), Rule::PutIsSeen);
/// # });
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Violation {
    rule: Rule,
    what: String,
    source: Option<StoreError>,
}

impl Violation {
    /// The rule that the store broke.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use std::sync::Arc;
    /// use tower_euid::store::MemoryStore;
    /// use tower_euid::store::conformance::{self, Rule};
    ///
    /// // Two stores that are not connected.
    /// let nodes = [Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())];
    /// let result = conformance::check(Rule::KeysAreWhole, &nodes, async |_| ()).await;
    /// assert_eq!(result.unwrap_err().rule(), Rule::KeysAreWhole);
    /// # });
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; but {}", self.rule, self.what)
    }
}

impl Error for Violation {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Checks all rules, and returns the first violation.
///
/// `nodes` are two connections to the same store, or the same one twice. `wait` lets this much time pass at least.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use tower_euid::store::conformance;
/// # async fn test<S: tower_euid::store::Store>(connect: impl AsyncFn() -> S) -> Result<(), conformance::Violation> {
/// // A store on another machine:
/// let nodes = [Arc::new(connect().await), Arc::new(connect().await)];
/// conformance::check_all(&nodes, tokio::time::sleep).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the store breaks a rule, or if a call to it fails.
pub async fn check_all<S: Store>(nodes: &[Arc<S>; 2], wait: impl AsyncFn(Duration)) -> Result<(), Violation> {
    for rule in Rule::ALL {
        check(rule, nodes, &wait).await?;
    }
    Ok(())
}

/// Checks one rule. The arguments are those of [`check_all`].
///
/// ```no_run
/// # use std::sync::Arc;
/// # use tower_euid::store::conformance;
/// # async fn test<S: tower_euid::store::Store>(connect: impl AsyncFn() -> S) -> Result<(), conformance::Violation> {
/// let nodes = [Arc::new(connect().await), Arc::new(connect().await)];
/// conformance::check(conformance::Rule::OneIsWins, &nodes, tokio::time::sleep).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the store breaks the rule, or if a call to it fails.
pub async fn check<S: Store>(rule: Rule, nodes: &[Arc<S>; 2], wait: impl AsyncFn(Duration)) -> Result<(), Violation> {
    Check::new(rule, nodes).run(wait).await
}
