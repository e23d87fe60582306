//! Linux on x86-64, by system calls alone.

use core::arch::{asm, naked_asm};

/// The kernel's entry: the stack is aligned to 16 bytes, as it must be before a call.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "call {main}", main = sym crate::main)
}

/// `exit_group(0)` or `exit_group(1)`.
pub fn exit(success: bool) -> ! {
    // SAFETY: the call ends the process.
    unsafe { asm!("syscall", in("rax") 231, in("rdi") u64::from(!success), options(noreturn)) }
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
