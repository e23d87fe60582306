//! An Arm Cortex-M under a debugger or emulator that offers semihosting.

use core::arch::asm;

/// The reset vector; the processor has set the stack pointer, and there are no statics to initialise.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    crate::main()
}

/// The vector of every fault.
#[unsafe(no_mangle)]
extern "C" fn fault() -> ! {
    exit(false)
}

/// `SYS_WRITEC`, byte by byte.
pub fn write(text: &[u8]) {
    for byte in text {
        // SAFETY: the call reads the byte.
        unsafe { asm!("bkpt #0xab", inout("r0") 0x3 => _, in("r1") byte, options(nostack, readonly)) }
    }
}

/// `SYS_EXIT` with the reason "application exit" or "run-time error".
pub fn exit(success: bool) -> ! {
    let reason = if success { 0x20026 } else { 0x20023 };
    // SAFETY: the call ends the emulation.
    unsafe { asm!("bkpt #0xab", in("r0") 0x18, in("r1") reason, options(noreturn)) }
}
