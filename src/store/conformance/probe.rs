//! The calls that the checks make. Each goes to one of the two connections, and each expectation holds for both.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Barrier;

use super::{Rule, Violation};
use crate::store::{Put, Store, StoreError, StoreKey, Stored, When};

pub(super) type Checked = Result<(), Violation>;

/// One check.
pub(super) struct Check<'a, S> {
    pub(super) rule: Rule,
    nodes: &'a [Arc<S>; 2],
    /// Keys and versions are hashes of numbers, under random keys: no two checks have the same ones.
    random: RandomState,
    numbers: AtomicUsize,
}

impl<'a, S: Store> Check<'a, S> {
    pub(super) fn new(rule: Rule, nodes: &'a [Arc<S>; 2]) -> Self {
        Self { rule, nodes, random: RandomState::new(), numbers: AtomicUsize::new(0) }
    }

    /// Lets puts compete for the key; one must win. Returns its value.
    pub(super) async fn contest(&self, key: &StoreKey, when: When) -> Result<Stored, Violation> {
        let start = Arc::new(Barrier::new(CONTENDERS));
        let contenders: Vec<_> = (0..CONTENDERS)
            .map(|number| {
                let (node, key, value) = (Arc::clone(self.node(number)), key.clone(), self.value());
                let start = Arc::clone(&start);
                let put = {
                    let value = value.clone();
                    async move {
                        start.wait().await;
                        node.put(&key, when, &value, LONG).await
                    }
                };
                (tokio::spawn(put), value)
            })
            .collect();
        let mut winners = Vec::new();
        for (put, value) in contenders {
            let put = put.await.map_err(|_| self.violation("a put panicked".to_owned()))?;
            if put.map_err(|error| self.failed("a put that competes with others", error))? == Put::Done {
                winners.push(value);
            }
        }
        let count = winners.len();
        match winners.pop() {
            Some(winner) if count == 1 => {
                self.there(key, Some(&winner), "after a put that alone was done").await?;
                Ok(winner)
            }
            _ => Err(self.violation(format!("{count} of {CONTENDERS} puts with {} were done", name(when)))),
        }
    }

    pub(super) async fn done(&self, key: &StoreKey, when: When, value: &Stored, what: &str) -> Checked {
        self.put_at(self.number(), key, when, value, LONG, Put::Done, what).await
    }

    pub(super) async fn refused(&self, key: &StoreKey, when: When, value: &Stored, what: &str) -> Checked {
        self.put_at(self.number(), key, when, value, LONG, Put::Refused, what).await
    }

    #[expect(clippy::too_many_arguments, reason = "a put has four, an expectation two")]
    pub(super) async fn put_at(
        &self,
        node: usize,
        key: &StoreKey,
        when: When,
        value: &Stored,
        keep: Duration,
        expected: Put,
        what: &str,
    ) -> Checked {
        let put = self.node(node).put(key, when, value, keep).await;
        match put.map_err(|error| self.failed(what, error))? {
            put if put == expected => Ok(()),
            put => Err(self.violation(format!("a put with {} is {put:?} {what}", name(when)))),
        }
    }

    /// Both connections must read this.
    pub(super) async fn there(&self, key: &StoreKey, expected: Option<&Stored>, what: &str) -> Checked {
        for node in self.nodes {
            let found = node.get(key).await.map_err(|error| self.failed(what, error))?;
            let different = match (&found, expected) {
                (None, None) => None,
                (None, Some(_)) => Some("no value"),
                (Some(_), None) => Some("a value"),
                (Some(found), Some(expected)) if found.version != expected.version => {
                    Some("a value of another version")
                }
                (Some(found), Some(expected)) => (found != expected).then_some("other bytes"),
            };
            if let Some(different) = different {
                return Err(self.violation(format!("get finds {different} {what}")));
            }
        }
        Ok(())
    }

    fn node(&self, number: usize) -> &Arc<S> {
        let [first, second] = self.nodes;
        if number.is_multiple_of(2) { first } else { second }
    }

    pub(super) fn key(&self) -> StoreKey {
        StoreKey::new(self.bytes())
    }

    pub(super) fn values<const N: usize>(&self) -> [Stored; N] {
        [(); N].map(|()| self.value())
    }

    /// A value of the usual length.
    pub(super) fn value(&self) -> Stored {
        let part: [u8; 32] = self.bytes();
        Stored { version: self.bytes(), bytes: part.repeat(19).into() }
    }

    pub(super) fn bytes<const N: usize>(&self) -> [u8; N] {
        let number = self.number();
        let mut bytes = [0; N];
        for (at, chunk) in bytes.chunks_mut(8).enumerate() {
            let hash = self.random.hash_one((number, at)).to_le_bytes();
            chunk.iter_mut().zip(hash).for_each(|(byte, random)| *byte = random);
        }
        bytes
    }

    fn number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn failed(&self, what: &str, error: StoreError) -> Violation {
        Violation { source: Some(error.clone()), ..self.violation(format!("the store failed ({error}): {what}")) }
    }

    fn violation(&self, what: String) -> Violation {
        Violation { rule: self.rule, what, source: None }
    }
}

fn name(when: When) -> &'static str {
    match when {
        When::Always => "Always",
        When::Absent => "Absent",
        When::Is(_) => "Is",
    }
}

/// Longer than a test.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// How many puts compete.
const CONTENDERS: usize = 8;
