"""The routes, a file each; they translate between HTTP and the rest of the service."""
