//! The objects of a dispatch, in its buffers.

use attn_fixed::{BLOCK, Head, Heads, Inputs, Mask, Parameters};

use super::{
    Work,
    plan::{Piece, Room},
    xrt::Buffer,
};
use crate::layout::{self, Line, MAX_QUERIES, PARAMETERS_BYTES, Shape, block_bytes, query_bytes};

/// How a design's buffers are divided, in lines.
#[derive(Clone, Copy)]
pub(super) struct Objects {
    room: Room,
    /// Columns that are stored.
    dim: usize,
    query: usize,
    block: usize,
    out: usize,
}

impl Objects {
    pub(super) const fn new(room: Room, dim: usize) -> Self {
        const LINE: usize = size_of::<Line>();
        let shape = Shape::new(MAX_QUERIES, dim);
        let query = (PARAMETERS_BYTES + query_bytes(shape)) / LINE;
        Self { room, dim, query, block: block_bytes(shape) / LINE, out: query_bytes(shape) / LINE }
    }

    /// Bytes of the buffers, in the order of the design's arguments; the last one is the output.
    pub(super) fn bytes(self) -> Vec<usize> {
        self.bytes_of(self.room.places)
    }

    /// Bytes of the first places in each buffer.
    pub(super) fn bytes_of(self, places: usize) -> Vec<usize> {
        let Room { queries, blocks, joined, .. } = self.room;
        let lines = if joined {
            vec![places * (self.query + self.block), places * self.out]
        } else {
            vec![places * queries * self.query, places * blocks * self.block, places * queries * self.out]
        };
        lines.into_iter().map(|lines| lines * size_of::<Line>()).collect()
    }

    /// Writes the objects of a dispatch: query objects that it does not use are empty, and nothing looks at blocks that it does not. The
    /// places from `filled` on are empty already. Returns the places that were written.
    pub(super) fn pack(self, data: &mut [Buffer], heads: Heads<'_>, work: Work, filled: usize) -> usize {
        let dim = work.dim;
        let group = heads.parameters.len() / heads.kv_heads;
        let written = filled.max(work.plan.places(work.dispatch).count());
        let mut used = work.plan.places(work.dispatch);
        for place in 0..written {
            let (kv_head, mut pieces) =
                used.next().map_or((None, None), |(kv_head, pieces)| (Some(kv_head), Some(pieces)));
            let kv = kv_head.map(|kv_head| heads.head(kv_head * group).inputs);
            let keys = kv.map_or(0, |kv| kv.key.len() / dim);
            // What a block is packed behind, of a tile.
            let mut behind = 0;
            for number in 0..self.room.queries {
                let object = self.query(data, place, number);
                behind = match pieces.as_mut().and_then(Iterator::next) {
                    None => layout::pack_no_query(object, self.dim),
                    Some(Piece { head, queries }) => {
                        let Head { parameters, mask, inputs } = heads.head(head);
                        let query = &inputs.query[queries.start * dim..queries.end * dim];
                        layout::pack_query(object, self.dim, parameters, mask, queries.start, keys, query)
                    }
                };
            }
            if let Some(Inputs { key, value, .. }) = kv {
                for (number, (key, value)) in key.chunks(BLOCK * dim).zip(value.chunks(BLOCK * dim)).enumerate() {
                    layout::pack_block(self.block(data, place, number, behind), self.dim, dim, key, value);
                }
            }
        }
        written
    }

    /// Writes 64 of twice as many queries into each query object, from those on that `first` says of its number, and the same keys and
    /// values for all of them.
    pub(super) fn pack_everywhere(
        self,
        data: &mut [Buffer],
        parameters: &Parameters,
        inputs: Inputs<'_>,
        first: impl Fn(usize) -> usize,
    ) {
        let Inputs { query, key, value } = inputs;
        let (dim, keys) = (self.dim, key.len() / self.dim);
        for place in 0..self.room.places {
            let mut behind = 0;
            for number in 0..self.room.queries {
                let query = &query[first(place * self.room.queries + number) * dim..][..MAX_QUERIES * dim];
                let object = self.query(data, place, number);
                behind = layout::pack_query(object, dim, parameters, &Mask::new(), 0, keys, query);
            }
            for (number, (key, value)) in key.chunks(BLOCK * dim).zip(value.chunks(BLOCK * dim)).enumerate() {
                layout::pack_block(self.block(data, place, number, behind), dim, dim, key, value);
            }
        }
    }

    /// Reads the outputs of a dispatch, into those of all heads. Returns the queries that it was.
    pub(super) fn unpack(self, data: &[Buffer], work: Work, out: &mut [i8]) -> usize {
        let Work { plan, dispatch, queries: rows, dim } = work;
        let mut done = 0;
        for (place, (_, pieces)) in plan.places(dispatch).enumerate() {
            for (number, Piece { head, queries }) in pieces.enumerate() {
                let rows = &mut out[head * rows * dim..][queries.start * dim..queries.end * dim];
                layout::unpack(self.output(data, place * self.room.queries + number), self.dim, dim, rows);
                done += queries.len();
            }
        }
        done
    }

    /// The output of a query object.
    pub(super) fn output(self, data: &[Buffer], object: usize) -> &[Line] {
        let output = data.last().expect("an output").lines();
        &output[object * self.out..][..self.out]
    }

    /// Where a query object of a place goes.
    fn query(self, data: &mut [Buffer], place: usize, number: usize) -> &mut [Line] {
        let stride = self.query + if self.room.joined { self.block } else { 0 };
        let object = place * self.room.queries + number;
        &mut data[0].lines_mut()[object * stride..][..self.query]
    }

    /// Where a block of a place goes: of a tile, right behind so many lines of queries.
    fn block(self, data: &mut [Buffer], place: usize, number: usize, behind: usize) -> &mut [Line] {
        let (buffer, first) = if self.room.joined {
            (0, place * (self.query + self.block) + behind)
        } else {
            (1, (place * self.room.blocks + number) * self.block)
        };
        &mut data[buffer].lines_mut()[first..][..self.block]
    }
}
