//! Bytes as hexadecimal text, as ids and keys show them.

/// Two lower-case digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
    let mut digits = vec![0; 2 * bytes.len()];
    for ([high, low], byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
        (*high, *low) = (digit(byte >> 4), digit(byte & 15));
    }
    // They are ASCII.
    String::from_utf8(digits).unwrap_or_default()
}
