/// Counts the allocations of chosen threads by standing in front of malloc. Tests only.
#ifndef CALLOCATIONCOUNTER_H
#define CALLOCATIONCOUNTER_H

#include <stdbool.h>
#include <stdint.h>

/// Counts (or no longer counts) what the calling thread allocates.
void allocation_counter_watch(bool on);

/// Allocations of all watched threads so far: malloc, calloc, realloc and aligned ones.
uint64_t allocation_counter_total(void);

#endif
