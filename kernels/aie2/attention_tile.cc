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
    int32 products[ATTN_ROWS * ATTN_MAX_DIM]; // row by row
};

// Which keys of each unit are seen: one bit a lane.
struct visible {
    uint32_t unit[UNITS];
    bool all;
};

// Four numbers, one a row.
using rows = ATTN_INT[ATTN_ROWS];

template <typename T, unsigned N>
aie::accum<acc32, N> accumulators(T value) {
    return aie::accum<acc32, N>(aie::broadcast<int32, N>(value));
}

// What the softmax multiplies with, the same for all rows of a head.
struct softmax_constants {
    int score_shift; // sh, 0 where it is negative
    int distance_shift;
    ATTN_INT offset; // of a distance, see `distances`
    aie::accum<acc32, LANES> offset_product;
    aie::vector<uint16, LANES> multiplier;

    explicit softmax_constants(const attn_parameters &p) {
        score_shift = p.score_shift > 0 ? p.score_shift : 0;
        distance_shift = 16 + (p.score_shift < 0 ? p.score_shift : 0);
        // The largest multiple of c in 31 bits. Scores that are shifted by 9 and more have 15 bits themselves.
        offset = p.score_shift > 8 ? ATTN_INT(0)
                                   : attn_min(attn_reciprocal(p.score_multiplier), 65535) - std::numeric_limits<int16>::max();
        offset_product = accumulators<ATTN_INT, LANES>(offset * p.score_multiplier);
        multiplier = aie::broadcast<uint16, LANES>(static_cast<uint16>(p.score_multiplier));
    }
};

// The scores of four rows with a block: q k^T.
void attend_scores(const int8 *query, const int8 *key, int dim, scratch &s) {
    scores_product sums[UNITS];
    for (int column = 0; column < dim; column += COLUMNS) {
        const auto rows = aie::load_v<LANES>(query);
        query += LANES;
        for (auto &sum : sums) {
            sum.mac(rows, aie::load_v<TILE>(key));
            key += TILE;
        }
    }
    for (int unit = 0; unit < UNITS; ++unit) {
        aie::store_v(s.scores + unit * LANES, sums[unit].to_vector<int32>());
    }
}

