//! A program without a standard or C library: exit status 0 if all that is compared has the expected bits.
#![no_std]
#![no_main]

use core::{fmt, panic::PanicInfo};

#[cfg_attr(all(target_os = "none", target_arch = "arm"), path = "platform/cortex_m.rs")]
#[cfg_attr(not(all(target_os = "none", target_arch = "arm")), path = "platform/linux.rs")]
mod platform;

/// Where each platform's `_start` goes.
extern "C" fn main() -> ! {
    platform::exit(attn_embedded::compare(&mut Console) == Ok(true))
}

struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        platform::write(text.as_bytes());
        Ok(())
    }
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
