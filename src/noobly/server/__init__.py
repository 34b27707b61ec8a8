"""The HTTP side: the native and the legacy API, health, metrics and the keys that open them."""
