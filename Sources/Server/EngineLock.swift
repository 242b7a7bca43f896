// The lock around the engine.
//
// A pthread mutex of the adaptive kind: it spins for the few microseconds that another reactor's
// batch takes before it sleeps. (`Mutex` would do as well, but its body must not touch the
// reactor's own lists beside the state it protects: region isolation forbids to mix the two.)

import Glibc

/// Protects a value that several threads change in turn.
@safe
final class EngineLock<Value: ~Copyable>: @unchecked Sendable {  // `value` only under `mutex`.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private var value: Value

  init(_ value: consuming Value) {
    self.value = value
    unsafe mutex = .allocate(capacity: 1)
    // The mutex and its attributes live as long as they are used; failures are impossible here
    // (pthread_mutex_init allocates nothing on Linux).
    unsafe mutex.initialize(to: pthread_mutex_t())
    var attributes = pthread_mutexattr_t()
    unsafe pthread_mutexattr_init(&attributes)
    unsafe pthread_mutexattr_settype(&attributes, Int32(PTHREAD_MUTEX_ADAPTIVE_NP))
    unsafe pthread_mutex_init(mutex, &attributes)
    unsafe pthread_mutexattr_destroy(&attributes)
  }

  deinit {
    unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }

  /// Runs `body` alone. Not reentrant.
  @inline(__always)
  func withLock<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    return try body(&value)
  }
}
