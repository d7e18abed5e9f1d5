//! The pass over an upload that comes before the compiler: any bytes are taken or refused, without a panic, in time and memory
//! in proportion to them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = aster_host::sandbox::check_upload(bytes) {
        let said = error.to_string();
        assert!(said.len() < 2_000 && !said.contains('\n'), "{said}");
    }
});
