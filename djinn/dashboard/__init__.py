"""The pages, and the socket that keeps them live."""
