"""Outside: what both sides need of the network."""
