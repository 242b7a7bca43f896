// The functions of malloc(3) in the test's executable, which come before those of libc; each
// counts and hands on to libc's own.
#include "CAllocationCounter.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

// Initial-exec: reading it never allocates.
static _Thread_local bool watched __attribute__((tls_model("initial-exec")));
static _Atomic uint64_t total;

static inline void count(void) {
  if (watched) atomic_fetch_add_explicit(&total, 1, memory_order_relaxed);
}

void allocation_counter_watch(bool on) { watched = on; }

uint64_t allocation_counter_total(void) { return total; }

void *malloc(size_t size) {
  count();
  return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
  count();
  return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) {
  count();
  return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  count();
  return __libc_memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
  count();
  *result = __libc_memalign(alignment, size);
  return *result == NULL ? ENOMEM : 0;
}
