/// Generic netlink sockets, whose addresses and options Swift's Glibc module does not import.
///
/// Negative results are errno values.
#ifndef NBDMIRROR_CNETLINK_H
#define NBDMIRROR_CNETLINK_H

#include <stdint.h>

/// A bound generic netlink socket, close-on-exec; what is sent on it goes to the kernel.
int nbdmirror_netlink_open(void);

/// Makes the socket hear what is sent to `group`.
int nbdmirror_netlink_join(int fd, uint32_t group);

/// Sends one message to the kernel, which has acted on it when this returns.
int nbdmirror_netlink_send(int fd, const void *bytes, uint32_t count);

/// Receives one datagram of the kernel into `bytes`: its length. Anybody else's is dropped. Waits for
/// one if `wait`, else -EAGAIN when there is none. -EMSGSIZE: it was longer than `count`; -ENOBUFS:
/// some were lost.
int64_t nbdmirror_netlink_receive(int fd, void *bytes, uint32_t count, int wait);

#endif
