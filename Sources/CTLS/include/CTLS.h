/// GnuTLS in memory, for the room TLS. No type of GnuTLS appears here; GnuTLS is linked here.
///
/// A session owns no bytes of the wire: every call lends it what came in and room for what goes out,
/// and GnuTLS takes and puts through callbacks that copy. Nothing is kept of a lent pointer after
/// the call. Credentials may be used by sessions of many threads, a session by one at a time.
#ifndef NBDMIRROR_CTLS_H
#define NBDMIRROR_CTLS_H

#include <stddef.h>
#include <stdint.h>

/// What a call came to.
enum {
  NBDMIRROR_TLS_DONE = 0,
  /// Everything that was lent is taken, and more is needed.
  NBDMIRROR_TLS_WANTS_WIRE,
  /// The room for output is used up; call again with more.
  NBDMIRROR_TLS_WANTS_ROOM,
  /// The peer said close_notify.
  NBDMIRROR_TLS_PEER_CLOSED,

  // Failures of a session.
  NBDMIRROR_TLS_NOT_TLS,
  NBDMIRROR_TLS_VERSION,
  NBDMIRROR_TLS_CIPHER,
  NBDMIRROR_TLS_UNKNOWN_USER,
  NBDMIRROR_TLS_WRONG_KEY,
  NBDMIRROR_TLS_NO_CERTIFICATE,
  /// The certificate does not verify; the detail is one of NBDMIRROR_TLS_BECAUSE_...
  NBDMIRROR_TLS_CERTIFICATE,
  /// The peer sent a fatal alert; the detail is its number.
  NBDMIRROR_TLS_ALERT,
  /// A record that was changed on its way.
  NBDMIRROR_TLS_CORRUPTED,
  /// NBDMIRROR_TLS_FRUITLESS_BYTES_MAX came without result.
  NBDMIRROR_TLS_TOO_MUCH,
  /// Anything else against the rules; the detail is GnuTLS' error.
  NBDMIRROR_TLS_VIOLATION,
  NBDMIRROR_TLS_MEMORY,

  // Failures of credentials.
  NBDMIRROR_TLS_MALFORMED,
  NBDMIRROR_TLS_KEY_MISMATCH,
  NBDMIRROR_TLS_KEY_ENCRYPTED,
};

/// Why a certificate does not verify.
enum {
  NBDMIRROR_TLS_BECAUSE_OTHER = 0,
  NBDMIRROR_TLS_BECAUSE_SIGNER,
  NBDMIRROR_TLS_BECAUSE_EXPIRED,
  NBDMIRROR_TLS_BECAUSE_NOT_YET_VALID,
  NBDMIRROR_TLS_BECAUSE_REVOKED,
  NBDMIRROR_TLS_BECAUSE_PURPOSE,
  NBDMIRROR_TLS_BECAUSE_HOST,
  NBDMIRROR_TLS_BECAUSE_WEAK,
};

enum {
  /// A record with its headers, its padding and a key update before it needs at most this much room
  /// beyond its plaintext; an alert needs at most this much.
  NBDMIRROR_TLS_OVERHEAD_BYTES_MAX = 512,
  /// What a peer may send without completing the handshake, or, after it, without any plaintext.
  NBDMIRROR_TLS_FRUITLESS_BYTES_MAX = 131072,
  /// Plaintext of one record.
  NBDMIRROR_TLS_RECORD_BYTES_MAX = 16384,
  /// Of a PSK, as psktool has it.
  NBDMIRROR_TLS_PSK_BYTES_MAX = 512,
  /// Of a PSK's user name, a limit of GnuTLS.
  NBDMIRROR_TLS_USER_BYTES_MAX = 128,
};

typedef struct nbdmirror_tls_credentials nbdmirror_tls_credentials;
typedef struct nbdmirror_tls_session nbdmirror_tls_session;

/// New credentials, for pre-shared keys or for certificates; NULL: no memory.
nbdmirror_tls_credentials *nbdmirror_tls_credentials_new(int is_server, int is_psk);

/// Wipes the keys. No session may use the credentials any more.
void nbdmirror_tls_credentials_free(nbdmirror_tls_credentials *credentials);

