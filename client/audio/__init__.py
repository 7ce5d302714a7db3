"""Audio of a call: capture, Opus track and its RTP transceiver, jitter buffer, loudspeaker."""
