"""What a call can leave behind: a recording as an .iwc file, and a virtual camera."""
