//! What the vector kernel does on the host model of an AIE2 core, counted: a lower bound of what a core needs.
#![allow(unsafe_code, reason = "functions in C++")]

use std::ops::Sub;

/// Instructions of the core, by what they occupy; `kernels/host_model` says of each operation what it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Multiplications of vectors.
    pub mac: u64,
    /// Additions, maxima, comparisons, selections, logic.
    pub alu: u64,
    /// Between accumulators and vectors, with shift, rounding and saturation.
    pub convert: u64,
    /// Permutations and broadcasts.
    pub shuffle: u64,
    /// Between registers.
    pub moves: u64,
    /// Of 256 bits.
    pub load: u64,
    /// Of 256 bits.
    pub store: u64,
    /// Arithmetic of 32 bits that is done once per row; loops and addresses are not counted.
    pub scalar: u64,
}

#[cfg(aie2_model)]
unsafe extern "C" {
    safe fn model_operations_read() -> Operations;
    pub(crate) fn model_forget_modes();
}

impl Operations {
    /// What the vector kernel did on this thread while `f` ran; nothing where it was not compiled.
    #[cfg_attr(not(aie2_model), expect(clippy::missing_const_for_fn, reason = "as where there is something to do"))]
    pub fn of(f: impl FnOnce()) -> Self {
        #[cfg(aie2_model)]
        {
            let before = model_operations_read();
            f();
            model_operations_read() - before
        }
        #[cfg(not(aie2_model))]
        {
            f();
            Self::default()
        }
    }

    /// Everything that the vector unit does.
    #[must_use]
    pub const fn vector(&self) -> u64 {
        self.mac + self.alu + self.convert + self.shuffle
    }

    /// Cycles that a core needs at least: each starts at most one operation of the vector unit, one move, two loads, one store
    /// and one operation of the scalar unit. No latency, no dependency, no memory bank and no register file is counted.
    #[must_use]
    pub fn least_cycles(&self) -> u64 {
        [self.vector(), self.moves, self.load.div_ceil(2), self.store, self.scalar].into_iter().max().unwrap_or(0)
    }
}

impl Sub for Operations {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            mac: self.mac - other.mac,
            alu: self.alu - other.alu,
            convert: self.convert - other.convert,
            shuffle: self.shuffle - other.shuffle,
            moves: self.moves - other.moves,
            load: self.load - other.load,
            store: self.store - other.store,
            scalar: self.scalar - other.scalar,
        }
    }
}
