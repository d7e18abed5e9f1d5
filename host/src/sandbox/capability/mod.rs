//! What a guest may import: one host interface per file, and the state of a call that they share.

mod context;
mod keyvalue;

use std::sync::Arc;

use aster_runner::call::Context;
use aster_runner::session::Session;
use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::limits::Limits;
use super::output::Capture;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "aster:step/imports",
        imports: {
            "aster:step/context": trappable,
            default: async | trappable,
        },
        with: { "wasi:keyvalue/store.bucket": super::keyvalue::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => super::keyvalue::Error },
    });
}

/// The interfaces that [`linker`] offers, for those who imported another one.
pub(super) const OFFERED: &[&str] = &[
    "aster:step/context@0.1.0",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:cli/*@0.2",
    "wasi:clocks/*@0.2",
    "wasi:filesystem/*@0.2",
    "wasi:io/*@0.2",
    "wasi:random/*@0.2",
    "wasi:sockets/*@0.2",
];

/// How many handles of any kind a guest may hold.
const MAX_HANDLES: usize = 10_000;
/// How many random bytes a guest gets at once: the host allocates them.
const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// All that the host keeps for one call.
pub(super) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(super) limits: Limits,
    pub(super) context: Context,
    component: Arc<str>,
    session: Session,
}

impl State {
    /// No file, no network, no environment, no input: WASI's clocks and randomness, and what is printed is captured.
    pub(super) fn new(
        limits: Limits,
        context: Context,
        component: Arc<str>,
        session: Session,
        stdout: Capture,
        stderr: Capture,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let wasi = WasiCtx::builder()
            .stdout(stdout)
            .stderr(stderr)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(MAX_RANDOM_BYTES)
            .build();
        Self { wasi, table, limits, context, component, session }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Everything that a component may import.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    bindings::Imports::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

pub(super) fn max_handles() -> usize {
    MAX_HANDLES
}
