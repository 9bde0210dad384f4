"""HTTP: one route table, who may call what, problems as RFC 9457, the sockets it is served on."""
