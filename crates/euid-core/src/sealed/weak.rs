//! Cookie keys that are refused, because an attacker can guess them or read them somewhere.
//!
//! A table of rules, and [`weakness`], which applies them. A key from a random generator breaks one of
//! them less often than once in 20 000 000 000 000 keys; the bound of each rule stands beside it.

use sha2::{Digest, Sha256};

/// A rule that a cookie key must not match.
struct Rule {
    matches: fn(&[u8; 32]) -> bool,
    /// Completes "this cookie key …".
    says: &'static str,
}

/// In the order in which they are tried: the more specific rule comes first.
const RULES: [Rule; 6] = [
    // 1 in 10^17.
    Rule { matches: is_published, says: "is printed in documents or test data, so that anyone can read it" },
    // 1 in 10^74.
    Rule { matches: |key| step(key) == Some(0), says: "is not random: it is one byte repeated" },
    // 1 in 10^72.
    Rule { matches: |key| step(key).is_some(), says: "is not random: its bytes count in equal steps" },
    // 1 in 10^34.
    Rule { matches: |key| key.iter().all(u8::is_ascii_hexdigit), says: "is not random: it is hex text used as bytes" },
    // 1 in 10^13, the largest of all.
    Rule { matches: |key| key.iter().all(is_printable), says: "is not random: it is readable text used as bytes" },
    // 1 in 10^14. A key that repeats a part of up to 16 bytes is among them.
    Rule { matches: |key| distinct(key) <= 16, says: "is not random: it has 16 different bytes or fewer" },
];

/// The weakness of `key`, as a predicate of "this cookie key"; `None` for a good one.
pub(super) fn weakness(key: &[u8; 32]) -> Option<&'static str> {
    RULES.iter().find(|rule| (rule.matches)(key)).map(|rule| rule.says)
}

/// The difference between neighbours, if it is the same everywhere.
fn step(key: &[u8; 32]) -> Option<u8> {
    let mut steps = key.iter().zip(key.iter().skip(1)).map(|(byte, next)| next.wrapping_sub(*byte));
    let first = steps.next()?;
    steps.all(|step| step == first).then_some(first)
}

fn is_printable(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r')
}

fn distinct(key: &[u8; 32]) -> usize {
    let mut sorted = zeroize::Zeroizing::new(*key);
    sorted.sort_unstable();
    1 + sorted.iter().zip(sorted.iter().skip(1)).filter(|(byte, next)| byte != next).count()
}

fn is_published(key: &[u8; 32]) -> bool {
    PUBLISHED.binary_search(&fingerprint(key)).is_ok()
}

