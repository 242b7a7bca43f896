// The room MirrorFormat: what stands on a PV. Placeholder until its files land.
