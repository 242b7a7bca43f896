/// io_uring for nbdmirror, over liburing, with no liburing type in sight.
///
/// One ring belongs to one thread: the thread that calls `nbdmirror_ring_create` makes every other
/// call (only `nbdmirror_ring_create` on another ring may run beside it). Numbers that are negative
/// are errno values, as everywhere in liburing. Nothing here allocates after creation.
///
/// A `prepare` function fills one submission. A full submission queue is submitted on the way, so
/// a prepare function fails only when the kernel takes no submissions for ten seconds
/// (-EBUSY); memory that is handed in must stay valid until the completion is reaped.
///
/// liburing.h stays inside cring.c because Debian's 2.3 clashes with <linux/io_uring.h> in other
/// Swift modules. Constants newer than 2.3 are defined there by their kernel values.
#ifndef NBDMIRROR_CRING_H
#define NBDMIRROR_CRING_H

#include "CSystem.h"

#include <stdbool.h>
#include <stdint.h>

/// A ring; opaque.
typedef struct nbdmirror_ring nbdmirror_ring;

/// One completion, copied out of the shared queue.
typedef struct {
  /// What the submission carried.
  uint64_t user_data;
  /// Result: a count or a descriptor, or a negative errno.
  int32_t result;
  /// NBDMIRROR_MORE, NBDMIRROR_SOCKET_NONEMPTY.
  uint32_t flags;
} nbdmirror_completion;

/// A completion of a multishot submission that stays armed (IORING_CQE_F_MORE).
#define NBDMIRROR_MORE 2u
/// After a receive: the socket held more data (IORING_CQE_F_SOCK_NONEMPTY).
#define NBDMIRROR_SOCKET_NONEMPTY 4u

/// Submission option: the descriptor is an index into the registered files.
#define NBDMIRROR_FIXED_FILE 1u
/// Receive option: do not try before the socket reports data (kernel 5.19; else ignored).
#define NBDMIRROR_POLL_FIRST 2u
/// Receive and send option: complete only when everything moved (MSG_WAITALL).
#define NBDMIRROR_WAIT_ALL 4u
/// Write option: durable on completion (RWF_DSYNC).
#define NBDMIRROR_DURABLE 8u
/// Not tried at once: a thread of the ring does it from the start.
#define NBDMIRROR_ASYNC 16u

/// What the kernel granted; bits of nbdmirror_ring_features.
#define NBDMIRROR_HAS_SINGLE_ISSUER 1u
#define NBDMIRROR_HAS_DEFER_TASKRUN 2u
#define NBDMIRROR_HAS_COOP_TASKRUN 4u
#define NBDMIRROR_HAS_TASKRUN_FLAG 8u
#define NBDMIRROR_HAS_REGISTERED_RING 16u
#define NBDMIRROR_HAS_MULTISHOT_ACCEPT 32u
#define NBDMIRROR_HAS_POLL_FIRST 64u

/// Makes a ring with room for `entries` submissions (a power of two) and four times as many
/// completions, with the best set of flags that the kernel takes.
///
/// Tried in this order, each step for an older kernel: SINGLE_ISSUER with DEFER_TASKRUN (6.1),
/// COOP_TASKRUN (5.19), SUBMIT_ALL (5.18), CQSIZE (5.5). `without` holds NBDMIRROR_HAS_* bits not
/// to use: tests walk the fallbacks with it.
/// Returns 0, or -errno: -ENOSYS and -EPERM mean that io_uring is not available at all.
int nbdmirror_ring_create(uint32_t entries, uint32_t without, nbdmirror_ring **ring);

/// Closes the ring; what is in flight is cancelled by the kernel.
void nbdmirror_ring_destroy(nbdmirror_ring *ring);

/// NBDMIRROR_HAS_* bits.
uint32_t nbdmirror_ring_features(const nbdmirror_ring *ring);

/// The ring's descriptor, for messages.
int nbdmirror_ring_descriptor(const nbdmirror_ring *ring);

