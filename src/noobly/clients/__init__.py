"""What several services' providers share about one product: connections, statements, transports."""
