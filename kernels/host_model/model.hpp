// What the host model counts and checks, and how it is read from outside.
#ifndef ATTN_HOST_MODEL_HPP
#define ATTN_HOST_MODEL_HPP

#include <stdint.h>

#include <concepts>
#include <type_traits>

// Operations since the last reset on this thread, as crates/attn-npu reads them: in units of what the core does in one
// instruction. Which of them share a slot of its instruction word is public in the machine description of its compiler (llvm-aie,
// AIE2GenFixupInstrInfo.td); crates/attn-npu adds them up.
struct model_operations {
    uint64_t mac;        // multiplications of vectors, with or without an accumulator
    uint64_t accumulate; // additions and subtractions of accumulators
    uint64_t alu;        // maxima, comparisons, selections, logic, additions of vectors
    uint64_t shuffle;    // permutations and broadcasts
    uint64_t move;       // single elements, and parts of registers that are put together
    uint64_t srs;        // accumulator to vector with shift, rounding and saturation
    uint64_t ups;        // vector to accumulator with a shift
    uint64_t load;       // 256 bits each
    uint64_t store;      // 256 bits each
    uint64_t scalar;     // arithmetic of 32 bits once per row; neither loops nor addresses
};

extern "C" {
// Counts from zero, and forgets the modes: a function of the kernel cannot rely on what another one left.
void model_reset(void);
void model_forget_modes(void);
struct model_operations model_operations_read(void);
// A rule of the core was broken: prints `what` and ends the program.
[[noreturn]] void model_fail(const char *what);
}

namespace model {

inline thread_local model_operations operations{};

inline void check(bool holds, const char *what) {
    if (!holds) {
        model_fail(what);
    }
}

// An integer of the scalar unit, which counts what is done with it. Results wrap, as its registers do.
template <std::integral T>
class scalar {
public:
    constexpr scalar() = default;
    template <std::integral U>
    constexpr scalar(U value) : value_(static_cast<T>(value)) {}
    template <std::integral U>
    constexpr scalar(scalar<U> other) : value_(static_cast<T>(static_cast<U>(other))) {}
    constexpr operator T() const { return value_; }

private:
    T value_ = 0;
};

using word = uint32_t;

template <typename T, typename F>
scalar<T> counted(scalar<T> a, scalar<T> b, F f) {
    ++operations.scalar;
    return scalar<T>(f(static_cast<T>(a), static_cast<T>(b)));
}

#define MODEL_SCALAR(op, expression)                                                                                    \
    template <typename T>                                                                                               \
    scalar<T> operator op(scalar<T> x, scalar<T> y) {                                                                   \
        return counted(x, y, [](T a, T b) { return static_cast<T>(expression); });                                      \
    }                                                                                                                   \
    template <typename T, std::integral U>                                                                              \
    scalar<T> operator op(scalar<T> x, U y) {                                                                           \
        return x op scalar<T>(y);                                                                                       \
    }                                                                                                                   \
    template <typename T, std::integral U>                                                                              \
    scalar<T> operator op(U x, scalar<T> y) {                                                                           \
        return scalar<T>(x) op y;                                                                                       \
    }

MODEL_SCALAR(+, static_cast<word>(a) + static_cast<word>(b))
MODEL_SCALAR(-, static_cast<word>(a) - static_cast<word>(b))
MODEL_SCALAR(*, static_cast<word>(a) * static_cast<word>(b))
MODEL_SCALAR(&, a & b)
MODEL_SCALAR(|, a | b)
MODEL_SCALAR(<<, static_cast<word>(a) << b)
MODEL_SCALAR(>>, a >> b)
#undef MODEL_SCALAR

#define MODEL_SCALAR(op)                                                                                                \
    template <typename T>                                                                                               \
    bool operator op(scalar<T> x, scalar<T> y) {                                                                        \
        ++operations.scalar;                                                                                            \
        return static_cast<T>(x) op static_cast<T>(y);                                                                  \
    }                                                                                                                   \
    template <typename T, std::integral U>                                                                              \
    bool operator op(scalar<T> x, U y) {                                                                                \
        return x op scalar<T>(y);                                                                                       \
    }                                                                                                                   \
    template <typename T, std::integral U>                                                                              \
    bool operator op(U x, scalar<T> y) {                                                                                \
        return scalar<T>(x) op y;                                                                                       \
    }

MODEL_SCALAR(<)
MODEL_SCALAR(>)
MODEL_SCALAR(>=)
MODEL_SCALAR(==)
MODEL_SCALAR(!=)
#undef MODEL_SCALAR

} // namespace model

// What kernels/attention_row.h computes with.
#define ATTN_INT model::scalar<int32_t>
#define ATTN_UINT model::scalar<uint32_t>

#endif
