//! What an error of the server or the connection means, in words that hold no secret.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};
use tower_euid::store::StoreError;

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: StoreError,
    pub(crate) remedy: Remedy,
}

/// What to do about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// It works.
    Keep,
    /// It is lost. A new one is needed, and the command may be repeated.
    Reconnect,
    /// It leads to a server that does not serve. A new one may lead to another.
    Replace,
}

impl Failure {
    /// The server did not answer in time. It may yet do what it was asked.
    pub(crate) fn timeout() -> Self {
        let error =
            StoreError::new("Redis did not answer in time").with_source(io::Error::from(io::ErrorKind::TimedOut));
        Self { error, remedy: Remedy::Replace }
    }

    /// The server is a replica.
    pub(crate) fn replica() -> Self {
        Self { error: StoreError::new("Redis is a replica, not the primary"), remedy: Remedy::Replace }
    }

    /// The server has answered with what no store has written.
    pub(crate) fn foreign() -> Self {
        Self {
            error: StoreError::new("Redis has an answer or a value that is none of this store"),
            remedy: Remedy::Keep,
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self::timeout();
        }
        let (text, remedy): (Cow<'static, str>, _) = match error.kind() {
            ErrorKind::Io | ErrorKind::Client => ("no connection to Redis".into(), Remedy::Reconnect),
            ErrorKind::ClusterConnectionNotFound => {
                ("no connection to a node of the Redis cluster".into(), Remedy::Reconnect)
            }
            ErrorKind::Parse => ("Redis answered in another protocol".into(), Remedy::Reconnect),
            ErrorKind::AuthenticationFailed => ("Redis refused the password".into(), Remedy::Replace),
            _ => of_code(&error),
        };
        let error = match io_kind(&error) {
            Some(kind) => StoreError::new(text).with_source(io::Error::from(kind)),
            None => StoreError::new(text),
        };
        Self { error, remedy }
    }
}

/// Only the kind: the text of the error may name an address.
fn io_kind(error: &RedisError) -> Option<io::ErrorKind> {
    let shared = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    shared.downcast_ref::<io::Error>().map(io::Error::kind)
}

/// By the server's error code. Up to Redis 6, an error in a script has its code in the text.
fn of_code(error: &RedisError) -> (Cow<'static, str>, Remedy) {
    let (code, detail) = (error.code().unwrap_or_default(), error.detail().unwrap_or_default());
    let found = CODES.iter().find(|(known, ..)| code == *known);
    let found = found.or_else(|| CODES.iter().find(|(known, ..)| detail.contains(&format!("-{known} "))));
    match found {
        Some((_, text, remedy)) => ((*text).into(), *remedy),
        // The crate `redis` says this of a command that it sends when it connects.
        None if error.to_string().contains("refused to switch database") => {
            ("Redis refused the database of the URL".into(), Remedy::Keep)
        }
        // A code of Redis has only capitals. Any other word may be something else.
        None if !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            (format!("Redis refused the command ({code})").into(), Remedy::Keep)
        }
        None => ("Redis refused the command".into(), Remedy::Keep),
    }
}

const CODES: [(&str, &str, Remedy); 12] = [
    ("READONLY", "Redis is a replica, not the primary (READONLY)", Remedy::Replace),
    ("MASTERDOWN", "Redis is a replica without its primary (MASTERDOWN)", Remedy::Replace),
    ("NOAUTH", "Redis asks for a password (NOAUTH)", Remedy::Replace),
    ("WRONGPASS", "Redis refused the password (WRONGPASS)", Remedy::Replace),
    ("NOPERM", "the user of Redis may not use this command or key (NOPERM)", Remedy::Keep),
    ("OOM", "Redis has no memory left (OOM)", Remedy::Keep),
    ("LOADING", "Redis is loading its data (LOADING)", Remedy::Keep),
    ("CLUSTERDOWN", "the Redis cluster is down (CLUSTERDOWN)", Remedy::Keep),
    ("BUSY", "Redis runs a script that does not end (BUSY)", Remedy::Keep),
    ("MISCONF", "Redis cannot save its data, and refuses to write (MISCONF)", Remedy::Keep),
    ("NOREPLICAS", "Redis has too few replicas, and refuses to write (NOREPLICAS)", Remedy::Keep),
    ("WRONGTYPE", "Redis has a value of another type under the key (WRONGTYPE)", Remedy::Keep),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: &str) -> Failure {
        let value = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        Failure::from(value.extract_error().unwrap_err())
    }

    #[test]
    fn error_of_the_server_is_told_by_its_code_alone() {
        for (answer, code, remedy) in [
            ("READONLY You can't write against a read only replica.", "READONLY", Remedy::Replace),
            ("OOM command not allowed when used memory > 'maxmemory'. hunter2", "OOM", Remedy::Keep),
            ("LOADING Redis is loading the dataset in memory", "LOADING", Remedy::Keep),
            ("CLUSTERDOWN Hash slot not served", "CLUSTERDOWN", Remedy::Keep),
            ("MASTERDOWN Link with MASTER is down", "MASTERDOWN", Remedy::Replace),
            ("NOAUTH Authentication required.", "NOAUTH", Remedy::Replace),
            (
                "ERR unknown command `EVALSHA`, with args beginning with: `hunter2`",
                "refused the command (ERR)",
                Remedy::Keep,
            ),
            ("DENIED Redis is running in protected mode", "refused the command (DENIED)", Remedy::Keep),
            ("HUNTER2 hunter2", "refused the command", Remedy::Keep),
        ] {
            let failure = of(answer);
            assert!(failure.error.to_string().contains(code), "{failure:?}");
            assert_eq!(failure.remedy, remedy, "{answer}");
            assert!(!format!("{failure:?}").to_lowercase().contains("hunter2"), "{failure:?}");
        }
    }

    #[test]
    fn error_in_a_script_of_redis_6_is_told_by_the_code_in_its_text() {
        let prefix = "ERR Error running script (call to f_0123): @user_script:1: @user_script: 1:";
        let failure = of(&format!("{prefix} -READONLY You can't write against a read only replica."));
        assert_eq!(failure.remedy, Remedy::Replace);
        assert!(of(&format!("{prefix} -OOM command not allowed")).error.to_string().contains("OOM"));
    }

    #[test]
    fn lost_connection_is_told_by_the_kind_of_its_error() {
        let cause = io::Error::new(io::ErrorKind::ConnectionRefused, "10.0.0.1:6379");
        let failure = Failure::from(RedisError::from(cause));
        assert_eq!(failure.remedy, Remedy::Reconnect);
        assert_eq!(failure.error.source().unwrap().to_string(), "connection refused");
        assert!(!format!("{failure:?}").contains("10.0.0.1"));
        let late = Failure::from(RedisError::from(io::Error::from(io::ErrorKind::TimedOut)));
        assert_eq!(late.remedy, Remedy::Replace);
    }
}
