//! Bytes offered as a component: looking at them never panics, takes work within what the size allows, and lets through nothing that is
//! beyond the documented limits. A component that is valid is also described as WIT.

#![no_main]

mod grow;
mod instances;
mod mutate;

use std::panic::{self, AssertUnwindSafe};
use std::sync::LazyLock;
use std::time::Duration;

use aster_core::wit::Exports;
use aster_host::sandbox::{check_upload, wit_text};
use bytes::Bytes;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use wasmparser::Validator;

fuzz_target!(|upload: &[u8]| {
    let began = processor_time();
    let checked = check_upload(upload);
    let took = processor_time() - began;
    // 1 s for 64 KiB; an optimised build without instrumentation takes a hundredth of it.
    let allowed = Duration::from_millis(10) + Duration::from_micros(15) * upload.len() as u32;
    assert!(took <= allowed, "{took:?} for {} bytes", upload.len());
    if let Err(error) = &checked {
        let said = error.to_string();
        assert!(said.len() < 2_000 && !said.contains('\n'), "{said}");
        return;
    }
    let Ok(component) = instances::Part::read(upload) else { return };
    assert!(component.depth() <= 32, "components are nested {} deep", component.depth());
    assert!(component.parts() <= 1_000, "{} modules and components", component.parts());
    if Validator::new().validate_all(upload).is_err() {
        return;
    }
    if let Some(made) = component.instantiate() {
        assert!(made.core <= 64 && made.components <= 1_000, "{made:?}");
    }
    // On a thread with a stack as the host gives it. The decoder panics on some components: the host catches that.
    let text = wit_text(Bytes::copy_from_slice(upload), Exports::default());
    quietly(|| RUNTIME.block_on(text)).expect("the panic is caught").expect("it is described");
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::mutate(data, size, max_size, u64::from(seed))
});

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().max_blocking_threads(1).build().expect("threads can be had")
});

/// Runs what may panic: libFuzzer takes any panic for a finding, caught or not.
fn quietly<T>(run: impl FnOnce() -> T) -> Option<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    panic::set_hook(hook);
    result.ok()
}

/// Of this thread, so that others on the machine make no findings.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
