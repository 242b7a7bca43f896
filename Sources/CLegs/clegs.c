#define _GNU_SOURCE
#include "CLegs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/types.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x00002000U
#endif

int nbdmirror_pv_open(const char *path, int flags) {
  int how = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  how |= flags & NBDMIRROR_PV_WRITABLE ? O_RDWR : O_RDONLY;
  if (flags & NBDMIRROR_PV_DIRECT) how |= O_DIRECT;
  if (flags & NBDMIRROR_PV_EXCLUSIVE) how |= O_EXCL;
  if (flags & NBDMIRROR_PV_CREATE) how |= O_CREAT | O_EXCL;
  int fd;
  do fd = open(path, how, 0600);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return -errno;
  // O_NONBLOCK only keeps open() from waiting for the writer of a FIFO.
  int status = fcntl(fd, F_GETFL);
  if (status >= 0) fcntl(fd, F_SETFL, status & ~O_NONBLOCK);
  return fd;
}

int nbdmirror_pv_lock(int fd) {
  struct flock lock;
  memset(&lock, 0, sizeof lock);
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

// STATX_DIOALIGN's answer, or UINT32_MAX. The two words are read at their place in the kernel's
// struct statx (stx_dio_mem_align at 152, stx_dio_offset_align at 156): libc's may be older.
static uint32_t direct_bytes(int fd) {
  struct statx status;
  _Static_assert(sizeof status == 256, "the kernel's struct statx has 256 bytes");
  memset(&status, 0, sizeof status);
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) < 0) return UINT32_MAX;
  if (!(status.stx_mask & STATX_DIOALIGN)) return UINT32_MAX;
  uint32_t align[2];
  memcpy(align, (const char *)&status + 152, sizeof align);
  return align[0] == 0 ? 0 : align[1];
}

int nbdmirror_pv_geometry(int fd, struct nbdmirror_pv_geometry *geometry) {
  memset(geometry, 0, sizeof *geometry);
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  geometry->is_regular = S_ISREG(status.st_mode);
  geometry->is_block = S_ISBLK(status.st_mode);
  if (geometry->is_block) {
    int sector = 0;
    if (ioctl(fd, BLKGETSIZE64, &geometry->bytes) < 0) return -errno;
    if (ioctl(fd, BLKSSZGET, &sector) < 0) return -errno;
    geometry->sector_bytes = (uint32_t)sector;
    geometry->device = status.st_rdev;
  } else {
    geometry->bytes = (uint64_t)status.st_size;
    geometry->allocated_bytes = (uint64_t)status.st_blocks * 512;
    geometry->device = status.st_dev;
    geometry->inode = status.st_ino;
  }
  geometry->direct_bytes = direct_bytes(fd);
  return 0;
}

static int allocate(int fd, int mode, uint64_t offset, uint64_t count) {
  int result;
  do result = fallocate(fd, mode, (off_t)offset, (off_t)count);
  while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : 0;
}

int nbdmirror_pv_punch(int fd, uint64_t offset, uint64_t count) {
  return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count);
}

int nbdmirror_pv_zero(int fd, uint64_t offset, uint64_t count) {
  return allocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, count);
}

int nbdmirror_pv_allocate(int fd, uint64_t offset, uint64_t count) {
  return -posix_fallocate(fd, (off_t)offset, (off_t)count);
}

int nbdmirror_random(void *bytes, size_t count) {
  ssize_t got;
  do got = getrandom(bytes, count, 0);
  while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  return (size_t)got == count ? 0 : -EIO;
}
