/// CRC32C (Castagnoli), the checksum of every on-disk structure of nbdmirror.
#ifndef NBDMIRROR_CCHECKSUM_H
#define NBDMIRROR_CCHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/// Extends `crc` (0 for a new checksum) over `count` bytes at `bytes`.
///
/// Uses the SSE4.2 or ARMv8 CRC instruction where the processor has it, else a table; all
/// paths give the same value. `bytes` may have any alignment and may be NULL if `count` is 0.
/// Source: RFC 3720, appendix B.4 (test vectors).
uint32_t nbdmirror_crc32c(uint32_t crc, const void *bytes, size_t count);

/// The table path, whatever the processor: for tests that compare the two.
uint32_t nbdmirror_crc32c_portable(uint32_t crc, const void *bytes, size_t count);

#endif
