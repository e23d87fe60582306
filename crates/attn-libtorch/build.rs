//! With feature `required`: no build without the right libtorch.

#[path = "src/find.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of the library")]
mod find;

use std::{env, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/find.rs");
    println!("cargo::rerun-if-changed=libtorch.txt");
    if env::var_os("CARGO_FEATURE_REQUIRED").is_none() {
        return;
    }
    for variable in find::VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let installed = workspace.canonicalize().unwrap_or(workspace).join("target/libtorch");
    match find::find(&installed) {
        Ok(libtorch) => {
            // What is installed in its place is looked at again.
            println!("cargo::rerun-if-changed={}", libtorch.header.display());
            println!("cargo::rustc-env=ATTN_LIBTORCH_VERSION={}", libtorch.version);
            println!("cargo::rustc-env=ATTN_LIBTORCH_LIB={}", libtorch.lib.display());
        }
        // Fails the build.
        Err(sentence) => println!("cargo::error={sentence}"),
    }
}
