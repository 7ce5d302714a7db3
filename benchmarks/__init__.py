"""Rate, quality, speed and wire measurements, compared with conventional codecs; and the demo."""
