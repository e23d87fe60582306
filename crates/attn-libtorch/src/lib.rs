//! Finds the libtorch that `torch-sys` builds with, and checks that it is the one that `tch` is made for.
//!
//! With feature `required` the build script does it, and `VERSION` and `LIB` are the result: the build fails with one
//! sentence that says what is needed and how to get it. Without, [`find()`] is left, for `cargo xtask libtorch`.
//!
//! A crate of its own, for the sentence has to come before the errors of a C++ compiler. `torch-sys` cannot depend on
//! this crate, but cargo first builds what most others depend on. In a build of `attn` that is this crate, as long as it
//! has no dependencies and the build scripts of both `attn` and `attn-ref` take `LIB` from it; where `attn-ref` is built
//! alone, the C++ compiler may be first.
#![forbid(unsafe_code)]

mod find;

pub use find::{Libtorch, REQUIREMENTS, VARIABLES, find, is_users_own, required};

/// The version of libtorch, `MAJOR.MINOR.PATCH`, as its headers have it.
#[cfg(feature = "required")]
pub const VERSION: &str = env!("ATTN_LIBTORCH_VERSION");

/// The folder of its shared libraries, for a program's run path.
#[cfg(feature = "required")]
pub const LIB: &str = env!("ATTN_LIBTORCH_LIB");
