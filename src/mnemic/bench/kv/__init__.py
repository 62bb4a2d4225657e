"""`mnemic bench kv`: cache policies on a real model, at equal budgets, beside kvpress."""
