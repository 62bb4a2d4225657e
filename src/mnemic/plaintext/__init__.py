"""Text memory, in the order data flows: ingest, recall, compose."""
