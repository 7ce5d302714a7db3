"""Video calls: capture, signalling, WebRTC transport, jitter buffers, display and recording."""
