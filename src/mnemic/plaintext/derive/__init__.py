"""What was told into what is known: derived cubes, which always cite what they were made from."""
