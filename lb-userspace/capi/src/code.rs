//! Results of calls: a value, or one of a few codes. No panic leaves a call.

use std::{
    ffi::CStr,
    panic::{self, AssertUnwindSafe},
};

/// The result of a call. Calls that return a number return one of these, all negative, on failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum LbCode {
    /// Done.
    Ok = 0,
    /// A pointer is null that must not be.
    NullPointer = -1,
    /// A text is not UTF-8.
    NotUtf8 = -2,
    /// The settings are invalid; lb_monitor_new gives the reason.
    BadSettings = -3,
    /// The address is not of the form `10.0.0.11:8080` or `[2001:db8::1]:8080`.
    BadAddress = -4,
    /// No such monitor: never created, or freed.
    NoMonitor = -5,
    /// The monitor has no such target: never added, or removed.
    NoTarget = -6,
    /// The thread that makes all checks cannot be started.
    NoThread = -7,
    /// A defect of this library: a call ended abnormally and may be half done.
    Defect = -8,
}

impl LbCode {
    const FAILURES: [Self; 8] = [
        Self::NullPointer,
        Self::NotUtf8,
        Self::BadSettings,
        Self::BadAddress,
        Self::NoMonitor,
        Self::NoTarget,
        Self::NoThread,
        Self::Defect,
    ];

    /// The code as a number.
    pub(crate) fn number(self) -> i32 {
        self as i32
    }

    /// Its meaning, as text.
    fn text(self) -> &'static CStr {
        match self {
            Self::Ok => c"done",
            Self::NullPointer => c"a pointer is null",
            Self::NotUtf8 => c"a text is not UTF-8",
            Self::BadSettings => c"the settings make no check",
            Self::BadAddress => c"the address is not of the form `10.0.0.11:8080` or `[2001:db8::1]:8080`",
            Self::NoMonitor => c"no such monitor",
            Self::NoTarget => c"the monitor has no such target",
            Self::NoThread => c"the thread of health checks cannot be started",
            Self::Defect => c"a defect of the health check library",
        }
    }
}

/// The words of a number that a call gave; any that is no failure means that it was done.
pub(crate) fn text(number: i32) -> &'static CStr {
    let failure = LbCode::FAILURES.into_iter().find(|code| code.number() == number);
    match failure {
        Some(code) => code.text(),
        None if number < 0 => c"an unknown code",
        None => LbCode::Ok.text(),
    }
}

/// Runs a call and gives its code. A panic must not unwind into C: it is a code, too.
pub(crate) fn code(call: impl FnOnce() -> Result<(), LbCode>) -> LbCode {
    match guarded(call) {
        Ok(()) => LbCode::Ok,
        Err(code) => code,
    }
}

/// Runs a call that gives a number; see [`code`].
pub(crate) fn number(call: impl FnOnce() -> Result<i64, LbCode>) -> i64 {
    guarded(call).unwrap_or_else(|code| i64::from(code.number()))
}

fn guarded<T>(call: impl FnOnce() -> Result<T, LbCode>) -> Result<T, LbCode> {
    // State that a panic may leave half done is behind locks that tolerate it.
    panic::catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(LbCode::Defect))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_code() {
        assert_eq!(code(|| panic!("on purpose")), LbCode::Defect);
        assert_eq!(number(|| panic!("on purpose")), -8);
        assert_eq!(number(|| Err(LbCode::NoTarget)), -6);
        assert_eq!(number(|| Ok(7)), 7);
    }

    #[test]
    fn every_code_has_its_own_words() {
        let mut texts: Vec<_> = (-9..=0).map(text).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 10, "{texts:?}");
        assert_eq!(text(5), c"done");
    }
}
