// The host model against what the documentation says of each function, in numbers. With an argument: breaks a rule of the core,
// which must end the program.
#include <aie_api/aie.hpp>

#include <stdio.h>
#include <stdlib.h>

namespace {

int failures = 0;

template <typename T, typename U>
void equal(T got, U expected, const char *what, int line) {
    if (static_cast<long long>(got) != static_cast<long long>(expected)) {
        printf("line %d: %s: got %lld, expected %lld\n", line, what, static_cast<long long>(got),
               static_cast<long long>(expected));
        ++failures;
    }
}
#define EQUAL(got, expected) equal(got, expected, #got, __LINE__)

template <typename T, unsigned N>
aie::vector<T, N> counting() {
    aie::vector<T, N> v;
    for (unsigned l = 0; l < N; ++l) {
        v.lanes[l] = static_cast<T>(l);
    }
    return v;
}

int16 shifted(int32 value, int shift, aie::rounding_mode rounding, aie::saturation_mode saturation) {
    aie::set_rounding(rounding);
    aie::set_saturation(saturation);
    return aie::accum<acc32, 16>(aie::broadcast<int32, 16>(value)).to_vector<int16>(shift).lanes[15];
}

void conversions() {
    constexpr auto floor = aie::rounding_mode::floor, positive_inf = aie::rounding_mode::positive_inf;
    constexpr auto none = aie::saturation_mode::none, saturate = aie::saturation_mode::saturate;
    EQUAL(shifted(7, 1, floor, saturate), 3);
    EQUAL(shifted(-7, 1, floor, saturate), -4);
    // Halves go up, also those below zero.
    EQUAL(shifted(7, 1, positive_inf, saturate), 4);
    EQUAL(shifted(-7, 1, positive_inf, saturate), -3);
    EQUAL(shifted(-6, 2, positive_inf, saturate), -1);
    EQUAL(shifted(5, 2, positive_inf, saturate), 1);
    EQUAL(shifted(32768, 0, floor, saturate), 32767);
    EQUAL(shifted(-32769, 0, floor, saturate), -32768);
    EQUAL(shifted(0x4b408001, 0, floor, none), -32767);
    EQUAL(shifted(-1, 31, positive_inf, saturate), 0);
    const auto up = aie::accum<acc32, 32>(aie::broadcast<int16, 32>(-3), 4);
    EQUAL(up.lanes[0], -48);
    const auto wide = aie::accum<acc64, 16>(aie::broadcast<int32, 16>(-3), 20);
    EQUAL(wide.lanes[0], -3ll << 20);
}

void products() {
    // Accumulators wrap in their own width.
    const auto largest = aie::accum<acc32, 32>(aie::broadcast<int32, 32>(2147483647));
    EQUAL(aie::mac(largest, aie::broadcast<int16, 32>(1), aie::broadcast<int16, 32>(1)).lanes[0], -2147483648ll);
    EQUAL(aie::mac(largest, aie::broadcast<int16, 32>(-1), aie::broadcast<uint16, 32>(65535)).lanes[0], 2147483647ll - 65535);
    EQUAL(aie::msc(largest, aie::broadcast<int16, 32>(2), aie::broadcast<int16, 32>(3)).lanes[31], 2147483641);
    EQUAL(aie::mul<acc64>(aie::broadcast<int32, 16>(1 << 30), aie::broadcast<int16, 16>(-32768)).lanes[0], -(1ll << 45));
    // Row by row: A[i][k] = 8 i + k, B[k][j] = 8 k + j.
    aie::mmul<4, 8, 8, int8, int8> product;
    product.mac(counting<int8, 32>(), counting<int8, 64>());
    const auto c = product.to_vector<int32>();
    for (unsigned i = 0; i < 4; ++i) {
        for (unsigned j = 0; j < 8; ++j) {
            unsigned expected = 0;
            for (unsigned k = 0; k < 8; ++k) {
                expected += (8 * i + k) * (8 * k + j);
            }
            EQUAL(c.lanes[8 * i + j], expected);
        }
    }
    aie::mmul<4, 8, 8, uint8, int8> sign;
    sign.mac(aie::broadcast<uint8, 32>(255), aie::broadcast<int8, 64>(-128));
    EQUAL(sign.to_vector<int32>().lanes[0], 8 * 255 * -128);
}

void shapes() {
    const auto v = counting<int32, 16>();
    auto w = v;
    for (auto &lane : w.lanes) {
        lane += 16;
    }
    const auto [even, odd] = aie::interleave_unzip(v, w, 4);
    const int evens[] = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
    for (unsigned l = 0; l < 16; ++l) {
        EQUAL(even.lanes[l], evens[l]);
        EQUAL(odd.lanes[l], evens[l] + 4);
    }
    EQUAL(aie::filter_even(v, 2).lanes[3], 5);
    EQUAL(aie::filter_odd(v, 2).lanes[3], 7);
    EQUAL(aie::filter_odd(v, 1).lanes[3], 7);
    EQUAL(aie::concat(v, w).lanes[17], 17);
    EQUAL(aie::concat(v, w).extract<8>(3).lanes[0], 24);
    const auto m = aie::mask<16>::from_uint32(2);
    EQUAL(aie::select(v, w, m).lanes[1], 17);
    EQUAL(aie::select(v, w, m).lanes[0], 0);
    EQUAL(aie::lt(aie::broadcast<int16, 32>(-1), counting<int16, 32>()).to_uint32(), 0xffffffffu);
    EQUAL(aie::max(v, aie::broadcast<int32, 16>(3)).lanes[2], 3);
}

// What one instruction is: [K] "Vector Initialization, Load, and Store" and the sizes named in aie.hpp.
void counts() {
    alignas(64) int32 memory[32] = {};
    model_reset();
    aie::set_rounding(aie::rounding_mode::floor);
    aie::set_saturation(aie::saturation_mode::none);
    const auto v = aie::load_v<32>(memory);        // 1024 bits
    aie::store_v(memory, v.extract<4>(0));         // 128
    const aie::accum<acc32, 32> sum(v);            // none: it comes from memory
    (void)sum.to_vector<int16>(1);                 // one conversion of 1024
    (void)aie::sub(sum, sum);                      // one of 1024
    (void)aie::max(v, v);                          // two of 512
    (void)aie::add(sum.cast_to<accfloat>(), sum.cast_to<accfloat>()); // two of 512
    (void)aie::broadcast<int32, 32>(0);            // two of 512
    (void)aie::mul<acc64>(v.extract<16>(0), aie::broadcast<int16, 16>(0)).to_vector<int32>(2); // two products, two shuffles
    (void)aie::concat(v.extract<8>(0), v.extract<8>(1)); // one move
    const auto got = model_operations_read();
    EQUAL(got.load, 4);
    EQUAL(got.store, 1);
    EQUAL(got.move, 1);
    EQUAL(got.srs, 2);
    EQUAL(got.ups, 0);
    EQUAL(got.accumulate, 3);
    EQUAL(got.alu, 2);
    EQUAL(got.shuffle, 5);
    EQUAL(got.mac, 2);
    EQUAL(got.scalar, 2);
    model_reset();
    model::scalar<int32_t> a = 3;
    a = (a + 1) * 2 - ((a << 1) > 4 ? 1 : 0);
    EQUAL(a, 7);
    EQUAL(model_operations_read().scalar, 5);
}

void break_a_rule(int rule) {
    alignas(64) static int8 memory[128];
    model_reset();
    aie::set_rounding(aie::rounding_mode::floor);
    const aie::accum<acc32, 32> sum(aie::broadcast<int32, 32>(1));
    switch (rule) {
    case 1:
        (void)aie::load_v<32>(memory + 16);
        break;
    case 2:
        aie::store_v(memory + 8, aie::broadcast<int8, 16>(0));
        break;
    case 3:
        (void)sum.to_vector<int16>(0); // the saturation mode was not set
        break;
    case 4:
        model_reset();
        aie::set_saturation(aie::saturation_mode::none);
        (void)sum.to_vector<int16>(0); // nor the rounding mode
        break;
    case 5:
        aie::set_saturation(aie::saturation_mode::none);
        (void)sum.to_vector<int16>(32);
        break;
    case 6:
        (void)sum.to_vector<int32>(1); // a move does not shift
        break;
    case 7:
        (void)counting<int32, 16>().get(16);
        break;
    case 8:
        (void)aie::filter_even(counting<int32, 16>(), 3);
        break;
    default:
        printf("no such rule\n");
        exit(3);
    }
}

} // namespace

int main(int argc, char **argv) {
    if (argc > 1) {
        break_a_rule(atoi(argv[1]));
        printf("rule %s was broken, and nothing happened\n", argv[1]);
        return 2;
    }
    conversions();
    products();
    shapes();
    counts();
    printf("%d of the host model's checks failed\n", failures);
    return failures == 0 ? 0 : 1;
}
