//! An exhaustive search of the states of a model.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::iter;

/// A model whose states are explored.
pub(super) trait Model {
    type State;
    /// The state, for comparison: equal ones are visited once.
    type Key: Hash;
    type Violation: Clone + Debug + Ord;

    /// Every next state, and the step to it.
    fn next(&self, state: &Self::State) -> Vec<(String, Self::State)>;
    fn key(&self, state: &Self::State) -> Self::Key;
    /// Whether two logins of a state have the same tag, as happens once in 2^24. The step is then done again, twice
    /// at most: tags that never differ are a fault.
    fn has_equal_tags(&self, state: &Self::State) -> bool;
    /// What is wrong in a state.
    fn judge(&self, state: &Self::State) -> Vec<Self::Violation>;
}

#[derive(Debug)]
pub(super) struct Findings<V> {
    pub(super) states: usize,
    /// How often each was met, and the steps to the first one.
    pub(super) violations: BTreeMap<V, (usize, Vec<String>)>,
}

/// Visits every state that can be reached from `start`, nearest first, until a violation is the one that is wanted.
pub(super) fn explore<M: Model>(
    model: &M,
    start: M::State,
    is_wanted: impl Fn(&M::Violation) -> bool,
) -> Findings<M::Violation> {
    let mut violations = BTreeMap::new();
    let mut steps: Vec<(usize, String)> = vec![(0, "start".to_owned())];
    let key = |state: &M::State| {
        let key = model.key(state);
        digest(|hasher| key.hash(hasher))
    };
    let mut seen = HashSet::from([key(&start)]);
    let mut queue = VecDeque::from([(0, start)]);
    while let Some((number, state)) = queue.pop_front() {
        let are_clear = |next: &Vec<_>| !next.iter().any(|(_, next)| model.has_equal_tags(next));
        let Some(next) = iter::repeat_with(|| model.next(&state)).take(3).find(are_clear) else {
            panic!("two logins have the same tag, again and again");
        };
        for (step, next) in next {
            if !seen.insert(key(&next)) {
                continue;
            }
            let next_number = steps.len();
            steps.push((number, step));
            let mut is_found = false;
            for violation in model.judge(&next) {
                is_found |= is_wanted(&violation);
                let met = violations.entry(violation).or_insert_with(|| (0, path(&steps, next_number)));
                met.0 += 1;
            }
            if is_found {
                return Findings { states: steps.len(), violations };
            }
            queue.push_back((next_number, next));
        }
    }
    Findings { states: steps.len(), violations }
}

impl<V: Clone + Debug + Ord> Findings<V> {
    pub(super) fn print(&self) {
        println!("  {} states", self.states);
        for (violation, (times, steps)) in &self.violations {
            println!("  {violation:?} in {times} states, first by");
            steps.iter().for_each(|step| println!("    {step}"));
        }
    }

    pub(super) fn met(&self) -> Vec<V> {
        self.violations.keys().cloned().collect()
    }
}

/// Returns 128 bits in place of all that `hash` hashes, which takes more memory.
pub(super) fn digest(hash: impl Fn(&mut DefaultHasher)) -> u128 {
    let half = |number: u8| {
        let mut hasher = DefaultHasher::new();
        number.hash(&mut hasher);
        hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// The steps to a state.
fn path(steps: &[(usize, String)], mut number: usize) -> Vec<String> {
    let mut path = Vec::new();
    while number > 0 {
        let (previous, step) = &steps[number];
        path.push(step.clone());
        number = *previous;
    }
    path.reverse();
    path
}

/// A model in which all logins have the same tag.
struct EqualTags;

impl Model for EqualTags {
    type State = ();
    type Key = ();
    type Violation = ();

    fn next(&self, (): &()) -> Vec<(String, ())> {
        vec![(String::new(), ())]
    }

    fn key(&self, (): &()) {}

    fn has_equal_tags(&self, (): &()) -> bool {
        true
    }

    fn judge(&self, (): &()) -> Vec<()> {
        Vec::new()
    }
}

#[test]
#[should_panic(expected = "the same tag")]
fn tags_that_never_differ_fail_the_search() {
    explore(&EqualTags, (), |()| false);
}
