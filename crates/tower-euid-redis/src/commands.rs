//! The two commands: reads of keys, and a write.

use std::sync::LazyLock;

use bytes::{Buf, Bytes};
use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, Pipeline, RedisResult, Script, ServerErrorKind, Value, cmd};
use tower_euid::store::{Put, Stored};

use crate::failure::{Failure, Remedy};
use crate::link::{Attempt, Connection, Link};
use crate::reads::Answer;

/// A command that may be sent twice: its second execution does no harm.
pub(crate) trait Command {
    type Output;

    async fn run_on(&self, link: &Link, attempt: &Attempt) -> Result<Self::Output, Failure>;
}

/// Reads keys in one round trip: of one server any, of a cluster one. Returns an answer for each.
pub(crate) struct Get<'a>(pub(crate) &'a [String]);

/// Writes a value if its condition holds.
pub(crate) struct Write<'a> {
    pub(crate) key: &'a str,
    pub(crate) condition: &'a [u8],
    pub(crate) value: &'a [u8],
    /// In milliseconds.
    pub(crate) keep: u64,
}

impl Command for Get<'_> {
    type Output = Vec<Answer>;

    /// One server also says its role, from time to time: it may have become a replica since the connection was made. In a
    /// cluster a replica itself refuses.
    async fn run_on(&self, link: &Link, attempt: &Attempt) -> Result<Vec<Answer>, Failure> {
        let Self(keys) = *self;
        let mut connection = attempt.connection().await?;
        let asks_role = !attempt.is_primary && !link.is_cluster();
        if let ([key], false) = (keys, asks_role) {
            let value = connection.req_packed_command(cmd("GET").arg(key)).await?;
            return Ok(vec![answer(value)?]);
        }
        let mut commands = Pipeline::with_capacity(keys.len() + 1);
        for key in keys {
            let mut get = Cmd::with_capacity(2, "GET".len() + key.len());
            get.arg("GET").arg(key);
            commands.add_command(get);
        }
        if asks_role {
            commands.cmd("ROLE");
        }
        let mut values = connection.req_packed_commands(&commands, 0, commands.len()).await?;
        if asks_role {
            if values.pop().is_some_and(|role| is_replica(&role)) {
                return Err(Failure::replica());
            }
            link.is_primary(attempt);
        }
        values.into_iter().map(answer).collect()
    }
}

impl Command for Write<'_> {
    type Output = Put;

    async fn run_on(&self, _: &Link, attempt: &Attempt) -> Result<Put, Failure> {
        let mut connection = attempt.connection().await?;
        let script = |command: &str, script: &str| {
            let mut command = cmd(command);
            command.arg(script).arg(1).arg(self.key).arg(self.condition).arg(self.value).arg(self.keep);
            command
        };
        let value = match send(&mut connection, &script("EVALSHA", PUT.get_hash())).await {
            // By `EVAL` the script gets to the server of this key. `SCRIPT LOAD`, in a cluster, needs all servers.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                send(&mut connection, &script("EVAL", PUT_CODE)).await?
            }
            outcome => outcome?,
        };
        match value {
            Value::Int(1) => Ok(Put::Done),
            Value::Int(0) => Ok(Put::Refused),
            _ => Err(Failure::foreign()),
        }
    }
}

async fn send(connection: &mut Connection, command: &Cmd) -> RedisResult<Value> {
    connection.req_packed_command(command).await?.extract_error()
}

/// What the value of a key says. An error that another connection may mend is one of all reads.
fn answer(value: Value) -> Result<Answer, Failure> {
    Ok(match value.extract_error().map_err(Failure::from) {
        Ok(Value::Nil) => Ok(None),
        Ok(Value::BulkString(value)) => match value.first_chunk().copied() {
            Some(version) => {
                let mut bytes = Bytes::from(value);
                bytes.advance(VERSION);
                Ok(Some(Stored { version, bytes }))
            }
            None => Err(Failure::foreign().error),
        },
        Ok(_) => Err(Failure::foreign().error),
        Err(Failure { error, remedy: Remedy::Keep }) => Err(error),
        Err(failure) => return Err(failure),
    })
}

/// An error, of a user who may not ask for the role, says nothing.
fn is_replica(role: &Value) -> bool {
    let Value::Array(role) = role else { return false };
    matches!(role.first(), Some(Value::BulkString(role)) if role == b"slave")
}

/// The bytes of a version, with which each value begins.
const VERSION: usize = 16;

/// Compares and writes. A value of the new version is there only if this very put has been done before, and its answer was
/// lost.
const PUT_CODE: &str = "
local when, value = ARGV[1], ARGV[2]
if when ~= 'always' then
    local there = redis.call('GETRANGE', KEYS[1], 0, 15)
    if there == string.sub(value, 1, 16) then
        return 1
    end
    if when == 'absent' then
        if redis.call('EXISTS', KEYS[1]) == 1 then
            return 0
        end
    elseif there ~= when then
        return 0
    end
end
redis.call('SET', KEYS[1], value, 'PX', ARGV[3])
return 1
";

static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(PUT_CODE));
