//! The tests that link libtorch have to find it when they run: `torch-sys` can set the path for its own programs only.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "torch")]
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", attn_libtorch::LIB);
}