// The largest score of each row among the keys that it sees; what it has of others does not count where it sees none.
void largest(const scratch &s, const visible &seen, rows &maximum) {
    const auto lowest = aie::broadcast<int32, 16>(std::numeric_limits<int32>::min());
    const auto half = [&](int unit, int h) {
        const auto scores = aie::load_v<16>(s.scores + unit * LANES + 16 * h);
        return seen.all ? scores : aie::select(lowest, scores, aie::mask<16>::from_uint32(seen.unit[unit] >> (16 * h) & 0xffff));
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
    for (int r = 0; r < ATTN_ROWS; ++r) {
        maximum[r] = one.get(r);
    }
}

// How far each key is below its row's maximum, in octaves with 11 fraction bits: t of the specification, but for distances of
// 15 octaves and more, which are any of those: their powers are all 0.
//
// t is (u c) >> 16 with u of 16 bits and c of 16 bits, one bit too many for an accumulator. But what is beyond (2^31 - 1) / c
// is 15 octaves away; so u is saturated there, by subtracting an offset that brings this bound to the largest int16, and adding
// its product with c again.
void distances(const softmax_constants &c, const visible &seen, const rows &maximum, scratch &s) {
    const auto row = [&](int r) { return aie::broadcast<int32, KEYS>(maximum[r] - (c.offset << c.score_shift)); };
    const aie::accum<acc32, LANES> reference(aie::concat(row(0), row(1), row(2), row(3)));
    const auto unseen = aie::broadcast<int16, LANES>(std::numeric_limits<int16>::max());
    aie::set_saturation(aie::saturation_mode::saturate);
    for (int unit = 0; unit < UNITS; ++unit) {
        const aie::accum<acc32, LANES> scores(aie::load_v<LANES>(s.scores + unit * LANES));
        const auto below = aie::sub(reference, scores).to_vector<int16>(c.score_shift);
        auto t = aie::mac(c.offset_product, below, c.multiplier).to_vector<int16>(c.distance_shift);
        if (!seen.all) {
            t = aie::select(unseen, t, aie::mask<LANES>::from_uint32(seen.unit[unit]));
        }
        aie::store_v(s.distances + unit * LANES, t);
    }
}

// Powers and probabilities of the distances, and for each row the sums of both.
//
// C - rsh(x, n) = ((C << n) + 2^(n-1) - 1 - x) >> n: each step of the cubic is a product subtracted from a constant.
//
// z >> octaves is (z * 2^(15 - octaves)) >> 15. The power of two is the float with the exponent 15 - octaves; adding 3 * 2^22
// to it leaves it as an integer in the lowest bits of the sum, without rounding. Half a step of a probability (2^21) is
// added to the product, so that both conversions round down: to the power and 64, and to the probability.
void powers(scratch &s, rows &probability_sum, rows &power_sum) {
    constexpr int n = ATTN_DISTANCE_BITS;
    const auto rounded = [](int coefficient) { return accumulators<int, LANES>((coefficient << n) + (1 << (n - 1)) - 1); };
    const auto c0 = rounded(ATTN_EXP2_ONE), c1 = rounded(ATTN_EXP2_C1), c2 = rounded(ATTN_EXP2_C2);
    const auto c3 = aie::broadcast<int16, LANES>(ATTN_EXP2_C3);
    const auto fraction_bits = aie::broadcast<int16, LANES>((1 << n) - 1);
    const auto octave_bits = aie::broadcast<int16, LANES>(15 << n);
    const auto exponent_step = aie::broadcast<int16, LANES>(1 << (23 - n));
    const auto exponent = accumulators<int, LANES>((127 + 15) << 23);
    const auto integer = accumulators<int, LANES>(0x4b400000).template cast_to<accfloat>();
    const auto half = accumulators<int, LANES>(POWER_BIAS << ATTN_POWER_BITS);
    const auto ones = aie::broadcast<int8, TILE>(1);
    const auto four_ones = aie::broadcast<int8, KEYS * 4>(1);

    values_product probabilities;
    powers_product exact;
    aie::set_saturation(aie::saturation_mode::none);
    for (int unit = 0; unit < UNITS; ++unit) {
        const auto t = aie::load_v<LANES>(s.distances + unit * LANES);
        const auto x = aie::bit_and(t, fraction_bits);
        auto z = aie::msc(c2, x, c3).template to_vector<int16>(n);
        z = aie::msc(c1, x, z).template to_vector<int16>(n);
        z = aie::msc(c0, x, z).template to_vector<int16>(n);
        const auto scale = aie::msc(exponent, aie::bit_and(t, octave_bits), exponent_step).template cast_to<accfloat>();
        const auto two = aie::add(scale, integer).template cast_to<acc32>().template to_vector<uint16>();
        const auto product = aie::mac(half, z, two);
        const auto y = product.template to_vector<int16>(ATTN_POWER_BITS);
        const auto p = product.template to_vector<uint8>(ATTN_POWER_BITS + ATTN_PROBABILITY_DROPPED);
        aie::store_v(s.powers + unit * LANES, y);
        aie::store_v(s.probabilities + unit * LANES, p);
        probabilities.mac(p, ones);
        exact.mac(y, four_ones);
    }
    const auto probability_sums = probabilities.to_vector<int32>(); // four rows of eight equal numbers
    const auto power_sums = exact.to_vector<int32>();               // four of four
    for (int r = 0; r < ATTN_ROWS; ++r) {
        probability_sum[r] = probability_sums.get(static_cast<unsigned>(KEYS * r));
        power_sum[r] = power_sums.get(static_cast<unsigned>(4 * r)) - ATTN_BLOCK * POWER_BIAS;
    }
}

// Takes the probabilities of `out` away, and returns the sums of those that remain.
void hide(const visible &out, scratch &s, rows &probability_sum) {
    const auto zeros = aie::broadcast<uint8, LANES>(0);
    const auto ones = aie::broadcast<int8, TILE>(1);
    values_product probabilities;
    for (int unit = 0; unit < UNITS; ++unit) {
        auto p = aie::load_v<LANES>(s.probabilities + unit * LANES);
        p = aie::select(p, zeros, aie::mask<LANES>::from_uint32(out.unit[unit]));
        aie::store_v(s.probabilities + unit * LANES, p);
        probabilities.mac(p, ones);
    }
    const auto sums = probabilities.to_vector<int32>();
    for (int r = 0; r < ATTN_ROWS; ++r) {
        probability_sum[r] = sums.get(static_cast<unsigned>(KEYS * r));
    }
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
            for (int r = 0; r < ATTN_ROWS; ++r) {
                aie::store_v(s.products + r * dim + column + half * COLUMNS, products.extract<COLUMNS>(static_cast<unsigned>(r)));
            }
        }
    }
}

