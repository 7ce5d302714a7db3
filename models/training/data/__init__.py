"""Training data: finding clips, decoding them into a cache, facial landmarks and sampling batches."""
