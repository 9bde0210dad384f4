"""HTTP: route table, authorization, problem documents (RFC 9457), server sockets."""
