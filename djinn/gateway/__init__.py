"""The only door of a container: model calls now, tools and inbox later. ASGI on a Unix socket."""
