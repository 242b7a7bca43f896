// See CRing.h. Everything that knows liburing is in this file.
#define _GNU_SOURCE
#include "CRing.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#ifndef RWF_DSYNC
#define RWF_DSYNC 2
#endif

struct nbdmirror_ring {
  struct io_uring ring;
  uint32_t features;
  // Completions moved out of the shared queue by a prepare function that found both queues full;
  // reaped first. As large as the completion queue.
  nbdmirror_completion *spill;
  uint32_t spill_count, spill_capacity, spill_next;
};

static int try_create(nbdmirror_ring *self, uint32_t entries, uint32_t flags, uint32_t features) {
  struct io_uring_params parameters;
  memset(&parameters, 0, sizeof parameters);
  parameters.flags = flags;
  if (flags & IORING_SETUP_CQSIZE) parameters.cq_entries = entries * 4;
  int result = io_uring_queue_init_params(entries, &self->ring, &parameters);
  if (result < 0) return result;
  self->features = features;
  self->spill_capacity = parameters.cq_entries;
  return 0;
}

// Accept multishot and poll-first came with 5.19, COOP_TASKRUN's kernel; the kernel has no flag for
// either, so the grant of one tells of the others.
static const uint32_t kernel_5_19 = NBDMIRROR_HAS_MULTISHOT_ACCEPT | NBDMIRROR_HAS_POLL_FIRST;

int nbdmirror_ring_create(uint32_t entries, uint32_t without, nbdmirror_ring **out) {
  const uint32_t base = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  const struct {
    uint32_t flags, features;
  } steps[] = {
      {base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
           IORING_SETUP_TASKRUN_FLAG,
       NBDMIRROR_HAS_SINGLE_ISSUER | NBDMIRROR_HAS_DEFER_TASKRUN | NBDMIRROR_HAS_TASKRUN_FLAG},
      {base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
       NBDMIRROR_HAS_COOP_TASKRUN | NBDMIRROR_HAS_TASKRUN_FLAG},
      {base | IORING_SETUP_SUBMIT_ALL, 0},
      {base, 0},
      {0, 0},
  };
  nbdmirror_ring *self = calloc(1, sizeof *self);
  if (self == NULL) return -ENOMEM;
  int result = -EINVAL;
  for (unsigned step = 0; step < sizeof steps / sizeof steps[0]; step++) {
    if (steps[step].features & without) continue;
    result = try_create(self, entries, steps[step].flags, steps[step].features);
    // Only "I do not know this flag" is worth another try.
    if (result != -EINVAL) break;
  }
  if (result < 0) {
    free(self);
    return result;
  }
  if (self->features != 0) self->features |= kernel_5_19 & ~without;
  self->spill = calloc(self->spill_capacity, sizeof *self->spill);
  if (self->spill == NULL) {
    io_uring_queue_exit(&self->ring);
    free(self);
    return -ENOMEM;
  }
  if (!(without & NBDMIRROR_HAS_REGISTERED_RING) && io_uring_register_ring_fd(&self->ring) == 1)
    self->features |= NBDMIRROR_HAS_REGISTERED_RING;
  *out = self;
  return 0;
}

void nbdmirror_ring_destroy(nbdmirror_ring *self) {
  io_uring_queue_exit(&self->ring);
  free(self->spill);
  free(self);
}

uint32_t nbdmirror_ring_features(const nbdmirror_ring *self) { return self->features; }

int nbdmirror_ring_descriptor(const nbdmirror_ring *self) { return self->ring.ring_fd; }

int nbdmirror_ring_disabled_setting(void) {
  FILE *file = fopen("/proc/sys/kernel/io_uring_disabled", "re");
  int value = -1;
  if (file == NULL) return -1;
  if (fscanf(file, "%d", &value) != 1) value = -1;
  fclose(file);
  return value;
}

int nbdmirror_ring_register_files(nbdmirror_ring *self, uint32_t count) {
  int *files = malloc(count * sizeof *files);
  if (files == NULL) return -ENOMEM;
  for (uint32_t index = 0; index < count; index++) files[index] = -1;
  int result = io_uring_register_files(&self->ring, files, count);
  free(files);
  return result;
}

int nbdmirror_ring_update_file(nbdmirror_ring *self, uint32_t index, int descriptor) {
  int result = io_uring_register_files_update(&self->ring, index, &descriptor, 1);
  return result < 0 ? result : 0;
}

