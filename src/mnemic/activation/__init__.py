"""What a model has computed: KV caches and cache policies, task vectors. Imports torch."""
