//! Shared parts of the fuzzing programs: the allocator that counts, and the entry that libFuzzer calls.

use peak_alloc::PeakAlloc;

pub use libfuzzer_sys;
pub use tests::targets;

/// Counts what targets take.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The program that runs the target of this name.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        use $crate::libfuzzer_sys;

        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            static TARGET: std::sync::LazyLock<&$crate::targets::Target> =
                std::sync::LazyLock::new(|| $crate::targets::named($name));
            let _either = TARGET.check(bytes);
        });
    };
}