// Moves completions aside so that the kernel can go on; called only when both queues are full.
static void spill(nbdmirror_ring *self) {
  struct io_uring_cqe *entry;
  unsigned head, count = 0;
  if (self->spill_next == self->spill_count) self->spill_next = self->spill_count = 0;
  io_uring_for_each_cqe(&self->ring, head, entry) {
    if (self->spill_count == self->spill_capacity) break;
    self->spill[self->spill_count++] =
        (nbdmirror_completion){entry->user_data, entry->res, entry->flags};
    count++;
  }
  io_uring_cq_advance(&self->ring, count);
}

static struct io_uring_sqe *next_submission_slowly(nbdmirror_ring *self) {
  for (int attempt = 0; attempt < 10000; attempt++) {
    int result = io_uring_submit(&self->ring);
    struct io_uring_sqe *entry = io_uring_get_sqe(&self->ring);
    if (entry != NULL) return entry;
    // -EBUSY: completions have overflowed; -EAGAIN, -ENOMEM: the kernel is short of memory.
    if (result == -EBUSY) spill(self);
    const struct timespec pause = {0, 1000000};
    if (attempt > 1) nanosleep(&pause, NULL);
  }
  return NULL;
}

static inline struct io_uring_sqe *next_submission(nbdmirror_ring *self) {
  struct io_uring_sqe *entry = io_uring_get_sqe(&self->ring);
  return entry != NULL ? entry : next_submission_slowly(self);
}

static inline int finish(struct io_uring_sqe *entry, uint32_t options, uint64_t user_data) {
  entry->user_data = user_data;
  if (options & NBDMIRROR_FIXED_FILE) entry->flags |= IOSQE_FIXED_FILE;
  if (options & NBDMIRROR_ASYNC) entry->flags |= IOSQE_ASYNC;
  return 0;
}

#define NEXT(entry)                                          \
  struct io_uring_sqe *entry = next_submission(self);        \
  if (__builtin_expect(entry == NULL, 0)) return -EBUSY

int nbdmirror_prepare_nop(nbdmirror_ring *self, uint64_t user_data) {
  NEXT(entry);
  io_uring_prep_nop(entry);
  return finish(entry, 0, user_data);
}

int nbdmirror_prepare_read(nbdmirror_ring *self, int fd, void *buffer, uint32_t count,
                           uint64_t offset, uint32_t options, uint64_t user_data) {
  NEXT(entry);
  io_uring_prep_read(entry, fd, buffer, count, offset);
  return finish(entry, options, user_data);
}

int nbdmirror_prepare_write(nbdmirror_ring *self, int fd, const void *buffer, uint32_t count,
                            uint64_t offset, uint32_t options, uint64_t user_data) {
  NEXT(entry);
  io_uring_prep_write(entry, fd, buffer, count, offset);
  if (options & NBDMIRROR_DURABLE) entry->rw_flags = RWF_DSYNC;
  return finish(entry, options, user_data);
}

int nbdmirror_prepare_sync(nbdmirror_ring *self, int fd, uint32_t options, uint64_t user_data) {
  NEXT(entry);
  io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
  return finish(entry, options, user_data);
}

int nbdmirror_prepare_allocate(nbdmirror_ring *self, int fd, int mode, uint64_t offset,
                               uint64_t count, uint32_t options, uint64_t user_data) {
  NEXT(entry);
  io_uring_prep_fallocate(entry, fd, mode, (off_t)offset, (off_t)count);
  return finish(entry, options, user_data);
}

int nbdmirror_prepare_receive(nbdmirror_ring *self, int fd, void *buffer, uint32_t count,
                              uint32_t options, uint64_t user_data) {
  NEXT(entry);
  io_uring_prep_recv(entry, fd, buffer, count, options & NBDMIRROR_WAIT_ALL ? MSG_WAITALL : 0);
  if ((options & NBDMIRROR_POLL_FIRST) && (self->features & NBDMIRROR_HAS_POLL_FIRST))
    entry->ioprio |= IORING_RECVSEND_POLL_FIRST;
  return finish(entry, options, user_data);
}

