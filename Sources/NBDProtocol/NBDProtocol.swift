// The room NBDProtocol.
