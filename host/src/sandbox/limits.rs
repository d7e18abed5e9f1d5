//! Limits on the memory and the tables of a call.

use wasmtime::ResourceLimiter;

use super::engine::MAX_TABLE_ELEMENTS;

/// Counts over all memories and all tables of one call.
#[derive(Debug)]
pub(super) struct Limits {
    max_memory_bytes: u64,
    memory_bytes: u64,
    table_elements: usize,
}

/// A guest asked for more memory than its step may have. This ends the call, since few programs can continue without.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("needs {wanted} of memory, more than the limit of {limit}", wanted = bytes(*wanted), limit = bytes(*limit))]
pub(super) struct MemoryExceeded {
    wanted: u64,
    limit: u64,
}

impl Limits {
    pub(super) fn new(max_memory_bytes: u64) -> Self {
        Self { max_memory_bytes, memory_bytes: 0, table_elements: 0 }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The growth exceeds the memory's own maximum. Then `memory.grow` returns -1, as the guest's author expects.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current) as u64;
        let wanted = self.memory_bytes.saturating_add(more);
        if wanted > self.max_memory_bytes {
            return Err(MemoryExceeded { wanted, limit: self.max_memory_bytes }.into());
        }
        self.memory_bytes = wanted;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.table_elements.saturating_add(desired.saturating_sub(current));
        let fits = wanted <= MAX_TABLE_ELEMENTS;
        if fits {
            self.table_elements = wanted;
        }
        Ok(fits)
    }
}

/// Formats a number of bytes for people.
pub(super) fn bytes(n: u64) -> String {
    const MIB: u64 = 1 << 20;
    const KIB: u64 = 1 << 10;
    match n {
        n if n >= MIB && n.is_multiple_of(MIB) => format!("{} MiB", n / MIB),
        n if n >= 10 * MIB => format!("{:.1} MiB", n as f64 / MIB as f64),
        n if n >= KIB && n.is_multiple_of(KIB) => format!("{} KiB", n / KIB),
        n => format!("{n} bytes"),
    }
}
