//! Random bytes of the operating system: IVs, nonces, lineages, keys.

/// `N` fresh bytes; fails only if the operating system has no randomness to give.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
