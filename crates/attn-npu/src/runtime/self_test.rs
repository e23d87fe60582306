//! Before the first result: a tile that every core computes, against the specification.

use attn_fixed::{BLOCK, Inputs, Mask, Parameters, Scales, attend, scratch_len};

use super::{Session, SessionError, Work, plan::Plan};
use crate::layout::{self, MAX_QUERIES};

impl Session {
    /// Sends 64 queries to every core, as often as two dispatches have room for, each time in another order, so that outputs which are
    /// mixed up are found, too; and compares all of them.
    pub(super) fn self_test(&mut self) -> Result<(), SessionError> {
        let dim = self.design.dim;
        // Two blocks, the second one not whole, where there is room for two.
        let keys = if self.room.blocks > 1 { BLOCK + 37 } else { BLOCK };
        let [query, key, value] =
            [(1, MAX_QUERIES), (2, keys), (3, keys)].map(|(salt, rows)| numbers(salt, rows * dim));
        // Scores of some nats: softmax is neither flat nor one key, and some rows have keys that dominate.
        let scale = 0.18 / (dim as f32).sqrt().sqrt() / 8.0;
        let scales = Scales { query: scale, key: scale, value: 1.0, out: 0.5 };
        let parameters = Parameters::new(dim, scales).expect("in range");
        let mut expected = vec![0; query.len()];
        let inputs = Inputs { query: &query, key: &key, value: &value };
        attend(&parameters, inputs, &Mask::new(), &mut vec![0; scratch_len(dim)], &mut expected).expect("a valid head");
        // Rows do not see each other.
        let (query, expected) = (query.repeat(2), expected.repeat(2));
        let inputs = Inputs { query: &query, ..inputs };

        let (objects, capacity) = (self.objects, self.capacity());
        let first = |slot: usize| move |object: usize| (slot * capacity + object) % MAX_QUERIES;
        let work = Work { plan: Plan::new(self.room, 1, 1, MAX_QUERIES), dispatch: 0, queries: MAX_QUERIES, dim };
        for slot in 0..self.slots.len() {
            objects.pack_everywhere(&mut self.slots[slot].data, &parameters, inputs, first(slot));
            self.start(work, self.room.places, self.room.places)?;
        }
        let len = MAX_QUERIES * dim;
        let mut got = vec![0; len];
        let (mut wrong, mut found) = (0, None);
        for slot in 0..self.slots.len() {
            self.end(slot)?;
            for object in 0..capacity {
                layout::unpack(objects.output(&self.slots[slot].data, object), dim, dim, &mut got);
                let expected = &expected[first(slot)(object) * dim..][..len];
                let differ = got.iter().zip(expected).enumerate().filter(|(_, (got, expected))| got != expected);
                for (at, (&got, &expected)) in differ {
                    wrong += 1;
                    found.get_or_insert(((object, at / dim, at % dim), got, expected));
                }
            }
        }
        let of = self.slots.len() * capacity * len;
        match found {
            None => Ok(()),
            Some((at, got, expected)) => Err(SessionError::WrongResult { wrong, of, at, got, expected }),
        }
    }
}

/// Numbers of 8 bits that look like noise, the extremes among them.
fn numbers(salt: u32, len: usize) -> Vec<i8> {
    let mut state = 0x9e37_79b9_u32.wrapping_mul(salt);
    let next = || {
        // Knuth's generator, its upper bits.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as i8
    };
    std::iter::repeat_with(next).take(len).collect()
}
