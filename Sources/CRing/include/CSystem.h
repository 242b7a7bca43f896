/// System calls that the Glibc module of Swift does not show, and whose constants are macros.
///
/// Negative results are errno values.
#ifndef NBDMIRROR_CSYSTEM_H
#define NBDMIRROR_CSYSTEM_H

#include <stdbool.h>
#include <stdint.h>

/// An eventfd, non-blocking and close-on-exec.
int nbdmirror_event_create(void);
/// Adds one to an eventfd: whoever polls it wakes up. Safe from any thread.
void nbdmirror_event_signal(int event);
/// Sets an eventfd back to zero.
void nbdmirror_event_clear(int event);

/// Blocks SIGTERM and SIGINT in the calling thread (threads made later inherit that), ignores
/// SIGPIPE, and returns a signalfd of the two, non-blocking and close-on-exec.
int nbdmirror_signals_create(void);
/// Takes one signal out of a signalfd: its number, or 0 if none waits.
int nbdmirror_signals_take(int signals);

/// pread(2), again after EINTR.
int64_t nbdmirror_read(int fd, void *buffer, uint64_t count, uint64_t offset);
/// pwrite(2), again after EINTR; `durable`: RWF_DSYNC.
int64_t nbdmirror_write(int fd, const void *buffer, uint64_t count, uint64_t offset, bool durable);
/// fallocate(2), again after EINTR.
int nbdmirror_allocate(int fd, int mode, uint64_t offset, uint64_t count);
/// fdatasync(2).
int nbdmirror_sync(int fd);

/// Punches a hole and keeps the file's size (fallocate): 0 or -errno.
int nbdmirror_punch_hole(int fd, uint64_t offset, uint64_t count);

/// The magic number of the file system that holds `fd` (statfs), or -errno.
int64_t nbdmirror_file_system(int fd);

/// An anonymous file in memory, for tests.
int nbdmirror_memory_file(void);

/// Starts a program: standard input is a file with `text`, standard output where our standard error goes, no
/// other descriptor (all of ours are close-on-exec), no signal blocked or ignored. Its process or
/// -errno.
int nbdmirror_spawn(const char *path, const char *text);

/// Whether a child has ended (then it is reaped): 1 + its exit status (128 + signal if one ended it),
/// 0 if it runs, or -errno.
int nbdmirror_has_ended(int process);

/// Sends one datagram to a unix socket address (`@` first: abstract), as sd_notify does. 0/-errno.
int nbdmirror_send_datagram(const char *address, const char *text);

/// Names the calling thread `reactor N`, for top and gdb.
void nbdmirror_name_thread(int number);

#endif
