/// Sessions: GnuTLS between two lent pieces of memory. See CTLS.h.
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>

#include "ctls_internal.h"

enum {
  /// Of the key that an unknown user gets.
  RANDOM_KEY_BYTES = 32,
};

struct nbdmirror_tls_session {
  gnutls_session_t gnutls;
  const nbdmirror_tls_credentials *credentials;
  /// Lent; NULL outside of calls.
  struct nbdmirror_tls_io *io;
  /// Why a callback said EAGAIN: WANTS_WIRE, WANTS_ROOM or 0.
  int wants;
  bool is_handshaking;
  /// Whether GnuTLS asked for the key of a user, and it has one.
  bool has_asked_for_key;
  bool is_user_unknown;
  /// The first bytes of the wire: a TLS record begins with its type and the version's 3.
  uint8_t start[2];
  size_t start_count;
  /// Bytes of the wire since there was a result. GnuTLS' own limit of a handshake looks at whole
  /// messages only, and collects up to 16 MB for one.
  size_t fruitless_count;
  /// GnuTLS' last error that was a failure.
  int failure;
  int32_t detail;
  /// What GnuTLS checks the peer's certificate for; it keeps a pointer.
  gnutls_typed_vdata_st checks[2];
};

static ssize_t wait_for(nbdmirror_tls_session *session, int what) {
  session->wants = what;
  gnutls_transport_set_errno(session->gnutls, EAGAIN);
  return -1;
}

static ssize_t pull(gnutls_transport_ptr_t pointer, void *bytes, size_t count) {
  nbdmirror_tls_session *session = pointer;
  struct nbdmirror_tls_io *io = session->io;
  size_t left = io == NULL ? 0 : io->wire_count - io->wire_taken;
  if (left == 0) return wait_for(session, NBDMIRROR_TLS_WANTS_WIRE);
  if (count > left) count = left;
  session->fruitless_count += count;
  if (session->fruitless_count > NBDMIRROR_TLS_FRUITLESS_BYTES_MAX) {
    gnutls_transport_set_errno(session->gnutls, EMSGSIZE);
    return -1;
  }
  const uint8_t *wire = (const uint8_t *)io->wire + io->wire_taken;
  memcpy(bytes, wire, count);
  for (size_t i = 0; i < count && session->start_count < sizeof session->start; i++) {
    session->start[session->start_count++] = wire[i];
  }
  io->wire_taken += count;
  return (ssize_t)count;
}

static ssize_t push(gnutls_transport_ptr_t pointer, const void *bytes, size_t count) {
  nbdmirror_tls_session *session = pointer;
  struct nbdmirror_tls_io *io = session->io;
  size_t room = io == NULL ? 0 : io->output_count - io->output_made;
  if (room == 0) return wait_for(session, NBDMIRROR_TLS_WANTS_ROOM);
  if (count > room) count = room;
  memcpy((uint8_t *)io->output + io->output_made, bytes, count);
  io->output_made += count;
  return (ssize_t)count;
}

/// GnuTLS asks before it pulls, at times; without this it would ask poll().
static int is_readable(gnutls_transport_ptr_t pointer, unsigned int milliseconds) {
  (void)milliseconds;
  const nbdmirror_tls_session *session = pointer;
  return session->io != NULL && session->io->wire_taken < session->io->wire_count;
}

/// Stands in for GnuTLS' own, which writes all secrets to the file that SSLKEYLOGFILE names.
static int keep_secrets(gnutls_session_t session, const char *label, const gnutls_datum_t *secret) {
  (void)session, (void)label, (void)secret;
  return 0;
}

