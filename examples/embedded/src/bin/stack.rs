//! How much stack attention uses: what lies below the stack pointer is painted, and looked at afterwards.
#![no_std]
#![no_main]

use core::hint::black_box;

use attn_embedded_example as _;
use attn_fixed::{Inputs, Mask, Parameters, Scales, attend, attend_tile, scratch_len};
use cortex_m::register::msp;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};

const PAINT: u32 = 0x5aa5_a55a;

/// Bytes below the stack pointer that are painted.
const PAINTED: u32 = 64 << 10;

/// Bytes of stack that `work` uses at its deepest.
#[inline(never)]
fn stack(work: &mut dyn FnMut()) -> u32 {
    let top = msp::read();
    let words = || (top - PAINTED..top).step_by(4).map(|address| address as *mut u32);
    // SAFETY: the RAM is larger, and nothing is below the stack pointer: there are no interrupts, and no statics so far up.
    words().for_each(|word| unsafe { word.write_volatile(PAINT) });
    work();
    // SAFETY: as above.
    let untouched = words().take_while(|word| unsafe { word.read_volatile() } == PAINT).count();
    assert!(untouched > 0, "more than is painted");
    PAINTED - 4 * untouched as u32
}

#[entry]
fn main() -> ! {
    let tensor = black_box([[1; 64]; 64]);
    let mut out = [[0; 64]; 64];
    let mut scratch = [0; scratch_len(64)];
    let scales = Scales { query: 0.02, key: 0.02, value: 0.02, out: 0.02 };
    let Ok(parameters) = black_box(Parameters::new(64, scales)) else { panic!("scales in range") };
    let mask = Mask::new();

    let tile = stack(&mut || _ = black_box(attend_tile(&parameters, &tensor, &tensor, &tensor, &mask, &mut out)));
    let flat = tensor.as_flattened();
    let inputs = Inputs { query: flat, key: flat, value: flat };
    let sequence =
        stack(&mut || _ = black_box(attend(&parameters, inputs, &mask, &mut scratch, out.as_flattened_mut())));
    hprintln!("stack of attend_tile: {}", tile);
    hprintln!("stack of attend: {}", sequence);
    hprintln!("scratch memory: {}", size_of_val(&scratch));
    debug::exit(debug::EXIT_SUCCESS);
    loop {}
}
