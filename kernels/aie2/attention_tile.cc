// Integer attention of a tile on the vector unit of an AIE2 core: the bits of docs/arithmetic.md, as attention_tile.c has them.
//
// Four rows are attended together (ATTN_ROWS), as the products take them: mmul<4, 8, 8> gives the scores of four rows with eight
// keys in 32 lanes, row by row, which is the order in which the second product takes probabilities. So nothing is shuffled
// between the two; the host lays out keys and values (README.md). A block of 64 keys is eight such units.
//
// The lanes have one shift for all of them. Where each row has its own (merging, requantising), rows are stored one by one; where
// each key has its own (the exponential), a power of two is multiplied: see `powers`.
#include <aie_api/aie.hpp>

#include "../attention_row.h"

#include <type_traits>

// Elements of registers are taken by constant numbers, which a loop's are when it is unrolled.
#ifdef __clang__
#define ATTN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define ATTN_UNROLL _Pragma("GCC unroll 8")
#endif

// Called from several places, and inlined in none: the program memory of a core is 16 KiB.
#define ATTN_ONCE __attribute__((noinline))

// The largest dimension that a build has room for on its stack: about 5 KiB, and 64 bytes for each column.
#ifndef ATTN_KERNEL_DIM
#define ATTN_KERNEL_DIM ATTN_MAX_DIM
#endif

namespace {

constexpr int COLUMNS = 8;                  // of a step of a product
constexpr int KEYS = 8;                     // of a unit
constexpr int UNITS = ATTN_BLOCK / KEYS;    // of a block
constexpr int LANES = ATTN_ROWS * KEYS;     // of a unit
constexpr int TILE = COLUMNS * KEYS;        // bytes of keys or values that a step takes
constexpr int POWER_BIAS = 1 << (ATTN_PROBABILITY_DROPPED - 1);

static_assert(LANES == 32 && ATTN_ROWS == 4, "the shapes of the products");

using scores_product = aie::mmul<ATTN_ROWS, COLUMNS, KEYS, int8, int8>;
using values_product = aie::mmul<ATTN_ROWS, KEYS, COLUMNS, uint8, int8>;
using powers_product = aie::mmul<ATTN_ROWS, KEYS, 4, int16, int8>;

// What is between two steps, on the stack: unit by unit, four rows of eight keys each.
struct alignas(ATTN_ALIGNMENT) scratch {
    int32 scores[UNITS * LANES];
    int16 distances[UNITS * LANES];
    int16 powers[UNITS * LANES]; // each and POWER_BIAS
    uint8 probabilities[UNITS * LANES];
    int32 products[ATTN_ROWS * ATTN_KERNEL_DIM]; // row by row
};

// Which keys of each unit are seen: one bit a lane.
struct visible {
    ATTN_UINT unit[UNITS];
    bool all;
};

// Four numbers, one a row.
using rows = ATTN_INT[ATTN_ROWS];

// The same number in every lane, in memory: the registers do not hold all that the lanes are multiplied with and added to.
template <typename T, int N = LANES>
struct alignas(ATTN_ALIGNMENT) filled {
    T lanes[N];

