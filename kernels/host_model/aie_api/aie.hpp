// The part of AMD's AIE API that kernels/aie2/attention_tile.cc uses, for the host: types, semantics, alignment, and what the
// core of an AIE-ML (AIE2, npu1) can do in one instruction.
//
// Written from the public documentation, named at each part by these letters:
//   [U]  AI Engine API User Guide (UG1529, AIE-API 2025.1), https://xilinx.github.io/aie_api, by its group
//   [K]  AI Engine-ML Kernel and Graph Programming Guide (UG1603)
//   [A]  Versal AIE-ML Architecture Manual (AM020)
//   [I]  AI Engine-ML Intrinsics User Guide (UG1583)
//   [P]  the headers of aie_api and llvm-aie, where the manuals do not say what an operation is made of
//
// What the documentation does not list for AIE-ML is not declared here, so that it does not compile. What the core would do
// differently from what the kernel means (an unaligned address, a shift that does not exist, a rounding mode that nobody set)
// ends the program.
#ifndef ATTN_HOST_MODEL_AIE_HPP
#define ATTN_HOST_MODEL_AIE_HPP

#include "../model.hpp"

#include <array>
#include <bit>
#include <limits>
#include <utility>

using int8 = int8_t;
using uint8 = uint8_t;
using int16 = int16_t;
using uint16 = uint16_t;
using int32 = int32_t;

// [U] group_basic_types_accum: tags, each with its native width on AIE-ML.
struct acc32 {
    using lane = int32_t;
};
struct acc64 {
    using lane = int64_t;
};
struct accfloat {
    using lane = float;
};

namespace aie {

// [U] group_basic_types, "Supported vector types and native sizes": 128 to 1024 bits.
template <typename T, unsigned N>
concept vector_shape = (std::same_as<T, int8> || std::same_as<T, uint8> || std::same_as<T, int16> || std::same_as<T, uint16> ||
                        std::same_as<T, int32>)&&(sizeof(T) * N * 8 == 128 || sizeof(T) * N * 8 == 256 || sizeof(T) * N * 8 == 512 || sizeof(T) * N * 8 == 1024);

// [U] group_basic_types, "Supported accumulator types and native sizes": of what they list, 256 to 1024 bits.
template <typename Tag, unsigned N>
concept accum_shape = (std::same_as<Tag, acc32> && (N == 8 || N == 16 || N == 32)) ||
                      (std::same_as<Tag, acc64> && (N == 4 || N == 8 || N == 16)) ||
                      (std::same_as<Tag, accfloat> && (N == 8 || N == 16 || N == 32));

// [U] group_modes. The modes hold until they are set again; what the core starts with is not documented.
enum class rounding_mode { unset, floor, positive_inf };
enum class saturation_mode { unset, none, saturate };

} // namespace aie

namespace model {

inline thread_local aie::rounding_mode rounding = aie::rounding_mode::unset;
inline thread_local aie::saturation_mode saturation = aie::saturation_mode::unset;

// Registers of `bits` bits that so many values of `width` bits fill, at least one.
constexpr unsigned registers(unsigned values, unsigned width, unsigned bits) {
    unsigned count = values * width / bits;
    return count == 0 ? 1 : count;
}

// [A] "Functional Overview", [K] "Vector Initialization, Load, and Store": 256 bits an access, aligned; half of it may be used.
template <unsigned Bytes>
void access(const void *pointer, uint64_t &counter) {
    check(reinterpret_cast<uintptr_t>(pointer) % (Bytes < 32 ? Bytes : 32) == 0, "a vector in memory is not aligned");
    counter += registers(Bytes, 8, 256);
}

// Shift, round, saturate: [I] "Shift-Round-Saturate", [U] group_modes.
template <typename T>
T shift_round_saturate(int64_t value, int shift) {
    int64_t shifted = value >> shift;
    if (rounding == aie::rounding_mode::positive_inf && shift > 0) {
        shifted += value >> (shift - 1) & 1;
    }
    if (saturation == aie::saturation_mode::saturate) {
        constexpr int64_t low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
        shifted = shifted < low ? low : shifted > high ? high : shifted;
    }
    return static_cast<T>(shifted);
}

} // namespace model

