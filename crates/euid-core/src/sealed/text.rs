//! The base64 of sealed values and of the tokens in them: each value has exactly one text, so an engine refuses
//! padding that must not be there, misses padding that must, and refuses stray bits after the last byte.
//!
//! `base64` has an engine for the vector units of x86-64 and aarch64, which detects them at run time. It has none for
//! other processors, which get the engine that is written for all; both accept and write the same.

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
mod engines {
    use std::sync::LazyLock;

    use base64::engine::Simd;
    use base64::engine::general_purpose::{NO_PAD, PAD};

    /// Base64url without padding, as strict as the module says.
    pub(crate) static BASE64URL: LazyLock<Simd> = LazyLock::new(|| Simd::url_safe(NO_PAD));

    /// Standard base64 with padding, as strict as the module says; the operator's refresh tokens are in it.
    pub(crate) static BASE64_STANDARD: LazyLock<Simd> = LazyLock::new(|| Simd::standard(PAD));
}

#[cfg(any(test, not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))))]
mod portable {
    use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, PAD};

    /// Base64url without padding, as strict as the module says.
    pub(crate) static BASE64URL: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, NO_PAD);

    /// Standard base64 with padding, as strict as the module says; the operator's refresh tokens are in it.
    pub(crate) static BASE64_STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, PAD);
}

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
pub(crate) use engines::{BASE64_STANDARD, BASE64URL};
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
pub(crate) use portable::{BASE64_STANDARD, BASE64URL};

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    /// Decodes `text` with the processor's own engine and with the portable one; `None` is an error.
    fn decoded(text: &[u8]) -> [[Option<Vec<u8>>; 2]; 2] {
        [
            [BASE64URL.decode(text).ok(), portable::BASE64URL.decode(text).ok()],
            [BASE64_STANDARD.decode(text).ok(), portable::BASE64_STANDARD.decode(text).ok()],
        ]
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 151 + length) as u8).collect()
    }

    #[test]
    fn portable_engine_encodes_like_the_processors_own() {
        for bytes in (0..300).map(bytes) {
            let (url, standard) = (BASE64URL.encode(&bytes), BASE64_STANDARD.encode(&bytes));
            assert_eq!(portable::BASE64URL.encode(&bytes), url);
            assert_eq!(portable::BASE64_STANDARD.encode(&bytes), standard);
            assert_eq!(decoded(url.as_bytes())[0], [Some(bytes.clone()), Some(bytes.clone())]);
            assert_eq!(decoded(standard.as_bytes())[1], [Some(bytes.clone()), Some(bytes)]);
        }
    }

    #[test]
    fn portable_engine_fills_a_slice_of_the_exact_size_and_refuses_a_smaller_one() {
        for bytes in (1..100).map(bytes) {
            let text = BASE64URL.encode(&bytes);
            let mut room = vec![0; bytes.len()];
            for (fits, length) in [(true, bytes.len()), (false, bytes.len() - 1)] {
                let own = BASE64URL.decode_slice(&text, &mut room[..length]).ok();
                let portable = portable::BASE64URL.decode_slice(&text, &mut room[..length]).ok();
                assert_eq!((own, portable), (fits.then_some(length), fits.then_some(length)));
            }
        }
    }

    #[test]
    fn portable_engine_refuses_the_same_texts_as_the_processors_own() {
        let refused = [None, None];
        // URL-safe base64 has no padding. Standard base64 has all of it, and only at the end.
        assert_eq!(decoded(b"QQ"), [[Some(b"A".to_vec()), Some(b"A".to_vec())], refused.clone()]);
        assert_eq!(decoded(b"QQ=="), [refused.clone(), [Some(b"A".to_vec()), Some(b"A".to_vec())]]);
        for text in ["Q", "QQ=", "QQ===", "QQ==QQ==", "=", "====", "QUI= ", "QQ==\n", " QQ=="] {
            assert_eq!(decoded(text.as_bytes()), [refused.clone(), refused.clone()], "{text:?}");
        }
        // Stray bits after the last byte.
        for text in ["QR", "QR==", "QUJ", "QUJ="] {
            assert_eq!(decoded(text.as_bytes()), [refused.clone(), refused.clone()], "{text:?}");
        }
    }

    #[test]
    fn portable_engine_agrees_on_every_character_at_every_position() {
        // Lengths below, at and above what the vector unit decodes at once.
        for length in [4, 33, 66] {
            let url = BASE64URL.encode(bytes(length));
            let standard = BASE64_STANDARD.encode(bytes(length));
            for text in [url, standard] {
                for at in 0..text.len() {
                    for character in 0..=u8::MAX {
                        let mut text = text.clone().into_bytes();
                        text[at] = character;
                        let [[own, portable], [own_standard, portable_standard]] = decoded(&text);
                        assert_eq!(own, portable, "{text:?}");
                        assert_eq!(own_standard, portable_standard, "{text:?}");
                    }
                }
            }
        }
    }
}
