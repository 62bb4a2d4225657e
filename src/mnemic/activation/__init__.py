"""What a model has computed: KV caches and the policies that bound them. Needs the torch extra.

from mnemic.activation.lazy import LazyEviction
model.generate(**inputs, past_key_values=LazyEviction(budget=512).cache(model))
"""