namespace aie {

inline void set_rounding(rounding_mode mode) {
    ++model::operations.scalar;
    model::rounding = mode;
}

inline void set_saturation(saturation_mode mode) {
    ++model::operations.scalar;
    model::saturation = mode;
}

// [U] group_basic_types.
template <typename T, unsigned N>
    requires vector_shape<T, N>
class vector {
public:
    using value_type = T;
    std::array<T, N> lanes;

    static constexpr unsigned size() { return N; }

    // One element, to the scalar unit: [I] "Extract/insert element".
    model::scalar<T> get(unsigned i) const {
        model::check(i < N, "an element that the vector does not have");
        ++model::operations.move;
        return lanes[i];
    }

    // A part of it: 256 bits are a register of their own, 128 bits behind the first are moved to one ([P] vector.hpp).
    template <unsigned M>
    vector<T, M> extract(unsigned i) const {
        model::check((i + 1) * M <= N, "a part that the vector does not have");
        model::operations.move += sizeof(T) * M < 32 && i > 0 ? 1 : 0;
        vector<T, M> part;
        for (unsigned l = 0; l < M; ++l) {
            part.lanes[l] = lanes[i * M + l];
        }
        return part;
    }
};

// [U] group_memory.
template <unsigned N, typename T>
vector<T, N> load_v(const T *pointer) {
    model::access<sizeof(T) * N>(pointer, model::operations.load);
    vector<T, N> loaded;
    for (unsigned l = 0; l < N; ++l) {
        loaded.lanes[l] = pointer[l];
    }
    return loaded;
}

template <typename T, unsigned N>
void store_v(T *pointer, const vector<T, N> &v) {
    model::access<sizeof(T) * N>(pointer, model::operations.store);
    for (unsigned l = 0; l < N; ++l) {
        pointer[l] = v.lanes[l];
    }
}

// [U] group_initialization; one broadcast fills 512 bits: [I] "Broadcast".
template <typename T, unsigned N>
vector<T, N> broadcast(std::type_identity_t<T> value) {
    model::operations.shuffle += model::registers(N, 8 * sizeof(T), 512);
    vector<T, N> all;
    all.lanes.fill(value);
    return all;
}

// [U] group_basic_types_initialization: parts side by side. Registers of 512 bits are read as one; smaller parts but the first are
// moved into their places ([P] vector.hpp).
template <typename T, unsigned N, typename... Vectors>
auto concat(const vector<T, N> &first, const Vectors &...rest) {
    constexpr unsigned count = 1 + sizeof...(rest);
    model::operations.move += sizeof(T) * N < 64 ? count - 1 : 0;
    vector<T, N * count> whole;
    unsigned at = 0;
    for (const vector<T, N> &part : {first, rest...}) {
        for (T x : part.lanes) {
            whole.lanes[at++] = x;
        }
    }
    return whole;
}

// [U] group_basic_types_accum, group_basic_types_conversion.
template <typename Tag, unsigned N>
    requires accum_shape<Tag, N>
class accum {
public:
    using value_type = Tag;
    std::array<typename Tag::lane, N> lanes;

    accum() = default;

    template <typename T>
    explicit accum(const vector<T, N> &v, int shift = 0) {
        from_vector(v, shift);
    }

    // Up-shift: 16 to 32 and 32 to 64 bits: [I] "Upshift". 32 bits into 32 are the same register or a load into an accumulator,
    // where they come from memory, as all of the kernel's do.
    template <typename T>
        requires((std::same_as<Tag, acc32> && (std::same_as<T, int16> || std::same_as<T, int32>)) ||
                 (std::same_as<Tag, acc64> && std::same_as<T, int32>))
    void from_vector(const vector<T, N> &v, int shift = 0) {
        using lane = typename Tag::lane;
        if constexpr (std::same_as<Tag, acc32> && std::same_as<T, int32>) {
            model::check(shift == 0, "32 bits move to an accumulator without a shift");
        } else {
            model::check(shift >= 0 && shift < 32, "no such shift");
            model::operations.ups += model::registers(N, 8 * sizeof(lane), 1024);
        }
        for (unsigned l = 0; l < N; ++l) {
            lanes[l] = static_cast<lane>(static_cast<uint64_t>(static_cast<int64_t>(v.lanes[l])) << shift);
        }
    }

