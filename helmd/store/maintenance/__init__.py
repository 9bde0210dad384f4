"""The schema, its partitions and their indexes, as the tables' owner keeps them."""
