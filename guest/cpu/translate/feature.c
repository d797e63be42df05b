/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * feature: what the CPU model shows.  In a file of its own because the decoder numbers
 * features in another way than the models do; they meet by name.
 */
#include "guest/cpu/models.h"

struct cpu_model;
bool model_offers(const struct cpu_model *model, const char *feature);

bool model_offers(const struct cpu_model *model, const char *feature)
{
    return cpu_model_has(model, feature);
}
