"""When: what is done in the background, and by whom."""
