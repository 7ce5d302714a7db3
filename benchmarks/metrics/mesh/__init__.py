"""Face landmarks by MediaPipe's models, run without MediaPipe."""
