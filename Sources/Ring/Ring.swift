// The room Ring.
