"""Video of a call: capture, encoding for all peers, and the jitter buffer of each peer's frames."""
