"""Video of a call: capture, encoding for all peers, and the link to each of them over data channels."""
