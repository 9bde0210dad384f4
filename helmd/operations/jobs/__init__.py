"""Jobs: operations that outlive the request for them, each in a transient unit of its own."""
