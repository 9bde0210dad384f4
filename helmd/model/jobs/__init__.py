"""Jobs: operations that outlive the request for them."""
