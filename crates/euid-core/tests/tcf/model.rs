//! The model of the reader of TC strings: slow, bit by bit. It decodes everything into sets, and shares no code with
//! the reader.

use euid_core::tcf::Verdict;

pub(crate) fn judge(text: &[u8]) -> Verdict {
    if text.len() > 4096 {
        return Verdict::Invalid;
    }
    let mut segments: Vec<&[u8]> = text.split(|byte| *byte == b'.').collect();
    while segments.last().is_some_and(|segment| segment.is_empty()) {
        segments.pop();
    }
    let Some((core, others)) = segments.split_first() else { return Verdict::Invalid };
    let Some(mut core) = Segment::decode(core) else { return Verdict::Invalid };
    match core.number(6) {
        Some(1) => Verdict::Version1,
        Some(2) => match (allows(&mut core), are_readable(others)) {
            (Some(true), Some(())) => Verdict::Sufficient,
            (Some(false), Some(())) => Verdict::Insufficient,
            (None, _) | (_, None) => Verdict::Invalid,
        },
        _ => Verdict::Invalid,
    }
}

fn allows(core: &mut Segment) -> Option<bool> {
    for width in [36, 36, 12, 12, 6, 12, 12, 6, 1, 1, 12] {
        core.number(width)?;
    }
    let purpose_consents = core.set(24)?;
    let purpose_interests = core.set(24)?;
    core.number(1)?;
    core.number(12)?;
    let vendor_consents = core.vendors()?;
    let vendor_interests = core.vendors()?;
    for _ in 0..core.number(12)? {
        core.number(6)?;
        core.number(2)?;
        core.ranges(65_535)?;
    }
    let holds = |set: &[bool], number| set.get(number) == Some(&true);
    Some([1, 2, 3, 4, 7, 10].into_iter().all(|purpose| {
        (holds(&vendor_consents, 21) && holds(&purpose_consents, purpose))
            || (holds(&vendor_interests, 21) && holds(&purpose_interests, purpose))
    }))
}

/// Checks the first segment of each type. The segments before it must have a type, too.
fn are_readable(others: &[&[u8]]) -> Option<()> {
    let others: Vec<Segment> = others.iter().map(|segment| Segment::decode(segment)).collect::<Option<_>>()?;
    for wanted in [1, 2, 3] {
        for segment in &others {
            let mut segment = segment.clone();
            if segment.number(3)? != wanted {
                continue;
            }
            if wanted == 3 {
                segment.set(24)?;
                segment.set(24)?;
                let custom = segment.number(6)?;
                segment.set(custom)?;
                segment.set(custom)?;
            } else {
                segment.vendors()?;
            }
            break;
        }
    }
    Some(())
}

/// The unread bits of a segment, last one first.
#[derive(Clone)]
struct Segment(Vec<bool>);

impl Segment {
    fn decode(text: &[u8]) -> Option<Self> {
        let mut characters = text.to_vec();
        while characters.last() == Some(&b'=') {
            characters.pop();
        }
        let padding = text.len() - characters.len();
        match (characters.len() % 4, padding) {
            (0, 0) | (2, 0 | 2) | (3, 0 | 1) => {}
            _ => return None,
        }
        let mut bits = Vec::new();
        for character in characters {
            let value = ALPHABET.iter().position(|other| *other == character)?;
            bits.extend([32, 16, 8, 4, 2, 1].map(|bit| value & bit != 0));
        }
        // Base64 holds whole bytes.
        bits.truncate(bits.len() / 8 * 8);
        bits.reverse();
        Some(Self(bits))
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        let mut number = 0;
        for _ in 0..width {
            number = 2 * number + usize::from(self.0.pop()?);
        }
        Some(number)
    }

    /// Returns for each number from 0 to `last` whether it is in the set; 0 never is.
    fn set(&mut self, last: usize) -> Option<Vec<bool>> {
        let mut set = vec![false];
        for _ in 0..last {
            set.push(self.0.pop()?);
        }
        Some(set)
    }

    fn vendors(&mut self) -> Option<Vec<bool>> {
        let last = self.number(16)?;
        if self.number(1)? == 0 { self.set(last) } else { self.ranges(last) }
    }

    fn ranges(&mut self, last: usize) -> Option<Vec<bool>> {
        let mut set = vec![false; 65_536];
        for _ in 0..self.number(12)? {
            if self.number(1)? == 0 {
                let only = self.number(16)?;
                *set.get_mut(only)? = true;
            } else {
                let (from, to) = (self.number(16)?, self.number(16)?);
                if from > to || to > last {
                    return None;
                }
                set.get_mut(from..=to)?.fill(true);
            }
        }
        Some(set)
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
