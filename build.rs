//! Programs that link libtorch have to find it when they run, and a build of the command without it says so.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "torch")]
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", attn_libtorch::LIB);
    #[cfg(all(feature = "cli", not(feature = "torch")))]
    println!(
        "cargo::warning=built without libtorch, the float reference; to have it: `cargo xtask libtorch`, then build with \
         `--features torch`"
    );
}
