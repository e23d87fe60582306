// What the core of an AIE-ML does not have must not compile: each CASE from 1 on. CASE 0 is what does, so that a failure means
// something.
#include <aie_api/aie.hpp>

using aie::accum, aie::mmul, aie::vector;

vector<int8, 32> a8;
vector<int8, 64> b8;
vector<int16, 32> a16;
vector<uint16, 32> u16;
vector<int32, 16> a32;
vector<int32, 32> b32;
accum<acc32, 32> sum32;
accum<acc64, 16> sum64;
aie::mask<32> mask;

void test() {
#if CASE == 0
    mmul<4, 8, 8, int8, int8> product;
    product.mac(a8, b8);
    aie::mac(sum32, a16, u16);
    aie::mul<acc64>(a32, aie::vector<int16, 16>());
    sum32.to_vector<uint8>(1);
    sum64.to_vector<int32>(1);
    aie::select(a16, a16, mask);
#elif CASE == 1
    mmul<8, 8, 4, int8, int8> made_of_several; // [U] group_mmul: footnotes a and b
#elif CASE == 2
    mmul<4, 8, 8, int16, int8> too_wide; // 512 multiplications of 16 x 8
#elif CASE == 3
    mmul<4, 8, 8, int16, int16> too_wide;
#elif CASE == 4
    mmul<4, 4, 8, int32, int8> unknown;
#elif CASE == 5
    mmul<4, 8, 8, int8, int8> product;
    product.mac(b8, a8); // operands the other way round
#elif CASE == 6
    aie::mac(sum64, a16, a16); // 32 lanes of 64 bits are more than an accumulator
#elif CASE == 7
    aie::mul<acc64>(a32, a32); // 32 x 32 bits are emulated
#elif CASE == 8
    sum32.to_vector<int16>(a16); // a shift for each lane
#elif CASE == 9
    aie::mul<acc32>(a8, a8); // element by element, 8 bits are padded with zeros
#elif CASE == 10
    sum64.to_vector<int8>(1); // two instructions
#elif CASE == 11
    vector<int8, 24> odd;
#elif CASE == 12
    vector<int64_t, 8> wide;
#elif CASE == 13
    accum<acc32, 64> two_registers;
#elif CASE == 14
    sum32 = accum<acc32, 32>(a8); // 8 bits into 32: not there, only 8 into 16
#elif CASE == 15
    aie::select(a16, u16, mask); // of two types
#elif CASE == 16
    aie::select(a32, a32, mask); // a mask of another length
#elif CASE == 17
    sum64.cast_to<acc32>(); // of another width
#elif CASE == 18
    aie::lt(a32, a32); // not modelled, so not used
#elif CASE == 19
    aie::add(sum32, sum64);
#elif CASE == 20
    a32 = aie::max(a32, b32);
#else
#error "no such case"
#endif
}
