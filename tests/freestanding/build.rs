//! How the program is linked: without the C library, its start-up code, or anything that a loader would have to do.

fn main() {
    let arguments: &[&str] = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => &["-nostartfiles", "-nodefaultlibs", "-static", "-no-pie"],
        Ok("none") => &[concat!("-T", env!("CARGO_MANIFEST_DIR"), "/cortex_m.ld")],
        _ => &[],
    };
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cortex_m.ld");
}
