"""A notebook as data, as text and as a request body."""
