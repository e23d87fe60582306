//! RISC-V of 32 bits, without floating-point instructions.

use core::arch::asm;

pub const WRITE: usize = 64;
pub const EXIT_GROUP: usize = 94;

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
        asm!("ecall", in("a7") number, inlateout("a0") first => _, in("a1") second, in("a2") third, options(nostack));
    }
}
