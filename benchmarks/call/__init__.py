"""Calls measured over simulated paths, over WebRTC in one process, and between real processes."""