int nbdmirror_tls_psk_callback(
    gnutls_session_t gnutls, const gnutls_datum_t *user, gnutls_datum_t *key) {
  nbdmirror_tls_session *session = gnutls_session_get_ptr(gnutls);
  const struct psk *psk = nbdmirror_tls_find_psk(session->credentials, user->data, user->size);
  // An unknown user gets a key that nobody has: on the wire it looks like a wrong key.
  session->has_asked_for_key = true;
  session->is_user_unknown = psk == NULL;
  unsigned int count = psk == NULL ? RANDOM_KEY_BYTES : (unsigned int)psk->key_count;
  key->data = gnutls_malloc(count);
  if (key->data == NULL) return -1;
  key->size = count;
  if (psk != NULL) {
    memcpy(key->data, psk->key, count);
    return 0;
  }
  return gnutls_rnd(GNUTLS_RND_KEY, key->data, count) < 0 ? -1 : 0;
}

static int set_credentials(nbdmirror_tls_session *session) {
  const nbdmirror_tls_credentials *credentials = session->credentials;
  if (credentials->is_psk) {
    return gnutls_credentials_set(
        session->gnutls, GNUTLS_CRD_PSK,
        credentials->is_server ? (void *)credentials->psk_server : (void *)credentials->psk_client);
  }
  int code = gnutls_credentials_set(session->gnutls, GNUTLS_CRD_CERTIFICATE, credentials->x509);
  if (code < 0 || !credentials->verifies_peer) return code;
  unsigned int count = 0;
  session->checks[count].type = GNUTLS_DT_KEY_PURPOSE_OID;
  session->checks[count++].data =
      (void *)(credentials->is_server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER);
  if (credentials->host != NULL) {
    session->checks[count].type = GNUTLS_DT_DNS_HOSTNAME;
    session->checks[count++].data = (void *)credentials->host;
  }
  gnutls_session_set_verify_cert2(session->gnutls, session->checks, count, 0);
  if (credentials->is_server) {
    gnutls_certificate_server_set_request(session->gnutls, GNUTLS_CERT_REQUIRE);
  } else if (credentials->host != NULL) {
    code = gnutls_server_name_set(
        session->gnutls, GNUTLS_NAME_DNS, credentials->host, strlen(credentials->host));
  }
  return code;
}

nbdmirror_tls_session *nbdmirror_tls_session_new(const nbdmirror_tls_credentials *credentials) {
  nbdmirror_tls_session *made = calloc(1, sizeof *made);
  if (made == NULL) return NULL;
  made->credentials = credentials;
  made->is_handshaking = true;
  // Without tickets a session cannot be resumed past the check of a certificate.
  unsigned int flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS |
                       (credentials->is_server ? GNUTLS_SERVER : GNUTLS_CLIENT);
  if (gnutls_init(&made->gnutls, flags) < 0) {
    free(made);
    return NULL;
  }
  gnutls_session_set_ptr(made->gnutls, made);
  gnutls_session_set_keylog_function(made->gnutls, keep_secrets);
  gnutls_transport_set_ptr(made->gnutls, made);
  gnutls_transport_set_pull_function(made->gnutls, pull);
  gnutls_transport_set_push_function(made->gnutls, push);
  gnutls_transport_set_pull_timeout_function(made->gnutls, is_readable);
  if (gnutls_priority_set(made->gnutls, credentials->priority) < 0 || set_credentials(made) < 0) {
    nbdmirror_tls_session_free(made);
    return NULL;
  }
  return made;
}

void nbdmirror_tls_session_free(nbdmirror_tls_session *session) {
  gnutls_deinit(session->gnutls);
  free(session);
}

static int32_t verification_detail(gnutls_session_t gnutls) {
  unsigned int status = gnutls_session_get_verify_cert_status(gnutls);
  // From the special to the general: several bits may be set.
  if (status & GNUTLS_CERT_REVOKED) return NBDMIRROR_TLS_BECAUSE_REVOKED;
  if (status & GNUTLS_CERT_EXPIRED) return NBDMIRROR_TLS_BECAUSE_EXPIRED;
  if (status & GNUTLS_CERT_NOT_ACTIVATED) return NBDMIRROR_TLS_BECAUSE_NOT_YET_VALID;
  if (status & GNUTLS_CERT_PURPOSE_MISMATCH) return NBDMIRROR_TLS_BECAUSE_PURPOSE;
  if (status & GNUTLS_CERT_UNEXPECTED_OWNER) return NBDMIRROR_TLS_BECAUSE_HOST;
  if (status & GNUTLS_CERT_INSECURE_ALGORITHM) return NBDMIRROR_TLS_BECAUSE_WEAK;
  if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNER_NOT_CA |
                GNUTLS_CERT_SIGNATURE_FAILURE)) {
    return NBDMIRROR_TLS_BECAUSE_SIGNER;
  }
  return NBDMIRROR_TLS_BECAUSE_OTHER;
}

