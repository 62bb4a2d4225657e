"""Messages and files in, raw cubes out."""
