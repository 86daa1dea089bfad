//! Whether a TCF v2 consent string lets the operator make an EUID.
//!
//! Purposes that vendor 21 has consent for, and those it has a legitimate interest in, must together
//! hold 1, 2, 3, 4, 7 and 10. Special features and publisher restrictions do not matter.

use std::collections::BTreeSet;

use iab_gpp::sections::tcfeuv2::TcfEuV2;

/// What a consent string comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    Sufficient,
    Insufficient,
    Invalid,
}

pub(super) fn check(consent_string: &str) -> Consent {
    let Ok(TcfEuV2 { core, .. }) = consent_string.parse() else {
        return Consent::Invalid;
    };
    let mut purposes: BTreeSet<u16> = BTreeSet::new();
    if core.vendor_consents.contains(&VENDOR) {
        purposes.extend(&core.purpose_consents);
    }
    if core.vendor_legitimate_interests.contains(&VENDOR) {
        purposes.extend(&core.purpose_legitimate_interests);
    }
    if NEEDED.iter().all(|purpose| purposes.contains(purpose)) { Consent::Sufficient } else { Consent::Insufficient }
}

/// The Trade Desk, who runs the operator.
const VENDOR: u16 = 21;
const NEEDED: [u16; 6] = [1, 2, 3, 4, 7, 10];

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    /// Where the section of consented vendors starts, in bits; that of legitimate interest follows.
    const VENDORS: usize = 213;
    /// The section of publisher restrictions, which is the last.
    const NO_RESTRICTIONS: &str = "000000000000";

    const SUFFICIENT: &str = "CPehNtWPehNtWABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA";

    /// `SUFFICIENT` up to the vendors, then the vendor `sections`, written as bits.
    fn with_vendors(sections: &str) -> String {
        let core = BASE64_URL_SAFE_NO_PAD.decode(SUFFICIENT).unwrap();
        let mut bits: String = core.iter().map(|byte| format!("{byte:08b}")).collect();
        bits.truncate(VENDORS);
        bits.push_str(sections);
        bits.push_str(NO_RESTRICTIONS);
        let byte = |bits: &[u8]| u8::from_str_radix(&format!("{:0<8}", std::str::from_utf8(bits).unwrap()), 2).unwrap();
        BASE64_URL_SAFE_NO_PAD.encode(bits.as_bytes().chunks(8).map(byte).collect::<Vec<_>>())
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
