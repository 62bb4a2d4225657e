"""Who may do what, how long things are kept, what is never stored, and the account of it all."""
