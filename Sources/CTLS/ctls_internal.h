/// What the two files of this shim share.
#ifndef NBDMIRROR_CTLS_INTERNAL_H
#define NBDMIRROR_CTLS_INTERNAL_H

#include <gnutls/gnutls.h>
#include <stdbool.h>

#include "CTLS.h"

/// A user and its key.
struct psk {
  uint8_t *user;
  size_t user_count;
  uint8_t *key;
  size_t key_count;
};

struct nbdmirror_tls_credentials {
  bool is_server;
  bool is_psk;
  bool verifies_peer;
  /// What the server must be called; NULL: anything.
  char *host;
  gnutls_priority_t priority;
  gnutls_certificate_credentials_t x509;
  gnutls_psk_server_credentials_t psk_server;
  gnutls_psk_client_credentials_t psk_client;
  /// Of a server, in the file's order.
  struct psk *psks;
  size_t psk_count;
  size_t psk_room;
};

/// The key of a user; NULL: unknown.
const struct psk *nbdmirror_tls_find_psk(
    const nbdmirror_tls_credentials *credentials, const void *user, size_t user_count);

/// GnuTLS' question for the key of a user.
int nbdmirror_tls_psk_callback(
    gnutls_session_t session, const gnutls_datum_t *user, gnutls_datum_t *key);

#endif
