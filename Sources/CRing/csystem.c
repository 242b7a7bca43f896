// See CSystem.h.
#define _GNU_SOURCE
#include "CSystem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int checked(int result) { return result < 0 ? -errno : result; }

int nbdmirror_event_create(void) { return checked(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

void nbdmirror_event_signal(int event) {
  // Fails only when the counter is at its limit: then a wake-up is pending anyway.
  (void)eventfd_write(event, 1);
}

void nbdmirror_event_clear(int event) {
  eventfd_t value;
  (void)eventfd_read(event, &value);
}

int nbdmirror_signals_create(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  signal(SIGPIPE, SIG_IGN);
  int result = pthread_sigmask(SIG_BLOCK, &set, NULL);
  if (result != 0) return -result;
  return checked(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
}

int nbdmirror_signals_take(int signals) {
  struct signalfd_siginfo information;
  ssize_t count = read(signals, &information, sizeof information);
  return count == (ssize_t)sizeof information ? (int)information.ssi_signo : 0;
}

int64_t nbdmirror_read(int fd, void *buffer, uint64_t count, uint64_t offset) {
  ssize_t result;
  do {
    result = pread(fd, buffer, count, (off_t)offset);
  } while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

int64_t nbdmirror_write(int fd, const void *buffer, uint64_t count, uint64_t offset, bool durable) {
  ssize_t result;
  do {
    if (durable) {
      const struct iovec part = {(void *)buffer, count};
      result = pwritev2(fd, &part, 1, (off_t)offset, RWF_DSYNC);
    } else {
      result = pwrite(fd, buffer, count, (off_t)offset);
    }
  } while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

int nbdmirror_allocate(int fd, int mode, uint64_t offset, uint64_t count) {
  int result;
  do {
    result = fallocate(fd, mode, (off_t)offset, (off_t)count);
  } while (result < 0 && errno == EINTR);
  return checked(result);
}

int nbdmirror_sync(int fd) { return checked(fdatasync(fd)); }

int nbdmirror_punch_hole(int fd, uint64_t offset, uint64_t count) {
  return checked(fallocate(
      fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)count));
}

int64_t nbdmirror_file_system(int fd) {
  struct statfs information;
  return fstatfs(fd, &information) < 0 ? -errno : (int64_t)(uint32_t)information.f_type;
}

int nbdmirror_memory_file(void) { return checked(memfd_create("nbdmirror", MFD_CLOEXEC)); }

int nbdmirror_send_datagram(const char *address, const char *text) {
  struct sockaddr_un target = {.sun_family = AF_UNIX};
  size_t length = strlen(address);
  if (length == 0 || length >= sizeof target.sun_path) return -EINVAL;
  memcpy(target.sun_path, address, length);
  if (target.sun_path[0] == '@') target.sun_path[0] = 0;
  int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -errno;
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  ssize_t sent = sendto(descriptor, text, strlen(text), MSG_NOSIGNAL,
                        (const struct sockaddr *)&target, size);
  int result = sent < 0 ? -errno : 0;
  close(descriptor);
  return result;
}

void nbdmirror_name_thread(int number) {
  char name[16];
  snprintf(name, sizeof name, "reactor %d", number);
  pthread_setname_np(pthread_self(), name);
}

/// A file in memory that holds `text` and stands at its start, or -errno.
static int memory_file_of(const char *text) {
  int file = nbdmirror_memory_file();
  if (file < 0) return file;
  size_t length = strlen(text);
  int error = 0;
  if (write(file, text, length) != (ssize_t)length) error = errno ? errno : EIO;
  if (!error && lseek(file, 0, SEEK_SET) < 0) error = errno;
  if (!error) return file;
  close(file);
  return -error;
}

int nbdmirror_spawn(const char *path, const char *text) {
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  sigset_t none, all;
  pid_t process = 0;
  char *arguments[] = {(char *)path, NULL};
  int input = memory_file_of(text);
  if (input < 0) return input;
  int error = posix_spawnattr_init(&attributes);
  if (error) {
    close(input);
    return -error;
  }
  error = posix_spawn_file_actions_init(&actions);
  if (error) {
    posix_spawnattr_destroy(&attributes);
    close(input);
    return -error;
  }
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  error = posix_spawn_file_actions_adddup2(&actions, input, 0);
  if (!error) error = posix_spawn_file_actions_adddup2(&actions, 2, 1);
  if (!error) error = posix_spawn(&process, path, &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  close(input);
  return error ? -error : process;
}

int nbdmirror_has_ended(int process) {
  int status = 0;
  int result = waitpid(process, &status, WNOHANG);
  if (result < 0) return errno == EINTR ? 0 : -errno;
  if (result == 0) return 0;
  return 1 + (WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
