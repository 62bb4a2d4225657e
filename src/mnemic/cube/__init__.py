"""The vocabulary of mnemic. No I/O; nothing third-party but pydantic."""
