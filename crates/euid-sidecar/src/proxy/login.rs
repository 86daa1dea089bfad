//! The logins that the site commands: calls of the operator on the path of a page.
//!
//! 1. A site may command a login on every page while the state is `absent`. Pages that come together share one call for
//!    a person.
//! 2. A page waits 2 s at most. The call goes on, for pages that wait still.
//! 3. While the operator is down, a breaker refuses calls, and no page waits. A call of more than 2 s is a failure.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tower_euid::engine::Site as _;
use tower_euid::error::ErrorKind;
use tower_euid::{Admission, Breaker, EuidClient, EuidError, EuidLayer, GenerateRequest, Generated};

/// The logins of all workers. Clones share their calls.
#[derive(Clone)]
pub(super) struct Logins(Arc<Shared>);

struct Shared {
    client: EuidClient,
    /// For its clock.
    layer: EuidLayer,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    /// The calls under way. They are few, as each takes seconds at most.
    calls: Vec<(GenerateRequest, Answer)>,
}

/// The answer of a call, once it is there.
type Answer = watch::Receiver<Option<Outcome>>;
type Outcome = Result<Generated, EuidError>;

impl Logins {
    pub(super) fn new(client: EuidClient, layer: EuidLayer) -> Self {
        let state = State { breaker: Breaker::new(COOLDOWN), calls: Vec::new() };
        Self(Arc::new(Shared { client, layer, state: Mutex::new(state) }))
    }

    /// Returns the operator's answer for a person, or why there is none in time.
    pub(super) async fn generate(&self, person: &GenerateRequest) -> Result<Generated, String> {
        let mut answer = self.answer(person).ok_or("the operator is down")?;
        match timeout(LONGEST_WAIT, answer.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => match &*answer {
                Some(Ok(generated)) => Ok(generated.clone()),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("there is no answer".to_owned()),
            },
            Ok(Err(_)) => Err("the call was cut off".to_owned()),
            Err(_) => Err("the operator took longer than 2 s".to_owned()),
        }
    }

    /// Starts a call, or joins the one for the same person; `None` if the breaker refuses it.
    fn answer(&self, person: &GenerateRequest) -> Option<Answer> {
        let mut state = self.0.lock();
        if let Some((_, answer)) = state.calls.iter().find(|(other, _)| other == person) {
            return Some(answer.clone());
        }
        if state.breaker.admit(self.0.layer.now()) == Admission::Refused {
            return None;
        }
        let (sender, answer) = watch::channel(None);
        state.calls.push((person.clone(), answer.clone()));
        drop(state);
        let call = Call { shared: Arc::clone(&self.0), person: person.clone() };
        tokio::spawn(async move {
            let outcome = call.run().await;
            // A page that comes now makes a call of its own.
            drop(call);
            sender.send_replace(Some(outcome));
        });
        Some(answer)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, retry_after: Option<Duration>) {
        let now = self.layer.now();
        self.lock().breaker.failure(now, retry_after);
    }
}

/// A call under way. Its place is free again when this is dropped, also if its runtime has ended.
struct Call {
    shared: Arc<Shared>,
    person: GenerateRequest,
}

impl Call {
    async fn run(&self) -> Outcome {
        let mut call = pin!(self.shared.client.generate(self.person.clone()));
        if let Ok(outcome) = timeout(LONGEST_WAIT, call.as_mut()).await {
            match &outcome {
                Err(error) if error.kind() == ErrorKind::Transient => self.shared.failed(error.retry_after()),
                // An operator that refuses a call is not down.
                _ => self.shared.lock().breaker.success(),
            }
            return outcome;
        }
        self.shared.failed(None);
        call.await
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shared.lock().calls.retain(|(person, _)| *person != self.person);
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(2);
const COOLDOWN: Duration = Duration::from_secs(5);
