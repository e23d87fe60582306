//! A validation as one page of HTML: without scripts, without anything from elsewhere, for the screen and for paper.
//!
//! [`CasePictures`] gathers what a head looks like while the suite judges it, so that only the pictures of it stay in memory;
//! [`Environment`] says where it was computed; [`page()`] writes both down beside the figures of the
//! [`Report`](crate::suite::Report). Every figure is there rounded, for people, and in full in the `value` of its `data` element.

mod chart;
mod environment;
mod page;
mod pictures;

pub use environment::Environment;
pub use page::page;
pub use pictures::CasePictures;