    // To 8 and 16 bits from acc32, to 32 from acc64, one instruction for 1024 bits or for what fills 512 bits of the result:
    // [I] "Shift-Round-Saturate". 32 bits of an acc32 are neither shifted nor rounded: they are stored from the accumulator, or moved
    // with the element that is asked for.
    template <typename T>
        requires(std::same_as<Tag, acc32> || (std::same_as<Tag, acc64> && std::same_as<T, int32>))
    vector<T, N> to_vector(int shift = 0) const {
        vector<T, N> v;
        if constexpr (std::same_as<Tag, acc32> && std::same_as<T, int32>) {
            model::check(shift == 0, "32 bits move from an accumulator without a shift");
            v.lanes = lanes;
        } else {
            model::check(shift >= 0 && shift < static_cast<int>(8 * sizeof(typename Tag::lane)), "no such shift");
            model::check(model::rounding != rounding_mode::unset, "the rounding mode was not set");
            model::check(model::saturation != saturation_mode::unset, "the saturation mode was not set");
            model::operations.srs += model::registers(N, 8 * sizeof(typename Tag::lane), 1024);
            for (unsigned l = 0; l < N; ++l) {
                v.lanes[l] = model::shift_round_saturate<T>(lanes[l], shift);
            }
        }
        return v;
    }

