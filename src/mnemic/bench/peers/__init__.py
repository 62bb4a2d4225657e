"""Other products behind the `System` protocol: one file a family, only their public calls."""