int nbdmirror_prepare_send(nbdmirror_ring *self, int fd, void *message, void *parts,
                           uint32_t count, uint32_t options, uint64_t user_data) {
  NEXT(entry);
  struct msghdr *header = message;
  memset(header, 0, sizeof *header);
  header->msg_iov = parts;
  header->msg_iovlen = count;
  io_uring_prep_sendmsg(entry, fd, header,
                        MSG_NOSIGNAL | (options & NBDMIRROR_WAIT_ALL ? MSG_WAITALL : 0));
  return finish(entry, options, user_data);
}

int nbdmirror_prepare_accept(nbdmirror_ring *self, int fd, uint64_t user_data) {
  NEXT(entry);
  if (self->features & NBDMIRROR_HAS_MULTISHOT_ACCEPT)
    io_uring_prep_multishot_accept(entry, fd, NULL, NULL, SOCK_CLOEXEC);
  else
    io_uring_prep_accept(entry, fd, NULL, NULL, SOCK_CLOEXEC);
  return finish(entry, 0, user_data);
}

int nbdmirror_prepare_poll(nbdmirror_ring *self, int fd, uint64_t user_data) {
  NEXT(entry);
  io_uring_prep_poll_add(entry, fd, POLLIN);
  return finish(entry, 0, user_data);
}

int nbdmirror_prepare_cancel(nbdmirror_ring *self, uint64_t target, uint64_t user_data) {
  NEXT(entry);
  io_uring_prep_cancel64(entry, target, 0);
  return finish(entry, 0, user_data);
}

int nbdmirror_prepare_close(nbdmirror_ring *self, int fd, uint64_t user_data) {
  NEXT(entry);
  io_uring_prep_close(entry, fd);
  return finish(entry, 0, user_data);
}

static int forgiven(int result) {
  if (result >= 0 || result == -ETIME || result == -EINTR) return 0;
  // Completions have overflowed into the kernel's list: reaping is what helps.
  return result == -EBUSY || result == -EAGAIN ? 0 : result;
}

int nbdmirror_ring_submit_and_wait(nbdmirror_ring *self, uint32_t completions,
                                   int64_t timeout_nanoseconds) {
  if (self->spill_next != self->spill_count) timeout_nanoseconds = 0;
  if (timeout_nanoseconds == 0) {
    // Runs deferred completions even if nothing is submitted.
    return forgiven(io_uring_submit_and_get_events(&self->ring));
  }
  if (timeout_nanoseconds < 0) return forgiven(io_uring_submit_and_wait(&self->ring, completions));
  struct __kernel_timespec limit = {timeout_nanoseconds / 1000000000,
                                    timeout_nanoseconds % 1000000000};
  struct io_uring_cqe *entry;
  return forgiven(
      io_uring_submit_and_wait_timeout(&self->ring, &entry, completions, &limit, NULL));
}

bool nbdmirror_ring_has_work(const nbdmirror_ring *self) {
  const struct io_uring *ring = &self->ring;
  if (__atomic_load_n(ring->cq.ktail, __ATOMIC_ACQUIRE) != *ring->cq.khead) return true;
  const unsigned flags = __atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED);
  if (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) return true;
  return self->spill_next != self->spill_count;
}

uint64_t nbdmirror_monotonic_nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield" ::: "memory");
#endif
}

bool nbdmirror_ring_spin(const nbdmirror_ring *self, uint64_t nanoseconds) {
  const uint64_t end = nbdmirror_monotonic_nanoseconds() + nanoseconds;
  do {
    for (int turn = 0; turn < 16; turn++) {
      if (nbdmirror_ring_has_work(self)) return true;
      relax();
    }
  } while (nbdmirror_monotonic_nanoseconds() < end);
  return false;
}

uint32_t nbdmirror_ring_prepared(const nbdmirror_ring *self) {
  return io_uring_sq_ready(&self->ring);
}

uint32_t nbdmirror_ring_reap(nbdmirror_ring *self, nbdmirror_completion *completions,
                             uint32_t count) {
  uint32_t reaped = 0;
  while (reaped < count && self->spill_next != self->spill_count)
    completions[reaped++] = self->spill[self->spill_next++];
  struct io_uring_cqe *entry;
  unsigned head, taken = 0;
  io_uring_for_each_cqe(&self->ring, head, entry) {
    if (reaped == count) break;
    completions[reaped++] = (nbdmirror_completion){entry->user_data, entry->res, entry->flags};
    taken++;
  }
  io_uring_cq_advance(&self->ring, taken);
  return reaped;
}

int nbdmirror_set_io_flusher(void) {
  return prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0 ? 0 : -errno;
}
