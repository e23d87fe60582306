//! PowerPC of 32 bits, big-endian.

use core::arch::asm;

pub const WRITE: usize = 4;
pub const EXIT_GROUP: usize = 234;

/// The kernel's entry: the stack is as the calling convention has it.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    crate::main()
}

/// # Safety
/// The kernel's.
pub unsafe fn system_call(number: usize, first: usize, second: usize, third: usize) {
    // SAFETY: the caller's; the kernel leaves the other registers as they are.
    unsafe {
        asm!("sc", inlateout("r0") number => _, inlateout("r3") first => _, inlateout("r4") second => _,
             inlateout("r5") third => _, lateout("r6") _, lateout("r7") _, lateout("r8") _, lateout("r9") _,
             lateout("r10") _, lateout("r11") _, lateout("r12") _, lateout("cr0") _, options(nostack));
    }
}
