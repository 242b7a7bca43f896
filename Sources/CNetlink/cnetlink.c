// Source: netlink(7).
#define _GNU_SOURCE
#include "CNetlink.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int nbdmirror_netlink_open(void) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) return -errno;
  struct sockaddr_nl address;
  memset(&address, 0, sizeof address);
  address.nl_family = AF_NETLINK;
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

int nbdmirror_netlink_join(int fd, uint32_t group) {
  int number = (int)group;
  return setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &number, sizeof number) < 0 ? -errno : 0;
}

int nbdmirror_netlink_send(int fd, const void *bytes, uint32_t count) {
  struct sockaddr_nl kernel;
  memset(&kernel, 0, sizeof kernel);
  kernel.nl_family = AF_NETLINK;
  ssize_t sent;
  do sent = sendto(fd, bytes, count, 0, (struct sockaddr *)&kernel, sizeof kernel);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) return -errno;
  return (size_t)sent == count ? 0 : -EMSGSIZE;
}

int64_t nbdmirror_netlink_receive(int fd, void *bytes, uint32_t count, int wait) {
  for (;;) {
    struct sockaddr_nl sender;
    memset(&sender, 0, sizeof sender);
    socklen_t length = sizeof sender;
    // MSG_TRUNC: the length of the datagram, also if it did not fit.
    ssize_t got = recvfrom(fd, bytes, count, MSG_TRUNC | (wait ? 0 : MSG_DONTWAIT),
                           (struct sockaddr *)&sender, &length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (sender.nl_pid != 0) continue;
    return (size_t)got > count ? -EMSGSIZE : got;
  }
}
