"""Every attention checked against the dense definition, timed, and judged in dB."""
