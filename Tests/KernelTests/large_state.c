// Preloaded into User-Mode Linux: lets its 6.1 kernel run on processors with AMX.
//
// It keeps 2696 bytes of extended registers for a process, which is all up to the protection keys. A
// processor with AMX has 11 KiB of them, and the host refuses to set a part (EFAULT). So a part is
// laid over what the process has, and all is set. What lies behind the part are AMX's tiles, which
// nothing in the guest was given leave to use.
//
// Source: ptrace(2), PTRACE_SETREGSET; Linux arch/x86/kernel/fpu/regset.c, xstateregs_set.
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

static long call(long request, long process, void *address, void *data) {
  return syscall(SYS_ptrace, request, process, address, data);
}

long ptrace(enum __ptrace_request request, ...) {
  va_list arguments;
  va_start(arguments, request);
  long process = va_arg(arguments, int);
  void *address = va_arg(arguments, void *);
  void *data = va_arg(arguments, void *);
  va_end(arguments);
  if ((request == PTRACE_PEEKDATA || request == PTRACE_PEEKTEXT || request == PTRACE_PEEKUSER)) {
    // The system call stores the word, the library's function returns it.
    long word = 0;
    long result = call(request, process, address, &word);
    return result < 0 ? result : word;
  }
  if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
    struct iovec *part = data;
    _Alignas(64) static __thread char whole[64 << 10];
    struct iovec all = {whole, sizeof whole};
    if (call(PTRACE_GETREGSET, process, address, &all) == 0 && part->iov_len < all.iov_len) {
      memcpy(whole, part->iov_base, part->iov_len);
      return call(request, process, address, &all);
    }
  }
  return call(request, process, address, data);
}
