/// Credentials: keys, certificates and the priority string. See CTLS.h.
#include <stdlib.h>
#include <string.h>

#include "ctls_internal.h"

nbdmirror_tls_credentials *nbdmirror_tls_credentials_new(int is_server, int is_psk) {
  nbdmirror_tls_credentials *made = calloc(1, sizeof *made);
  if (made == NULL) return NULL;
  made->is_server = is_server != 0;
  made->is_psk = is_psk != 0;
  int code;
  if (!made->is_psk) {
    code = gnutls_certificate_allocate_credentials(&made->x509);
    // For clients of TLS 1.2 that know no elliptic curves and name no group.
    if (code >= 0 && made->is_server) {
      code = gnutls_certificate_set_known_dh_params(made->x509, GNUTLS_SEC_PARAM_MEDIUM);
    }
  } else if (made->is_server) {
    code = gnutls_psk_allocate_server_credentials(&made->psk_server);
    if (code >= 0) {
      gnutls_psk_set_server_credentials_function2(made->psk_server, nbdmirror_tls_psk_callback);
      code = gnutls_psk_set_server_known_dh_params(made->psk_server, GNUTLS_SEC_PARAM_MEDIUM);
    }
  } else {
    code = gnutls_psk_allocate_client_credentials(&made->psk_client);
  }
  if (code >= 0) return made;
  nbdmirror_tls_credentials_free(made);
  return NULL;
}

void nbdmirror_tls_credentials_free(nbdmirror_tls_credentials *credentials) {
  for (size_t i = 0; i < credentials->psk_count; i++) {
    struct psk *psk = &credentials->psks[i];
    gnutls_memset(psk->key, 0, psk->key_count);
    free(psk->key);
    free(psk->user);
  }
  free(credentials->psks);
  free(credentials->host);
  if (credentials->priority != NULL) gnutls_priority_deinit(credentials->priority);
  if (credentials->x509 != NULL) gnutls_certificate_free_credentials(credentials->x509);
  if (credentials->psk_server != NULL) gnutls_psk_free_server_credentials(credentials->psk_server);
  if (credentials->psk_client != NULL) gnutls_psk_free_client_credentials(credentials->psk_client);
  free(credentials);
}

static int classify(int code) {
  if (code >= 0) return NBDMIRROR_TLS_DONE;
  switch (code) {
    case GNUTLS_E_MEMORY_ERROR:
      return NBDMIRROR_TLS_MEMORY;
    case GNUTLS_E_CERTIFICATE_KEY_MISMATCH:
      return NBDMIRROR_TLS_KEY_MISMATCH;
    case GNUTLS_E_DECRYPTION_FAILED:
    case GNUTLS_E_PKCS11_PIN_ERROR:
      return NBDMIRROR_TLS_KEY_ENCRYPTED;
    default:
      return NBDMIRROR_TLS_MALFORMED;
  }
}

int nbdmirror_tls_credentials_set_priority(
    nbdmirror_tls_credentials *credentials, const char *priority) {
  return classify(gnutls_priority_init(&credentials->priority, priority, NULL));
}

static gnutls_datum_t datum(const void *bytes, size_t count) {
  // GnuTLS only reads what these point to; its struct has no const.
  return (gnutls_datum_t){(unsigned char *)bytes, (unsigned int)count};
}

int nbdmirror_tls_credentials_set_trust(
    nbdmirror_tls_credentials *credentials, const void *pem, size_t count) {
  gnutls_datum_t bytes = datum(pem, count);
  int code = gnutls_certificate_set_x509_trust_mem(
      credentials->x509, &bytes, GNUTLS_X509_FMT_PEM);
  // A file without a certificate trusts nobody, which nobody wants.
  return code == 0 ? NBDMIRROR_TLS_MALFORMED : classify(code);
}

int nbdmirror_tls_credentials_set_revoked(
    nbdmirror_tls_credentials *credentials, const void *pem, size_t count) {
  gnutls_datum_t bytes = datum(pem, count);
  int code = gnutls_certificate_set_x509_crl_mem(credentials->x509, &bytes, GNUTLS_X509_FMT_PEM);
  return code == 0 ? NBDMIRROR_TLS_MALFORMED : classify(code);
}

