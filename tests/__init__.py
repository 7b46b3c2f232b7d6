"""The tests: folders mirror meshdns/, `e2e` runs real servers and clients."""