    // The same bits under another name.
    template <typename Other>
        requires(sizeof(typename Other::lane) == sizeof(typename Tag::lane))
    accum<Other, N> cast_to() const {
        accum<Other, N> same;
        same.lanes = std::bit_cast<std::array<typename Other::lane, N>>(lanes);
        return same;
    }
};

// [U] group_arithmetic: accumulators, integers 1024 bits an instruction, floats 512. Integers wrap.
template <unsigned N>
accum<acc32, N> sub(const accum<acc32, N> &a, const accum<acc32, N> &b) {
    model::operations.accumulate += model::registers(N, 32, 1024);
    accum<acc32, N> difference;
    for (unsigned l = 0; l < N; ++l) {
        difference.lanes[l] = static_cast<int32>(static_cast<uint32_t>(a.lanes[l]) - static_cast<uint32_t>(b.lanes[l]));
    }
    return difference;
}

template <unsigned N>
accum<accfloat, N> add(const accum<accfloat, N> &a, const accum<accfloat, N> &b) {
    model::operations.accumulate += model::registers(N, 32, 512);
    accum<accfloat, N> sum;
    for (unsigned l = 0; l < N; ++l) {
        sum.lanes[l] = a.lanes[l] + b.lanes[l];
    }
    return sum;
}

// [U] group_arithmetic, group_max_min, group_bitwise: vectors, 512 bits an instruction.
template <unsigned N>
vector<int32, N> add(const vector<int32, N> &a, const vector<int32, N> &b) {
    model::operations.alu += model::registers(N, 32, 512);
    vector<int32, N> sum;
    for (unsigned l = 0; l < N; ++l) {
        sum.lanes[l] = static_cast<int32>(static_cast<uint32_t>(a.lanes[l]) + static_cast<uint32_t>(b.lanes[l]));
    }
    return sum;
}

template <unsigned N>
vector<int32, N> max(const vector<int32, N> &a, const vector<int32, N> &b) {
    model::operations.alu += model::registers(N, 32, 512);
    vector<int32, N> larger;
    for (unsigned l = 0; l < N; ++l) {
        larger.lanes[l] = a.lanes[l] > b.lanes[l] ? a.lanes[l] : b.lanes[l];
    }
    return larger;
}

template <unsigned N>
vector<int16, N> bit_and(const vector<int16, N> &a, const vector<int16, N> &b) {
    model::operations.alu += model::registers(N, 16, 512);
    vector<int16, N> both;
    for (unsigned l = 0; l < N; ++l) {
        both.lanes[l] = static_cast<int16>(a.lanes[l] & b.lanes[l]);
    }
    return both;
}

// [U] group_basic_types, "Mask": bits of the scalar unit.
template <unsigned N>
    requires(N == 16 || N == 32)
class mask {
public:
    static mask from_uint32(uint32_t bits) {
        mask m;
        m.bits = bits;
        return m;
    }
    uint32_t to_uint32() const { return bits; }
    uint32_t bits = 0;
};

// [U] group_compare.
template <unsigned N>
mask<N> lt(const vector<int16, N> &a, const vector<int16, N> &b) {
    model::operations.alu += model::registers(N, 16, 512);
    uint32_t bits = 0;
    for (unsigned l = 0; l < N; ++l) {
        bits |= static_cast<uint32_t>(a.lanes[l] < b.lanes[l]) << l;
    }
    return mask<N>::from_uint32(bits);
}

// [U] group_reshape: the second vector where the mask has a bit.
template <typename T, unsigned N>
vector<T, N> select(const vector<T, N> &a, const vector<T, N> &b, const mask<N> &m) {
    model::operations.alu += model::registers(N, 8 * sizeof(T), 512);
    vector<T, N> chosen;
    for (unsigned l = 0; l < N; ++l) {
        chosen.lanes[l] = m.bits >> l & 1 ? b.lanes[l] : a.lanes[l];
    }
    return chosen;
}

// [U] group_reshape: chunks in turn into one vector and the other.
template <typename T, unsigned N>
    requires(sizeof(T) * N == 64)
std::pair<vector<T, N>, vector<T, N>> interleave_unzip(const vector<T, N> &a, const vector<T, N> &b, unsigned chunk) {
    model::check(std::has_single_bit(chunk) && chunk <= N, "no such chunk");
    model::operations.shuffle += 2;
    std::pair<vector<T, N>, vector<T, N>> unzipped;
    for (unsigned l = 0; l < 2 * N; ++l) {
        const T x = l < N ? a.lanes[l] : b.lanes[l - N];
        const unsigned to = l / (2 * chunk) * chunk + l % chunk;
        (l / chunk % 2 == 0 ? unzipped.first : unzipped.second).lanes[to] = x;
    }
    return unzipped;
}

template <typename T, unsigned N>
vector<T, N / 2> filter(const vector<T, N> &v, unsigned chunk, unsigned odd) {
    model::check(std::has_single_bit(chunk) && chunk <= N / 2, "no such chunk");
    model::operations.shuffle += 1;
    vector<T, N / 2> filtered;
    for (unsigned l = 0; l < N / 2; ++l) {
        filtered.lanes[l] = v.lanes[(2 * (l / chunk) + odd) * chunk + l % chunk];
    }
    return filtered;
}

// [U] group_reshape: every other chunk.
template <typename T, unsigned N>
vector<T, N / 2> filter_even(const vector<T, N> &v, unsigned chunk) {
    return filter(v, chunk, 0);
}

template <typename T, unsigned N>
vector<T, N / 2> filter_odd(const vector<T, N> &v, unsigned chunk) {
    return filter(v, chunk, 1);
}

} // namespace aie

namespace model {

template <typename T>
concept bits16 = std::same_as<T, int16> || std::same_as<T, uint16>;
template <typename T>
concept bits8 = std::same_as<T, int8> || std::same_as<T, uint8>;

// sum + sign * a * b, as an accumulator of `Lane` has it: it wraps.
template <typename Lane>
Lane multiply_add(Lane sum, int64_t sign, int64_t a, int64_t b) {
    return static_cast<Lane>(static_cast<uint64_t>(static_cast<int64_t>(sum)) + static_cast<uint64_t>(sign * a * b));
}

template <typename Tag, typename A, typename B, unsigned N>
aie::accum<Tag, N> multiply(aie::accum<Tag, N> sum, int64_t sign, const aie::vector<A, N> &a, const aie::vector<B, N> &b) {
    ++operations.mac;
    for (unsigned l = 0; l < N; ++l) {
        sum.lanes[l] = multiply_add(sum.lanes[l], sign, a.lanes[l], b.lanes[l]);
    }
    return sum;
}

} // namespace model

