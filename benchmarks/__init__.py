"""Rate, quality, speed and wire measurements, beside the codecs people would use instead."""