/// Whether the wire began like a record: alert, handshake, or one of their neighbours.
static bool is_tls(const nbdmirror_tls_session *session) {
  return session->start_count < 1 ||
         (session->start[0] >= 20 && session->start[0] <= 23 &&
          (session->start_count < 2 || session->start[1] == 3));
}

/// Bytes that do not fit the keys: of TLS 1.2 a Finished that does not decrypt, of TLS 1.3 a binder
/// in the hello (which GnuTLS calls an illegal parameter).
static int misfit(const nbdmirror_tls_session *session, int otherwise) {
  if (!session->is_handshaking || !session->has_asked_for_key) return otherwise;
  return session->is_user_unknown ? NBDMIRROR_TLS_UNKNOWN_USER : NBDMIRROR_TLS_WRONG_KEY;
}

/// The table of errors.
static int classify(nbdmirror_tls_session *session, int code) {
  session->failure = code;
  session->detail = code;
  if (session->fruitless_count > NBDMIRROR_TLS_FRUITLESS_BYTES_MAX) return NBDMIRROR_TLS_TOO_MUCH;
  if (session->is_handshaking && !is_tls(session)) return NBDMIRROR_TLS_NOT_TLS;
  switch (code) {
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
      return NBDMIRROR_TLS_VERSION;
    case GNUTLS_E_NO_CIPHER_SUITES:
    case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
    case GNUTLS_E_NO_COMMON_KEY_SHARE:
      return NBDMIRROR_TLS_CIPHER;
    case GNUTLS_E_DECRYPTION_FAILED:
      return misfit(session, NBDMIRROR_TLS_CORRUPTED);
    case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER:
      return misfit(session, NBDMIRROR_TLS_VIOLATION);
    case GNUTLS_E_NO_CERTIFICATE_FOUND:
    case GNUTLS_E_CERTIFICATE_REQUIRED:
      return NBDMIRROR_TLS_NO_CERTIFICATE;
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
      session->detail = verification_detail(session->gnutls);
      return NBDMIRROR_TLS_CERTIFICATE;
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
      session->detail = (int32_t)gnutls_alert_get(session->gnutls);
      return NBDMIRROR_TLS_ALERT;
    case GNUTLS_E_MEMORY_ERROR:
      return NBDMIRROR_TLS_MEMORY;
    default:
      return NBDMIRROR_TLS_VIOLATION;
  }
}

static void begin(nbdmirror_tls_session *session, struct nbdmirror_tls_io *io) {
  session->io = io;
  session->wants = 0;
}

static int end(nbdmirror_tls_session *session, ssize_t code) {
  session->io = NULL;
  if (code >= 0) return NBDMIRROR_TLS_DONE;
  if (code == GNUTLS_E_AGAIN && session->wants != 0) return session->wants;
  return classify(session, (int)code);
}

/// Whether to call GnuTLS again at once: it returned because it read something that is none of our
/// business (a warning, an empty record). That took bytes, so that this ends.
static bool is_to_repeat(nbdmirror_tls_session *session, ssize_t code, size_t *taken) {
  if (code != GNUTLS_E_AGAIN && code != GNUTLS_E_INTERRUPTED &&
      code != GNUTLS_E_WARNING_ALERT_RECEIVED) {
    return false;
  }
  if (code == GNUTLS_E_AGAIN && session->wants != 0) return false;
  bool has_moved = session->io->wire_taken > *taken;
  *taken = session->io->wire_taken;
  return has_moved;
}

