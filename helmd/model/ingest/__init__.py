"""What is posted to Helm: bodies, entries, measurements, rate limits."""
