//! What the vector kernel does on the host model of an AIE2 core, counted: a lower bound of what a core needs.
#![allow(unsafe_code, reason = "functions in C++")]

use std::ops::Sub;

/// Instructions of the core, by what they occupy; `kernels/host_model` says of each operation what it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Multiplications of vectors.
    pub mac: u64,
    /// Additions of accumulators.
    pub accumulate: u64,
    /// Maxima, comparisons, selections, logic, additions of vectors.
    pub alu: u64,
    /// Permutations and broadcasts.
    pub shuffle: u64,
    /// Single elements, and parts of registers that are put together.
    pub moves: u64,
    /// Accumulators to vectors, with shift, rounding and saturation.
    pub srs: u64,
    /// Vectors to accumulators, with a shift.
    pub ups: u64,
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

    /// Cycles that a core needs at least. Of the slots of its instruction word, one takes products and additions of accumulators, one
    /// everything else that is done with vectors, one stores and conversions (which that other slot takes, too, and which
    /// can be one with the store), two take loads, one scalars. No latency, dependency, memory bank or register file is counted.
    #[must_use]
    pub fn least_cycles(&self) -> u64 {
        let products = self.mac + self.accumulate;
        let others = self.alu + self.shuffle + self.moves;
        let stores = self.store.max(self.srs);
        let both = (others + stores).div_ceil(2);
        [products, others, self.store, both, self.load.div_ceil(2), self.scalar].into_iter().max().unwrap_or(0)
    }

    /// The same if a core could start one operation on vectors a cycle, whatever it is: stricter than the core is.
    #[must_use]
    pub fn one_a_cycle(&self) -> u64 {
        let vector = self.mac + self.accumulate + self.alu + self.shuffle + self.srs + self.ups;
        [vector, self.moves, self.store, self.load.div_ceil(2), self.scalar].into_iter().max().unwrap_or(0)
    }
}

impl Sub for Operations {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            mac: self.mac - other.mac,
            accumulate: self.accumulate - other.accumulate,
            alu: self.alu - other.alu,
            shuffle: self.shuffle - other.shuffle,
            moves: self.moves - other.moves,
            srs: self.srs - other.srs,
            ups: self.ups - other.ups,
            load: self.load - other.load,
            store: self.store - other.store,
            scalar: self.scalar - other.scalar,
        }
    }
}
