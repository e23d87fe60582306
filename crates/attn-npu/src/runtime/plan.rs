//! Which objects of which heads go into which dispatch.
//!
//! A dispatch has *places*: each has room for some query objects, and for the blocks of the keys and values that they attend to. A
//! tile is a place of one query object and one block; a sequence design has a place for each of its heads. A place takes query
//! objects of any heads that share their keys and values.

use std::ops::Range;

use crate::{
    design::{Design, Form, Rounds},
    layout::MAX_QUERIES,
};

/// What a dispatch of a design has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Places.
    pub(super) places: usize,
    /// Query objects of a place.
    pub(super) queries: usize,
    /// Blocks of a place.
    pub(super) blocks: usize,
    /// Whether a place is one object: queries, and the block behind them.
    pub(super) joined: bool,
}

impl Room {
    pub(super) fn of(design: &Design) -> Self {
        match design.form {
            Form::Tiles { per_core } => Self { places: design.cores() * per_core, queries: 1, blocks: 1, joined: true },
            Form::Sequence { heads, queries, keys } => {
                let Rounds { passes, blocks, .. } = Rounds::of(design, heads, queries, keys);
                Self { places: heads, queries: passes * design.rows, blocks, joined: false }
            }
        }
    }
}

/// The shape of what is to be attended, and how it is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    room: Room,
    /// Queries of a head.
    queries: usize,
    /// Heads that share keys and values.
    group: usize,
    kv_heads: usize,
}

/// A query object: queries of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) head: usize,
    pub(super) queries: Range<usize>,
}

impl Plan {
    pub(super) const fn new(room: Room, heads: usize, kv_heads: usize, queries: usize) -> Self {
        Self { room, queries, group: heads / kv_heads, kv_heads }
    }

    /// Heads of queries.
    pub(super) const fn heads(&self) -> usize {
        self.group * self.kv_heads
    }

    /// Query objects of a head.
    const fn pieces(&self) -> usize {
        self.queries.div_ceil(MAX_QUERIES)
    }

    /// Places that the heads which share keys and values take.
    const fn places_of_a_group(&self) -> usize {
        (self.group * self.pieces()).div_ceil(self.room.queries)
    }

    /// Dispatches that it takes.
    pub(super) const fn dispatches(&self) -> usize {
        (self.kv_heads * self.places_of_a_group()).div_ceil(self.room.places)
    }

    /// The places of a dispatch that are used: the head of keys and values, and its query objects, of each.
    pub(super) fn places(&self, dispatch: usize) -> impl Iterator<Item = (usize, impl Iterator<Item = Piece>)> {
        let plan = *self;
        let all = self.kv_heads * self.places_of_a_group();
        let first = dispatch * self.room.places;
        (first..all.min(first + self.room.places)).map(move |place| {
            let (kv_head, place) = (place / plan.places_of_a_group(), place % plan.places_of_a_group());
            let all = plan.group * plan.pieces();
            let first = place * plan.room.queries;
            let pieces = (first..all.min(first + plan.room.queries)).map(move |piece| {
                let (head, piece) = (kv_head * plan.group + piece / plan.pieces(), piece % plan.pieces());
                let first = piece * MAX_QUERIES;
                Piece { head, queries: first..plan.queries.min(first + MAX_QUERIES) }
            });
            (kv_head, pieces)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every query of every head is in one place, with the keys and values of its head, whatever the room.
    #[test]
    fn every_query_has_a_place() {
        for (places, queries) in [(1, 1), (16, 1), (1024, 1), (1, 4), (8, 24), (3, 5)] {
            let room = Room { places, queries, blocks: 1, joined: false };
            for (group, kv_heads, rows) in
                [(1, 1, 1), (1, 8, 1500), (4, 2, 65), (8, 3, 1), (1, 40, 64), (2, 1, 1537), (3, 5, 0)]
            {
                let heads = group * kv_heads;
                let plan = Plan::new(room, heads, kv_heads, rows);
                let mut seen = vec![0; heads * rows];
                for dispatch in 0..plan.dispatches() {
                    let mut used = 0;
                    for (kv_head, pieces) in plan.places(dispatch) {
                        used += 1;
                        let pieces: Vec<_> = pieces.collect();
                        assert!((1..=queries).contains(&pieces.len()));
                        for Piece { head, queries } in pieces {
                            assert_eq!(head / group, kv_head);
                            assert!(!queries.is_empty() && queries.len() <= MAX_QUERIES);
                            queries.for_each(|query| seen[head * rows + query] += 1);
                        }
                    }
                    assert!((1..=places).contains(&used), "{room:?} {plan:?}");
                }
                assert!(seen.iter().all(|&times| times == 1), "{room:?} {plan:?}");
            }
        }
    }

    #[test]
    fn a_layer_of_whisper_is_one_dispatch() {
        let room = Room::of(&Design::standard("whisper-base").expect("a design"));
        assert_eq!(room, Room { places: 8, queries: 24, blocks: 24, joined: false });
        assert_eq!(Plan::new(room, 8, 8, 1500).dispatches(), 1);
        let room = Room::of(&Design::standard("tiles-array").expect("a design"));
        assert_eq!(room, Room { places: 1024, queries: 1, blocks: 1, joined: true });
        assert_eq!(Plan::new(room, 8, 8, 1500).dispatches(), 1);
    }
}
