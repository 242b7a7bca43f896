// The room Faults.