// Merges a block's products into a row.
void merge_row(const attn_merge &merge, ATTN_INT fraction, bool first, const int32 *products, int32 *accumulator, int dim) {
    const auto factor = aie::broadcast<int16, 16>(static_cast<int16>(static_cast<int32_t>(fraction)));
    for (int column = 0; column < dim; column += 16) {
        auto sum = aie::mul(aie::load_v<16>(products + column), factor).to_vector<int32>(merge.block_lower);
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

// Four rows, and where they are kept.
struct row_group {
    const int8 *query;
    int32 *sum;
    int32 *reference;
    int32 *accumulator; // dim each
};

// Merges the block whose probabilities are in `s` into the rows that see some of it.
void merge(const row_group &group, const attn_magnitude (&magnitudes)[ATTN_ROWS], const rows &probability_sum, const int8 *value,
           int dim, scratch &s) {
    attend_values(value, dim, s);
    aie::set_rounding(aie::rounding_mode::positive_inf);
    for (int r = 0; r < ATTN_ROWS; ++r) {
        if (probability_sum[r] == 0) {
            continue;
        }
        const auto merged = attn_merge_of(group.reference[r], group.sum[r], magnitudes[r], probability_sum[r]);
        merge_row(merged, magnitudes[r].fraction, group.sum[r] == 0, s.products + r * dim, group.accumulator + r * dim, dim);
        group.reference[r] = merged.reference;
        group.sum[r] = merged.sum;
    }
    aie::set_rounding(aie::rounding_mode::floor);
}

// What the keys of `seen` weigh for each row.
void weigh(const attn_parameters &p, const softmax_constants &c, const visible &seen, scratch &s,
           attn_magnitude (&magnitudes)[ATTN_ROWS], rows &probability_sum, rows &power_sum) {
    rows maximum;
    largest(s, seen, maximum);
    for (int r = 0; r < ATTN_ROWS; ++r) {
        magnitudes[r] = attn_magnitude_of(maximum[r], p.score_multiplier, p.score_shift);
    }
    distances(c, seen, maximum, s);
    powers(s, probability_sum, power_sum);
}

// The lanes of row `r`.
constexpr uint32_t lanes_of(int r) { return 0xffu << (KEYS * r); }

// The keys of dominated rows that are far from the maximum; whether there are any.
bool find_far(const visible &seen, uint32_t dominated, const scratch &s, visible &far) {
    const auto edge = aie::broadcast<int16, LANES>(ATTN_FAR_BELOW + POWER_BIAS);
    uint32_t any = 0;
    for (int unit = 0; unit < UNITS; ++unit) {
        const auto below = aie::lt(aie::load_v<LANES>(s.powers + unit * LANES), edge);
        far.unit[unit] = below.to_uint32() & seen.unit[unit] & dominated;
        any |= far.unit[unit];
    }
    far.all = false;
    return any != 0;
}

// Absorbs a block into four rows, of which the first is row `row` of the object.
void absorb(const attn_parameters &p, const softmax_constants &c, const row_group &group, int row, int first, const int8 *key,
            const int8 *value, scratch &s) {
    visible seen{};
    rows count;
    seen.all = true;
    bool none = true;
    for (int r = 0; r < ATTN_ROWS; ++r) {
        count[r] = attn_visible(&p, row + r, first);
        seen.all = seen.all && count[r] == ATTN_BLOCK;
        none = none && count[r] == 0;
    }
    if (none) {
        return;
    }
    for (int unit = 0; unit < UNITS; ++unit) {
        for (int r = 0; r < ATTN_ROWS; ++r) {
            const int keys = seen.all ? KEYS : static_cast<int>(attn_max(attn_min(count[r] - KEYS * unit, KEYS), 0));
            seen.unit[unit] |= ((1u << keys) - 1) << (KEYS * r);
        }
    }

    attend_scores(group.query, key, p.dim, s);
    attn_magnitude magnitudes[ATTN_ROWS];
    rows probability_sum, power_sum;
    weigh(p, c, seen, s, magnitudes, probability_sum, power_sum);
    uint32_t dominated = 0;
    for (int r = 0; r < ATTN_ROWS; ++r) {
        if (magnitudes[r].exponent >= attn_risen(group.reference[r], group.sum[r]) &&
            attn_is_dominated(probability_sum[r], power_sum[r])) {
            dominated |= lanes_of(r);
        }
    }
    visible far;
    const bool split = dominated != 0 && find_far(seen, dominated, s, far);
    if (split) {
        hide(far, s, probability_sum);
    }
    merge(group, magnitudes, probability_sum, value, p.dim, s);
    if (split) {
        weigh(p, c, far, s, magnitudes, probability_sum, power_sum);
        merge(group, magnitudes, probability_sum, value, p.dim, s);
    }
}

// Writes four rows: the accumulators over the sums.
void finish(const attn_parameters &p, const row_group &group, int8 *out) {
    aie::set_rounding(aie::rounding_mode::positive_inf);
    aie::set_saturation(aie::saturation_mode::saturate);
    for (int r = 0; r < ATTN_ROWS; ++r) {
        const int32 *accumulator = group.accumulator + r * p.dim;
        int8 *to = out + r * p.dim;
        if (group.sum[r] == 0) {
            for (int column = 0; column < p.dim; column += 16) {
                aie::store_v(to + column, aie::broadcast<int8, 16>(0));
            }
            continue;
        }
        const auto requantiser = attn_requantiser_of(group.sum[r], p.gain, p.gain_exponent);
        const auto multiplier = aie::broadcast<int16, LANES>(static_cast<int16>(static_cast<int32_t>(requantiser.multiplier)));
        const auto requantise = [&](const auto &accumulators) {
            const auto narrow = accumulators.template to_vector<int16>(requantiser.narrow);
            return aie::mul(narrow, multiplier).template to_vector<int8>(requantiser.widen);
        };
        int column = 0;
        for (; column + LANES <= p.dim; column += LANES) {
            aie::store_v(to + column, requantise(aie::accum<acc32, LANES>(aie::load_v<LANES>(accumulator + column))));
        }
        if (column < p.dim) {
            // 16 columns are left; the lanes behind them are not stored.
            const auto last = aie::load_v<16>(accumulator + column);
            const auto lanes = requantise(aie::accum<acc32, LANES>(aie::concat(last, last)));
            aie::store_v(to + column, lanes.template extract<16>(0));
        }
    }
    aie::set_rounding(aie::rounding_mode::floor);
}

const attn_parameters &parameters_of(const int8 *object) { return *reinterpret_cast<const attn_parameters *>(object); }

int32 *accumulators_of(const attn_state &state) {
    return reinterpret_cast<int32 *>(const_cast<attn_state *>(&state) + 1);
}

} // namespace

extern "C" {

void ATTN_ENTRY(tile)(const int8_t *tile, int8_t *out) {
    const auto &p = parameters_of(tile);
    const softmax_constants constants(p);
    const int8 *query = tile + ATTN_PARAMETERS_BYTES;
    const int8 *key = query + ATTN_QUERY_BYTES(p.queries, p.dim);
    scratch s;
    alignas(ATTN_ALIGNMENT) int32 accumulator[ATTN_ROWS * ATTN_MAX_DIM];
    for (int row = 0; row < p.queries; row += ATTN_ROWS) {
        int32 sum[ATTN_ROWS] = {};
        int32 reference[ATTN_ROWS];
        for (auto &r : reference) {
            r = ATTN_NO_REFERENCE;
        }
        const row_group group{query + row * p.dim, sum, reference, accumulator};
        aie::set_rounding(aie::rounding_mode::floor);
        absorb(p, constants, group, row, 0, key, key + ATTN_KEY_BYTES(p.dim), s);
        finish(p, group, out + row * p.dim);
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
    const softmax_constants constants(p);
    auto &kept = *reinterpret_cast<attn_state *>(state);
    scratch s;
    aie::set_rounding(aie::rounding_mode::floor);
    for (int row = 0; row < p.queries; row += ATTN_ROWS) {
        const row_group group{query + ATTN_PARAMETERS_BYTES + row * p.dim, kept.sum + row, kept.reference + row,
                              accumulators_of(kept) + row * p.dim};
        absorb(p, constants, group, row, kept.next_key, block, block + ATTN_KEY_BYTES(p.dim), s);
    }
    kept.next_key += ATTN_BLOCK;
}

void ATTN_ENTRY(finish)(const int8_t *query, const int8_t *state, int8_t *out) {
    const auto &p = parameters_of(query);
    auto &kept = *const_cast<attn_state *>(reinterpret_cast<const attn_state *>(state));
    for (int row = 0; row < p.queries; row += ATTN_ROWS) {
        const row_group group{nullptr, kept.sum + row, kept.reference + row, accumulators_of(kept) + row * p.dim};
        finish(p, group, out + row * p.dim);
    }
}
}
