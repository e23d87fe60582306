// The host model's state, as others see it.
#include "aie_api/aie.hpp"

#include <stdio.h>
#include <stdlib.h>

void model_reset() {
    model::operations = model_operations{};
    model_forget_modes();
}

void model_forget_modes() {
    model::rounding = aie::rounding_mode::unset;
    model::saturation = aie::saturation_mode::unset;
}

model_operations model_operations_read() { return model::operations; }

void model_fail(const char *what) {
    fprintf(stderr, "the host model of AIE2: %s\n", what);
    abort();
}
