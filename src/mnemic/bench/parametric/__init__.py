"""`mnemic bench parametric`: what learned memories are worth, what they cost, and what they forget."""