namespace aie {

// [U] group_mul, [I] "Multiply Accumulate": element by element, 16 bits x 16 bits in 32 lanes of 32 bits. 32 x 16 bits, in 32 lanes of
// 32 or 16 of 64, are made of two products, of the upper and of the lower halves, which two shuffles part ([P] aiev2_vmult.h).
template <model::bits16 A, model::bits16 B>
accum<acc32, 32> mac(const accum<acc32, 32> &sum, const vector<A, 32> &a, const vector<B, 32> &b) {
    return model::multiply(sum, 1, a, b);
}

template <model::bits16 A, model::bits16 B>
accum<acc32, 32> msc(const accum<acc32, 32> &sum, const vector<A, 32> &a, const vector<B, 32> &b) {
    return model::multiply(sum, -1, a, b);
}

template <std::same_as<acc32> Tag, model::bits16 A, model::bits16 B>
accum<Tag, 32> mul(const vector<A, 32> &a, const vector<B, 32> &b) {
    accum<acc32, 32> zero;
    zero.lanes.fill(0);
    return model::multiply(zero, 1, a, b);
}

template <std::same_as<acc64> Tag, model::bits16 B>
accum<Tag, 16> mul(const vector<int32, 16> &a, const vector<B, 16> &b) {
    model::operations.mac += 1;
    model::operations.shuffle += 2;
    accum<acc64, 16> zero;
    zero.lanes.fill(0);
    return model::multiply(zero, 1, a, b);
}

template <model::bits16 B>
accum<acc32, 32> mac(const accum<acc32, 32> &sum, const vector<int32, 32> &a, const vector<B, 32> &b) {
    model::operations.mac += 1;
    model::operations.shuffle += 2;
    return model::multiply(sum, 1, a, b);
}

// [U] group_mmul, "AIE-ML/XDNA 1": of the shapes without a footnote, those that are one instruction. A is M x K, B is K x N, C is
// M x N, each row by row. 8 x 8 bits accumulate in 32, 16 x 8 in 64.
template <unsigned M, unsigned K, unsigned N, typename A, typename B>
struct mmul_lane;

template <model::bits8 A, model::bits8 B>
struct mmul_lane<4, 8, 8, A, B> {
    using tag = acc32;
};

template <model::bits16 A, model::bits8 B>
struct mmul_lane<4, 8, 4, A, B> {
    using tag = acc64;
};

template <unsigned M, unsigned K, unsigned N, typename A, typename B>
class mmul {
public:
    using tag = typename mmul_lane<M, K, N, A, B>::tag;

    mmul() { sum_.lanes.fill(0); }

    void mul(const vector<A, M * K> &a, const vector<B, K * N> &b) {
        sum_.lanes.fill(0);
        mac(a, b);
    }

    void mac(const vector<A, M * K> &a, const vector<B, K * N> &b) {
        ++model::operations.mac;
        for (unsigned i = 0; i < M; ++i) {
            // Sums of a step fit 32 bits, and what is added to the accumulator wraps as it does.
            int32_t step[N] = {};
            for (unsigned k = 0; k < K; ++k) {
                for (unsigned j = 0; j < N; ++j) {
                    step[j] += a.lanes[i * K + k] * b.lanes[k * N + j];
                }
            }
            for (unsigned j = 0; j < N; ++j) {
                auto &lane = sum_.lanes[i * N + j];
                lane = model::multiply_add(lane, 1, step[j], 1);
            }
        }
    }

    template <typename T>
    vector<T, M * N> to_vector(int shift = 0) const {
        return sum_.template to_vector<T>(shift);
    }

private:
    accum<tag, M * N> sum_;
};

} // namespace aie

#endif
