"""The journal and posted entries into the store; reading and following them."""
