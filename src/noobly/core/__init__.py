"""What every service is made of: declarations, binding, errors, configuration, codecs, events, time."""