    constexpr explicit filled(int value) : lanes{} {
        for (auto &lane : lanes) {
            lane = static_cast<T>(value);
        }
    }
};

// What a step of the exponential subtracts from: C - rsh(x, n) = ((C << n) + 2^(n-1) - 1 - x) >> n.
constexpr int subtracted_from(int coefficient) {
    return (coefficient << ATTN_DISTANCE_BITS) + (1 << (ATTN_DISTANCE_BITS - 1)) - 1;
}

constexpr filled<int32> CUBIC_0(subtracted_from(ATTN_EXP2_ONE));
constexpr filled<int32> CUBIC_1(subtracted_from(ATTN_EXP2_C1));
constexpr filled<int32> CUBIC_2(subtracted_from(ATTN_EXP2_C2));
constexpr filled<int16> CUBIC_3(ATTN_EXP2_C3);
constexpr filled<int16> FRACTION_BITS((1 << ATTN_DISTANCE_BITS) - 1);
constexpr filled<int16> OCTAVE_BITS(15 << ATTN_DISTANCE_BITS);
constexpr filled<int32> EXPONENT((127 + 15) << 23); // of 2^15 as a float
constexpr filled<int16> EXPONENT_STEP(1 << (23 - ATTN_DISTANCE_BITS));
constexpr filled<int32> INTEGER(0x4b400000); // 3 * 2^22, the float whose lowest bits are an integer
constexpr filled<int32> HALF(POWER_BIAS << ATTN_POWER_BITS);
constexpr filled<int8, TILE> ONES(1);
constexpr filled<int32, 16> LOWEST(-ATTN_MAX_SCORE);   // a score that is not seen
constexpr filled<int16> FARTHEST(32767);               // a distance that is not: 15 octaves and more
constexpr filled<int32> ROUNDING[2] = {filled<int32>(0), filled<int32>(1)};

// What depends on the head.
struct constants {
    filled<int32> offset_product; // what distances add, see there
    filled<uint16> multiplier;    // c
    int score_shift;              // sh, 0 where it is negative
    int distance_shift;
    int octave_shift;
    int32 offset; // of a distance, shifted as scores are

