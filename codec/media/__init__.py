"""Video and sound files in and out, Opus, face detection and cropping, and PSNR."""
