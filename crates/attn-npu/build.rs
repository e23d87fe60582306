//! Compiles the NPU's kernels for this CPU, where there is a compiler for them: `cfg(kernel)`, `cfg(aie2_model)`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rustc-check-cfg=cfg(kernel, aie2_model)");
    if env::var_os("CARGO_FEATURE_XRT_SHIM").is_some() {
        xrt_shim();
    }
    if env::var_os("CARGO_FEATURE_XRT").is_some() {
        println!("cargo::rerun-if-changed=shim/xrt_register.cc");
        with_xrt().file("shim/xrt_register.cc").compile("attn_xrt_register");
        println!("cargo::rustc-link-lib=xrt_coreutil");
    }
    // The kernels read numbers as the machine has them, and the objects have them little-endian.
    if env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() != Ok("little") {
        println!("cargo::warning=no backend `kernel`: its objects are little-endian, this target is not");
        return;
    }

    let mut build = freestanding("attn_kernel_##name");
    build.file("kernels/attention_tile.c").file("kernels/host_functions.c");
    compile("kernel", build, "c11");

    let mut build = freestanding("attn_aie2_##name");
    build.cpp(true).cpp_link_stdlib(None).flag("-fno-exceptions").flag("-fno-rtti");
    // The kernel, and its steps by name.
    build
        .include("kernels/host_model")
        .file("kernels/host_model/kernel_functions.cc")
        .file("kernels/host_model/model.cc");
    compile("aie2_model", build, "c++20");
}

/// Optimised whatever the profile, as tests attend thousands of rows; with these names for the entry points.
fn freestanding(entry: &str) -> cc::Build {
    let mut build = cc::Build::new();
    build.flag("-ffreestanding").opt_level(3).define("ATTN_ENTRY(name)", entry);
    build
}

/// Compiles and says so by `cfg`. Without a compiler of this standard the backend says at run time that it is not there; what does
/// not compile with one fails the build.
fn compile(cfg: &str, mut build: cc::Build, standard: &str) {
    let runs =
        |tool: &cc::Tool| tool.to_command().arg("--version").output().is_ok_and(|output| output.status.success());
    let is_there = match build.try_get_compiler() {
        Ok(tool) => (tool.is_like_gnu() || tool.is_like_clang()) && runs(&tool),
        Err(_) => false,
    };
    if is_there && build.is_flag_supported(format!("-std={standard}")).unwrap_or(false) {
        build.std(standard).compile(cfg);
        println!("cargo::rustc-cfg={cfg}");
    } else {
        let backend = cfg.replace('_', "-");
        println!("cargo::warning=no gcc or clang that knows {standard}: built without backend `{backend}`");
    }
}

/// Where XRT's own packages are; Debian's are where the compiler looks.
const XRT: &str = "/opt/xilinx/xrt";

/// A compiler for what calls XRT.
fn with_xrt() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).warnings(true).extra_warnings(true).pic(true);
    build.include(format!("{XRT}/include"));
    build
}

/// The shared library over XRT, which is then part of the crate.
fn xrt_shim() {
    const SOURCE: &str = "shim/xrt_shim.cc";
    println!("cargo::rerun-if-changed={SOURCE}");
    let compiler = with_xrt().try_get_compiler().unwrap_or_else(|error| refuse(&format!("no C++ compiler: {error}")));
    let library = std::path::Path::new(&env::var_os("OUT_DIR").expect("set by cargo")).join("libattn_xrt_shim.so");
    let mut command = compiler.to_command();
    command.arg("-shared").arg("-o").arg(&library).arg(SOURCE).arg(format!("-L{XRT}/lib"));
    command.arg(format!("-Wl,-rpath,{XRT}/lib")).arg("-lxrt_coreutil");
    match command.status() {
        Ok(status) if status.success() => {}
        _ => refuse(
            "feature `xrt-shim`: the library over XRT did not compile: are XRT's headers installed? (on Debian: `apt-get install \
             libxrt-dev`)",
        ),
    }
}

fn refuse(why: &str) -> ! {
    println!("cargo::error={why}");
    std::process::exit(1)
}
