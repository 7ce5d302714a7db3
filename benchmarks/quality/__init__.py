"""Rate and quality: our codec, conventional codecs, bounds, and the paper's tables."""
