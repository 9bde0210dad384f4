"""What the sample services share: settings, log styles, the HTTP frame, token checks, the notes store."""
