//! Compiles the NPU's kernels for this CPU, where there is a compiler for them: `cfg(kernel)`, `cfg(aie2_model)`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rustc-check-cfg=cfg(kernel, aie2_model)");
    // The kernels read numbers as the machine has them, and the objects have them little-endian.
    if env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() != Ok("little") {
        println!("cargo::warning=no backend `kernel`: its objects are little-endian, this target is not");
        return;
    }

    let mut build = freestanding("attn_kernel_##name");
    build.std("c11").file("kernels/attention_tile.c").file("kernels/host_functions.c");
    compile("kernel", &build);

    let mut build = freestanding("attn_aie2_##name");
    build.cpp(true).cpp_link_stdlib(None).std("c++20").flag("-fno-exceptions").flag("-fno-rtti");
    build.include("kernels/host_model").file("kernels/aie2/attention_tile.cc").file("kernels/host_model/model.cc");
    compile("aie2_model", &build);
}

/// Optimised whatever the profile, as tests attend thousands of rows; with these names for the entry points.
fn freestanding(entry: &str) -> cc::Build {
    let mut build = cc::Build::new();
    build.flag("-ffreestanding").opt_level(3).define("ATTN_ENTRY(name)", entry);
    build.extra_warnings(true).flag("-Wconversion").warnings_into_errors(true);
    build
}

/// Compiles and says so by `cfg`. Without a compiler the backend says at run time that it is not there; what does not compile
/// with one fails the build.
fn compile(cfg: &str, build: &cc::Build) {
    let runs =
        |tool: &cc::Tool| tool.to_command().arg("--version").output().is_ok_and(|output| output.status.success());
    match build.try_get_compiler() {
        Ok(tool) if (tool.is_like_gnu() || tool.is_like_clang()) && runs(&tool) => {
            build.compile(cfg);
            println!("cargo::rustc-cfg={cfg}");
        }
        _ => println!("cargo::warning=no gcc or clang: built without backend `{}`", cfg.replace('_', "-")),
    }
}
