//! The response's plan for the cookie for scripts.

/// The plan, in one byte: a decision is moved several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scripts(u8);

impl Scripts {
    const SYNC: u8 = 1;
    const WITHHELD: u8 = 2;

    pub(super) fn new(sync: bool, withheld: bool) -> Self {
        Self((u8::from(sync) * Self::SYNC) | (u8::from(withheld) * Self::WITHHELD))
    }

    /// The cookie differs from the handler's token, and the response corrects it.
    pub(super) fn sync(self) -> bool {
        self.0 & Self::SYNC != 0
    }

    /// The cookie must not hold a token.
    pub(super) fn withheld(self) -> bool {
        self.0 & Self::WITHHELD != 0
    }

    pub(super) fn with_sync(self, sync: bool) -> Self {
        Self::new(sync, self.withheld())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_for_the_cookie_for_scripts_holds_both_flags() {
        for (sync, withheld) in [(false, false), (false, true), (true, false), (true, true)] {
            let scripts = Scripts::new(sync, withheld);
            assert_eq!((scripts.sync(), scripts.withheld()), (sync, withheld));
            let other = scripts.with_sync(!sync);
            assert_eq!((other.sync(), other.withheld()), (!sync, withheld));
        }
    }
}