    explicit constants(const attn_parameters &p) : offset_product(0), multiplier(0) {
        score_shift = p.score_shift > 0 ? p.score_shift : 0;
        distance_shift = 16 + (p.score_shift < 0 ? p.score_shift : 0);
        octave_shift = 16 + p.score_shift;
        // (2^31 - 1) / c is where distances saturate. Scores that are shifted by 9 and more have 15 bits themselves.
        int32 above = 0;
        if (p.score_shift <= 8) {
            above = attn_min(attn_reciprocal(p.score_multiplier), 65535) - 32767;
        }
        offset = above << score_shift;
        aie::store_v(offset_product.lanes, aie::broadcast<int32, LANES>(above * p.score_multiplier));
        aie::store_v(multiplier.lanes, aie::broadcast<uint16, LANES>(static_cast<uint16>(p.score_multiplier)));
    }
};

aie::accum<acc32, LANES> load_accumulators(const int32 *lanes) { return aie::accum<acc32, LANES>(aie::load_v<LANES>(lanes)); }

// The scores of four rows with a block: q k^T.
void attend_scores(const int8 *query, const int8 *key, int dim, scratch &s) {
    scores_product sums[UNITS];
    const auto first = aie::load_v<LANES>(query);
    for (auto &sum : sums) {
        sum.mul(first, aie::load_v<TILE>(key));
        key += TILE;
    }
    for (int column = COLUMNS; column < dim; column += COLUMNS) {
        query += LANES;
        const auto rows = aie::load_v<LANES>(query);
        for (auto &sum : sums) {
            sum.mac(rows, aie::load_v<TILE>(key));
            key += TILE;
        }
    }
    for (int unit = 0; unit < UNITS; ++unit) {
        aie::store_v(s.scores + unit * LANES, sums[unit].to_vector<int32>());
    }
}

// What the keys of a block weigh, row by row.
struct weights {
    attn_magnitude magnitude[ATTN_ROWS];
    rows probability_sum; // 0 where a row sees none
    rows power_sum;
};

// The largest score of each row among the keys that it sees, and its magnitude; of a row that sees none they mean nothing.
void largest(const constants &k, const visible &seen, const int32 *scores, rows &maximum, weights &w) {
    const auto half = [&](int unit, int h) {
        const auto lanes = aie::load_v<16>(scores + unit * LANES + 16 * h);
        if (seen.all) {
            return lanes;
        }
        const auto lowest = aie::load_v<16>(LOWEST.lanes);
        return aie::select(lowest, lanes, aie::mask<16>::from_uint32(seen.unit[unit] >> (16 * h) & 0xffffu));
    };
    auto upper = half(0, 0), lower = half(0, 1); // rows 0 and 1, rows 2 and 3
    for (int unit = 1; unit < UNITS; ++unit) {
        upper = aie::max(upper, half(unit, 0));
        lower = aie::max(lower, half(unit, 1));
    }
    // 8 lanes a row, then 4, 2, 1.
    const auto [even, odd] = aie::interleave_unzip(upper, lower, 4);
    const auto four = aie::max(even, odd);
    const auto two = aie::max(aie::filter_even(four, 2), aie::filter_odd(four, 2));
    const auto one = aie::max(aie::filter_even(two, 1), aie::filter_odd(two, 1));

    // rsh(m c, sh + 16): the product has more than 32 bits.
    const auto multiplier = aie::load_v<16>(k.multiplier.lanes);
    aie::set_rounding(aie::rounding_mode::positive_inf);
    const auto octaves = aie::mul<acc64>(aie::concat(one, one, one, one), multiplier).template to_vector<int32>(k.octave_shift);
    aie::set_rounding(aie::rounding_mode::floor);
    ATTN_UNROLL
    for (int r = 0; r < ATTN_ROWS; ++r) {
        maximum[r] = one.get(static_cast<unsigned>(r));
        w.magnitude[r] = attn_magnitude_of(octaves.get(static_cast<unsigned>(r)));
    }
}

// How far each key is below its row's maximum, in octaves with 11 fraction bits: t of the specification, but for distances of
// 15 octaves and more, which are any of those: their powers are all 0.
//
// t is (u c) >> 16 with u of 16 bits and c of 16 bits, one bit too many for an accumulator. But what is beyond (2^31 - 1) / c
// is 15 octaves away; so u is saturated there, by subtracting an offset that brings this bound to the largest int16, and adding
// its product with c again.
void distances(const constants &k, const visible &seen, const int32 *scores, const rows &maximum, scratch &s) {
    const auto row = [&](int r) { return aie::broadcast<int32, KEYS>(maximum[r] - k.offset); };
    const aie::accum<acc32, LANES> reference(aie::concat(row(0), row(1), row(2), row(3)));
    const auto offset_product = load_accumulators(k.offset_product.lanes);
    const auto multiplier = aie::load_v<LANES>(k.multiplier.lanes);
    for (int unit = 0; unit < UNITS; ++unit) {
        const auto below = aie::sub(reference, load_accumulators(scores + unit * LANES)).to_vector<int16>(k.score_shift);
        auto t = aie::mac(offset_product, below, multiplier).to_vector<int16>(k.distance_shift);
        if (!seen.all) {
            const auto farthest = aie::load_v<LANES>(FARTHEST.lanes);
            t = aie::select(farthest, t, aie::mask<LANES>::from_uint32(seen.unit[unit]));
        }
        aie::store_v(s.distances + unit * LANES, t);
    }
}

// Four rows of equal lanes: one of each.
template <typename Sums>
void one_each(const Sums &sums, rows &one) {
    const auto lanes = sums.template to_vector<int32>();
    ATTN_UNROLL
    for (int r = 0; r < ATTN_ROWS; ++r) {
        one[r] = lanes.get(static_cast<unsigned>(r) * lanes.size() / ATTN_ROWS);
    }
}

// Powers and probabilities of the distances, and for each row the sums of both.
//
// z >> octaves is (z * 2^(15 - octaves)) >> 15. The power of two is the float with the exponent 15 - octaves; adding 3 * 2^22
// to it leaves it as an integer in the lowest bits of the sum, without rounding, and subtracting the bits of 3 * 2^22 alone. Half a step of a probability (2^21) is
// added to the product, so that both conversions round down: to the power and 64, and to the probability.
void powers(scratch &s, weights &w) {
    constexpr int n = ATTN_DISTANCE_BITS;
    const auto c0 = load_accumulators(CUBIC_0.lanes), c1 = load_accumulators(CUBIC_1.lanes);
    const auto c2 = load_accumulators(CUBIC_2.lanes);
    const auto c3 = aie::load_v<LANES>(CUBIC_3.lanes);
    const auto fraction_bits = aie::load_v<LANES>(FRACTION_BITS.lanes);
    const auto octave_bits = aie::load_v<LANES>(OCTAVE_BITS.lanes);
    const auto exponent = load_accumulators(EXPONENT.lanes);
    const auto exponent_step = aie::load_v<LANES>(EXPONENT_STEP.lanes);
    const auto integer = load_accumulators(INTEGER.lanes);
    const auto half = load_accumulators(HALF.lanes);
    const auto ones = aie::load_v<TILE>(ONES.lanes);

    values_product probabilities;
    powers_product exact;
    for (int unit = 0; unit < UNITS; ++unit) {
        const auto t = aie::load_v<LANES>(s.distances + unit * LANES);
        const auto x = aie::bit_and(t, fraction_bits);
        auto z = aie::msc(c2, x, c3).template to_vector<int16>(n);
        z = aie::msc(c1, x, z).template to_vector<int16>(n);
        z = aie::msc(c0, x, z).template to_vector<int16>(n);
        const auto scale = aie::msc(exponent, aie::bit_and(t, octave_bits), exponent_step).template cast_to<accfloat>();
        const auto sum = aie::add(scale, integer.template cast_to<accfloat>()).template cast_to<acc32>();
        const auto two = aie::sub(sum, integer).template to_vector<uint16>();
        const auto product = aie::mac(half, z, two);
        const auto y = product.template to_vector<int16>(ATTN_POWER_BITS);
        const auto p = product.template to_vector<uint8>(ATTN_POWER_BITS + ATTN_PROBABILITY_DROPPED);
        aie::store_v(s.powers + unit * LANES, y);
        aie::store_v(s.probabilities + unit * LANES, p);
        probabilities.mac(p, ones);
        exact.mac(y, ones.template extract<4 * KEYS>(0));
    }
    one_each(probabilities, w.probability_sum);
    one_each(exact, w.power_sum);
    for (auto &sum : w.power_sum) {
        sum = sum - ATTN_BLOCK * POWER_BIAS;
    }
}

// Takes the probabilities of `out` away, and from their sums.
void hide(const visible &out, scratch &s, weights &w) {
    const auto zeros = aie::broadcast<uint8, LANES>(0);
    const auto ones = aie::load_v<TILE>(ONES.lanes);
    values_product probabilities;
    for (int unit = 0; unit < UNITS; ++unit) {
        auto p = aie::load_v<LANES>(s.probabilities + unit * LANES);
        p = aie::select(p, zeros, aie::mask<LANES>::from_uint32(out.unit[unit]));
        aie::store_v(s.probabilities + unit * LANES, p);
        probabilities.mac(p, ones);
    }
    one_each(probabilities, w.probability_sum);
}

// Probabilities times values, row by row.
void attend_values(const int8 *value, int dim, scratch &s) {
    // Two columns of tiles at a time, so that the probabilities are loaded half as often.
    for (int column = 0; column < dim; column += 2 * COLUMNS) {
        values_product sums[2];
        for (int unit = 0; unit < UNITS; ++unit) {
            const auto p = aie::load_v<LANES>(s.probabilities + unit * LANES);
            sums[0].mac(p, aie::load_v<TILE>(value + unit * TILE));
            sums[1].mac(p, aie::load_v<TILE>(value + (UNITS + unit) * TILE));
        }
        value += 2 * UNITS * TILE;
        for (int half = 0; half < 2; ++half) {
            const auto products = sums[half].to_vector<int32>();
            ATTN_UNROLL
            for (int r = 0; r < ATTN_ROWS; ++r) {
                aie::store_v(s.products + r * dim + column + half * COLUMNS, products.extract<COLUMNS>(static_cast<unsigned>(r)));
            }
        }
    }
}

// A factor of at most 15 bits for every lane.
template <unsigned N>
aie::vector<int16, N> factor_of(ATTN_INT factor) {
    return aie::broadcast<int16, N>(static_cast<int16>(static_cast<int32>(factor)));
}

// Merges a block's products into a row.
void merge_row(const attn_merge &merge, ATTN_INT fraction, bool first, const int32 *products, int32 *accumulator, int dim) {
    const auto factor = factor_of<16>(fraction);
    for (int column = 0; column < dim; column += 16) {
        auto sum = aie::mul<acc64>(aie::load_v<16>(products + column), factor).template to_vector<int32>(merge.block_lower);
        if (!first) {
            auto old = aie::load_v<16>(accumulator + column);
            if (merge.lower != 0) {
                old = aie::accum<acc64, 16>(old).to_vector<int32>(merge.lower);
            }
            sum = aie::add(old, sum);
        }
        aie::store_v(accumulator + column, sum);
    }
}

// Where a row is kept.
struct row_state {
    int32 *sum;
    int32 *reference;
    int32 *accumulator; // [dim]
    int8 *out;          // where it goes when it is finished; none in a sequence
};

// Merges the block whose probabilities are in `s` into the rows that see some of it.
ATTN_ONCE void merge(const row_state (&group)[ATTN_ROWS], const weights &w, const int8 *value, int dim, scratch &s) {
    attend_values(value, dim, s);
    aie::set_rounding(aie::rounding_mode::positive_inf);
    for (int r = 0; r < ATTN_ROWS; ++r) {
        if (w.probability_sum[r] == 0) {
            continue;
        }
        const auto &row = group[r];
        const auto merged = attn_merge_of(*row.reference, *row.sum, w.magnitude[r], w.probability_sum[r]);
        merge_row(merged, w.magnitude[r].fraction, *row.sum == 0, s.products + r * dim, row.accumulator, dim);
        *row.reference = merged.reference;
        *row.sum = merged.sum;
    }
    aie::set_rounding(aie::rounding_mode::floor);
}

ATTN_ONCE void weigh(const constants &k, const visible &seen, const int32 *scores, scratch &s, weights &w) {
    rows maximum;
    largest(k, seen, scores, maximum, w);
    distances(k, seen, scores, maximum, s);
    powers(s, w);
}

// The lanes of row `r`.
constexpr uint32_t lanes_of(int r) { return 0xffu << (KEYS * r); }

// Which keys of the block that starts at key `first` four rows see; false if none does.
bool look(const attn_parameters &p, int row, int first, visible &seen) {
    // The first of the rows sees least, the last one most.
    const ATTN_INT least = attn_visible(&p, row, first), most = attn_visible(&p, row + ATTN_ROWS - 1, first);
    seen.all = least == ATTN_BLOCK;
    for (int unit = 0; unit < UNITS; ++unit) {
        const int begin = KEYS * unit, end = begin + KEYS;
        seen.unit[unit] = seen.all || least >= end ? ~0u : 0u;
        if (seen.all || least >= end || begin >= most) {
            continue;
        }
        for (int r = 0; r < ATTN_ROWS; ++r) {
            const ATTN_INT keys = attn_max(attn_min(attn_visible(&p, row + r, first) - begin, KEYS), 0);
            seen.unit[unit] = seen.unit[unit] | ((ATTN_UINT(1u) << keys) - 1u) << (KEYS * r);
        }
    }
    return most != 0;
}

// The keys of dominated rows that are far from the maximum; the rows that have some, a bit each.
int find_far(const visible &seen, const row_state (&group)[ATTN_ROWS], const weights &w, const scratch &s, visible &far) {
    ATTN_UINT dominated = 0u;
    for (int r = 0; r < ATTN_ROWS; ++r) {
        if (attn_is_dominated(w.probability_sum[r], w.power_sum[r]) &&
            w.magnitude[r].exponent >= attn_risen(*group[r].reference, *group[r].sum)) {
            dominated = dominated | lanes_of(r);
        }
    }
    if (dominated == 0u) {
        return 0;
    }
    const auto edge = aie::broadcast<int16, LANES>(ATTN_FAR_BELOW + POWER_BIAS);
    ATTN_UINT any = 0u;
    for (int unit = 0; unit < UNITS; ++unit) {
        const auto below = aie::lt(aie::load_v<LANES>(s.powers + unit * LANES), edge);
        far.unit[unit] = dominated & seen.unit[unit] & below.to_uint32();
        any = any | far.unit[unit];
    }
    far.all = false;
    int rows = 0;
    for (int r = 0; r < ATTN_ROWS; ++r) {
        rows |= (any & lanes_of(r)) != 0u ? 1 << r : 0;
    }
    return rows;
}

// Rows whose far keys are still to be merged. They wait until there are four of them, which seldom come from one group: two
// groups, of which one may be filled while the other one is.
struct far_rows {
    alignas(ATTN_ALIGNMENT) int32 scores[2][UNITS * LANES];
    visible seen[2];
    row_state row[2][ATTN_ROWS];
    int count = 0;  // of all that have waited
    int merged = 0; // of those