/// The priority string, NUL-terminated.
int nbdmirror_tls_credentials_set_priority(
    nbdmirror_tls_credentials *credentials, const char *priority);

/// A certificate authority, PEM.
int nbdmirror_tls_credentials_set_trust(
    nbdmirror_tls_credentials *credentials, const void *pem, size_t count);

/// A revocation list, PEM.
int nbdmirror_tls_credentials_set_revoked(
    nbdmirror_tls_credentials *credentials, const void *pem, size_t count);

/// Our own certificate (chain) and its key, PEM.
int nbdmirror_tls_credentials_set_key(
    nbdmirror_tls_credentials *credentials, const void *certificate, size_t certificate_count,
    const void *key, size_t key_count);

/// A server: clients must show a certificate. A client: the server's certificate must be for `host`
/// (NUL-terminated, may be NULL: then any host).
int nbdmirror_tls_credentials_verify_peer(
    nbdmirror_tls_credentials *credentials, const char *host);

/// A server: one more user, the key in hexadecimal digits. A client: the one user.
int nbdmirror_tls_credentials_add_psk(
    nbdmirror_tls_credentials *credentials, const void *user, size_t user_count, const void *hex,
    size_t hex_count);

/// What is lent to a call, and what the call did with it.
struct nbdmirror_tls_io {
  const void *wire;
  size_t wire_count;
  void *output;
  size_t output_count;
  size_t wire_taken;
  size_t output_made;
};

/// A new session, server or client as the credentials are, which must outlive it; NULL: no memory.
nbdmirror_tls_session *nbdmirror_tls_session_new(const nbdmirror_tls_credentials *credentials);

/// Frees a session without a word to the peer.
void nbdmirror_tls_session_free(nbdmirror_tls_session *session);

/// Goes on with the handshake; DONE: it is complete.
int nbdmirror_tls_session_handshake(
    nbdmirror_tls_session *session, struct nbdmirror_tls_io *io);

/// Reads plaintext, at most `count` (not 0) bytes; DONE: `*made` (not 0) bytes.
int nbdmirror_tls_session_read(
    nbdmirror_tls_session *session, struct nbdmirror_tls_io *io, void *plaintext, size_t count,
    size_t *made);

/// Sends one record, at most `count` (not 0) bytes; DONE: `*taken` (not 0) bytes.
/// The room must be `count` and NBDMIRROR_TLS_OVERHEAD_BYTES_MAX.
int nbdmirror_tls_session_write(
    nbdmirror_tls_session *session, struct nbdmirror_tls_io *io, const void *plaintext,
    size_t count, size_t *taken);

/// Says close_notify. The room must be NBDMIRROR_TLS_OVERHEAD_BYTES_MAX.
int nbdmirror_tls_session_close(nbdmirror_tls_session *session, struct nbdmirror_tls_io *io);

/// Tells the peer with a fatal alert why the session failed, if that is for it to know.
/// The room must be NBDMIRROR_TLS_OVERHEAD_BYTES_MAX.
void nbdmirror_tls_session_alert(nbdmirror_tls_session *session, struct nbdmirror_tls_io *io);

/// Bytes of plaintext that the next read gives without anything from the wire.
size_t nbdmirror_tls_session_pending(nbdmirror_tls_session *session);

/// What goes with the last failure, see there.
int32_t nbdmirror_tls_session_detail(const nbdmirror_tls_session *session);

/// Names of what was negotiated ("TLS1.3", "AES-128-GCM"); NULL before. The strings are static.
const char *nbdmirror_tls_session_version(const nbdmirror_tls_session *session);
const char *nbdmirror_tls_session_cipher(const nbdmirror_tls_session *session);

/// The name of an alert; NULL if it has none. The string is static.
const char *nbdmirror_tls_alert_name(int32_t alert);

/// Who the peer is: a PSK's user, or the distinguished name of a certificate. Copies at most `room`
/// bytes and returns how many; 0: nobody said.
size_t nbdmirror_tls_session_peer(nbdmirror_tls_session *session, void *name, size_t room);

#endif
