"""What becomes what: one file per pair of kinds."""
