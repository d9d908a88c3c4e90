//! Panics of this program's own code, caught where one record must not stop the others.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// How much of a backtrace is kept, in bytes: the frames of this program come first.
const LONGEST: usize = 8 * 1024;

thread_local! {
    /// Whether a panic of this thread is caught.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<Caught>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caught {
    /// Where in the program.
    pub place: String,
    /// What it said, which may hold text of the record.
    pub message: String,
    /// How it came there.
    pub backtrace: String,
}

/// Does some work; a panic in it is the result, and is not printed, since its message may hold ticket text.
///
/// # Errors
/// When the work panicked. What it was changing must not be used any more.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Caught> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| if GUARDED.get() { note(info) } else { before(info) }));
    });
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    result.map_err(|_| CAUGHT.take().unwrap_or_default())
}

fn note(info: &PanicHookInfo<'_>) {
    let mut backtrace = Backtrace::force_capture().to_string();
    let end = (0..=LONGEST.min(backtrace.len())).rev().find(|at| backtrace.is_char_boundary(*at));
    backtrace.truncate(end.unwrap_or_default());
    CAUGHT.set(Some(Caught {
        place: info.location().map(ToString::to_string).unwrap_or_default(),
        message: info.payload_as_str().unwrap_or("(no words)").to_owned(),
        backtrace,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_result_with_its_place_and_how_it_came_there() {
        let text = String::from("boom");
        let panicked = caught(|| {
            if text.len() == 4 {
                panic!("{text} at {}", 7)
            }
        })
        .unwrap_err();
        assert_eq!(panicked.message, "boom at 7");
        assert!(panicked.place.starts_with("src/panic.rs:"), "{panicked:?}");
        assert!(panicked.backtrace.contains("customer_reach::panic"), "{}", panicked.backtrace);
        assert_eq!(caught(|| 3), Ok(3), "the next one is not in the way");
    }
}