/// The value of /proc/sys/kernel/io_uring_disabled, or -1 if there is none.
int nbdmirror_ring_disabled_setting(void);

/// Registers a table of `count` files, all empty. 0 or -errno (kernel 5.12).
int nbdmirror_ring_register_files(nbdmirror_ring *ring, uint32_t count);

/// Puts `descriptor` (-1: nothing) into place `index` of the table. 0 or -errno.
int nbdmirror_ring_update_file(nbdmirror_ring *ring, uint32_t index, int descriptor);

int nbdmirror_prepare_nop(nbdmirror_ring *ring, uint64_t user_data);
int nbdmirror_prepare_read(nbdmirror_ring *ring, int fd, void *buffer, uint32_t count,
                           uint64_t offset, uint32_t options, uint64_t user_data);
int nbdmirror_prepare_write(nbdmirror_ring *ring, int fd, const void *buffer, uint32_t count,
                            uint64_t offset, uint32_t options, uint64_t user_data);
/// fdatasync.
int nbdmirror_prepare_sync(nbdmirror_ring *ring, int fd, uint32_t options, uint64_t user_data);
/// `mode` as in fallocate(2).
int nbdmirror_prepare_allocate(nbdmirror_ring *ring, int fd, int mode, uint64_t offset,
                               uint64_t count, uint32_t options, uint64_t user_data);
int nbdmirror_prepare_receive(nbdmirror_ring *ring, int fd, void *buffer, uint32_t count,
                              uint32_t options, uint64_t user_data);
/// Sends `parts` (struct iovec[count]) in order; `message` is a struct msghdr that the caller owns
/// and this function fills. Both stay until the completion. MSG_NOSIGNAL is always set.
int nbdmirror_prepare_send(nbdmirror_ring *ring, int fd, void *message, void *parts,
                           uint32_t count, uint32_t options, uint64_t user_data);
/// Accepts connections (SOCK_CLOEXEC): multishot if the kernel can, else once; NBDMIRROR_MORE in
/// the completion tells which.
int nbdmirror_prepare_accept(nbdmirror_ring *ring, int fd, uint64_t user_data);
/// Waits once until `fd` is readable.
int nbdmirror_prepare_poll(nbdmirror_ring *ring, int fd, uint64_t user_data);
/// Cancels the submission that carries `target`; its completion says -ECANCELED.
int nbdmirror_prepare_cancel(nbdmirror_ring *ring, uint64_t target, uint64_t user_data);
int nbdmirror_prepare_close(nbdmirror_ring *ring, int fd, uint64_t user_data);

/// Submits what is prepared and waits until `completions` of them are there, or for
/// `timeout_nanoseconds` (negative: for ever; 0: does not wait, but runs pending completions).
/// Returns 0 also on timeout and interruption; else -errno.
int nbdmirror_ring_submit_and_wait(nbdmirror_ring *ring, uint32_t completions,
                                   int64_t timeout_nanoseconds);

/// Whether a completion waits, or the kernel has one ready to run: memory reads, no system call.
bool nbdmirror_ring_has_work(const nbdmirror_ring *ring);

/// Reads the queue for up to `nanoseconds` without a system call; true as soon as
/// nbdmirror_ring_has_work is.
bool nbdmirror_ring_spin(const nbdmirror_ring *ring, uint64_t nanoseconds);

/// Number of submissions prepared and not submitted.
uint32_t nbdmirror_ring_prepared(const nbdmirror_ring *ring);

/// Copies up to `count` completions out and frees their places. Returns how many.
uint32_t nbdmirror_ring_reap(nbdmirror_ring *ring, nbdmirror_completion *completions,
                             uint32_t count);

/// CLOCK_MONOTONIC in nanoseconds.
uint64_t nbdmirror_monotonic_nanoseconds(void);

/// prctl(PR_SET_IO_FLUSHER): memory that this process needs never waits for its own writeback, as
/// when a file system lies on a device that it serves. 0 or -errno (needs CAP_SYS_RESOURCE).
int nbdmirror_set_io_flusher(void);

#endif
