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
    /// The open loops. Loops are numbered in the order in which they begin, from 1.
    loops: Vec<u32>,
    /// For each local, the innermost loop of its last mention.
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
        self.mentioned.clear();
        let (mut calls, mut loops) = (0, 0);
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            match operators.read()? {
                Operator::Loop { .. } => {
                    loops += 1;
                    self.loops.push(loops);
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