    // Row `r` of the group whose scores are in `s` and whose far keys are `far`, kept in `state`.
    void add(const row_state &state, int r, const visible &far, const scratch &s) {
        const int g = group(count), at = count % ATTN_ROWS;
        for (int unit = 0; unit < UNITS; ++unit) {
            aie::store_v(scores[g] + unit * LANES + at * KEYS, aie::load_v<KEYS>(s.scores + unit * LANES + r * KEYS));
            const ATTN_UINT keys = (far.unit[unit] >> (KEYS * r) & 0xffu) << (KEYS * at);
            seen[g].unit[unit] = at == 0 ? keys : seen[g].unit[unit] | keys;
        }
        seen[g].all = false;
        row[g][at] = state;
        ++count;
    }

    static int group(int row) { return row / ATTN_ROWS % 2; }
};

// Writes a row: `accumulators` as requantise takes them, 32 columns at a time; of the last 16, twice.
template <typename Narrow>
void requantise_row(const attn_requantiser &requantiser, int dim, int8 *out, const Narrow &narrow) {
    const auto multiplier = factor_of<LANES>(requantiser.multiplier);
    for (int column = 0; column < dim; column += LANES) {
        const bool whole = column + LANES <= dim;
        const auto lanes = aie::mul<acc32>(narrow(column, whole ? 16 : 0), multiplier).template to_vector<int8>(requantiser.widen);
        // In halves: a row of 16 columns more than a multiple of 32 does not end, nor does the next one start, at one.
        aie::store_v(out + column, lanes.template extract<16>(0));
        if (whole) {
            aie::store_v(out + column + 16, lanes.template extract<16>(1));
        }
    }
}

void write_zeros(int dim, int8 *out) {
    for (int column = 0; column < dim; column += 16) {
        aie::store_v(out + column, aie::broadcast<int8, 16>(0));
    }
}

// 32 columns from two places.
aie::vector<int32, 32> two_halves(const int32 *lanes, int second) {
    return aie::concat(aie::load_v<16>(lanes), aie::load_v<16>(lanes + second));
}

// Writes a row: the accumulator over the sum.
ATTN_ONCE void finish(const attn_parameters &p, const row_state &row) {
    if (*row.sum == 0) {
        write_zeros(p.dim, row.out);
        return;
    }
    aie::set_rounding(aie::rounding_mode::positive_inf);
    const auto requantiser = attn_requantiser_of(*row.sum, p.gain, p.gain_exponent);
    requantise_row(requantiser, p.dim, row.out, [&](int column, int second) {
        const aie::accum<acc32, LANES> lanes(two_halves(row.accumulator + column, second));
        return lanes.template to_vector<int16>(requantiser.narrow);
    });
    aie::set_rounding(aie::rounding_mode::floor);
}

// Merges the far keys of four rows that wait, or of the last ones, and finishes those that are to be.
ATTN_ONCE void merge_far(const attn_parameters &p, const constants &k, const int8 *value, far_rows &far, scratch &s) {
    const int g = far_rows::group(far.merged);
    weights w;
    weigh(k, far.seen[g], far.scores[g], s, w);
    merge(far.row[g], w, value, p.dim, s);
    for (int r = 0; r < ATTN_ROWS && far.merged < far.count; ++r, ++far.merged) {
        if (far.row[g][r].out != nullptr) {
            finish(p, far.row[g][r]);
        }
    }
}

// Writes four rows of one block that is not split: merging it into nothing shifts by 1, and rounding twice is
// rsh(rsh(x, 1), n) = rsh(x + 1, n + 1) for n > 0.
ATTN_ONCE void finish_one_block(const attn_parameters &p, const weights &w, const int8 *value, int8 *out, scratch &s) {
    attend_values(value, p.dim, s);
    aie::set_rounding(aie::rounding_mode::positive_inf);
    for (int r = 0; r < ATTN_ROWS; ++r) {
        if (w.probability_sum[r] == 0) {
            write_zeros(p.dim, out + r * p.dim);
            continue;
        }
        const auto sum = attn_merge_of(ATTN_NO_REFERENCE, 0, w.magnitude[r], w.probability_sum[r]).sum;
        const auto requantiser = attn_requantiser_of(sum, p.gain, p.gain_exponent);
        const auto &rounding = ROUNDING[requantiser.narrow > 0 ? 1 : 0];
        const auto factor = factor_of<LANES>(w.magnitude[r].fraction);
        const int32 *products = s.products + r * p.dim;
        requantise_row(requantiser, p.dim, out + r * p.dim, [&](int column, int second) {
            const auto lanes = aie::mac(load_accumulators(rounding.lanes), two_halves(products + column, second), factor);
            return lanes.template to_vector<int16>(requantiser.narrow + ATTN_MERGE_SHIFT);
        });
    }
    aie::set_rounding(aie::rounding_mode::floor);
}

// What every conversion relies on; the core keeps its modes from one program to the next. Where it rounds to nearest, the mode is
// switched and switched back.
void set_modes() {
    aie::set_rounding(aie::rounding_mode::floor);
    aie::set_saturation(aie::saturation_mode::saturate);
}

const attn_parameters &parameters_of(const int8 *object) { return *reinterpret_cast<const attn_parameters *>(object); }

// Row `r` of a sequence.
row_state row_of(const attn_parameters &p, attn_state &state, int r) {
    return {state.sum + r, state.reference + r, reinterpret_cast<int32 *>(&state + 1) + r * p.dim, nullptr};
}

} // namespace

