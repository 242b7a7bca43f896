// The threads on which controller calls run, since they may block.

import NIOCore
import NIOPosix
import Synchronization

/// One thread for commands, two for everything else.
///
/// The queues are bounded by the number of connections: each has at most one request under way.
final class ControlThreads: Sendable {
  private let commands = NIOThreadPool(numberOfThreads: 1)
  private let queries = NIOThreadPool(numberOfThreads: 2)
  private let running = Atomic<Int>(0)

  init() {
    commands.start()
    queries.start()
  }

  /// Runs `body` on a thread where it may block.
  func run(
    isCommand: Bool, on loop: any EventLoop, _ body: @escaping @Sendable () -> Response
  ) -> EventLoopFuture<Response> {
    (isCommand ? commands : queries).runIfActive(eventLoop: loop) { [self] in
      running.wrappingAdd(1, ordering: .relaxed)
      defer { running.wrappingSubtract(1, ordering: .relaxed) }
      return body()
    }
  }

  /// Ends the threads as soon as they are idle; what waits in their queues fails.
  /// - Returns: whether nothing runs any more.
  @discardableResult
  func stop() -> Bool {
    commands.shutdownGracefully { _ in }
    queries.shutdownGracefully { _ in }
    return running.load(ordering: .relaxed) == 0
  }
}
