// Steps of the vector kernel, for tests of all their inputs: the kernel itself, and names for what it keeps to itself.
#include "../aie2/attention_tile.cc"

extern "C" {

// Powers and probabilities of 256 distances, eight units of 32.
void attn_aie2_powers(const int16_t *distances, int16_t *powers_out, uint8_t *probabilities) {
    scratch s;
    weights w;
    set_modes();
    for (int lane = 0; lane < UNITS * LANES; ++lane) {
        s.distances[lane] = distances[lane];
    }
    powers(s, w);
    for (int lane = 0; lane < UNITS * LANES; ++lane) {
        powers_out[lane] = static_cast<int16_t>(s.powers[lane] - POWER_BIAS);
        probabilities[lane] = s.probabilities[lane];
    }
}

// How far scores are below `maximum`, the same for all rows.
void attn_aie2_distances(int32_t score_multiplier, int32_t score_shift, int32_t maximum, const int32_t *scores, int16_t *out) {
    attn_parameters p{};
    p.score_multiplier = score_multiplier;
    p.score_shift = score_shift;
    const constants k(p);
    visible seen{};
    seen.all = true;
    const rows maxima = {maximum, maximum, maximum, maximum};
    scratch s;
    for (int lane = 0; lane < UNITS * LANES; ++lane) {
        s.scores[lane] = scores[lane];
    }
    set_modes();
    distances(k, seen, s.scores, maxima, s);
    for (int lane = 0; lane < UNITS * LANES; ++lane) {
        out[lane] = s.distances[lane];
    }
}
}