int nbdmirror_tls_credentials_set_key(
    nbdmirror_tls_credentials *credentials, const void *certificate, size_t certificate_count,
    const void *key, size_t key_count) {
  gnutls_datum_t certificate_bytes = datum(certificate, certificate_count);
  gnutls_datum_t key_bytes = datum(key, key_count);
  return classify(gnutls_certificate_set_x509_key_mem(
      credentials->x509, &certificate_bytes, &key_bytes, GNUTLS_X509_FMT_PEM));
}

int nbdmirror_tls_credentials_verify_peer(
    nbdmirror_tls_credentials *credentials, const char *host) {
  credentials->verifies_peer = true;
  if (host == NULL) return NBDMIRROR_TLS_DONE;
  credentials->host = strdup(host);
  return credentials->host == NULL ? NBDMIRROR_TLS_MEMORY : NBDMIRROR_TLS_DONE;
}

static int digit(uint8_t character) {
  if (character >= '0' && character <= '9') return character - '0';
  if (character >= 'a' && character <= 'f') return character - 'a' + 10;
  if (character >= 'A' && character <= 'F') return character - 'A' + 10;
  return -1;
}

/// Decodes into `bytes`, which has room for half of `count`.
static bool decode_hex(const uint8_t *hex, size_t count, uint8_t *bytes) {
  for (size_t i = 0; i < count; i += 2) {
    int high = digit(hex[i]), low = digit(hex[i + 1]);
    if (high < 0 || low < 0) return false;
    bytes[i / 2] = (uint8_t)(high << 4 | low);
  }
  return true;
}

/// Room for one more.
static bool grow(nbdmirror_tls_credentials *credentials) {
  if (credentials->psk_count < credentials->psk_room) return true;
  size_t room = credentials->psk_room == 0 ? 16 : 2 * credentials->psk_room;
  struct psk *more = realloc(credentials->psks, room * sizeof *more);
  if (more == NULL) return false;
  credentials->psks = more;
  credentials->psk_room = room;
  return true;
}

/// Takes over the key's and user's memory if it succeeds.
static int add(nbdmirror_tls_credentials *credentials, struct psk psk) {
  if (credentials->is_server) {
    if (!grow(credentials)) return NBDMIRROR_TLS_MEMORY;
    credentials->psks[credentials->psk_count++] = psk;
    return NBDMIRROR_TLS_DONE;
  }
  gnutls_datum_t user = datum(psk.user, psk.user_count);
  gnutls_datum_t key = datum(psk.key, psk.key_count);
  // GnuTLS makes copies.
  int result = classify(gnutls_psk_set_client_credentials2(
      credentials->psk_client, &user, &key, GNUTLS_PSK_KEY_RAW));
  if (result != NBDMIRROR_TLS_DONE) return result;
  gnutls_memset(psk.key, 0, psk.key_count);
  free(psk.key);
  free(psk.user);
  return NBDMIRROR_TLS_DONE;
}

int nbdmirror_tls_credentials_add_psk(
    nbdmirror_tls_credentials *credentials, const void *user, size_t user_count, const void *hex,
    size_t hex_count) {
  if (user_count == 0 || user_count > NBDMIRROR_TLS_USER_BYTES_MAX) return NBDMIRROR_TLS_MALFORMED;
  if (hex_count == 0 || hex_count % 2 != 0 || hex_count / 2 > NBDMIRROR_TLS_PSK_BYTES_MAX) {
    return NBDMIRROR_TLS_MALFORMED;
  }
  struct psk psk = {malloc(user_count), user_count, malloc(hex_count / 2), hex_count / 2};
  int result = NBDMIRROR_TLS_MEMORY;
  if (psk.user != NULL && psk.key != NULL) {
    memcpy(psk.user, user, user_count);
    result = decode_hex(hex, hex_count, psk.key) ? add(credentials, psk) : NBDMIRROR_TLS_MALFORMED;
  }
  if (result == NBDMIRROR_TLS_DONE) return result;
  if (psk.key != NULL) gnutls_memset(psk.key, 0, psk.key_count);
  free(psk.key);
  free(psk.user);
  return result;
}

const struct psk *nbdmirror_tls_find_psk(
    const nbdmirror_tls_credentials *credentials, const void *user, size_t user_count) {
  for (size_t i = 0; i < credentials->psk_count; i++) {
    const struct psk *psk = &credentials->psks[i];
    if (psk->user_count == user_count && memcmp(psk->user, user, user_count) == 0) return psk;
  }
  return NULL;
}
