/// What Swift's Glibc module does not import: O_DIRECT, OFD locks, statx, block device ioctls,
/// fallocate, getrandom. Every function returns 0 (or a descriptor) or a negative errno.
#ifndef NBDMIRROR_CLEGS_H
#define NBDMIRROR_CLEGS_H

#include <stddef.h>
#include <stdint.h>

enum {
  NBDMIRROR_PV_WRITABLE = 1,
  /// Past the page cache (O_DIRECT).
  NBDMIRROR_PV_DIRECT = 2,
  /// O_EXCL of a block device: nobody else holds or mounts it.
  NBDMIRROR_PV_EXCLUSIVE = 4,
  /// A new regular file, mode 0600; EEXIST if something has that name.
  NBDMIRROR_PV_CREATE = 8,
};

/// Opens `path` close-on-exec with the flags above.
int nbdmirror_pv_open(const char *path, int flags);

/// Takes the write lock of the open file description over the whole file, without waiting;
/// -EAGAIN or -EACCES if another has it.
int nbdmirror_pv_lock(int fd);

/// What an open descriptor stands for.
struct nbdmirror_pv_geometry {
  uint64_t bytes;
  /// Storage that a file has.
  uint64_t allocated_bytes;
  /// Logical sector of a block device; 0 for a file.
  uint32_t sector_bytes;
  /// What offsets and lengths of direct I/O must be multiples of (STATX_DIOALIGN, Linux 6.1);
  /// 0: not possible; UINT32_MAX: the kernel does not say.
  uint32_t direct_bytes;
  int is_regular;
  int is_block;
  /// Device and inode (of a block device: its device number and 0): two paths, one PV?
  uint64_t device;
  uint64_t inode;
};

/// Fills `geometry`.
int nbdmirror_pv_geometry(int fd, struct nbdmirror_pv_geometry *geometry);

/// Makes the range read as zeros and gives the storage back.
int nbdmirror_pv_punch(int fd, uint64_t offset, uint64_t count);

/// Makes the range read as zeros with the storage kept.
int nbdmirror_pv_zero(int fd, uint64_t offset, uint64_t count);

/// Takes storage for the range.
int nbdmirror_pv_allocate(int fd, uint64_t offset, uint64_t count);

/// Fills `count` bytes, at most 256, from the kernel's random generator.
int nbdmirror_random(void *bytes, size_t count);

#endif
