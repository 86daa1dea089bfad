//! Reads a TC string: bits from front to back, as far as the operator reads them, and no further.

use super::{MAX_LENGTH, PURPOSES, VENDOR, Verdict};

/// `None` for a string that the operator refuses with HTTP 400.
pub(super) fn read(text: &[u8]) -> Option<Verdict> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let (core, others) = segments(text);
    let mut bits = Bits::of(core)?;
    match bits.take(6)? {
        // The operator fails only later, without a look at the rest.
        1 => Some(Verdict::Version1),
        2 => {
            let is_sufficient = core_allows(&mut bits)?;
            check_others(others)?;
            Some(if is_sufficient { Verdict::Sufficient } else { Verdict::Insufficient })
        }
        _ => None,
    }
}

/// The core and the segments after it, where dots at the end do not begin a segment.
fn segments(text: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>) {
    let end = text.iter().rposition(|&byte| byte != b'.').map_or(0, |last| last + 1);
    let mut segments = text.get(..end).unwrap_or_default().split(|&byte| byte == b'.');
    (segments.next().unwrap_or_default(), segments)
}

/// Reads the core segment from behind its version to its end.
fn core_allows(bits: &mut Bits<'_>) -> Option<bool> {
    // When and by which CMP it was made, in which language, after which lists; special features.
    bits.skip(146)?;
    let (consented, of_legitimate_interest) = (bits.take(24)?, bits.take(24)?);
    // Purpose one treatment, country of the publisher.
    bits.skip(13)?;
    let mut purposes = 0;
    if names_vendor(bits)? {
        purposes |= consented;
    }
    if names_vendor(bits)? {
        purposes |= of_legitimate_interest;
    }
    for _ in 0..bits.take(12)? {
        // A publisher restriction: purpose and type, then vendors with no upper bound.
        bits.skip(8)?;
        range_names_vendor(bits, u32::MAX)?;
    }
    Some(PURPOSES.iter().all(|purpose| purposes & (1 << (24 - purpose)) != 0))
}

/// Reads the segments after the core. Of each type the operator reads the first, and to find the three
/// types it reads the types of all segments up to the last of the three.
fn check_others<'a>(segments: impl Iterator<Item = &'a [u8]>) -> Option<()> {
    let (mut disclosed, mut allowed, mut publisher) = (false, false, false);
    for segment in segments {
        let mut bits = Bits::of(segment)?;
        if disclosed && allowed && publisher {
            continue;
        }
        match bits.take(3)? {
            1 if !disclosed => {
                names_vendor(&mut bits)?;
                disclosed = true;
            }
            2 if !allowed => {
                names_vendor(&mut bits)?;
                allowed = true;
            }
            3 if !publisher => {
                // Purposes by consent and by legitimate interest, then the same for custom purposes.
                bits.skip(48)?;
                let custom = bits.take(6)?;
                bits.skip(2 * custom)?;
                publisher = true;
            }
            _ => {}
        }
    }
    Some(())
}

/// Reads a list of vendors, as a bit field or as ranges.
fn names_vendor(bits: &mut Bits<'_>) -> Option<bool> {
    let last = bits.take(16)?;
    if bits.take(1)? == 1 {
        return range_names_vendor(bits, last);
    }
    let vendor = u32::from(VENDOR);
    if last < vendor {
        bits.skip(last)?;
        return Some(false);
    }
    bits.skip(vendor - 1)?;
    let named = bits.take(1)? == 1;
    bits.skip(last - vendor)?;
    Some(named)
}

/// Reads ranges of vendors. A range must not be reversed nor go past `last`; a single vendor may.
fn range_names_vendor(bits: &mut Bits<'_>, last: u32) -> Option<bool> {
    let mut named = false;
    for _ in 0..bits.take(12)? {
        let is_range = bits.take(1)? == 1;
        let from = bits.take(16)?;
        let to = if is_range { bits.take(16)? } else { from };
        if is_range && (from > to || to > last) {
            return None;
        }
        named |= (from..=to).contains(&u32::from(VENDOR));
    }
    Some(named)
}

/// The bits of a segment, read once from front to back: every step moves on, so there are no more steps
/// than bits.
struct Bits<'a> {
    characters: &'a [u8],
    at: usize,
    /// Whole bytes only, as base64 holds no others.
    end: usize,
}

impl<'a> Bits<'a> {
    /// `None` if the segment is not base64url, padded fully or not at all.
    fn of(segment: &'a [u8]) -> Option<Self> {
        let length = segment.iter().take_while(|&&byte| sextet(byte).is_some()).count();
        let (characters, padding) = segment.split_at_checked(length)?;
        let is_whole = matches!((length % 4, padding), (0, b"") | (2, b"" | b"==") | (3, b"" | b"="));
        is_whole.then_some(Self { characters, at: 0, end: length * 6 / 8 * 8 })
    }

    /// The next `count` bits, at most 24.
    fn take(&mut self, count: usize) -> Option<u32> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.end)?;
        let past = end.div_ceil(6);
        let characters = self.characters.get(self.at / 6..past)?;
        let bits = characters.iter().try_fold(0, |bits, &byte| Some(bits << 6 | u32::from(sextet(byte)?)))?;
        self.at = end;
        Some(bits >> (past * 6 - end) & ((1 << count) - 1))
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(count).ok()?).filter(|&at| at <= self.end)?;
        Some(())
    }
}

/// The six bits of a character of base64url.
fn sextet(character: u8) -> Option<u8> {
    #[cfg(test)]
    tests::LOOKS.set(tests::LOOKS.get() + 1);
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::judge;
    use super::*;

    thread_local! {
        /// How many characters the reader has looked at.
        pub static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    /// Asserts that reading is linear, with a small factor.
    fn assert_few_looks(text: &[u8]) {
        LOOKS.set(0);
        let verdict = judge(text);
        let most = if text.len() > MAX_LENGTH { 0 } else { 4 * text.len() + 64 };
        assert!(LOOKS.get() <= most, "{} looks at {} characters, {verdict:?}", LOOKS.get(), text.len());
    }

    /// Hundreds of ranges over all vendors, for which a decoder that expands ranges needs seconds.
    #[test]
    fn hostile_tc_string_is_read_in_linear_time() {
        let hostile = include_bytes!("../../tests/vectors/consent-hostile.txt").trim_ascii();
        assert_eq!(judge(hostile), Verdict::Sufficient);
        assert_few_looks(hostile);
        assert_few_looks(&hostile.repeat(12));
    }

    #[test]
    fn tc_string_segments_are_read_in_linear_time() {
        let core = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";
        for segment in [".", ".gA", ".YAAAAAAAAAAA", ".IAAA", ".AAAA", ".A"] {
            assert_few_looks(format!("{core}{}", segment.repeat((MAX_LENGTH - core.len()) / segment.len())).as_bytes());
        }
        assert_few_looks(&[b'.'; MAX_LENGTH]);
    }

    proptest! {
        /// Long runs of one character make long lists of ranges and restrictions.
        #[test]
        fn any_tc_string_is_read_in_linear_time(
            head in "C[A-Za-z0-9_-]{35}",
            runs in vec((select(&b"A_QgIf4.YE"[..]), 0..900_usize), 0..12),
        ) {
            let runs = runs.into_iter().flat_map(|(character, count)| std::iter::repeat_n(character, count));
            assert_few_looks(&head.into_bytes().into_iter().chain(runs).collect::<Vec<u8>>());
        }
    }
}
