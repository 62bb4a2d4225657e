"""Training of models made of layers: optimisers, text, a loop that resumes bit by bit, checkpoints."""
