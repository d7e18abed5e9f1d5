//! Bounds on the work that a single function makes for the compiler.

use wasmparser::{FunctionBody, Operator};

use super::{Bound, grouped};
use crate::sandbox::{UploadError, limits};

const MAX_FUNCTION_BYTES: usize = 4 << 20;
/// The specification's own limit. More locals are refused later; here they only must not take memory.
const MAX_LOCALS: usize = 50_000;

const FUNCTION_CALLS: Bound = Bound { what: "calls", most: 50_000, advice: "split the function" };
const FUNCTION_CARRIED: Bound = Bound {
    what: "locals that are carried through loops",
    most: 100_000,
    advice: "split the function, or build it with less inlining and unrolling",
};

/// The properties of a function, besides its length, that make its compilation long.
///
/// Cranelift gives the head of a loop a parameter for each local that is mentioned in the loop or in the loops within
/// it. Hundreds of nested loops with thousands of locals make millions of values out of a few kilobytes of code. So
/// pairs of a loop and a local are counted exactly.
#[derive(Default)]
pub(super) struct Body {
    /// The pairs of a loop and a local that is mentioned in it, in the last function that was read.
    pub(super) carried: u64,
    /// The number of functions before this one.
    number: u64,
    /// For each open block, whether it is a loop.
    blocks: Vec<bool>,
    /// The number of loops that have begun, in all functions.
    begun: u32,
    /// The open loops. Loops are numbered in the order in which they begin, from 1.
    loops: Vec<u32>,
    /// For each local, the innermost loop of its last mention. A loop of an earlier function counts as none, so that
    /// nothing has to be cleared: a function of a few bytes may mention local 50,000.
    mentioned: Vec<u32>,
}

impl Body {
    pub(super) fn read(&mut self, body: &FunctionBody<'_>) -> Result<(), UploadError> {
        let number = self.number;
        let of_function = |found: String, advice: &str| {
            Err(UploadError::TooComplex(format!("function {number} of its code has {found}: {advice}")))
        };
        if body.range().len() > MAX_FUNCTION_BYTES {
            let most = limits::bytes(MAX_FUNCTION_BYTES as u64);
            return of_function(format!("more than {most} of instructions"), FUNCTION_CALLS.advice);
        }
        let over = |bound: Bound| {
            of_function(format!("more than {} {}", grouped(bound.most), bound.what), bound.advice)
        };
        self.number += 1;
        self.carried = 0;
        self.blocks.clear();
        self.loops.clear();
        let mut calls = 0;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            match operators.read()? {
                Operator::Loop { .. } => {
                    self.begun += 1;
                    self.loops.push(self.begun);
                    self.blocks.push(true);
                }
                Operator::Block { .. }
                | Operator::If { .. }
                | Operator::TryTable { .. }
                | Operator::Try { .. } => self.blocks.push(false),
                Operator::End | Operator::Delegate { .. } => {
                    let was_loop = self.blocks.pop() == Some(true);
                    if was_loop {
                        self.loops.pop();
                    }
                }
                Operator::LocalGet { local_index }
                | Operator::LocalSet { local_index }
                | Operator::LocalTee { local_index } => self.mention(local_index as usize),
                Operator::Call { .. }
                | Operator::CallIndirect { .. }
                | Operator::ReturnCall { .. }
                | Operator::ReturnCallIndirect { .. } => calls += 1,
                _ => {}
            }
            if self.carried > FUNCTION_CARRIED.most {
                return over(FUNCTION_CARRIED);
            }
            if calls > FUNCTION_CALLS.most {
                return over(FUNCTION_CALLS);
            }
        }
        Ok(())
    }

    /// Counts the open loops that began after the last mention of the local. In all other open loops it was mentioned
    /// already.
    fn mention(&mut self, local: usize) {
        let Some(&innermost) = self.loops.last() else { return };
        if local > MAX_LOCALS {
            return;
        }
        if local >= self.mentioned.len() {
            self.mentioned.resize(local + 1, 0);
        }
        let last = std::mem::replace(&mut self.mentioned[local], innermost);
        let newer = self.loops.iter().rev().take_while(|began| **began > last).count();
        self.carried += newer as u64;
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::BinaryReader;

    use super::*;

    fn carried(body: &mut Body, instructions: &[u8]) -> u64 {
        let function = [b"\0".as_slice(), instructions, b"\x0b"].concat();
        body.read(&FunctionBody::new(BinaryReader::new(&function, 0))).expect("it is within the bounds");
        body.carried
    }

    #[test]
    fn pairs_of_a_loop_and_a_local_are_counted_in_each_function_anew() {
        let mut body = Body::default();
        // `loop`, `local.get`, `end`
        let once = b"\x03\x40\x20\x07\x0b";
        let nested = b"\x03\x40\x03\x40\x20\x07\x20\x07\x0b\x20\x07\x20\x00\x0b";
        let none = b"\x03\x40\x0b\x20\x07";
        for _ in 0..2 {
            assert_eq!(carried(&mut body, once), 1);
            // Local 7 in both loops, local 0 in the outer one.
            assert_eq!(carried(&mut body, nested), 3);
            assert_eq!(carried(&mut body, none), 0);
            assert_eq!(carried(&mut body, &once.repeat(5)), 5);
        }
    }

    #[test]
    fn a_function_costs_nothing_for_the_locals_of_others() {
        let mut body = Body::default();
        // `loop`, `local.get 50000`, `end`
        assert_eq!(carried(&mut body, b"\x03\x40\x20\xd0\x86\x03\x0b"), 1);
        assert_eq!(carried(&mut body, b"\x03\x40\x20\x00\x0b"), 1);
        assert_eq!(body.mentioned.len(), MAX_LOCALS + 1, "nothing is cleared");
    }
}
