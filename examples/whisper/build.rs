//! The program has to find libtorch when it runs: `torch-sys` can set the path for its own programs only.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", attn_libtorch::LIB);
}
