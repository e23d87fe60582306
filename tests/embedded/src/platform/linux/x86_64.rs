//! x86-64, where nothing of the compiler's own stands in for the C library.

use core::arch::{asm, naked_asm};

pub const WRITE: usize = 1;
pub const EXIT_GROUP: usize = 231;

/// The kernel's entry: the stack is aligned to 16 bytes, as it must be before a call.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "call {main}", main = sym crate::main)
}

/// # Safety
/// The kernel's.
pub unsafe fn system_call(number: usize, first: usize, second: usize, third: usize) {
    // SAFETY: the caller's; the kernel leaves the other registers as they are.
    unsafe {
        asm!("syscall", inlateout("rax") number => _, in("rdi") first, in("rsi") second, in("rdx") third,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
}

// The compiler replaces loops and copies by calls of these, and leaves them to the C library. A string instruction,
// because a loop would be replaced by a call of itself.

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller grants `len` bytes at `to`; the direction flag is clear by the calling convention.
    unsafe { asm!("rep stosb", inout("rdi") to => _, inout("rcx") len => _, in("al") byte as u8, options(nostack)) }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller grants `len` bytes at `to` and at `from`; the direction flag is clear by the calling convention.
    unsafe { asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _, options(nostack)) }
    to
}