extern "C" {

void ATTN_ENTRY(tile)(const int8_t *tile, int8_t *out) {
    const auto &p = parameters_of(tile);
    const constants k(p);
    const int8 *query = tile + ATTN_PARAMETERS_BYTES;
    const int8 *key = query + ATTN_QUERY_BYTES(p.queries, p.dim);
    const int8 *value = key + ATTN_KEY_BYTES(p.dim);
    scratch s;
    far_rows far;
    // Four rows, and behind them those that wait.
    constexpr int KEPT = 3 * ATTN_ROWS;
    int32 sum[KEPT], reference[KEPT];
    alignas(ATTN_ALIGNMENT) int32 accumulator[KEPT * ATTN_KERNEL_DIM];
    set_modes();
    for (int first = 0; first < p.queries; first += ATTN_ROWS, query += ATTN_ROWS * p.dim, out += ATTN_ROWS * p.dim) {
        row_state group[ATTN_ROWS];
        for (int r = 0; r < ATTN_ROWS; ++r) {
            group[r] = {sum + r, reference + r, accumulator + r * p.dim, out + r * p.dim};
            sum[r] = 0;
            reference[r] = ATTN_NO_REFERENCE;
        }
        visible seen, apart;
        weights w;
        if (!look(p, first, 0, seen)) {
            write_zeros(ATTN_ROWS * p.dim, out);
            continue;
        }
        attend_scores(query, key, p.dim, s);
        weigh(k, seen, s.scores, s, w);
        const int rows = find_far(seen, group, w, s, apart);
        if (rows == 0) {
            finish_one_block(p, w, value, out, s);
            continue;
        }
        hide(apart, s, w);
        merge(group, w, value, p.dim, s);
        for (int r = 0; r < ATTN_ROWS; ++r) {
            if ((rows >> r & 1) == 0) {
                finish(p, group[r]);
                continue;
            }
            const int kept = ATTN_ROWS + far.count % (2 * ATTN_ROWS);
            const row_state waiting{sum + kept, reference + kept, accumulator + kept * p.dim, group[r].out};
            sum[kept] = sum[r];
            reference[kept] = reference[r];
            for (int column = 0; column < p.dim; column += 16) {
                aie::store_v(waiting.accumulator + column, aie::load_v<16>(group[r].accumulator + column));
            }
            far.add(waiting, r, apart, s);
        }
        if (far.count - far.merged >= ATTN_ROWS) {
            merge_far(p, k, value, far, s);
        }
    }
    if (far.merged < far.count) {
        merge_far(p, k, value, far, s);
    }
}

void ATTN_ENTRY(start)(const int8_t *query, int8_t *state) {
    (void)query;
    auto &kept = *reinterpret_cast<attn_state *>(state);
    kept.next_key = 0;
    for (int row = 0; row < ATTN_MAX_QUERIES; ++row) {
        kept.sum[row] = 0;
        kept.reference[row] = ATTN_NO_REFERENCE;
    }
}

void ATTN_ENTRY(absorb)(const int8_t *query, const int8_t *block, int8_t *state) {
    const auto &p = parameters_of(query);
    const constants k(p);
    const int8 *value = block + ATTN_KEY_BYTES(p.dim);
    auto &kept = *reinterpret_cast<attn_state *>(state);
    scratch s;
    far_rows far;
    set_modes();
    query += ATTN_PARAMETERS_BYTES;
    for (int first = 0; first < p.queries; first += ATTN_ROWS, query += ATTN_ROWS * p.dim) {
        row_state group[ATTN_ROWS];
        for (int r = 0; r < ATTN_ROWS; ++r) {
            group[r] = row_of(p, kept, first + r);
        }
        visible seen, apart;
        weights w;
        if (!look(p, first, kept.next_key, seen)) {
            continue;
        }
        attend_scores(query, block, p.dim, s);
        weigh(k, seen, s.scores, s, w);
        const int rows = find_far(seen, group, w, s, apart);
        if (rows != 0) {
            hide(apart, s, w);
        }
        merge(group, w, value, p.dim, s);
        for (int r = 0; r < ATTN_ROWS; ++r) {
            if (rows >> r & 1) {
                far.add(group[r], r, apart, s);
            }
        }
        if (far.count - far.merged >= ATTN_ROWS) {
            merge_far(p, k, value, far, s);
        }
    }
    if (far.merged < far.count) {
        merge_far(p, k, value, far, s);
    }
    kept.next_key += ATTN_BLOCK;
}

void ATTN_ENTRY(finish)(const int8_t *query, const int8_t *state, int8_t *out) {
    const auto &p = parameters_of(query);
    auto &kept = *const_cast<attn_state *>(reinterpret_cast<const attn_state *>(state));
    set_modes();
    for (int r = 0; r < p.queries; ++r) {
        auto row = row_of(p, kept, r);
        row.out = out + r * p.dim;
        finish(p, row);
    }
}
}