/// The first eight bytes of the key's SHA-256.
fn fingerprint(key: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(key));
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Fingerprints, in ascending order, of the sandbox's client secret and of all keys and secrets in
/// `tests/vectors`.
#[rustfmt::skip]
const PUBLISHED: [u64; 149] = [
    0x0090_56a8_cab8_533e, 0x00d2_b097_9b25_9bfb, 0x0445_289a_1e83_4f86, 0x0569_8e70_ba58_5747, 0x05fe_1a93_d078_cc4f,
    0x06c4_0701_de77_3330, 0x078d_94af_2029_7b0c, 0x08ee_d6b4_5718_843d, 0x0968_7e9a_4c8b_b96c, 0x0cff_1646_a371_0558,
    0x0dff_f16e_27b9_4057, 0x1038_9ff8_0751_3404, 0x1076_96ee_db35_7eb6, 0x111b_d0f8_9c04_cebe, 0x11fa_a438_192d_b06c,
    0x12f1_d857_ac91_a5f9, 0x149c_9356_5df0_6d4d, 0x1617_c3d3_eeeb_5a74, 0x16ae_cb5e_73ed_e7be, 0x16b6_ae64_d3f8_62b9,
    0x16d5_04ac_1796_d8d1, 0x172b_180e_3eda_a26d, 0x1961_a3f8_4def_3217, 0x199f_9ddd_0322_c3bd, 0x1aa3_cee7_9066_26ed,
    0x2096_dcca_b045_8a6e, 0x248e_0178_ad7f_7587, 0x2606_2e9d_b260_84b6, 0x2849_0d6a_033c_614b, 0x30d5_7a9f_0e49_dc8d,
    0x3143_20b7_405a_7453, 0x327a_2cfb_3660_7b46, 0x32eb_2daa_3e0e_b41f, 0x35fb_7100_ffb4_66e2, 0x3b41_b2b5_b88f_4d2a,
    0x3c01_0767_2e8d_fec2, 0x419e_fb3d_63b4_7420, 0x41af_4594_63cb_2f5d, 0x4321_7a67_7199_2377, 0x4367_0784_7958_846c,
    0x4394_58f4_a346_a582, 0x43c3_14d1_af9a_ac97, 0x4524_1641_ce88_1afa, 0x4554_3612_20c1_6eea, 0x467f_4240_fc53_5117,
    0x4de6_b07b_2ef4_0515, 0x4e3d_4ad8_a883_cbf5, 0x50b8_24a5_c306_e404, 0x5174_9787_9e54_db2b, 0x53e1_f884_f89e_06a4,
    0x544f_6591_698e_8747, 0x558c_c2c4_2082_014b, 0x55dc_c524_3b80_94e0, 0x5892_ee07_568b_3486, 0x598c_1986_301a_16cb,
    0x5a88_169f_f671_3814, 0x5c9e_4c35_b9b8_60bc, 0x6094_50b6_7827_3ef5, 0x61b1_90d1_831f_615b, 0x630d_cd29_66c4_3366,
    0x64c6_a9bc_667d_8335, 0x6845_fad8_acd1_04ad, 0x6847_fcac_24d9_7b83, 0x6d5a_6963_1ffe_bbf4, 0x6d91_69e8_7b70_97f2,
    0x7370_35fd_bd5e_ffd1, 0x745a_756d_6f01_14ac, 0x75ad_c815_7234_22ca, 0x7db9_ec23_97ed_0155, 0x7fda_ec0a_4022_6af8,
    0x80b9_530f_1c81_a71c, 0x824b_9bee_380c_a91c, 0x853e_502b_c424_c2a5, 0x85e0_7278_c7d3_ee4f, 0x880e_b4a5_9c4f_6ba5,
    0x89ba_3dc5_b382_6e44, 0x8acf_4111_abde_e273, 0x8b4c_c749_8c40_a25a, 0x8bff_72ee_6e63_cf0b, 0x8e27_6be0_ecf4_e0ff,
    0x8e3e_6f87_418e_582b, 0x917e_3ebb_fbd1_d618, 0x9330_bce6_c26f_9f22, 0x937e_a6df_04ce_31aa, 0x94b2_fdb5_bf2c_ab68,
    0x959a_6be3_e5ae_6f4d, 0x95a4_6e39_e66e_268e, 0x99ad_ec2b_c653_7eee, 0x9acb_7800_278e_0a1e, 0x9c1e_23c0_b550_68af,
    0x9f13_82e2_e3d5_103a, 0x9f4f_0e93_1f94_1f37, 0xa08c_ca62_b733_257e, 0xa292_9b17_2798_b358, 0xa5da_3f1b_54c6_875d,
    0xa60a_7907_ab90_c77f, 0xa624_39d5_850d_f9c6, 0xa6b2_68b9_9ba0_7883, 0xa8b5_f55b_cb46_6916, 0xa9e2_8cf2_a059_6e4f,
    0xaac5_8f8c_c22c_a1bf, 0xab89_132d_da63_561e, 0xad06_15b1_8123_cbad, 0xaf52_e37d_a1e8_c3c2, 0xb38f_5ed5_2f78_d15d,
    0xb402_c195_6767_bb08, 0xb4b3_a1c6_1ea2_1ae7, 0xb75d_2447_2c95_9454, 0xb7d3_adaa_a52b_e63d, 0xb83e_59ba_38cc_7d9f,
    0xb893_382f_970d_6836, 0xb959_a351_aad5_1b0b, 0xbd29_60ff_ba17_3536, 0xc037_4cf6_3354_854d, 0xc213_9613_4291_83da,
    0xc21c_f2e1_0b4b_a644, 0xc359_88ba_9d05_3d2d, 0xc388_ba32_8c55_c695, 0xc3c2_fade_5c9f_8a3c, 0xca11_a41f_ba8b_7a5d,
    0xca19_2637_4201_3700, 0xcb5e_da3b_1bf4_c1fd, 0xcbd6_ee3d_2a25_3e4f, 0xcc60_e6bf_e0fa_9ca4, 0xcde5_4c83_9b93_3724,
    0xcf00_76d3_c116_142e, 0xd2c3_5cc0_4928_1366, 0xd4cf_3894_f4d9_ec6b, 0xd615_4f7d_6ae6_c557, 0xd789_6050_04c5_bbbc,
    0xdb87_b887_86b2_04e2, 0xdca1_02d4_3107_a2a9, 0xdcdd_cffc_e138_2b49, 0xdf92_2bb9_e9f3_88b0, 0xe087_51f9_de0d_16df,
    0xe09b_bcca_6d04_1957, 0xe1e0_c8dd_cff4_2acc, 0xe358_08a3_198e_66cd, 0xe363_966e_d674_ffe1, 0xe779_f967_9283_477e,
    0xe9af_0e77_05ac_1345, 0xedef_b124_5947_022e, 0xf187_0653_bd6d_51bd, 0xf59b_0e55_630f_8088, 0xf5cf_9ce6_2ac2_131c,
    0xf884_5172_7eda_7945, 0xf8d9_0e4f_a6cd_d782, 0xf9c1_c7a6_1d86_cc5b, 0xfda9_27e2_fe85_2f3e,
];

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde_json::Value;

    use super::*;

    const VECTORS: [&str; 4] = [
        include_str!("../../tests/vectors/cookie-format.json"),
        include_str!("../../tests/vectors/envelopes.json"),
        include_str!("../../tests/vectors/operator-captures.json"),
        include_str!("../../tests/vectors/xaes-256-gcm.json"),
    ];

    /// Collects the 32-byte values of the members whose name says that they are a key or a secret.
    fn collect(json: &Value, name: &str, keys: &mut Vec<[u8; 32]>) {
        match json {
            Value::Object(members) => members.iter().for_each(|(name, value)| collect(value, name, keys)),
            Value::Array(values) => values.iter().for_each(|value| collect(value, name, keys)),
            Value::String(text) if ["key", "secret", "encrypted_with"].iter().any(|word| name.contains(word)) => {
                let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
                let hex = pairs.map(|pair| u8::from_str_radix(pair, 16).ok()).collect::<Option<Vec<u8>>>();
                let bytes = hex.or_else(|| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
                keys.extend(<[u8; 32]>::try_from(bytes));
            }
            _ => {}
        }
    }

    #[test]
    fn keys_of_the_test_vectors_and_the_sandbox_count_as_published() {
        let mut keys = vec![*b"tower-euid sandbox: no secret 01"];
        for file in VECTORS {
            let before = keys.len();
            collect(&serde_json::from_str(file).unwrap(), "", &mut keys);
            assert!(keys.len() > before);
        }
        let mut prints: Vec<u64> = keys.iter().map(fingerprint).collect();
        prints.sort_unstable();
        prints.dedup();
        assert_eq!(prints, PUBLISHED, "{prints:#018x?}");
    }

    #[test]
    fn weak_keys_are_refused_by_the_rule_that_they_break() {
        let counting = |first: u8, step: u8| std::array::from_fn(|i| first.wrapping_add(step.wrapping_mul(i as u8)));
        let few = |distinct: usize| std::array::from_fn(|i| (i % distinct) as u8 ^ 0xa5);
        let keys: [([u8; 32], &str); 14] = [
            (counting(0, 0), "one byte repeated"),
            (counting(0xff, 0), "one byte repeated"),
            (counting(1, 1), "equal steps"),
            (counting(31, 0xff), "equal steps"),
            (counting(200, 7), "equal steps"),
            (*b"0123456789abcdef0123456789ABCDEF", "hex text"),
            (*b"correct horse battery staple 123", "readable text"),
            (*b"dGhpcyBpcyBhIHNlY3JldCBrZXkhIQ==", "readable text"),
            (*b"the last of them is a line end.\n", "readable text"),
            (few(2), "16 different bytes"),
            (few(15), "16 different bytes"),
            (few(16), "16 different bytes"),
            (*b"tower-euid sandbox: no secret 01", "printed in documents"),
            (counting(0, 1), "printed in documents"),
        ];
        for (key, rule) in keys {
            assert!(weakness(&key).is_some_and(|weakness| weakness.contains(rule)), "{rule}: {:?}", weakness(&key));
        }
    }

    #[test]
    fn key_one_step_from_each_weakness_is_accepted() {
        let mut seventeen: [u8; 32] = std::array::from_fn(|i| (i % 16 * 15) as u8 ^ 0x80);
        seventeen[31] = 0x7b;
        let mut not_text = *b"correct horse battery staple 123";
        not_text[7] = 0x80;
        let mut counting: [u8; 32] = std::array::from_fn(|i| 200 + i as u8);
        counting[31] = 0;
        for key in [seventeen, not_text, counting] {
            assert_eq!(weakness(&key), None, "{key:?}");
        }
        assert_eq!(distinct(&seventeen), 17);
    }

    #[test]
    fn ten_thousand_digests_are_accepted_as_keys() {
        for number in 0..10_000_u32 {
            assert_eq!(weakness(&Sha256::digest(number.to_be_bytes()).into()), None, "{number}");
        }
    }
}