int nbdmirror_tls_session_handshake(
    nbdmirror_tls_session *session, struct nbdmirror_tls_io *io) {
  begin(session, io);
  size_t taken = io->wire_taken;
  int code;
  do code = gnutls_handshake(session->gnutls);
  while (is_to_repeat(session, code, &taken));
  int result = end(session, code);
  if (result == NBDMIRROR_TLS_DONE) {
    session->is_handshaking = false;
    session->fruitless_count = 0;
  }
  return result;
}

int nbdmirror_tls_session_read(
    nbdmirror_tls_session *session, struct nbdmirror_tls_io *io, void *plaintext, size_t count,
    size_t *made) {
  begin(session, io);
  size_t taken = io->wire_taken;
  ssize_t code;
  do code = gnutls_record_recv(session->gnutls, plaintext, count);
  while (is_to_repeat(session, code, &taken));
  *made = code > 0 ? (size_t)code : 0;
  if (code > 0) session->fruitless_count = 0;
  int result = end(session, code);
  return code == 0 ? NBDMIRROR_TLS_PEER_CLOSED : result;
}

int nbdmirror_tls_session_write(
    nbdmirror_tls_session *session, struct nbdmirror_tls_io *io, const void *plaintext,
    size_t count, size_t *taken) {
  begin(session, io);
  ssize_t code = gnutls_record_send(session->gnutls, plaintext, count);
  *taken = code > 0 ? (size_t)code : 0;
  return end(session, code);
}

int nbdmirror_tls_session_close(nbdmirror_tls_session *session, struct nbdmirror_tls_io *io) {
  begin(session, io);
  return end(session, gnutls_bye(session->gnutls, GNUTLS_SHUT_WR));
}

void nbdmirror_tls_session_alert(nbdmirror_tls_session *session, struct nbdmirror_tls_io *io) {
  if (session->failure == 0 || session->failure == GNUTLS_E_FATAL_ALERT_RECEIVED) return;
  begin(session, io);
  gnutls_alert_send_appropriate(session->gnutls, session->failure);
  session->io = NULL;
}

size_t nbdmirror_tls_session_pending(nbdmirror_tls_session *session) {
  return gnutls_record_check_pending(session->gnutls);
}

int32_t nbdmirror_tls_session_detail(const nbdmirror_tls_session *session) {
  return session->detail;
}

const char *nbdmirror_tls_session_version(const nbdmirror_tls_session *session) {
  if (session->is_handshaking) return NULL;
  return gnutls_protocol_get_name(gnutls_protocol_get_version(session->gnutls));
}

const char *nbdmirror_tls_session_cipher(const nbdmirror_tls_session *session) {
  if (session->is_handshaking) return NULL;
  return gnutls_cipher_get_name(gnutls_cipher_get(session->gnutls));
}

const char *nbdmirror_tls_alert_name(int32_t alert) {
  return gnutls_alert_get_name((gnutls_alert_description_t)alert);
}

static size_t copy(void *to, size_t room, const gnutls_datum_t *from) {
  size_t count = from->size < room ? from->size : room;
  memcpy(to, from->data, count);
  return count;
}

size_t nbdmirror_tls_session_peer(nbdmirror_tls_session *session, void *name, size_t room) {
  if (session->is_handshaking) return 0;
  if (session->credentials->is_psk) {
    gnutls_datum_t user = {NULL, 0};
    if (!session->credentials->is_server ||
        gnutls_psk_server_get_username2(session->gnutls, &user) < 0) {
      return 0;
    }
    return copy(name, room, &user);
  }
  unsigned int count = 0;
  const gnutls_datum_t *chain = gnutls_certificate_get_peers(session->gnutls, &count);
  gnutls_x509_crt_t certificate;
  if (chain == NULL || count == 0 || gnutls_x509_crt_init(&certificate) < 0) return 0;
  size_t copied = 0;
  gnutls_datum_t text = {NULL, 0};
  if (gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) >= 0 &&
      gnutls_x509_crt_get_dn3(certificate, &text, 0) >= 0) {
    copied = copy(name, room, &text);
    gnutls_free(text.data);
  }
  gnutls_x509_crt_deinit(certificate);
  return copied;
}
