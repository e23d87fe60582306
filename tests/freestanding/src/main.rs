//! A program without a standard or C library: exit status 0 if attention gives the expected bits.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

#[cfg_attr(all(target_os = "linux", target_arch = "x86_64"), path = "linux_x86_64.rs")]
#[cfg_attr(all(target_os = "none", target_arch = "arm"), path = "cortex_m.rs")]
mod platform;

/// Where each platform's `_start` goes.
extern "C" fn main() -> ! {
    platform::exit(freestanding::outputs() == Some(freestanding::EXPECTED))
}

/// Defined nowhere: a program in which any panic is reachable does not link.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn attn_panic_is_reachable() -> !;
    }
    // SAFETY: there is no such function, hence no program that calls it.
    unsafe { attn_panic_is_reachable() }
}
