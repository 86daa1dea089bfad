//! The check of each rule.

use std::time::Duration;

use bytes::Bytes;

use super::Rule;
use super::probe::{Check, Checked, LONG};
use crate::store::{Put, Store, StoreKey, Stored, When};

impl<S: Store> Check<'_, S> {
    pub(super) async fn run(&self, wait: impl AsyncFn(Duration)) -> Checked {
        match self.rule {
            Rule::PutIsSeen => self.put_is_seen().await,
            Rule::AlwaysWrites => self.always_writes().await,
            Rule::AbsentWritesOnce => self.absent_writes_once().await,
            Rule::IsComparesVersions => self.is_compares_versions().await,
            Rule::RefusedChangesNothing => self.refused_changes_nothing(wait).await,
            Rule::ExpiredIsAbsent => self.expired_is_absent(wait).await,
            Rule::KeepIsOfTheLastPut => self.keep_is_of_the_last_put(wait).await,
            Rule::OneAbsentWins => self.one_absent_wins().await,
            Rule::OneIsWins => self.one_is_wins().await,
            Rule::KeysAreWhole => self.keys_are_whole().await,
            Rule::ValuesAreWhole => self.values_are_whole().await,
        }
    }

    async fn put_is_seen(&self) -> Checked {
        let key = self.key();
        self.there(&key, None, "before the first put").await?;
        for round in 0..ROUNDS {
            let value = self.value();
            self.put_at(round, &key, When::Always, &value, LONG, Put::Done, "a put with Always").await?;
            self.there(&key, Some(&value), "after a put through either connection").await?;
        }
        Ok(())
    }

    async fn always_writes(&self) -> Checked {
        let (key, [first, second]) = (self.key(), self.values());
        self.done(&key, When::Always, &first, "where there is no value").await?;
        self.there(&key, Some(&first), "after a put where there was no value").await?;
        self.done(&key, When::Always, &second, "over a value").await?;
        self.there(&key, Some(&second), "after a put over a value").await
    }

    async fn absent_writes_once(&self) -> Checked {
        let (key, [first, second]) = (self.key(), self.values());
        self.done(&key, When::Absent, &first, "where there is no value").await?;
        self.there(&key, Some(&first), "after a put where there was no value").await?;
        self.refused(&key, When::Absent, &second, "over a value").await?;
        self.refused(&key, When::Absent, &Stored { bytes: first.bytes, ..second }, "over a value with the same bytes")
            .await
    }

    async fn is_compares_versions(&self) -> Checked {
        let (key, [first, second, third]) = (self.key(), self.values());
        self.refused(&key, When::Is(first.version), &first, "where there is no value").await?;
        self.there(&key, None, "after a refused put").await?;
        self.done(&key, When::Absent, &first, "where there is no value").await?;
        for bit in 0..128 {
            let other = When::Is(flipped(first.version, bit));
            self.refused(&key, other, &second, "for a version that differs in one bit").await?;
        }
        self.done(&key, When::Is(first.version), &second, "for the version that is there").await?;
        self.there(&key, Some(&second), "after a put for the version that was there").await?;
        self.refused(&key, When::Is(first.version), &third, "for the version before").await?;
        self.done(&key, When::Is(second.version), &third, "for the version that is there").await
    }

    async fn refused_changes_nothing(&self, wait: impl AsyncFn(Duration)) -> Checked {
        let [kept, short] = [LONG, SHORT];
        let (keys, [first, second]) = ([self.key(), self.key()], self.values());
        for (key, (keep, other)) in keys.iter().zip([(kept, short), (short, kept)]) {
            self.put_at(0, key, When::Absent, &first, keep, Put::Done, "where there is no value").await?;
            for when in [When::Absent, When::Is(second.version)] {
                self.put_at(1, key, when, &second, other, Put::Refused, "a put whose condition does not hold").await?;
            }
        }
        self.there(&keys[0], Some(&first), "after a refused put").await?;
        wait(PAST_SHORT).await;
        self.there(&keys[0], Some(&first), "past the shorter keep of a refused put").await?;
        self.there(&keys[1], None, "past its keep, after a refused put with a longer one").await
    }

    async fn expired_is_absent(&self, wait: impl AsyncFn(Duration)) -> Checked {
        let (keys, [first, second]) = ([(); 4].map(|()| self.key()), self.values());
        for key in &keys {
            self.put_at(0, key, When::Absent, &first, SHORT, Put::Done, "where there is no value").await?;
        }
        wait(PAST_SHORT).await;
        let [read, absent, is, always] = keys;
        self.refused(&is, When::Is(first.version), &second, "for the version that has expired").await?;
        self.there(&is, None, "after a refused put over a value that has expired").await?;
        self.done(&absent, When::Absent, &second, "over a value that has expired").await?;
        self.there(&absent, Some(&second), "after a put over a value that had expired").await?;
        self.done(&always, When::Always, &second, "over a value that has expired").await?;
        self.there(&always, Some(&second), "after a put over a value that had expired").await?;
        self.there(&read, None, "past its keep").await
    }

    async fn keep_is_of_the_last_put(&self, wait: impl AsyncFn(Duration)) -> Checked {
        let longest = self.key();
        let [shortened, prolonged] = [[self.key(), self.key()], [self.key(), self.key()]];
        let [first, second] = self.values();
        self.put_at(0, &longest, When::Absent, &first, LONGEST, Put::Done, "a put for 400 days").await?;
        for (keys, keeps) in [(&shortened, [LONG, SHORT]), (&prolonged, [SHORT, LONG])] {
            for (key, when) in keys.iter().zip([When::Always, When::Is(first.version)]) {
                self.put_at(0, key, When::Absent, &first, keeps[0], Put::Done, "where there is no value").await?;
                self.put_at(1, key, when, &second, keeps[1], Put::Done, "over a value").await?;
            }
        }
        wait(PAST_SHORT).await;
        self.there(&longest, Some(&first), "long before it is past its keep").await?;
        for key in &shortened {
            self.there(key, None, "past the keep of the last put, which was shorter").await?;
        }
        for key in &prolonged {
            self.there(key, Some(&second), "past the keep of the first put, where the last one was longer").await?;
        }
        Ok(())
    }

    async fn one_absent_wins(&self) -> Checked {
        for _ in 0..ROUNDS {
            self.contest(&self.key(), When::Absent).await?;
        }
        Ok(())
    }

    async fn one_is_wins(&self) -> Checked {
        let (key, mut there) = (self.key(), self.value());
        self.done(&key, When::Absent, &there, "where there is no value").await?;
        for _ in 0..ROUNDS {
            there = self.contest(&key, When::Is(there.version)).await?;
        }
        Ok(())
    }

    async fn keys_are_whole(&self) -> Checked {
        let bytes = self.bytes();
        let flipped = (0..256).map(|bit| flipped(bytes, bit));
        let keys: Vec<_> = flipped.chain([bytes]).map(StoreKey::new).collect();
        let values: Vec<_> = keys.iter().map(|_| self.value()).collect();
        for (key, value) in keys.iter().zip(&values) {
            self.done(key, When::Absent, value, "under a key that differs in one bit").await?;
        }
        for (key, value) in keys.iter().zip(&values) {
            self.there(key, Some(value), "after puts under 256 keys that differ in one bit").await?;
        }
        Ok(())
    }

    async fn values_are_whole(&self) -> Checked {
        let every_byte: Vec<u8> = (0..=u8::MAX).collect();
        let longest = every_byte.iter().copied().cycle().take(Stored::MAX_BYTES).collect();
        let texts = [vec![], vec![0], b"\r\n".to_vec(), vec![0xff; 3], every_byte, vec![0; Stored::MAX_BYTES], longest];
        for (number, bytes) in texts.into_iter().map(Bytes::from).enumerate() {
            let key = self.key();
            let what = format!("of {} bytes, text {number}", bytes.len());
            // The number makes all versions different.
            let mut versions = [[0; 16], [0xff; 16], *b"\r\n$-1\r\n absent \0", self.value().version];
            versions.iter_mut().for_each(|version| version[15] ^= u8::try_from(number).unwrap_or(0));
            for version in versions {
                let value = Stored { version, bytes: bytes.clone() };
                self.done(&key, When::Always, &value, &what).await?;
                self.there(&key, Some(&value), &what).await?;
                let next = Stored { version: self.value().version, ..value };
                self.done(&key, When::Is(version), &next, &what).await?;
            }
        }
        Ok(())
    }
}

/// The bytes with one bit flipped.
fn flipped<const N: usize>(mut bytes: [u8; N], bit: usize) -> [u8; N] {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    bytes
}

/// The shortest `keep` that a store must know, and a time after which it has passed though rounded up to whole seconds.
const SHORT: Duration = Duration::from_secs(1);
const PAST_SHORT: Duration = Duration::from_millis(2_100);
/// The longest `keep`.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);
/// How often a check repeats what depends on chance.
const ROUNDS: usize = 25;
