"""A call: camera, transport, jitter buffer, audio, display."""
