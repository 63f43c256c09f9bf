//! Names that restores and pushes give for as long as they run.

/// The folder that a push makes for second names of files.
pub(crate) const SECOND_NAMES: &str = ".astacus";
/// Prefix of the names of unfinished files.
pub(crate) const TEMPORARY: &str = ".astacus-tmp-";
/// Hex digits behind that: the run. A dash and a decimal number follow.
const RUN_DIGITS: usize = 16;

/// True if a restore gives this name to unfinished files.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    let parts = name.strip_prefix(TEMPORARY.as_bytes()).and_then(|rest| rest.split_at_checked(RUN_DIGITS));
    let Some((run, number)) = parts else { return false };
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let number = number.strip_prefix(b"-").unwrap_or_default();
    run.iter().all(is_hex) && !number.is_empty() && number.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_restore_makes_are_taken_for_unfinished() {
        for name in [".astacus-tmp-0123456789abcdef-0", ".astacus-tmp-ffffffffffffffff-123"] {
            assert!(is_temporary(name.as_bytes()), "{name}");
        }
        for name in [
            ".astacus-tmp-",
            ".astacus-tmp-0123456789abcdef",
            ".astacus-tmp-0123456789abcdef-",
            ".astacus-tmp-0123456789abcdeF-1",
            ".astacus-tmp-0123456789abcdef-1x",
            ".astacus-tmp-0123-1",
            "x.astacus-tmp-0123456789abcdef-1",
        ] {
            assert!(!is_temporary(name.as_bytes()), "{name}");
        }
    }
}
