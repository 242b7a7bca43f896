// The room Legs.
