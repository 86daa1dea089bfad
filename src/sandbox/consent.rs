//! Whether a TCF v2 consent string lets the operator make an EUID.
//!
//! 1. Purposes that vendor 21 has consent for, and those it has a legitimate interest in, must
//!    together hold 1, 2, 3, 4, 7 and 10.
//! 2. Only the core string up to the two vendor sections is read: special features and publisher
//!    restrictions do not matter.
//! 3. The string comes from outside: what ends too early is invalid, never a panic.

use base64::Engine;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

/// What a consent string comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    Sufficient,
    Insufficient,
    Invalid,
}

pub(super) fn check(consent_string: &str) -> Consent {
    let core = consent_string.split('.').next().unwrap_or_default();
    match BASE64_URL.decode(core).ok().and_then(|core| allowed_purposes(&core)) {
        Some(purposes) if NEEDED.iter().all(|&purpose| purposes.contains(purpose)) => Consent::Sufficient,
        Some(_) => Consent::Insufficient,
        None => Consent::Invalid,
    }
}

/// The purposes that the vendor may rely on; `None` if the string is not TCF v2.
fn allowed_purposes(core: &[u8]) -> Option<Purposes> {
    let mut bits = Bits { bytes: core, at: 0 };
    if bits.take(6)? != TCF_V2 {
        return None;
    }
    bits.at = PURPOSES;
    let consented = bits.take(24)?;
    let legitimate = bits.take(24)?;
    bits.at = VENDORS;
    let consented = if bits.vendor_section_names(VENDOR)? { consented } else { 0 };
    let legitimate = if bits.vendor_section_names(VENDOR)? { legitimate } else { 0 };
    Some(Purposes(consented | legitimate))
}

/// 24 bits, the first for purpose 1.
struct Purposes(u32);

impl Purposes {
    fn contains(&self, purpose: u32) -> bool {
        self.0 & (1 << (24 - purpose)) != 0
    }
}

/// Reads a core string from its first bit to its last.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next `count` bits, at most 32; `None` past the end.
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for bit in self.at..self.at + count {
            let byte = self.bytes.get(bit / 8)?;
            value = (value << 1) | u32::from((byte >> (7 - bit % 8)) & 1);
        }
        self.at += count;
        Some(value)
    }

    /// Reads a vendor section, whose two forms are one bit per vendor and a list of ranges.
    fn vendor_section_names(&mut self, vendor: u32) -> Option<bool> {
        let last = self.take(16)?;
        let is_list_of_ranges = self.take(1)? == 1;
        let mut named = false;
        if is_list_of_ranges {
            for _ in 0..self.take(12)? {
                let is_range = self.take(1)? == 1;
                let from = self.take(16)?;
                let to = if is_range { self.take(16)? } else { from };
                named |= (from..=to).contains(&vendor);
            }
        } else {
            for id in 1..=last {
                named |= self.take(1)? == 1 && id == vendor;
            }
        }
        Some(named)
    }
}

const TCF_V2: u32 = 2;
/// The Trade Desk, who runs the operator.
const VENDOR: u32 = 21;
const NEEDED: [u32; 6] = [1, 2, 3, 4, 7, 10];
/// Where the consented purposes start, in bits; those of legitimate interest follow.
const PURPOSES: usize = 152;
/// Where the section of consented vendors starts, in bits; that of legitimate interest follows.
const VENDORS: usize = 213;

const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use super::*;

    const SUFFICIENT: &str = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";

    /// `SUFFICIENT` up to the vendors, then `sections`, written as bits.
    fn with_vendors(sections: &str) -> String {
        let core = BASE64_URL.decode(SUFFICIENT).unwrap();
        let mut bits: String = core.iter().map(|byte| format!("{byte:08b}")).collect();
        bits.truncate(VENDORS);
        bits.push_str(sections);
        let byte = |bits: &[u8]| u8::from_str_radix(&format!("{:0<8}", std::str::from_utf8(bits).unwrap()), 2).unwrap();
        BASE64_URL.encode(bits.as_bytes().chunks(8).map(byte).collect::<Vec<_>>())
    }

    #[test]
    fn the_samples_are_judged_as_the_operator_judges_them() {
        assert_eq!(check(SUFFICIENT), Consent::Sufficient);
        assert_eq!(check("CPhJRpMPhJRpMABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA"), Consent::Sufficient);
        assert_eq!(check("CPehXK9PehXK9ABAMBFRACBoADAAAEJAAIYgAKwAQAKgArABAAqAAA"), Consent::Insufficient);
        assert_eq!(check("invalid_consent_string"), Consent::Invalid);
        assert_eq!(check(""), Consent::Invalid);
        assert_eq!(check("BPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA"), Consent::Invalid);
    }

    #[test]
    fn both_forms_of_a_vendor_section_are_read() {
        let bitfield = format!("{:016b}0{:0>21}", 21, 1);
        let single = format!("{:016b}1{:012b}0{:016b}", 21, 1, 21);
        let range = format!("{:016b}1{:012b}0{:016b}1{:016b}{:016b}", 90, 2, 3, 20, 90);
        let nobody = format!("{:016b}0", 0);
        let others = format!("{:016b}1{:012b}1{:016b}{:016b}", 65535, 1, 22, 65535);
        for named in [&bitfield, &single, &range] {
            assert_eq!(check(&with_vendors(&format!("{named}{named}"))), Consent::Sufficient, "{named}");
            assert_eq!(check(&with_vendors(&format!("{named}{nobody}"))), Consent::Insufficient, "{named}");
            assert_eq!(check(&with_vendors(&format!("{others}{named}"))), Consent::Insufficient, "{named}");
        }
    }

    #[test]
    fn a_string_that_ends_too_early_is_invalid() {
        // The vendor sections end at bit 287, within the 48th character.
        for length in 0..48 {
            assert_eq!(check(&SUFFICIENT[..length]), Consent::Invalid, "{length}");
        }
        let endless = format!("{:016b}1{:012b}", 65535, 4095);
        assert_eq!(check(&with_vendors(&endless)), Consent::Invalid);
    }

    #[test]
    fn other_segments_are_not_looked_at() {
        assert_eq!(check(&format!("{SUFFICIENT}.YAAAAAAAAAA")), Consent::Sufficient);
    }
}
